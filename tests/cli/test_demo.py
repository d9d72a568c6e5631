"""The demonstration: in processes as a user starts it, and in place for what goes wrong."""

import errno
import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

import trio_streamrpc.cli.demo as module
from trio_streamrpc import Aborted, ConnectionLost, Window, rpc
from trio_streamrpc.cli import demo_acts
from trio_streamrpc.cli.demo_figures import JSON_KEYS, Schedule
from trio_streamrpc.cli.demo_service import DemoService

#: Everything once, in less than a second.
QUICK = Schedule(
    calls=20, metrics_seconds=0.05, metrics_interval=0.01, slow_items=8, both_seconds=0.05
)

SMALL = bytes(range(256)) * 4_321

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and pipes as POSIX has them")


# --- processes


@dataclass
class Run:
    code: int
    out: str
    err: str


Invoke = Callable[..., Run]


def start(temporary: Path, *args: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "COLUMNS": "80",
        "FORCE_COLOR": "1",
        "PYTHONUTF8": "1",
        "TMPDIR": str(temporary),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "trio_streamrpc", "demo", *args],
        encoding="utf-8",
        env=environment,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )


def end(process: subprocess.Popen[str]) -> Run:
    with process:
        out, err = process.communicate(timeout=60)
    return Run(process.returncode, out, err)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "small.bin"
    path.write_bytes(SMALL)
    return path


@pytest.fixture(scope="module")
def runs(small: Path) -> tuple[Run, Run]:
    """One run for people and one for programs, at the same time."""
    piped = start(small.parent)
    counted = start(small.parent, "--json", "--file", str(small))
    return end(piped), end(counted)


def test_json(runs: tuple[Run, Run]) -> None:
    _, run = runs
    assert run.err == ""
    assert run.code == 0
    figures = json.loads(run.out)
    assert list(figures) == list(JSON_KEYS)
    assert 10 < figures["unary_us"] < 1_000_000
    assert figures["metrics_items"] >= 5
    assert figures["file_bytes"] == len(SMALL)
    assert figures["file_mb_per_s"] > 0
    assert figures["file_sha256_ok"] is True
    assert figures["lookahead_items"] == figures["window_items"] > 1
    assert 0 < figures["break_cleanup_ms"] < 5_000


def test_a_pipe_gets_plain_text(runs: tuple[Run, Run], small: Path) -> None:
    run, _ = runs
    assert run.err == ""
    assert run.code == 0
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", run.out), "nothing but lines of text"
    assert [line[0] for line in run.out.splitlines() if re.match(r"\d  ", line)] == [*"123456"]
    assert max(map(len, run.out.splitlines())) <= 80
    assert "100.0 MB" in run.out
    assert "16 of a window of 16" in run.out
    assert "All checks passed" in run.out
    assert os.listdir(small.parent) == ["small.bin"], "no temporary file is left"


def test_ctrl_c_is_quiet(tmp_path: Path) -> None:
    process = start(tmp_path)
    assert process.stdout is not None
    assert "ws://127.0.0.1:" in process.stdout.readline()

    process.send_signal(signal.SIGINT)

    run = end(process)
    assert run.code == 130
    assert run.err == ""
    assert os.listdir(tmp_path) == []


def test_a_reader_that_leaves_is_no_fault(small: Path) -> None:
    process = start(small.parent, "--file", str(small))
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() != ""

    process.stdout.close()

    assert process.stderr.read() == ""
    assert process.wait(60) == 1
    process.stderr.close()


# --- in place


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BRIEF", QUICK)
    monkeypatch.setattr(module, "FULL", QUICK)
    # Slow enough for the producer to use up its window between two items.
    monkeypatch.setattr(demo_acts, "SLOWNESS", 50)


