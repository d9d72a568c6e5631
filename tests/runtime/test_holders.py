"""Contexts on the side that serves them (R20): the scopes that they hold, and how they end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.runtime.ends import open_ends, quiet
from tests.runtime.peer import Peer, open_against
from trio_streamrpc import (
    CallCancelled,
    CleanupTimeout,
    ConnectionLost,
    Limits,
    NotFound,
    RemoteError,
    RpcError,
    Unavailable,
    rpc,
)


class Worker:
    """An object whose methods take their time, also to end."""

    def __init__(self, log: list[str], crash: Callable[[], None] | None = None) -> None:
        self.log = log
        self.crash = crash

    @rpc
    async def ping(self) -> str:
        return "pong"

    @rpc
    async def work(self, cleanup: float = 1) -> None:
        self.log.append("work")
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(cleanup)
            self.log.append("work: finally")

    @rpc
    async def count(self) -> AsyncIterator[int]:
        number = 0
        try:
            while True:
                yield number
                number += 1
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            self.log.append("count: finally")

    @rpc
    @asynccontextmanager
    async def inner(self) -> AsyncIterator[Worker]:
        try:
            yield Worker(self.log)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            self.log.append("inner: finally")

    @rpc
    async def stop(self) -> None:
        assert self.crash is not None
        self.crash()

    @rpc
    async def stop_and_wait(self) -> None:
        assert self.crash is not None
        self.crash()
        await trio.sleep_forever()


class Service:
    def __init__(self) -> None:
        self.log: list[str] = []

    def left(self, error: BaseException | None) -> None:
        self.log.append("left" if error is None else f"left: {type(error).__name__}")

    @asynccontextmanager
    async def logged(self) -> AsyncIterator[None]:
        try:
            yield
        except BaseException as error:
            self.left(error)
            raise
        else:
            self.left(None)

    @rpc
    @asynccontextmanager
    async def plain(self) -> AsyncIterator[Worker]:
        async with self.logged():
            yield Worker(self.log)

    @rpc
    @asynccontextmanager
    async def limited(self, seconds: float = 1, after: float = 0) -> AsyncIterator[Worker]:
        """It holds a scope open across its yield, and takes its time when that has expired."""
        with trio.move_on_after(seconds):
            async with self.logged():
                yield Worker(self.log)
        try:
            await trio.sleep(after)
        finally:
            self.log.append("after")

    @rpc
    @asynccontextmanager
    async def strict(self, seconds: float = 1) -> AsyncIterator[Worker]:
        with trio.fail_after(seconds):
            async with self.logged():
                yield Worker(self.log)

    @rpc
    @asynccontextmanager
    async def nursery(self) -> AsyncIterator[Worker]:
        """It holds a nursery open across its yield."""
        crashing = trio.Event()

        async def child() -> None:
            await crashing.wait()
            raise ValueError("the child")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
            async with self.logged():
                yield Worker(self.log, crashing.set)
            nursery.cancel_scope.cancel()

    @rpc
    @asynccontextmanager
    async def shielded(self) -> AsyncIterator[Worker]:
        with trio.CancelScope(shield=True):
            async with self.logged():
                yield Worker(self.log)

    @rpc
    @asynccontextmanager
    async def stubborn(self, entering: float) -> AsyncIterator[Worker]:
        """It does not let itself be stopped on entering."""
        with trio.CancelScope(shield=True):
            await trio.sleep(entering)
        async with self.logged():
            yield Worker(self.log)

    @rpc(cleanup=2)
    @asynccontextmanager
    async def slow_exit(self, seconds: float, *, shield: bool = False) -> AsyncIterator[Worker]:
        try:
            yield Worker(self.log)
        finally:
            try:
                with trio.CancelScope(shield=shield):
                    await trio.sleep(seconds)
                self.log.append("exited")
            except trio.Cancelled:
                self.log.append("cut short")
                raise

    @rpc
    @asynccontextmanager
    async def default_exit(self, seconds: float) -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await trio.sleep(seconds)


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def log(service: Service) -> list[str]:
    return service.log


async def catch(call: Callable[..., Any], raised: list[BaseException], *args: Any) -> None:
    try:
        await call(*args)
    except RpcError as error:
        raised.append(error)


# --- what runs on the object ends first


@pytest.mark.parametrize("how", ["close", "error", "abort"])
async def test_what_runs_on_the_object_has_ended_before_the_context_leaves(
    how, service, log, autojump_clock
):
    """R20: from the cancel on, new calls are NOT_FOUND and running ones are ended."""
    raised: list[BaseException] = []
    numbers: Any = None
    async with open_ends(service) as ends:
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                try:
                    async with ends.client.proxy(Service).plain() as worker:
                        nursery.start_soon(catch, worker.work, raised)
                        numbers = worker.count()
                        await numbers.__aenter__()
                        await quiet()
                        if how == "error":
                            raise ValueError
                        if how == "abort":
                            scope.cancel()
                except ValueError:
                    pass
        assert [type(each) for each in raised] == [CallCancelled]
        with pytest.raises(CallCancelled):
            while True:
                await numbers.receive()
        await trio.sleep(2)
        await numbers.aclose()
        assert sorted(log[:3]) == ["count: finally", "work", "work: finally"]
        ending = {"close": "left", "error": "left: RemoteError", "abort": "left: Cancelled"}
        assert log[3:] == [ending[how]]


async def test_a_new_call_after_the_cancel_is_not_found(service, log, autojump_clock):
    """Said by a peer that goes on calling."""
    async with open_against("accepting", serving=service) as (_, peer):
        await enter(peer, "plain")
        await peer.says({"type": "call", "id": 3, "method": "work", "target": 2, "args": [1]})
        await quiet()
        await peer.says(
            {"type": "cancel", "id": 1, "mode": "close"},
            {"type": "call", "id": 5, "method": "ping", "target": 2},
        )
        refused = await peer.hears()
        assert (refused["type"], refused["id"]) == ("error", 5)
        assert refused["error"]["code"] == "NOT_FOUND"
        ended = await peer.hears()
        assert (ended["type"], ended["id"], ended["error"]["code"]) == ("error", 3, "CANCELLED")
        assert await peer.hears() == {"type": "end", "id": 1}
        assert log == ["work", "work: finally", "left"]
        await peer.says({"type": "call", "id": 7, "method": "ping", "target": 2})
        assert (await peer.hears())["error"]["code"] == "NOT_FOUND"


async def enter(peer: Peer, method: str, *args: Any, id: int = 1, items: int = 1) -> int:
    """A context, by hand; gives the id of its object."""
    window = {"items": items, "bytes": items}
    await peer.says({"type": "call", "id": id, "method": method, "args": args, "window": window})
    chunk = await peer.hears("chunk", "error")
    assert chunk["type"] == "chunk", chunk
    assert (chunk["id"], chunk["items"]) == (id, [None])
    [[place, kind, ref]] = chunk["refs"]
    assert (place, kind) == (0, "object")
    return int(ref)


async def test_a_context_on_an_object_is_left_before_the_one_it_belongs_to(
    service, log, autojump_clock
):
    raised: list[BaseException] = []
    async with open_ends(service) as ends:

        async def hold(worker: Worker) -> None:
            async with worker.inner() as inner:
                nursery.start_soon(catch, inner.work, raised)
                await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            async with ends.client.proxy(Service).plain() as worker:
                nursery.start_soon(hold, worker)
                await quiet()
            assert log == ["work", "work: finally", "inner: finally", "left"]
            nursery.cancel_scope.cancel()
        assert len(raised) == 1


async def test_what_runs_on_the_object_takes_from_the_budget(service, log, autojump_clock):
    """R7a: what is asked to stop has cleanup seconds, whatever it needs them for."""
    async with open_ends(service, limits=Limits(cleanup=3)) as ends:
        raised: list[BaseException] = []
        async with trio.open_nursery() as nursery:
            started = trio.current_time()
            with pytest.raises(CleanupTimeout, match="slow_exit was cut short after 2 s"):
                async with ends.client.proxy(Service).slow_exit(1.5) as worker:
                    nursery.start_soon(catch, worker.work, raised, 1)
                    await quiet()
            assert trio.current_time() - started == 2
        assert log == ["work", "work: finally", "cut short"]


async def test_a_method_that_outlives_the_budget_does_not_hold_up_the_exit(
    service, log, autojump_clock
):
    raised: list[BaseException] = []
    async with open_ends(service, limits=Limits(cleanup=3), clean=False) as ends:
        async with trio.open_nursery() as nursery:
            started = trio.current_time()
            async with ends.client.proxy(Service).plain() as worker:
                nursery.start_soon(catch, worker.work, raised, 100)
                await quiet()
            assert trio.current_time() - started == 3
        assert log == ["work", "left"]
        assert [type(each) for each in raised] == [CleanupTimeout]
        await trio.sleep(100)
        assert log[-1] == "work: finally"
        ends.assert_clean()


# --- the context ends by itself


@pytest.mark.parametrize("method", ["limited", "strict", "nursery"])
async def test_when_a_context_ends_by_itself_so_do_its_objects(
    method, service, log, autojump_clock
):
    """R20: running calls have ended before the context leaves; new ones are NOT_FOUND."""
    raised: list[BaseException] = []
    seen: list[BaseException | None] = []
    async with open_ends(service) as ends:
        try:
            async with getattr(ends.client.proxy(Service), method)() as worker:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(catch, worker.work, raised)
                    await quiet()
                    if method == "nursery":
                        await worker.stop()
                    await trio.sleep(5)
                with pytest.raises(NotFound):
                    await worker.ping()
                assert log[:3] == ["work", "work: finally", "left: Cancelled"]
        except (RemoteError, CallCancelled) as error:
            seen.append(error)
        assert len(raised) == 1
        names = {"limited": "CallCancelled", "strict": "TooSlowError", "nursery": "ExceptionGroup"}
        assert [each.name for each in seen if isinstance(each, RpcError)] == [names[method]]


async def test_a_context_that_ends_by_itself_suppresses_nothing(service, log, autojump_clock):
    """It never saw the block's error: neither when it had ended before, nor when they crossed."""
    for waiting in (0.5, 1, 1.5):
        mine = ValueError("mine")
        async with open_ends(service) as ends:
            with pytest.raises(ValueError, match="mine") as caught:
                async with ends.client.proxy(Service).limited(1):
                    await trio.sleep(waiting)
                    raise mine
            assert caught.value is mine
            assert mine.__context__ is None


