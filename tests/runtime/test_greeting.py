"""greeting.py: whom the accepting side lets in, and what happens until it has decided (R25)."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.protocol.wire import BOTH, message
from tests.runtime.ends import sweep
from tests.runtime.peer import HELLO, Peer
from tests.service import Service
from trio_streamrpc import (
    Code,
    Connection,
    ConnectionLost,
    Handshake,
    Limits,
    LocalProtocolError,
    PermissionDenied,
    RemoteError,
    RemoteProtocolError,
    RpcError,
    Unauthenticated,
    Unavailable,
    current_call,
    open_connection,
    rpc,
)
from trio_streamrpc.nurseries import open_background_nursery
from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.runtime.handshake import Authenticate
from trio_streamrpc.testing import open_pair
from trio_streamrpc.transports.memory import open_memory_transports

CALL = {"type": "call", "id": 1, "method": "add", "args": [1, 2]}
WAIT = {"type": "call", "id": 1, "method": "wait"}


class Gate:
    """An ``authenticate`` that waits until it is told what to do."""

    def __init__(self) -> None:
        self.handshakes: list[Handshake] = []
        self.called = trio.Event()
        self.decided = trio.Event()
        self.cancelled = False
        self.error: BaseException | None = None

    async def __call__(self, handshake: Handshake) -> Any:
        self.handshakes.append(handshake)
        self.called.set()
        try:
            await self.decided.wait()
        except trio.Cancelled:
            self.cancelled = True
            raise
        if self.error is not None:
            raise self.error
        return handshake.metadata.get("who", "nobody")


class Accepting:
    """An accepting side that asks a gate, and by hand the peer that knocks at it."""

    def __init__(self, peer: Peer, gate: Gate) -> None:
        self.peer = peer
        self.gate = gate
        self.service = Service()
        self.connection: Connection | None = None
        self.error: BaseException | None = None
        self.entered = trio.Event()
        self.over = trio.Event()
        self.scope = trio.CancelScope()


@asynccontextmanager
async def accepting(
    encoding: Encoding = "msgpack", *, authenticate: Authenticate | None = None, **options: Any
) -> AsyncIterator[Accepting]:
    here, there = open_memory_transports(encoding=encoding, capacity=100)
    side = Accepting(Peer(there), Gate())

    async def accept() -> None:
        try:
            with side.scope:
                async with open_connection(
                    here,
                    "accepting",
                    serving=side.service,
                    authenticate=authenticate or side.gate,
                    **options,
                ) as connection:
                    side.connection = connection
                    side.entered.set()
                    await connection.wait_closed()
        except RpcError as error:
            side.error = error
        side.over.set()

    with trio.fail_after(1000):
        async with open_background_nursery() as nursery:
            nursery.start_soon(accept)
            yield side


@BOTH
async def test_nothing_is_done_before_the_decision(
    encoding: Encoding, autojump_clock: MockClock
) -> None:
    """R25: no hello, no answer, no handler; all of it afterwards, in order."""
    async with accepting(encoding) as side:
        hello = {**HELLO, "metadata": {"who": "me"}}
        await side.peer.says(hello, {"type": "ping", "token": 1}, WAIT)
        await side.peer.says({**CALL, "id": 3})
        await wait_all_tasks_blocked()
        [handshake] = side.gate.handshakes
        assert handshake.metadata == {"who": "me"}
        assert side.service.running == []
        assert not side.entered.is_set()
        side.gate.decided.set()
        assert (await side.peer.hears())["type"] == "hello"
        assert (await side.peer.hears())["type"] == "pong"
        assert await side.peer.hears() == {"type": "result", "id": 3, "value": 3}
        await side.entered.wait()
        assert side.connection is not None
        assert side.connection.identity == "me"
        assert side.service.running == ["wait"]


async def test_what_comes_later_comes_as_ever(autojump_clock: MockClock) -> None:
    """The reader waits for a message while it is decided: that one may be as long as any."""
    async with accepting() as side:
        await side.peer.says(HELLO)
        await side.gate.called.wait()
        side.gate.decided.set()
        await side.peer.hears("hello")
        value = bytes(100_000)
        for id in (1, 3, 5):
            await side.peer.says({"type": "call", "id": id, "method": "echo", "args": [value]})
            assert (await side.peer.hears("result"))["value"] == value


async def test_reading_stops(autojump_clock: MockClock) -> None:
    """R25: after the hello's message and one more, whatever else comes."""
    async with accepting() as side:
        for frames in ([HELLO], [CALL], [{**CALL, "id": 3}], [{**CALL, "id": 5}]):
            await side.peer.says(*frames)
        await wait_all_tasks_blocked()
        transport = side.peer.transport
        assert transport._sender.statistics().current_buffer_used == 2  # type: ignore[attr-defined]
        side.gate.decided.set()
        await side.peer.hears("hello")
        assert [(await side.peer.hears("result"))["id"] for _ in range(3)] == [1, 3, 5]


