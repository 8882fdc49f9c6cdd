"""Figures of what the probes of scores measured; several checkpoints share one figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator

from attnprobe.errors import NotApplicableError
from attnprobe.files.outputs import further_figure
from attnprobe.probes.proximity.probe import Proximity
from attnprobe.probes.rows import Measurement
from attnprobe.report.style import (
    BAND_ALPHA,
    DIVERGING,
    PANEL,
    checkpoint_colors,
    figure_style,
    legend_above,
    panel_grid,
    save_figure,
)

WIDE = 5.0  # inches: panels from here on stand one below the other
# Where a quantity of no effect would stand.
REFERENCES = {"proximity_bias": 0.0, "near_mass": 1.0}


def draw_proximity(results: Mapping[str, Proximity], name: Path) -> list[Path]:
    """Profiles, and on a pixel grid maps, named by ``outputs.further_figure``."""
    figures = draw_offset_profiles(results, name)
    if all(result.map is not None for result in results.values()):
        figures += draw_proximity_maps(results, further_figure(name, "maps"))
    return figures


def draw_offset_profiles(results: Mapping[str, Proximity], stem: Path) -> list[Path]:
    """Mean centred score by offset (on a grid: by distance), one panel per layer and head, checkpoints overlaid.

    In standard deviations of the head's scores, so that checkpoints compare; bands are intervals over sequences, and
    the shaded strip is the radius that counts as near. Offsets are shown up to 8 radii, 12 at least.
    """
    first = _same_shape(results)
    (axis, values), *_ = first.profile.axes.items()
    window = max(8 * first.radius, 12.0)
    shown = (np.abs(values) <= window) & (values <= (0 if first.layout.causal and axis == "offset" else np.inf))
    near = np.clip((-first.radius, first.radius), values[shown][0], values[shown][-1])
    layers, heads = first.sd.shape
    colors = checkpoint_colors(list(results))
    with figure_style():
        figure, panels = panel_grid(layers, heads)
        for layer, head in np.ndindex(layers, heads):
            panel = panels[layer][head]
            panel.set_title(f"layer {layer}, head {head}")
            panel.axhline(0, color="0.7", linewidth=0.8, zorder=0)
            panel.axvspan(*near, color="0.93", linewidth=0, zorder=-1)
            for name, result in results.items():
                band, scale = result.profile.score, _positive(result.sd[layer, head])
                estimate, low, high = (a[layer, head, shown] / scale for a in (band.estimate, band.low, band.high))
                panel.plot(values[shown], estimate, color=colors[name], label=name, linewidth=1.2)
                panel.fill_between(values[shown], low, high, color=colors[name], alpha=BAND_ALPHA, linewidth=0)
        unit = "offset: key - query (positions)" if axis == "offset" else "distance (pixels)"
        figure.supxlabel(unit, fontsize="medium")
        figure.supylabel("centred score (sd of scores)", fontsize="medium")
        legend_above(figure, panels[0][0])
        return save_figure(figure, stem)


def draw_proximity_maps(results: Mapping[str, Proximity], stem: Path) -> list[Path]:
    """Mean centred score by (row offset, column offset) on a pixel grid: a row per checkpoint, a column per head.

    In standard deviations of the head's scores, one colour scale for all panels; the circle is the radius.
    """
    first = _same_shape(results)
    if first.map is None:
        raise NotApplicableError("a proximity map needs positions on a pixel grid", hint="draw offset profiles instead")
    y, x = first.map.axes.values()
    extent = (x[0] - 0.5, x[-1] + 0.5, y[-1] + 0.5, y[0] - 0.5)
    heads = list(np.ndindex(*first.sd.shape))
    maps = {name: _standardised_map(result) for name, result in results.items()}
    # Corner offsets rest on a handful of pairs: the scale follows the offsets that at least a quarter of queries have.
    common = np.outer(np.abs(y) <= len(y) // 4, np.abs(x) <= len(x) // 4)
    limit = max(float(np.nanmax(np.abs(values[..., common]), initial=1e-9)) for values in maps.values())
    aspect = len(y) / len(x)
    with figure_style():
        figure, panels = panel_grid(len(results), len(heads), panel=(1.5, 0.1 + 1.1 * aspect))
        image = None
        for row, (name, values) in enumerate(maps.items()):
            for column, (layer, head) in enumerate(heads):
                panel = panels[row][column]
                panel.set_facecolor("0.85")  # where there are no pairs
                image = panel.imshow(
                    values[layer, head], extent=extent, cmap=DIVERGING, vmin=-limit, vmax=limit, interpolation="nearest"
                )
                panel.xaxis.set_major_locator(MaxNLocator(3, integer=True))
                panel.yaxis.set_major_locator(MaxNLocator(3, integer=True))
                panel.add_patch(Circle((0, 0), first.radius, fill=False, edgecolor="black", linewidth=0.6))
                if row == 0:
                    panel.set_title(f"layer {layer}\nhead {head}")
            panels[row][0].set_ylabel(name.replace("/", "/\n"))
        assert image is not None
        figure.supxlabel("key - query, columns (pixels)", fontsize="medium")
        figure.supylabel("key - query, rows (pixels)", fontsize="medium")
        everything = [panel for row in panels for panel in row]
        figure.colorbar(image, ax=everything, label="mean centred score\n(sd of scores)", extend="both", aspect=30)
        return save_figure(figure, stem)


def draw_quantities(rows: Mapping[str, Sequence[Measurement]], stem: Path) -> list[Path]:
    """Every quantity of every head with its interval, one panel per quantity, checkpoints side by side."""
    names = list(rows)
    every = [row for part in rows.values() for row in part]
    quantities = list(dict.fromkeys(row.quantity for row in every))
    places = list(dict.fromkeys((row.layer, row.head) for row in every))
    width = max(PANEL[0] * 1.4, 0.09 * len(places) * (len(names) + 1))
    columns = 1 if width > WIDE else 3 if len(quantities) == 3 else min(2, len(quantities))  # no panel is left empty
    colors = checkpoint_colors(names)
    with figure_style():
        panel = (width, PANEL[1] * 1.1)
        figure, panels = panel_grid(-(-len(quantities) // columns), columns, panel=panel, share=False)
        cells = [cell for row in panels for cell in row]
        for cell, quantity in zip(cells, quantities, strict=False):
            if quantity in REFERENCES:
                cell.axhline(REFERENCES[quantity], color="0.7", linewidth=0.8, zorder=0)
            for i, name in enumerate(names):
                mine = [row for row in rows[name] if row.quantity == quantity]
                shift = 0.6 * ((i + 0.5) / len(names) - 0.5)
                _draw_intervals(cell, mine, places, shift, colors[name], name)
            cell.set_title(quantity.replace("_", " "))
            if quantity.endswith("_share"):  # parts of one whole are compared on one scale
                cell.set_ylim(min(0.0, *(row.interval.low for row in every)) - 0.05, 1.05)
            cell.set_ylabel(next(row.interval.unit for row in every if row.quantity == quantity))
            cell.set_xticks(range(len(places)), [_place(*place) for place in places])
            if len(places) > 8:
                cell.tick_params(axis="x", labelrotation=90)
        for cell in cells[len(quantities) :]:
            cell.remove()
        legend_above(figure, cells[0])
        return save_figure(figure, stem)


def _draw_intervals(
    panel: Axes,
    rows: Sequence[Measurement],
    places: Sequence[tuple[int | None, int | None]],
    shift: float,
    color: tuple[float, float, float],
    name: str,
) -> None:
    x = [places.index((row.layer, row.head)) + shift for row in rows]
    estimate, low, high = (
        np.array([getattr(row.interval, part) for row in rows]) for part in ("estimate", "low", "high")
    )
    # Unknown bounds (NaN) leave the bare point.
    error = np.nan_to_num(np.maximum([estimate - low, high - estimate], 0.0))
    # A thin dash hides no interval, however short.
    panel.errorbar(
        x, estimate, yerr=error, fmt="_", markersize=7, markeredgewidth=0.8, linewidth=1.8, color=color, label=name
    )


def _place(layer: int | None, head: int | None) -> str:
    return "model" if layer is None else f"L{layer}" if head is None else f"L{layer}H{head}"


def _standardised_map(result: Proximity) -> np.ndarray:
    assert result.map is not None
    return result.map.score.estimate / _positive(result.sd)[..., None, None]


def _positive(sd: np.ndarray) -> np.ndarray:
    return np.where(sd > 0, sd, np.nan)


def _same_shape(results: Mapping[str, Proximity]) -> Proximity:
    """The first result; all must have the same heads and positions."""
    first = next(iter(results.values()))
    for name, result in results.items():
        if result.sd.shape != first.sd.shape or result.layout.shape != first.layout.shape:
            raise NotApplicableError(f"{name} has other heads or positions than the rest", hint="draw it on its own")
    return first
