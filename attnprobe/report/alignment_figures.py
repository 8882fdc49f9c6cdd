"""Figures of the alignment probe: t along directions, t at every offset, cosines of the two losses' gradients."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from attnprobe.files.outputs import further_figure
from attnprobe.probes.alignment.probe import Alignment
from attnprobe.report.style import DIVERGING, figure_style, legend_above, panel_grid, save_figure
from attnprobe.statistics.intervals import Interval

LOSSES = ("label", "reconstruction")
PART = "label, minus what\nshuffled labels do"
NULL = "reconstruction, orders or phases at random"
LINEAR = 3.0  # t up to here is drawn to scale, beyond logarithmically: one head may exceed another twentyfold
NEIGHBOURS = ("offset -1", "offset 1", "offset (0, 1)", "offset (1, 0)", "offset (1, 1)", "offset (1, -1)")

Cell = tuple[int | None, int | None]


def draw_alignments(results: Mapping[str, Alignment], name: Path) -> list[Path]:
    """All figures of several checkpoints; those after the first bear the checkpoint's label."""
    names = [name, *(further_figure(name, label) for label in list(results)[1:])]
    return [path for own, one in zip(names, results.values(), strict=True) for path in draw_alignment(one, own)]


def draw_alignment(result: Alignment, stem: Path) -> list[Path]:
    """All figures of one result: directions, offsets and cosines, named by ``outputs.further_figure``."""
    return [
        *draw_directions(result, stem),
        *draw_offsets(result, further_figure(stem, "offsets")),
        *draw_cosines(result, further_figure(stem, "cosines")),
    ]


def draw_directions(result: Alignment, stem: Path) -> list[Path]:
    """t of both losses along every direction but single offsets (only nearest neighbours), a panel per head.

    The grey bar is the band of the label's t under shuffled labels: a label point on its bar says nothing of labels.
    The thin bar, where there is one, is that of reconstruction's t under random orders or phases.
    """
    wanted = ("label.t", "label.t.null", "reconstruction.t", "reconstruction.t.null")
    values = {(r.quantity, r.layer, r.head, r.direction): r.interval for r in result.rows if r.quantity in wanted}
    names = list(dict.fromkeys(name for *_, name in values if name is not None))
    names = [name for name in names if not name.startswith("offset") or name in NEIGHBOURS]
    layers, heads = next(iter(result.profiles.values())).shape[:2]
    with figure_style():
        figure, panels = panel_grid(layers, heads, panel=(1.9, 0.4 + 0.17 * len(names)))
        for layer, head in np.ndindex(layers, heads):
            panel = panels[layer][head]
            here = ((q, name, values.get((q, layer, head, name))) for q in wanted for name in names)
            mine = {(q, name): value for q, name, value in here if value is not None}
            _draw_directions(panel, mine, names)
            panel.set_title(f"layer {layer}, head {head}")
        panels[0][0].set_yticks(range(len(names)), names)
        panels[0][0].invert_yaxis()  # shared by all panels
        figure.supxlabel("t of the score gradient along the direction (mean / standard error)", fontsize="medium")
        legend_above(figure, panels[0][0])
        return save_figure(figure, stem)


def _draw_directions(panel: Axes, values: dict[tuple[str, str], Interval], names: list[str]) -> None:
    colors = _colors()
    y = np.arange(len(names))
    null = [values["label.t.null", name] for name in names]
    panel.axvline(0, color="0.7", linewidth=0.8, zorder=0)
    width = [i.high - i.low for i in null]
    panel.barh(y, width, left=[i.low for i in null], height=0.7, color="0.8", linewidth=0, label="shuffled labels")
    for loss, marker in zip(LOSSES, ("o", "D"), strict=True):
        t = [values[f"{loss}.t", name] for name in names]
        estimate, low, high = (np.array([getattr(i, part) for i in t]) for part in ("estimate", "low", "high"))
        error = np.nan_to_num(np.maximum([estimate - low, high - estimate], 0.0))
        panel.errorbar(
            estimate, y, xerr=error, fmt=marker, markersize=2.8, linewidth=0.9, color=colors[loss], label=loss
        )
    drawn = {i: values.get(("reconstruction.t.null", name)) for i, name in enumerate(names)}
    bands = {i: band for i, band in drawn.items() if band is not None}
    if bands:
        left, size = [b.low for b in bands.values()], [b.high - b.low for b in bands.values()]
        look = {"color": (*colors["reconstruction"], 0.35), "linewidth": 0, "zorder": 1.5, "label": NULL}
        panel.barh(list(bands), size, left=left, height=0.25, **look)
    panel.set_xscale("symlog", linthresh=LINEAR, linscale=0.6)
    panel.set_xlim(-200, 200)
    panel.set_xticks([-100, -10, 0, 10, 100], ["-100", "-10", "0", "10", "100"])
    panel.set_xticks([], minor=True)
    panel.grid(axis="y", color="0.93", linewidth=0.6)
    panel.set_axisbelow(True)


