"""The kernels of our own models' long convolutions, as arrays."""

import copy
import dataclasses

import numpy as np
import torch
from torch import Tensor

from attnprobe.models import Transformer, TransformerConfig, make_model
from attnprobe.models.mixers.state_space.layer import LongConvolution, StateSpaceSettings
from attnprobe.scores.layout import Layout


@torch.no_grad()
def kernels(model: Transformer) -> list[np.ndarray]:
    """Of every layer (channel, 2 length - 1) float64, by offset key - query from 1 - length on; without the skip.

    Empty if the model has no long convolutions.
    """
    found = [module for module in model.modules() if isinstance(module, LongConvolution)]
    exact = (copy.deepcopy(convolution).double() for convolution in found)  # tails are far below float32's rounding
    return [_by_offset(convolution.kernels(layout(model).length)).cpu().numpy() for convolution in exact]


def _by_offset(kernels: Tensor) -> Tensor:
    """(direction, channel, length) -> (channel, 2 length - 1)."""
    before = kernels[0].flip(-1)  # the last entry is that of the query itself
    after = kernels[1][..., :-1] if len(kernels) > 1 else torch.zeros_like(before[..., 1:])
    return torch.cat([before, after], -1)


def layout(model: Transformer) -> Layout:
    """Of the sequences it was made for."""
    return Layout(shape=model.spec.grid or (model.spec.length,), causal=model.config.causal)


def at_the_start(model: Transformer, seed: int) -> Transformer:
    """The same, untrained, with the method's own structured start (Amos et al. 2023, figure 4, compares with it)."""
    return make_model(structured(model.config), model.spec, model.target, seed=seed)


def structured(config: TransformerConfig) -> TransformerConfig:
    """The same with the method's own structured start, if it is a state-space model."""
    mixer = config.mixer
    if not isinstance(mixer, StateSpaceSettings):
        return config
    return dataclasses.replace(config, mixer=dataclasses.replace(mixer, start="structured"))
