"""The alignment probe: agreement with brute force, planted and absent label signals."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from attnprobe.capture import ours
from attnprobe.capture.ours import Ours
from attnprobe.errors import ConfigError, NotApplicableError
from attnprobe.models import TransformerConfig, make_model
from attnprobe.objectives import EVALUATION, CausalPrediction, MaskedReconstruction
from attnprobe.probes.alignment import memory as alignment_memory
from attnprobe.probes.alignment.change import change_of_scores, mean_scores
from attnprobe.probes.alignment.memory import fitting_groups, make_plan
from attnprobe.probes.alignment.probe import Alignment, measure
from attnprobe.probes.score_gradients import trace
from attnprobe.scores.directions import Direction
from attnprobe.scores.named import named_directions
from attnprobe.statistics.intervals import Interval
from attnprobe.tasks import Spec, Split
from tests.probes.alignment.alignment_cases import LENGTH, gather_all, make_case


def relabelled(subject: Ours, labels: torch.Tensor) -> Ours:
    return ours.of(subject.model, dataclasses.replace(subject.split, labels=labels))


def by_place(result: Alignment) -> dict[tuple, Interval]:
    return {(r.quantity, r.layer, r.head, r.direction): r.interval for r in result.rows}


def dependent_by_hand(gradients: np.ndarray, labels: np.ndarray, *, groups: int) -> np.ndarray:
    """(class, n, ...) gradients of logits -> (group, ...) mean label gradient minus its mean over all relabellings."""
    found = []
    for group in np.array_split(np.arange(len(labels)), groups):
        every = [[-gradients[labels[other], n] for other in group] for n in group]  # whose label, whose gradient
        own = np.mean([-gradients[labels[n], n] for n in group], 0)
        found.append((own - np.mean(every, (0, 1))) * len(group) / (len(group) - 1))
    return np.stack(found)


def test_everything_gathered_equals_the_mean_gradient_from_one_plain_backward_pass() -> None:
    subject = make_case(10, padded=True)
    gathered, projector = gather_all(subject, "label")
    model, split, (layers, heads) = subject.model, subject.split, subject.shape
    offsets = [torch.zeros(10, heads, LENGTH, LENGTH, dtype=torch.float64, requires_grad=True) for _ in range(layers)]
    batch = split.batch(torch.arange(10))
    logits = model.classify(model(batch.inputs, valid=batch.valid, score_offsets=dict(enumerate(offsets))), batch.valid)
    loss = F.cross_entropy(logits, batch.labels, reduction="none")
    full = torch.stack(torch.autograd.grad(loss.sum(), offsets, retain_graph=True), 1).numpy()  # n, layer, head, q, k
    rows, lengths = slice(0, LENGTH), split.lengths.tolist()
    for d, direction in enumerate(projector.directions):
        raw = direction.block(projector.space, rows).double().expand(layers, heads, -1, -1)
        for sequence, n in enumerate(lengths):  # the direction of a padded sequence lives on its real pairs
            known = raw[..., :n, :n] - raw[..., :n, :n].mean(-1, keepdim=True)
            known = (known / known.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-9)).numpy()
            wanted = (full[sequence][..., :n, :n] * known).sum((-2, -1))
            np.testing.assert_allclose(gathered.projection[sequence, ..., d], wanted, atol=1e-13)
    np.testing.assert_allclose(gathered.energy, (full**2).sum((-2, -1)), rtol=1e-10)
    by_class = [torch.stack(torch.autograd.grad(c.sum(), offsets, retain_graph=True), 1) for c in logits.unbind(1)]
    wanted = dependent_by_hand(torch.stack(by_class).numpy(), batch.labels.numpy(), groups=4)
    np.testing.assert_allclose(gathered.group_means["scores"], wanted.reshape(4, layers, heads, -1), atol=1e-14)
    diagonals = [full.diagonal(o, -2, -1) for o in range(1 - LENGTH, LENGTH)]
    n = np.array(lengths)[:, None, None]  # pairs of real positions only
    energy = sum(
        d.sum(-1) ** 2 / (n - abs(o)).clip(1) for o, d in zip(range(1 - LENGTH, LENGTH), diagonals, strict=True)
    )
    np.testing.assert_allclose(gathered.offset_energy, energy, rtol=1e-10)
    sums = np.stack([d.sum(-1) for d in diagonals], -1)
    np.testing.assert_allclose(gathered.profile, sums.mean(0), atol=1e-14)
    np.testing.assert_allclose(gathered.profile_error, stats.sem(sums), rtol=1e-8)
    weights = [block.attention.q.weight for block in model.blocks]
    single = np.stack(
        [[torch.stack(torch.autograd.grad(c, weights, retain_graph=True)).numpy() for c in n] for n in logits.T]
    )  # class, n, layer, head * d_head, d_model
    whole = dependent_by_hand(single, batch.labels.numpy(), groups=4).reshape(4, layers, heads, -1)
    np.testing.assert_allclose(gathered.group_means["W_Q"], whole, atol=1e-14)


def test_results_do_not_depend_on_batches_blocks_and_method(monkeypatch) -> None:
    subject = make_case(24, padded=True, readout="token")
    first = measure(subject, groups=3, orders=19)
    second = measure(subject, groups=3, orders=19, memory_limit=20_900_000, method="dense")
    third = measure(subject, groups=3, orders=19, memory_limit=19_900_000)  # in batches of 1 to 3 instead of 8
    monkeypatch.setattr(alignment_memory, "CPU_BYTES", 20_000)  # blocks of 4 and 7 queries instead of all 11
    fourth = measure(subject, groups=3, orders=19)
    for other in (second, third, fourth):
        wanted, found = by_place(first), by_place(other)
        assert set(found) == set(wanted)
        for key, interval in found.items():
            np.testing.assert_allclose(
                [interval.estimate, interval.low, interval.high],
                [wanted[key].estimate, wanted[key].low, wanted[key].high],
                rtol=1e-6,
                err_msg=str(key),
            )


def correlated_sequences(n: int, length: int, seed: int) -> Split:
    """Class 0: neighbours agree; class 1: neighbours disagree. Pooled, neighbours are uncorrelated."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, length, generator=generator)
    labels = torch.arange(n) % 2
    sign = 0.8 * (1 - 2 * labels)
    x = [noise[:, 0]]
    for step in range(1, length):
        x.append(sign * x[-1] + 0.6 * noise[:, step])
    return Split(inputs=torch.stack(x, 1)[..., None], labels=labels)


