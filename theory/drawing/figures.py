"""Figures of the theory: each a PNG and a PDF of measurements beside predictions."""

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from theory import flows, predictions
from theory import measurements as measure
from theory.claims import blind_subspace, detection, invariance, proximity_ray
from theory.drawing.code_figure import position_codes_figure
from theory.drawing.figure_style import GREY, LABEL, METADATA, RECONSTRUCTION, STYLE, THIRD
from theory.gaussian_classes import GaussianClasses
from theory.linear_readout import linear
from theory.rows import Array
from theory.setting import (
    LabelProblem,
    Setting,
    blind_direction,
    decaying,
    label_problem,
    periodic_direction,
    proximity_kernel,
    second_moments,
    sigma_points,
)


def draw(directory: Path, *, length: int = 64, dim: int = 5, seed: int = 0) -> list[Path]:
    """Write every figure as PNG and PDF into `directory`, which is made; return the paths.

    Parts whose cost explodes use shorter sequences; the titles say which. Raises ValueError for a setting that `verify`
    refuses.
    """
    setting = Setting(length=length, dim=dim, seed=seed)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    with mpl.rc_context(STYLE):
        for name, make in FIGURES.items():
            figure = make(setting)
            for suffix in ("png", "pdf"):
                path = directory / f"{name}.{suffix}"
                figure.savefig(path, metadata=METADATA[suffix])
                written.append(path)
    return written


