"""Plots as PNG bytes; equal numbers give equal bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import matplotlib as mpl
from matplotlib.figure import Figure

mpl.use("Agg")
_COLOURS = ("#3b6ea8", "#d1793b", "#5a8f4e", "#8c5aa8")


def curve(series: Mapping[str, Sequence[tuple[int, float]]], *, x: str, y: str) -> bytes:
    """A line a series over steps; empty series are left out."""
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    for colour, (name, points) in zip(_COLOURS, series.items(), strict=False):
        if points:
            axes.plot(*zip(*points, strict=True), label=name, color=colour)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.legend(frameon=False)
    return _png(figure)


def bars(labels: Sequence[str], series: Mapping[str, Sequence[float]], *, x: str) -> bytes:
    """Horizontal bars, one of each series a label; the first label is on top."""
    figure = Figure(figsize=(6.4, 1.0 + 0.35 * len(labels) * len(series)), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / max(1, len(series))
    for number, (colour, (name, values)) in enumerate(zip(_COLOURS, series.items(), strict=False)):
        places = [place + number * height for place in range(len(labels))]
        drawn = axes.barh(places, values, height=height, label=name, color=colour)
        axes.bar_label(drawn, fmt="%.3g", padding=3, fontsize=8)
    axes.set_yticks([p + 0.4 - height / 2 for p in range(len(labels))], labels)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel(x)
    if len(series) > 1:
        axes.legend(frameon=False)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    figure.axes[0].spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()