async def test_an_error_that_crosses_a_contexts_own_end_is_not_lost(service, log, autojump_clock):
    """R20: had it said `end`, the caller would take its own error for suppressed."""
    mine = ValueError("mine")
    async with open_ends(service) as ends:

        async def let_go() -> None:
            await trio.sleep(3)
            assert log == ["left: Cancelled", "after"]
            ends.up.let_go()
            ends.down.let_go()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(let_go)
            try:
                async with ends.client.proxy(Service).limited(1):
                    ends.up.hold()
                    ends.down.hold()
                    await trio.sleep(2)
                    raise mine
            except ValueError as caught:
                assert caught is mine  # noqa: PT017
                assert trio.current_time() >= 3
                log.append("raised")
        assert log[-1] == "raised"
        [final] = ends.down.sent("end", "error")
        assert final["same"] is True


@pytest.mark.parametrize("how", ["close", "error", "abort"])
@pytest.mark.parametrize("seconds", [0.5, 1, 1.5, 2])
@pytest.mark.parametrize("expires", [1, 100])
@pytest.mark.parametrize("working", [False, True])
async def test_however_it_ends_it_ends_in_order(
    how, seconds, expires, working, service, log, autojump_clock
):
    """By itself, by its caller, or both at once; with a call that takes its time to end, or not."""
    mine = ValueError("mine")
    raised: list[BaseException] = []
    async with open_ends(service) as ends:
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                try:
                    async with ends.client.proxy(Service).limited(expires, after=0.7) as worker:
                        if working:
                            nursery.start_soon(catch, worker.work, raised, 0.7)
                        await trio.sleep(seconds)
                        if how == "error":
                            raise mine
                        if how == "abort":
                            scope.cancel()
                except ValueError as error:
                    assert error is mine  # noqa: PT017
                    log.append("raised")
                except CallCancelled as error:
                    # It was left in peace, and was not there any more.
                    assert str(error) == "the context has ended by itself"  # noqa: PT017
                    assert how == "close"
                    log.append("told")
            assert scope.cancelled_caught == (how == "abort")
        await trio.sleep(3)
        ends.assert_clean()
        assert [type(each) for each in raised] == [CallCancelled] * working
        assert log.count("raised") == (how == "error")
        assert log.count("told") == (how == "close" and expires <= seconds)
        assert mine.__context__ is None
        rest = [each for each in log if each not in ("raised", "told")]
        assert rest[: 2 * working] == ["work", "work: finally"] * working
        left, *after = rest[2 * working :]
        assert left.startswith("left")
        # A cancel that is not the scope's own goes through it.
        assert after == ["after"] or (how, after) == ("error", []) or (how, after) == ("abort", [])
        if how != "abort" or seconds < expires:
            assert (left == "left: Cancelled") == (how == "abort" or expires <= seconds)


