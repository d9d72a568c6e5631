"""Watches a service while it serves: its tasks, its log, its results, its streams and its time."""

from __future__ import annotations

import gc
import logging
import types
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any, Final, NoReturn

import trio
from trio.testing import MockClock

from trio_streamrpc.contract.method import Method
from trio_streamrpc.contract.methods import MethodTable
from trio_streamrpc.contract.payloads import Payloads
from trio_streamrpc.contract.signatures import Kind
from trio_streamrpc.protocol.binary import Encoded
from trio_streamrpc.runtime.calls import CURRENT_CALL
from trio_streamrpc.runtime.connection import Connection
from trio_streamrpc.testing.fuzzing.failures import Failure, Fault
from trio_streamrpc.testing.traces import Trace

__all__ = ["Watch"]

#: How many steps the scheduler may do in no time at all.
MAX_STEPS: Final = 10_000
#: … and how often time is moved on, by how many seconds, for the sake of what waits beside it.
MAX_JUMPS: Final = 8
JUMP: Final = 5.0
GIVEN_UP: Final = "given up by the fuzzer"
#: How often streams are looked at, in seconds; how often in a row one that nobody reads has to have
#: grown, and by how many items in all, to be one that ignores it.
INTERVAL: Final = 2.0
LOOKS: Final = 4
GROWTH: Final = 8
#: How much of what a stream holds is looked at.
MAX_OBJECTS: Final = 20_000


class Abandoned(Exception):
    """Thrown into what cannot be ended otherwise, so that the run comes to an end."""


