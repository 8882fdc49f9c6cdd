"""One picture of a data set: images by class, lengths and frequencies of tokens, or traces of signals."""

import warnings
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from attnprobe.report.style import checkpoint_colors, figure_style, save_figure
from attnprobe.tasks import Data, Spec, Split

PER_CLASS = 8  # images in a row of the contact sheet
ROWS = 10  # classes shown at most
GAP = 2  # pixels between them
BINS = 40
LONGEST_NAME = 16  # characters of a class's name


def draw_sheet(data: Data, path: Path, title: str) -> None:
    """Draw training samples into the PNG file ``path``."""
    with figure_style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # of classes' names; a box stands for it
        if data.spec.is_tokens:
            figure = token_sheet(data, title)
        elif data.spec.grid is not None:
            figure = contact_sheet(data, data.spec.grid, title)
        else:
            figure = signal_sheet(data, title)
        save_figure(figure, path)


def contact_sheet(data: Data, grid: tuple[int, int], title: str) -> Figure:
    """The first images of every class, a row each."""
    height, width = grid[0] + GAP, grid[1] + GAP
    rows = min(data.spec.classes, ROWS)
    low, high = grey_range(data)
    canvas = np.ones((rows * height, PER_CLASS * width, data.spec.channels))
    for row in range(rows):
        for column, i in enumerate(first_of_class(data.train, row, PER_CLASS)):
            image = data.train.inputs[int(i)].numpy().reshape(*grid, -1)
            place = np.s_[row * height : row * height + grid[0], column * width : column * width + grid[1]]
            canvas[place] = np.clip((image - low) / (high - low), 0, 1)
    figure = Figure(figsize=(0.9 * PER_CLASS + 0.8, 0.9 * rows + 0.4))
    ax = figure.subplots()
    ax.imshow(canvas if data.spec.channels == 3 else canvas[..., 0], cmap="gray", vmin=0, vmax=1)
    ax.set_yticks(np.arange(rows) * height + grid[0] / 2, [class_name(data.spec, row) for row in range(rows)])
    ax.set_xticks([])
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    shown = f"{rows} of {data.spec.classes} classes" if rows < data.spec.classes else "training images"
    figure.suptitle(f"{title}: {shown}")
    return figure


def token_sheet(data: Data, title: str) -> Figure:
    """Lengths of the sequences by split, and how often each token occurs in the training set."""
    figure = Figure(figsize=(9, 3.2))
    left, right = figure.subplots(1, 2)
    colors = checkpoint_colors(list(data.splits()))
    for name, split in data.splits().items():
        shares, edges = np.histogram(
            sequence_lengths(split, data.spec), BINS, range=(0, data.spec.length), density=True
        )
        left.stairs(shares, edges, color=colors[name], label=name)
    left.set(xlabel="length (tokens)", ylabel="density", title="lengths")
    left.legend()
    counts = np.sort(token_counts(data.train, data.spec))[::-1]
    counts = counts[counts > 0]
    right.plot(np.arange(1, len(counts) + 1), counts / counts.sum(), ".-", markersize=3, linewidth=0.8)
    right.set(xlabel="rank of the token", ylabel="share", yscale="log", title="token frequencies (training)")
    figure.suptitle(title)
    return figure


def signal_sheet(data: Data, title: str) -> Figure:
    """One training sample per class, or for a regression samples from the lowest to the highest label."""
    if data.spec.regression:
        order = np.argsort(data.train.labels.numpy(), kind="stable")
        chosen = order[np.linspace(0, len(order) - 1, min(ROWS, len(order))).round().astype(int)]
        names = [f"label {data.train.labels[int(i)].item():.3g}" for i in chosen]
    else:
        firsts = [first_of_class(data.train, c, 1) for c in range(min(data.spec.classes, ROWS))]
        chosen = np.array([first[0] for first in firsts if len(first)])
        names = [class_name(data.spec, int(data.train.labels[int(i)])) for i in chosen]
    figure = Figure(figsize=(9, 0.9 * len(chosen) + 0.8))
    axes = figure.subplots(len(chosen), 1, sharex=True, squeeze=False)[:, 0]
    for ax, i, name in zip(axes, chosen, names, strict=True):
        ax.plot(data.train.inputs[int(i)].numpy(), linewidth=0.6)
        ax.set_ylabel(name, rotation=0, ha="right", va="center")
    axes[-1].set_xlabel("position")
    figure.suptitle(f"{title}: training samples")
    return figure


def class_name(spec: Spec, label: int) -> str:
    """As it stands beside a row; a dollar sign would begin a formula."""
    if not spec.class_names:
        return f"class {label}"
    name = spec.class_names[label].replace("$", r"\$")
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 3]}..."


def first_of_class(split: Split, label: int, count: int) -> np.ndarray:
    return np.flatnonzero(split.labels.numpy() == label)[:count]


def grey_range(data: Data) -> tuple[float, float]:
    if data.spec.levels is not None:
        return 0, data.spec.levels - 1
    values = data.train.inputs[:1000].numpy()
    return tuple(np.quantile(values, [0.01, 0.99]).tolist())


def sequence_lengths(split: Split, spec: Spec) -> np.ndarray:
    if split.lengths is None:
        return np.full(len(split), spec.length)
    return split.lengths.numpy().ravel()


def token_counts(split: Split, spec: Spec) -> np.ndarray:
    """(vocabulary,) occurrences at real positions."""
    tokens = split.inputs.reshape(-1, spec.length).numpy()
    counts = np.zeros(spec.vocabulary or 0, np.int64)
    for row, length in zip(tokens, np.broadcast_to(sequence_lengths(split, spec), len(tokens)), strict=True):
        counts += np.bincount(row[:length], minlength=len(counts))
    return counts
