"""The arithmetic of the report, on figures that are made up."""

from __future__ import annotations

import json

from benchmarks.environments import commit
from benchmarks.registry import PEERS, Contestant
from benchmarks.report import Round, as_json, as_text, summarised
from benchmarks.runner import Failure, Results
from benchmarks.workloads import WORKLOADS

W1, W3, W3B = WORKLOADS["W1"], WORKLOADS["W3"], WORKLOADS["W3b"]
CONTESTANTS = [Contestant(PEERS["ours"], "ws"), Contestant(PEERS["grpc_aio"])]


def rounds_of(**values: list[float]) -> list[Round]:
    """For each round, a figure for each contestant."""
    count = len(next(iter(values.values())))
    return [
        {name: {"value": each[number]} for name, each in values.items()} for number in range(count)
    ]


def test_median_and_spread() -> None:
    summary = summarised(W3, rounds_of(grpc_aio=[30.0, 10.0, 12.0, 11.0]))["grpc_aio"]
    assert (summary.median, summary.lowest, summary.highest) == (11.5, 10.0, 30.0)


def test_a_ratio_is_taken_within_each_round() -> None:
    """A machine that slows down for a round slows both: the ratio stays."""
    found = summarised(W3, rounds_of(ours_ws=[100.0, 20.0, 90.0], grpc_aio=[10.0, 2.0, 10.0]))
    ratio = found["grpc_aio"].ratios["ours_ws"]
    assert ratio.rounds == (10.0, 10.0, 9.0)
    assert ratio.median == 10.0
    assert found["ours_ws"].ratios == {}


def test_where_less_is_better_the_ratio_is_the_other_way_round() -> None:
    found = summarised(W1, rounds_of(ours_ws=[100.0], grpc_aio=[300.0]))
    assert found["grpc_aio"].ratios["ours_ws"].rounds == (3.0,)


def test_each_transport_of_ours_has_its_ratio() -> None:
    found = summarised(W3, rounds_of(ours_ws=[20.0], ours_tcp=[40.0], grpc_aio=[10.0]))
    assert {name: each.median for name, each in found["grpc_aio"].ratios.items()} == {
        "ours_ws": 2.0,
        "ours_tcp": 4.0,
    }
    assert {name: each.median for name, each in found["ours_ws"].ratios.items()} == {"ours_tcp": 2}


def test_without_ours_there_is_no_ratio() -> None:
    assert summarised(W3, rounds_of(grpc_aio=[1.0]))["grpc_aio"].ratios == {}


def test_what_stands_beside_a_figure_has_its_median() -> None:
    rounds: list[Round] = [{"ours_ws": {"value": 1.0, "p99": each}} for each in (5.0, 9.0, 6.0)]
    assert summarised(W1, rounds)["ours_ws"].others == {"p99": 6.0}


def results() -> Results:
    return Results(
        rounds=[
            {
                "W1": {"ours_ws": {"value": 200.0, "p99": 300.0}, "grpc_aio": {"value": 400.0}},
                "W3": {"ours_ws": {"value": 2000.0}, "grpc_aio": {"value": 500.0}},
                "W3b": {"ours_ws": {"value": 5000.0}},
            }
        ]
    )


def test_what_failed_once_has_no_figure() -> None:
    found = results()
    found.rounds.append({})
    found.add("grpc_aio", "W1", Failure("it hangs"))
    assert as_json(found, [W1, W3], CONTESTANTS, medians_only=True) == {
        "W1": {"ours_ws": 200.0},
        "W3": {"ours_ws": 2000.0, "grpc_aio": 500.0},
    }
    assert "- grpc_aio W1: it hangs" in as_text(found, [W1, W3], CONTESTANTS)


def test_what_failed_for_one_reason_is_one_line() -> None:
    found = Results([{}])
    for workload in ("W1", "W3"):
        found.add("ours_tcp", workload, Failure("no server"))
    found.add("ours_tcp", "W5", Failure("it hangs"))
    assert found.not_measured() == ["ours_tcp W1, W3: no server", "ours_tcp W5: it hangs"]


def test_the_json_of_a_full_run_has_the_same_shape_and_more() -> None:
    found = as_json(results(), [W1, W3], CONTESTANTS, medians_only=False)
    assert found["W1"] == {"ours_ws": 200.0, "grpc_aio": 400.0}
    assert found["versions"]["grpc_aio"]["grpcio"]
    assert found["versions"]["ours"]["trio"]
    assert found["versions"]["ours"]["trio-streamrpc"]
    assert found["machine"]["commit"] == commit()
    assert found["units"] == {"W1": "µs", "W3": "items/s"}
    assert found["rounds"][0]["W1"]["ours_ws"]["p99"] == 300.0
    assert found["machine"]["cores"] >= 1
    assert json.loads(json.dumps(found)) == found


def test_a_workload_that_nobody_measured_is_empty() -> None:
    assert as_json(Results([{}]), [W1], CONTESTANTS, medians_only=True) == {"W1": {}}
    assert "### W1" not in as_text(Results([{}]), [W1], CONTESTANTS)


def test_a_table() -> None:
    table = [line for line in as_text(results(), [W1], CONTESTANTS).splitlines() if "|" in line]
    assert table == [
        "|          | median | min | max | times as good: ours_ws | beside it |",
        "| :------- | -----: | --: | --: | ---------------------: | --------: |",
        "| ours_ws  |    200 | 200 | 200 |                        |   p99 300 |",
        "| grpc_aio |    400 | 400 | 400 |            2.00 (2.00) |           |",
    ]


def test_batches_are_compared_with_the_items_of_others() -> None:
    text = as_text(results(), [W3B], CONTESTANTS)
    [grpc] = [line for line in text.splitlines() if line.startswith("| grpc_aio (W3)")]
    [ours] = [line for line in text.splitlines() if line.startswith("| ours_ws (W3)")]
    assert "10.00 (10.00)" in grpc
    assert "2.50 (2.50)" in ours
    assert as_json(results(), [W3B], CONTESTANTS, medians_only=True) == {"W3b": {"ours_ws": 5000.0}}
