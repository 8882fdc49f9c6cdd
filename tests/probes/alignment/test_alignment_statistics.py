"""From gathered gradients to rows: exact nulls, uniform p-values, prices of detection, cosines and shares."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy import stats

from attnprobe.capture import ours
from attnprobe.probes.alignment.gather import Gathered, gather
from attnprobe.probes.alignment.inner_products import MeanGradient
from attnprobe.probes.alignment.labels import STREAM, label_dependence, shuffled_labels, shuffled_means
from attnprobe.probes.alignment.mean_gradients import chance_share, cosine_rows
from attnprobe.probes.alignment.memory import Plan
from attnprobe.probes.alignment.projections import label_rows
from attnprobe.scores.directions import ScoreSpace
from attnprobe.scores.layout import Layout
from attnprobe.statistics.permutations import permutation_p_value
from attnprobe.streams import stream
from tests.probes.alignment.alignment_cases import CLASSES, LENGTH, gather_all, make_case, make_settings


@pytest.mark.parametrize("config", [{}, {"causal": True, "readout": "last"}, {"readout": "token"}])
def test_the_null_by_recombination_is_that_of_running_again_with_shuffled_labels(config: dict) -> None:
    n, shuffles = 12, 7
    subject = make_case(n, padded=True, **config)
    split = subject.split
    labels = split.labels.numpy()
    gathered, _ = gather_all(subject, "label")
    means, ts = shuffled_labels(gathered.targets, gathered.projections, labels, make_settings(3, shuffles))
    permuted = stream(3, "label shuffles").permuted(np.tile(labels, (shuffles, 1)), axis=1)
    shares = np.bincount(labels, minlength=CLASSES) / n
    for s in range(shuffles):
        other = dataclasses.replace(split, labels=torch.from_numpy(permuted[s]))
        again, _ = gather_all(ours.of(subject.model, other), "label", rows=4)
        samples = again.projection
        # Nothing but the class token's own query is read from the last layer.
        layers = slice(1 if config.get("readout") == "token" else 2)
        t = samples.mean(0)[layers] / stats.sem(samples)[layers]
        np.testing.assert_allclose(ts[s][layers], t, rtol=1e-8)
        # Taking the labels' average out by brute force, too: every sequence with every label.
        average = np.zeros(samples.shape[1:])
        for c in range(CLASSES):
            same = dataclasses.replace(split, labels=torch.full((n,), c))
            average += shares[c] * gather_all(ours.of(subject.model, same), "label")[0].projection.mean(0)
        np.testing.assert_allclose(means[s], samples.mean(0) - average, atol=1e-14)


def test_the_label_dependent_part_is_the_mean_minus_its_average_over_all_relabellings() -> None:
    subject = make_case(15)
    split = subject.split
    gathered, projector = gather_all(subject, "label")
    rows = label_rows(gathered, split.labels.numpy(), projector.names, make_settings(shuffles=19999))
    found = {(r.quantity, r.layer, r.head, r.direction): r.interval.estimate for r in rows}
    null, _ = shuffled_labels(
        gathered.targets, gathered.projections, split.labels.numpy(), make_settings(1, shuffles=19999)
    )
    error = null.std(0) / math.sqrt(len(null))
    assert (np.abs(null.mean(0)) < 5 * error).all()  # centred: what is left is not in the labels
    for layer, head, d in np.ndindex(null.shape[1:]):
        place = (layer, head, projector.names[d])
        assert found["label.mean", *place] == pytest.approx(gathered.projection[:, layer, head, d].mean(), abs=1e-15)


def gaussian_gathered(generator: np.random.Generator, n: int, signal: float, labels: np.ndarray) -> Gathered:
    """Projections of 4 logits with strong class-free parts, and a part of size ``signal`` that follows the label."""
    logits = generator.standard_normal((n, 4))
    g = 3.0 + generator.standard_normal((n, 4, 1, 1, 1)) + generator.standard_normal((4, 1, 1, 1))
    g[np.arange(n), labels, 0, 0, 0] += signal
    one_hot = np.eye(4)[labels]
    coefficients = np.exp(logits) / np.exp(logits).sum(1, keepdims=True) - one_hot
    nothing = np.zeros((n, 1, 1))
    return Gathered(
        targets=logits,
        projections=g,
        projection=np.einsum("nc,nclhd->nlhd", coefficients, g),
        energy=nothing,
        offset_energy=nothing,
        profile=nothing,
        profile_error=nothing,
        group_means={},
    )


def test_p_values_are_uniform_without_a_signal_and_intervals_cover() -> None:
    p_values, covered = [], []
    for repeat in range(100):
        generator = np.random.default_rng(repeat)
        labels = generator.integers(0, 4, 60)
        rows = label_rows(gaussian_gathered(generator, 60, 0.0, labels), labels, ["d"], make_settings(repeat, 99))
        (row,) = [r for r in rows if r.quantity == "label.dependent.mean"]
        p_values.append(row.p_value)
        covered.append(row.interval.low <= 0 <= row.interval.high)
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    assert 0.90 <= np.mean(covered) <= 0.99


def test_price_of_detection_predicts_how_many_sequences_it_takes() -> None:
    signal, many, z = 0.4, 3000, 1.96
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, many)
    rows = label_rows(gaussian_gathered(generator, many, signal, labels), labels, ["d"], make_settings(shuffles=19))
    (price,) = [r.interval for r in rows if r.quantity == "label.dependent.sequences"]
    # mean_c g_c - g_label has mean -(1 - 1/4) signal and variance 1 - 1/4; 0.84 deviations make a power of 80 %.
    assert price.estimate == pytest.approx((z + 0.8416) ** 2 * 0.75 / (0.75 * signal) ** 2, rel=0.15)
    assert price.low <= price.estimate <= price.high
    assert price.unit == "sequences at level 0.95, power 0.8"
    needed, seen = round((z + 0.8416) ** 2 / 0.75 / signal**2), 0
    for repeat in range(200):
        draw = np.random.default_rng(repeat + 1)
        few = draw.integers(0, 4, needed)
        gathered = gaussian_gathered(draw, needed, signal, few)
        null, _ = shuffled_labels(gathered.targets, gathered.projections, few, make_settings(repeat, 199))
        mean = label_dependence(gathered.projections, few).mean(0)
        seen += float(permutation_p_value(mean, null).item()) <= 0.05
    assert 143 <= seen <= 177  # 160 +- 3 standard errors


@pytest.mark.parametrize("config", [{}, {"readout": "token"}, {"positions": "rotary"}, {"causal": True}])
def test_inner_products_with_the_other_mean_gradient_are_those_of_whole_gradients(config: dict) -> None:
    subject = make_case(6, padded=True, **config)
    pulled, projector = gather_all(subject, "reconstruction", groups=2)
    other = MeanGradient.of_groups(pulled.group_means, np.array([3, 3]), subject)
    plan = Plan(method="streamed", groups=2, batch=2, rows=4, batch_of_all=2, rows_of_all=4, keep_scores=True)
    groups = np.array_split(np.arange(6), 2)
    inner = gather(subject, groups, "label", projector, plan, other=other).inner
    assert set(inner) == {"scores", "offsets", "W_Q", "W_K"}
    space, (layers, heads) = subject.space, subject.shape
    rows, size = slice(0, space.length), space.size
    counts = space.fold(space.visible(rows).double(), rows).clamp(min=1).sqrt()
    means = {name: torch.from_numpy(x.mean(0)) for name, x in pulled.group_means.items()}
    zero = [torch.zeros(6, heads, size, size, dtype=torch.float64, requires_grad=True) for _ in range(layers)]
    logits = subject.loss("label", np.arange(6), score_offsets=dict(enumerate(zero))).targets
    for n, c in np.ndindex(logits.shape):
        weights = [w for pair in subject.projections() for w in pair]
        found = torch.autograd.grad(logits[n, c], [*zero, *weights], retain_graph=True, materialize_grads=True)
        scores = torch.stack([g[n, :, space.leading :, space.leading :] for g in found[:layers]])
        gradients = {
            "scores": scores.flatten(2),
            "offsets": (space.fold(scores, rows) / counts).flatten(2),
            "W_Q": torch.stack(found[layers::2]).unflatten(1, (heads, -1)).flatten(2),
            "W_K": torch.stack(found[layers + 1 :: 2]).unflatten(1, (heads, -1)).flatten(2),
        }
        for name, gradient in gradients.items():
            wanted = (gradient * means[name]).sum(-1)
            np.testing.assert_allclose(inner[name][n, c], wanted, atol=1e-15, rtol=1e-8, err_msg=name)


def aligned(n: int, groups: int):
    """Both losses' gradients, the label's multiplied with reconstruction's, and the labels."""
    subject = make_case(n)
    pulled, projector = gather_all(subject, "reconstruction", groups=groups)
    sizes = np.array([len(g) for g in np.array_split(np.arange(n), groups)])
    other = MeanGradient.of_groups(pulled.group_means, sizes, subject)
    plan = Plan(method="streamed", groups=groups, batch=9, rows=99, batch_of_all=9, rows_of_all=99, keep_scores=True)
    label = gather(subject, np.array_split(np.arange(n), groups), "label", projector, plan, other=other)
    return {"label": label, "reconstruction": pulled}, subject.split.labels.numpy()