class Watch(trio.abc.Instrument, logging.Handler):
    """Everything that is noticed of one service in one run."""

    def __init__(self, patience: float) -> None:
        logging.Handler.__init__(self, logging.WARNING)
        self.failures: list[Failure] = []
        self.patience = patience
        #: The tasks that live, and the method that was served when they began, if one was.
        self.tasks: dict[trio.lowlevel.Task, str] = {}
        #: Set when something was found that the run cannot go on with.
        self.broken = trio.Event()
        self._steps = 0
        self._at = -1.0
        self._jumps = 0
        #: The iterators of the streams that run, and what each was seen to hold, look after look.
        self._iterators: dict[int, tuple[str, Any, list[int]]] = {}
        self._since: dict[int, float] = {}
        self._table: MethodTable | None = None
        self._over = False

    def note(self, failure: Failure) -> None:
        """Remember it, once."""
        if all(each.key != failure.key for each in self.failures):
            self.failures.append(failure)

    # --- its results, and its iterators

    def table(self, service: object, payloads: Payloads) -> MethodTable:
        """The service's methods, as they are served: each result is looked at as it is encoded."""
        self._table = self._watched(MethodTable.of(service), payloads)
        return self._table

    def _watched(self, table: MethodTable, payloads: Payloads) -> MethodTable:
        methods = {name: self._method(each, payloads) for name, each in table.attributes.items()}
        spaces = {name: self._watched(each, payloads) for name, each in table.namespaces.items()}
        return MethodTable(table.label, methods, spaces)

    def _method(self, method: Method, payloads: Payloads) -> Method:
        function = method.function
        if method.kind is Kind.SERVER_STREAM and function is not None:
            function = self._remembering(method, function)
        watched = replace(method, function=function)
        codec = watched.wire(payloads)
        encode, decode = codec.encode_result, codec.decode_result

        def encode_result(value: Any) -> Encoded:
            try:
                data = encode(value)
                decode(data)
            except Exception as error:
                problem = Failure.of_exception(Fault.WRONG_RESULT, method.name, error)
                self.note(replace(problem, exception="", traceback=""))
                raise
            return data

        if not method.yields_object:
            codec.encode_result = encode_result
        return watched

    def _remembering(self, method: Method, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            iterator = function(*args, **kwargs)
            self._iterators[id(iterator)] = (method.name, iterator, [])
            return iterator

        return call

    # --- its log

    def emit(self, record: logging.LogRecord) -> None:
        """An exception that nobody declared is logged once, wherever it was raised (R22)."""
        if self._over:
            return
        text = record.getMessage()
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            method = text.removesuffix(" failed")
            known = self._table is not None and method in self._table
            if not self._was_wrong_result(method, error):
                self.note(Failure.of_exception(Fault.UNDECLARED, method if known else "", error))
        elif " has not stopped " in text or "yield" in text:
            self.note(Failure(Fault.UNFINISHED, text.partition(" ")[0], text))

    def _was_wrong_result(self, method: str, error: BaseException) -> bool:
        found = [each for each in self.failures if each.fault is Fault.WRONG_RESULT]
        return any(each.method == method and str(error) in each.message for each in found)

    # --- its tasks and its time

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        try:
            spawner = trio.lowlevel.current_task()
        except RuntimeError:
            return
        self.tasks[task] = method_of(spawner)

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        self.tasks.pop(task, None)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        now = trio.current_time()
        if now != self._at:
            self._at, self._steps = now, 0
        self._steps += 1
        if self._steps == MAX_STEPS:
            if not self._over:
                self._found_spinning(method_of(task) or self.tasks.get(task, ""))
            # Nobody waits, so time would stand still, and whatever is to end this with it.
            clock = trio.lowlevel.current_clock()
            assert isinstance(clock, MockClock)
            clock.jump(JUMP)
            self._jumps += 1
        if self._jumps > MAX_JUMPS and method_of(task):
            # It does not even end when it is cancelled.
            task._next_send_fn = task.coro.throw  # noqa: SLF001
            task._next_send = Abandoned(GIVEN_UP)  # noqa: SLF001

    def _found_spinning(self, method: str) -> None:
        for name, iterator, _ in self._iterators.values():
            if held_by(iterator) > 1000:
                self.note(Failure(Fault.RUNS_AHEAD, name, "without ever waiting"))
                break
        else:
            self.note(Failure(Fault.SPINS, method, f"{MAX_STEPS} steps, and no time passes"))
        self.broken.set()

    async def look(self, server: Connection) -> None:
        """Look at what runs, again and again, until something is found to be endless."""
        while True:
            await trio.sleep(INTERVAL)
            self._look_at_streams(server)
            now, since = trio.current_time(), {}
            for number, handler in running(server).items():
                since[number] = self._since.get(number, now)
                if handler.method.kind is Kind.UNARY and now - since[number] > self.patience:
                    message = f"not after {self.patience:g} s"
                    self.note(Failure(Fault.HANGS, handler.method.name, message))
                    self.broken.set()
            self._since = since

    def _look_at_streams(self, server: Connection) -> None:
        stalled = {
            handler.method.name
            for handler in running(server).values()
            if handler.exchange.credit is not None and not handler.exchange.credit.open
        }
        for name, iterator, seen in self._iterators.values():
            frame = getattr(iterator, "ag_frame", None)
            if name not in stalled or (hasattr(iterator, "ag_frame") and frame is None):
                seen.clear()
                continue
            seen.append(held_by(iterator))
            last = seen[-LOOKS:]
            grows = all(before < after for before, after in pairwise(last))
            if len(last) == LOOKS and grows and last[-1] - last[0] >= GROWTH:
                message = f"it held {last[-1] - last[0]} items more after {INTERVAL * LOOKS:g} s"
                self.note(Failure(Fault.RUNS_AHEAD, name, message))

    # --- the end

    def look_at_trace(self, trace: Trace) -> None:
        """What the service's side has told of cleanups that were cut short (R7a)."""
        names = {
            each["id"]: each.get("method", "") for each in trace.frames if each["type"] == "call"
        }
        for frame in trace.frames:
            if frame["type"] == "error" and frame["error"].get("name") == "CleanupTimeout":
                method = names.get(frame["id"], "")
                self.note(Failure(Fault.UNFINISHED, method, frame["error"].get("message", "")))

    def close(self) -> None:
        """Nothing that comes from now on is held against the service."""
        self._over = True
        super().close()

    @property
    def left(self) -> dict[trio.lowlevel.Task, str]:
        """The tasks that live and are some call's, and its method."""
        found = {task: method_of(task) or method for task, method in self.tasks.items()}
        return {task: method for task, method in found.items() if method}

    def look_at_tasks(self) -> None:
        """What still lives when the connection has ended, and is nobody's."""
        for task, method in self.left.items():
            fault = Fault.UNFINISHED if is_handler(task) else Fault.LEFT_BEHIND
            self.note(Failure(fault, method, f"the task {task.name!r} still runs"))

    def abandon(self) -> bool:
        """End what still lives, in the way in which Ctrl-C would; False if nothing does.

        What is a system task, Trio ends itself.
        """
        root = trio.lowlevel.current_root_task()
        found = [
            task
            for task in self.left
            if task.parent_nursery is not None and task.parent_nursery.parent_task is not root
        ]
        for task in found:
            # There is no other way into a task that is shielded and waits for ever.
            if task._abort_func is not None:  # noqa: SLF001
                task._attempt_abort(_raise_abandoned)  # noqa: SLF001
        return len(found) > 0


def _raise_abandoned() -> NoReturn:
    raise Abandoned(GIVEN_UP)


def method_of(task: trio.lowlevel.Task) -> str:
    """The method that a task serves now; empty if it serves none."""
    call = task.context.get(CURRENT_CALL)
    return "" if call is None else call.method


def running(connection: Connection) -> dict[int, Any]:
    """The handlers that have not stopped."""
    return dict(connection.callee._handlers)  # noqa: SLF001  # the kit looks into what it tests


def is_handler(task: trio.lowlevel.Task) -> bool:
    """Whether it is the library's own, and runs a call."""
    return task.name.startswith(("handler of ", "streamrpc "))


#: What leads from a generator to everything else there is, and is nobody's buffer.
FOREIGN: Final = (
    types.ModuleType, type, types.CodeType, types.BuiltinFunctionType, trio.lowlevel.Task,
    trio.Nursery, trio.CancelScope, Connection, logging.Logger, str, bytes, int, float,
)  # fmt: skip


def held_by(iterator: Any) -> int:
    """How many items lie in containers that an iterator gets at: its locals, their attributes."""
    seen, count = {id(iterator)}, 0
    waiting = deque(_within(iterator))
    while waiting and len(seen) < MAX_OBJECTS:
        each = waiting.popleft()
        if id(each) in seen or isinstance(each, FOREIGN):
            continue
        seen.add(id(each))
        if isinstance(each, list | deque | set | bytearray):
            count += len(each)
        waiting.extend(_within(each))
    return count


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