def blind_spectrum(setting: Setting) -> Figure:
    """C1 and C4: what the gradients of random data sets span, and how the visible share falls with length."""
    small = setting.within(3, 12)
    length, rng = small.length, small.rng("figure spectrum")
    figure = Figure(figsize=(6.8, 2.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    count = predictions.effective_dimension(length)
    for name, colour, marker, function in [
        ("reconstruction loss", RECONSTRUCTION, "s", _reconstruction_gradient),
        ("label loss", LABEL, "o", _label_gradient),
    ]:
        stacked = np.stack([function(small, rng) for _ in range(count)])
        values = np.linalg.svd(stacked, compute_uv=False)
        left.semilogy(
            np.arange(1, count + 1), np.maximum(values / values[0], 1e-17), marker, ms=3, color=colour, label=name
        )
    for dimension in (predictions.visible_dimension(length), predictions.reconstruction_dimension(length)):
        left.vlines(dimension + 0.5, 1e-18, 10, color=GREY, lw=0.8, ls=":")
    left.set(
        xlabel="singular value number",
        ylabel="singular value, relative",
        ylim=(1e-18, 1e5),
        xlim=(0, count + 1),
        title=f"Span of gradients, L = {length} (dotted: predicted rank)",
    )
    left.set_yticks([1e-16, 1e-12, 1e-8, 1e-4, 1])
    left.legend(loc="upper right", ncols=1)

    lengths = 2 ** np.arange(4, 11)
    for tau, colour, marker in [(0.75, THIRD, "^"), (1.5, LABEL, "o"), (3.0, RECONSTRUCTION, "s")]:
        shares = [blind_subspace.edged_share(int(n), tau) for n in lengths]
        right.loglog(lengths, shares, marker, color=colour, label=rf"$\tau$ = {tau:g}")
        right.loglog(lengths, predictions.visible_share_limit(tau) / lengths**2.0, color=colour, lw=1)
    right.set(xlabel="length L", ylabel="visible share", title="Proximity with edges (lines: predicted limit)")
    right.set_xticks(lengths, [str(n) for n in lengths])
    right.minorticks_off()
    right.legend(loc="lower left")
    return figure


def _label_gradient(setting: Setting, rng: np.random.Generator) -> Array:
    problem = label_problem(setting, rng, 3)
    losses = measure.label_losses(linear(problem), problem.inputs, problem.labels)
    flat = measure.gradient(losses, np.zeros((setting.length, setting.length))).ravel()
    return flat / np.linalg.norm(flat)


def _reconstruction_gradient(setting: Setting, rng: np.random.Generator) -> Array:
    losses = measure.reconstruction_losses(label_problem(setting, rng, 3).inputs, setting.gain)
    flat = measure.gradient(losses, np.zeros((setting.length, setting.length))).ravel()
    return flat / np.linalg.norm(flat)


def ray_orders(setting: Setting) -> Figure:
    """C2: the change of the label output along a visible, a blind and a periodic direction."""
    rng, length = setting.rng("figure rays"), setting.length
    problem, uniform = label_problem(setting, rng), np.zeros((length, length))
    steps = np.logspace(-4, 0, 17)
    figure = Figure(figsize=(3.6, 2.9), layout="constrained")
    axes = figure.subplots()
    visible = rng.standard_normal((length, length))
    for name, direction, order, colour, marker in [
        ("visible", visible, 1, RECONSTRUCTION, "s"),
        ("blind", blind_direction(length, rng), 2, THIRD, "^"),
        ("periodic", periodic_direction(proximity_kernel(length)), None, LABEL, "o"),
    ]:
        change = proximity_ray.changes(problem, uniform, direction, steps)
        label = f"{name}: $t^{order}$" if order else f"{name}: rounding"
        axes.loglog(steps, np.maximum(change, 1e-18), marker, color=colour, label=label)
        if order:
            axes.loglog(steps, change[0] * (steps / steps[0]) ** order, color=colour, lw=1)
    axes.set(
        xlabel="step t along the direction",
        ylabel="change of the label output, rms",
        ylim=(1e-19, 1e5),
        title=f"Label output along a ray, L = {length}",
    )
    axes.set_yticks([1e-16, 1e-12, 1e-8, 1e-4, 1])
    axes.legend(loc="upper left", ncols=1)
    return figure


def flow_out_of_invariance(setting: Setting) -> Figure:
    """C3: query dependence of the scores in gradient flow from uniform attention."""
    small = setting.within(3, 12, widest=3)
    length, rng = small.length, small.rng("figure flow")
    problem, uniform = label_problem(small, rng), np.zeros((length, length))
    moments = sigma_points(periodic_direction(decaying(length, 0.6)), small.dim)
    times = length**2 * np.logspace(-3, 0.5, 15)
    figure = Figure(figsize=(3.6, 2.9), layout="constrained")
    axes = figure.subplots()
    curves = [
        ("reconstruction", measure.reconstruction_losses(moments, small.gain), RECONSTRUCTION, "s"),
        ("labels, tanh readout", _label_losses(problem, invariance.neurons(problem, rng, residual=True)), THIRD, "^"),
        ("labels, linear readout", _label_losses(problem, linear(problem)), LABEL, "o"),
    ]
    for name, losses, colour, marker in curves:
        path = flows.gradient_flow(losses, uniform, times)
        distance = [max(flows.query_dependence(scores), 1e-18) for scores in path]
        axes.loglog(times / length**2, distance, marker, color=colour, label=name)
    gradient = predictions.reconstruction_gradient(second_moments(moments), small.gain)
    axes.loglog(times / length**2, predictions.departure_rate(gradient) * times, color=RECONSTRUCTION, lw=1)
    axes.set(
        xlabel="time / $L^2$",
        ylabel="distance from query-free scores",
        ylim=(1e-19, 1e7),
        title=f"Gradient flow from uniform, L = {length}",
    )
    axes.set_yticks([1e-16, 1e-12, 1e-8, 1e-4, 1])
    axes.legend(loc="upper left")
    return figure


def _label_losses(problem: LabelProblem, head: measure.Head) -> Callable[[Tensor], Tensor]:
    return measure.label_losses(head, problem.inputs, problem.labels)


def first_step(setting: Setting) -> Figure:
    """C4: the first step of reconstruction is the data's centred autocorrelation."""
    small = setting.within(8, 24, widest=3)
    length = small.length
    offsets = np.arange(length)
    signed = np.where(offsets > length // 2, offsets - length, offsets)
    order = np.argsort(signed)
    figure = Figure(figsize=(6.8, 2.7), layout="constrained")
    for axes, (name, autocorrelation) in zip(
        figure.subplots(1, 2, sharey=True),
        [("decaying", decaying(length, 0.6)), ("alternating", decaying(length, -0.6))],
        strict=True,
    ):
        moments = periodic_direction(autocorrelation)
        limit = predictions.first_step(moments)[0]
        axes.plot(signed[order], limit[order], color=GREY, lw=4, alpha=0.45, label="centred autocorrelation")
        inputs = sigma_points(moments, small.dim)
        for gain, colour, marker, size in [(0.01, LABEL, "o", 3), (1.0, RECONSTRUCTION, "s", 5)]:
            gradient = measure.gradient(measure.reconstruction_losses(inputs, gain), np.zeros((length, length)))
            step = -(length**2) / (2 * gain) * gradient[0]
            axes.plot(
                signed[order],
                step[order],
                marker,
                color=colour,
                ms=size,
                mfc="none",
                label=f"first step, gain {gain:g}",
            )
        axes.set(xlabel="offset (key - query)", title=f"{name} correlation, L = {length}")
        axes.axhline(0, color=GREY, lw=0.6)
    figure.axes[0].set_ylabel("step of the scores, scaled")
    figure.axes[0].legend(loc="upper left", bbox_to_anchor=(0.0, 1.0))
    figure.axes[0].set_ylim(-0.75, 1.1)
    return figure


def sample_sizes(setting: Setting) -> Figure:
    """C6: significance against the number of sequences, and the price ratio against the class difference."""
    figure = Figure(figsize=(6.8, 2.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    classes = GaussianClasses(setting=setting.within(8, 12, widest=5))
    _, sample = classes.draw("figure sizes")
    sizes = [2**k for k in range(2, 10)]
    for name, derivatives, colour, marker in [
        ("reconstruction", sample.reconstruction, RECONSTRUCTION, "s"),
        ("label", sample.label(), LABEL, "o"),
    ]:
        mean, variance = detection.signals(classes)[name]
        blocks = [abs(detection.block_means(derivatives, size).mean()) for size in sizes]
        spread = [detection.block_means(derivatives, size).std() for size in sizes]
        left.loglog(sizes, np.array(blocks) / np.array(spread), marker, color=colour, label=f"{name} loss")
        left.loglog(sizes, abs(mean) / np.sqrt(variance) * np.sqrt(sizes), color=colour, lw=1)
        size = predictions.sample_size(detection.signals(classes)[name], detection.SIGNIFICANCE)
        left.plot([size, size], [0.3, detection.SIGNIFICANCE], color=colour, lw=0.8, ls=":")
    left.axhline(detection.SIGNIFICANCE, color=GREY, lw=0.8)
    left.set(
        xlabel="sequences n",
        ylabel="mean over standard error",
        ylim=(0.3, 60),
        title=f"Detection, {classes.setting.size} (lines: predicted)",
    )
    left.legend(loc="upper left")

    contrasts = np.logspace(-1.7, 0, 40)
    for strength, colour, style in [(1.0, LABEL, "-"), (0.5, THIRD, "--"), (0.25, RECONSTRUCTION, "-.")]:
        designs = [GaussianClasses(setting=classes.setting, contrast=float(c), strength=strength) for c in contrasts]
        ratios = [predictions.price_ratio(*detection.statistics(each)) for each in designs]
        right.loglog(contrasts, ratios, style, color=colour, label=f"mean correlation {designs[0].correlation:.3f}")
    right.set(
        xlabel="class difference / mean correlation",
        ylabel="$n_{label}$ / $n_{reconstruction}$",
        title="Price of labels, predicted",
    )
    right.axhline(1, color=GREY, lw=0.8)
    right.legend(loc="upper right")
    return figure


FIGURES: dict[str, Callable[[Setting], Figure]] = {
    "c1_blind_spectrum": blind_spectrum,
    "c2_ray_orders": ray_orders,
    "c3_flow": flow_out_of_invariance,
    "c4_first_step": first_step,
    "c6_sample_sizes": sample_sizes,
    "c7_position_codes": position_codes_figure,
}
