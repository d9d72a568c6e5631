"""``.. public:: trio_streamrpc.connect``: what autodoc says of a public name, and no more.

It stands in an ``eval-rst`` block, since autodoc writes reStructuredText.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

from docutils.nodes import Node
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from docs.public import (
    comment_of,
    comment_on,
    has_constructor,
    members_of,
    opens_block,
    public_names,
)

__all__ = ["setup"]


class Public(SphinxDirective):
    """A public name, with the members that are for users.

    ``:bare:`` leaves these out; ``:decorator:`` is for one, whose types say less than its options.
    """

    required_arguments = 1
    option_spec: ClassVar = {"bare": directives.flag, "decorator": directives.flag}

    def run(self) -> list[Node]:
        [name] = self.arguments
        value = public_names()[name]
        kind = kind_of(value)
        if "decorator" in self.options:
            options, said = [":decorator:"], inspect.getdoc(value)
            return self.described("function", f"{name}{options_of(value)}", options, said)
        if kind == "data":
            options = [f":value: {value}"] if isinstance(value, int) else []
            return self.described("data", name, options, comment_on(name))
        # Where there is none to be found, autodoc is not to look for it.
        signature = "()" if kind == "exception" and not has_constructor(value) else ""
        lines = [f".. auto{kind}:: {name}{signature}"]
        if kind == "exception":
            lines.append("   :show-inheritance:")
        if inspect.isclass(value) and "bare" not in self.options:
            lines += self.members(name, value)
        return self.parse_text_to_nodes("\n".join(lines))

    def described(
        self, kind: str, signature: str, options: list[str], said: str | None
    ) -> list[Node]:
        """What autodoc would look for in the wrong place, or say in too many words."""
        name, bracket, rest = signature.partition("(")
        module, _, short = name.rpartition(".")
        lines = [f".. {kind}:: {short}{bracket}{rest}", f"   :module: {module}"]
        lines += [f"   {each}" for each in options]
        lines += ["", *(f"   {line}" for line in str(said).splitlines())]
        return self.parse_text_to_nodes("\n".join(lines))

    def members(self, name: str, cls: type) -> list[str]:
        """The members, in order; where another public class has them, what differs."""
        found = list(cls.__members__) if issubclass(cls, Enum) else members_of(cls)
        inherited = {
            each
            for base in cls.__mro__[1:]
            if base in public_names().values()
            for each in members_of(base)
        }
        lines = []
        for each in found:
            own = vars(cls).get(each)
            if each not in inherited or (inspect.isroutine(own) and own.__doc__):
                value = inspect.getattr_static(cls, each, None)
                kind = "attribute"
                if isinstance(value, property):
                    kind = "property"
                elif inspect.isroutine(value) and not comment_of(cls, each):
                    kind = "method"
                lines += ["", f"   .. auto{kind}:: {name}.{each}"]
                if kind == "attribute" and not has_default(cls, each):
                    lines.append("      :no-value:")
        return lines


def options_of(decorator: Any) -> inspect.Signature:
    """The options of a decorator, and their defaults."""
    parameters = inspect.signature(decorator).parameters.values()
    options = [each for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY]
    return inspect.Signature([each.replace(annotation=inspect.Signature.empty) for each in options])


def kind_of(value: object) -> str:
    """What autodoc calls it."""
    if inspect.isclass(value):
        return "exception" if issubclass(value, BaseException) else "class"
    return "function" if inspect.isroutine(value) else "data"


def has_default(cls: type, name: str) -> bool:
    """Whether an attribute has a value of its own in its class."""
    return name in vars(cls) and not inspect.ismemberdescriptor(vars(cls)[name])


def shown_signature(
    app: Sphinx,
    what: str,
    name: str,
    obj: Any,
    options: object,
    signature: str | None,
    returns: str | None,
) -> tuple[str | None, str | None] | None:
    """A signature as users need it.

    A class whose objects the library makes is shown without arguments; defaults are shown as they
    are written, or come out; a context manager gives what its block is given.
    """
    if inspect.isclass(obj) and not has_constructor(obj):
        return "", None
    if dataclasses.is_dataclass(obj) and signature:
        for each in dataclasses.fields(obj):
            if each.default_factory is not dataclasses.MISSING:
                signature = signature.replace("<factory>", repr(each.default_factory()), 1)
    if signature:
        signature = re.sub(r"<dialect (\w+)>", r"\1", signature)
        # All of them are more than anybody reads.
        signature = re.sub(r"= Limits\((?:[^()]|\([^()]*\))*\)", "= Limits(...)", signature)
    if returns and opens_block(obj):
        returns = re.sub(r"^~?(?:[\w.]*\.)?AsyncIterator\[(.*)\]$", r"\1", returns)
    return signature, returns


def leading_out(app: Sphinx, name: str, source: list[str]) -> None:
    """Links to Markdown files outside of the site lead to copies of them: they are no pages."""
    here = Path(app.env.doc2path(name)).parent

    def led_out(link: re.Match[str]) -> str:
        inside = (here / link[1]).resolve().is_relative_to(app.srcdir)
        return link[0] if inside else f"](path:{link[1]})"

    source[0] = re.sub(r"\]\((\.\./[^)#]+\.md)\)", led_out, source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directive."""
    app.add_directive("public", Public)
    app.connect("source-read", leading_out)
    app.connect("autodoc-process-signature", shown_signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
