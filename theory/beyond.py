"""Outside the setting of the theory: what label training does when its assumptions are dropped one by one.

    python -m theory.beyond [--length 12] [--dim 5] [--seed 0]

One or two attention layers with position-only scores start at uniform attention and are trained with Adam on Gaussian
classes that differ in lag-1 correlation. Printed per arm: how far the scores moved; the share of that movement that
depends on the query (0 inside K, claim C3); its cosine with a proximity direction; and the same cosine when the labels
are shuffled. README.md quotes the numbers of the default run.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from theory import flows
from theory import measurements as measure
from theory.rows import Array
from theory.setting import (
    Setting,
    centre_rows,
    contrast_kernel,
    gaussian_sequences,
    lag_one,
    periodic_direction,
)

STEPS, RATE, COUNT = 300, 0.02, 400


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A model: number of attention layers, residual stream, what reads the tokens, and whether all of it is trained.

    noise: size of random, query-dependent scores to start from, in place of uniform attention.
    """

    title: str
    layers: int = 1
    residual: bool = False
    readout: Literal["linear", "tanh", "normalised"] = "linear"
    all_trained: bool = False
    noise: float = 0.0


ARMS = (
    Arm(title="the setting of the theory"),
    Arm(title="+ values and readout trained", all_trained=True),
    Arm(title="+ residual stream", residual=True, all_trained=True),
    Arm(title="tanh readout, no residual stream", readout="tanh", all_trained=True),
    Arm(title="tanh readout, residual stream", residual=True, readout="tanh", all_trained=True),
    Arm(title="layer norm, residual stream", residual=True, readout="normalised", all_trained=True),
    Arm(title="two linear layers, residual stream", layers=2, residual=True, all_trained=True),
    Arm(title="the setting, noisy start (1e-3)", noise=1e-3),
)


def initial(arm: Arm, setting: Setting) -> dict[str, Tensor]:
    """Scores per layer (L, L), W_V per layer (d, d), hidden layer (d, 16) and (16,), readout (d,) or (16,), bias."""
    rng, dim = setting.rng("beyond"), setting.dim
    width = 16 if arm.readout == "tanh" else dim
    shape = (arm.layers, setting.length, setting.length)
    arrays = {
        "scores": arm.noise * rng.standard_normal(shape),
        "value": rng.standard_normal((arm.layers, dim, dim)) / np.sqrt(dim),
        "hidden": rng.standard_normal((dim, 16)) / np.sqrt(dim),
        "offset": rng.standard_normal(16) / 2,
        "weight": rng.standard_normal(width) / np.sqrt(width),
        "bias": np.zeros(()),
    }
    return {name: measure.tensor(array) for name, array in arrays.items()}


def outputs(arm: Arm, parts: dict[str, Tensor], inputs: Tensor) -> Tensor:
    """f (n,) of the arm's model for inputs (n, L, d)."""
    tokens = inputs
    for scores, value in zip(parts["scores"], parts["value"], strict=True):
        attended = torch.softmax(scores, -1) @ tokens @ value
        tokens = tokens + attended if arm.residual else attended
    if arm.readout == "tanh":
        tokens = torch.tanh(tokens @ parts["hidden"] + parts["offset"])
    if arm.readout == "normalised":
        tokens = torch.nn.functional.layer_norm(tokens, tokens.shape[-1:])
    return tokens.mean(1) @ parts["weight"] + parts["bias"]


def train(arm: Arm, setting: Setting, inputs: Array, labels: Array) -> list[tuple[float, float, float]]:
    """Per layer: distance moved, query-dependent share, cosine with the proximity direction."""
    parts = initial(arm, setting)
    start = parts["scores"].clone()
    trained = list(parts) if arm.all_trained else ["scores"]
    parameters = [parts[name].requires_grad_(True) for name in trained]
    optimiser = torch.optim.Adam(parameters, lr=RATE)
    x, y = measure.tensor(inputs), measure.tensor(labels)
    for _ in range(STEPS):
        optimiser.zero_grad()
        measure.losses(outputs(arm, parts, x), y, "logistic").mean().backward()
        optimiser.step()
    return [_describe(move, setting) for move in (parts["scores"] - start).detach().numpy()]


def train_reconstruction(setting: Setting, inputs: Array) -> tuple[float, float, float]:
    """The same for masked reconstruction in the setting of the theory."""
    loss = measure.reconstruction_losses(inputs, setting.gain)
    start = np.zeros((setting.length, setting.length))
    return _describe(flows.descend_with_adam(loss, start, RATE, STEPS), setting)


def _describe(move: Array, setting: Setting) -> tuple[float, float, float]:
    centred, direction = centre_rows(move), centre_rows(periodic_direction(contrast_kernel(setting.length)))
    size = float(np.linalg.norm(centred))
    cosine = float((centred * direction).sum() / (size * np.linalg.norm(direction)))
    return size, flows.query_dependence(move) / size, cosine


def data(setting: Setting) -> tuple[Array, Array]:
    """Gaussian sequences whose lag-1 correlation is 0.4 in class 0 and 0.1 in class 1."""
    rng = setting.rng("beyond data")
    classes = [
        gaussian_sequences(periodic_direction(lag_one(setting.length, r)), setting.dim, COUNT // 2, rng)
        for r in (0.4, 0.1)
    ]
    return np.concatenate(classes), np.repeat([0.0, 1.0], COUNT // 2)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m theory.beyond", description="Label training outside the setting.")
    parser.add_argument("--length", type=int, default=12)
    parser.add_argument("--dim", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        setting = Setting(length=options.length, dim=options.dim, seed=options.seed)
    except ValueError as error:
        parser.error(str(error))
    inputs, labels = data(setting)
    shuffled = setting.rng("beyond shuffle").permutation(labels)
    print(f"{'arm':38s} {'layer':>5s} {'moved':>8s} {'query share':>12s} {'proximity':>10s} {'shuffled':>9s}")
    for arm in ARMS:
        found, null = train(arm, setting, inputs, labels), train(arm, setting, inputs, shuffled)
        for layer, ((moved, share, cosine), (_, _, of_null)) in enumerate(zip(found, null, strict=True), start=1):
            print(f"{arm.title:38s} {layer:5d} {moved:8.3f} {share:12.2e} {cosine:10.3f} {of_null:9.3f}")
    moved, share, cosine = train_reconstruction(setting, inputs)
    print(f"{'masked reconstruction, the setting':38s} {1:5d} {moved:8.3f} {share:12.2e} {cosine:10.3f}")


if __name__ == "__main__":
    main()
