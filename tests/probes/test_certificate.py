import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from attnprobe.capture import ours
from attnprobe.errors import NotApplicableError
from attnprobe.models import TransformerConfig, make_model
from attnprobe.probes.certificate import blindness_directions, measure
from attnprobe.scores.directions import Projector
from attnprobe.tasks import Spec, Split

SPEC = Spec(length=7, classes=3, channels=2)
CONFIG = TransformerConfig(d_model=6, heads=3, layers=2, d_mlp=5)
N = 11


def split() -> Split:
    generator = torch.Generator().manual_seed(0)
    return Split(inputs=torch.randn(N, 7, 2, generator=generator, dtype=torch.float64), labels=torch.arange(N) % 3)


def certify(model, **settings):
    return measure(ours.of(model, split()), **{"shuffles": 99} | settings).rows


def test_every_derivative_equals_a_direct_one() -> None:
    """Slope and curvature along one direction of one head, from the mean loss as a function of one number."""
    model = make_model(CONFIG, SPEC, "values", seed=0).double()
    rows = certify(model, batch=4)
    subject = ours.of(model, split())
    space = subject.space
    directions = blindness_directions(space, 0)
    projector = Projector(space, directions, layers=2, heads=3)
    data = split().batch(torch.arange(N))

    def mean_loss(loss: str, offset: torch.Tensor) -> torch.Tensor:
        if loss == "label":
            return F.cross_entropy(model.classify(model(data.inputs, score_offsets={1: offset})), data.labels)
        return subject.loss("reconstruction", np.arange(N), score_offsets={1: offset}).value.mean()

    for name in ("proximity r=2", "key-only", "random blind"):
        delta = torch.zeros(3, 7, 7, dtype=torch.float64)
        delta[2] = projector.matrix(name)[1, 2]
        for loss in ("label", "reconstruction"):
            t = torch.zeros((), dtype=torch.float64, requires_grad=True)
            with sdpa_kernel(SDPBackend.MATH):
                (slope,) = torch.autograd.grad(mean_loss(loss, t * delta[None]), t, create_graph=True)
                (curvature,) = torch.autograd.grad(slope, t)
            for quantity, wanted in (("slope", slope), ("curvature", curvature)):
                [row] = [
                    r
                    for r in rows
                    if (r.layer, r.head, r.direction, r.loss, r.quantity) == (1, 2, name, loss, quantity)
                ]
                assert row.interval.estimate == pytest.approx(wanted.item(), rel=1e-9, abs=1e-14)
                assert row.interval.low <= row.interval.estimate <= row.interval.high
    assert all(row.agrees for row in rows)
    assert len(rows) == 6 * 2 * 3 * 4


def test_blind_directions_have_no_column_sums_and_controls_do() -> None:
    space = ours.of(make_model(CONFIG, SPEC, "values", seed=0), split()).space
    projector = Projector(space, blindness_directions(space, 1), layers=1, heads=1)
    sums = {name: projector.matrix(name)[0, 0].sum(0).abs().max().item() for name in projector.names}
    assert sums["random blind"] < 1e-12
    assert sums["random"] > 1e-3
    assert sums["key-only"] > 1e-3


def test_labels_are_detected_exactly_when_they_depend_on_the_direction() -> None:
    """Labels are the sign of what a step along the direction does to the logits; then the same labels shuffled."""
    model = make_model(TransformerConfig(d_model=4, heads=1, d_mlp=4), Spec(length=7, classes=2), "values", seed=3)
    model = model.double()
    inputs = torch.randn(60, 7, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    space = ours.of(model, Split(inputs=inputs, labels=torch.zeros(60, dtype=torch.int64))).space
    directions = blindness_directions(space, 0)[:1]
    step = 1e-3 * Projector(space, directions, layers=1, heads=1).matrix("proximity r=1")
    with torch.no_grad():
        moved, rest = (model.classify(model(inputs, score_offsets=o)) for o in ({0: step}, None))
    change = (moved - rest) @ torch.tensor([-1.0, 1.0], dtype=torch.float64)
    labels = (change > change.median()).long()

    def p_value(labels: torch.Tensor) -> float:
        subject = ours.of(model, Split(inputs=inputs, labels=labels))
        rows = measure(subject, directions=directions, n=60, shuffles=199, seed=5).rows
        return next(r.p_value for r in rows if r.loss == "label" and r.quantity == "slope")

    assert p_value(labels) == 1 / 200
    shuffled = [p_value(labels[torch.randperm(60, generator=torch.Generator().manual_seed(s))]) for s in range(8)]
    assert sum(p < 0.05 for p in shuffled) <= 2
    assert np.ptp(shuffled) > 0.3


def test_long_sequences_are_refused() -> None:
    model = make_model(TransformerConfig(d_model=4, heads=1), Spec(length=1025, classes=2), "values", seed=0)
    with pytest.raises(NotApplicableError, match="1025"):
        measure(ours.of(model, Split(inputs=torch.zeros(2, 1025, 1), labels=torch.arange(2))))
