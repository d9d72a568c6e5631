"""Watches a service while it serves: its tasks, its log, its results, its streams and its time."""

from __future__ import annotations

import ctypes
import logging
from collections import Counter
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
from trio_streamrpc.errors import RemoteError
from trio_streamrpc.nurseries import leaves
from trio_streamrpc.protocol.binary import Encoded
from trio_streamrpc.runtime.calls import CURRENT_CALL, SERVING
from trio_streamrpc.runtime.connection import Connection
from trio_streamrpc.testing.fuzzing.buffers import held_by
from trio_streamrpc.testing.fuzzing.failures import Failure, Fault
from trio_streamrpc.testing.fuzzing.plans import is_of
from trio_streamrpc.testing.strategies.calls import Left
from trio_streamrpc.testing.traces import Trace

__all__ = ["Watch"]

#: How many steps a task may take in no time at all; and how many more once one has.
MAX_STEPS: Final = 20_000
MORE_STEPS: Final = 2_000
#: … and how often time is moved on, by how many seconds, for the sake of what waits beside it.
MAX_JUMPS: Final = 8
JUMP: Final = 5.0
#: How often something is thrown into a task that does not end, before it is not run any more.
MAX_THROWS: Final = 10
GIVEN_UP: Final = "given up by the fuzzer"
#: How often streams are looked at, in seconds; how often in a row one that nobody reads has to have
#: grown, and by how many items in all, to be one that ignores it.
INTERVAL: Final = 2.0
LOOKS: Final = 4
GROWTH: Final = 8


#: What is raised on the side of who calls, and as what it arrives here.
THEIRS: Final = (Left, RemoteError)


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
        self._steps: Counter[trio.lowlevel.Task] = Counter()
        self._at = -1.0
        self._jumps = 0
        self._throws: Counter[trio.lowlevel.Task] = Counter()
        #: The iterators of the streams that run, by the ids of their calls, and what each was seen
        #: to hold, look after look.
        self._iterators: dict[int, tuple[str, Any, list[int]]] = {}
        #: The service, and the objects in it that have methods.
        self._owners: list[Any] = []
        self._since: dict[int, float] = {}
        self._table: MethodTable | None = None
        self._over = False

    def note(self, failure: Failure) -> None:
        """Remember it, once."""
        if all(each.key != failure.key for each in self.failures):
            self.failures.append(failure)

    def note_broken(self, error: BaseException) -> None:
        """What held the service has raised this when it was left."""
        told = [each for each in leaves(error) if not isinstance(each, Abandoned)]
        if told:
            self.note(Failure.of_exception(Fault.BROKEN, "", told[0]))

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
        self._owners.append(getattr(function, "__self__", None))
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
            serving = SERVING.get()
            if serving is not None and serving.root is not None:
                self._iterators[serving.root.id] = (method.name, iterator, [])
            return iterator

        return call

    # --- its log

    def emit(self, record: logging.LogRecord) -> None:
        """An exception that nobody declared is logged once, wherever it was raised (R22)."""
        if self._over:
            return
        text = record.getMessage()
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and all(isinstance(each, THEIRS) for each in leaves(error)):
            pass  # the caller's own, wrapped by a nursery that it has gone through
        elif error is not None:
            method = text.removesuffix(" failed")
            known = any(is_of(method, each) for each in self._table or ())
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
        if self._throws[task] > MAX_THROWS and _can_be_dropped(task):
            _drop(task)
            return
        now = trio.current_time()
        if now != self._at:
            self._at = now
            self._steps.clear()
        self._steps[task] += 1
        # Of what is broken already, no more is to be told than that it does not end.
        if self._steps[task] >= (MORE_STEPS if self.broken.is_set() else MAX_STEPS):
            if not self._over and not self.broken.is_set():
                self._found_spinning(task)
            # Nobody waits, so time would stand still, and whatever is to end this with it.
            clock = trio.lowlevel.current_clock()
            assert isinstance(clock, MockClock)
            clock.jump(JUMP)
            self._jumps += 1
        if self._jumps > MAX_JUMPS and method_of(task):
            # It does not even end when it is cancelled.
            self._throws[task] += 1
            task._next_send_fn = task.coro.throw  # noqa: SLF001
            task._next_send = Abandoned(GIVEN_UP)  # noqa: SLF001

    def _found_spinning(self, task: trio.lowlevel.Task) -> None:
        """That task spins, or one of a call's that keeps it busy."""
        for name, iterator, _ in self._iterators.values():
            if held_by(iterator, self._owners) > 1000:
                self.note(Failure(Fault.RUNS_AHEAD, name, "without ever waiting"))
                break
        else:
            busiest = [task, *(each for each, _ in self._steps.most_common())]
            methods = [method_of(each) or self.tasks.get(each, "") for each in busiest]
            message = f"{self._steps[task]} steps, and no time passes"
            self.note(Failure(Fault.SPINS, next(filter(None, methods), ""), message))
        self.broken.set()

    async def look(self, server: Connection) -> None:
        """Look at what runs, again and again, until something is found to be endless."""
        while True:
            await trio.sleep(INTERVAL)
            self._look_at_streams(server)
            now, since = trio.current_time(), {}
            for number, handler in running(server).items():
                since[number] = self._since.get(number, now)
                if not has_answered(handler) and now - since[number] > self.patience:
                    message = f"its caller has nothing after {self.patience:g} s"
                    self.note(Failure(Fault.HANGS, handler.name, message))
                    self.broken.set()
            self._since = since

    def _look_at_streams(self, server: Connection) -> None:
        handlers = running(server)
        for id, (name, iterator, seen) in self._iterators.items():
            credit = handlers[id].exchange.credit if id in handlers else None
            has_ended = hasattr(iterator, "ag_frame") and iterator.ag_frame is None
            if credit is None or credit.open or has_ended:
                seen.clear()
                continue
            seen.append(held_by(iterator, self._owners))
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
            self._throws[task] += 1
            if task._abort_func is not None:  # noqa: SLF001
                task._attempt_abort(_raise_abandoned)  # noqa: SLF001
        return len(found) > 0


def _raise_abandoned(_: object = None) -> NoReturn:
    raise Abandoned(GIVEN_UP)


def method_of(task: trio.lowlevel.Task) -> str:
    """The method that a task serves now; empty if it serves none."""
    call = task.context.get(CURRENT_CALL)
    return "" if call is None else call.method


def running(connection: Connection) -> dict[int, Any]:
    """The handlers that have not stopped."""
    return dict(connection.callee._handlers)  # noqa: SLF001  # the kit looks into what it tests


def has_answered(handler: Any) -> bool:
    """Whether its caller has what it waits for. A stream may be silent for as long as it likes."""
    match handler.method.kind:
        case Kind.UNARY:
            return False
        case Kind.CONTEXT:
            return bool(handler._entered)  # noqa: SLF001
        case Kind.TASK:
            return bool(handler._started)  # noqa: SLF001
        case _:
            return True


def is_handler(task: trio.lowlevel.Task) -> bool:
    """Whether it is the library's own, and runs a call."""
    return task.name.startswith(("handler of ", "streamrpc "))


def _can_be_dropped(task: trio.lowlevel.Task) -> bool:
    """Whether it is a call's, and waits for no others: those come first."""
    return bool(method_of(task)) and not any(each.child_tasks for each in task.child_nurseries)


def _drop(task: trio.lowlevel.Task) -> None:
    """End a task that lets nothing end it: its coroutine is not run any more."""
    # Nor is it ever freed: that would close it, and so run it, again and for ever.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(task.coro))
    task._next_send_fn = _raise_abandoned  # noqa: SLF001
