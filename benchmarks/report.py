"""What the figures say: medians, spread and ratios, as tables, as JSON and as a plot."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.environments import versions_of
from benchmarks.registry import Contestant
from benchmarks.runner import Results
from benchmarks.workloads import WORKLOADS, Workload

__all__ = ["Ratio", "Summary", "as_json", "as_text", "plot", "summarised"]

#: The peer that the others are compared with.
OURS = "ours"


@dataclass(frozen=True)
class Ratio:
    """How many times as good ours is, round by round: above 1, it is ahead."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.rounds)

    def __str__(self) -> str:
        return f"{self.median:.2f} ({', '.join(f'{each:.2f}' for each in self.rounds)})"


@dataclass(frozen=True)
class Summary:
    """One contestant's figures for one workload."""

    median: float
    lowest: float
    highest: float
    others: Mapping[str, float]
    """The medians of what was measured beside it."""
    ratios: Mapping[str, Ratio]
    """By our contestants: how many times as good they are."""


def summarised(results: Results) -> dict[str, dict[str, Summary]]:
    """All figures that there are, by workload and contestant."""
    found: dict[str, dict[str, Summary]] = {}
    for name, workload in WORKLOADS.items():
        rounds = [each.get(name, {}) for each in results.rounds]
        contestants = dict.fromkeys(each for figures in rounds for each in figures)
        for contestant in contestants:
            figures = [each[contestant] for each in rounds if contestant in each]
            values = [each["value"] for each in figures]
            found.setdefault(name, {})[contestant] = Summary(
                median(values),
                min(values),
                max(values),
                {
                    key: median(each[key] for each in figures if key in each)
                    for key in dict.fromkeys(key for each in figures for key in each)
                    if key != "value"
                },
                _ratios(results, workload, contestant),
            )
    return found


def _ratios(results: Results, workload: Workload, contestant: str) -> dict[str, Ratio]:
    """Ours over this contestant in the same round, or the other way round for times."""
    found: dict[str, list[float]] = {}
    for figures in results.rounds:
        here = figures.get(workload.name, {})
        for name, mine in here.items():
            if _is_ours(name) and name != contestant and contestant in here:
                pair = mine["value"], here[contestant]["value"]
                found.setdefault(name, []).append(_times_as_good(workload, *pair))
    return {name: Ratio(tuple(each)) for name, each in found.items()}


def _times_as_good(workload: Workload, mine: float, other: float) -> float:
    better, worse = (other, mine) if workload.smaller_is_better else (mine, other)
    return better / worse if worse else float("inf")


def _is_ours(contestant: str) -> bool:
    return contestant == OURS or contestant.startswith(f"{OURS}_")


def as_text(results: Results, contestants: Sequence[Contestant]) -> str:
    """Markdown: a table for each workload, what failed, and what was set."""
    parts = []
    for name, figures in summarised(results).items():
        parts += [_heading(WORKLOADS[name]), _table(figures)]
    if results.failures:
        parts += ["### Not measured", _list(results.not_measured())]
    peers = dict.fromkeys(each.peer for each in contestants)
    parts += [
        "### What was set",
        _list([f"{each.name}: {each.settings} ({each.documentation})" for each in peers]),
    ]
    return "\n\n".join(parts)


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _heading(workload: Workload) -> str:
    better = "less" if workload.smaller_is_better else "more"
    return f"### {workload.name}: {workload.title} ({workload.unit}, {better} is better)"


def _table(figures: Mapping[str, Summary]) -> str:
    ours = [name for name in figures if _is_ours(name)]
    rows = [["", "median", "min", "max", *(f"times as good: {each}" for each in ours), "beside it"]]
    for name, summary in figures.items():
        row = [name, *map(_number, (summary.median, summary.lowest, summary.highest))]
        row += [str(summary.ratios[each]) if each in summary.ratios else "" for each in ours]
        row.append(", ".join(f"{key} {_number(each)}" for key, each in summary.others.items()))
        rows.append(row)
    if not any(row[-1] for row in rows[1:]):
        rows = [row[:-1] for row in rows]
    return _aligned(rows)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        first, *rest = row
        cells = [first.ljust(widths[0])]
        cells += [each.rjust(width) for each, width in zip(rest, widths[1:], strict=True)]
        lines.append(f"| {' | '.join(cells)} |")
    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    lines.insert(1, f"| {' | '.join(rule)} |")
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def as_json(
    results: Results, contestants: Sequence[Contestant], *, medians_only: bool
) -> dict[str, Any]:
    """``{"W1": {"ours_ws": 231.0, …}, …}``, and all that is known beside it unless it is
    ``medians_only``."""
    found: dict[str, Any] = {
        name: {contestant: round(each.median, 1) for contestant, each in figures.items()}
        for name, figures in summarised(results).items()
    }
    if medians_only:
        return found
    peers = dict.fromkeys(each.peer for each in contestants)
    return {
        **found,
        "units": {name: WORKLOADS[name].unit for name in found},
        "machine": machine(),
        "versions": {each.name: versions_of(each.environment) for each in peers},
        "settings": {each.name: each.settings for each in peers},
        "rounds": results.rounds,
        "failures": [
            {"contestant": contestant, "workload": workload, "reason": reason}
            for (contestant, workload), reason in results.failures.items()
        ],
    }


def machine() -> dict[str, Any]:
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def plot(results: Results, path: str) -> None:
    """A picture for each workload: the medians, with the spread as a line through their ends."""
    from matplotlib.figure import Figure

    summaries = summarised(results)
    names = dict.fromkeys(name for figures in summaries.values() for name in figures)
    colours = {name: f"C{number % 10}" for number, name in enumerate(names)}
    columns = min(3, max(1, len(summaries)))
    rows = max(1, -(-len(summaries) // columns))
    figure = Figure(figsize=(5.2 * columns, 0.9 + (0.6 + 0.28 * len(names)) * rows))
    for place, (name, figures) in enumerate(summaries.items(), start=1):
        workload = WORKLOADS[name]
        axes = figure.add_subplot(rows, columns, place)
        order = list(reversed(figures))
        middle = [figures[each].median for each in order]
        spread = [
            [figures[each].median - figures[each].lowest for each in order],
            [figures[each].highest - figures[each].median for each in order],
        ]
        axes.barh(order, middle, xerr=spread, color=[colours[each] for each in order])
        better = "less" if workload.smaller_is_better else "more"
        axes.set_title(f"{name}: {workload.unit}, {better} is better", fontsize=9)
        axes.tick_params(labelsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
