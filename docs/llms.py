"""``docs/llms.txt``, all that a program has to know: ``python docs/llms.py`` writes it.

What is written by hand stands in ``llms.template``; the rest is taken from the documents and from
the source, as it stands there. A test fails where the page is not what it would be made anew.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import click

DOCS = Path(__file__).parent
if str(DOCS.parent) not in sys.path:
    sys.path.insert(0, str(DOCS.parent))

from docs import public, tables  # noqa: E402  # they stand beside this file
from trio_streamrpc import (  # noqa: E402
    Code,
    ConnectionStatistics,
    Handshake,
    Limits,
    RpcError,
    StreamStatistics,
    Transport,
    connect,
    open_connection,
    rpc,
    serve,
    serve_forever,
    with_options,
)
from trio_streamrpc.cli.commands import commands  # noqa: E402

__all__ = ["PAGE", "made", "write"]

PAGE = DOCS / "llms.txt"

#: What users read, and make only in tests of their own.
GIVEN = (ConnectionStatistics, Handshake, StreamStatistics)

#: Functions whose docstrings stand there as they are; of the others, the first paragraph.
TOLD_IN_FULL = (connect, open_connection, rpc, serve, serve_forever, with_options)


def blocks(path: Path, language: str) -> list[str]:
    """The blocks of code of one language in a document."""
    text = path.read_text(encoding="utf-8")
    return re.findall(rf"^(```{language}\n.*?^```)$", text, re.MULTILINE | re.DOTALL)


def body(page: str) -> str:
    """A page of the reference, without its title, its headings a level lower, its links as text."""
    text = (DOCS / "reference" / page).read_text(encoding="utf-8").split("\n", 1)[1]
    text = re.sub(r"^#", "##", text, flags=re.MULTILINE)
    return without_links(text).strip()


def without_links(text: str) -> str:
    """Links within the documents as their texts."""
    return re.sub(r"\[([^\]]+)\]\((?!https?:)[^)]*\)", r"\1", text)


def section(page: str, heading: str) -> str:
    """What stands under a heading, up to the API that follows it."""
    text = (DOCS / "reference" / page).read_text(encoding="utf-8")
    found = text.partition(f"\n## {heading}\n")[2].partition("\n```{eval-rst}")[0]
    return without_links(found).strip()


# --- the source, as it is written


def plain(text: str) -> str:
    """A docstring without the marks of Sphinx."""
    text = re.sub(r":\w+:`~(?:[\w.]+\.)?(\w+)`", r"`\1`", text)
    text = re.sub(r":\w+:`\.?([^`]+)`", r"`\1`", text)
    return re.sub(r"::$", ":", text.replace("``", "`"), flags=re.MULTILINE)


def first_paragraph(text: str) -> str:
    """Of a docstring, on one line."""
    return " ".join(plain(text).split("\n\n")[0].split())


def signature(shown: str, node: Any, *, opens_block: bool = False) -> str:
    """``await serve(service: object, …) -> None``, as it is written in the source."""
    arguments = re.sub(r"^(self|draw: DrawFn)(, /)?(, )?", "", ast.unparse(node.args))
    gives = ast.unparse(node.returns) if node.returns else "None"
    if ast.unparse(node.args).startswith("draw: DrawFn"):
        gives = f"SearchStrategy[{gives}]"  # what Hypothesis makes of it
    if opens_block:
        gives = gives.removeprefix("AsyncIterator[").removesuffix("]")
        return f"async with {shown}({arguments}) -> {gives}"
    return f"{'await ' * isinstance(node, ast.AsyncFunctionDef)}{shown}({arguments}) -> {gives}"


def with_numbers(shown: str, names: dict[str, Any]) -> str:
    """Defaults that are numbers by another name, as numbers."""

    def number(found: re.Match[str]) -> str:
        value = names.get(found[1])
        return f"={value!r}" if isinstance(value, int | float) else found[0]

    return re.sub(r"=([A-Z_]+)\b", number, shown)


def method_signature(shown: str, method: Any) -> str:
    """The same of a method."""
    [node] = ast.parse(textwrap.dedent(inspect.getsource(method))).body
    return signature(shown, node)


def constructor(name: str, cls: Any) -> str:
    """``Window(items: int = 64, bytes: int = 262144)``; the name of what is made for them."""
    if not public.has_constructor(cls) or cls in GIVEN:
        return name
    if cls is Limits:
        return f"{name}(*, …)"  # a table says it
    if dataclasses.is_dataclass(cls):
        fields = []
        for each in dataclasses.fields(cls):
            default = ""
            if each.default is not dataclasses.MISSING:
                default = f" = {each.default!r}"
            elif each.default_factory is not dataclasses.MISSING:
                default = f" = {each.default_factory()!r}"
            fields.append(f"{each.name}: {each.type}{default}")
        star = "*, " * all(each.kw_only for each in dataclasses.fields(cls))
        return f"{name}({star}{', '.join(fields)})"
    if "__init__" not in vars(cls):
        return name
    return method_signature(name, cls.__init__).removesuffix(" -> None")


def member(cls: Any, name: str) -> str:
    """One line about a member: what it is, and its first sentence."""
    value = inspect.getattr_static(cls, name, None)
    comment = public.comment_of(cls, name)
    if isinstance(value, property):
        shown, said = name, inspect.getdoc(getattr(cls, name))
    elif inspect.isroutine(value) and not comment:
        shown = method_signature(f".{name}", documented(cls, name))
        said = inspect.getdoc(getattr(cls, name))
    else:
        shown, said = name, comment
    shown = shown if shown.startswith((".", "await ")) else f".{shown}"
    return f"  - `{shown}`: {first_paragraph(said or '')}"


def documented(cls: Any, name: str) -> Any:
    """A method, where its docstring is."""
    for owner in cls.__mro__:
        found = vars(owner).get(name)
        if found is not None and found.__doc__:
            return found
    return vars(cls)[name]


def entry(name: str) -> str:
    """One public name."""
    value = public.public_names()[name]
    short = name.rpartition(".")[2]
    if inspect.isclass(value):
        lines = [f"- `{constructor(short, value)}`: {first_paragraph(inspect.getdoc(value) or '')}"]
        # Tables have those of Limits and Code, and the kit has a guide.
        if value not in (Code, Limits) and not name.startswith("trio_streamrpc.testing."):
            names = public.members_of(value)
            if value is Transport:  # what has to be written
                names = [each for each in names if each in Transport.__abstractmethods__]
            lines += [member(value, each) for each in names]
        return "\n".join(lines)
    if inspect.isroutine(value):
        node, _ = public.definition_of(name)
        shown = signature(short, node, opens_block=public.opens_block(value))
        shown = with_numbers(shown, inspect.unwrap(value).__globals__)
        if value is rpc:
            options = list(inspect.signature(value).parameters.values())[1:]
            bare = [each.replace(annotation=inspect.Signature.empty) for each in options]
            shown = f"@rpc, @rpc{inspect.Signature(bare)}"
        said = inspect.getdoc(value) or ""
        if value not in TOLD_IN_FULL:
            return f"- `{shown}`: {first_paragraph(said)}"
        text = textwrap.indent(plain(said), "  ")
        return f"- `{shown}`:\n\n{text}\n"
    return f"- `{short}`: {first_paragraph(public.comment_on(name))}"


def api() -> str:
    """Every public name, save for the errors that are in the table."""
    in_table = [each for each, _ in error_classes()]
    parts = []
    for module in public.MODULES:
        names = [
            name
            for name in public.public_names()
            if name.rpartition(".")[0] == module and name not in in_table
        ]
        parts.append(f"### {module}\n\n" + "\n".join(map(entry, names)))
    return "\n\n".join(parts)


def error_classes() -> list[tuple[str, Any]]:
    """Those with a code."""
    return [
        (name, value)
        for name, value in public.public_names().items()
        if inspect.isclass(value) and issubclass(value, RpcError) and value is not RpcError
    ]


def errors() -> str:
    """The table of errors."""
    rows = [
        [f"`{value.__name__}`", f"`{value.code}`", first_paragraph(value.__doc__ or "")]
        for _, value in error_classes()
    ]
    return tables.table(["class", "code", "when"], rows).rstrip()


def limits() -> str:
    """The table of limits, without their reasons."""
    said, default = tables.explained(), Limits()
    rows = []
    for each in dataclasses.fields(Limits):
        value, unit = tables.shown(each.name, getattr(default, each.name))
        if unit == "items, bytes":
            items, _, size = value.rpartition(", ")
            value, unit = f"{items} items, {size}", ""
        elif value.endswith("B"):
            unit = ""
        about = said[each.name]
        meaning, beyond = plain(about["Meaning"]), plain(about["Beyond"])
        rows.append([f"`{each.name}`", f"{value} {unit}".strip(), meaning, beyond])
    return tables.table(["limit", "default", "what it limits", "beyond it"], rows).rstrip()


# --- the command line


def command_help(name: str, command: click.Command) -> str:
    """What ``--help`` says, in no more lines than it needs."""
    taken = [
        each.metavar or f"{str(each.name).upper()}"
        for each in command.params
        if isinstance(each, click.Argument)
    ]
    lines = [f"trio-streamrpc {' '.join([name, '[OPTIONS]', *taken])}", ""]
    text = inspect.cleandoc(command.help or "").replace("\b\n", "")
    lines += [f"  {line}".rstrip() for line in text.splitlines()]
    options = [each for each in command.params if isinstance(each, click.Option)]
    if options:
        lines.append("")
    for each in options:
        flags = ", ".join(each.opts) + "".join(f"/{other}" for other in each.secondary_opts)
        kind = "" if each.is_flag or each.count else f" {each.metavar or each.type.name.upper()}"
        lines.append(f"  {flags}{kind}: {' '.join((each.help or '').split())}")
    return "\n".join(lines)


def command_line() -> str:
    """What every command takes."""
    parts = [command_help(name, each) for name, each in sorted(commands.commands.items())]
    return "```text\n" + "\n\n".join(parts) + "\n```"


# --- the page


def made() -> str:
    """The page, made anew."""
    readme = DOCS.parent / "README.md"
    [program], [output] = blocks(readme, "python"), blocks(readme, "text")
    places = {
        "program": program,
        "output": output,
        "shapes": body("shapes.md"),
        "guarantees": body("guarantees.md"),
        "gate": section("serving.md", "Who is let in"),
        "interceptor": textwrap.dedent(plain(public.comment_on("trio_streamrpc.Interceptor"))),
        "api": api(),
        "errors": errors(),
        "limits": limits(),
        "cli": command_line(),
    }
    template = (DOCS / "llms.template").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: places[found[1]], template)


def write() -> None:
    """Write the page."""
    PAGE.write_text(made(), encoding="utf-8")


if __name__ == "__main__":
    write()
