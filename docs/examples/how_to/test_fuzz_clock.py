from clock import Clock

from trio_streamrpc.testing import fuzz


def test_the_clock_holds() -> None:
    fuzz(Clock, examples=30)
