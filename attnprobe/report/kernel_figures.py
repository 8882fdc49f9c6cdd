"""Kernels of long convolutions, layer by layer."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from attnprobe.probes.kernels import Kernels
from attnprobe.report.style import checkpoint_colors, figure_style, legend_above, panel_grid, save_figure

START = "structured start"
MOST_COLUMNS = 3


def draw_kernels(results: Mapping[str, Kernels], stem: Path) -> list[Path]:
    """Largest |K| of a channel by offset, a panel per layer; starts that others are compared with are grey."""
    layers = max(len(result.largest) for result in results.values())
    columns = min(layers, MOST_COLUMNS)
    starts = [name for name in results if name.startswith(START)]
    colors = checkpoint_colors([name for name in results if name not in starts])
    colors |= dict.fromkeys(starts, (0.6, 0.6, 0.6))
    with figure_style():
        figure, grid = panel_grid(-(-layers // columns), columns, panel=(2.9, 1.9))
        panels = [panel for row in grid for panel in row]
        for layer, panel in enumerate(panels[:layers]):
            for name, result in results.items():
                if layer < len(result.largest):
                    offset = np.arange(1 - result.layout.length, result.layout.length)
                    behind = name in starts
                    panel.plot(
                        offset, result.largest[layer], color=colors[name], label=name, linewidth=0.9,
                        linestyle="--" if behind else "-", zorder=1 if behind else 2,
                    )  # fmt: skip
            panel.set_yscale("log")
            panel.set_title(f"layer {layer}")
        for panel in panels[layers:]:
            panel.set_visible(False)
        for row in grid:
            row[0].set_ylabel("largest |K| of a channel")
        for panel in panels[max(layers - columns, 0) : layers]:
            panel.set_xlabel("offset (key - query, positions)")
        legend_above(figure, panels[0])
        return save_figure(figure, stem)
