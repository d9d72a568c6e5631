"""What the figures say: medians, spread and ratios, as tables, as JSON and as a plot."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.environments import commit, versions_of
from benchmarks.registry import Contestant
from benchmarks.runner import Results, number_of
from benchmarks.workloads import WORKLOADS, Workload

__all__ = ["Ratio", "Summary", "as_json", "as_text", "plot", "summarised"]

#: What the names of those begin with that the others are compared with.
OURS = "ours"

#: One round of one workload: the figures by contestant.
Round = Mapping[str, Mapping[str, float]]


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


def summarised(workload: Workload, rounds: Sequence[Round]) -> dict[str, Summary]:
    """What the rounds say of each contestant that measured the workload."""
    contestants = dict.fromkeys(name for figures in rounds for name in figures)
    return {name: _summary(workload, rounds, name) for name in contestants}


def _summary(workload: Workload, rounds: Sequence[Round], contestant: str) -> Summary:
    own = [each[contestant] for each in rounds if contestant in each]
    values = [figures["value"] for figures in own]
    others = dict.fromkeys(key for figures in own for key in figures if key != "value")
    ratios: dict[str, list[float]] = {}
    for each in rounds:
        if contestant in each:
            for name in filter(_is_ours, each):
                if name != contestant:
                    pair = each[name]["value"], each[contestant]["value"]
                    ratios.setdefault(name, []).append(_times_as_good(workload, *pair))
    return Summary(
        median(values),
        min(values),
        max(values),
        {key: median(each[key] for each in own if key in each) for key in others},
        {name: Ratio(tuple(each)) for name, each in ratios.items()},
    )


def _times_as_good(workload: Workload, mine: float, other: float) -> float:
    better, worse = (other, mine) if workload.smaller_is_better else (mine, other)
    return better / worse if worse else float("inf")


def _is_ours(contestant: str) -> bool:
    """Ours in what is compared; not in a row that stands there for comparison alone."""
    return contestant.startswith(OURS) and "(" not in contestant


def _rounds(results: Results, workload: Workload) -> list[Round]:
    return [each.get(workload.name, {}) for each in results.rounds]


def _with_others(results: Results, workload: Workload) -> list[Round]:
    """The rounds of a workload, with the figures of the one that it is compared with."""
    own = _rounds(results, workload)
    if workload.beside is None:
        return own
    beside = _rounds(results, WORKLOADS[workload.beside])
    return [
        {**mine, **{f"{name} ({workload.beside})": figures for name, figures in theirs.items()}}
        for mine, theirs in zip(own, beside, strict=True)
    ]


def as_text(
    results: Results, workloads: Sequence[Workload], contestants: Sequence[Contestant]
) -> str:
    """Markdown: a table for each workload, what failed, and what was set."""
    parts = []
    for workload in workloads:
        if any(_rounds(results, workload)):
            figures = summarised(workload, _with_others(results, workload))
            parts += [_heading(workload), _table(figures)]
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
    better = _better(workload)
    return f"### {workload.name}: {workload.title} ({workload.unit}, {better} is better)"


def _better(workload: Workload) -> str:
    return "less" if workload.smaller_is_better else "more"


def _table(figures: Mapping[str, Summary]) -> str:
    ours = [name for name in figures if _is_ours(name)]
    rows = [["", "median", "min", "max", *(f"times as good: {each}" for each in ours), "beside it"]]
    for name, summary in figures.items():
        row = [name, *map(number_of, (summary.median, summary.lowest, summary.highest))]
        row += [str(summary.ratios[each]) if each in summary.ratios else "" for each in ours]
        row.append(", ".join(f"{key} {number_of(each)}" for key, each in summary.others.items()))
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


def as_json(
    results: Results,
    workloads: Sequence[Workload],
    contestants: Sequence[Contestant],
    *,
    medians_only: bool,
) -> dict[str, Any]:
    """``{"W1": {"ours_ws": 231.0, …}, …}``, and all that is known beside it unless it is
    ``medians_only``."""
    found: dict[str, Any] = {}
    for workload in workloads:
        figures = summarised(workload, _rounds(results, workload))
        found[workload.name] = {
            # Milliseconds have digits behind the point.
            name: round(each.median, 1 if each.median >= 100 else 4)
            for name, each in figures.items()
        }
    if medians_only:
        return found
    peers = dict.fromkeys(each.peer for each in contestants)
    return {
        **found,
        "units": {workload.name: workload.unit for workload in workloads},
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
        "load": load(),
        "python": platform.python_version(),
        "commit": commit(),
    }


def load() -> float | None:
    """How many processes have wanted to run in the last minute, where that is known."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def plot(results: Results, workloads: Sequence[Workload], path: str) -> None:
    """A picture for each workload: the medians as bars, the spread as a line at their ends.

    What is measured of ours alone is not drawn, unless nothing else is.
    """
    from matplotlib.figure import Figure

    drawn = [workload for workload in workloads if any(_rounds(results, workload))]
    compared = [workload for workload in drawn if workload.beside is None]
    drawn = compared or drawn
    summaries = [
        without_far_floors(summarised(workload, _rounds(results, workload))) for workload in drawn
    ]
    names = dict.fromkeys(name for figures in summaries for name in figures)
    columns = min(3, max(1, len(drawn)))
    rows = max(1, -(-len(drawn) // columns))
    figure = Figure(figsize=(5.2 * columns, (0.9 + 0.25 * len(names)) * rows))
    for place, (workload, figures) in enumerate(zip(drawn, summaries, strict=True), start=1):
        axes = figure.add_subplot(rows, columns, place)
        order = [*reversed(figures.items())]
        axes.barh(
            [name for name, _ in order],
            [each.median for _, each in order],
            xerr=[
                [each.median - each.lowest for _, each in order],
                [each.highest - each.median for _, each in order],
            ],
            color=[colour_of(name) for name, _ in order],
        )
        axes.set_title(_title(workload), fontsize=9)
        axes.tick_params(labelsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def without_far_floors(figures: dict[str, Summary]) -> dict[str, Summary]:
    """A floor that is many times as high as all others would leave nothing to see of them."""
    highest = max(
        (each.median for name, each in figures.items() if not name.startswith("floor_")),
        default=math.inf,
    )
    return {
        name: each
        for name, each in figures.items()
        if not name.startswith("floor_") or each.median <= 4 * highest
    }


def colour_of(name: str) -> str:
    if name.startswith("ours_"):
        return "tab:blue"
    return "lightgray" if name.startswith("floor_") else "tab:gray"


def _title(workload: Workload) -> str:
    return f"{workload.name}: {workload.unit}, {_better(workload)} is better"