def test_raw_cosines_and_their_null_are_those_of_the_whole_gradients() -> None:
    gathered, labels = aligned(30, groups=2)
    settings = make_settings(5, shuffles=19)
    rows = {(r.quantity, r.layer, r.head): r for r in cosine_rows(gathered, labels, settings)}
    x, y = (gathered[loss].group_means["W_K"].mean(0)[1, 2] for loss in ("label", "reconstruction"))
    raw = rows["cosine.W_K.raw", 1, 2].interval.estimate
    assert raw == pytest.approx(float(x @ y / np.linalg.norm(x) / np.linalg.norm(y)), rel=1e-9)
    inner = gathered["label"].inner["W_K"][..., 1, 2]
    null = shuffled_means(inner, labels, 19, settings.draws(STREAM))
    assert rows["cosine.W_K", 1, 2].p_value == pytest.approx(
        (1 + (np.abs(null) >= abs(label_dependence(inner, labels).mean())).sum()) / 20
    )
    band = rows["cosine.W_K.null", 1, 2].interval
    assert band.estimate == pytest.approx(null.mean() * 30 / 29 / np.linalg.norm(x) / np.linalg.norm(y), rel=1e-9)
    assert band.low < band.estimate < band.high
    two = shuffled_labels(gathered["label"].targets, gathered["label"].projections, labels, settings)[0]
    again = shuffled_means(gathered["label"].projections, labels, 19, settings.draws(STREAM))
    np.testing.assert_allclose(again, two, atol=1e-15)


