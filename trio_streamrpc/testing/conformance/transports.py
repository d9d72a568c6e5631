"""What ``transports.base`` promises for every transport, as checks over any two ends of one.

In the manner of :func:`trio.testing.check_two_way_stream`: who has written a transport says how a
pair of it is made, and is told what it does not keep.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final

import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from trio_streamrpc.errors import ConnectionLost
from trio_streamrpc.transports.base import Transport, close_by_force

__all__ = ["TRANSPORT_CHECKS", "MakePair", "Pair", "check_transport"]

#: Two ends of one transport; the first is the connecting side's.
Pair = tuple[Transport, Transport]
#: Makes two ends: at once, as a coroutine, or as an async context manager that closes them.
MakePair = Callable[[], AbstractAsyncContextManager[Pair] | Awaitable[Pair] | Pair]

#: How long one check may take, in seconds: it is done, or something waits that should not.
PATIENCE: Final = 10.0


async def check_transport(make_pair: MakePair) -> None:
    """Check that a transport keeps what :class:`~trio_streamrpc.Transport` promises.

    ``make_pair()`` makes two ends that are connected to each other, the connecting side's first: as
    a tuple, as a coroutine that gives one, or, best, as an async context manager, which may hold
    open what they need. It is called once for each check; what is left open is closed by force.

    Raises :exc:`AssertionError` for the first promise that is not kept, or what the transport
    raised instead of what it should have; a note says which check it was.
    """
    for check in TRANSPORT_CHECKS:
        try:
            with trio.fail_after(PATIENCE):
                async with _opened(make_pair) as pair:
                    await check(pair)
        except trio.TooSlowError:
            problem = f"{check.__name__}(): not done after {PATIENCE} s: {check.__doc__}"
            raise AssertionError(problem) from None
        except Exception as error:
            error.add_note(f"in {check.__name__}(): {check.__doc__}")
            raise


@asynccontextmanager
async def _opened(make_pair: MakePair) -> AsyncIterator[Pair]:
    made = make_pair()
    if isinstance(made, AbstractAsyncContextManager):
        async with made as pair:
            yield pair
        return
    pair = await made if inspect.isawaitable(made) else made
    try:
        yield pair
    finally:
        for end in pair:
            await close_by_force(end)


def message_for(end: Transport, text: str) -> bytes | str:
    """A message of that end's encoding (R2)."""
    return text if end.encoding == "json" else text.encode()


async def refused(operation: Callable[..., Awaitable[Any]], *args: Any) -> ConnectionLost:
    """The operation raises ConnectionLost, and nothing else."""
    try:
        given = await operation(*args)
    except ConnectionLost as error:
        return error
    raise AssertionError(f"ConnectionLost was to be raised, and {given!r} came")


async def sends_for_ever(end: Transport, length: int) -> None:
    """Send until something is raised."""
    message = message_for(end, "x" * length)
    while True:
        await end.send(message)


async def cancels_soon(scope: trio.CancelScope, ticks: int) -> None:
    """Cancel that scope after so many steps of the scheduler."""
    for _ in range(ticks):
        await trio.lowlevel.checkpoint()
    scope.cancel()


# --- the checks


async def what_it_says_of_itself(pair: Pair) -> None:
    """Both ends have one encoding, a name for people, and headers in lower case (R2)."""
    encoding = pair[0].encoding
    assert encoding in ("msgpack", "json"), f"no encoding: {encoding!r}"
    for end in pair:
        assert end.encoding == encoding, f"the ends have {encoding!r} and {end.encoding!r}"
        assert isinstance(end.remote, str), f"remote is {end.remote!r}"
        assert end.remote, "remote is empty"
        assert all(name == name.lower() for name in end.headers), "headers are in lower case"
        assert isinstance(end.last_heard, float), f"last_heard is {end.last_heard!r}"
        assert (end.close_code, end.close_reason) == (1000, ""), "nobody has closed it yet"


async def messages_arrive_whole_and_in_order(pair: Pair) -> None:
    """Both ways at once, short ones and long ones (R1)."""
    lengths = [1, 2, 125, 126, 127, 65_535, 65_536, 65_537, 1, 300_000, *range(1, 50), 1_048_576]
    texts = [chr(97 + number % 26) * length for number, length in enumerate(lengths)]

    async def send(end: Transport) -> None:
        for text in texts:
            await end.send(message_for(end, text))

    async def receive(end: Transport) -> None:
        for number, text in enumerate(texts):
            received = await end.receive()
            assert received == message_for(end, text), f"message {number} is another one"

    async with trio.open_nursery() as nursery:
        for end in pair:
            nursery.start_soon(send, end)
            nursery.start_soon(receive, end)


async def text_that_is_not_ascii(pair: Pair) -> None:
    """Characters of any length, and those that end lines elsewhere."""
    here, there = pair
    message = message_for(here, "é€😀\x00\r\n" * 100)
    await here.send(message)
    assert await there.receive() == message


