"""Interventions: what is added, what it does to a hand-made model, and what must not change."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import Tensor

from attnprobe.capture import ours
from attnprobe.capture.ours import Ours, attentions
from attnprobe.errors import NotApplicableError
from attnprobe.models import AttentionCall, TransformerConfig, make_model
from attnprobe.models.mixers.block_local import BlockLocalSettings
from attnprobe.objectives import EVALUATION, Classification, MaskedReconstruction
from attnprobe.probes.interventions.probe import dose_response, evaluate, swap_response
from attnprobe.probes.interventions.profiles import offset_profile, score_offsets, shuffled_profiles
from attnprobe.probes.interventions.responses import single_rows
from attnprobe.probes.rows import rows_to_records
from attnprobe.scores.directions import ScoreSpace
from attnprobe.scores.visible_sums import occurring
from attnprobe.statistics.shares import difference
from attnprobe.tasks import Spec, Split
from tests.probes.seeing import sees

LENGTH = 13

CASES = {
    "line": ({}, None, False),
    "padded": ({}, None, True),
    "attended": ({"padding": "attended"}, None, True),
    "causal": ({"causal": True}, None, True),
    "grid": ({}, (3, 5), False),
    "causal grid": ({"causal": True}, (5, 3), False),
    "windows": ({"mixer": BlockLocalSettings(window=3)}, None, True),
    "sliding causal windows": ({"mixer": BlockLocalSettings(window=4, sliding=True), "causal": True}, None, True),
    "windows on a grid": ({"mixer": BlockLocalSettings(window=4)}, (3, 5), False),
    "class token": ({"readout": "token", "positions": "rotary"}, None, True),
}


ALL = np.arange(7)


def make_case(name: str, n: int = 7) -> Ours:
    config, grid, padded = CASES[name]
    length = LENGTH if grid is None else grid[0] * grid[1]
    settings = {"d_model": 12, "layers": 2, "heads": 3, "d_mlp": 7} | config
    spec = Spec(length=length, classes=3, grid=grid)
    model = make_model(TransformerConfig(**settings), spec, "values", seed=1).double()
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(n, length, 1, generator=generator, dtype=torch.float64)
    lengths = torch.randint(4, length + 1, (n,), generator=generator) if padded else None
    return ours.of(model, Split(inputs=inputs, labels=torch.arange(n) % 3, lengths=lengths))


def offset_of(space: ScoreSpace, i: int, j: int) -> tuple[int, ...]:
    """Index of the offset in a profile."""
    if len(space.layout.shape) == 1:
        return (j - i + space.length - 1,)
    height, width = space.layout.shape
    return (j // width - i // width + height - 1, j % width - i % width + width - 1)


@pytest.mark.parametrize("name", CASES)
def test_own_profile_is_the_mean_centred_score_pair_by_pair(name: str) -> None:
    subject = make_case(name)
    model, split, space = subject.model, subject.split, subject.space
    index = np.array([0, 3, 5, 6])
    found = offset_profile(subject, index, batch=3)
    assert found.dtype == torch.float64
    sums, counts = torch.zeros_like(found), torch.zeros(space.layout.offsets)
    for sample in index:
        batch = split.batch(torch.tensor([sample]))
        calls: list[AttentionCall] = []
        with torch.no_grad():
            model(batch.inputs, valid=batch.valid, observe=calls.append)
        real = space.length if split.lengths is None or name == "attended" else int(split.lengths[sample])
        for i in range(real):
            keys = [j for j in range(real) if sees(space.layout, i, j)]
            rows = [call.scores()[0, :, space.leading + i, space.leading :] for call in calls]
            for j in keys:
                at = offset_of(space, i, j)
                counts[at] += 1
                for layer, row in enumerate(rows):
                    sums[layer][(slice(None), *at)] += row[:, j] - row[:, keys].mean(-1)
    assert torch.allclose(found, sums / counts.clamp(min=1), atol=1e-12)
    assert torch.allclose(offset_profile(subject, index), found, atol=1e-13)


@pytest.mark.parametrize("name", CASES)
def test_score_offsets_lay_the_profile_along_the_diagonals(name: str) -> None:
    subject = make_case(name)
    space = subject.space
    profile = torch.randn(2, 3, *space.layout.offsets, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    offsets = score_offsets(subject, profile)
    for layer in range(2):
        assert offsets[layer].shape == (1, 3, space.size, space.size)
        for i, j in ((0, 0), (2, 7), (space.length - 1, 1)):
            found = offsets[layer][0, :, space.leading + i, space.leading + j]
            assert torch.equal(found, profile[layer][(slice(None), *offset_of(space, i, j))])
        if space.leading:
            assert not offsets[layer][..., 0, :].any()
            assert not offsets[layer][..., :, 0].any()


@pytest.mark.parametrize("name", ["line", "causal grid", "class token", "windows"])
def test_removing_the_profile_leaves_scores_without_one(name: str) -> None:
    case = make_case(name)
    split = dataclasses.replace(case.split, lengths=None)  # so that the mean row is the same for every sequence
    subject = ours.of(case.model, split)
    model, space = subject.model, subject.space
    own = offset_profile(subject, ALL)
    offsets = score_offsets(subject, -own)
    batch = split.batch(torch.arange(7))
    calls: list[AttentionCall] = []
    with torch.no_grad():
        model(batch.inputs, observe=calls.append)
    scores = calls[0].scores().detach()[..., space.leading :, space.leading :]
    rows = slice(0, space.length)
    visible = space.visible(rows)
    counts = space.fold(visible.double(), rows).clamp(min=1)

    def profile(s: Tensor) -> Tensor:
        centred = (s - (s * visible).sum(-1, keepdim=True) / visible.sum(-1, keepdim=True)) * visible
        return space.fold(centred.mean(0), rows) / counts

    removed = scores + offsets[0][..., space.leading :, space.leading :]
    # Centring the added matrix again moves some of it between offsets: only most of the profile goes.
    assert float(profile(removed).norm() / profile(scores).norm()) < 0.35


@pytest.mark.parametrize("name", ["line", "causal", "grid", "windows", "windows on a grid"])
def test_control_has_the_same_values_up_to_one_factor_and_the_same_norm(name: str) -> None:
    subject = make_case(name)
    space, own = subject.space, offset_profile(subject, ALL)
    rows, reachable = slice(0, space.length), occurring(space.layout)
    visible = space.visible(rows)

    def norm(p: Tensor) -> Tensor:
        matrix = space.expand(p, rows)
        matrix = matrix - (matrix * visible).sum(-1, keepdim=True) / visible.sum(-1, keepdim=True)
        return (matrix * visible).flatten(2).norm(dim=-1)

    first, second = shuffled_profiles(space, own, 2, 0)
    assert not torch.equal(first, second)
    for control in (first, second):
        assert torch.allclose(norm(control), norm(own), rtol=1e-12)
        ratio = control[..., reachable].sort(-1).values / own[..., reachable].sort(-1).values
        assert torch.allclose(ratio, ratio[..., :1].expand_as(ratio), rtol=1e-9)
        assert not control[..., ~reachable].any()


def neighbour_model(length: int) -> Ours:
    """A model that needs proximity: the label is whether neighbours agree, and only attention to near keys sees it.

    Trained for a moment from a start that already looks at near keys, so that the bias is the model's own.
    """
    generator = torch.Generator().manual_seed(0)
    noise, labels = torch.randn(600, length, generator=generator), torch.arange(600) % 2
    x = [noise[:, 0]]
    for step in range(1, length):
        x.append((0.9 - 1.8 * labels) * x[-1] + 0.44 * noise[:, step])
    split = Split(inputs=torch.stack(x, 1)[..., None], labels=labels)
    config = TransformerConfig(d_model=16, heads=2, d_mlp=32, positions="rotary")
    model = make_model(config, Spec(length=length, classes=2), "values", seed=0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(150):
        index = torch.randint(600, (50,), generator=generator)
        loss = Classification().losses(model, split.batch(index), seed=0, epoch=step).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return ours.of(model, split)


@pytest.fixture(scope="module")
def trained() -> Ours:
    torch.set_num_threads(1)
    return neighbour_model(17)


def test_a_model_that_lives_off_its_offset_profile_loses_accuracy_without_it(trained) -> None:
    seen = []
    result = dose_response(
        trained,
        doses=(-1.0, 0.0, 0.25),
        n=300,
        progress=lambda *at: seen.append(at),
    )
    assert seen[-1] == (43, 43)  # the model alone, own profile and twenty controls at two doses
    removed, alone, more = (r.interval for r in result.select("accuracy", "own"))
    assert alone.estimate > 0.85
    assert removed.high < alone.low
    change = {r.dose: r.interval for r in result.select("accuracy.change", "own")}
    assert change[-1.0].high < 0
    assert change[-1.0].estimate == pytest.approx(removed.estimate - alone.estimate)
    assert (change[0.0].estimate, change[0.0].low, change[0.0].high) == (0, 0, 0)
    # Pairing by sequence: narrower than two independent intervals.
    independent = np.hypot(more.high - more.low, alone.high - alone.low)
    assert change[0.25].high - change[0.25].low < independent
    controls = [r for r in result.rows if r.kind == "shuffled"]
    assert {r.dose for r in controls} == {-1.0, 0.0, 0.25}


def test_clamping_to_the_own_profile_changes_nothing_and_to_zero_removes_it(trained) -> None:
    settings = {"doses": (-1.0, 0.0, 1.0), "n": 100, "controls": 2}
    plain = dose_response(trained, **settings)
    zero = dose_response(trained, given=torch.zeros_like(plain.profile), **settings)
    same = dose_response(trained, given=plain.profile, **settings)

    def at(result, kind: str, dose: float) -> float:
        (row,) = [r for r in result.select("loss", kind) if r.dose == dose]
        return row.interval.estimate

    assert at(zero, "clamp", 1.0) == pytest.approx(at(plain, "own", -1.0), rel=1e-6)
    assert at(same, "clamp", 1.0) == pytest.approx(at(plain, "own", 0.0), rel=1e-6)
    assert at(plain, "own", -1.0) != pytest.approx(at(plain, "own", 0.0), rel=1e-2)
    with pytest.raises(NotApplicableError, match="must have shape"):
        dose_response(trained, given=torch.zeros(1, 2, 3), **settings)


def test_only_the_chosen_layers_and_heads_are_touched() -> None:
    subject = make_case("line")
    model, split = subject.model, subject.split

    def loss(**chosen) -> float:
        result = dose_response(subject, doses=(2.0,), controls=2, **chosen)
        return result.select("loss", "own")[0].interval.estimate

    own = offset_profile(subject, ALL)
    own[0] = 0
    own[1, [0, 2]] = 0
    offsets = score_offsets(subject, 2 * own)
    batch = split.batch(torch.arange(7))
    with torch.no_grad():
        logits = model.classify(model(batch.inputs, score_offsets=offsets))
    expected = float(torch.nn.functional.cross_entropy(logits, batch.labels))
    assert loss(layers=[1], heads=[1]) == pytest.approx(expected, rel=1e-12)
    assert loss() != pytest.approx(expected, rel=1e-6)
    with pytest.raises(NotApplicableError, match="no such head"):
        loss(heads=[3])
    with pytest.raises(NotApplicableError, match="no such layer"):
        loss(layers=[-1])


def test_evaluation_is_per_sequence_and_leaves_no_hook_behind() -> None:
    case, objective = make_case("padded"), MaskedReconstruction()
    subject = ours.of(case.model.train(), case.split, seed=4)
    found = evaluate(subject, ALL, "reconstruction", batch=3)
    losses = objective.losses(case.model, case.split.batch(torch.arange(7)), seed=4, epoch=EVALUATION)
    expected = (losses.loss / losses.count.clamp(min=1)).detach().numpy()
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-12)
    assert set(found) == {"loss"}  # nothing to get right about real values
    assert not case.model._forward_pre_hooks
    assert case.model.training


def test_swapped_projections_are_the_donors_and_nothing_else_is() -> None:
    first = make_case("line")
    config, spec, own = first.model.config, first.model.spec, first.model.state_dict()
    second = ours.of(make_model(config, spec, "values", seed=2).double(), first.split)
    mixed = first.with_projections_of(second, [1])
    changed = {name for name, value in mixed.model.state_dict().items() if not torch.equal(value, own[name])}
    assert changed == {f"blocks.1.attention.{p}.{part}" for p in "qk" for part in ("weight", "bias")}
    assert torch.equal(attentions(mixed.model)[1].k.weight, attentions(second.model)[1].k.weight)
    rows = swap_response(first, second)
    values = {(r.kind, r.quantity): r.interval.estimate for r in rows}
    expected = evaluate(first.with_projections_of(second), ALL, "label", batch=7)["loss"].mean()
    assert values["first with W_Q, W_K of second", "loss"] == pytest.approx(expected, rel=1e-12)
    assert values["second", "loss"] != pytest.approx(values["first", "loss"], rel=1e-6)
    records = rows_to_records(rows, "here.pt", "kind", "dose")
    assert {"kind", "dose", "checkpoint", "estimate"} <= set(records[0])
    json.dumps(records, allow_nan=False)
    narrow = make_model(TransformerConfig(d_model=6, layers=2, heads=3, d_mlp=7), spec, "values", seed=0).double()
    with pytest.raises(NotApplicableError, match="same depth, width and heads"):
        first.with_projections_of(ours.of(narrow, first.split))


def test_long_sequences_and_single_positions_are_refused_with_the_reason() -> None:
    for length, reason in ((1031, r"1031 positions needs 0\.0 GiB"), (1, "two positions")):
        config = TransformerConfig(d_model=4, heads=1, d_mlp=4)
        model = make_model(config, Spec(length=length, classes=2), "values", seed=0)
        split = Split(inputs=torch.zeros(2, length, 1), labels=torch.tensor([0, 1]))
        with pytest.raises(NotApplicableError, match=reason):
            dose_response(ours.of(model, split))


def test_arrays_name_their_axes() -> None:
    result = dose_response(make_case("grid"), doses=(0.0,), controls=2)
    arrays = result.arrays()
    assert json.loads(str(arrays["axes"]))["profile"] == ["layer", "head", "offset_y", "offset_x"]
    assert arrays["profile"].shape == (2, 3, len(arrays["offset_y"]), len(arrays["offset_x"]))


def test_a_change_of_accuracy_is_a_difference_of_shares_and_no_change_has_no_width() -> None:
    alone = {"accuracy": np.repeat([1.0, 0.0], [31, 6]), "loss": np.linspace(0.1, 2.0, 37)}
    moved = {"accuracy": np.roll(alone["accuracy"], 2), "loss": alone["loss"] + 1.0}
    for outcome, wanted in (moved, difference(moved["accuracy"], alone["accuracy"], 0.9)), (alone, (0.0, 0.0, 0.0)):
        rows = {row.quantity: row.interval for row in single_rows(outcome, alone, "own", 0.5, 0.9, seed=3)}
        found = rows["accuracy.change"]
        assert (found.estimate, found.low, found.high, found.n) == pytest.approx((*wanted, 37))