def test_shuffled_means_of_some_sequences_are_those_of_measuring_them_with_their_shuffled_labels() -> None:
    draw, where = np.random.default_rng(0), np.array([0, 3, 4, 10])
    g, labels = draw.standard_normal((4, 3, 2)), np.arange(11) % 3
    found = shuffled_means(g, labels, 70, stream(1, "shuffles"), where=where)
    again = stream(1, "shuffles")
    permuted = np.concatenate([again.permuted(np.tile(labels, (count, 1)), axis=1) for count in (64, 6)])
    wanted = [label_dependence(g, shuffled[where]).mean(0) for shuffled in permuted]
    np.testing.assert_allclose(found, wanted, atol=1e-15)


def test_cosines_of_a_gradient_with_itself_are_one() -> None:
    gathered, labels = aligned(40, groups=20)
    label = gathered["label"]
    twin = dataclasses.replace(gathered["reconstruction"], group_means=label.group_means)
    rows = cosine_rows({"label": label, "reconstruction": twin}, labels, make_settings(shuffles=19))
    places = ("scores", "offsets", "W_Q", "W_K")
    assert {r.quantity for r in rows} == {f"cosine.{w}{s}" for w in places for s in ("", ".raw", ".null")}
    known = [r for r in rows if not r.quantity.endswith(".null") and not math.isnan(r.interval.estimate)]
    assert sum(r.quantity.endswith(".raw") for r in known) == 24
    for row in known:
        assert row.interval.estimate == pytest.approx(1, abs=1e-12), row.quantity


