"""The consumer's end of a stream: taking, leaving, being dropped, and what is left of it."""

from __future__ import annotations

import gc
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio
import trio.testing

from tests.runtime.ends import Cut, Steps, open_ends, quiet, sweep
from tests.runtime.peer import open_against
from trio_streamrpc import (
    CleanupTimeout,
    ConnectionLost,
    FlowControlError,
    InternalError,
    Limits,
    RemoteError,
    RpcError,
    Stream,
    StreamStatistics,
    Unavailable,
    Window,
    rpc,
)
from trio_streamrpc.testing import open_pair

ONE = Window(1, 1000)


class Service:
    """Streams of numbers; ``log`` tells how they ended."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.asked = 0

    @rpc
    async def count(self, stop: int = 1_000_000, start: int = 0) -> AsyncIterator[int]:
        try:
            for number in range(start, stop):
                self.asked += 1
                yield number
        finally:
            await trio.lowlevel.cancel_shielded_checkpoint()
            self.log.append("finally")

    @rpc
    async def slow(self, pause: float = 1) -> AsyncIterator[int]:
        number = 0
        try:
            while True:
                await trio.sleep(pause)
                yield number
                number += 1
        finally:
            self.log.append("finally")

    @rpc
    async def fail(self, after: int = 3) -> AsyncIterator[int]:
        for number in range(after):
            yield number
        raise ValueError("broken")

    @rpc
    async def sized(self, *sizes: int) -> AsyncIterator[bytes]:
        for size in sizes:
            yield bytes(size)

    @rpc
    async def echo(self, value: int) -> int:
        return value


# --- taking


async def test_items_then_the_end_again_and_again(autojump_clock):
    async with open_ends(Service()) as ends:
        async with ends.client.stream("count", 3) as stream:
            assert [await stream.receive() for _ in range(3)] == [0, 1, 2]
            for _ in range(3):
                with pytest.raises(trio.EndOfChannel) as caught:
                    await stream.receive()
                assert caught.value.__cause__ is None
            assert [item async for item in stream] == []
            assert [batch async for batch in stream.batches()] == []
        for _ in range(2):
            with pytest.raises(trio.ClosedResourceError):
                await stream.receive()
        with pytest.raises(trio.ClosedResourceError):
            await anext(stream)
        with pytest.raises(trio.ClosedResourceError):
            await anext(stream.batches())


async def test_items_that_arrived_come_before_the_error(autojump_clock):
    """R22: then the error, each time one of its own; leaving does not raise it once more."""
    async with open_ends(Service()) as ends:
        async with ends.client.stream("fail") as stream:
            await quiet()
            assert [await stream.receive() for _ in range(3)] == [0, 1, 2]
            errors = []
            for _ in range(3):
                with pytest.raises(RemoteError, match="ValueError: broken") as caught:
                    await stream.receive()
                assert caught.value.__context__ is None
                errors.append(caught.value)
            assert len(set(map(id, errors))) == 3
            with pytest.raises(RemoteError):
                async for _ in stream:
                    pass
            with pytest.raises(RemoteError):
                async for _ in stream.batches():
                    pass
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive()
        with pytest.raises(RemoteError) as caught:
            async with ends.client.stream("fail") as stream:
                async for _ in stream:
                    pass
        assert caught.value.__context__ is None


async def test_batches_are_all_that_has_arrived(autojump_clock):
    service = Service()
    async with open_ends(service) as ends:
        async with ends.client.stream("count", 100, window=Window(10, 10_000)) as stream:
            batches = stream.batches()
            await quiet()
            assert await anext(batches) == list(range(10))
            await quiet()
            assert await stream.receive() == 10
            assert await anext(batches) == list(range(11, 20))
            rest = [item async for batch in stream.batches() for item in batch]
            assert rest == list(range(20, 100))
    assert service.log == ["finally"]


async def test_a_batch_holds_at_least_one_item(autojump_clock):
    async with open_ends(Service()) as ends:
        async with ends.client.stream("slow") as stream:
            start = trio.current_time()
            async for batch in stream.batches():
                assert batch == [int(trio.current_time() - start) - 1]
                if batch == [3]:
                    break


async def test_an_item_in_a_batch_that_cannot_be_decoded(autojump_clock):
    """What came before it is given, then its error, then what comes after; none is lost."""

    class Contract:
        @rpc
        async def mixed(self) -> AsyncIterator[int]: ...  # type: ignore[empty-body]

    async def mixed() -> AsyncIterator[Any]:
        for item in (0, 1, "two", "three", 4):
            yield item

    async with open_ends({"mixed": mixed}) as ends:
        async with ends.client.proxy(Contract).mixed() as stream:
            await quiet()
            batches = stream.batches()
            assert await anext(batches) == [0, 1]
            for _ in range(2):
                with pytest.raises(InternalError, match="does not match int"):
                    await anext(batches)
            assert await anext(batches) == [4]
            with pytest.raises(StopAsyncIteration):
                await anext(batches)
            assert stream.statistics().items_buffered == 0
            assert stream.statistics().bytes_buffered == 0


@pytest.mark.parametrize("tasks", [2, 5])
async def test_several_tasks_take_from_one_stream(tasks, autojump_clock):
    """Each item goes to exactly one of them, and each of them hears of the end."""
    taken: list[list[int]] = [[] for _ in range(tasks)]
    ended = []

    async def take(number: int, stream: Stream[int]) -> None:
        async for item in stream:
            taken[number].append(item)
            await trio.lowlevel.checkpoint()
        ended.append(number)

    for window in (ONE, Window(7, 1000)):
        for each in taken:
            each.clear()
        async with open_ends(Service()) as ends:
            async with ends.client.stream("count", 50, window=window) as stream:
                async with trio.open_nursery() as nursery:
                    for number in range(tasks):
                        nursery.start_soon(take, number, stream)
        assert sorted(item for each in taken for item in each) == list(range(50))
        assert all(each == sorted(each) for each in taken)
        assert all(taken)
    assert len(ended) == 2 * tasks


async def test_several_tasks_start_one_stream_together(autojump_clock):
    got = []

    async def take(stream: Stream[int]) -> None:
        got.append(await stream.receive())

    async with open_ends(Service()) as ends:
        stream = ends.client.stream("count", 3)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(take, stream)
        assert sorted(got) == [0, 1, 2]
        await stream.aclose()
        assert len(ends.up.sent("call")) == 1


async def test_closed_by_one_task_while_others_wait(autojump_clock):
    service = Service()
    heard = []

    async def wait(stream: Stream[int]) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive()
        heard.append(trio.current_time())

    async with open_ends(service) as ends:
        async with ends.client.stream("slow", 100) as stream:
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(wait, stream)
                await quiet()
                await stream.aclose()
                assert service.log == ["finally"]
        assert len(heard) == 3


async def test_closed_by_one_task_while_another_waits_for_a_place(autojump_clock):
    """Whoever waits hears of it at once, and nothing is sent."""

    async def wait(stream: Stream[int]) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive()
        heard.append("closed")

    heard: list[str] = []
    async with open_ends(Service(), limits=Limits(max_calls=1)) as ends:
        async with ends.client.stream("slow"):
            second = ends.client.stream("slow")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait, second)
                nursery.start_soon(wait, second)
                await quiet()
                await second.aclose()
            assert heard == ["closed"] * 2
            assert len(ends.up.sent("call")) == 1


async def test_leaving_after_another_task_has_closed_waits_too(autojump_clock):
    """R7: the block ends when the remote handler has finished, whoever asked it to."""
    log = []

    async def ticks() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            await trio.sleep(2)
            log.append("finally")

    async with open_ends({"ticks": ticks}) as ends:
        async with trio.open_nursery() as nursery:
            async with ends.client.stream("ticks") as stream:
                await stream.receive()
                nursery.start_soon(stream.aclose)
                await quiet()
            assert log == ["finally"]
        assert len(ends.up.sent("cancel")) == 1


async def test_leaving_after_a_close_that_was_cancelled_waits_too(autojump_clock):
    """R7: what was cancelled was the close, and not the block."""
    log = []

    async def ticks() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            await trio.sleep(2)
            log.append("finally")

    async with open_ends({"ticks": ticks}) as ends:
        async with ends.client.stream("ticks") as stream:
            await stream.receive()
            with trio.move_on_after(1):
                await stream.aclose()
            assert log == []
        assert log == ["finally"]


async def test_closing_twice_tells_once(autojump_clock):
    async def ticks() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            await trio.sleep(20)

    async with open_ends({"ticks": ticks}, limits=Limits(cancel_timeout=1)) as ends:
        with pytest.raises(CleanupTimeout) as caught:
            async with ends.client.stream("ticks") as stream:
                await stream.receive()
                start = trio.current_time()
                await stream.aclose()
        assert trio.current_time() - start == pytest.approx(1)
        assert not hasattr(caught.value, "__notes__")
        await stream.aclose()
        await trio.sleep(10)


async def test_a_cleanup_error_that_was_read_is_not_raised_again(autojump_clock, caplog):
    """R22: the consumer was still reading when the other side went away."""

    async def ticks() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            raise ValueError("in cleanup")

    async with open_ends({"ticks": ticks}, clean=False) as ends:
        with pytest.raises(RemoteError, match="in cleanup") as caught:
            async with ends.client.stream("ticks", window=ONE) as stream:
                await quiet()
                await ends.server.aclose()
                async for _ in stream:
                    pass
        assert caught.value.__context__ is None


# --- entering


async def test_entering_twice(autojump_clock):
    async with open_ends(Service()) as ends:
        stream = ends.client.stream("count", 3)
        async with stream:
            with pytest.raises(RuntimeError, match="<Stream of count> was started already"):
                await stream.__aenter__()
        with pytest.raises(trio.ClosedResourceError):
            await stream.__aenter__()


async def test_entering_after_iteration_has_begun(autojump_clock):
    async with open_ends(Service()) as ends:
        stream = ends.client.stream("count", 3)
        assert await stream.receive() == 0
        with pytest.raises(RuntimeError, match="enter it before its first item"):
            async with stream:
                pass
        await stream.aclose()


async def test_closed_before_it_was_started(autojump_clock):
    """Nothing is ever sent for it."""
    async with open_ends(Service()) as ends:
        stream = ends.client.stream("count")
        await stream.aclose()
        await stream.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await stream.__aenter__()
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive()
        assert stream.statistics() == StreamStatistics()
        assert ends.up.sent("call") == []


async def test_nothing_is_sent_before_the_first_item_is_asked_for(autojump_clock):
    async with open_ends(Service()) as ends:
        stream = ends.client.stream("count", 2)
        await quiet()
        assert ends.up.sent("call") == []
        assert [item async for item in stream] == [0, 1]


async def test_entering_starts_it(autojump_clock):
    service = Service()
    async with open_ends(service) as ends:
        async with ends.client.stream("count"):
            await quiet()
            assert service.asked == 64
        assert service.log == ["finally"]


# --- dropped


async def test_a_break_without_a_block_cancels_the_producer(autojump_clock):
    """R7: as soon as the object goes, and nobody waits for it."""
    service = Service()
    async with open_ends(service) as ends:
        async for item in ends.client.stream("count"):
            if item == 3:
                break
        await quiet()
        assert service.log == ["finally"]
        assert ends.up.sent("cancel") == [{"type": "cancel", "id": 1}]


async def test_a_stream_that_is_read_to_its_end_and_dropped(autojump_clock):
    async with open_ends(Service()) as ends:
        assert [item async for item in ends.client.stream("count", 200)] == list(range(200))
        with pytest.raises(RemoteError):
            async for _ in ends.client.stream("fail"):
                pass
        gc.collect()
        await quiet()
        assert ends.up.sent("cancel") == []


async def test_dropped_in_another_thread(autojump_clock):
    service = Service()
    async with open_ends(service) as ends:
        streams = [ends.client.stream("count")]
        await streams[0].receive()
        thread = threading.Thread(target=streams.clear)
        thread.start()
        thread.join()
        await quiet()
        assert service.log == ["finally"]


def test_dropped_after_the_run_has_ended():
    kept: list[Stream[Any]] = []

    async def main() -> None:
        async with open_pair(Service()) as connection:
            kept.append(connection.stream("count"))
            kept.append(connection.stream("count"))
            await kept[0].receive()
        await trio.testing.wait_all_tasks_blocked()

    trio.run(main)
    for stream in kept:
        assert stream.statistics().items_received in (0, 64)
    kept.clear()
    gc.collect()


def test_dropped_after_a_run_that_was_cut_off():
    """Nothing hears of it any more, and nothing is raised."""
    kept: list[Any] = []

    async def main() -> None:
        async with open_pair(Service()) as connection:
            stream = connection.stream("count")
            await stream.receive()
            # As if the connection had never heard of the end.
            stream._receiver.finished = trio.Event()  # type: ignore[attr-defined]
            kept.append(stream)

    trio.run(main)
    kept[0]._receiver.finished = trio.Event()
    kept.clear()


async def test_a_block_whose_stream_is_dropped_later_asks_once(autojump_clock):
    async with open_ends(Service()) as ends:
        stream = ends.client.stream("count")
        async with stream:
            await stream.receive()
        del stream
        gc.collect()
        await quiet()
        assert len(ends.up.sent("cancel")) == 1


# --- R14 to R17


async def test_the_window_bounds_what_waits_here(autojump_clock):
    """R13, R16: memory of a slow consumer is its window, whatever the producer does."""
    async with open_ends(Service()) as ends:
        async with ends.client.stream("count", window=Window(10, 100_000)) as stream:
            for number in range(100):
                assert await stream.receive() == number
                await quiet()
                assert stream.statistics().items_buffered <= 10
            assert stream.statistics().peak_items_buffered <= 10
        async with ends.client.stream("sized", *[100] * 50, window=Window(50, 1000)) as stream:
            async for _ in stream:
                await quiet()
            numbers = stream.statistics()
            # An item of 100 bytes is 102 of msgpack; the last one may pass the border (R14).
            assert numbers.peak_bytes_buffered <= 1000 + 102
            assert numbers.bytes_received == 50 * 102
            assert numbers.items_received == 50
            assert numbers.items_buffered == numbers.bytes_buffered == 0


async def test_grants_are_sent_at_half(autojump_clock):
    """R15: once half of either window has been taken, for what was taken."""
    async with open_ends(Service()) as ends:
        async with ends.client.stream("count", window=Window(8, 100_000)) as stream:
            await quiet()
            for taken in range(1, 13):
                await stream.receive()
                await quiet()
                assert len(ends.up.sent("grant")) == taken // 4
            assert ends.up.sent("grant")[0] == {"type": "grant", "id": 1, "items": 4, "bytes": 4}
            numbers = stream.statistics()
            assert numbers.items_granted + numbers.items_buffered == 8
        async with ends.client.stream("sized", *[100] * 30, window=Window(64, 1000)) as stream:
            await quiet()
            before = len(ends.up.sent("grant"))
            for taken in range(1, 10):
                await stream.receive()
                await quiet()
                assert len(ends.up.sent("grant")) - before == taken // 5


async def test_nothing_is_granted_after_the_end(autojump_clock):
    async with open_ends(Service()) as ends:
        async with ends.client.stream("count", 8, window=Window(9, 1000)) as stream:
            await quiet()
            assert [item async for item in stream] == list(range(8))
        assert ends.up.sent("grant") == []


async def test_a_slow_consumer_delays_nobody(autojump_clock):
    """R17: the reader never waits for the application."""
    service = Service()
    async with open_ends(service) as ends:
        async with (
            ends.client.stream("count") as stuck,
            ends.client.stream("count", 1000) as fast,
        ):
            await quiet()
            assert [item async for item in fast] == list(range(1000))
            assert await ends.client.call("echo", 1) == 1
            assert stuck.statistics().items_buffered == 64
            assert stuck.statistics().items_granted == 0


async def test_a_producer_that_breaks_its_credit(autojump_clock):
    """R16: the items that fitted, then FLOW_CONTROL; the producer is told to stop."""
    async with open_against() as (connection, peer):
        async with connection.stream("ticks", window=Window(2, 1000)) as stream:
            await peer.hears("call")
            await peer.says({"type": "chunk", "id": 1, "items": [1], "size": 1})
            await peer.says({"type": "chunk", "id": 1, "items": [2, 3], "size": 2})
            cancel = await peer.hears("cancel")
            assert cancel["error"]["code"] == "FLOW_CONTROL"
            assert await stream.receive() == 1
            for _ in range(2):
                with pytest.raises(FlowControlError, match="2 items where 1 were granted"):
                    await stream.receive()
            # Whether it has seen the error or not, the block waits for the producer (R7).
            await peer.says({"type": "end", "id": 1})
            await quiet()
            with pytest.raises(FlowControlError):
                await stream.receive()


# --- a connection that is lost


async def test_items_that_arrived_come_before_connection_lost(autojump_clock):
    async with open_ends(Service(), clean=False) as ends:
        async with ends.client.stream("count", window=Window(3, 1000)) as stream:
            await quiet()
            await trio.aclose_forcefully(ends.down)
            await quiet()
            assert [await stream.receive() for _ in range(3)] == [0, 1, 2]
            for _ in range(2):
                with pytest.raises(ConnectionLost, match="the other end was closed"):
                    await stream.receive()
        # It was seen: leaving is quiet.


async def test_leaving_after_the_connection_was_lost_says_so(autojump_clock):
    """R7: nobody can say that the remote side has finished."""
    async with open_ends(Service(), clean=False) as ends:
        with pytest.raises(ConnectionLost):
            async with ends.client.stream("count") as stream:
                await stream.receive()
                await trio.aclose_forcefully(ends.down)
                await quiet()


async def test_the_connection_is_lost_while_a_block_is_left(autojump_clock):
    async def ticks() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            await trio.sleep(4)

    async def cut(ends: Any) -> None:
        await trio.sleep(1)
        await trio.aclose_forcefully(ends.down)

    async with open_ends({"ticks": ticks}, clean=False) as ends:
        async with trio.open_nursery() as nursery:
            with pytest.raises(KeyError) as caught:
                async with ends.client.stream("ticks") as stream:
                    await stream.receive()
                    nursery.start_soon(cut, ends)
                    raise KeyError("mine")
        assert caught.value.__notes__ == [
            "trio_streamrpc: ConnectionLost: the other end was closed"
        ]


async def test_a_stream_of_a_connection_that_is_closed_here_is_not_complete(autojump_clock):
    """R6: the end that answers our own cancel is no end of the items."""
    heard: list[BaseException] = []

    async def consume(stream: Stream[int]) -> None:
        try:
            async for _ in stream:
                pass
        except RpcError as error:
            heard.append(error)

    async with open_ends(Service(), clean=False) as ends:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(consume, ends.client.stream("slow"))
            nursery.start_soon(consume, ends.client.stream("slow", 100))
            await trio.sleep(2.5)
            await ends.client.aclose()
        assert [type(error) for error in heard] == [ConnectionLost] * 2


async def test_a_stream_that_was_not_written_when_the_other_side_drains(autojump_clock):
    """R27: it fails with retry, since it was surely not run."""
    async with open_ends(Service()) as ends:
        ends.up.hold()

        async def call() -> None:
            # This one was on its way, and is above the last id that the other side has seen.
            with pytest.raises(Unavailable) as caught:
                await ends.client.call("echo", 1)
            assert caught.value.retry

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await quiet()
            async with ends.client.stream("count") as stream:
                ends.server.endpoint.drain()
                ends.server.wake_writer()
                await quiet()
                for _ in range(2):
                    with pytest.raises(Unavailable) as caught:
                        await stream.receive()
                    assert caught.value.retry
            ends.up.let_go()


# --- cancellation


async def test_every_operation_is_a_checkpoint(autojump_clock):
    async with open_ends(Service()) as ends:
        stream = ends.client.stream("count")
        with trio.testing.assert_checkpoints():
            await stream.__aenter__()
        await quiet()
        with trio.testing.assert_checkpoints():
            await stream.receive()
        with trio.testing.assert_checkpoints():
            await anext(stream)
        with trio.testing.assert_checkpoints():
            await anext(stream.batches())
        with trio.testing.assert_checkpoints():
            await stream.__aexit__(None, None, None)
        with trio.testing.assert_checkpoints():
            await stream.aclose()
        with trio.testing.assert_checkpoints():
            await ends.client.stream("count").aclose()
        with trio.testing.assert_checkpoints():
            await ends.client.call("echo", 1)
        unread = ends.client.stream("count", 0)
        with trio.testing.assert_checkpoints():
            with pytest.raises(trio.EndOfChannel):
                await unread.receive()


TAKERS: dict[str, Callable[[Stream[int]], Any]] = {
    "receive": lambda stream: stream.receive(),
    "anext": anext,
    "batches": lambda stream: anext(stream.batches()),
}


@pytest.mark.parametrize("how", TAKERS)
@pytest.mark.parametrize("waiting", [True, False])
async def test_a_cancelled_take_has_taken_nothing(how, waiting, autojump_clock):
    """Cancelled at its first checkpoint, at its second …: the next one gives the same item."""

    async def attempt(cut: Cut) -> bool:
        got: Any = None
        async with ends.client.stream("count", 5, window=ONE) as stream:
            if not waiting:
                await quiet()
            with cut.arm():
                got = await TAKERS[how](stream)
            taken = [] if got is None else got if isinstance(got, list) else [got]
            assert taken + [item async for item in stream] == [0, 1, 2, 3, 4]
        return got is not None

    async with open_ends(Service(), limits=Limits(max_calls=1)) as ends:
        # What is here is taken in one step, which a cut may come too late for.
        await sweep(attempt, at_least=int(waiting))
        assert await ends.client.call("echo", 1) == 1


@pytest.mark.parametrize("how", TAKERS)
async def test_a_cancelled_first_take_leaves_the_stream_usable(how, autojump_clock):
    """Without a block, the first item starts the call."""

    async def attempt(cut: Cut) -> bool:
        got: Any = None
        stream = ends.client.stream("count", 3)
        with cut.arm():
            got = await TAKERS[how](stream)
        taken = [] if got is None else got if isinstance(got, list) else [got]
        assert taken + [item async for item in stream] == [0, 1, 2]
        return got is not None

    async with open_ends(Service(), limits=Limits(max_calls=1)) as ends:
        await sweep(attempt, at_least=4)
        assert await ends.client.call("echo", 1) == 1


async def test_a_sweep_over_entering(autojump_clock):
    async def attempt(cut: Cut) -> bool:
        entered = False
        with cut.arm() as scope:
            async with ends.client.stream("count", 3):
                entered = not scope.cancel_called
        assert await ends.client.call("echo", 1) == 1
        return entered

    async def beside(cut: Cut) -> bool:
        """The same with the only place taken, so that there is more to wait for."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends.client.call, "echo", 1)
            await trio.lowlevel.checkpoint()
            return await attempt(cut)

    async with open_ends(Service(), limits=Limits(max_calls=1)) as ends:
        await sweep(attempt, at_least=0)
        await sweep(beside, at_least=3)


