"""Padded sequences are moved along directions over their own real pairs, without the column sums over these."""

import numpy as np
import pytest
import torch

from attnprobe.capture import ours
from attnprobe.models import TransformerConfig, make_model
from attnprobe.probes.blindness import Claim, default_claims, measure
from attnprobe.probes.blindness.derivatives import Stepper, real_positions, slopes
from attnprobe.probes.blindness.padding import Padded
from attnprobe.scores.directions import Projector, ScoreSpace
from attnprobe.scores.layout import Layout
from attnprobe.tasks import Spec, Split

LENGTH, N = 17, 40


def trends(*, padded: bool) -> ours.Ours:
    """One layer whose attention is uniform, a readout of the mean position, and classes of opposite trends."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(5, LENGTH + 1, (N,), generator=generator) if padded else None
    inputs = torch.randn(N, LENGTH, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = torch.arange(N) % 2
    inputs = inputs + 2 * labels[:, None, None] * torch.linspace(-1, 1, LENGTH, dtype=torch.float64)[None, :, None]
    config = TransformerConfig(d_model=8, heads=2, layers=1, d_mlp=0, positions="none", norm_place="before")
    model = make_model(config, Spec(length=LENGTH, classes=2, channels=2), "values", seed=0).double()
    model.norm = None
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if ".q." in name:
                weights.zero_()
    return ours.of(model, Split(inputs=inputs, labels=labels, lengths=lengths))


@pytest.mark.parametrize("padded", [False, True])
def test_uniform_attention_read_by_the_mean_is_blind_whatever_the_lengths(padded: bool) -> None:
    """C1's zero. Along the directions of the full length padding alone gave slopes as large as reconstruction's."""
    subject = trends(padded=padded)
    claims = [claim for claim in default_claims(subject.space, 0) if claim.direction.name == "contrast r=2"]
    found = measure(subject, claims=claims, stepped=6, shuffles=199)
    slope = {
        loss: [abs(r.interval.estimate) for r in found.rows if (r.quantity, r.loss) == ("slope", loss)]
        for loss in ("label", "reconstruction")
    }
    assert len(slope["label"]) == 2
    assert max(slope["label"]) < 1e-15
    assert max(slope["reconstruction"]) > 1e-4
    assert found.passed
    assert all(row.agrees for row in found.rows if row.agrees is not None)


def dense(space: ScoreSpace, claim: Claim, mask: np.ndarray) -> np.ndarray:
    """Of unit norm over the real pairs, (length, length): the rest of least squares on everything that has row sums or
    weighted column sums.
    """
    rows = slice(0, space.length)
    seen = space.visible(rows).numpy() & mask & mask[:, None]
    given = claim.direction.block(space, rows)[0, 0].double().numpy()
    pairs, count = np.argwhere(seen), seen.sum(1)
    constraints = [(pairs[:, 0] == i) * 1.0 for i in np.flatnonzero(mask)]
    if claim.balanced:
        constraints += [(pairs[:, 1] == j) / count[pairs[:, 0]] for j in np.flatnonzero(mask)]
    basis = np.stack(constraints, 1)
    values = given[seen]
    rest = values - basis @ np.linalg.lstsq(basis, values, rcond=1e-12)[0]
    found = np.zeros_like(given)
    norm = np.linalg.norm(rest)
    found[seen] = rest / norm if norm > 1e-9 * np.abs(values).max() else 0.0
    return found


@pytest.mark.parametrize(
    "layout",
    [
        Layout(shape=(11,)),
        Layout(shape=(3, 5)),
        Layout(shape=(11,), causal=True),
        Layout(shape=(11,), window=2),
        Layout(shape=(11,), block=3, causal=True),
    ],
)
def test_fitted_directions_are_what_least_squares_leave(layout: Layout) -> None:
    space = ScoreSpace(layout=layout)
    claims = default_claims(space, 1)
    padded = Padded(Projector(space, [claim.direction for claim in claims], layers=1, heads=1), claims)
    holes = torch.rand(space.length, generator=torch.Generator().manual_seed(3)) < 0.6
    masks = [torch.arange(space.length) < length for length in (1, 2, 7, space.length)]
    for mask in [*masks, holes]:
        for claim in claims:
            wanted = dense(space, claim, mask.numpy())
            for _ in range(2):  # the second time from what was kept
                found = padded.matrix(claim.direction.name, mask)[0, 0].numpy()
                np.testing.assert_allclose(found, wanted, atol=1e-9, err_msg=claim.direction.name)
            assert float(padded.largest(claim.direction.name, mask)) == pytest.approx(np.abs(wanted).max(), abs=1e-9)


@pytest.mark.parametrize("readout", ["mean", "token"])
def test_slopes_and_steps_take_the_direction_of_each_sequence(readout: str) -> None:
    """Against gradients of dense score offsets."""
    config = TransformerConfig(d_model=6, heads=3, layers=2, d_mlp=5, readout=readout)
    model = make_model(config, Spec(length=LENGTH, classes=3), "values", seed=0).double()
    inputs = torch.randn(7, LENGTH, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    subject = ours.of(
        model, Split(inputs=inputs, labels=torch.arange(7) % 3, lengths=torch.tensor([5, 17, 8, 8, 1, 11, 2]))
    )
    space, samples = subject.space, np.arange(7)
    claims = default_claims(space, 0)
    projector = Projector(space, [claim.direction for claim in claims], layers=2, heads=3)
    padded = Padded(projector, claims)
    by_name = {claim.direction.name: claim for claim in claims}
    valid = real_positions(subject, samples)
    assert valid is not None
    for loss, targets in (("label", 3), ("reconstruction", 1)):
        found = slopes(subject, loss, samples, projector, padded)
        zero = torch.zeros(7, 3, space.size, space.size, dtype=torch.float64, requires_grad=True)
        given = subject.loss(loss, samples, score_offsets={1: zero})
        values = given.targets if loss == "label" else given.value[:, None]
        for target in range(targets):
            (gradient,) = torch.autograd.grad(values[:, target].sum(), zero, retain_graph=True)
            gradient = gradient[..., space.leading :, space.leading :].numpy()
            for d, name in enumerate(projector.names):
                for sample in samples:
                    matrix = dense(space, by_name[name], valid[sample].numpy())
                    wanted = (gradient[sample] * matrix).sum((-2, -1))
                    np.testing.assert_allclose(found[sample, target, 1, :, d], wanted, atol=1e-12)
        for d, name in enumerate(projector.names):
            delta = projector.matrix(name)[1, 2]
            parts = [(part, real_positions(subject, part)) for part in (samples[:4], samples[4:])]
            stepper = Stepper(subject, name, (1, 2), delta, padded, parts)
            outer = stepper.outer(loss)
            if loss == "label":  # smooth
                assert outer.shape == (4, 7, 3)
                slope = (8 * (outer[2] - outer[1]) - (outer[3] - outer[0])) / (12 * stepper.size)
                np.testing.assert_allclose(slope, found[:, :, 1, 2, d], atol=1e-5 * np.abs(found).max())
