import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnprobe.config import build
from attnprobe.models import TransformerConfig, make_model
from attnprobe.objectives import CausalPrediction, Classification, MaskedReconstruction, Objective
from attnprobe.run import Engine, Optimizer, Phase
from attnprobe.tasks import Data, Spec, Split
from attnprobe.training.buckets import (
    QUANTUM,
    WINDOWS,
    evaluation_batch,
    evaluation_batches,
    longest,
    training_batches,
    trims,
)
from attnprobe.training.evaluation import evaluate, evaluate_phase
from attnprobe.training.loop import Trainer

LENGTH = 3 * QUANTUM + 5
TOKENS = Spec(length=LENGTH, classes=3, vocabulary=13)
PADDED = Engine(batching="padded")


def make_split(n: int = 37, pairs: bool = False) -> Split:
    generator = torch.Generator().manual_seed(0)
    shape = (n, 2) if pairs else (n,)
    lengths = torch.randint(1, LENGTH + 1, shape, generator=generator)
    inputs = torch.randint(1, 13, (*shape, LENGTH), generator=generator, dtype=torch.uint8)
    inputs *= torch.arange(LENGTH) < lengths[..., None]
    return Split(inputs=inputs, labels=torch.randint(0, 3, (n,), generator=generator), lengths=lengths)


@given(st.integers(1, 90), st.integers(1, 7), st.integers(0, 2**31))
def test_every_sample_at_most_once_and_none_cut_off(n: int, batch_size: int, seed: int) -> None:
    split, batch_size = make_split(n), min(n, batch_size)
    for trim in (False, True):
        batches = training_batches(split, batch_size, trim, torch.Generator().manual_seed(seed))
        again = training_batches(split, batch_size, trim, torch.Generator().manual_seed(seed))
        assert all(torch.equal(a, b) for a, b in zip(batches.index, again.index, strict=True))
        seen = torch.cat(batches.index)
        assert len(seen) == len(seen.unique()) == n // batch_size * batch_size
        for number in range(len(batches)):
            valid = batches[number].valid
            assert torch.equal(valid.sum(1), split.lengths[batches.index[number]])
    everyone = torch.cat(evaluation_batches(split, batch_size, True).index)
    assert torch.equal(everyone.sort().values, torch.arange(n))


def test_lengths_within_a_batch_are_similar_and_the_order_is_random() -> None:
    split = make_split(WINDOWS[0] * 5 * 3)
    batches = training_batches(split, 5, True, torch.Generator().manual_seed(1))
    spread = torch.stack([longest(split)[i].max() - longest(split)[i].min() for i in batches.index]).float()
    assert spread.mean() < 2 * LENGTH / WINDOWS[0]
    assert all(length % QUANTUM == 0 or length == LENGTH for length in batches.lengths)
    firsts = [float(longest(split)[i].float().mean()) for i in batches.index]
    assert firsts != sorted(firsts)
    other = training_batches(split, 5, True, torch.Generator().manual_seed(2))
    assert not torch.equal(batches.index[0], other.index[0])


@pytest.mark.parametrize(("batches", "window"), [(7, 16), (64, 16), (100, 25), (300, 64)])
def test_windows_are_a_quarter_of_the_epoch_within_limits(batches: int, window: int) -> None:
    split = make_split(3 * batches)
    found = training_batches(split, 3, True, torch.Generator().manual_seed(1))
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(1))
    together = [set(part.tolist()) for part in order.split(3 * window)]
    assert all(any(set(index.tolist()) <= part for part in together) for index in found.index)


