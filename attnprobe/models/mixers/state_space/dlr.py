"""DLR: a diagonal linear recurrence whose eigenvalues all channels share (Gupta et al. 2022)."""

import dataclasses
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from attnprobe.config import require, require_positive
from attnprobe.models.mixers.contract import Site
from attnprobe.models.mixers.state_space.layer import LongConvolution, StateSpaceSettings, check_steps, complex_of
from attnprobe.models.mixers.state_space.powers import real_powers, times
from attnprobe.models.parts import Initial, Update, constant, normal


class DLRConvolution(LongConvolution):
    """K_cl = Re sum_n W_cn exp(lambda_n l) with lambda_n = -a_n^2 + i b_n."""

    def __init__(self, site: Site, settings: "DLRSettings") -> None:
        super().__init__(site)
        self.settings = settings
        self.root_decay = nn.Parameter(torch.empty(settings.states))  # a
        self.frequency = nn.Parameter(torch.empty(settings.states))  # b
        self.output = nn.Parameter(torch.empty(self.directions, site.d_model, settings.states, 2))  # W

    def initial(self) -> Mapping[str, Initial]:
        states = self.settings.states
        structured: dict[str, Initial] = {
            "root_decay": self._root_decay,
            "frequency": constant(2 * math.pi * torch.arange(states) / states),
            "output": normal(1 / states),
            "skip": normal(),
        }
        return self.settings.starts(structured)

    def _root_decay(self, tensor: Tensor, generator: torch.Generator) -> None:
        low, high = math.log(self.settings.step_low), math.log(self.settings.step_high)
        tensor.uniform_(low, high, generator=generator).exp_().mul_(0.5).sqrt_()

    def updates(self) -> Mapping[str, Update]:
        own = {
            name: Update(lr=self.settings.lr or None, decay="never") for name in ("root_decay", "frequency", "output")
        }
        return own | {"skip": Update(decay="matrix")}

    def kernels(self, length: int) -> Tensor:
        weight = complex_of(self.output)
        exponent = torch.complex(-self.root_decay.double().square(), self.frequency.double())
        powers = real_powers(exponent, length, weight.dtype)  # shared by all channels
        rows = times(weight.flatten(-3, -2), powers)  # one for every direction and channel
        return rows.unflatten(-2, weight.shape[-3:-1])


@dataclasses.dataclass(frozen=True, kw_only=True)
class DLRSettings(StateSpaceSettings):
    """A diagonal linear recurrence, its eigenvalues shared by all channels (Gupta et al. 2022)."""

    states: int = 1024  # complex ones
    step_low: float = 1e-4  # the smallest step at the start, drawn log-uniformly; a state decays by half of its step
    step_high: float = 0.1  # the largest one
    lr: float = 1e-4  # learning rate of eigenvalues and weights, after the warm-up; 0: that of the optimizer

    def __post_init__(self) -> None:
        require_positive(self, "states", "step_low")
        check_steps(self.step_low, self.step_high)
        require(self.lr >= 0, "lr", "must not be negative")

    def convolution(self, site: Site) -> DLRConvolution:
        return DLRConvolution(site, self)
