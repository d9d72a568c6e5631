"""Playing a recording against this library, which takes one of its two sides.

Ids are whatever each side has chosen: they are numbered in the order in which they come up, and
what is the same in the recording has to be the same here. Stacks are left out.
"""

from __future__ import annotations

import json
import re
from typing import Any

from trio_streamrpc.transports.base import Transport

__all__ = ["by_stream", "numbered", "play"]

ID = re.compile(r"[0-9a-f]{8,}(?:-[0-9a-f]{4,}){3,4}|[ac]-r?\d+")


def numbered(messages: list[dict[str, Any]]) -> list[Any]:
    """Who said what, with ids by their number."""
    numbers: dict[str, str] = {}

    def number(found: re.Match[str]) -> str:
        return numbers.setdefault(found[0], f"#{len(numbers) + 1}")

    return [
        (each["from"], without_stacks(plain(json.loads(ID.sub(number, each["text"])))))
        for each in messages
    ]


def plain(record: Any) -> Any:
    """A message without what superjson says of what is undefined: it is as good as not there."""
    if "json" not in record:
        return record
    values = record.get("meta", {}).get("values", {})
    for path, kinds in list(values.items()):
        if kinds == ["undefined"]:
            *outer, last = path.split(".")
            place = record["json"]
            for part in outer:
                place = place[int(part)] if isinstance(place, list) else place[part]
            del place[last], values[path]
    return {"json": record["json"], "values": values}


def without_stacks(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: without_stacks(each) for key, each in value.items() if key not in ("s", "stack")
        }
    if isinstance(value, list):
        return [without_stacks(each) for each in value]
    return value


def by_stream(messages: list[dict[str, Any]]) -> list[Any]:
    """The same for each call and each stream by itself: between two of them, order is chance."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for message in messages:
        record = json.loads(message["text"])
        record = record.get("json", record)
        groups.setdefault(record.get("sid") or record["id"], []).append(message)
    return sorted((numbered(each) for each in groups.values()), key=repr)


async def play(
    recorded: list[dict[str, Any]], side: str, transport: Transport, said: list[dict[str, Any]]
) -> None:
    """Be that side of the recording; ``said`` is filled with what was said, by both."""
    theirs: dict[str, str] = {}
    for message in recorded:
        if message["from"] == side:
            text = ID.sub(lambda found: theirs.get(found[0], found[0]), message["text"])
            await transport.send(text)
        else:
            received = await transport.receive()
            assert isinstance(received, str)
            text = received
            # What this library calls what the recording calls otherwise.
            pairs = zip(ID.findall(message["text"]), ID.findall(text), strict=False)
            theirs.update(pairs)
        said.append({"from": message["from"], "text": text})