async def operations_are_checkpoints(pair: Pair) -> None:
    """send(), receive() and aclose() let others run, each time."""
    here, there = pair
    message = message_for(here, "x")
    with assert_checkpoints():
        await here.send(message)
    with assert_checkpoints():
        await there.receive()
    with assert_checkpoints():
        await here.aclose()
    with assert_checkpoints():
        await here.aclose()


async def a_cancelled_receive_has_taken_nothing(pair: Pair) -> None:
    """It is cancelled at every point at which a message may come in."""
    here, there = pair
    expected = [message_for(here, str(number)) for number in range(300)]
    taken: list[bytes | str] = []

    async def send() -> None:
        for message in expected:
            await here.send(message)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        attempts = 0
        while len(taken) < len(expected):
            attempts, before = attempts + 1, len(taken)
            with trio.CancelScope() as scope:
                nursery.start_soon(cancels_soon, scope, attempts % 7)
                while True:
                    taken.append(await there.receive())
            if len(taken) == before:
                # What is on its way for longer than that needs some time to pass.
                await trio.sleep(0.001)
    assert taken == expected, "messages were lost, or came twice"


async def sends_nowait_if_it_says_so(pair: Pair) -> None:
    """What send_nowait() has not taken, send() sends, and nothing comes twice."""
    here, there = pair
    expected = [message_for(here, f"{number}" * 1000) for number in range(200)]

    async def send() -> None:
        for message in expected:
            taken = here.send_nowait(message)
            assert here.sends_nowait or not taken, "sends_nowait says that it never does"
            if not taken:
                await here.send(message)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        for message in expected:
            assert await there.receive() == message


async def what_was_sent_before_the_end_is_received(pair: Pair) -> None:
    """An end that closes in order takes nothing back; then comes ConnectionLost, each time."""
    here, there = pair
    message = message_for(here, "x")

    async def send() -> None:
        for _ in range(20):
            await here.send(message)
        await here.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        # As much as may be on its way is, and the end behind it.
        await wait_all_tasks_blocked()
        for _ in range(20):
            assert await there.receive() == message
        for _ in range(3):
            error = await refused(there.receive)
            assert error.__cause__ is None, "what is below it shows through"


async def sending_to_an_end_that_was_closed(pair: Pair) -> None:
    """It fails sooner or later, by how much fits on the way, and from then on each time."""
    here, there = pair
    async with trio.open_nursery() as nursery:
        nursery.start_soon(there.aclose)
        await refused(sends_for_ever, here, 100_000)
        await refused(here.send, message_for(here, "x"))


async def a_receive_hears_that_the_other_end_closes(pair: Pair) -> None:
    """One that waits for a message when the other end is closed."""
    here, there = pair
    async with trio.open_nursery() as nursery:
        nursery.start_soon(refused, there.receive)
        await wait_all_tasks_blocked()
        await here.aclose()


async def whatever_waits_is_woken_when_it_is_closed_here(pair: Pair) -> None:
    """By force, as the connection does when it is given up."""
    here, _ = pair
    async with trio.open_nursery() as nursery:
        nursery.start_soon(refused, here.receive)
        nursery.start_soon(refused, sends_for_ever, here, 1_000_000)
        for _ in range(10):
            await wait_all_tasks_blocked()
        await trio.aclose_forcefully(here)
    await refused(here.receive)
    await refused(here.send, message_for(here, "x"))


async def both_ends_close_at_once(pair: Pair) -> None:
    """Neither waits for the other for ever."""
    async with trio.open_nursery() as nursery:
        for end in pair:
            nursery.start_soon(end.aclose)
            nursery.start_soon(refused, end.receive)
    for end in pair:
        await refused(end.receive)
        await end.aclose()


async def closing_that_is_cancelled_has_closed(pair: Pair) -> None:
    """At once, on both ends."""
    here, there = pair
    with trio.CancelScope() as scope:
        scope.cancel()
        await here.aclose()
    assert scope.cancelled_caught, "aclose() has swallowed a cancellation"
    await refused(here.receive)
    await refused(there.receive)


async def closing_beside_a_message_that_nobody_reads(pair: Pair) -> None:
    """It ends all the same, in its own time or when that is up."""
    here, _ = pair
    async with trio.open_nursery() as nursery:
        nursery.start_soon(refused, sends_for_ever, here, 1_000_000)
        for _ in range(10):
            await wait_all_tasks_blocked()
        await here.aclose()


#: Every check, in the order in which they are made. Each wants a pair of its own.
TRANSPORT_CHECKS: Final[tuple[Callable[[Pair], Awaitable[None]], ...]] = (
    what_it_says_of_itself,
    messages_arrive_whole_and_in_order,
    text_that_is_not_ascii,
    operations_are_checkpoints,
    a_cancelled_receive_has_taken_nothing,
    sends_nowait_if_it_says_so,
    what_was_sent_before_the_end_is_received,
    sending_to_an_end_that_was_closed,
    a_receive_hears_that_the_other_end_closes,
    whatever_waits_is_woken_when_it_is_closed_here,
    both_ends_close_at_once,
    closing_that_is_cancelled_has_closed,
    closing_beside_a_message_that_nobody_reads,
)
