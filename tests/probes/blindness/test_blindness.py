"""Are labels blind to directions of the scores? Derivatives, the decision, its bound, and what is refused."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from attnprobe.capture import ours
from attnprobe.errors import ConfigError, NotApplicableError
from attnprobe.models import TransformerConfig, make_model
from attnprobe.objectives import MaskedReconstruction
from attnprobe.probes.blindness import Claim, default_claims, measure
from attnprobe.probes.blindness.derivatives import along
from attnprobe.scores.directions import Projector, ScoreSpace
from attnprobe.scores.layout import Layout
from attnprobe.streams import stream
from attnprobe.tasks import Spec, Split

SPEC = Spec(length=7, classes=3, channels=2)
CONFIG = TransformerConfig(d_model=6, heads=3, layers=2, d_mlp=5)
N = 11


def split() -> Split:
    generator = torch.Generator().manual_seed(0)
    return Split(inputs=torch.randn(N, 7, 2, generator=generator, dtype=torch.float64), labels=torch.arange(N) % 3)


def subject(seed: int = 0) -> ours.Ours:
    return ours.of(make_model(CONFIG, SPEC, "values", seed=seed), split())


def test_every_derivative_equals_a_direct_one() -> None:
    """Slope and curvature along one direction of one head, from the mean loss as a function of one number."""
    model = make_model(CONFIG, SPEC, "values", seed=0).double()
    quadratic = MaskedReconstruction(loss="l2")
    here = ours.of(model, split(), trained=[quadratic])
    rows = measure(here, shuffles=99, memory_limit=2**30).rows
    claims = default_claims(here.space, 0)
    projector = Projector(here.space, [claim.direction for claim in claims], layers=2, heads=3)
    data = split().batch(torch.arange(N))
    shares = torch.bincount(data.labels).double() / N

    def mean_loss(loss: str, offset: torch.Tensor) -> torch.Tensor:
        if loss == "reconstruction":
            return here.loss("reconstruction", np.arange(N), score_offsets={1: offset}).value.mean()
        logits = model.classify(model(data.inputs, score_offsets={1: offset}))
        return (logits.mean(0) * shares).sum() - logits[torch.arange(N), data.labels].mean()  # what depends on labels

    for name in ("contrast r=2", "key-only", "random blind"):
        delta = torch.zeros(3, 7, 7, dtype=torch.float64)
        delta[2] = projector.matrix(name)[1, 2]
        for loss in ("label", "reconstruction"):
            t = torch.zeros((), dtype=torch.float64, requires_grad=True)
            with sdpa_kernel(SDPBackend.MATH):
                (slope,) = torch.autograd.grad(mean_loss(loss, t * delta[None]), t, create_graph=True)
                (curvature,) = torch.autograd.grad(slope, t)
            for quantity, wanted, error in (("slope", slope, 1e-9), ("curvature", curvature, 1e-4)):
                [row] = [
                    r
                    for r in rows
                    if (r.layer, r.head, r.direction, r.loss, r.quantity) == (1, 2, name, loss, quantity)
                ]
                assert row.interval.estimate == pytest.approx(wanted.item(), rel=error, abs=1e-13)
                assert row.interval.low <= row.interval.estimate <= row.interval.high
    assert all(row.agrees for row in rows if row.agrees is not None)
    assert not any(row.rough for row in rows)
    assert len(rows) == 6 * 2 * 3 * 2 * 3 + 2


def test_curvature_of_an_absolute_error_is_that_of_its_mean_not_what_differentiating_twice_gives() -> None:
    """A residual x + t along the direction: the mean of |x + t| bends by twice the density of x at 0, each |x + t| by
    nothing.
    """
    residuals = stream(0, "residuals").uniform(-1, 1, (400, 50))
    step = 0.05

    def values(t: float) -> np.ndarray:
        return np.abs(residuals + t).mean(1)[:, None]

    outer = np.stack([values(t * step) for t in (-2, -1, 1, 2)])
    found = along(outer, values(0), np.sign(residuals).mean(1)[:, None], step)
    error = found.curvature.std() / np.sqrt(400)
    assert found.rough
    assert all(found.agrees.values())
    assert error < 0.05
    assert abs(found.curvature.mean() - 1) < 4 * error  # the density of x is 1/2


def test_a_wrong_derivative_is_found_in_a_smooth_loss_and_in_one_with_kinks() -> None:
    draws = stream(0, "draws").standard_normal((100, 20))
    for value in (np.abs, np.square):
        outer = np.stack([value(draws + t * 0.05).mean(1)[:, None] for t in (-2, -1, 1, 2)])
        slope = (np.sign(draws) if value is np.abs else 2 * draws).mean(1)[:, None]
        for wrong, agrees in ((slope, True), (slope + 0.3, False)):
            assert along(outer, value(draws).mean(1)[:, None], wrong, 0.05).agrees["slope"] == agrees


@pytest.mark.parametrize(
    "layout",
    [
        Layout(shape=(7,)),
        Layout(shape=(3, 5)),
        Layout(shape=(7,), causal=True),
        Layout(shape=(11,), window=2),
        Layout(shape=(11,), block=3, causal=True),
    ],
)
def test_blind_directions_move_no_mean_at_uniform_attention_and_controls_do(layout: Layout) -> None:
    space = ScoreSpace(layout=layout)
    claims = default_claims(space, 1)
    projector = Projector(space, [claim.direction for claim in claims], layers=1, heads=1)
    values = torch.randn(space.length, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    hidden = torch.where(space.visible(slice(0, space.length)), 0.0, -torch.inf).double()
    for claim in claims:
        delta = projector.matrix(claim.direction.name)[0, 0]
        back, on = (((hidden + t * delta).softmax(-1) @ values).mean(0) for t in (-1e-5, 1e-5))
        change = float((on - back).abs().max()) / 2e-5
        assert change < 1e-9 if claim.blind else change > 1e-3, claim.direction.name


def planted(strength: float, seed: int) -> tuple[ours.Ours, list[Claim]]:
    """Labels that a step along the direction raises the logits of, in a share ``strength`` of the sequences."""
    model = make_model(TransformerConfig(d_model=4, heads=1, d_mlp=4), Spec(length=7, classes=2), "values", seed=3)
    model = model.double()
    inputs = torch.randn(60, 7, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    space = ours.of(model, Split(inputs=inputs, labels=torch.zeros(60, dtype=torch.int64))).space
    claims = [claim for claim in default_claims(space, 0) if claim.direction.name in ("contrast r=1", "key-only")]
    directions = [claim.direction for claim in claims]
    step = 1e-3 * Projector(space, directions, layers=1, heads=1).matrix("contrast r=1")
    with torch.no_grad():
        moved, rest = (model.classify(model(inputs, score_offsets=o)) for o in ({0: step}, None))
    change = (moved - rest) @ torch.tensor([-1.0, 1.0], dtype=torch.float64)
    labels = (change > change.median()).long()
    chance = stream(seed, "labels").permutation(np.arange(60))[round(60 * strength) :]
    labels[np.sort(chance)] = labels[chance]
    return ours.of(model, Split(inputs=inputs, labels=labels)), claims


def test_labels_that_depend_on_the_direction_end_blindness_and_shuffled_ones_do_not() -> None:
    seen = measure(planted(1.0, 0)[0], claims=planted(1.0, 0)[1], n=60, shuffles=199)
    assert not seen.passed
    assert seen.answer.family_p == 1 / 200
    found = [measure(s, claims=claims, n=60, shuffles=199) for s, claims in (planted(0.0, seed) for seed in range(8))]
    assert sum(not f.passed for f in found) <= 2
    assert np.ptp([f.answer.family_p for f in found]) > 0.3
    assert all(row.agrees for f in [*found, seen] for row in f.rows if row.agrees is not None)


def test_unresolved_reconstruction_bounds_nothing() -> None:
    found = measure(subject(), shuffles=99)
    for row in (r for r in found.rows if r.loss == "label / reconstruction" and r.layer is not None):
        pull = next(
            r
            for r in found.rows
            if r.loss == "reconstruction"
            and (r.layer, r.head, r.direction, r.quantity) == (row.layer, row.head, row.direction, row.quantity)
        )
        assert row.interval.low == 0 <= row.interval.estimate <= row.interval.high
        if pull.interval.low <= 0 <= pull.interval.high:  # not even alone
            assert row.interval.high == np.inf
    bounds = [
        row.interval.high
        for row in found.rows
        if row.family == "blind" and row.quantity == "slope" and row.loss == "label / reconstruction"
    ]
    assert found.answer.unresolved == sum(np.isinf(bounds)) > 0
    assert found.answer.interval.high == max((b for b in bounds if np.isfinite(b)), default=np.inf)


def test_what_cannot_show_anything_is_refused() -> None:
    with pytest.raises(ConfigError, match="the number of shuffles is 18"):
        measure(subject(), shuffles=18)
    with pytest.raises(NotApplicableError, match="can be shuffled in 3 ways only"):
        measure(subject(), n=3)
    with pytest.raises(ConfigError, match="memory_limit is too small"):
        measure(subject(), memory_limit=2**10)
    same = dataclasses.replace(split(), inputs=torch.ones(N, 7, 2, dtype=torch.float64))
    with pytest.raises(NotApplicableError, match="identical"):
        measure(ours.of(make_model(CONFIG, SPEC, "values", seed=0), same))
    deaf = make_model(CONFIG, SPEC, "values", seed=0)
    torch.nn.init.zeros_(deaf.label_head.weight)
    with pytest.raises(NotApplicableError, match="label loss does not depend on the scores"):
        measure(ours.of(deaf, split()))


def test_long_sequences_are_refused() -> None:
    model = make_model(TransformerConfig(d_model=4, heads=1), Spec(length=1025, classes=2), "values", seed=0)
    with pytest.raises(NotApplicableError, match="1025"):
        measure(ours.of(model, Split(inputs=torch.zeros(20, 1025, 1), labels=torch.arange(20) % 2)))
