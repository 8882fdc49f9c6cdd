"""A member of an ensemble is its own solo run."""

import dataclasses

import pytest
import torch

from attnprobe.errors import NotApplicableError
from attnprobe.models import TransformerConfig, make_model
from attnprobe.models.stacking import stack
from attnprobe.objectives import CausalPrediction, Classification, MaskedReconstruction
from attnprobe.run import Engine, Optimizer, Phase
from attnprobe.tasks import Data, Spec, Split
from attnprobe.training.ensembles.ensemble import Ensemble
from attnprobe.training.loop import Trainer, Update

LENGTH, N, BATCH = 11, 23, 5
VALUES = Spec(length=LENGTH, classes=3, channels=2)
TOKENS = Spec(length=LENGTH, classes=3, vocabulary=13)
PAIRS = Spec(length=LENGTH, classes=3, vocabulary=13, pairs=True)
SEEDS, RATES, DECAYS = (3, 5, 8), (1e-2, 3e-3, 1e-3), (0.0, 0.1, 0.3)
RATIOS = (0.3, 0.5, 0.7)

CASES = {
    "masked values": (VALUES, MaskedReconstruction(), {"positions": "learned"}),
    "masked tokens": (TOKENS, MaskedReconstruction(loss="cross_entropy"), {"positions": "rotary", "layers": 2}),
    "labels": (TOKENS, Classification(), {"label_head": "mlp", "readout": "max"}),
    "class token": (VALUES, Classification(), {"readout": "token"}),
    "masked with class token": (TOKENS, MaskedReconstruction(loss="cross_entropy"), {"readout": "token"}),
    "pairs": (PAIRS, Classification(), {}),
    "masked pairs": (PAIRS, MaskedReconstruction(loss="cross_entropy"), {}),
    "causal": (VALUES, CausalPrediction(), {"causal": True}),
}


def trainers(case: str, dtype: torch.dtype, seeds=SEEDS, rates=RATES, decays=DECAYS, ratios=RATIOS) -> list[Trainer]:
    spec, objective, settings = CASES[case]
    shape = (N, 2, LENGTH) if spec.pairs else (N, LENGTH)
    made = []
    for seed, rate, decay, ratio in zip(seeds, rates, decays, ratios, strict=True):
        generator = torch.Generator().manual_seed(seed)  # every member has data of its own
        if spec.is_tokens:
            inputs = torch.randint(1, 13, shape, generator=generator, dtype=torch.uint8)
        else:
            inputs = torch.randn(*shape, 2, generator=generator, dtype=dtype)
        lengths = torch.randint(1, LENGTH + 1, shape[:-1], generator=generator)
        split = Split(inputs=inputs, labels=torch.randint(0, 3, (N,), generator=generator), lengths=lengths)
        if isinstance(objective, MaskedReconstruction):
            objective = dataclasses.replace(objective, ratio=ratio)
        optimizer = Optimizer(lr=rate, weight_decay=decay, clip=0.5)
        phase = Phase(objective=objective, batch_size=BATCH, epochs=9, optimizer=optimizer)
        model = make_model(TransformerConfig(d_model=12, heads=2, d_mlp=17, **settings), spec, target(spec), seed=seed)
        data = Data(spec=spec, train=split, validation=split, test=split)
        made.append(Trainer(model.to(dtype), data, "phase", phase, Engine(batching="padded"), seed=seed))
    return made


def target(spec: Spec) -> str:
    return "classes" if spec.is_tokens else "values"


def ask(trainer: Trainer, step: int) -> Update:
    epoch, position = divmod(step, trainer.steps_per_epoch)
    return Update(trainer=trainer, batch=trainer.batches(epoch)[position], epoch=epoch)


def train_alone(trainer: Trainer, steps: int) -> list[float]:
    losses = []
    for step in range(steps):
        update = ask(trainer, step)
        loss, count, _ = trainer.update(update.batch, update.epoch)
        trainer.progress.step += 1
        losses.append((loss / count.clamp(min=1)).item())
    return losses


def train_together(members: list[Trainer], steps: int, first: int = 0) -> torch.Tensor:
    """(step, member) losses."""
    ensemble, losses = Ensemble(members), []
    for step in range(first, first + steps):
        for trainer in members:
            trainer.progress.step = step
        loss, count, _ = ensemble.update([ask(t, step) for t in members]).unbind(1)
        losses.append(loss / count.clamp(min=1))
    return torch.stack(losses)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_a_member_equals_its_solo_run(case: str, dtype: torch.dtype, tolerance: float) -> None:
    """20 steps with different seeds, data, learning rates, weight decays and mask ratios."""
    solo, together = trainers(case, dtype), trainers(case, dtype)
    got = train_together(together, 20)
    for number, trainer in enumerate(solo):
        assert got[:, number].tolist() == pytest.approx(train_alone(trainer, 20), rel=tolerance)
        if dtype == torch.float64:
            for (name, a), b in zip(trainer.model.named_parameters(), together[number].model.parameters(), strict=True):
                if not name.endswith("attention.k.bias"):  # without rotary positions only rounding moves it
                    assert (a - b).abs().max() < 1e-10, name


def test_permuting_members_permutes_results_and_another_member_changes_no_other() -> None:
    case, dtype = "masked values", torch.float32
    together = train_together(trainers(case, dtype), 8)
    turned = [values[::-1] for values in (SEEDS, RATES, DECAYS, RATIOS)]
    assert torch.allclose(train_together(trainers(case, dtype, *turned), 8).flip(1), together, rtol=1e-5)
    changed = train_together(trainers(case, dtype, rates=(1e-2, 0.1, 1e-3)), 8)
    assert torch.equal(changed[:, [0, 2]], together[:, [0, 2]])
    assert not torch.equal(changed[:, 1], together[:, 1])


def test_members_can_be_saved_and_continued_alone_or_together() -> None:
    case, dtype = "labels", torch.float64
    through = train_together(trainers(case, dtype), 9)
    halves = trainers(case, dtype)
    train_together(halves, 4)
    fresh = trainers(case, dtype)
    for old, new in zip(halves, fresh, strict=True):
        new.model.load_state_dict(old.model.state_dict())
        new.optimizer.load_state_dict(old.optimizer.state_dict())
    assert torch.allclose(train_together(fresh, 5, first=4), through[4:], rtol=1e-12)
    alone = trainers(case, dtype)[1]
    alone.model.load_state_dict(halves[1].model.state_dict())
    alone.optimizer.load_state_dict(halves[1].optimizer.state_dict())
    alone.progress.step = 4
    loss, count, _ = alone.update(ask(alone, 4).batch, 0)
    assert (loss / count).item() == pytest.approx(through[4, 1].item(), rel=1e-12)
    assert int(alone.optimizer.state_dict()["state"][0]["step"]) == 5


def test_what_cannot_be_stacked_is_refused() -> None:
    one = make_model(TransformerConfig(d_model=12, heads=2), VALUES, "values", seed=0)
    other = make_model(TransformerConfig(d_model=12, heads=3), VALUES, "values", seed=0)
    with pytest.raises(NotApplicableError, match="one shape"):
        stack([one, other])
