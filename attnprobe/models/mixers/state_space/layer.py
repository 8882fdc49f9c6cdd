"""What all state-space mixers share: long convolutions by FFT, and what is done with their output."""

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnprobe.config import require, require_positive
from attnprobe.models.mixers.contract import Mixer, MixerSettings, Site
from attnprobe.models.parts import Fill, Initial, Part, Update, normal, twin

MOST_STATES = 1024  # their matrix is diagonalised at the start of every layer
MOST_STEP = 1e4  # float32 holds what it is multiplied with
RANDOM_START = 0.1  # standard deviation of the parameters that start without structure (Amos et al. 2023, table 7)


def unrounded(device: torch.device) -> torch.autocast:
    """While open, autocast rounds no factors: of what is rounded to bfloat16 there is no Fourier transform."""
    return torch.autocast("cpu" if device.type == "meta" else device.type, enabled=False)


class LongConvolution(Part):
    """y = K * u + skip u in every channel, with kernels as long as the sequence.

    Bidirectional: one kernel looks at a position and those before it, another one at those after it. The parameters of
    a twin of several members have one more leading axis, and so have its kernels.
    """

    keeps = False  # whether a pass without gradients may use the kernels of the one before: see ``unchanging``
    kept: tuple[int, Tensor] | None = None  # a length, and the transformed kernels

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.channels, self.length, self.directions = site.d_model, site.length, 1 if site.causal else 2
        self.skip = nn.Parameter(torch.empty(site.d_model))

    def kernels(self, length: int) -> Tensor:
        """([member,] direction, channel, length): the weight of the input so many positions before (or after).

        The second direction starts with the weight of the next position.
        """
        raise NotImplementedError

    def forward(self, u: Tensor) -> Tensor:
        """(batch, length, channel) -> the same; float32 or float64."""
        length, skip = u.shape[1], self.skip.view(-1, 1, 1, self.channels)  # (member, 1, 1, channel)
        spectrum = self._spectrum(length, len(skip), u.device)
        u = u.unflatten(0, (len(skip), -1))
        convolved = torch.fft.irfft(torch.fft.rfft(u.mT, n=2 * length) * spectrum, n=2 * length)[..., :length].mT
        return (convolved + skip * u).flatten(0, 1)

    def _spectrum(self, length: int, members: int, device: torch.device) -> Tensor:
        """(member, 1, channel, length + 1) of the kernels on a circle of 2 length positions."""
        if self.kept is not None and self.kept[0] == length and not torch.is_grad_enabled():
            return self.kept[1]
        with unrounded(device):
            kernels = self.kernels(length)
        forward, *backward = kernels.view(members, self.directions, self.channels, length).unbind(1)
        kernel = F.pad(forward, (0, length))
        for later in backward:
            kernel = kernel + F.pad(later.flip(-1), (length, 0))  # lags -length ... -1
        spectrum = torch.fft.rfft(kernel)[:, None]
        self.kept = (length, spectrum) if self.keeps and not torch.is_grad_enabled() else None
        return spectrum

    @classmethod
    def stack(cls, layers: Sequence["LongConvolution"]) -> nn.Module:
        return twin(layers)


@contextlib.contextmanager
def unchanging(model: nn.Module) -> Iterator[None]:
    """While open no parameter changes, so that passes without gradients compute kernels once, not for every batch."""
    found = [module for module in model.modules() if isinstance(module, LongConvolution)]
    for convolution in found:
        convolution.keeps = True
    try:
        yield
    finally:
        for convolution in found:
            convolution.keeps, convolution.kept = False, None


