"""Peers in turn, those that crash, hang or talk nonsense among them: nothing is left of any."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import processes, runner
from benchmarks.environments import Environment
from benchmarks.registry import Contestant, Peer
from benchmarks.runner import Failure, measure
from benchmarks.workloads import WORKLOADS, Effort

HERE = Environment(sys.executable)
EFFORT = Effort(quick=True, scale=0.01)
W1, W2, W3 = (WORKLOADS[name] for name in ("W1", "W2", "W3"))

#: A peer that writes down which processes it had, and what it was asked.
BEGINNING = """
import json, os, pathlib, sys, time
with open(pathlib.Path(__file__).with_suffix(".pids"), "a") as file:
    print(os.getpid(), *sys.argv[1:], file=file)
def ended_with_stdin():
    sys.stdin.read()
    sys.exit()
def say(name, value=1.0):
    print(json.dumps({"workload": name, "value": value}), flush=True)
"""
SERVES = """
if sys.argv[1] == "serve":
    print("somewhere", flush=True)
    ended_with_stdin()
"""
ANSWERS = """
for each in sys.argv[4:]:
    say(each.partition("=")[0])
"""


def contestant(directory: Path, *parts: str) -> Contestant:
    script = directory / "fake.py"
    script.write_text("".join((BEGINNING, *parts)), encoding="utf-8")
    return Contestant(Peer("fake", str(script), None, "nothing", "nowhere"))


def asked(directory: Path) -> list[str]:
    """What the peer's processes were started with; none of them is there any more."""
    found = []
    for line in (directory / "fake.pids").read_text(encoding="utf-8").splitlines():
        number, _, arguments = line.partition(" ")
        with pytest.raises(ProcessLookupError):
            os.kill(int(number), 0)
        found.append(arguments)
    return found


def outcomes(fake: Contestant, directory: Path, *workloads: object) -> dict[str, object]:
    chosen = workloads or (W1, W2)
    return {
        workload.name: outcome
        for workload, outcome in measure(fake, HERE, chosen, EFFORT, str(directory))  # type: ignore[arg-type]
    }


def test_a_round(tmp_path: Path) -> None:
    fake = contestant(tmp_path, SERVES, ANSWERS)
    assert outcomes(fake, tmp_path) == {"W1": {"value": 1.0}, "W2": {"value": 1.0}}
    assert asked(tmp_path) == ["serve ", "measure somewhere 0.002 W1=3 W2=12"]


def test_the_transport_is_the_servers(tmp_path: Path) -> None:
    fake = replace(contestant(tmp_path, SERVES, ANSWERS), transport="ws")
    outcomes(fake, tmp_path)
    assert asked(tmp_path)[0] == "serve ws"


def test_a_server_that_cannot_start(tmp_path: Path) -> None:
    fake = contestant(tmp_path, "print('why', file=sys.stderr); sys.exit(3)")
    failure = Failure("its server: it ended with 3: why")
    assert outcomes(fake, tmp_path) == {"W1": failure, "W2": failure}
    assert asked(tmp_path) == ["serve "]


def test_a_server_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "START", 0.01)
    fake = contestant(tmp_path, "ended_with_stdin()")
    failure = Failure("its server: nothing came for 0.01 s")
    assert outcomes(fake, tmp_path) == {"W1": failure, "W2": failure}


def test_after_a_crash_the_others_are_measured(tmp_path: Path) -> None:
    fake = contestant(tmp_path, SERVES, "if 'W1=3' in sys.argv: sys.exit('oh no')\n", ANSWERS)
    assert outcomes(fake, tmp_path) == {
        "W1": Failure("it ended with 1: oh no"),
        "W2": {"value": 1.0},
    }
    assert asked(tmp_path)[2:] == ["serve ", "measure somewhere 0.002 W2=12"]


def test_after_one_that_hangs_the_others_are_measured(tmp_path: Path) -> None:
    fake = contestant(tmp_path, SERVES, "if 'W1=3' in sys.argv: ended_with_stdin()\n", ANSWERS)
    hanging = replace(W1, bound=0.001)
    assert outcomes(fake, tmp_path, hanging, W2) == {
        "W1": Failure("nothing came for 0.01 s"),
        "W2": {"value": 1.0},
    }
    assert len(asked(tmp_path)) in (3, 4)  # the first client may not have come to its first line


