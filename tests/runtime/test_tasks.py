"""Remote tasks (R20): ``nursery.start`` of a method of the other side."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from tests.runtime.ends import Cut, open_ends, quiet, sweep
from tests.runtime.peer import open_against
from trio_streamrpc import (
    CallCancelled,
    CleanupTimeout,
    ConnectionLost,
    FlowControlError,
    InternalError,
    Limits,
    NotFound,
    PermissionDenied,
    RemoteError,
    RpcError,
    Unavailable,
    rpc,
)

WHO: ContextVar[str] = ContextVar("WHO", default="nobody")


class Broken(Exception):
    """Listed by some methods: it arrives as itself."""


class Handle:
    """What a task may give to ``started``: an object to steer it by."""

    def __init__(self, log: list[str], stop: trio.Event) -> None:
        self.log = log
        self.event = stop

    @rpc
    async def stop(self) -> None:
        self.event.set()

    @rpc
    async def who(self) -> str:
        return WHO.get()

    @rpc
    async def work(self, cleanup: float = 1) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(cleanup)
            self.log.append("work: finally")


class Service:
    def __init__(self) -> None:
        self.log: list[str] = []

    @rpc
    async def job(
        self,
        value: int,
        seconds: float = 10,
        cleanup: float = 0,
        task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        try:
            await trio.lowlevel.checkpoint()
            task_status.started(value * 2)
            await trio.sleep(seconds)
            self.log.append("done")
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(cleanup)
            self.log.append("finally")

    @rpc
    async def steered(
        self, *, task_status: trio.TaskStatus[Handle] = trio.TASK_STATUS_IGNORED
    ) -> None:
        WHO.set("job")
        stop = trio.Event()
        try:
            task_status.started(Handle(self.log, stop))
            await stop.wait()
        finally:
            self.log.append("finally")

    @rpc(errors=(Broken,))
    async def failing(
        self,
        how: str,
        started: bool,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        if started:
            task_status.started()
            await trio.sleep(1)
        if how == "listed":
            raise Broken("itself", 5)
        if how == "code":
            raise PermissionDenied("not yours")
        if how == "other":
            raise ValueError("wrong")

    @rpc
    async def twice(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started(1)
        try:
            task_status.started(2)
        except RuntimeError as error:
            self.log.append(str(error))
            raise

    @rpc
    async def stubborn(
        self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(2)
        task_status.started(5)
        self.log.append("started")
        await trio.sleep_forever()

    @rpc
    async def unencodable(
        self, *, task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED
    ) -> None:
        task_status.started(object())

    @rpc
    async def adding(
        self,
        numbers: AsyncIterable[int],
        report: Callable[[int], Awaitable[None]],
        *,
        task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        task_status.started("ready")
        total = 0
        try:
            async for number in numbers:
                total += number
                await report(total)
        finally:
            self.log.append("finally")

    @rpc
    async def maybe(
        self, there: bool, *, task_status: trio.TaskStatus[Handle | None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        task_status.started(Handle(self.log, trio.Event()) if there else None)
        await trio.sleep(1)


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def log(service: Service) -> list[str]:
    return service.log


# --- started


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
async def test_start_gives_what_the_task_gives(encoding, service, log, autojump_clock):
    """R20: and the task goes on in the nursery."""
    async with open_ends(service, encoding=encoding) as ends:
        api = ends.client.proxy(Service)
        async with trio.open_nursery() as nursery:
            assert await nursery.start(api.job, 21) == 42
            assert log == []
        assert log == ["done", "finally"]


async def test_the_nursery_waits_for_the_task(service, log, autojump_clock):
    async with open_ends(service) as ends:
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            await nursery.start(ends.client.proxy(Service).job, 1, 5)
        assert trio.current_time() - started == 5


async def test_a_task_may_be_awaited_or_started_soon(service, log, autojump_clock):
    async with open_ends(service) as ends:
        api = ends.client.proxy(Service)
        with trio.testing.assert_checkpoints():
            assert await api.job(1, seconds=1) is None  # type: ignore[func-returns-value]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(api.job, 1, 1)
            nursery.start_soon(partial(api.job, 1, seconds=1))
        assert sorted(log) == ["done"] * 3 + ["finally"] * 3


async def test_cancelling_the_nursery_cancels_the_task(service, log, autojump_clock):
    """R8: at once; nobody waits for its cleanup."""
    async with open_ends(service) as ends:
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(ends.client.proxy(Service).job, 1, cleanup=1))
            nursery.cancel_scope.cancel()
        assert trio.current_time() == started
        await trio.sleep(1.5)
        assert log == ["finally"]


async def test_a_deadline_around_start_alone_does_not_end_it(service, log, autojump_clock):
    """R23"""
    async with open_ends(service) as ends:
        async with trio.open_nursery() as nursery:
            with trio.fail_after(1):
                assert await nursery.start(ends.client.proxy(Service).job, 1) == 2
            await trio.sleep(5)
            assert log == []
        assert log == ["done", "finally"]
        assert [each.get("timeout") for each in ends.up.sent("call")] == [None]


async def test_cancelled_while_starting(service, log, autojump_clock):
    async with open_ends(service) as ends:
        async with trio.open_nursery() as nursery:
            with trio.move_on_after(1) as scope:
                await nursery.start(ends.client.proxy(Service).stubborn)
            assert scope.cancelled_caught
            assert nursery.child_tasks == set()
        await trio.sleep(2)
        # It was asked to stop by then, and nobody hears of what it gives.
        assert log == ["started"]
        assert ends.down.sent("chunk") == []


async def test_a_task_ends_with_a_place_of_its_own(service, log, autojump_clock):
    """R26: as any call to the service."""
    async with open_ends(service, limits=Limits(max_calls=1)) as ends:
        api = ends.client.proxy(Service)
        async with trio.open_nursery() as nursery:
            handle = await nursery.start(api.steered)
            with trio.move_on_after(1) as scope:
                await api.job(1)
            assert scope.cancelled_caught
            await handle.stop()
        await api.job(1, seconds=0)


# --- objects


async def test_an_object_of_a_task(service, log, autojump_clock):
    """Its methods work for as long as the task lasts."""
    async with open_ends(service) as ends:
        async with trio.open_nursery() as nursery:
            handle = await nursery.start(ends.client.proxy(Service).steered)
            assert await handle.who() == "job"
            await handle.stop()
            await trio.sleep(1)
            with pytest.raises(NotFound):
                await handle.who()
        sent = len(ends.up.frames)
        with pytest.raises(NotFound, match="steered has ended"):
            await handle.who()
        assert len(ends.up.frames) == sent
        assert log == ["finally"]


async def test_an_object_or_none(service, autojump_clock):
    async with open_ends(service) as ends:
        api = ends.client.proxy(Service)
        async with trio.open_nursery() as nursery:
            assert await nursery.start(api.maybe, False) is None
            handle = await nursery.start(api.maybe, True)
            assert await handle.who() == "nobody"


async def test_what_runs_on_the_object_has_ended_before_the_task_is_cancelled(
    service, log, autojump_clock
):
    """R20: new calls are NOT_FOUND, running ones are ended, then it leaves."""
    raised: list[BaseException] = []
    async with open_ends(service) as ends:

        async def work(handle: Handle) -> None:
            try:
                await handle.work()
            except RpcError as error:
                raised.append(error)

        async with trio.open_nursery() as outer:
            async with trio.open_nursery() as nursery:
                handle = await nursery.start(ends.client.proxy(Service).steered)
                outer.start_soon(work, handle)
                await quiet()
                nursery.cancel_scope.cancel()
            assert log == []
        assert [type(each) for each in raised] == [CallCancelled]
        await quiet()
        assert log == ["work: finally", "finally"]


async def test_a_task_that_ends_while_what_runs_on_its_object_is_ended(
    service, log, autojump_clock
):
    """It returns by itself meanwhile: that is its end."""
    async with open_ends(service) as ends:

        async def work(handle: Handle) -> None:
            with pytest.raises(CallCancelled):
                await handle.work(2)

        async with trio.open_nursery() as outer:
            async with trio.open_nursery() as nursery:
                handle = await nursery.start(ends.client.proxy(Service).steered)
                outer.start_soon(work, handle)
                await quiet()
                [export] = ends.server.callee.exports.values()
                stop = export.find("stop")
                assert stop is not None
                assert stop.function is not None
                nursery.cancel_scope.cancel()
            await quiet()
            await stop.function()
        await quiet()
        assert log == ["finally", "work: finally"]
        [ended] = [each for each in ends.down.sent("end", "error") if each["id"] == 1]
        assert ended["type"] == "end"


async def test_a_method_that_outlives_the_budget_does_not_keep_the_task(
    service, log, autojump_clock
):
    """R7a"""
    async with open_ends(service, limits=Limits(cleanup=2), clean=False) as ends:

        async def work(handle: Handle) -> None:
            with pytest.raises(CleanupTimeout):
                await handle.work(10)

        async with trio.open_nursery() as outer:
            async with trio.open_nursery() as nursery:
                handle = await nursery.start(ends.client.proxy(Service).steered)
                outer.start_soon(work, handle)
                await quiet()
                nursery.cancel_scope.cancel()
            await trio.sleep(2.5)
            assert log == ["finally"]
        await trio.sleep(10)
        ends.assert_clean()


# --- errors


@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [
        ("listed", Broken, "itself"),
        ("code", PermissionDenied, "not yours"),
        ("other", RemoteError, "ValueError: wrong"),
    ],
)
async def test_an_error_of_a_task(how, kind, words, service, autojump_clock):
    """Before it has started it comes out of ``start``, afterwards out of the nursery."""
    async with open_ends(service) as ends:
        api = ends.client.proxy(Service)
        async with trio.open_nursery() as nursery:
            with pytest.raises(kind, match=words) as caught:
                await nursery.start(api.failing, how, False)
            assert caught.value.__context__ is None
        with pytest.raises(ExceptionGroup) as group:
            async with trio.open_nursery() as nursery:
                await nursery.start(api.failing, how, True)
        [error] = group.value.exceptions
        assert type(error) is kind
        assert error.__context__ is None
        with pytest.raises(kind, match=words):
            await api.failing(how, True)
        if how == "listed":
            assert error.args == ("itself", 5)
        assert ends.up.sent("cancel") == []


async def test_a_task_that_does_not_start(service, autojump_clock):
    """Trio says so."""
    async with open_ends(service) as ends:
        api = ends.client.proxy(Service)
        async with trio.open_nursery() as nursery:
            with pytest.raises(RuntimeError, match="exited without calling"):
                await nursery.start(api.failing, "", False)
        await api.failing("", False)


async def test_a_task_that_starts_twice(service, log, autojump_clock):
    async with open_ends(service) as ends:
        with pytest.raises(ExceptionGroup) as group:
            async with trio.open_nursery() as nursery:
                assert await nursery.start(ends.client.proxy(Service).twice) == 1
        [error] = group.value.exceptions
        assert isinstance(error, RemoteError)
        assert error.name == "RuntimeError"
        assert log == ["called 'started' twice on the same task status"]


async def test_a_value_that_cannot_be_sent(service, autojump_clock):
    async with open_ends(service) as ends:
        async with trio.open_nursery() as nursery:
            with pytest.raises(RemoteError, match="of type object, cannot be encoded"):
                await nursery.start(ends.client.proxy(Service).unencodable)


class OtherContract:
    @rpc
    async def job(
        self,
        value: int,
        *,
        cleanup: float,
        task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
    ) -> None: ...

    @rpc
    async def steered(
        self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None: ...


async def test_a_value_that_the_contract_does_not_say(service, log, autojump_clock):
    """The task is ended before the error is raised."""
    async with open_ends(service) as ends:
        api = ends.client.proxy(OtherContract)
        async with trio.open_nursery() as nursery:
            with pytest.raises(InternalError, match="does not match str"):
                await nursery.start(partial(api.job, 1, cleanup=1))
            assert log == ["finally"]
            with pytest.raises(InternalError, match="gave an object where its contract says data"):
                await nursery.start(api.steered)
            assert log == ["finally"] * 2


async def test_what_is_no_task(service, autojump_clock):
    async with open_ends(service) as ends:
        with pytest.raises(RpcError, match=r"job is a task: use await nursery\.start"):
            await ends.client.call("job", 1)
        with pytest.raises(TypeError, match="missing 1 required argument: 'value'"):
            await ends.client.proxy(Service).job()  # type: ignore[call-arg]


# --- uploads and callbacks


async def test_a_task_with_an_upload_and_a_callback(service, log, autojump_clock):
    """They run for as long as the task does, in its caller's nursery."""
    reported: list[int] = []

    async def numbers() -> AsyncIterator[int]:
        for number in range(4):
            yield number
            await trio.sleep(1)

    async def report(total: int) -> None:
        reported.append(total)

    async with open_ends(service) as ends:
        api = ends.client.proxy(Service)
        async with trio.open_nursery() as nursery:
            assert await nursery.start(api.adding, numbers(), report) == "ready"
            await trio.sleep(1.5)
            assert reported == [0, 1]
        assert reported == [0, 1, 3, 6]