@pytest.mark.parametrize("objective", [Classification(), MaskedReconstruction(loss="cross_entropy")])
@pytest.mark.parametrize("pairs", [False, True])
def test_trimming_changes_no_loss_and_no_gradient(objective: Objective, pairs: bool) -> None:
    spec, split = dataclasses.replace(TOKENS, pairs=pairs), make_split(pairs=pairs)
    batches = training_batches(split, 5, True, torch.Generator().manual_seed(1))
    config = TransformerConfig(d_model=12, heads=2, positions="rotary")
    assert len(set(batches.lengths)) > 1
    for number in range(len(batches)):
        found = []
        for batch in (batches[number], split.batch(batches.index[number])):
            model = make_model(config, spec, "classes", seed=0).double()
            losses = objective.losses(model, batch, seed=3, epoch=1)
            losses.mean().backward()
            gradients = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
            found.append((losses.loss.detach(), losses.count, gradients))
        for short, whole in zip(*found, strict=True):
            assert (short - whole).abs().max() < 1e-12


@pytest.mark.parametrize("pairs", [False, True])
def test_evaluation_is_the_same(pairs: bool) -> None:
    spec, split = dataclasses.replace(TOKENS, pairs=pairs), make_split(pairs=pairs)
    model = make_model(TransformerConfig(d_model=12, heads=2), spec, "classes", seed=0).double()
    for objective in (Classification(), CausalPrediction(loss="cross_entropy")):
        bucketed, padded = (
            evaluate(model, split, objective, Engine(evaluation_batch=7, batching=batching), seed=0)
            for batching in ("buckets", "padded")
        )
        assert bucketed == pytest.approx(padded, rel=1e-6)  # positions are kept in float32


def test_a_model_that_attends_to_padding_is_never_trimmed() -> None:
    split = make_split()
    assert trims(split, TransformerConfig(), Engine())
    assert not trims(split, TransformerConfig(padding="attended"), Engine())
    assert not trims(split, TransformerConfig(), PADDED)
    assert not trims(dataclasses.replace(split, lengths=None), TransformerConfig(), Engine())