@pytest.mark.parametrize("error", [None, ValueError("mine")])
async def test_a_context_that_has_begun_to_leave_by_itself_is_not_cut_short(
    error, service, log, autojump_clock
):
    """What its caller leaves with meanwhile gives it a limit, and no more."""
    async with open_ends(service) as ends:
        started = trio.current_time()
        raised: BaseException | None = None
        try:
            async with ends.client.proxy(Service).limited(1, after=3):
                await trio.sleep(2)
                if error is not None:
                    raise error
        except (ValueError, CallCancelled) as caught:
            raised = caught
        if error is None:
            assert str(raised) == "the context has ended by itself"
        else:
            assert raised is error
        assert trio.current_time() - started == 4
        assert log == ["left: Cancelled", "after"]


async def test_a_context_that_leaves_by_itself_has_a_limit_from_then_on(
    service, log, autojump_clock
):
    async with open_ends(service, limits=Limits(cleanup=2)) as ends:
        started = trio.current_time()
        with pytest.raises(CleanupTimeout, match="limited was cut short after 2 s"):
            async with ends.client.proxy(Service).limited(1, after=100):
                await trio.sleep(2)
        assert trio.current_time() - started == 4
        assert log == ["left: Cancelled", "after"]


async def test_the_limit_holds_as_well_while_its_objects_are_ended(service, log, autojump_clock):
    """Asked while it waits for what ran on its object, on its way out already."""
    async with open_ends(service, limits=Limits(cleanup=4)) as ends:
        raised: list[BaseException] = []
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            with pytest.raises(CleanupTimeout, match="limited was cut short after 4 s"):
                async with ends.client.proxy(Service).limited(1, after=100) as worker:
                    nursery.start_soon(catch, worker.work, raised, 2)
                    await trio.sleep(2)
            assert trio.current_time() - started == 6
        assert log == ["work", "work: finally", "left: Cancelled", "after"]