async def test_an_upload_that_fails_ends_the_task(service, log, autojump_clock):
    """R10: with its own error."""
    failure = ValueError("no more")

    async def numbers() -> AsyncIterator[int]:
        yield 1
        await trio.sleep(1)
        raise failure

    async def report(total: int) -> None:
        pass

    async with open_ends(service) as ends:
        api = ends.client.proxy(Service)
        with pytest.raises(ExceptionGroup) as group:
            async with trio.open_nursery() as nursery:
                assert await nursery.start(api.adding, numbers(), report) == "ready"
        assert group.value.exceptions == (failure,)
        assert log == ["finally"]


async def test_an_upload_that_fails_and_a_peer_that_does_not_answer(autojump_clock):
    """R10: it is waited for, but not for ever."""
    failure = ValueError("no more")

    async def numbers() -> AsyncIterator[int]:
        await trio.sleep(1)
        raise failure
        yield 1

    class Contract:
        @rpc
        async def job(
            self,
            numbers: AsyncIterable[int],
            task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
        ) -> None: ...

    limits = Limits(cancel_timeout=3, close_timeout=1)
    async with open_against(limits=limits) as (connection, peer):
        started = trio.current_time()

        async def job() -> None:
            with pytest.raises(ValueError, match="no more") as caught:
                await connection.proxy(Contract).job(numbers())
            assert caught.value is failure

        async with trio.open_nursery() as nursery:
            nursery.start_soon(job)
            await peer.hears("call")
            await peer.says({"type": "chunk", "id": 1, "items": [5], "size": 1})
        assert trio.current_time() - started == 1 + 3


