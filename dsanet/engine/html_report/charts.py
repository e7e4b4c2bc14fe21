"""Line charts as SVG text for the inside of a page, in its text colour."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# One for each run, in their order; chosen to be readable on white and on black.
COLOURS = ("#3b82c4", "#d1603d", "#2f9e75", "#b060b8", "#a98600", "#6f7b8a")
Limits = tuple[float, float | None] | None  # of an axis; None: those of the data
TEXT = "#010203"  # stands for the page's text colour until the SVG is finished


@dataclass(frozen=True)
class Line:
    """A line of a chart: x and y of its points."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str
    marker: bool = False
    dashed: bool = False


def line_chart(title: str, x_label: str, lines: Sequence[Line], *, y_limits: Limits) -> str:
    """Draw lines over a common x axis; returns SVG text, "" where no line has points.

    y_limits: of the y axis, None for those of the data.
    """
    lines = [line for line in lines if len(line.x)]
    if not lines:
        return ""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    style: dict[Any, Any] = dict.fromkeys(names, TEXT)
    fixed: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": title,
        "font.family": "sans-serif",
    }
    with plt.rc_context({**style, **fixed, "font.size": 9}):
        figure, axes = plt.subplots(figsize=(5.4, 2.9), constrained_layout=True)
        for line in lines:
            dash, marker = "--" if line.dashed else "-", "o" if line.marker else None
            axes.plot(
                line.x, line.y, dash, label=line.label, color=line.colour, marker=marker,
                markersize=3, linewidth=1.5,
            )  # fmt: skip
        _decorate(axes, title, x_label, y_limits, legend=len(lines) > 1)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        plt.close(figure)
    return _inline(file.getvalue(), title)


def _decorate(
    axes: Any,
    title: str,
    x_label: str,
    y_limits: tuple[float, float | None] | None,
    *,
    legend: bool,
) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x_label)
    axes.xaxis.get_major_locator().set_params(integer=True)
    if y_limits:
        axes.set_ylim(*y_limits)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2, color=TEXT)
    if legend:
        axes.legend(frameon=False, fontsize=8)


def _inline(svg: str, title: str) -> str:
    """The <svg> element alone, scalable, with unique ids and a text alternative."""
    svg = svg[svg.index("<svg") :].replace(TEXT, "currentColor")
    prefix = re.sub(r"\W+", "-", title.lower())
    used = set(re.findall(r"(?:#|url\(#)([\w-]+)", svg))

    def rename(match: re.Match[str]) -> str:
        before, name, after = match.groups()
        if name in used:
            return f"{before}{prefix}-{name}{after}"
        return match[0] if before == "#" else ""

    svg = re.sub(r'( id=")([\w.-]+)(")', rename, svg)
    svg = re.sub(r'(#)([\w-]+)([")])', rename, svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
