"""Parts of the acts that a run which goes well does not show."""

import trio

from trio_streamrpc.cli.demo_acts import COLUMNS, SETTLE_SECONDS, Tally, settle
from trio_streamrpc.cli.demo_service import ITEMS_WINDOW, LookAhead


async def test_settling_does_not_wait_for_ever(autojump_clock) -> None:
    look_ahead = LookAhead()
    start = trio.current_time()

    await settle(look_ahead)

    assert SETTLE_SECONDS <= trio.current_time() - start < SETTLE_SECONDS + 1


async def test_settling_gives_a_producer_that_would_run_on_the_time_to(autojump_clock) -> None:
    look_ahead = LookAhead()

    async def run_on() -> None:
        for _ in range(ITEMS_WINDOW.items + 5):
            await trio.sleep(0.001)
            look_ahead.produce()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_on)
        await settle(look_ahead)

    assert look_ahead.most == ITEMS_WINDOW.items + 5


async def test_a_tally_counts_while_its_time_lasts(autojump_clock) -> None:
    tally = Tally(1.0)
    assert tally.count("flood")
    assert tally.count("flood")
    assert tally.count("beat")
    await trio.sleep(0.5)
    assert tally.count("flood")
    await trio.sleep(0.499)
    assert tally.count("flood")
    await trio.sleep(0.001)
    assert not tally.count("beat")

    flood = [0] * COLUMNS
    flood[0], flood[COLUMNS // 2], flood[-1] = 2, 1, 1
    assert tally.columns == {"flood": flood, "beat": [1] + [0] * (COLUMNS - 1)}
    assert tally.turns == 2
