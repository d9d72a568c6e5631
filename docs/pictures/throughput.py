"""How fast trio_streamrpc is beside its peers: what the table in performance.md says, as bars.

Nothing is measured here. The benchmarks write that table's figures (``python -m benchmarks``).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from docs.pictures.style import Theme, digest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Figures", "digest_of", "draw", "figures"]

DOCUMENT: Final = Path(__file__).parent.parent / "performance.md"

#: By workload, and by what was measured.
Figures = dict[str, dict[str, float]]

#: The workloads that are drawn, and what they say.
DRAWN: Final = {
    "W1 µs": "one call, µs (less is better)",
    "W2 calls/s": "calls/s, 64 at once (more is better)",
    "W3 items/s": "items/s of a stream (more is better)",
    "W8 items/s": "items/s of an upload (more is better)",
}


def figures() -> Figures:
    """Of the first table, without the floors."""
    lines = iter(DOCUMENT.read_text(encoding="utf-8").splitlines())
    head = next(cells for cells in map(_cells, lines) if cells[1:2] == ["W1 µs"])
    next(lines)
    found: Figures = {name: {} for name in DRAWN}
    for cells in map(_cells, lines):
        if not cells:
            return found
        name = cells[0].strip("*")
        for workload, value in zip(head, cells, strict=True):
            if workload in DRAWN and not name.startswith("floor"):
                found[workload][name] = float(value.replace(",", ""))
    return found


def _cells(line: str) -> list[str]:
    """The cells of a table's line; none of any other."""
    return [each.strip() for each in line.strip("|").split("|")] if line.startswith("|") else []


def digest_of(found: Figures) -> str:
    """The same for the same figures."""
    return digest(found)


def draw(found: Figures, theme: Theme) -> Figure:
    """A picture for each workload, ours in colour."""
    figure = theme.figure(7.4, 5.2)
    places = figure.subplots(2, 2, sharey=True, gridspec_kw={"hspace": 0.32, "wspace": 0.08})
    for axes, (workload, title) in zip(places.flat, DRAWN.items(), strict=True):
        order = [*reversed(found[workload].items())]
        bars = axes.barh(
            [_short(name) for name, _ in order],
            [value for _, value in order],
            color=[theme.accent if _is_ours(name) else theme.faint for name, _ in order],
        )
        axes.bar_label(bars, labels=[f"{value:,.0f}" for _, value in order], padding=3)
        axes.margins(x=0.18)
        axes.set_title(title, loc="left", color=theme.text, fontsize=8.5)
        axes.set_xticks([])
        theme.finish(axes)
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(left=False)
    return figure


def _is_ours(name: str) -> bool:
    return name.startswith("trio_streamrpc")


def _short(name: str) -> str:
    """As it fits beside a bar."""
    name = re.sub(r" \+ json by hand, asyncio with (\w+)", r" by hand, \1", name)
    return name.replace(" + json by hand", " by hand").replace(", WebSocket", "")
