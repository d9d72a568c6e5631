"""The soak: what is said to grow, and a short one of it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.soak import ALLOWED, EXACT, ROUNDS, Sample, State, growth_of, heading, line_of

ROOT = Path(__file__).parent.parent.parent
STATE = State(memory=10 * 2**20, tasks=7, descriptors=10, objects=40_000, connections=1, calls=0)


def samples(side: str, **changes: list[int]) -> list[Sample]:
    found = []
    for number in range(ROUNDS):
        state = replace(STATE, **{name: each[number] for name, each in changes.items()})
        sides = {"server": STATE, "client": STATE, side: state}
        found.append(Sample(float(number), **sides))
    return found


def test_nothing_grows() -> None:
    assert growth_of(samples("server"), only=[*ALLOWED]) == []


@pytest.mark.parametrize("side", ["server", "client"])
@pytest.mark.parametrize("name", EXACT)
def test_one_more_is_too_many(side: str, name: str) -> None:
    rising = [5] * (ROUNDS // 2) + [6] * (ROUNDS // 2)
    (said,) = growth_of(samples(side, **{name: rising}), only=[*ALLOWED])
    assert said == f"{side} {name}: 5 have become 6; 0 more are allowed"


@pytest.mark.parametrize("name", sorted(set(ALLOWED) - {*EXACT}))
def test_what_may_grow_a_little(name: str) -> None:
    def rising(by: int) -> list[Sample]:
        return samples("server", **{name: [100] * (ROUNDS // 2) + [100 + by] * (ROUNDS // 2)})

    allowed = ALLOWED[name]
    assert allowed > 0
    assert growth_of(rising(allowed), only=[name]) == []
    assert len(growth_of(rising(allowed + 1), only=[name])) == 1
    assert growth_of(rising(allowed + 1), only=EXACT) == []


def test_what_grows_in_the_warm_up_and_what_falls_back_is_no_growth() -> None:
    warming = [0, 100, 300, 900] + [1_000_000] * (ROUNDS - 4)
    assert growth_of(samples("server", objects=warming), only=[*ALLOWED]) == []
    in_turn = [40_000 + 1_000 * (number % 5) for number in range(ROUNDS)]
    assert growth_of(samples("server", objects=in_turn), only=[*ALLOWED]) == []


def test_a_row_has_a_cell_for_each_column() -> None:
    titles, rule = heading().splitlines()
    row = line_of(samples("server")[0])
    assert titles.count("|") == rule.count("|") == row.count("|")
    assert row.startswith("| 0.0 | 10.00 | 7 | 10 | 40,000 | 1 | 0 | 10.00 |")


def test_a_short_soak() -> None:
    command = [sys.executable, "-m", "benchmarks.soak", "--scale", "0.001", "--transport", "tcp"]
    done = subprocess.run(
        [*command, "--exact"],
        capture_output=True,
        check=False,
        cwd=ROOT,
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    lines = done.stdout.splitlines()
    assert len(lines) == 2 + ROUNDS + 1
    assert lines[-1] == "it grows: nothing"
