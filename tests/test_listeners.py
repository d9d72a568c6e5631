"""listeners.py: what a shortage does to who listens."""

from __future__ import annotations

import errno
import logging
from typing import Any

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from trio_streamrpc.listeners import PatientListener


class Short(trio.abc.Listener[trio.abc.Stream]):
    """It fails with these errors, one after the other, and then it accepts."""

    def __init__(self, *errors: int) -> None:
        self.errors = list(errors)
        self.tries = 0
        self.closed = False

    async def accept(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        self.tries += 1
        if self.errors:
            number = self.errors.pop(0)
            raise OSError(number, errno.errorcode[number])
        return memory_stream_pair()[0]

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
        self.closed = True


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS])
async def test_a_shortage_is_waited_out(
    number: int, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A tenth of a second after it is over; it is said once a minute, without a traceback."""
    short = Short(*[number] * 1500)
    listener = PatientListener(short)
    assert isinstance(await listener.accept(), trio.abc.Stream)
    assert short.tries == 1501
    assert trio.current_time() == pytest.approx(150)
    expected = f"nobody can be accepted: {errno.errorcode[number]}; it is tried again and again"
    assert [each.getMessage() for each in caplog.records] == [expected] * 3
    assert all(each.exc_info is None for each in caplog.records)
    assert all(each.levelno == logging.ERROR for each in caplog.records)
    short.errors = [number]
    await listener.accept()
    assert len(caplog.records) == 3


async def test_what_is_no_shortage(autojump_clock: MockClock) -> None:
    with pytest.raises(OSError, match="EBADF"):
        await PatientListener(Short(errno.EBADF)).accept()


async def test_it_is_cancelled_while_it_waits(autojump_clock: MockClock) -> None:
    listener = PatientListener(Short(*[errno.EMFILE] * 1000))
    with trio.move_on_after(1) as scope:
        await listener.accept()
    assert scope.cancelled_caught


async def test_closing(autojump_clock: MockClock) -> None:
    short: Any = Short()
    await PatientListener(short).aclose()
    assert short.closed
