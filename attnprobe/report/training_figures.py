"""How accuracy grew: learning curves of several arms, read from the runs' metrics."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from attnprobe.files import json_lines, reading
from attnprobe.report.style import BAND_ALPHA, checkpoint_colors, figure_style, legend_above, panel_grid, save_figure

CURVES = {"train_accuracy": "training accuracy", "validation_accuracy": "validation accuracy"}


def draw_learning_curves(runs: Mapping[str, Sequence[Path]], stem: Path) -> list[Path]:
    """Accuracy against the epoch of finetuning; a line per arm is the mean over its runs, the band their range.

    runs: arm -> run directories. Returns the PNG and the PDF.
    """
    with figure_style():
        figure, [axes] = panel_grid(1, len(CURVES), panel=(3.0, 2.2))
        colors = checkpoint_colors(list(runs))
        for panel, (key, title) in zip(axes, CURVES.items(), strict=True):
            for arm, directories in runs.items():
                curves = np.array([read_curve(directory, key) for directory in directories])
                epochs = np.arange(1, curves.shape[1] + 1)
                panel.plot(epochs, curves.mean(0), color=colors[arm], label=arm)
                if len(curves) > 1:
                    panel.fill_between(epochs, curves.min(0), curves.max(0), color=colors[arm], alpha=BAND_ALPHA, lw=0)
            panel.set_title(title)
            panel.set_xlabel("epoch of training on labels")
            panel.set_ylim(0, 1)
        legend_above(figure, axes[0])
        return save_figure(figure, stem)


def read_curve(directory: Path, key: str) -> list[float]:
    """One metric of finetuning, epoch by epoch; ArtifactError if the metrics are missing or damaged."""
    path = directory / "metrics.jsonl"
    with reading(path, hint=f"train again into {directory} with --overwrite"):
        values = [record[key] for record in json_lines(path) if record["phase"] == "finetuned"]
        if not all(isinstance(value, int | float) for value in values):
            raise ValueError(f"{key} is not a number in every line")
        return values
