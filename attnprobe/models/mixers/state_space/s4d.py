"""S4D: a diagonal state-space model (Gu et al. 2022, On the Parameterization and Initialization of Diagonal SSMs)."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from attnprobe.models.mixers.contract import Site
from attnprobe.models.mixers.state_space.hippo import diagonal_plus_low_rank
from attnprobe.models.mixers.state_space.layer import (
    SampledConvolution,
    SampledSettings,
    complex_normal,
    complex_of,
)
from attnprobe.models.mixers.state_space.powers import factors, stacked_parts, times
from attnprobe.models.parts import Initial, constant, normal

Spectrum = Literal["lin", "inv", "legs"]


class S4DConvolution(SampledConvolution):
    """K_l = 2 Re sum_n C_n B_n z_n^l g_n, with z and g the eigenvalue and the gain after sampling by the step."""

    def __init__(self, site: Site, settings: "S4DSettings") -> None:
        super().__init__(site, settings)
        self.settings = settings

    def initial(self) -> Mapping[str, Initial]:
        ones = torch.tensor([1.0, 0.0])
        structured: dict[str, Initial] = {
            "log_step": self.settings.log_step,
            "log_decay": constant(math.log(0.5)),
            "frequency": constant(torch.from_numpy(frequencies(self.settings.spectrum, self.settings.states))),
            "input": constant(ones),
            "output": complex_normal,
            "skip": normal(),
        }
        return self.settings.starts(structured)

    def kernels(self, length: int) -> Tensor:
        step, eigenvalue, given = self.of_channels(exact=True)
        scaled = step * eigenvalue
        if self.settings.discretization == "zoh":
            exponent, gain = scaled, torch.expm1(scaled) / eigenvalue
        else:
            exponent, gain = torch.log((1 + scaled / 2) / (1 - scaled / 2)), step / (1 - scaled / 2)
        weight = complex_of(self.output)
        weight = weight * (2 * given * gain).to(weight.dtype)[..., None, :, :]
        coarse, fine = factors(exponent, length, weight.dtype)
        # Of every direction and channel a matrix (coarse, state) times one (state, fine).
        left = weight[..., None, :] * coarse.mT[..., None, :, :, :]
        found = times(left, stacked_parts(fine)[..., None, :, :, :])
        return found.flatten(-2)[..., :length]


def frequencies(spectrum: Spectrum, states: int) -> np.ndarray:
    """(states / 2,) float64 imaginary parts of the eigenvalues (section 4 of the paper)."""
    n = np.arange(states // 2)
    if spectrum == "lin":
        return math.pi * n
    if spectrum == "inv":
        return states / math.pi * (states / (2 * n + 1) - 1)
    return diagonal_plus_low_rank(states)[0].imag


@dataclasses.dataclass(frozen=True, kw_only=True)
class S4DSettings(SampledSettings):
    """A diagonal state-space model (Gu et al. 2022, S4D)."""

    spectrum: Spectrum = "legs"  # the frequencies at the start: linear, inverse, or those of the LegS matrix
    # how the system is sampled: zero-order hold, or the bilinear rule that the published code takes
    discretization: Literal["zoh", "bilinear"] = "bilinear"

    def convolution(self, site: Site) -> S4DConvolution:
        return S4DConvolution(site, self)