@pytest.fixture
def invoke(capsys: pytest.CaptureFixture[str]) -> Invoke:
    def invoke(*args: str) -> Run:
        with pytest.raises(SystemExit) as ended:
            module.demo.main(args)
        assert isinstance(ended.value.code, int)
        return Run(ended.value.code, *capsys.readouterr())

    return invoke


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "No such file or directory"),
        (Path.mkdir, "it is a directory"),
        (os.mkfifo if hasattr(os, "mkfifo") else None, "it is not a regular file"),
    ],
)
def test_what_is_no_file(invoke: Invoke, make, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "it"
    make(path)
    run = invoke("--file", str(path))
    assert run.code == 2
    assert run.out == ""
    assert run.err == f"Error: cannot read {str(path)!r}: {reason}\n"


def test_a_file_that_may_not_be_read(
    invoke: Invoke, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, mode: str) -> None:
        # As for anybody but root; tests may be run by root.
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    run = invoke("--file", str(small))
    assert run.code == 2
    assert run.out == ""
    assert run.err == f"Error: cannot read {str(small)!r}: Permission denied\n"


def test_help_has_an_example(invoke: Invoke) -> None:
    run = invoke("--help")
    assert run.code == 0
    assert "\n    trio-streamrpc demo\n" in run.out


@pytest.mark.usefixtures("quick")
def test_an_empty_file(invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "empty [red]"
    path.touch()

    run = invoke("--file", str(path))

    assert run.code == 0
    assert "A file: 'empty [red]'" in run.out
    assert hashlib.sha256().hexdigest()[:16] in run.out
    figures = json.loads(invoke("--json", "--file", str(path)).out)
    assert figures["file_bytes"] == 0
    assert figures["file_sha256_ok"] is True


@pytest.mark.usefixtures("quick")
def test_on_a_terminal_it_is_drawn_as_it_happens(
    invoke: Invoke, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80)
    monkeypatch.setattr(module, "open_console", lambda: console)

    run = invoke("--file", str(small))

    assert run.code == 0
    drawn = screen.getvalue()
    assert "\x1b[?25l" in drawn, "the cursor is hidden…"
    assert drawn.rfind("\x1b[?25h") > drawn.rfind("\x1b[?25l"), "…and there again"
    assert drawn.count("of a window of 16") > QUICK.slow_items
    assert "╭" in drawn
    assert "All checks passed" in drawn


class WithAnotherDigest(DemoService):
    @rpc
    async def file_sha256(self) -> str:
        return "0" * 64


class WithoutFinally(DemoService):
    @rpc
    async def feed(self) -> AsyncIterator[int]:
        number = 0
        while True:
            yield number
            number += 1


@pytest.mark.usefixtures("quick")
def test_another_digest_is_a_failure(
    invoke: Invoke, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DemoService", WithAnotherDigest)

    run = invoke("--file", str(small))

    assert run.code == 1
    assert "sent: 0000000000000000" in run.out
    assert "FAILED: the SHA-256 of what arrived is not that of the file" in run.out
    assert "All checks passed" not in run.out


@pytest.mark.usefixtures("quick")
def test_a_look_ahead_that_is_not_the_window_is_a_failure(
    invoke: Invoke, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_acts, "ITEMS_WINDOW", Window(items=17))

    run = invoke("--json", "--file", str(small))

    assert run.code == 1
    figures = json.loads(run.out)
    assert (figures["lookahead_items"], figures["window_items"]) == (16, 17)
    [line] = run.err.splitlines()
    assert line.startswith("FAILED: the producer ran 16 items ahead")


@pytest.mark.usefixtures("quick")
def test_a_finally_that_has_not_run_is_a_failure(
    invoke: Invoke, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DemoService", WithoutFinally)

    run = invoke("--file", str(small))

    assert run.code == 1
    assert re.search(r"\n +never +server: the producer's finally begins\n", run.out)
    assert "FAILED: the block ended before the producer's finally had run" in run.out


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectionLost("it is gone"), "Error: ConnectionLost: it is gone\n"),
        (Aborted("no more"), "Error: Aborted: no more\n"),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            f"Error: OSError: [Errno {errno.ENOSPC}] No space",
        ),
    ],
)
def test_what_ends_a_run_is_told_in_one_line(
    invoke: Invoke, error: Exception, said: str, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def perform(stage: object) -> None:
        raise error

    monkeypatch.setattr(module, "perform", perform)
    run = invoke("--json", "--file", str(small))
    assert run.code == 1
    assert run.out == ""
    assert run.err.startswith(said)
    assert run.err.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_a_run_in_order(
    invoke: Invoke, number: signal.Signals, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = []

    async def perform(stage: demo_acts.Stage) -> None:
        try:
            async with stage.api.feed() as feed:
                async for _ in feed:
                    signal.raise_signal(number)
        finally:
            ended.append(number)

    monkeypatch.setattr(module, "perform", perform)
    before = signal.getsignal(number)
    run = invoke("--file", str(small))
    assert run.code == 128 + number
    assert ended == [number]
    assert run.err == ""
    assert signal.getsignal(number) is before