# --- the end of the connection


async def test_a_lost_connection(service, log, autojump_clock):
    async with open_ends(service, clean=False) as ends:
        with pytest.raises(ExceptionGroup) as group:
            async with trio.open_nursery() as nursery:
                await nursery.start(ends.client.proxy(Service).job, 1)
                await trio.aclose_forcefully(ends.up)
        [error] = group.value.exceptions
        assert isinstance(error, ConnectionLost)
        await quiet()
        assert log == ["finally"]


async def test_a_connection_that_is_lost_while_starting(service, log, autojump_clock):
    async with open_ends(service, clean=False) as ends:

        async def cut() -> None:
            await trio.sleep(1)
            await trio.aclose_forcefully(ends.up)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cut)
            with pytest.raises(ConnectionLost):
                await nursery.start(ends.client.proxy(Service).stubborn)
        await trio.sleep(2)
        assert log == ["started"]


async def test_a_server_that_closes(service, log, autojump_clock):
    """R6: a task that is cut says so."""
    async with open_ends(service, clean=False) as ends:
        with pytest.raises(ExceptionGroup) as group:
            async with trio.open_nursery() as nursery:
                await nursery.start(ends.client.proxy(Service).job, 1)
                await ends.server.aclose()
        [error] = group.value.exceptions
        assert isinstance(error, Unavailable)
        assert log == ["finally"]


