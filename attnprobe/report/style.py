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


def legend_above(figure: Figure, axes: Axes) -> None:
    """One legend for all panels, above them, in as many columns as fit."""
    handles, labels = axes.get_legend_handles_labels()
    characters = max(12, int(figure.get_figwidth() * 11))
    columns, longest = 1, max(map(len, labels)) + 6
    while columns < len(labels) and (columns + 1) * longest <= characters:
        columns += 1
    figure.legend(handles, labels, loc="outside upper center", ncols=columns)


def save_figure(figure: Figure, stem: Path) -> list[Path]:
    """Write stem.png and stem.pdf; the same figure gives the same bytes at any time."""
    name = stem.name.removesuffix(".png").removesuffix(".pdf")
    paths = [stem.parent / f"{name}.{kind}" for kind in ("png", "pdf")]
    write_atomically(paths[0], lambda file: figure.savefig(file, dpi=DPI, format="png"))
    write_atomically(paths[1], lambda file: figure.savefig(file, metadata={"CreationDate": None}, format="pdf"))
    return paths
