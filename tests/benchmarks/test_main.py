"""The command line: what its arguments mean, and one run of it as a user starts it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import pytest

from benchmarks.__main__ import main, plan_of, prepared
from benchmarks.environments import Environment, NoEnvironment
from benchmarks.registry import PEERS, Contestant
from benchmarks.runner import Failure, Results
from benchmarks.workloads import WORKLOADS

ROOT = Path(__file__).parent.parent.parent
CHOICE = ["--only", "W1", "--peers", "ours,grpc", "--transport", "ws"]
QUICK = ["W1", "W2", "W3", "W4", "W5", "W8"]


class RunOf(Protocol):
    def __call__(self, measured: list[Contestant], failed: list[Contestant]) -> None: ...


@pytest.fixture
def run_of(monkeypatch: pytest.MonkeyPatch) -> RunOf:
    """The run is made up: who has a figure of W1, who fails; the others have no environment."""

    def give(measured: list[Contestant], failed: list[Contestant]) -> None:
        results = Results([{"W1": {}}])
        for each in measured:
            results.add(each.name, "W1", {"value": 1.0})
        for each in failed:
            results.add(each.name, "W1", Failure("why"))
        found = [*measured, *failed]
        monkeypatch.setattr("benchmarks.__main__.prepared", lambda chosen: (found, {}))
        monkeypatch.setattr("benchmarks.runner.run", lambda *arguments: results)
        # It stays as it is for the tests.
        monkeypatch.setattr(signal, "signal", lambda number, handler: None)

    return give


def planned(*arguments: str) -> tuple[list[str], list[str]]:
    plan = plan_of(arguments)
    return [each.name for each in plan.workloads], [each.name for each in plan.contestants]


def test_a_quick_run() -> None:
    assert planned("--quick") == (
        QUICK,
        [
            "ours_ws",
            "ours_tcp",
            "grpc_aio",
            "websockets_uvloop",
            "floor_trio_tcp",
            "floor_trio_websocket",
            "floor_msgspec",
        ],
    )


def test_a_full_run_measures_everything() -> None:
    workloads, contestants = planned()
    assert workloads == list(WORKLOADS)
    assert {"ours_ws", "ours_tcp", "ours_unix", "trio_websocket_json"} < set(contestants)
    assert plan_of([]).rounds >= 3


def test_a_choice() -> None:
    arguments = ("--only", "w5,W3", "--peers", "grpc,ours", "--transport", "tcp,ws")
    assert planned(*arguments) == (["W3", "W5"], ["ours_ws", "ours_tcp", "grpc_aio"])


def test_a_peer_is_chosen_by_the_beginning_of_its_name() -> None:
    floors = [name for name in PEERS if name.startswith("floor_")]
    assert planned("--peers", "floor")[1] == floors
    assert planned("--peers", "floor_trio")[1] == [each for each in floors if "trio" in each]
    assert "trio_websocket_json" in planned("--peers", "trio_websocket")[1]


def test_who_measures_nothing_of_the_choice_takes_no_part() -> None:
    assert "floor_trio_tcp" not in planned("--only", "W3")[1]


def test_sizes_are_scaled() -> None:
    whole, part = plan_of(["--quick"]).effort, plan_of(["--quick", "--scale", "0.1"]).effort
    assert part.size(WORKLOADS["W3"]) == whole.size(WORKLOADS["W3"]) / 10
    assert part.seconds == pytest.approx(whole.seconds / 10)
    assert plan_of(["--scale", "0.000001"]).effort.size(WORKLOADS["W1"]) == 1
    assert whole.size(WORKLOADS["W3"]) < plan_of([]).effort.size(WORKLOADS["W3"]) == 50_000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--only W99", "--only: w99 is none of W1, "),
        ("--peers nobody", "--peers: nobody is none of ours, "),
        ("--peers grp", "--peers: grp is none of ours, "),
        ("--transport pigeon", "--transport: pigeon is none of ws, "),
        ("--rounds 2", "--rounds: fewer than 3"),
        ("--scale 0", "--scale: it has to be above 0"),
        ("--scale nan", "--scale: it has to be above 0, and finite"),
        ("--scale inf", "--scale: it has to be above 0, and finite"),
        ("--only=", "--only: it names nothing"),
        ("--peers=", "--peers: it names nothing"),
        ("--transport=", "--transport: it names nothing"),
        ("--only W8 --peers floor", "no peer that is chosen measures"),
        ("--peers ours --transport ,", "--transport: it names nothing"),
        ("--nothing", "unrecognized arguments"),
    ],
)
def test_arguments_that_mean_nothing(
    arguments: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        plan_of(arguments.split())
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_where_nothing_can_be_written(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said before anything is measured."""
    nowhere = tmp_path / "nowhere"
    problems = {
        nowhere / "figures": f"{option}: {nowhere} is no directory",
        tmp_path: f"{option}: {tmp_path} is a directory",
    }
    for path, said in problems.items():
        with pytest.raises(SystemExit) as ended:
            plan_of([option, str(path)])
        assert ended.value.code == 2
        assert said in capsys.readouterr().err


