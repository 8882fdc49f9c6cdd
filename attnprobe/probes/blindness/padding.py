"""Directions over the real pairs of padded sequences, where those of the full length lose what labels are blind to.

A sequence of fewer positions is centred over fewer keys and pools fewer queries: column sums that vanish over the full
length do not over a part of it. They are taken off anew for every padding that occurs.
"""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from attnprobe.probes.blindness.directions import Claim, correction, potentials, row_centred
from attnprobe.scores.directions import Projector

NOTHING = 1e-10  # of the largest value before: a direction that is smaller is what rounding leaves of it


@dataclasses.dataclass(frozen=True)
class _Fit:
    """What is kept of a direction fitted to one mask: little, as there may be as many masks as sequences."""

    potentials: Tensor | None  # (real positions,) of the columns that are taken off
    norm: Tensor  # (layer or 1, head or 1); infinite where nothing is left
    largest: Tensor  # (layer or 1, head or 1) value of the unit direction


class Padded:
    """Every direction of some claims, fitted to masks: rows centred over the real keys, column sums taken off over the
    real pairs where the claim's are, of unit norm. Zero where nothing is left of it.
    """

    def __init__(self, projector: Projector, claims: Sequence[Claim]) -> None:
        self.space = projector.space
        self._balanced = {claim.direction.name: claim.balanced for claim in claims}
        self._directions = {direction.name: direction for direction in projector.directions}
        self._fits: dict[tuple[str, bytes], _Fit] = {}

    def matrix(self, name: str, mask: Tensor) -> Tensor:
        """mask (length,) bool -> (layer or 1, head or 1, length, length) float64, without leading tokens."""
        fit, rest = self._fitted(name, mask)
        length, real = self.space.length, mask.cpu().nonzero().flatten()
        whole = torch.zeros(*rest.shape[:2], length, length, dtype=torch.float64)
        whole[..., real[:, None], real] = rest / fit.norm[..., None, None]
        return whole

    def largest(self, name: str, mask: Tensor) -> Tensor:
        """Largest absolute value of ``matrix``, (layer or 1, head or 1)."""
        known = self._fits.get(_key(name, mask))
        return (known or self._fitted(name, mask)[0]).largest

    def project(self, gradient: Tensor, layer: int, valid: Tensor) -> Tensor:
        """gradient (target, sequence, head, length, length) of sequences with masks ``valid`` (sequence, length)
        -> (target, sequence, head, direction)
        """
        found = gradient.new_zeros(*gradient.shape[:3], len(self._directions))
        masks, which = valid.unique(dim=0, return_inverse=True)
        for number, mask in enumerate(masks):
            mine = (which == number).nonzero().flatten()
            part = gradient[:, mine]
            for d, name in enumerate(self._directions):
                matrix = self.matrix(name, mask).to(gradient)
                own = matrix[layer if len(matrix) > 1 else 0]
                found[:, mine, :, d] = (part * own).sum((-2, -1))
        return found

    def _fitted(self, name: str, mask: Tensor) -> tuple[_Fit, Tensor]:
        """And the direction over the real positions, before it is scaled."""
        mask = mask.cpu()
        key, real = _key(name, mask), mask.nonzero().flatten()
        rows, pairs = slice(0, self.space.length), (real[:, None], real)
        visible = self.space.visible(rows).double()[pairs]
        given = self._directions[name].block(self.space, rows).double()[(..., *pairs)]
        known = self._fits.get(key)
        if not self._balanced[name]:
            rest, b = (given - (given * visible).sum(-1, keepdim=True) / visible.sum(-1)[:, None]) * visible, None
        else:
            centred = row_centred(given[0, 0], visible)
            b = potentials(centred, visible, least_squares) if known is None else known.potentials
            assert b is not None
            rest = (centred - correction(b, visible))[None, None]
        if known is None:
            norm = rest.square().sum((-2, -1)).sqrt()
            norm = norm.where(norm > NOTHING * (given * visible).abs().amax((-2, -1)), torch.inf)
            known = self._fits[key] = _Fit(b, norm, rest.abs().amax((-2, -1)) / norm)
        return known, rest


def _key(name: str, mask: Tensor) -> tuple[str, bytes]:
    return name, mask.cpu().numpy().tobytes()


def least_squares(system: Tensor, right: Tensor) -> Tensor:
    """The shortest solution: keys that share no query leave more than one."""
    return torch.linalg.pinv(system, hermitian=True) @ right
