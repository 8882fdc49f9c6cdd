"""S4: a state-space model whose matrix is diagonal plus low rank (Gu et al. 2022)."""

import dataclasses
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from attnprobe.config import require
from attnprobe.models.mixers.contract import Site
from attnprobe.models.mixers.state_space.hippo import diagonal_plus_low_rank
from attnprobe.models.mixers.state_space.layer import (
    SampledConvolution,
    SampledSettings,
    complex_normal,
    complex_of,
    for_channels,
)
from attnprobe.models.parts import Derived, Initial, constant, normal

MOST_WORK = 2**33  # channels x states^3: a minute or two for the start of a layer
LEAST_DECAY = 1e-3  # at the start, of the eigenvalues' real parts
# Of an eigenvalue and its conjugate only the first is kept; sums over both are twice the real part.


class S4Convolution(SampledConvolution):
    """K_l = C A^l B of the LegS system after the bilinear rule, by its generating function at the roots of unity.

    ``output`` is C (1 - A^length): only with it is the generating function that of the cut kernel (S4, appendix C.3).
    So the same numbers are another C at another ``length``, that of the longest sequence the layer was made for.
    """

    system = (*SampledConvolution.system, "low_rank")

    def __init__(self, site: Site, settings: "S4Settings") -> None:
        super().__init__(site, settings)
        self.settings = settings
        self.low_rank = nn.Parameter(torch.empty_like(self.input))  # P

    def initial(self) -> Mapping[str, Initial]:
        eigenvalue, low_rank, given = map(torch.from_numpy, diagonal_plus_low_rank(self.settings.states))
        structured: dict[str, Initial] = {
            "log_step": self.settings.log_step,
            "log_decay": constant((-eigenvalue.real).clamp(min=LEAST_DECAY).log()),
            "frequency": constant(eigenvalue.imag),
            "low_rank": constant(torch.view_as_real(low_rank)),
            "input": constant(torch.view_as_real(given)),
            "output": Derived(("log_step", "log_decay", "frequency", "low_rank"), self._output),
            "skip": normal(),
        }
        return self.settings.starts(structured)

    def _output(
        self, tensor: Tensor, generator: torch.Generator, log_step: Tensor, log_decay: Tensor, frequency: Tensor,
        low_rank: Tensor,
    ) -> None:  # fmt: skip
        """C is complex normal; from it C (1 - A^length)."""
        complex_normal(tensor, generator)
        eigenvalue = for_channels(torch.complex(-log_decay.double().exp(), frequency.double()), self.channels)
        p = for_channels(complex_of(low_rank.double()), self.channels)
        sampled = bilinear(eigenvalue, p, log_step.double().exp())
        tensor.copy_(torch.view_as_real(cut(complex_of(tensor.double()), sampled, self.length)))

    def _sampled(self) -> Tensor:
        step, eigenvalue, _ = self.of_channels(exact=True)
        p = for_channels(complex_of(self.low_rank.double()), self.channels)
        return bilinear(eigenvalue, p, step.squeeze(-1))

    def readout(self) -> Tensor:
        """C ([member,] direction, channel, state), complex128, which belongs to no length."""
        return uncut(complex_of(self.output.double()), self._sampled(), self.length)

    @torch.no_grad()
    def carried(self, source: nn.Module, names: Collection[str]) -> None:
        """What is carried over is C, not the number that stands for it at the length of ``source``."""
        assert isinstance(source, S4Convolution), "the same parameters"
        whole = {*self.system, "log_step", "output"} <= set(names)
        if "output" in names and not (whole and source.length == self.length):
            own = cut(source.readout().to(self.output.device), self._sampled(), self.length)
            self.output.copy_(torch.view_as_real(own))

    def kernels(self, length: int) -> Tensor:
        """Of any length; one beyond that of the layer costs as much as its start does."""
        step, eigenvalue, b = self.of_channels()
        p = for_channels(complex_of(self.low_rank), self.channels)
        c, circle = complex_of(self.output), self.length
        if length > circle:
            sampled, circle = self._sampled(), length
            c = cut(uncut(c.to(sampled.dtype), sampled, self.length), sampled, circle).to(c.dtype)
        angle = torch.arange(circle // 2 + 1, device=step.device, dtype=torch.float64) * (-2 * torch.pi / circle)
        root = torch.polar(torch.ones_like(angle), angle).to(eigenvalue.dtype)  # omega
        # Of every state the resolvent 2 step / (1 + omega) / (z - step eigenvalue), which is finite at omega = -1 too.
        scaled = (step * eigenvalue)[..., None]
        resolvent = [
            2 * step[..., None] / (2 * (1 - root) - value * (1 + root)) for value in (scaled, scaled.conj())
        ]  # ([member,] channel, state, frequency) twice

        def summed(weight: Tensor) -> Tensor:
            """([member, direction,] channel, state) -> (..., channel, frequency), over the conjugate states too."""
            near, far = (w[..., None, :] @ r for w, r in zip((weight, weight.conj()), resolvent, strict=True))
            return (near + far).squeeze(-2)

        def summed_output(weight: Tensor) -> Tensor:
            return summed(weight.movedim(-3, 0)).movedim(0, -3)

        straight, left = summed_output(c * b[..., None, :, :]), summed_output(c * p[..., None, :, :])
        right, both_sides = summed(p.conj() * b), summed(p.conj() * p)
        correction = (right * (1 + root) / (2 + (1 + root) * both_sides))[..., None, :, :]
        return torch.fft.irfft(straight - left * correction, n=circle)[..., :length]


def both(x: Tensor) -> Tensor:
    """(..., state) -> with the conjugates behind."""
    return torch.cat([x, x.conj()], -1)


def cut(c: Tensor, sampled: Tensor, length: int) -> Tensor:
    """C (1 - A^length): ([member,] direction, channel, state), ([member,] channel, state, state) -> like C."""
    rows = both(c).transpose(-3, -2)  # (channel, direction, state)
    rows = rows - rows @ torch.linalg.matrix_power(sampled, length)
    return rows[..., : c.shape[-1]].transpose(-3, -2).resolve_conj()


def uncut(c: Tensor, sampled: Tensor, length: int) -> Tensor:
    """The inverse of ``cut``; all eigenvalues of A are less than 1, because those before sampling decay."""
    one = torch.eye(sampled.shape[-1], dtype=sampled.dtype, device=sampled.device)
    rows = both(c).transpose(-3, -2)
    rows = torch.linalg.solve(one - torch.linalg.matrix_power(sampled, length), rows, left=False)
    return rows[..., : c.shape[-1]].transpose(-3, -2).resolve_conj()


def bilinear(eigenvalue: Tensor, low_rank: Tensor, step: Tensor) -> Tensor:
    """([member,] channel, state, state) the matrix after sampling, over both halves of the states; complex128."""
    p = both(low_rank)
    matrix = torch.diag_embed(both(eigenvalue)) - p[..., :, None] * p.conj()[..., None, :]
    half = step[..., None, None] / 2 * matrix
    one = torch.eye(p.shape[-1], dtype=half.dtype, device=half.device)
    return torch.linalg.solve(one - half, one + half)


@dataclasses.dataclass(frozen=True, kw_only=True)
class S4Settings(SampledSettings):
    """A state-space model with the LegS matrix (Gu et al. 2022, S4)."""

    def check(self, d_model: int) -> None:
        super().check(d_model)
        message = f"{self.states:,} make the start of {d_model:,} channels too long: its time grows like their cube"
        require(d_model * self.states**3 <= MOST_WORK, "mixer.states", message, hint="published ones have 64 to 256")

    def convolution(self, site: Site) -> S4Convolution:
        return S4Convolution(site, self)