@given(st.integers(1, 40), st.integers(1, 7), st.booleans())
def test_mixed_batches_keep_the_random_order_and_are_as_long_as_their_longest(n: int, size: int, pairs: bool) -> None:
    split, size = make_split(n, pairs), min(n, size)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(3))[: n // size * size]
    training = training_batches(split, size, True, torch.Generator().manual_seed(3), mixed=True)
    evaluation = evaluation_batches(split, size, True, mixed=True)
    for batches, wanted in ((training, order), (evaluation, torch.arange(n))):
        assert torch.equal(torch.cat(batches.index), wanted)
        for number, index in enumerate(batches.index):
            assert batches[number].inputs.shape[-1] == max(1, int(longest(split)[index].max()))


def test_published_batches_make_attended_padding_depend_on_the_company() -> None:
    """Samples see the padding of their own batch: another one than in a batch of all."""
    split, config = make_split(), TransformerConfig(d_model=12, heads=2, padding="attended")
    longest_member = Engine(evaluation_batch=5, batching="longest")
    assert trims(split, config, longest_member)
    model = make_model(config, TOKENS, "classes", seed=0).double()
    whole, parts = (
        evaluate(model, split, Classification(), engine, seed=0)["loss"] for engine in (PADDED, longest_member)
    )
    assert abs(whole - parts) > 1e-5
    masked = make_model(TransformerConfig(d_model=12, heads=2), TOKENS, "classes", seed=0).double()
    whole, parts = (
        evaluate(masked, split, Classification(), engine, seed=0)["loss"] for engine in (PADDED, longest_member)
    )
    assert whole == pytest.approx(parts, rel=1e-6)


def test_evaluation_without_the_last_incomplete_batch() -> None:
    """37 samples in batches of 5: the last two do not count; and fresh masks hide other inputs."""
    split = make_split()
    model = make_model(TransformerConfig(d_model=12, heads=2), TOKENS, "classes", seed=0).double()
    phase = Phase(objective=Classification(), batch_size=5, evaluation="drop_last")
    got = evaluate_phase(model, split, phase, PADDED, seed=0)
    assert got == evaluate(model, split.head(35), Classification(), PADDED, seed=0)
    assert got != evaluate(model, split, Classification(), PADDED, seed=0)
    few = dataclasses.replace(phase, batch_size=100)  # no batch would be full: all are taken
    assert evaluate_phase(model, split, few, PADDED, seed=0) == evaluate(model, split, Classification(), PADDED, seed=0)
    masked = Phase(objective=MaskedReconstruction(loss="cross_entropy"))
    assert evaluate_phase(model, split, masked, PADDED, seed=0, masks=-2) != evaluate_phase(
        model, split, masked, PADDED, seed=0
    )


@pytest.mark.parametrize(
    ("length", "pairs", "tokens", "batch"),
    [(100, False, 2**19, 1000), (1024, False, 2**19, 512), (16384, False, 2**19, 32), (4000, True, 2**19, 65),
     (65536, False, 2**10, 1)],
)  # fmt: skip
def test_evaluation_batches_hold_so_many_positions(length: int, pairs: bool, tokens: int, batch: int) -> None:
    shape = (3, 2, length) if pairs else (3, length)
    lengths = torch.full(shape[:-1], length)
    split = Split(inputs=torch.zeros(shape, dtype=torch.uint8), labels=torch.zeros(3).long(), lengths=lengths)
    assert evaluation_batch(split, Engine(evaluation_tokens=tokens)) == batch
    if not pairs:
        values = Split(inputs=torch.zeros((*shape, 2), dtype=torch.uint8), labels=torch.zeros(3).long())
        assert evaluation_batch(values, Engine(evaluation_tokens=tokens)) == batch


def test_an_evaluation_in_smaller_batches_is_the_same_up_to_rounding(small) -> None:
    config = small()
    data = config.task.load(None)
    model = make_model(config.model, data.spec, "values", seed=0)
    found = [
        evaluate(model, data.validation, config.pretrain.objective, Engine(evaluation_tokens=n), seed=0)
        for n in (2**19, 75)
    ]
    assert found[1] == pytest.approx(found[0], rel=1e-6)


@pytest.mark.parametrize("mixer", ["s4d", "mega"])
def test_an_evaluation_computes_long_kernels_once(mixer: str, monkeypatch) -> None:
    split = dataclasses.replace(make_split(), lengths=None)  # of one length
    config = build(TransformerConfig, {"d_model": 12, "heads": 2, "positions": "none", "mixer": mixer})
    model = make_model(config, TOKENS, "classes", seed=0)
    convolution: Any = model.get_submodule(f"blocks.0.{mixer}.convolution")
    calls, whole = [], convolution.kernels
    monkeypatch.setattr(convolution, "kernels", lambda length: calls.append(length) or whole(length))
    found = evaluate(model, split, Classification(), Engine(evaluation_batch=7), seed=0)
    assert calls == [LENGTH]
    assert evaluate(model, split, Classification(), Engine(evaluation_batch=37), seed=0) == pytest.approx(found)
    with torch.no_grad():
        convolution.skip.add_(1)
        convolution.get_parameter("output" if mixer == "s4d" else "eta").mul_(2)
    assert evaluate(model, split, Classification(), Engine(evaluation_batch=7), seed=0) != pytest.approx(found)
    assert calls == 3 * [LENGTH]  # nothing is kept after an evaluation


def test_stopping_inside_an_epoch_is_exact() -> None:
    split = make_split()
    data = Data(spec=TOKENS, train=split, validation=split, test=split)
    phase = Phase(objective=Classification(), batch_size=5, epochs=2, optimizer=Optimizer())

    def trainer() -> Trainer:
        model = make_model(TransformerConfig(d_model=12, heads=2), TOKENS, "classes", seed=0)
        return Trainer(model, data, "finetuned", phase, Engine(), seed=4)

    def advance(trainer: Trainer, steps: range) -> None:
        for step in steps:
            trainer.progress.sums = trainer.update(trainer.batches(step // 7)[step % 7], step // 7)
            trainer.progress.step += 1

    through, second = trainer(), trainer()
    advance(through, range(10))
    first = trainer()
    advance(first, range(4))
    second.load_state_dict(first.state_dict())
    advance(second, range(4, 10))
    for a, b in zip(through.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)
