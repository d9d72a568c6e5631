"""The tables of the documents that are made from the code: ``python docs/tables.py`` writes them.

A table stands between ``<!-- table: name -->`` and ``<!-- end -->``; a test fails where one is not
what it would be made anew.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path

from trio_streamrpc.limits import Limits, Window
from trio_streamrpc.protocol import reactions

__all__ = ["DOCUMENTS", "explained", "rewritten", "write"]

DOCS = Path(__file__).parent
DOCUMENTS = [DOCS / "protocol.md", DOCS / "limits.md"]

_PLACE = re.compile(r"(<!-- table: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)

#: Units that the names of the fields do not tell.
UNITS = {"violation_budget": "breaches", "violation_refill": "breaches per second"}


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def reactions_table() -> str:
    """Every breach, in the order of the module."""
    ends = {"connection": "the connection", "call": "the call", "stream": "the stream"}
    rows = []
    for each in vars(reactions).values():
        if isinstance(each, reactions.Breach):
            told = f"`{each.code.value}`" if each.code else ""
            close = str(each.close_code or "")
            rows.append(
                [
                    each.what,
                    ends.get(each.ends, "nothing: it is dropped"),
                    told + (", `retry`" if each.retry else ""),
                    close,
                    str(each.cost or ""),
                    each.rule,
                ]
            )
    return table(["what happened", "ends", "told as", "close code", "costs", "rule"], rows)


def explained() -> dict[str, dict[str, str]]:
    """What the docstring of each field of ``Limits`` says: its meaning, and its paragraphs that
    begin with a word and a colon."""
    found: dict[str, dict[str, str]] = {}
    [tree] = ast.parse(inspect.getsource(Limits)).body
    assert isinstance(tree, ast.ClassDef)
    for each, following in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(each, ast.AnnAssign) and isinstance(following, ast.Expr):
            assert isinstance(each.target, ast.Name)
            assert isinstance(following.value, ast.Constant)
            text = inspect.cleandoc(str(following.value.value))
            said = {}
            for paragraph in text.split("\n\n"):
                line = " ".join(paragraph.split())
                word = re.match(r"(Beyond|Reason): ", line)
                said[word[1] if word else "Meaning"] = line[word.end() if word else 0 :]
            found[each.target.id] = said
    return found


def limits_table() -> str:
    """Every field of ``Limits``, in order."""
    said = explained()
    default = Limits()
    rows = []
    for each in fields(Limits):
        about = said[each.name]
        value, unit = shown(each.name, getattr(default, each.name))
        rows.append(
            [
                f"`{each.name}`",
                value,
                unit,
                about["Meaning"].replace("``", "`"),
                about.get("Beyond", "").replace("``", "`"),
                about.get("Reason", "").replace("``", "`"),
            ]
        )
    return table(["limit", "default", "unit", "what it limits", "beyond it", "reason"], rows)


def shown(name: str, value: object) -> tuple[str, str]:
    """A default as people read it, and its unit."""
    if isinstance(value, Window):
        return f"{value.items:,}, {size(value.bytes)}", "items, bytes"
    if name in UNITS:
        return f"{value:g}", UNITS[name]
    if isinstance(value, float):
        return f"{value:,g}", "seconds"
    assert isinstance(value, int)
    if name.endswith("_bytes"):
        return size(value), "bytes"
    # max_calls, max_message_frames: the first plural.
    return f"{value:,}", next((word for word in name.split("_") if word.endswith("s")), "")


def size(number: int) -> str:
    for unit in ("MiB", "KiB"):
        scale = {"MiB": 2**20, "KiB": 2**10}[unit]
        if number % scale == 0:
            return f"{number // scale} {unit}"
    return f"{number:,}"


TABLES: dict[str, Callable[[], str]] = {"reactions": reactions_table, "limits": limits_table}


def rewritten(text: str) -> str:
    """The document with its tables made anew."""
    return _PLACE.sub(lambda found: found[1] + TABLES[found[2]]() + found[4], text)


def write() -> None:
    for each in DOCUMENTS:
        each.write_text(rewritten(each.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    write()