class StateSpaceLayer(Mixer):
    """GLU(W GELU(K * u + skip u)), which the published models use without an MLP (model.d_mlp = 0)."""

    obeys = frozenset({"causal"})
    parameter_sets: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "kernels": ("convolution.*",),
        "state_space": ("*",),
    }

    def __init__(self, site: Site, settings: "StateSpaceSettings") -> None:
        super().__init__(site, settings)
        self.convolution = settings.convolution(site)
        self.out = nn.Linear(site.d_model, 2 * site.d_model)

    def forward(self, x: Tensor, *, valid: Tensor | None = None) -> Tensor:
        x = x if valid is None else x * valid[..., None]  # what is zero reaches no other position
        x = x if x.dtype == torch.float64 else x.float()  # there is no FFT in bfloat16
        return F.glu(self.out(F.gelu(self.convolution(x))), dim=-1)

    @classmethod
    def stack(cls, layers: Sequence[Any]) -> None:
        """By its convolution and its linear layer."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StateSpaceSettings(MixerSettings):
    """How the parameters of any of them start."""

    layer: ClassVar[type[Mixer]] = StateSpaceLayer

    # structured: as the method says; normal: N(0, 0.1^2), the ablation of Amos et al. 2023, table 7
    start: Literal["structured", "normal"] = "structured"

    def convolution(self, site: Site) -> LongConvolution:
        """The convolution of one layer."""
        raise NotImplementedError

    def starts(self, structured: Mapping[str, Initial]) -> Mapping[str, Initial]:
        """These, or N(0, 0.1^2) in their place."""
        return structured if self.start == "structured" else dict.fromkeys(structured, normal(RANDOM_START))


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampledSettings(StateSpaceSettings):
    """Of a continuous system that every channel samples by a step in time of its own."""

    states: int = 64  # of each channel: so many real ones, kept as half as many complex ones
    copies: int | None = None  # different systems, each for as many channels; none: one for every channel
    # the smallest step in time at the start; each channel draws its own, log-uniformly
    step_low: float = 1e-3
    step_high: float = 0.1  # the largest one
    lr: float = 1e-3  # learning rate of the system, after the warm-up; 0: that of the optimizer
    step_lr: float = 0.0  # the same of the steps

    def __post_init__(self) -> None:
        require_positive(self, "states", "step_low")
        require(self.states % 2 == 0, "states", f"must be even, since they come in pairs, got {self.states}")
        require(self.states <= MOST_STATES, "states", f"must be at most {MOST_STATES}, got {self.states:,}")
        check_steps(self.step_low, self.step_high)
        require(self.copies is None or self.copies > 0, "copies", f"must be at least 1, got {self.copies}")
        for name in ("lr", "step_lr"):
            require(getattr(self, name) >= 0, name, "must not be negative")

    def check(self, d_model: int) -> None:
        fits = d_model % self.systems(d_model) == 0
        message = f"must divide d_model, got {self.copies} and {d_model}"
        require(fits, "mixer.copies", message, hint="leave it out: one for every channel")

    def systems(self, d_model: int) -> int:
        """How many different ones a layer has."""
        return d_model if self.copies is None else self.copies

    def updates(self, *system: str) -> Mapping[str, Update]:
        """Neither the steps nor the parameters of the system decay."""
        return {name: Update(lr=self.lr or None, decay="never") for name in system} | {
            "log_step": Update(lr=self.step_lr or None, decay="never"),
            "skip": Update(decay="matrix"),
            "output": Update(decay="matrix"),
        }

    @property
    def log_step(self) -> Fill:
        low, high = math.log(self.step_low), math.log(self.step_high)
        return lambda tensor, generator: tensor.uniform_(low, high, generator=generator)


class SampledConvolution(LongConvolution):
    """Of systems with the eigenvalues -exp(log_decay) + i frequency, each for as many channels as share it."""

    system: ClassVar[tuple[str, ...]] = ("log_decay", "frequency", "input")  # the system's own parameters

    def __init__(self, site: Site, settings: SampledSettings) -> None:
        super().__init__(site)
        systems, half = settings.systems(site.d_model), settings.states // 2
        self.log_step = nn.Parameter(torch.empty(site.d_model))
        self.log_decay = nn.Parameter(torch.empty(systems, half))
        self.frequency = nn.Parameter(torch.empty(systems, half))
        self.input = nn.Parameter(torch.empty(systems, half, 2))  # B
        self.output = nn.Parameter(torch.empty(self.directions, site.d_model, half, 2))  # C
        self.declared_updates = settings.updates(*self.system)

    def updates(self) -> Mapping[str, Update]:
        return self.declared_updates

    def of_channels(self, *, exact: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Step ([member,] channel, 1); eigenvalue and B ([member,] channel, state), complex; in float64 if exact."""
        own = (self.log_step, self.log_decay, self.frequency, self.input)
        log_step, log_decay, frequency, given = (p.double() if exact else p for p in own)
        eigenvalue = torch.complex(-log_decay.exp(), frequency)
        eigenvalue, given = (for_channels(x, self.channels) for x in (eigenvalue, complex_of(given)))
        return log_step.exp()[..., None], eigenvalue, given


def check_steps(low: float, high: float) -> None:
    require(high >= low, "step_high", "must not be below step_low")
    require(high <= MOST_STEP, "step_high", f"must be at most {MOST_STEP:g}, got {high:g}")


def for_channels(x: Tensor, channels: int, axes: int = 2) -> Tensor:
    """([member,] system, state[, 2]) -> ([member,] channel, ...): channel c has system c modulo their number.

    axes: how many, that of systems included.
    """
    place = x.dim() - axes
    return x.repeat(*(1,) * place, channels // x.shape[place], *(1,) * (axes - 1))


def complex_of(x: Tensor) -> Tensor:
    """(..., 2) real and imaginary parts -> (...) complex; parameters are kept real, as files and optimizers want."""
    return torch.view_as_complex(x.contiguous())


def complex_normal(tensor: Tensor, generator: torch.Generator) -> None:
    """Complex numbers (..., 2) with mean 0 and mean square 1."""
    tensor.normal_(std=math.sqrt(0.5), generator=generator)