def draw_offsets(result: Alignment, stem: Path) -> list[Path]:
    """t of the score gradient at every offset, and of the label's part at the offsets that were named directions.

    Lines on a sequence, maps on a pixel grid.
    """
    profiles = result.profiles | {PART: _label_part(result)}
    with figure_style():
        draw = _offset_lines if len(result.space.layout.shape) == 1 else _offset_maps
        return save_figure(draw(profiles, list(result.space.offset_axes().values())), stem)


def _label_part(result: Alignment) -> np.ndarray:
    """label.dependent.t of the named offsets, (layer, head, *offsets); NaN elsewhere."""
    axes = list(result.space.offset_axes().values())
    profile = np.full(next(iter(result.profiles.values())).shape, np.nan)
    for row in result.select("label.dependent.t"):
        if row.direction is not None and row.direction.startswith("offset "):
            offset = row.direction.removeprefix("offset ").strip("()").split(",")
            at = tuple(int(part) - axis[0] for part, axis in zip(offset, axes, strict=True))
            profile[(row.layer, row.head, *at)] = row.interval.estimate
    return profile


def _offset_lines(profiles: dict[str, np.ndarray], axes: list[np.ndarray]) -> Figure:
    layers, heads = profiles[LOSSES[0]].shape[:2]
    figure, panels = panel_grid(layers, heads)
    colors = _colors()
    for layer, head in np.ndindex(layers, heads):
        panel = panels[layer][head]
        panel.axhline(0, color="0.7", linewidth=0.8, zorder=0)
        for name, t in profiles.items():
            panel.plot(axes[0], t[layer, head], color=colors[name], linewidth=1, label=name)
        panel.set_title(f"layer {layer}, head {head}")
    figure.supxlabel("offset (key - query, positions)", fontsize="medium")
    figure.supylabel("t of the score gradient", fontsize="medium")
    legend_above(figure, panels[0][0])
    return figure


def _offset_maps(profiles: dict[str, np.ndarray], axes: list[np.ndarray]) -> Figure:
    """A row of maps per profile, cropped to where it is known, which the row then says; one colour scale for all."""
    y, x = axes
    cells = list(np.ndindex(profiles[LOSSES[0]].shape[:2]))
    finite = np.abs(np.concatenate([p[np.isfinite(p)] for p in profiles.values()] + [np.ones(1)]))
    limit = float(np.quantile(finite, 0.99))
    known = {name: p for name, p in profiles.items() if np.isfinite(p).any()}
    figure, panels = panel_grid(len(known), len(cells), panel=(1.45, 0.25 + 1.1 * len(y) / len(x)), share=False)
    image = None
    for row, (name, profile) in zip(panels, known.items(), strict=True):
        seen = np.any(np.isfinite(profile), axis=(0, 1))
        ys, xs = (np.flatnonzero(np.any(seen, axis=axis)) for axis in (1, 0))
        crop = slice(ys[0], ys[-1] + 1), slice(xs[0], xs[-1] + 1)
        extent = (x[crop[1]][0] - 0.5, x[crop[1]][-1] + 0.5, y[crop[0]][-1] + 0.5, y[crop[0]][0] - 0.5)
        cropped = profile[..., *crop]
        for panel, (layer, head) in zip(row, cells, strict=True):
            image = panel.imshow(cropped[layer, head], extent=extent, cmap=DIVERGING, vmin=-limit, vmax=limit)
            if row is panels[0]:
                panel.set_title(f"layer {layer}\nhead {head}")
            for axis in (panel.xaxis, panel.yaxis):
                axis.set_major_locator(MaxNLocator(nbins=4, integer=True))
            if panel is not row[0]:
                panel.tick_params(labelleft=False)
        reach = max(abs(edge) for edge in (y[ys[0]], y[ys[-1]], x[xs[0]], x[xs[-1]]))
        row[0].set_ylabel(name if cropped.shape == profile.shape else f"{name}\n(offsets up to {reach})")
    assert image is not None
    figure.supxlabel("key - query, columns (pixels)", fontsize="medium")
    figure.supylabel("key - query, rows (pixels)", fontsize="medium")
    every = [panel for row in panels for panel in row]
    figure.colorbar(image, ax=every, label="t of the score gradient", extend="both", shrink=0.9)
    return figure