@pytest.mark.parametrize("close", ["aclose", "leave", "leave by error"])
async def test_a_sweep_over_leaving(close, autojump_clock):
    """The other side is told, whenever it happens, and the next call works."""
    service = Service()

    async def attempt(cut: Cut) -> bool:
        left = False
        before = len(service.log)
        stream = ends.client.stream("count", window=ONE)
        await stream.__aenter__()
        assert await stream.receive() == 0
        with cut.arm():
            if close == "aclose":
                await stream.aclose()
            elif close == "leave":
                await stream.__aexit__(None, None, None)
            else:
                error = KeyError()
                await stream.__aexit__(KeyError, error, None)
            left = True
            assert len(service.log) == before + 1
        assert await ends.client.call("echo", 1) == 1
        assert len(service.log) == before + 1
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive()
        return left

    async with open_ends(service, limits=Limits(max_calls=1)) as ends:
        await sweep(attempt, at_least=3)


async def test_a_sweep_over_a_whole_block(autojump_clock):
    service = Service()

    async def attempt(cut: Cut) -> bool:
        items: list[int] = []
        with cut.arm() as scope:
            async with ends.client.stream("count", 20, window=Window(3, 100)) as stream:
                async for item in stream:
                    items.append(item)  # noqa: PERF401  # what was taken counts, however it ends
        assert items == list(range(len(items)))
        assert await ends.client.call("echo", 1) == 1
        return len(items) == 20 and not scope.cancelled_caught

    async with open_ends(service, limits=Limits(max_calls=1)) as ends:
        await sweep(attempt, at_least=10)


