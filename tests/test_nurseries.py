"""Nurseries for what serves a block: how they end, and what comes out of them."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_streamrpc.nurseries import open_background_nursery, open_companion_nursery


class Marker(BaseException):
    pass


async def test_tasks_run_until_the_block_ends(autojump_clock):
    log: list[str] = []

    async def task() -> None:
        try:
            await trio.sleep_forever()
        finally:
            log.append("cancelled")

    async with open_background_nursery() as nursery:
        nursery.start_soon(task)
        await trio.sleep(1)
        assert log == []
    assert log == ["cancelled"]


async def test_tasks_outlive_the_cancellation_of_the_block(autojump_clock):
    log: list[str] = []
    done = trio.Event()

    async def task() -> None:
        await done.wait()
        log.append("served")

    with trio.move_on_after(1) as scope:
        async with open_background_nursery() as nursery:
            nursery.start_soon(task)
            try:
                await trio.sleep_forever()
            finally:
                log.append("block")
                done.set()
                with trio.CancelScope(shield=True):
                    await trio.sleep(1)
    assert scope.cancelled_caught
    assert log == ["block", "served"]


async def test_the_blocks_exception_comes_out_as_it_went_in():
    error = ValueError("mine")
    context = KeyError("context")
    error.__context__ = context
    with pytest.raises(ValueError, match="mine") as caught:
        async with open_background_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise error
    assert caught.value is error
    assert error.__context__ is context
    group = ExceptionGroup("mine", [ValueError(), KeyError()])
    with pytest.raises(ExceptionGroup) as caught_group:
        async with open_background_nursery():
            raise group
    assert caught_group.value is group


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, Marker])
async def test_a_task_that_fails_cancels_the_block(error, autojump_clock):
    async def task() -> None:
        await trio.sleep(1)
        raise error("task")

    with pytest.raises(error, match="task"):
        async with open_background_nursery() as nursery:
            nursery.start_soon(task)
            await trio.sleep_forever()


async def test_the_block_is_cancelled_at_once_and_not_after_the_last_task(autojump_clock):
    """It may be the block that has to ask the others to stop."""
    stop = trio.Event()

    async def fail() -> None:
        raise ValueError("task")

    async def stubborn() -> None:
        with trio.CancelScope(shield=True):
            await stop.wait()

    with pytest.raises(ValueError, match="task"):
        async with open_background_nursery() as nursery:
            nursery.start_soon(stubborn)
            nursery.start_soon(fail)
            try:
                await trio.sleep_forever()
            finally:
                stop.set()


async def test_a_task_that_fails_when_the_block_has_ended():
    async def task() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("task")

    with pytest.raises(ValueError, match="task"):
        async with open_background_nursery() as nursery:
            nursery.start_soon(task)
            await trio.testing.wait_all_tasks_blocked()


async def test_two_that_fail_are_a_group():
    async def task(error: Exception) -> None:
        raise error

    with pytest.raises(ExceptionGroup) as caught:
        async with open_background_nursery() as nursery:
            nursery.start_soon(task, ValueError())
            nursery.start_soon(task, KeyError())
            await trio.sleep_forever()
    assert caught.group_contains(ValueError)
    assert caught.group_contains(KeyError)


async def test_an_interrupt_comes_before_everything_else():
    async def task(error: BaseException) -> None:
        raise error

    with pytest.raises(KeyboardInterrupt):
        async with open_background_nursery() as nursery:
            nursery.start_soon(task, ValueError())
            nursery.start_soon(task, KeyboardInterrupt())
            await trio.sleep_forever()


async def test_a_failure_is_not_lost_in_a_cancellation():
    """The block was cancelled from outside at the same moment."""

    async def task() -> None:
        raise ValueError("task")

    with trio.CancelScope() as scope:
        with pytest.raises(ValueError, match="task"):
            async with open_background_nursery() as nursery:
                nursery.start_soon(task)
                scope.cancel()
                await trio.sleep_forever()


async def test_the_blocks_error_and_a_tasks_are_a_group():
    """Neither of them is lost."""

    async def task() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise KeyError("task")

    with pytest.raises(ExceptionGroup) as caught:
        async with open_background_nursery() as nursery:
            nursery.start_soon(task)
            await trio.testing.wait_all_tasks_blocked()
            raise ValueError("block")
    assert caught.group_contains(KeyError, match="task")
    assert caught.group_contains(ValueError, match="block")


async def test_cancelled_before_it_is_open():
    with trio.CancelScope() as scope:
        scope.cancel()
        with pytest.raises(trio.Cancelled):
            async with open_background_nursery():
                raise AssertionError
        await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught


async def test_cancelled_comes_out_bare():
    """Whoever catches Cancelled around the block finds it, and no group."""
    with trio.CancelScope() as scope:
        with pytest.raises(trio.Cancelled):
            async with open_background_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                scope.cancel()
                await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught


# --- a companion nursery: its tasks are cancelled with the block, and when it ends


async def test_a_companion_ends_with_its_block(autojump_clock):
    log: list[str] = []

    async def task() -> None:
        try:
            await trio.sleep_forever()
        finally:
            log.append("cancelled")

    async with open_companion_nursery() as nursery:
        nursery.start_soon(task)
        await trio.sleep(1)
        assert log == []
    assert log == ["cancelled"]


async def test_a_companion_is_cancelled_with_its_block(autojump_clock):
    """At the same moment, and it is waited for."""
    log: list[str] = []

    async def task() -> None:
        try:
            await trio.sleep_forever()
        finally:
            log.append(f"cancelled at {trio.current_time() - start}")
            with trio.CancelScope(shield=True):
                await trio.sleep(5)
            log.append("ended")

    start = trio.current_time()
    with trio.move_on_after(1) as scope:
        async with open_companion_nursery() as nursery:
            nursery.start_soon(task)
            with trio.CancelScope(shield=True):
                await trio.sleep(3)
            log.append("block")
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert log == ["cancelled at 1.0", "block", "ended"]


async def test_a_companion_does_not_swallow_what_its_block_is_cancelled_by(autojump_clock):
    with trio.CancelScope() as scope:
        with pytest.raises(trio.Cancelled):
            async with open_companion_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                scope.cancel()
                await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, Marker])
async def test_a_companion_that_fails_cancels_the_block(error, autojump_clock):
    async def task() -> None:
        await trio.sleep(1)
        raise error("task")

    with pytest.raises(error, match="task"):
        async with open_companion_nursery() as nursery:
            nursery.start_soon(task)
            await trio.sleep_forever()


async def test_with_a_companion_the_blocks_exception_comes_out_as_it_went_in():
    error = ValueError("mine")
    context = KeyError("context")
    error.__context__ = context
    with pytest.raises(ValueError, match="mine") as caught:
        async with open_companion_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise error
    assert caught.value is error
    assert error.__context__ is context
    group = ExceptionGroup("mine", [ValueError(), KeyError()])
    with pytest.raises(ExceptionGroup) as caught_group:
        async with open_companion_nursery():
            raise group
    assert caught_group.value is group


async def test_the_blocks_error_and_a_companions_are_a_group():
    async def task() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise KeyError("task")

    with pytest.raises(ExceptionGroup) as caught:
        async with open_companion_nursery() as nursery:
            nursery.start_soon(task)
            await trio.testing.wait_all_tasks_blocked()
            raise ValueError("block")
    assert caught.group_contains(KeyError, match="task")
    assert caught.group_contains(ValueError, match="block")


async def test_the_way_in_and_out_is_not_interrupted_half_way(monkeypatch):
    """As with Trio's own: between the block and what closes the nursery, nothing is raised."""
    protected: list[bool] = []
    opened = trio.open_nursery()

    class Manager:
        async def __aenter__(self) -> trio.Nursery:
            protected.append(trio.lowlevel.currently_ki_protected())
            return await opened.__aenter__()

        async def __aexit__(self, *error: object) -> bool | None:
            protected.append(trio.lowlevel.currently_ki_protected())
            return await opened.__aexit__(*error)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(trio, "open_nursery", Manager)
        companion = open_companion_nursery()

    async def run_it() -> None:
        async with companion:
            protected.append(trio.lowlevel.currently_ki_protected())

    # A task is not protected, whatever its parent is.
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_it)
    assert protected == [True, False, True]
