"""failures.py: what becomes of what a command raises."""

from __future__ import annotations

import pytest

from trio_streamrpc import (
    CleanupTimeout,
    ConnectionLost,
    DeadlineExceeded,
    NotFound,
    RemoteError,
    RpcError,
    Unavailable,
)
from trio_streamrpc.cli.failures import (
    Failure,
    Misuse,
    NotConnected,
    TimeUp,
    failure_of,
    one_line,
    run,
)


def unavailable(*, retry: bool) -> RpcError:
    error = Unavailable("going away")
    error.retry = retry
    return error


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (NotFound("none"), Failure, "NotFound: none"),
        (NotFound(), Failure, "NOT_FOUND"),
        (RemoteError("bad"), Failure, "RemoteError: bad"),
        (ConnectionLost("gone"), NotConnected, "ConnectionLost: gone"),
        (unavailable(retry=True), NotConnected, "Unavailable: going away"),
        (unavailable(retry=False), Failure, "Unavailable: going away"),
        (DeadlineExceeded("late"), TimeUp, "DeadlineExceeded: late"),
        (CleanupTimeout("slow"), Failure, "CleanupTimeout: slow"),
        (Misuse("wrong"), Misuse, "wrong"),
        (OSError(5, "bad disk"), Failure, "OSError: [Errno 5] bad disk"),
    ],
)
def test_what_it_means(error: Exception, kind: type[Failure], said: str) -> None:
    found = failure_of(error)
    assert type(found) is kind
    assert found.message == said


def test_exit_codes() -> None:
    assert [each.exit_code for each in (Failure, Misuse, NotConnected, TimeUp)] == [1, 2, 3, 4]


def test_one_line() -> None:
    assert one_line("a\n  b\r\n\tc") == "a b c"
    assert one_line("\x1b]0;x\x07 \x9b é\u202e") == "\\x1b]0;x\\x07 \\x9b é\\u202e"
    assert len(one_line("x" * 10_000)) == 2_000


async def raises(error: BaseException) -> None:
    raise error


def test_tracebacks(capsys: pytest.CaptureFixture[str]) -> None:
    error = NotFound("none")
    error.traceback = 'Traceback:\n  File "x"\nKeyError: \x1b[31m'
    with pytest.raises(Failure, match="NotFound: none"):
        run(True, raises, error)
    shown = capsys.readouterr().err
    assert "in raises" in shown
    assert shown.endswith('On the other side:\nTraceback:\n  File "x"\nKeyError: \\x1b[31m\n')
    with pytest.raises(Misuse):
        run(False, raises, Misuse("wrong"))
    assert capsys.readouterr().err == ""


def test_whoever_reads_the_output_has_seen_enough() -> None:
    run(False, raises, BrokenPipeError())