def test_where_it_may_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
    with pytest.raises(SystemExit):
        plan_of(["--json", str(tmp_path / "figures")])
    assert f"--json: {tmp_path / 'figures'} cannot be written" in capsys.readouterr().err


def test_a_plot_needs_matplotlib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        plan_of(["--plot", str(tmp_path / "figures.png")])
    assert "--plot needs matplotlib: pip install matplotlib" in capsys.readouterr().err


def test_what_cannot_be_written_is_not_lost(
    tmp_path: Path,
    run_of: RunOf,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The directory goes away while it measures."""
    monkeypatch.setattr("benchmarks.__main__._unwritable", lambda path: None)
    run_of([OURS, GRPC], [])
    assert main(["--quick", *CHOICE, "--json", str(tmp_path / "gone" / "figures")]) == 1
    _, _, said = capsys.readouterr().err.partition("not written: ")
    assert json.loads(said[said.index("{") :]) == {"W1": {"ours_ws": 1.0, "grpc_aio": 1.0}}


def test_a_peer_without_an_environment_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = {"grpc_aio": NoEnvironment("no network"), "trio": Environment("python")}
    monkeypatch.setattr("benchmarks.environments.the_prepared", lambda names: made)
    contestants = plan_of(["--quick", "--peers", "ours,grpc,floor_trio_tcp"]).contestants
    found, ready = prepared(contestants)
    assert [each.name for each in found] == ["ours_ws", "ours_tcp", "floor_trio_tcp"]
    assert set(ready) == {None, "trio"}
    assert capsys.readouterr().err == "without the peers in grpc_aio: no network\n"


GRPC = Contestant(PEERS["grpc_aio"])
OURS = Contestant(PEERS["ours"], "ws")


@pytest.mark.parametrize(
    ("measured", "failed", "code", "said"),
    [
        ([OURS, GRPC], [], 0, ""),
        ([OURS], [GRPC], 0, "missing, or in part: grpc_aio\n"),
        ([OURS], [], 0, "missing, or in part: grpc_aio\n"),
        ([GRPC], [OURS], 1, "missing, or in part: ours_ws\n"),
        ([GRPC], [], 1, "missing, or in part: ours_ws\n"),
        ([], [OURS, GRPC], 1, "missing, or in part: ours_ws, grpc_aio\n"),
    ],
)
def test_the_exit_code(
    measured: list[Contestant],
    failed: list[Contestant],
    code: int,
    said: str,
    run_of: RunOf,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_of(measured, failed)
    assert main(CHOICE) == code
    lines = capsys.readouterr().err.splitlines(keepends=True)
    assert "".join(each for each in lines if each.startswith("missing")) == said


def test_without_a_figure_the_exit_code_is_1(run_of: RunOf) -> None:
    run_of([], [GRPC])
    assert main(["--only", "W1", "--peers", "grpc"]) == 1


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks", "--peers", "ours", "--transport", "ws", *arguments]


def test_a_run_gives_one_json_object() -> None:
    done = subprocess.run(
        command("--quick", "--scale", "0.01", "--only", "W1,W2,W3b,W5", "--json", "-"),
        capture_output=True,
        check=False,
        cwd=ROOT,
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found) == ["W1", "W2", "W3b", "W5"]
    assert all(list(figures) == ["ours_ws"] for figures in found.values())
    assert all(figures["ours_ws"] > 0 for figures in found.values())
    assert "round 3 of 3: ours_ws: W1 " in done.stderr
    assert "| ours_ws |" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_can_be_stopped(number: signal.Signals) -> None:
    with subprocess.Popen(
        command("--scale", "1000", "--only", "W1"),
        cwd=ROOT,
        encoding="utf-8",
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            assert process.stderr is not None
            while "the environments are there" not in process.stderr.readline():
                assert process.poll() is None
            process.send_signal(number)
            out, said = process.communicate()
        finally:
            process.kill()
    assert (process.returncode, out) == (130, "")
    assert said == "interrupted: nothing is left running\n"
