"""What keeps features in size: within a position (layer and scale norm), or over samples and positions (batch norm)."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from attnprobe.models.parts import Initial, Part, Update, constant, stacked, twin

Norm = Literal["layer", "batch", "scale"]
MOMENTUM, EPSILON = 0.1, 1e-5  # those of torch's BatchNorm1d


class BatchNorm(Part):
    """Every channel with mean 0 and variance 1 over the real positions of a training batch (Ioffe and Szegedy 2015).

    Evaluated with running averages, of which it keeps nine tenths at every batch. A batch that processes share is one
    batch. Sums are float32 at least. Once its gain is frozen, so are its averages, and training uses them as well. The
    parameters of a twin of several members have one more leading axis.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.empty(d_model)) for _ in range(2))
        for name in ("mean", "variance"):
            self.register_buffer(name, torch.empty(d_model))

    def initial(self) -> Mapping[str, Initial]:
        return {"weight": constant(1), "bias": constant(0), "mean": constant(0), "variance": constant(1)}

    @classmethod
    def stack(cls, layers: Sequence[Any]) -> "BatchNorm":
        twin = cls(layers[0].weight.shape[-1])
        for name in ("weight", "bias"):
            setattr(twin, name, stacked([getattr(layer, name) for layer in layers]))
        for name in ("mean", "variance"):
            setattr(twin, name, torch.stack([getattr(layer, name) for layer in layers]))
        return twin.train(layers[0].training)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """x (batch, length, d_model); valid (batch, length) bool, False at padding, which counts for nothing."""
        x, width = x.to(torch.promote_types(x.dtype, torch.float32)), x.shape[-1]
        weight, bias, mean, variance = (
            t.view(-1, 1, width) for t in (self.weight, self.bias, self.mean, self.variance)
        )
        flat = x.unflatten(0, (len(weight), -1)).flatten(1, 2)  # (member, batch * length, d_model)
        if self.training and self.weight.requires_grad:
            counted = x.new_ones(x.shape[:2]) if valid is None else valid.to(x.dtype)
            counted = counted.view(len(weight), -1, 1)
            number = _total(counted)
            mean = _total(flat * counted) / number
            variance = _total((flat - mean).square() * counted) / number
            with torch.no_grad():
                self.mean.lerp_(mean.view_as(self.mean).to(self.mean.dtype), MOMENTUM)
                unbiased = variance * number / (number - 1).clamp(min=1)
                self.variance.lerp_(unbiased.view_as(self.variance).to(self.variance.dtype), MOMENTUM)
        return ((flat - mean) * (variance + EPSILON).rsqrt() * weight + bias).view_as(x)


class ScaleNorm(Part):
    """Every position's features with mean square 1, times one number (Nguyen and Salazar 2019).

    The parameter of a twin of several members has one more leading axis.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.empty(1))

    def initial(self) -> Mapping[str, Initial]:
        return {"gain": constant(1)}

    def updates(self) -> Mapping[str, Update]:
        return {"gain": Update(decay="bias")}

    @classmethod
    def stack(cls, layers: Sequence[Any]) -> nn.Module:
        return twin(layers)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length, d_model) -> the same."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        scaled = x * (x.square().mean(-1, keepdim=True) + EPSILON).rsqrt()
        gain = self.gain.view(-1, 1, 1, 1)
        return (scaled.unflatten(0, (len(gain), -1)) * gain).flatten(0, 1)


def _total(x: Tensor) -> Tensor:
    """(member, positions, ...) added up over the positions, of all processes that share the batch: (member, 1, ...)."""
    own = x.sum(1, keepdim=True)
    shared = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    return _OverProcesses.apply(own) if shared else own  # pyright: ignore[reportReturnType]


class _OverProcesses(torch.autograd.Function):
    """The sum of every process's tensor; each has added to all losses, so its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        return _summed(own)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _summed(gradients[0])


def _summed(own: Tensor) -> Tensor:
    whole = own.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(whole)
    return whole


def make_norm(kind: Norm, d_model: int) -> nn.Module:
    if kind == "scale":
        return ScaleNorm()
    return nn.LayerNorm(d_model) if kind == "layer" else BatchNorm(d_model)


def normed(norm: nn.Module, x: Tensor, valid: Tensor | None) -> Tensor:
    """Only one over a batch need know what is padding."""
    return norm(x, valid) if isinstance(norm, BatchNorm) else norm(x)
