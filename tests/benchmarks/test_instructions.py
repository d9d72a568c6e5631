"""Instructions: what is counted does its work, repeatably, and what is made of the counts."""

from __future__ import annotations

import pytest
import trio

from benchmarks import instructions


@pytest.mark.parametrize("transport", instructions.TRANSPORTS)
@pytest.mark.parametrize("workload", instructions.WORK)
def test_what_is_counted_does_its_work(transport: str, workload: str) -> None:
    clock = instructions.Counting()
    trio.run(instructions.work, transport, workload, 128, clock=clock)


def test_the_clock_goes_on_when_it_is_read() -> None:
    clock = instructions.Counting()
    clock.start_clock()
    first = clock.current_time()
    assert clock.current_time() > first
    assert clock.deadline_to_sleep_time(first + 10) == pytest.approx(10, abs=0.001)
    assert clock.deadline_to_sleep_time(first) == 0


def test_what_the_start_costs_falls_out() -> None:
    assert instructions.per_unit([(1_000, 3_000), (1_100, 3_200)], 10) == [200, 210]
    assert instructions.difference([200, 210]) == pytest.approx(0.05)


COUNTS = {0: 1_000, 64: 65_000, 6_400: 641_000, 20_000: 2_001_000}


def test_a_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.setattr(instructions, "counted", lambda over, name, count: COUNTS[count])
    assert instructions.main([]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[0].startswith("Python 3")
    assert rows[3:] == [
        "| W2: a call | memory | 100 | 0.00% |",
        "| W3: an item | memory | 100 | 0.00% |",
        "| W2: a call | sockets | 100 | 0.00% |",
        "| W3: an item | sockets | 100 | 0.00% |",
    ]


def test_runs_that_do_not_agree_are_no_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = 0

    def counted(transport: str, workload: str, count: int) -> int:
        nonlocal runs
        runs += 1
        return count * (1_000 + runs * 30)

    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.setattr(instructions, "counted", counted)
    assert instructions.main(["--scale", "0.0001"]) == 1
    assert capsys.readouterr().out.endswith(
        "the runs differ by more than 3%: these are no figures\n"
    )


def test_without_valgrind_nothing_is_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert instructions.main([]) == 0
    assert capsys.readouterr().out == "valgrind is not here: nothing is counted\n"