def _colors() -> dict[str, tuple[float, float, float]]:
    return dict(zip((*LOSSES, PART), seaborn.color_palette("colorblind", 3), strict=True))


def draw_cosines(result: Alignment, stem: Path) -> list[Path]:
    """Noise-corrected cosine of the labels' part and the reconstruction gradient, heads down and places across.

    With its interval and the p-value against shuffled labels. Numbers are clipped to [-1, 1], which estimates leave by
    noise. Hatched: the means are not resolved from noise.
    """
    prefix = "cosine."
    rows = [r for r in result.rows if r.quantity.startswith(prefix) and r.quantity.count(".") == 1]
    places = list(dict.fromkeys(r.quantity.removeprefix(prefix) for r in rows))
    heads: list[Cell] = list(dict.fromkeys((r.layer, r.head) for r in rows))
    estimates = np.full((len(heads), len(places)), np.nan)
    texts = np.full(estimates.shape, "", dtype=object)
    for row in rows:
        at = heads.index((row.layer, row.head)), places.index(row.quantity.removeprefix(prefix))
        if is_resolved(row.interval):
            cosine = [min(max(x, -1.0), 1.0) for x in (row.interval.estimate, row.interval.low, row.interval.high)]
            estimates[at] = cosine[0]
            texts[at] = "{:+.2f}\n[{:+.2f}, {:+.2f}]".format(*cosine)
            texts[at] += "" if row.p_value is None else f"\np = {row.p_value:.2g}"
    with figure_style():
        figure, ((panel,),) = panel_grid(1, 1, panel=(1.1 * len(places) + 0.9, 0.5 * len(heads) + 0.3))
        panel.patch.set(facecolor="0.93", edgecolor="0.75", hatch="////")
        _draw_heatmap(panel, estimates, texts, places, [f"layer {layer}, head {head}" for layer, head in heads])
        if np.isnan(estimates).any():
            empty = Patch(facecolor="0.93", edgecolor="0.75", hatch="////", label="not resolved from noise")
            figure.legend(handles=[empty], loc="outside upper center")
        return save_figure(figure, stem)


def is_resolved(cosine: Interval) -> bool:
    """Whether the interval is known, is shorter than what a cosine can span, and holds something a cosine can be."""
    return cosine.high - cosine.low < 2 and cosine.low <= 1 and cosine.high >= -1  # false for NaN


def _draw_heatmap(panel: Axes, estimates: np.ndarray, texts: np.ndarray, columns: list[str], rows: list[str]) -> None:
    seaborn.heatmap(
        estimates,
        ax=panel,
        annot=texts,
        fmt="",
        annot_kws={"fontsize": 7},
        cmap=DIVERGING,
        vmin=-1,
        vmax=1,
        linewidths=1,
        xticklabels=columns,
        yticklabels=rows,
        cbar_kws={"label": "cosine of the labels' part and\nthe reconstruction gradient"},
    )
    panel.tick_params(length=0, labelrotation=0)
