"""A damped exponential moving average of several states in every channel (Ma et al. 2023, MEGA, section 3.1)."""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnprobe.models.mixers.contract import Site
from attnprobe.models.mixers.state_space.layer import LongConvolution
from attnprobe.models.parts import Initial, normal


class MovingAverage(LongConvolution):
    """h_t = alpha beta x_t + (1 - alpha delta) h_(t-1), y_t = eta . h_t / sqrt(N), with N states in every channel.

    alpha and delta are kept before their sigmoid. In both directions a position counts itself.
    """

    def __init__(self, site: Site, states: int, reach: int | None) -> None:
        super().__init__(site)
        self.reach = reach
        shape = (self.directions, site.d_model, states)
        self.alpha, self.delta, self.beta, self.eta = (nn.Parameter(torch.empty(shape)) for _ in range(4))

    def initial(self) -> Mapping[str, Initial]:
        return {"alpha": normal(0.2), "delta": normal(0.2), "beta": alternating, "eta": normal(), "skip": normal()}

    def kernels(self, length: int) -> Tensor:
        kept = length if self.reach is None else min(length, self.reach)
        alpha = self.alpha.sigmoid()
        forgotten = (alpha * self.delta.sigmoid()).clamp(max=1 - torch.finfo(alpha.dtype).eps)
        lag = torch.arange(kept, device=alpha.device, dtype=alpha.dtype)
        powers = torch.exp(torch.log1p(-forgotten)[..., None] * lag)
        weight = alpha * self.beta * self.eta / math.sqrt(alpha.shape[-1])
        kernel = F.pad((weight[..., None, :] @ powers).squeeze(-2), (0, length - kept))
        if self.directions == 1:
            return kernel
        before, after = kernel.unbind(-3)
        before = before + F.pad(after[..., :1], (0, length - 1))
        return torch.stack([before, F.pad(after[..., 1:], (0, 1))], -3)


def alternating(tensor: Tensor, generator: torch.Generator) -> None:
    """About 1, -1, 1, ... over the states."""
    signs = 1.0 - 2.0 * (torch.arange(tensor.shape[-1]) % 2)
    tensor.normal_(std=0.02, generator=generator).add_(signs)
