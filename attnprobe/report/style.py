"""One look for every figure: colours that the colour-blind can tell apart, no overlaps, PNG and PDF."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnprobe.files import write_atomically
from attnprobe.files.outputs import FIGURE_METADATA, check_replaceable, figure_files

PANEL = (2.1, 1.7)  # inches
DIVERGING = "vlag"  # blue to red through white, for values around zero
BAND_ALPHA = 0.25
DPI = 200


@contextlib.contextmanager
def figure_style() -> Iterator[None]:
    """Everything is drawn and saved inside this context; nothing outside it changes."""
    look: dict[Any, Any] = seaborn.axes_style("ticks") | seaborn.plotting_context("paper")
    look |= {
        "figure.constrained_layout.use": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": "medium",
        "legend.frameon": False,
        "pdf.fonttype": 42,  # text stays text
        "savefig.facecolor": "white",
    }
    with matplotlib.rc_context(look):
        yield


def checkpoint_colors(names: list[str]) -> dict[str, tuple[float, float, float]]:
    """A colour for every checkpoint, the same in every figure with the same checkpoints."""
    return dict(zip(names, seaborn.color_palette("colorblind", len(names)), strict=True))


def panel_grid(
    rows: int, columns: int, *, panel: tuple[float, float] = PANEL, share: bool = True
) -> tuple[Figure, list[list[Axes]]]:
    """A figure with rows x columns panels and room for labels around them."""
    figure = Figure(figsize=(panel[0] * columns + 0.6, panel[1] * rows + 0.8))
    axes = figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share)
    return figure, axes.tolist()


def legend_above(figure: Figure, axes: Axes, *, title: str | None = None) -> None:
    """One legend for all panels, above them, in as many columns as fit."""
    handles, labels = axes.get_legend_handles_labels()
    characters = max(12, int(figure.get_figwidth() * 11))
    columns, longest = 1, max(map(len, labels)) + 6
    while columns < len(labels) and (columns + 1) * longest <= characters:
        columns += 1
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, title=title)


def save_figure(figure: Figure, name: Path) -> list[Path]:
    """Write the files that ``outputs.figure_files`` names; the same figure gives the same bytes at any time.

    ConfigError if there is a file already that is no figure of ours.
    """
    paths = figure_files(name)
    for path in paths:
        check_replaceable(path, "figure")
    for path in paths:
        ending = path.suffix.lower()
        keywords = {"dpi": DPI, "format": ending.removeprefix("."), "metadata": FIGURE_METADATA[ending]}
        write_atomically(path, lambda file, keywords=keywords: figure.savefig(file, **keywords))
    return paths