async def test_a_cancel_cuts_a_context_short_that_leaves_by_itself(service, log, autojump_clock):
    """R8: an abort without an error cancels it, wherever it is."""
    async with open_ends(service) as ends:
        started = trio.current_time()
        with trio.move_on_after(2):
            async with ends.client.proxy(Service).limited(1, after=100):
                await trio.sleep_forever()
        await quiet()
        assert trio.current_time() - started == 2
        assert log == ["left: Cancelled", "after"]


async def test_an_object_may_end_its_own_context(service, log, autojump_clock):
    async with open_ends(service) as ends:
        with pytest.raises(RemoteError) as caught:
            async with ends.client.proxy(Service).nursery() as worker:
                with pytest.raises(CallCancelled):
                    await worker.stop_and_wait()
                with pytest.raises(NotFound):
                    await worker.ping()
        assert [each.message for each in caught.value.causes] == ["the child"]
        assert log == ["left: Cancelled"]


async def test_scopes_and_nurseries_nest(service, log, autojump_clock):
    """Across the yield, with calls before and after, and each left as it was entered."""
    async with open_ends(service) as ends:
        api = ends.client.proxy(Service)
        async with api.limited(50) as one, api.nursery() as two, api.limited(60) as three:
            for each in (one, two, three):
                assert await each.ping() == "pong"
            await trio.sleep(1)
        assert log == ["left", "after", "left", "left", "after"]


