"""What the pictures have in common: a light and a dark theme, and how one is written.

The site shows the one that goes with its own theme. matplotlib is needed to draw, and not to make
what is drawn.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PLACE", "THEMES", "Theme", "digest", "digest_in", "write"]

PLACE: Final = Path(__file__).parent


@dataclass(frozen=True)
class Theme:
    name: str
    ground: str
    text: str
    faint: str
    accent: str
    second: str
    third: str

    def figure(self, width: float, height: float) -> Figure:
        """An empty figure, of so many inches."""
        from matplotlib.figure import Figure

        return Figure(figsize=(width, height), facecolor=self.ground)

    def finish(self, *all_axes: Axes) -> None:
        """Give axes the colours of the theme, and take away what says nothing."""
        for axes in all_axes:
            axes.set_facecolor(self.ground)
            axes.tick_params(colors=self.text, labelsize=8)
            for side, spine in axes.spines.items():
                spine.set_visible(side in ("left", "bottom"))
                spine.set_color(self.faint)
            for text in (axes.xaxis.label, axes.yaxis.label):
                text.set_color(self.text)
                text.set_fontsize(9)
            legend = axes.get_legend()
            for text in [*axes.texts, *(legend.get_texts() if legend is not None else ())]:
                text.set_color(self.text)
                text.set_fontsize(8)


#: The grounds are those of the site's own themes.
THEMES: Final = (
    Theme("light", "#ffffff", "#333333", "#b5b5b5", "#0969da", "#1a7f37", "#bc4c00"),
    Theme("dark", "#131416", "#d0d0d0", "#5c6066", "#58a6ff", "#3fb950", "#f0883e"),
)


def digest(data: Any) -> str:
    """The same for the same data, whatever draws it."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def digest_in(picture: Path) -> str:
    """Of the data that a picture was made from."""
    [found] = re.findall(r"made from data ([0-9a-f]{16})", picture.read_text(encoding="utf-8"))
    return str(found)


def write(figure: Figure, name: str, theme: Theme, data: str) -> None:
    """Write it beside this file; nothing in it differs from one day to the next."""
    import matplotlib as mpl

    written = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "trio_streamrpc"}):
        figure.savefig(
            written,
            format="svg",
            bbox_inches="tight",
            pad_inches=0.05,
            metadata={"Date": None, "Description": f"made from data {data}"},
        )
    # matplotlib leaves blanks at the ends of lines.
    lines = (line.rstrip() for line in written.getvalue().splitlines())
    (PLACE / f"{name}-{theme.name}.svg").write_text("\n".join(lines) + "\n", encoding="utf-8")
