"""How many items a stream holds that nobody has taken yet."""

from __future__ import annotations

import gc
import logging
import math
import types
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

import trio

from trio_streamrpc.runtime.local import LocalStream

__all__ = ["held_by"]

#: How much of what a stream holds is looked at.
MAX_OBJECTS: Final = 20_000

#: What leads from a generator to everything else there is, and is nobody's buffer.
FOREIGN: Final = (
    types.ModuleType, type, types.CodeType, types.BuiltinFunctionType, types.FrameType,
    types.TracebackType, trio.lowlevel.Task, trio.Nursery, trio.CancelScope, logging.Logger, str,
    bytes, int, float,
)  # fmt: skip

#: Where what lies is bounded by limits.
OWN: Final = ("trio_streamrpc.runtime.", "trio_streamrpc.protocol.")


def held_by(iterator: Any, owners: Iterable[Any] = ()) -> int:
    """How many items lie in containers that an iterator gets at: its locals, their attributes.

    What is in ``owners``, the service for instance, is everybody's; what has a bound (a memory
    channel, a ``deque`` with one) is allowed to fill; and what is in a stream of this library's has
    one of its own.
    """
    seen, count = {id(iterator), *map(id, owners)}, 0
    waiting = deque(_within(iterator))
    while waiting and len(seen) < MAX_OBJECTS:
        each = waiting.popleft()
        if id(each) in seen or isinstance(each, FOREIGN) or _is_bounded(each):
            continue
        seen.add(id(each))
        if isinstance(each, list | deque | set | bytearray):
            count += len(each)
        waiting.extend(_within(each))
    return count


def _is_bounded(value: Any) -> bool:
    module = type(value).__module__
    if module.startswith(OWN):
        # A stream of this side's, called in place, is but the generator in it.
        return module != LocalStream.__module__
    if module.startswith("trio."):
        return bool(getattr(value, "max_buffer_size", math.inf) < math.inf)
    return isinstance(value, deque) and value.maxlen is not None


def _within(value: Any) -> list[Any]:
    if isinstance(value, types.FunctionType):
        # Not the module that it stands in.
        return [cell.cell_contents for cell in value.__closure__ or () if _is_full(cell)]
    if isinstance(value, types.AsyncGeneratorType):
        frame = value.ag_frame
        return [] if frame is None else list(frame.f_locals.values())
    return gc.get_referents(value)


def _is_full(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True