async def test_an_error_in_a_nursery_is_wrapped_as_it_is_anywhere(service, log, autojump_clock):
    mine = ValueError("mine")
    async with open_ends(service) as ends:
        with pytest.raises(RemoteError) as caught:
            async with ends.client.proxy(Service).nursery():
                raise mine
        assert caught.value.name == "ExceptionGroup"
        assert [(each.name, each.message) for each in caught.value.causes] == [
            ("ValueError", "mine")
        ]
        assert caught.value.__context__ is mine
        assert log == ["left: RemoteError"]


async def test_a_shield_across_the_yield_does_not_make_a_cancel_a_clean_exit(
    service, log, autojump_clock
):
    """A cancelled caller has not left normally, so nothing may be committed for it."""
    async with open_ends(service) as ends:
        with trio.move_on_after(1):
            async with ends.client.proxy(Service).shielded():
                await trio.sleep_forever()
        await quiet()
        assert log == ["left: CallCancelled"]
        [error] = ends.down.sent("error")
        assert error["error"]["code"] == "CANCELLED"


# --- asked while it is being entered


async def test_a_caller_that_is_cancelled_while_entering(service, log, autojump_clock):
    async with open_ends(service) as ends:
        with trio.move_on_after(1):
            async with ends.client.proxy(Service).stubborn(3):
                raise AssertionError
        assert trio.current_time() - ends.client.last_heard <= 1
        await trio.sleep(3)
        assert log == ["left: Cancelled"]
        [error] = ends.down.sent("error", "end")
        assert error["error"]["code"] == "CANCELLED"


async def test_a_peer_that_leaves_while_the_context_is_being_entered(service, log, autojump_clock):
    """R8: it is in an await of its own, so it is cancelled."""
    async with open_against("accepting", serving=service) as (_, peer):
        for id, mode in ((1, "close"), (3, "abort")):
            window = {"items": 1, "bytes": 1}
            call = {"type": "call", "id": id, "method": "stubborn", "args": [3], "window": window}
            await peer.says(call)
            await quiet()
            await peer.says({"type": "cancel", "id": id, "mode": mode})
            final = await peer.hears()
            assert (final["type"], final["id"]) == ("error", id)
            assert final["error"]["code"] == "CANCELLED"
        assert log == ["left: Cancelled"] * 2


@pytest.mark.parametrize("window", [{"items": 0, "bytes": 0}, {"items": 1, "bytes": 0}])
async def test_the_item_is_outside_credit(window, service, log, autojump_clock):
    """R20"""
    async with open_against("accepting", serving=service) as (_, peer):
        await peer.says({"type": "call", "id": 1, "method": "plain", "window": window})
        assert (await peer.hears())["refs"] == [[0, "object", 2]]
        await peer.says({"type": "call", "id": 3, "method": "default_exit", "args": [0],
                         "window": window})  # fmt: skip
        assert (await peer.hears())["items"] == [1]
        await peer.says({"type": "cancel", "id": 1, "mode": "close"})
        assert await peer.hears() == {"type": "end", "id": 1}


# --- budgets


@pytest.mark.parametrize("error", [None, ValueError("mine")])
async def test_an_exit_is_cut_short(error, service, log, autojump_clock):
    """R7a: @rpc(cleanup=…)"""
    async with open_ends(service) as ends:
        started = trio.current_time()
        with pytest.raises((CleanupTimeout, ValueError)) as caught:
            async with ends.client.proxy(Service).slow_exit(10):
                if error is not None:
                    raise error
        assert trio.current_time() - started == 2
        assert log == ["cut short"]
        if error is None:
            assert isinstance(caught.value, CleanupTimeout)
            assert "slow_exit was cut short after 2 s" in str(caught.value)
        else:
            assert caught.value is error
            [note] = error.__notes__
            assert "CleanupTimeout" in note