def test_those_that_do_not_end_are_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "GRACE", 0.01)
    deaf = SERVES.replace("ended_with_stdin()", "time.sleep(1000)")
    fake = contestant(tmp_path, deaf, ANSWERS, "time.sleep(1000)\n")
    assert outcomes(fake, tmp_path) == {"W1": {"value": 1.0}, "W2": {"value": 1.0}}
    assert len(asked(tmp_path)) == 2


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("nonsense", "it said 'nonsense'"),
        ("[]", "it said '[]'"),
        ('{"workload": "W9", "value": 1}', 'it said \'{"workload": "W9", "value": 1}\''),
        ('{"workload": "W1"}', 'it said \'{"workload": "W1"}\''),
        ('{"workload": "W1", "value": -1}', 'it said \'{"workload": "W1", "value": -1}\''),
        ('{"workload": "W1", "value": NaN}', 'it said \'{"workload": "W1", "value": NaN}\''),
        ('{"workload": "W1", "value": "x"}', 'it said \'{"workload": "W1", "value": "x"}\''),
        ('{"workload": "W1", "error": "wrong"}', "wrong"),
    ],
)
def test_what_is_no_figure(line: str, reason: str, tmp_path: Path) -> None:
    fake = contestant(tmp_path, SERVES, f"if 'W1=3' in sys.argv: print({line!r})\n", ANSWERS)
    found = outcomes(fake, tmp_path)
    assert found == {"W1": Failure(reason), "W2": {"value": 1.0}}


def test_leaving_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    fake = contestant(tmp_path, SERVES, "say('W1'); ended_with_stdin()\n")
    measuring = measure(fake, HERE, [W1, W2], EFFORT, str(tmp_path))
    assert next(measuring) == (W1, {"value": 1.0})
    measuring.close()  # type: ignore[attr-defined]
    assert len(asked(tmp_path)) == 2


def test_rounds_go_from_peer_to_peer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fakes = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        fake = contestant(tmp_path / name, SERVES, ANSWERS)
        fakes.append(Contestant(replace(fake.peer, name=name, workloads=("W1", "W3"))))
    results = runner.run(fakes, {None: HERE}, [W1, W2, W3], EFFORT, rounds=2)
    figures = {"one": {"value": 1.0}, "other": {"value": 1.0}}
    assert results.rounds == [{"W1": figures, "W3": figures}] * 2
    assert capsys.readouterr().err.splitlines() == [
        "round 1 of 2: one: W1 1 µs, W3 1 items/s",
        "round 1 of 2: other: W1 1 µs, W3 1 items/s",
        "round 2 of 2: one: W1 1 µs, W3 1 items/s",
        "round 2 of 2: other: W1 1 µs, W3 1 items/s",
    ]


def test_what_failed_is_not_tried_again(tmp_path: Path) -> None:
    fake = contestant(tmp_path, SERVES, "if 'W1=3' in sys.argv: sys.exit('oh no')\n", ANSWERS)
    results = runner.run([fake], {None: HERE}, [W1, W2], EFFORT, rounds=2)
    assert results.rounds == [{"W2": {"fake": {"value": 1.0}}}] * 2
    assert results.not_measured() == ["fake W1: it ended with 1: oh no"]
    assert [each for each in asked(tmp_path) if "W1=3" in each] == [
        "measure somewhere 0.002 W1=3 W2=12"
    ]


def test_a_proxy_is_not_for_peers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://example.invalid")
    monkeypatch.setenv("https_proxy", "http://example.invalid")
    check = "assert not os.environ['HTTP_PROXY'] + os.environ['https_proxy']\n"
    fake = contestant(tmp_path, check, SERVES, ANSWERS)
    assert outcomes(fake, tmp_path) == {"W1": {"value": 1.0}, "W2": {"value": 1.0}}
