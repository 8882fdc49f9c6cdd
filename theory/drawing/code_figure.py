"""The figure of claim C7: what reconstruction makes of position codes."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from theory import measurements as measure
from theory import predictions
from theory.claims.position_codes import pairs_of
from theory.coded_scores import CORRELATION, data, factor_gradient, label_losses, step
from theory.drawing.figure_style import GREY, LABEL, RECONSTRUCTION, THIRD
from theory.setting import Setting, decaying, position_codes


def position_codes_figure(setting: Setting) -> Figure:
    """The first step by offset, and the label gradient off M against that of reconstruction."""
    figure = Figure(figsize=(6.8, 2.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    _profiles(left, setting.within(9, 64, widest=1))
    _ratios(right, setting.within(5, 12, widest=2))
    return figure


def _profiles(axes: Axes, setting: Setting) -> None:
    length, gain = setting.length, setting.gain
    pairs = pairs_of(length)
    codes, offsets = position_codes(length, pairs, centred=True), np.arange(length) - length // 2
    for name, ratio, colour, marker in [
        ("decaying", CORRELATION, RECONSTRUCTION, "s"),
        ("alternating", -CORRELATION, THIRD, "^"),
        ("white", 0.0, LABEL, "o"),
    ]:
        measured = measure.by_offset(step(data(setting, ratio), codes, gain))
        weights = predictions.code_weights(decaying(length, ratio), pairs, gain)
        axes.plot(offsets, measured[offsets], marker, ms=3, color=colour, mfc="none", label=f"{name} data")
        axes.plot(offsets, predictions.code_profile(weights, length)[offsets], color=colour, lw=1)
    axes.axhline(0, color=GREY, lw=0.6)
    axes.set(
        xlabel="offset (key - query)",
        ylabel="first step of the scores",
        title=f"{pairs} frequencies, L = {length} (lines: predicted)",
    )
    axes.legend(loc="upper left", handletextpad=0.2, borderaxespad=0)


def _ratios(axes: Axes, setting: Setting) -> None:
    rng, inputs, scales = setting.rng("figure factors"), data(setting), np.logspace(-3, -0.5, 9)
    losses = {"label": label_losses(setting, inputs), "own": measure.reconstruction_losses(inputs, setting.gain)}
    for name, centred, order, colour, marker in [
        ("uncentred codes", False, 0, THIRD, "^"),
        ("full periods", True, 2, LABEL, "o"),
    ]:
        codes = position_codes(setting.length, 2, centred=centred)
        start = rng.standard_normal((2, codes.shape[1], 3))
        norms = {
            key: np.array([float(np.linalg.norm(factor_gradient(loss, codes, scale * start))) for scale in scales])
            for key, loss in losses.items()
        }
        ratio = norms["label"] / norms["own"]
        axes.loglog(scales, ratio, marker, color=colour, mfc="none", label=rf"{name}: $\sigma^{order}$")
        axes.loglog(scales, ratio[0] * (scales / scales[0]) ** order, color=colour, lw=1)
    axes.set(
        xlabel=r"size $\sigma$ of random $W_Q, W_K$",
        ylabel="label / reconstruction gradient",
        title=f"Gradients on $W_Q, W_K$, L = {setting.length}",
    )
    axes.legend(loc="center left")
