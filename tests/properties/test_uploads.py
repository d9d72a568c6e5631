"""Any items, window and handler: what was taken is a prefix, and nothing runs further ahead."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass

import msgspec
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from tests.runtime.ends import Ends, open_ends, quiet
from trio_streamrpc import Limits, RemoteError, Stream, Window, rpc


class Mine(Exception):
    pass


@dataclass
class Plan:
    """What one caller sends, and what its handler does with it."""

    sizes: list[int]
    #: The iterator awaits before every so many items; never if 0.
    pause: int
    #: What the handler does, and how it ends: read to the end, returned, closed, or failed.
    steps: list[tuple[str, int]]
    end: str
    #: What becomes of the caller: it waits, is cancelled, or its iterator fails in the end.
    fate: str


steps = st.tuples(st.sampled_from(["take", "batch", "wait", "tick", "give up"]), st.integers(0, 9))
plans = st.builds(
    Plan,
    sizes=st.lists(st.integers(0, 150), max_size=60),
    pause=st.integers(0, 5),
    steps=st.lists(steps, max_size=12),
    end=st.sampled_from(["read", "return", "close", "fail"]),
    fate=st.sampled_from(["wait", "wait", "wait", "cancel", "fail"]),
)
windows = st.builds(Window, st.integers(1, 20), st.integers(1, 400))


class Upload:
    """An iterator that checks each time how far it is ahead of its handler (R14)."""

    def __init__(self, plan: Plan, window: Window) -> None:
        self.plan = plan
        self.items = [bytes([number % 256]) * size for number, size in enumerate(plan.sizes)]
        self.taken: list[bytes] = []
        self.begun = self.ended = 0
        self._window = window

    def check(self, asked: int) -> None:
        assert asked - len(self.taken) < self._window.items
        ahead = self.items[len(self.taken) : asked]
        assert sum(len(msgspec.msgpack.encode(item)) for item in ahead) < self._window.bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.begun += 1
        try:
            for number, item in enumerate(self.items):
                self.check(number)
                if self.plan.pause and number % self.plan.pause == 0:
                    await trio.sleep(0.3)
                yield item
            if self.plan.fate == "fail":
                raise Mine
        finally:
            await trio.lowlevel.cancel_shielded_checkpoint()
            self.ended += 1


class Service:
    def __init__(self, uploads: list[Upload]) -> None:
        self._uploads = uploads
        self.running = 0

    @rpc
    async def take(self, number: int, items: Stream[bytes]) -> str:
        self.running += 1
        try:
            return await self._take(self._uploads[number], items)
        finally:
            self.running -= 1

    async def _take(self, upload: Upload, items: Stream[bytes]) -> str:
        taken, batches = upload.taken, items.batches()
        for what, amount in upload.plan.steps:
            if what == "take":
                async for item in first(items, amount):
                    taken.append(item)
            elif what == "batch":
                nothing: list[bytes] = []
                taken.extend(await anext(batches, nothing))
            elif what == "give up":
                with trio.move_on_after(amount / 10):
                    async for item in first(items, 1):
                        taken.append(item)
            else:
                await trio.sleep(amount / 4 if what == "wait" else 0)
        if upload.plan.end == "read":
            async for item in items:
                taken.append(item)  # counts, however it ends
        elif upload.plan.end == "close":
            await items.aclose()
            await trio.sleep(1)
        elif upload.plan.end == "fail":
            raise ValueError("handler")
        return upload.plan.end


async def first(items: AsyncIterable[bytes], count: int) -> AsyncIterator[bytes]:
    if count:
        async for item in items:
            yield item
            count -= 1
            if not count:
                return


async def call(ends: Ends, number: int, upload: Upload) -> None:
    plan = upload.plan
    with trio.CancelScope() as scope:
        if plan.fate == "cancel":
            scope.deadline = trio.current_time() + 1 + number / 7
        try:
            assert await ends.client.call("take", number, upload) == plan.end
        except Mine:
            assert plan.fate == "fail"
        except RemoteError:
            assert plan.end == "fail"
    assert upload.begun == upload.ended
    assert plan.fate == "cancel" or upload.begun


async def run(plans: list[Plan], window: Window, max_uploads: int) -> None:
    uploads = [Upload(plan, window) for plan in plans]
    service = Service(uploads)
    limits = Limits(window=window, max_window=window, max_uploads=max_uploads, cancel_timeout=60)
    async with open_ends(service, limits=limits) as ends:
        async with trio.open_nursery() as nursery:
            for number, upload in enumerate(uploads):
                nursery.start_soon(call, ends, number, upload)
        await trio.sleep(10)
        await quiet()
        ends.assert_clean()
    assert service.running == 0
    for upload in uploads:
        assert upload.taken == upload.items[: len(upload.taken)]
        if upload.plan.end == "read" and upload.plan.fate == "wait":
            assert upload.taken == upload.items


@given(st.lists(plans, min_size=1, max_size=4), windows, st.integers(1, 5))
def test_uploads_of_any_schedule(plans: list[Plan], window: Window, max_uploads: int) -> None:
    """R10, R14, R15, R19: in order, each item once, never further ahead than the window."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    trio.run(run, plans, window, max_uploads, clock=clock)