def test_labels_that_live_in_a_direction_are_detected_there_and_random_labels_are_not() -> None:
    split = correlated_sequences(400, 17, seed=0)
    model = make_model(TransformerConfig(d_model=16, heads=2, d_mlp=32), Spec(length=17, classes=2), "values", seed=0)
    subject = ours.of(model, split)
    planted = measure(subject, shuffles=999)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(1))
    random = measure(relabelled(subject, split.labels[order]))

    def p_values(result: Alignment, name: str) -> list[float]:
        return [r.p_value for r in result.select("label.dependent.mean") if r.direction == name]

    assert min(p_values(planted, "offset 1")) == 0.001
    assert min(p_values(planted, "offset -1")) == 0.001
    seen = [r.interval for r in planted.select("label.dependent.sequences") if r.direction == "offset 1"]
    assert min(i.high for i in seen) < 400  # detected with fewer than it was measured on
    everywhere = [r.p_value for r in random.select("label.dependent.mean")]
    assert np.mean(np.array(everywhere) < 0.05) < 0.2
    assert min(p_values(random, "offset 1")) > 0.05


def test_reconstruction_projection_is_that_of_the_objective() -> None:
    case, objective = make_case(6, padded=True), MaskedReconstruction(ratio=0.3)
    subject = ours.of(case.model, case.split, trained=[objective], seed=5)
    losses = objective.losses(case.model, case.split.batch(torch.arange(6)), seed=5, epoch=EVALUATION)
    traced = trace(subject, np.arange(6), "reconstruction", method="streamed")
    assert torch.allclose(traced.loss.targets[:, 0], losses.loss / losses.count.clamp(min=1))


def test_change_of_scores_is_a_direction_from_the_first_model_to_the_second() -> None:
    subject, other = make_case(9, padded=True), make_case(9, padded=True)
    with torch.no_grad():
        other.model.blocks[1].attention.q.weight.mul_(1.7)
    change = change_of_scores(subject, other, n=7, seed=3)
    assert change.matrix is not None
    assert not change.matrix[0].any()
    index, split = subject.draw(7, 3), subject.split
    total, count = torch.zeros(3, LENGTH, LENGTH, dtype=torch.float64), torch.zeros(LENGTH, LENGTH)
    for i in index:  # one by one, without padding
        length = int(split.lengths[i])
        calls = ([], [])
        for m, seen in zip((subject.model, other.model), calls, strict=True):
            m(split.inputs[i : i + 1, :length], observe=seen.append)
        total[:, :length, :length] += (calls[1][1].scores() - calls[0][1].scores())[0].detach()
        count[:length, :length] += 1
    assert torch.allclose(change.matrix[1], total / count.clamp(min=1), atol=1e-13)
    few, many = (mean_scores(subject, index, batch=batch) for batch in (2, 7))
    assert torch.allclose(few, many, rtol=0, atol=1e-13)