async def test_the_limit_of_an_exit_where_the_method_has_none(service, autojump_clock):
    async with open_ends(service, limits=Limits(cleanup=3)) as ends:
        api = ends.client.proxy(Service)
        async with api.default_exit(2.9):
            pass
        with pytest.raises(CleanupTimeout, match="cut short after 3 s"):
            async with api.default_exit(3.1):
                pass


async def test_an_exit_that_ignores_its_limit(service, log, autojump_clock):
    """R7a: the caller is told, and the place is kept until it has ended."""
    async with open_ends(service, clean=False) as ends:
        started = trio.current_time()
        with pytest.raises(CleanupTimeout, match="slow_exit has not stopped within 2 s"):
            async with ends.client.proxy(Service).slow_exit(10, shield=True):
                pass
        assert trio.current_time() - started == 3
        assert ends.server.endpoint.places.running == 1
        await trio.sleep(8)
        assert log == ["exited"]
        ends.assert_clean()


# --- the end of the connection


async def test_a_lost_connection_cancels_the_context(service, log, autojump_clock):
    async with open_ends(service, clean=False) as ends:
        with pytest.raises(ConnectionLost) as caught:
            async with ends.client.proxy(Service).plain() as worker:
                await trio.aclose_forcefully(ends.up)
                await quiet()
                assert log == ["left: Cancelled"]
                await worker.ping()
        assert not hasattr(caught.value, "__notes__")


async def test_a_lost_connection_is_told_on_leaving(service, log, autojump_clock):
    async with open_ends(service, clean=False) as ends:
        with pytest.raises(ConnectionLost):
            async with ends.client.proxy(Service).plain():
                await trio.aclose_forcefully(ends.up)
                await quiet()
        mine = ValueError("mine")
    async with open_ends(service, clean=False) as ends:
        with pytest.raises(ValueError, match="mine") as caught:
            async with ends.client.proxy(Service).plain():
                await trio.aclose_forcefully(ends.up)
                await quiet()
                raise mine
        assert caught.value is mine
        assert "ConnectionLost" in mine.__notes__[0]


async def test_a_connection_lost_while_leaving(service, log, autojump_clock):
    async with open_ends(service, clean=False) as ends:
        async with trio.open_nursery() as nursery:

            async def cut() -> None:
                await trio.sleep(1)
                await trio.aclose_forcefully(ends.up)

            with pytest.raises(ConnectionLost):
                async with ends.client.proxy(Service).slow_exit(1.5):
                    nursery.start_soon(cut)
        await trio.sleep(2)
        assert log == ["exited"]


async def test_a_server_that_closes_cancels_the_context(service, log, autojump_clock):
    """R6: it is told as UNAVAILABLE."""
    async with open_ends(service, clean=False) as ends:
        with pytest.raises(Unavailable):
            async with ends.client.proxy(Service).plain():
                await ends.server.aclose()
                assert log == ["left: Cancelled"]


async def test_a_server_that_drains_lets_the_context_go_on(service, log, autojump_clock):
    """R27: its objects can be called, and drain() waits until it was left."""
    async with open_ends(service) as ends:
        async with trio.open_nursery() as nursery:
            api = ends.client.proxy(Service)
            drained = trio.Event()

            async def drain() -> None:
                await ends.server.drain()
                drained.set()

            async with api.plain() as worker:
                nursery.start_soon(drain)
                await quiet()
                assert await worker.ping() == "pong"
                async with worker.inner() as inner:
                    assert await inner.ping() == "pong"
                with pytest.raises(Unavailable):
                    async with api.plain():
                        raise AssertionError
                assert not drained.is_set()
            await drained.wait()
        assert log == ["inner: finally", "left"]


async def test_a_client_that_closes_its_connection_within_a_context(service, log, autojump_clock):
    async with open_ends(service, clean=False) as ends:
        with pytest.raises(ConnectionLost, match="closed here"):
            async with ends.client.proxy(Service).plain():
                await ends.client.aclose()
                assert log == ["left: Cancelled"]