@pytest.mark.parametrize(
    "space",
    [
        ScoreSpace(layout=Layout(shape=(7,))),
        ScoreSpace(layout=Layout(shape=(7,), causal=True)),
        ScoreSpace(layout=Layout(shape=(3, 4))),
        ScoreSpace(layout=Layout(shape=(5,)), leading=1),
        ScoreSpace(layout=Layout(shape=(7,), block=2)),
        ScoreSpace(layout=Layout(shape=(7,), window=2, causal=True), leading=1),
    ],
)
def test_chance_share_is_that_of_random_gradients(space: ScoreSpace) -> None:
    rows = slice(0, space.length)
    mask = space.layout.rule.whole(space.size)
    visible = (torch.ones(space.size, space.size).bool() if mask is None else mask)[space.leading :]
    g = torch.randn(20000, *visible.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * visible
    g = ((g - g.sum(-1, keepdim=True) / visible.sum(-1, keepdim=True)) * visible)[..., space.leading :]
    counts = space.fold(space.visible(rows).double(), rows).clamp(min=1)
    part = (space.fold(g, rows).square() / counts).flatten(1).sum(1)
    assert chance_share(space) == pytest.approx(float(part.mean() / g.square().sum((-2, -1)).mean()), rel=0.02)


@pytest.mark.parametrize(
    "space",
    [
        ScoreSpace(layout=Layout(shape=(7,))),
        ScoreSpace(layout=Layout(shape=(3, 4))),
        ScoreSpace(layout=Layout(shape=(5,)), leading=1),
        ScoreSpace(layout=Layout(shape=(7,), window=2, causal=True), leading=1),
    ],
)
def test_chance_share_of_padded_sequences_is_that_of_random_gradients_over_their_real_pairs(space: ScoreSpace) -> None:
    valid = torch.arange(space.length) < torch.tensor([space.length, 4, 4, 2])[:, None]
    rule = space.layout.rule.whole(space.size)
    whole = torch.ones(space.size, space.size).bool() if rule is None else rule
    generator, energies = torch.Generator().manual_seed(0), np.zeros(2)
    for mask in valid:
        real = torch.cat([torch.ones(space.leading).bool(), mask])
        seen = (whole & real & real[:, None])[space.leading :].double()
        g = torch.randn(20000, *seen.shape, generator=generator, dtype=torch.float64) * seen
        g = ((g - g.sum(-1, keepdim=True) / seen.sum(-1).clamp(min=1)[:, None]) * seen)[..., space.leading :]
        counts = space.fold(seen[:, space.leading :], slice(0, space.length)).clamp(min=1)
        kept = (space.fold(g, slice(0, space.length)).square() / counts).flatten(1).sum(1)
        energies += float(kept.mean()), float(g.square().sum((-2, -1)).mean())
    assert chance_share(space, valid) == pytest.approx(energies[0] / energies[1], rel=0.02)
    full = torch.ones(3, space.length, dtype=torch.bool)
    assert chance_share(space, full) == pytest.approx(chance_share(space), rel=1e-9)


def test_offset_energy_of_a_padded_sequence_is_that_of_the_nearest_profile_over_its_real_pairs() -> None:
    subject = make_case(6, padded=True)
    gathered, _ = gather_all(subject, "reconstruction", rows=4)
    assert gathered.valid is not None
    zero = torch.zeros(6, 3, LENGTH, LENGTH, dtype=torch.float64, requires_grad=True)
    total = subject.loss("reconstruction", np.arange(6), score_offsets={1: zero}).value.sum()
    gradient = torch.autograd.grad(total, zero)[0].numpy()
    for sequence, n in enumerate(gathered.valid.sum(1)):
        assert (gathered.valid[sequence] == (np.arange(LENGTH) < n)).all()
        for head in range(3):
            energy = 0.0
            for offset in range(1 - n, n):
                values = [gradient[sequence, head, i, i + offset] for i in range(n) if 0 <= i + offset < n]
                energy += len(values) * np.mean(values) ** 2
            assert gathered.offset_energy[sequence, 1, head] == pytest.approx(energy, rel=1e-9)
    shares = gathered.offset_energy / gathered.energy
    assert ((shares > 0) & (shares <= 1)).all()
