"""Outside claim C7: training W_Q and W_K from random initialisation of ordinary size, where no theorem reaches.

    python -m theory.random_start [--length 12] [--dim 5] [--draws 20] [--seed 0]

Scores are P W_Q W_K^T P^T / sqrt(h) with sinusoids of full periods and h = 4. Adam trains W_Q and W_K only, on Gaussian
classes that differ in lag-1 correlation (as in `theory.beyond`). Every draw has its own weights, values, readout and
data. Printed per objective and size of the scores at the start: the mean over draws, with a 95 % t-interval, of the
cosine between the movement of the scores and the proximity direction, and how many draws moved towards near keys.
README.md quotes the numbers of the default run.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from theory import beyond
from theory import measurements as measure
from theory.rows import Array
from theory.setting import Setting, centre_rows, contrast_kernel, periodic_direction, position_codes

STEPS, RATE, HEADS, SEQUENCES = 150, 0.02, 4, 200
SIZES = (0.2, 1.0)  # standard deviations of the scores at the start
LINEAR = beyond.Arm(title="linear readout")
TANH = beyond.Arm(title="tanh readout, residual stream", residual=True, readout="tanh")


def factors(setting: Setting, size: float) -> tuple[Array, Array]:
    """Codes (L, p) of all full periods; Gaussian W_Q, W_K (2, p, h) whose scores have the standard deviation `size`."""
    codes = position_codes(setting.length, (setting.length - 1) // 2, centred=True)
    drawn = setting.rng("random start").standard_normal((2, codes.shape[1], HEADS))
    scores = codes @ drawn[0] @ drawn[1].T @ codes.T / math.sqrt(HEADS)
    return codes, drawn * math.sqrt(size / scores.std())


def movement(losses: measure.Losses, codes: Array, start: Array) -> Array:
    """How the scores move while Adam trains W_Q and W_K, (L, L)."""
    trained, basis = measure.tensor(start).requires_grad_(True), measure.tensor(codes)

    def scores() -> Tensor:
        return basis @ trained[0] @ trained[1].T @ basis.T / math.sqrt(HEADS)

    optimiser, before = torch.optim.Adam([trained], lr=RATE), scores().detach()
    for _ in range(STEPS):
        optimiser.zero_grad()
        losses(scores()).mean().backward()
        optimiser.step()
    return (scores().detach() - before).numpy()


def objectives(setting: Setting) -> dict[str, measure.Losses]:
    """The losses of one draw: title to a function of the scores."""
    inputs, labels = beyond.data(setting)
    some = setting.rng("random start data").permutation(len(inputs))[:SEQUENCES]
    inputs, labels = inputs[some], labels[some]
    shuffled = setting.rng("random start shuffle").permutation(labels)

    def labelled(arm: beyond.Arm, given: Array) -> measure.Losses:
        parts, x, y = beyond.initial(arm, setting), measure.tensor(inputs), measure.tensor(given)
        return lambda scores: measure.losses(beyond.outputs(arm, parts | {"scores": scores[None]}, x), y, "logistic")

    return {
        "masked reconstruction": measure.reconstruction_losses(inputs, setting.gain),
        f"labels, {LINEAR.title}": labelled(LINEAR, labels),
        f"labels, {TANH.title}": labelled(TANH, labels),
        f"shuffled labels, {TANH.title}": labelled(TANH, shuffled),
    }


def cosines(setting: Setting, draws: int, size: float) -> dict[str, Array]:
    """Per objective, of every draw the cosine of the movement with the proximity direction."""
    direction = centre_rows(periodic_direction(contrast_kernel(setting.length)))
    found: dict[str, list[float]] = {}
    for draw in range(draws):
        mine = replace(setting, seed=setting.seed + draw)
        codes, start = factors(mine, size)
        for title, losses in objectives(mine).items():
            move = centre_rows(movement(losses, codes, start))
            cosine = float((move * direction).sum() / (np.linalg.norm(move) * np.linalg.norm(direction)))
            found.setdefault(title, []).append(cosine)
    return {title: np.array(values) for title, values in found.items()}


def interval(values: Array) -> tuple[float, float, float]:
    """The mean over draws and its 95 % t-interval."""
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))
    half = float(stats.t.ppf(0.975, len(values) - 1)) * error
    return mean, mean - half, mean + half


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m theory.random_start", description="W_Q, W_K from random starts.")
    for name, default in (("length", 12), ("dim", 5), ("draws", 20), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args(arguments)
    try:
        setting = Setting(length=options.length, dim=options.dim, seed=options.seed)
        if options.draws < 2:
            raise ValueError(f"draws = {options.draws}: expected at least 2")
        if options.length < 4:
            raise ValueError(f"length = {options.length}: the proximity direction vanishes below 4")
    except ValueError as error:
        parser.error(str(error))
    print(f"{'objective':48s} {'size':>5s} {'cosine':>8s} {'low':>8s} {'high':>8s} {'towards near':>13s}")
    for size in SIZES:
        for title, values in cosines(setting, options.draws, size).items():
            mean, low, high = interval(values)
            near = f"{int((values > 0).sum())} of {len(values)}"
            print(f"{title:48s} {size:5.1f} {mean:8.3f} {low:8.3f} {high:8.3f} {near:>13s}")


if __name__ == "__main__":
    main()