# --- refusals


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (Unauthenticated("no such token"), Unauthenticated, "no such token"),
        (PermissionDenied("not on Sundays"), PermissionDenied, "not on Sundays"),
        (Unavailable("ask again\nlater 🙂"), Unavailable, "ask again\nlater 🙂"),
        (RpcError("gone", code=Code.ABORTED), RpcError, "gone"),
        (RpcError("what", code=Code.UNKNOWN), RemoteError, "what"),
        (Unauthenticated("x" * 1000), Unauthenticated, "x" * 200),
        (RemoteProtocolError("no way"), LocalProtocolError, None),
        (
            ExceptionGroup("", [ExceptionGroup("", [PermissionDenied("no")])]),
            PermissionDenied,
            "no",
        ),
    ],
)
@BOTH
async def test_what_authenticate_refuses_with_is_raised_there(
    encoding: Encoding,
    error: Exception,
    kind: type[RpcError],
    message: str | None,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """R25: with its code and its message; and it is nothing for the log."""

    async def refuse(handshake: Handshake) -> None:
        raise error

    service = Service()
    with pytest.raises(kind) as caught:
        async with open_pair(service, encoding=encoding, authenticate=refuse):
            pytest.fail("the block must not begin")
    if message is not None:
        assert caught.value.message == message
    if isinstance(error, RpcError):
        assert caught.value.code == error.code
    assert caplog.records == []


@BOTH
async def test_a_refusal_on_the_wire(encoding: Encoding, autojump_clock: MockClock) -> None:
    """R25: a goaway in the place of a hello, and nothing else; what came early is never run."""
    async with accepting(encoding) as side:
        await side.peer.says(HELLO, WAIT)
        side.gate.error = PermissionDenied("not today")
        side.gate.decided.set()
        assert await side.peer.hears_the_end() == [
            {"type": "goaway", "code": "PERMISSION_DENIED", "message": "not today"}
        ]
        await side.over.wait()
        assert isinstance(side.error, PermissionDenied)
        assert str(side.error) == "not today"
        assert side.service.ended == side.service.running == []


class Careless(RpcError):
    """An error that can be neither copied nor shown."""

    def __init__(self, first: int, second: int) -> None:
        self.numbers = first, second

    def __str__(self) -> str:
        raise ValueError("no text")


async def test_an_error_of_a_users_own_class(autojump_clock: MockClock) -> None:
    async def refuse(handshake: Handshake) -> None:
        raise Careless(1, 2)

    with pytest.raises(RemoteError):
        async with open_pair(Service(), authenticate=refuse):
            pytest.fail("the block must not begin")


async def fails(handshake: Handshake) -> None:
    raise ValueError(f"the secret of {handshake.metadata['who']}\n" + "x" * 1000)


def returns(handshake: Handshake) -> str:
    return "me"


async def fails_twice(handshake: Handshake) -> None:
    raise ExceptionGroup("secret", [ValueError("secret"), PermissionDenied("secret")])


async def passes_on(handshake: Handshake) -> None:
    # As one does that asks another service, whose handler has raised that.
    error = RemoteError("the secret of that service")
    error.name = "ValueError"
    raise error


async def returns_false(handshake: Handshake) -> bool:
    """Which would let everybody in, if it meant anything else."""
    return handshake.metadata.get("token") == "secret"


@pytest.mark.parametrize("authenticate", [fails, returns, fails_twice, passes_on, returns_false])
async def test_any_other_exception_is_told_without_a_word_of_it(
    authenticate: Any, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, once, with where it happened; what it says is escaped and cut."""
    with pytest.raises(Unauthenticated) as caught:
        async with open_pair(
            Service(), authenticate=authenticate, metadata={"who": "me\r\nroot: logged in"}
        ):
            pytest.fail("the block must not begin")
    assert caught.value.message == "authentication failed"
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert "handshake.py" in record.getMessage()
    first, *_ = record.getMessage().split("\n")
    assert len(first) < 300
    assert "root: logged in" not in record.getMessage().replace(first, "")
    assert "\r" not in record.getMessage()
    assert "xxx" * 100 not in record.getMessage()


async def test_an_interrupt_is_nobodys_refusal(autojump_clock: MockClock) -> None:
    async def interrupt(handshake: Handshake) -> None:
        raise KeyboardInterrupt

    here, there = open_memory_transports(capacity=10)
    await Peer(there).says(HELLO)
    with pytest.raises(KeyboardInterrupt):
        async with open_connection(here, "accepting", authenticate=interrupt):
            pytest.fail("the block must not begin")


# --- how long it may take, and what ends it


async def test_it_is_bounded(autojump_clock: MockClock) -> None:
    """R25: handshake_timeout is for all of it, the time until the hello included."""
    async with accepting(limits=Limits(handshake_timeout=3)) as side:
        start = trio.current_time()
        await trio.sleep(2)
        await side.peer.says(HELLO)
        [said] = await side.peer.hears_the_end()
        assert said["code"] == "UNAVAILABLE"
        assert said["message"] == "authentication took longer than 3 s"
        assert trio.current_time() - start == pytest.approx(3)
        assert side.gate.cancelled


async def test_it_may_take_as_long_as_that(autojump_clock: MockClock) -> None:
    async with accepting(limits=Limits(handshake_timeout=3)) as side:
        await trio.sleep(2)
        await side.peer.says(HELLO)
        await trio.sleep(0.9)
        side.gate.decided.set()
        await side.peer.hears("hello")


async def goes_away(side: Accepting) -> None:
    await side.peer.transport.aclose()


async def breaks_the_rules(side: Accepting) -> None:
    await side.peer.transport.send(b"\xc1")


async def is_cancelled(side: Accepting) -> None:
    side.scope.cancel()


@pytest.mark.parametrize("end", [goes_away, breaks_the_rules, is_cancelled])
async def test_it_is_cancelled_and_something_fails_besides(
    end: Callable[[Accepting], Awaitable[None]],
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It ends as it would have; what has failed is logged like any other failure of it."""
    called = trio.Event()

    async def fails_at_last() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("the secret\r\nroot: logged in")

    async def authenticate(handshake: Handshake) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails_at_last)
            called.set()
            await trio.sleep_forever()

    async with accepting(authenticate=authenticate) as side:
        await side.peer.says(HELLO)
        await called.wait()
        await end(side)
        await side.over.wait()
        assert side.scope.cancelled_caught == (end is is_cancelled)
        if end is goes_away:
            assert isinstance(side.error, ConnectionLost)
        elif end is breaks_the_rules:
            assert isinstance(side.error, RemoteProtocolError)
    [record] = caplog.records
    assert record.getMessage().startswith("authenticate failed")
    assert "\r" not in record.getMessage()


@pytest.mark.parametrize("end", [goes_away, breaks_the_rules, is_cancelled])
async def test_it_is_cancelled(
    end: Callable[[Accepting], Awaitable[None]], autojump_clock: MockClock
) -> None:
    """At once, when there is nothing left to decide."""
    async with accepting() as side:
        await side.peer.says(HELLO)
        await side.gate.called.wait()
        start = trio.current_time()
        await end(side)
        await side.over.wait()
        assert trio.current_time() == start
        assert side.gate.cancelled
        assert side.scope.cancelled_caught == (end is is_cancelled)
        if end is goes_away:
            assert isinstance(side.error, ConnectionLost)
        elif end is breaks_the_rules:
            assert isinstance(side.error, RemoteProtocolError)


async def test_a_peer_that_goes_away_before_it_says_hello(autojump_clock: MockClock) -> None:
    """Nobody is asked about it."""
    async with accepting() as side:
        await side.peer.transport.aclose()
        await side.over.wait()
        assert isinstance(side.error, ConnectionLost)
        assert side.gate.handshakes == []


async def test_what_was_held_and_is_wrong(autojump_clock: MockClock) -> None:
    """R25: found when it is taken up, and a connection error then."""
    async with accepting() as side:
        await side.peer.says(HELLO, {"type": "end", "id": 2})
        side.gate.decided.set()
        said = await side.peer.hears_the_end()
        assert [each["type"] for each in said] == ["goaway"]
        assert said[-1]["code"] == "PROTOCOL_ERROR"
        await side.over.wait()
        assert isinstance(side.error, RemoteProtocolError)


# --- what may be said before


async def test_early_bytes(autojump_clock: MockClock) -> None:
    """Limits.max_early_bytes, of all that comes early together."""
    for over in (0, 1):
        async with accepting(limits=Limits(max_early_bytes=2000)) as side:
            hello = {**HELLO, "metadata": {"x": "y"}}
            await side.peer.says(hello)
            await side.gate.called.wait()
            size = 2000 - len(message_of(hello)) + over
            await side.peer.transport.send(message_of({"type": "ping", "token": ""}, size=size))
            await wait_all_tasks_blocked()
            side.gate.decided.set()
            if over:
                [said] = await side.peer.hears_the_end()
                assert said["message"] == (
                    "2001 bytes from a side that is not known yet, which may send 2000"
                )
                await side.over.wait()
                assert isinstance(side.error, RemoteProtocolError)
                assert side.error.close_code == 1009
                assert side.gate.cancelled
            else:
                assert (await side.peer.hears())["type"] == "hello"
                assert (await side.peer.hears())["type"] == "pong"


def message_of(frame: dict[str, Any], *, size: int = 0) -> bytes:
    """A message of that frame, made as long as that by a token."""
    made = message("msgpack", frame)
    if size:
        made = message("msgpack", {**frame, "token": "x" * (size - len(made) - 2)})
        assert len(made) == size
    assert isinstance(made, bytes)
    return made


@BOTH
async def test_early_frames(encoding: Encoding, autojump_clock: MockClock) -> None:
    """Limits.max_early_frames, behind the hello."""
    for over in (0, 1):
        async with accepting(encoding, limits=Limits(max_early_frames=3)) as side:
            calls = [{**CALL, "id": id} for id in range(1, 2 * (3 + over), 2)]
            await side.peer.says(HELLO, *calls[:1])
            await side.peer.says(*calls[1:])
            await wait_all_tasks_blocked()
            side.gate.decided.set()
            if over:
                [said] = await side.peer.hears_the_end()
                assert said["message"] == (
                    "4 frames from a side that is not known yet, which may send 3"
                )
                await side.over.wait()
                assert side.gate.cancelled == bool(side.gate.handshakes)
            else:
                await side.peer.hears("hello")
                for id in (1, 3, 5):
                    assert await side.peer.hears() == {"type": "result", "id": id, "value": 3}


async def test_who_is_not_asked_for_may_say_more(autojump_clock: MockClock) -> None:
    """Without authenticate who says hello is in, and nothing is early."""
    here, there = open_memory_transports(capacity=100)
    peer = Peer(there)
    limits = Limits(max_early_bytes=1024, max_early_frames=1)
    async with open_background_nursery() as nursery:
        await peer.says(HELLO, CALL, {**CALL, "id": 3})
        await peer.says({"type": "call", "id": 5, "method": "echo", "args": [bytes(2000)]})

        async def accept() -> None:
            async with open_connection(here, "accepting", serving=Service(), limits=limits) as it:
                await it.wait_closed()

        nursery.start_soon(accept)
        for id in (1, 3, 5):
            assert (await peer.hears("result"))["id"] == id


# --- identities


class Who:
    @rpc
    async def am_i(self) -> Any:
        return current_call().identity

    @rpc
    async def are_you(self) -> AsyncIterator[Any]:
        yield current_call().identity
        yield current_call().connection.identity


async def test_the_identity_of_a_call(autojump_clock: MockClock) -> None:
    async def authenticate(handshake: Handshake) -> Any:
        await trio.sleep(1)
        return {"user": handshake.metadata["token"]}

    async with open_pair(Who(), authenticate=authenticate, metadata={"token": "abc"}) as connection:
        assert await connection.call("am_i") == {"user": "abc"}
        async with connection.stream("are_you") as stream:
            assert [item async for item in stream] == [{"user": "abc"}, {"user": "abc"}]
        assert connection.identity is None


@pytest.mark.parametrize("identity", [None, 0, ""])
async def test_any_identity_will_do(identity: Any, autojump_clock: MockClock) -> None:
    """Who is let in is decided by what is raised, and by nothing else."""

    async def authenticate(handshake: Handshake) -> Any:
        return identity

    async with open_pair(Who(), authenticate=authenticate) as connection:
        assert await connection.call("am_i") == identity


# --- cancelling


async def test_a_cancellation_at_every_point(autojump_clock: MockClock) -> None:
    """Of the side that connects, and of the one that decides: nothing is left behind."""

    async def authenticate(handshake: Handshake) -> str:
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        return "me"

    async def attempt(cut: Any) -> bool:
        before = trio.lowlevel.current_statistics().tasks_living
        with cut.arm():
            async with open_pair(Who(), authenticate=authenticate) as connection:
                assert await connection.call("am_i") == "me"
            return True
        assert trio.lowlevel.current_statistics().tasks_living <= before + 1
        return False

    await sweep(attempt, at_least=10)


# --- what cannot be


async def test_what_is_no_authenticate() -> None:
    async def generates(handshake: Handshake) -> AsyncIterator[int]:
        yield 1

    bad: Any
    for bad in ("token", 5, generates):
        with pytest.raises(TypeError, match="authenticate is an async function"):
            async with open_pair(Who(), authenticate=bad):
                pytest.fail("the block must not begin")


async def test_the_side_that_connects_decides_nothing() -> None:
    async def authenticate(handshake: Handshake) -> None: ...

    here, _ = open_memory_transports()
    with pytest.raises(ValueError, match="accepting side"):
        async with open_connection(here, authenticate=authenticate):
            pytest.fail("the block must not begin")