def test_given_directions_of_all_forms_are_reported_by_name() -> None:
    matrix = torch.randn(2, 3, LENGTH, LENGTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    directions = [
        Direction(name="m", matrix=matrix),
        Direction(name="p", profile=torch.arange(2.0 * LENGTH - 1)),
        Direction(name="k", factors=(torch.ones(LENGTH), torch.arange(float(LENGTH)))),
    ]
    result = measure(make_case(10), directions=directions, shuffles=19)
    for quantity in ("label.t", "label.t.null", "label.dependent.mean", "reconstruction.mean"):
        assert sorted({r.direction for r in result.select(quantity)}) == ["k", "m", "p"]
    # A ramp over offsets is, row-centred, a ramp over keys.
    found = by_place(result)
    one, two = (found["reconstruction.t", 1, 2, name] for name in ("p", "k"))
    assert one.estimate == pytest.approx(two.estimate, rel=1e-9)
    records = result.records("here.pt")
    assert {"checkpoint", "layer", "head", "quantity", "direction", "estimate", "low", "high", "p_value"} <= set(
        records[0]
    )
    json.dumps(records, allow_nan=False)
    arrays = result.arrays()
    names = json.loads(str(arrays["axes"]))
    assert {name: len(axes) for name, axes in names.items()} == {n: arrays[n].ndim for n in names}
    np.testing.assert_array_equal(arrays["offset"], np.arange(1 - LENGTH, LENGTH))


def test_long_sequences_are_measured_without_matrices() -> None:
    length = 1031
    model = make_model(TransformerConfig(d_model=4, heads=1, d_mlp=4), Spec(length=length, classes=2), "values", seed=0)
    inputs = torch.randn(7, length, 1, generator=torch.Generator().manual_seed(0))
    split = Split(inputs=inputs, labels=torch.arange(7) % 2)
    done = []
    subject = ours.of(model, split)
    few = named_directions(subject.space, reach=1, radii=(2.0,))
    result = measure(subject, groups=2, shuffles=19, orders=19, directions=few, progress=lambda *at: done.append(at))
    assert done[-1] == (7 * 21, 7 * 21)  # both losses, and reconstruction in 19 orders
    quantities = {r.quantity for r in result.rows}
    assert "cosine.scores" not in quantities
    assert {"cosine.offsets", "cosine.W_Q", "label.offset_share"} <= quantities
    with pytest.raises(NotApplicableError, match="use streamed"):
        measure(subject, method="dense")


@pytest.mark.parametrize("causal", [False, True])
def test_token_tasks_are_measured_like_any_other(causal: bool) -> None:
    spec = Spec(length=LENGTH, classes=2, vocabulary=7)
    config = TransformerConfig(d_model=8, heads=2, d_mlp=5, positions="rotary", causal=causal)
    model = make_model(config, spec, "classes", seed=0)
    tokens = torch.randint(1, 7, (30, LENGTH), generator=torch.Generator().manual_seed(0))
    split = Split(inputs=tokens, labels=torch.arange(30) % 2, lengths=torch.arange(30) % 5 + 7)
    result = measure(ours.of(model, split), shuffles=19)
    for quantity in ("label.t", "reconstruction.t"):
        t = np.array([r.interval.estimate for r in result.select(quantity)])
        assert np.isfinite(t).all()
        assert (t != 0).any()


def test_short_memory_means_fewer_groups_before_it_means_no_matrices() -> None:
    subject = make_case(7)
    group = 2 * 8 * 2 * 3 * LENGTH**2  # both losses, float64, layers, heads, scores
    assert fitting_groups(subject, 20, 2**30) == 20
    assert fitting_groups(subject, 20, 3 * 7 * group) == 7
    assert fitting_groups(subject, 20, 3 * 2 * group) == 20  # matrices are given up instead
    for limit, kept in ((3 * 7 * group + 1, True), (3 * 2 * group, False)):
        groups = fitting_groups(subject, 20, limit)
        plan = make_plan(
            subject,
            np.arange(7),
            "reconstruction",
            groups=groups,
            directions=1,
            draws=1,
            method="streamed",
            memory_limit=limit,
        )
        assert plan.keep_scores is kept


def test_losses_that_do_not_depend_on_the_scores_are_refused() -> None:
    subject = make_case(8)
    with torch.no_grad():
        for block in subject.model.blocks:
            block.attention.v.weight.zero_()
            block.attention.v.bias.zero_()
    with pytest.raises(NotApplicableError, match="loss does not depend on the scores"):
        measure(subject, shuffles=19, null="none")
    directions = [Direction(name="p", profile=torch.arange(19.0))]
    with pytest.raises(ConfigError, match=r"direction 'p' has shape \(19,\), but these scores need \(21,\)"):
        measure(make_case(8), directions=directions)
    with pytest.raises(ConfigError, match="power must be at least"):
        measure(subject, power=1.0)


def test_questions_without_meaning_are_refused() -> None:
    subject = make_case(6)
    cases = {
        "no label": relabelled(subject, torch.tensor([0, 1, -1, 0, 1, 2])),
        "same label": relabelled(subject, torch.zeros(6, dtype=torch.int64)),
        "are numbers": relabelled(subject, torch.zeros(6)),
        "at least two": ours.of(subject.model, subject.split.head(1)),
        "in 16 ways only: no p-value could be as small as 0.05": ours.of(subject.model, subject.split.head(5)),
        "in 7 ways only": relabelled(make_case(7), torch.eye(7, dtype=torch.int64)[3]),
        "same logits": ours.of(subject.model, dataclasses.replace(subject.split, inputs=torch.ones(6, LENGTH, 1))),
    }
    for message, broken in cases.items():
        with pytest.raises(NotApplicableError, match=message):
            measure(broken)
    with pytest.raises(ConfigError, match="memory_limit is too small"):
        measure(subject, memory_limit=1000)
    with pytest.raises(ConfigError, match="must be true for causal"):
        measure(ours.of(subject.model, subject.split, trained=[CausalPrediction()]))