# --- cancelled at every step


async def test_cancelled_at_every_step(service, log, autojump_clock):
    """Starting, using what it gave, and waiting for its end."""
    async with open_ends(service) as ends:
        api = ends.client.proxy(Service)

        async def attempt(cut: Cut) -> bool:
            log.clear()
            done = False
            with cut.arm():
                async with trio.open_nursery() as nursery:
                    handle = await nursery.start(api.steered)
                    assert await handle.who() == "job"
                    await handle.stop()
                done = True
            await quiet()
            ends.assert_clean()
            assert log in ([], ["finally"])
            assert not done or log
            return done

        await sweep(attempt, at_least=8)


async def test_start_cancelled_at_every_step(service, log, autojump_clock):
    """Either it has started and goes on, or it was cancelled."""
    async with open_ends(service) as ends:
        api = ends.client.proxy(Service)

        async def attempt(cut: Cut) -> bool:
            log.clear()
            handle = None
            async with trio.open_nursery() as nursery:
                with cut.arm():
                    handle = await nursery.start(api.steered)
                if handle is not None:
                    await handle.stop()
            await quiet()
            ends.assert_clean()
            assert log in ([], ["finally"])
            return handle is not None

        await sweep(attempt, at_least=3)


# --- against a peer that is no peer of this library's


async def test_a_second_value(autojump_clock):
    """R20: FLOW_CONTROL"""
    chunk = {"type": "chunk", "id": 1, "items": [5], "size": 1}
    async with open_against() as (connection, peer):

        async def job() -> None:
            with pytest.raises(FlowControlError):
                await connection.proxy(Service).job(1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(job)
            await peer.hears("call")
            await peer.says(chunk)
            await quiet()
            await peer.says(chunk)
            assert (await peer.hears("cancel"))["error"]["code"] == "FLOW_CONTROL"
        await peer.says({"type": "end", "id": 1})
        await quiet()


@pytest.mark.parametrize("mode", ["close", "abort"])
async def test_a_peer_that_cancels_a_task(mode, service, log, autojump_clock):
    """R8: however it says it, a task is cancelled."""
    async with open_against("accepting", serving=service) as (_, peer):
        window = {"items": 0, "bytes": 0}
        await peer.says({"type": "call", "id": 1, "method": "job", "args": [4], "window": window})
        assert (await peer.hears())["items"] == [8]
        await peer.says({"type": "cancel", "id": 1, "mode": mode})
        final = await peer.hears()
        assert (final["type"], final["error"]["code"]) == ("error", "CANCELLED")
        assert log == ["finally"]
