"""The nulls of the reconstruction gradient: other orders of the positions, other phases of the profile."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy import stats

from attnprobe.capture import ours
from attnprobe.capture.ours import Ours
from attnprobe.capture.subject import Subject
from attnprobe.errors import ConfigError, NotApplicableError
from attnprobe.models import TransformerConfig, make_model
from attnprobe.probes.alignment.arrangement import comparable, phase_controls, reorderings
from attnprobe.probes.alignment.probe import Alignment, measure
from attnprobe.scores.directions import Direction, ScoreSpace
from attnprobe.scores.distance_profiles import contrast_profile
from attnprobe.scores.layout import Layout
from attnprobe.scores.named import named_directions
from attnprobe.tasks import Spec, Split
from tests.probes.alignment.alignment_cases import LENGTH, make_case


def contrast(space: ScoreSpace, radius: float = 1.0) -> Direction:
    return Direction(name=f"contrast r={radius:g}", profile=contrast_profile(space.layout, radius))


def losses(subject: Subject) -> np.ndarray:
    with torch.no_grad():
        return subject.loss("reconstruction", np.arange(subject.samples)).value.numpy()


@pytest.mark.parametrize("padded", [False, True])
def test_a_reordered_subject_is_that_of_data_reordered_by_hand(padded: bool) -> None:
    subject = make_case(7, padded=padded)
    order = np.random.default_rng(0).permutation(LENGTH)
    lengths = [LENGTH] * 7 if subject.split.lengths is None else subject.split.lengths.tolist()
    moved = subject.split.inputs.clone()
    for sequence, n in enumerate(lengths):
        for place, source in enumerate(i for i in order if i < n):
            moved[sequence, place] = subject.split.inputs[sequence, source]
    by_hand = Ours(subject.model, dataclasses.replace(subject.split, inputs=moved), subject.reconstruction, 0)
    reordered = subject.reordered(order)
    np.testing.assert_array_equal(losses(reordered), losses(by_hand))
    assert not np.allclose(losses(reordered), losses(subject))
    if not padded:
        np.testing.assert_array_equal(losses(reordered.reordered(np.argsort(order))), losses(subject))
    assert torch.equal(reordered.double()._batch(np.arange(7)).inputs, moved)
    for other in (reordered.with_projections_of(subject), reordered.redrawn(0)):
        assert torch.equal(other._batch(np.arange(7)).inputs, moved)


def test_both_sequences_of_a_pair_are_reordered() -> None:
    spec = Spec(length=5, classes=2, vocabulary=9, pairs=True)
    model = make_model(TransformerConfig(d_model=4, heads=1, d_mlp=4), spec, "classes", seed=0)
    inputs = torch.arange(30).view(3, 2, 5) % 8 + 1
    split = Split(inputs=inputs, labels=torch.tensor([0, 1, 0]), lengths=torch.tensor([[5, 3], [4, 5], [2, 1]]))
    moved = ours.of(model, split).reordered(np.array([4, 2, 0, 3, 1]))._batch(np.arange(3)).inputs
    for pair, lengths in enumerate([[5, 3], [4, 5], [2, 1]]):
        for one, n in enumerate(lengths):
            wanted = [i for i in (4, 2, 0, 3, 1) if i < n] + list(range(n, 5))
            assert moved[pair, one].tolist() == inputs[pair, one, wanted].tolist()


@pytest.mark.parametrize("padded", [False, True])
def test_what_is_hidden_does_not_depend_on_the_order(padded: bool) -> None:
    subject = make_case(7, padded=padded)
    one, other = (s._batch(np.arange(7)) for s in (subject, subject.reordered(np.arange(LENGTH)[::-1].copy())))
    hidden = [subject.reconstruction.hidden(batch, subject.seed, -1) for batch in (one, other)]
    assert torch.equal(*hidden)
    assert not torch.equal(one.inputs, other.inputs)


def small(seed: int, inputs: torch.Tensor, lengths: torch.Tensor | None = None, **config) -> Ours:
    settings = {"d_model": 8, "layers": 1, "heads": 1, "d_mlp": 8} | config
    model = make_model(TransformerConfig(**settings), Spec(length=inputs.shape[1], classes=2), "values", seed=seed)
    return ours.of(model, Split(inputs=inputs, labels=torch.arange(len(inputs)) % 2, lengths=lengths), seed=seed)


def p_values(result: Alignment, null: str) -> list[float]:
    return [row.p_value for row in result.select(f"reconstruction.{null}") if row.p_value is not None]


def test_places_change_only_with_those_that_are_real_in_the_same_sequences() -> None:
    inputs = torch.arange(33.0).view(3, 11, 1)
    subject = small(0, inputs, torch.tensor([5, 8, 8]))
    moved = [other._batch(np.arange(3)).inputs[..., 0] for other in reorderings(subject, np.arange(3), 30, 7)]
    for x in moved:
        assert torch.equal(x[0, :5] % 11, x[1, :5] % 11)  # one order for all
        assert torch.equal(x[1] % 11, x[2] % 11)
        for block in (slice(0, 5), slice(5, 8)):
            assert sorted(x[1, block].tolist()) == inputs[1, block, 0].tolist()
        assert torch.equal(x[0, 5:], inputs[0, 5:, 0])
        assert torch.equal(x[:, 8:], inputs[:, 8:, 0])
    assert len({tuple(x[1].tolist()) for x in moved}) > 25
    few = small(0, inputs, torch.tensor([4, 8, 8]))
    with pytest.raises(NotApplicableError, match="only 4 positions are real in the same ones"):
        next(reorderings(few, np.arange(3), 30, 7))


@pytest.mark.slow
def test_ranks_are_uniform_where_every_place_has_values_of_its_own() -> None:
    """Places differ in mean and spread, in random order: padded, orders of all of them gave 12 % below 0.05."""
    found = []
    for seed in range(80):
        draw = torch.Generator().manual_seed(seed)
        means = 2 * torch.randn(9, generator=draw)
        inputs = (means + torch.randn(20, 9, generator=draw))[..., None]
        subject = small(seed, inputs, torch.randint(6, 10, (20,), generator=draw), positions="sinusoidal")
        result = measure(subject, directions=[contrast(subject.space)], shuffles=19, orders=19, groups=1, seed=seed)
        found += p_values(result, "positions")
    assert stats.binomtest(sum(p <= 0.05 for p in found), len(found), 0.05).pvalue > 0.01


@pytest.mark.slow
@pytest.mark.parametrize(("positions", "padded"), [("learned", False), ("none", True)])
def test_ranks_among_orders_are_uniform_on_white_noise_whatever_the_positions(positions: str, padded: bool) -> None:
    """One head of an untrained model each; at the shuffled profiles that this replaces, 60 to 80 % were below 0.05."""
    found = []
    for seed in range(80):
        draw = torch.Generator().manual_seed(seed)
        inputs = torch.randn(20, 9, 1, generator=draw)
        lengths = torch.randint(6, 10, (20,), generator=draw) if padded else None
        subject = small(seed, inputs, lengths, positions=positions)
        result = measure(subject, directions=[contrast(subject.space)], shuffles=19, orders=19, groups=1, seed=seed)
        found += p_values(result, "positions")
    jitter = np.random.default_rng(0).uniform(size=len(found)) / 20
    assert stats.kstest(np.array(found) - jitter, "uniform").pvalue > 0.01
    assert stats.binomtest(sum(p <= 0.05 for p in found), len(found), 0.05).pvalue > 0.01


def test_data_whose_neighbours_agree_are_told_from_their_reorderings() -> None:
    walk = torch.randn(60, 13, 1, generator=torch.Generator().manual_seed(0)).cumsum(1)
    subject = small(0, walk - walk.mean(1, keepdim=True), heads=4)
    result = measure(subject, directions=[contrast(subject.space)], shuffles=19, groups=1)
    assert sum(p == 1 / 40 for p in p_values(result, "positions")) >= 2
    for row in result.select("reconstruction.positions"):
        assert row.interval.low <= row.interval.estimate <= row.interval.high
    (band, *_) = result.select("reconstruction.t.null")
    assert band.interval.low < band.interval.high


def test_the_mean_beyond_the_null_is_that_of_data_reordered_by_hand() -> None:
    subject = make_case(9, padded=True)
    options = {"directions": [contrast(subject.space)], "shuffles": 19, "groups": 1, "seed": 4}
    result = measure(subject, orders=19, **options)
    plain = [measure(s, null="none", **options) for s in (subject, *reorderings(subject, np.arange(9), 19, 4))]
    means = np.array([[r.interval.estimate for r in one.select("reconstruction.mean")] for one in plain])
    found = result.select("reconstruction.positions")
    np.testing.assert_allclose([r.interval.estimate for r in found], means[0] - means[1:].mean(0), atol=1e-12)
    away = np.abs(means - means.mean(0))
    np.testing.assert_allclose([r.p_value for r in found], (away >= away[0] * (1 - 1e-9)).mean(0))
    assert not [r for r in plain[0].rows if r.quantity in ("reconstruction.positions", "reconstruction.t.null")]


def test_phases_are_those_of_profiles_that_heads_share() -> None:
    subject = make_case(9, padded=True, readout="token")
    per_head = Direction(name="own", profile=torch.randn(2, 3, 2 * LENGTH - 1))
    directions = [*named_directions(subject.space, reach=1), per_head]
    kinds = ["contrast r=1", "contrast r=2", "contrast r=4"]
    assert [d.name for d in comparable(directions, "phase")] == kinds
    assert [d.name for d in comparable(directions, "positions")] == [*kinds, "key position", "own"]
    assert comparable(directions, "none") == []
    result = measure(subject, directions=directions, null="phase", shuffles=19, orders=19, groups=1)
    assert {r.direction for r in result.select("reconstruction.phase")} == set(kinds)
    controls = phase_controls(subject.space, directions[3], 19, seed=0)
    alone = measure(subject, directions=[directions[3], *controls], null="none", shuffles=19, groups=1)
    means = {(r.layer, r.head, r.direction): r.interval.estimate for r in alone.select("reconstruction.mean")}
    for row in result.select("reconstruction.phase"):
        if row.direction == directions[3].name:
            of_null = np.mean([means[row.layer, row.head, c.name] for c in controls])
            wanted = means[row.layer, row.head, row.direction] - of_null
            assert row.interval.estimate == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("shape", [(19,), (5, 7)])
def test_ranks_among_phases_are_uniform_for_a_gradient_without_structure(shape: tuple[int, ...]) -> None:
    """White gradients of 200 heads, projected on the direction and on its phase controls."""
    space = ScoreSpace(layout=Layout(shape=shape))
    direction = contrast(space)
    profiles = [direction.profile, *(c.profile for c in phase_controls(space, direction, 39, seed=1))]
    matrices = torch.stack([space.expand(p, slice(0, space.length)) for p in profiles if p is not None])
    matrices = matrices - matrices.mean(-1, keepdim=True)
    matrices = (matrices / matrices.norm(dim=(-2, -1), keepdim=True)).flatten(1)
    heads = torch.randn(200, space.length**2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    size = (heads @ matrices.T).abs().numpy()
    p = (size >= size[:, :1]).mean(1)
    assert stats.kstest(p - np.random.default_rng(0).uniform(size=200) / 40, "uniform").pvalue > 0.01


def test_draws_that_could_never_reach_the_level_are_refused() -> None:
    subject = make_case(8)
    measure(subject, shuffles=19, null="phase", orders=19, groups=1)
    for few in ({"shuffles": 18}, {"shuffles": 19, "orders": 18}, {"shuffles": 99, "orders": 98, "level": 0.99}):
        with pytest.raises(ConfigError, match=r"no p-value could be as small as 0.0[15]"):
            measure(subject, **few)
    measure(subject, shuffles=19, null="none", orders=3, groups=1)
    with pytest.raises(ConfigError, match="null must be positions, phase, none, got 'position'"):
        measure(subject, shuffles=19, null="position", groups=1)  # pyright: ignore[reportArgumentType]


def test_a_subject_that_cannot_be_reordered_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ours, "reordered", Subject.reordered)
    with pytest.raises(NotApplicableError, match="another order") as error:
        measure(make_case(8), shuffles=19)
    assert "random phases" in error.value.hint