async def test_cancelled_before_it_starts_nothing_is_sent(autojump_clock):
    """R12: not even the frames of a call that was never meant."""
    async with open_ends(Service()) as ends:
        frames = len(ends.up.frames)
        with trio.CancelScope() as scope:
            scope.cancel()
            async with ends.client.stream("count"):
                raise AssertionError
        assert scope.cancelled_caught
        stream = ends.client.stream("count", 1)
        with trio.CancelScope() as scope:
            scope.cancel()
            await stream.receive()
        await quiet()
        assert len(ends.up.frames) == frames
        assert await stream.receive() == 0
        await stream.aclose()


@pytest.mark.parametrize("how", ["leave", "cancel", "drop", "error"])
async def test_a_call_that_was_not_written_is_taken_back(how, autojump_clock):
    """R12: neither the call nor its cancel reach the wire, and its place is free."""
    async with open_ends(Service(), limits=Limits(max_calls=2)) as ends:
        ends.up.hold()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends.client.call, "echo", 1)
            await quiet()
            stream = ends.client.stream("count")
            with trio.CancelScope() as scope:
                await stream.__aenter__()
                if how == "leave":
                    await stream.__aexit__(None, None, None)
                elif how == "error":
                    await stream.__aexit__(KeyError, KeyError(), None)
                elif how == "cancel":
                    scope.cancel()
                    try:
                        await trio.lowlevel.checkpoint()
                    except trio.Cancelled as error:
                        await stream.__aexit__(trio.Cancelled, error, None)
                        raise
            del stream
            await quiet()
            ends.up.let_go()
        assert len(ends.up.sent("call")) == 1
        assert ends.up.sent("cancel") == []


async def test_nothing_spins(autojump_clock):
    """A thousand items cost a bounded number of steps; a waiting stream costs none."""
    async with open_ends(Service()) as ends:
        with Steps() as steps:
            async with ends.client.stream("count", 1000) as stream:
                assert len([item async for item in stream]) == 1000
        assert steps.count < 5_000
        async with ends.client.stream("slow", 10_000) as stream:
            await quiet()
            with Steps() as steps:
                with trio.move_on_after(10):
                    await stream.receive()
            assert steps.count < 50
