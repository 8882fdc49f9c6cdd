"""What every model around a Hugging Face encoder promises, whichever encoder it is."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

from attnprobe.config import build, dump
from attnprobe.errors import ConfigError, NotApplicableError
from attnprobe.models import Transformer, TransformerConfig, make_model
from attnprobe.models.hugging_face.settings import as_text
from attnprobe.models.initialisation import undrawn
from attnprobe.models.parameter_sets import known_sets, sets_of
from attnprobe.models.stacking import stack
from attnprobe.objectives import OBJECTIVES, Objective
from attnprobe.run import Optimizer
from attnprobe.tasks import Batch, Spec
from attnprobe.training.starting import install_backbone
from attnprobe.training.updates.optim import make_optimizer
from tests.models.hugging_face.small import CAUSAL, KINDS, description, write

pytestmark = [pytest.mark.hf, pytest.mark.parametrize("kind", KINDS)]

LENGTH, BATCH = 11, 5
SPEC = Spec(length=LENGTH, classes=3, channels=2)


def config(kind: str, sizes: dict | None = None, **settings) -> TransformerConfig:
    text = as_text(description(kind, **(sizes or {})))
    backbone = {"architecture": text, "weights": "drawn"} | settings.pop("backbone", {})
    return build(TransformerConfig, {"backbone": backbone, "causal": kind in CAUSAL} | settings)


def make(kind: str, seed: int = 3, spec: Spec = SPEC, sizes: dict | None = None, **settings) -> Transformer:
    return make_model(config(kind, sizes, **settings), spec, "values", seed=seed)


def inputs() -> torch.Tensor:
    return torch.randn(BATCH, LENGTH, 2, generator=torch.Generator().manual_seed(0))


def padded() -> torch.Tensor:
    return torch.arange(LENGTH) < torch.tensor([11, 4, 7, 1, 5])[:, None]


def test_settings_survive_the_way_to_a_file_and_back(kind: str) -> None:
    made = config(kind)
    assert build(TransformerConfig, dump(made)) == made


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_features_are_those_of_transformers_itself(kind: str, attention: str, tmp_path: Path) -> None:
    """With all that was taken apart and out, and a padded batch."""
    from attnprobe.models.hugging_face.loading import load

    write(kind, tmp_path)
    spec = Spec(length=LENGTH, classes=3, vocabulary=29)
    settings = {"source": str(tmp_path), "weights": "pretrained", "tokens": "numbered"}
    model = make(kind, spec=spec, backbone=settings)
    assert install_backbone(model) == []
    # no padding token: RoBERTa does not count it as a position
    tokens = torch.randint(4, 29, (BATCH, LENGTH), generator=torch.Generator().manual_seed(1))
    theirs = load(str(tmp_path), attention=attention)
    with torch.no_grad():
        for valid in (None, padded()):
            mask = None if valid is None else valid.long()
            expected = theirs(input_ids=tokens, attention_mask=mask).last_hidden_state
            real = torch.ones(BATCH, LENGTH, dtype=torch.bool) if valid is None else valid
            assert (model(tokens, valid=valid) - expected)[real].abs().max() < 2e-6


def test_it_starts_as_transformers_itself_draws_it(kind: str) -> None:
    """Same constants, same spread; W_Q, W_K and W_V of a fused projection like the whole of it."""
    from attnprobe.models.hugging_face.loading import configuration, from_config

    sizes = {"hidden_size": 64, "intermediate_size": 96, "vocab_size": 400}
    spec = dataclasses.replace(SPEC, vocabulary=40)
    model = make(kind, spec=spec, sizes=sizes, backbone={"tokens": "numbered"})
    theirs = dict(from_config(configuration(description(kind, **sizes))).named_parameters())
    compared = 0
    for name, parameter in model.named_parameters():
        if not name.startswith("backbone."):
            continue
        parts = name.removeprefix("backbone.").split(".")
        fused = ".".join(parts if parts[-2] not in "qkv" else [*parts[:-2], parts[-1]])
        other = theirs[fused]
        compared += 1
        if other.std() == 0:
            assert torch.equal(parameter, torch.full_like(parameter, other.flatten()[0].item()))
        else:
            noise = 5 * (1 / parameter.numel() + 1 / other.numel()) ** 0.5
            assert (parameter.std() / other.std()).item() == pytest.approx(1, abs=noise), name
    assert compared > 15
    table = next(p for n, p in theirs.items() if p.shape == (400, 64))
    assert (model.embedding.table.weight.std() / table.std()).item() == pytest.approx(1, abs=0.1)


def test_parameters_belong_to_seed_and_name_alone(kind: str) -> None:
    torch.manual_seed(1)
    one = make(kind).state_dict()
    torch.manual_seed(2)
    assert all(torch.equal(tensor, one[key]) for key, tensor in make(kind).state_dict().items())
    assert any(not torch.equal(tensor, one[key]) for key, tensor in make(kind, seed=4).state_dict().items())
    if kind in ("gpt2", "modernbert"):  # whose spread depends on the number of layers
        return
    more = make(kind, sizes={"num_hidden_layers": 4}).state_dict()
    assert all(torch.equal(tensor, more[key]) for key, tensor in one.items())


def test_named_sets_hold_what_they_say(kind: str) -> None:
    model = make(kind)
    sets = sets_of(model)
    assert sets.keys() <= known_sets()
    assert {"all", "none", "embedding", "qk", "attention", "mlp", "norms", "qk+positions"} <= sets.keys()
    layers = model.backbone.config.num_hidden_layers
    assert len({name.rpartition(".")[0] for name in sets["qk"]}) == 2 * layers
    assert all(set(name.split(".")) & {"q", "k", "query", "key", "q_proj", "k_proj"} for name in sets["qk"])
    assert len({name.rpartition(".")[0] for name in sets["attention"]}) == 4 * layers
    assert sets["qk"] < sets["attention"]
    assert not sets["attention"] & (sets["mlp"] | sets["norms"])
    named = set().union(*(members for name, members in sets.items() if name != "all"))
    assert {name for name, _ in model.named_parameters()} - named == {
        f"{head}.{part}" for head in ("label_head", "reconstruction_head") for part in ("weight", "bias")
    }


def test_padding_is_never_looked_at(kind: str) -> None:
    model, x, valid = make(kind), inputs(), padded()
    other = torch.where(valid[..., None], x, x.flip(0) + 3)
    difference = (model(x, valid=valid) - model(other, valid=valid)).abs().amax(-1)
    assert (difference * valid).max() < 1e-6
    for b, n in enumerate(valid.sum(1).tolist()):
        assert (model(x[b : b + 1, :n]) - model(x, valid=valid)[b, :n]).abs().max() < 1e-5


def test_a_sequence_of_padding_alone_spoils_no_other(kind: str) -> None:
    model, valid = make(kind), padded() & (torch.arange(BATCH) < BATCH - 1)[:, None]
    features = model(inputs(), valid=valid)
    features[valid].square().sum().backward()
    assert features.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_a_causal_model_sees_nothing_that_follows(kind: str) -> None:
    model, x = make(kind), inputs()
    changed = x.clone()
    changed[:, 6:] += 2
    difference = (model(x) - model(changed)).abs().amax((0, 2))
    assert (difference[:6].max() < 1e-6) == (kind in CAUSAL)
    assert difference[6:].min() > 1e-4


def test_settings_that_are_not_its_own_are_refused(kind: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.causal must be .*sees (nothing that|what) follows$"):
        make(kind, causal=kind not in CAUSAL)
    with pytest.raises(ConfigError, match="d_model is a setting of our own blocks"):
        config(kind, d_model=12)
    with pytest.raises(ConfigError, match=r"positions is a setting of our own blocks"):
        config(kind, positions="rotary")
    long = dataclasses.replace(SPEC, length=24)
    if kind in ("gpt2", "bert", "roberta"):
        with pytest.raises(ConfigError, match="learned positions for 23, the sequences have 24"):
            make(kind, spec=long)
    else:
        assert make(kind, spec=long)(torch.zeros(1, 24, 2)).isfinite().all()


def test_only_some_positions_are_those_of_the_whole(kind: str) -> None:
    model, x, at = make(kind), inputs(), torch.tensor([[3, 0, 10]]).expand(BATCH, 3)
    whole = model(x, valid=padded())
    assert torch.equal(model(x, valid=padded(), at=at), whole[:, [3, 0, 10]])


def test_its_memory_can_be_counted_before_it_is_there(kind: str) -> None:
    with torch.device("meta"):
        model = undrawn(config(kind), SPEC, "values")
    features = model(torch.empty(BATCH, LENGTH, 2, device="meta"), valid=padded().to("meta"))
    assert features.shape == make(kind)(inputs(), valid=padded()).shape
    assert features.device.type == "meta"


def test_an_ensemble_is_refused(kind: str) -> None:
    with pytest.raises(NotApplicableError, match="cannot be stacked"):
        stack([make(kind, seed) for seed in (3, 4)])


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_teaches_the_backbone(kind: str, objective: str) -> None:
    """With padded sequences, a step of the optimizer moves every parameter of the backbone, or it is refused."""
    chosen: Objective = OBJECTIVES[objective]()
    spec = dataclasses.replace(SPEC, regression=True, classes=1) if objective == "regression" else SPEC
    wants = {"causal": True, "denoising": True, "masked": False}.get(objective, kind in CAUSAL)
    if wants != (kind in CAUSAL):
        with pytest.raises(ConfigError, match="causal"):
            chosen.check(config(kind), spec)
        return
    chosen.check(config(kind), spec)
    model = make(kind, spec=spec)
    before = {key: value.clone() for key, value in model.named_parameters()}
    labels = torch.linspace(-1, 1, BATCH) if spec.regression else torch.arange(BATCH) % 3
    batch = Batch(inputs=inputs(), labels=labels, sample=torch.arange(BATCH), valid=padded())
    optimizer = make_optimizer(Optimizer(), model)
    losses = chosen.losses(model, batch, seed=0, epoch=0, training=True)
    losses.mean().backward()
    optimizer.step()
    assert losses.mean().isfinite()
    for key, value in model.named_parameters():
        moved = not torch.equal(value, before[key])
        assert moved or not key.startswith("backbone."), key


def test_it_starts_at_chance_and_overfits_one_batch(kind: str) -> None:
    spec = Spec(length=LENGTH, classes=3, vocabulary=29)
    model = make(kind, spec=spec).train()
    tokens = torch.randint(29, (12, LENGTH), generator=torch.Generator().manual_seed(1))
    batch = Batch(inputs=tokens, labels=torch.arange(12) % 3, sample=torch.arange(12))
    optimizer, objective = make_optimizer(Optimizer(lr=0.01), model), OBJECTIVES["classification"]()
    first = objective.losses(model, batch, seed=0, epoch=0).mean()
    assert first.item() == pytest.approx(math.log(3), abs=0.4)
    for epoch in range(60):
        loss = objective.losses(model, batch, seed=0, epoch=epoch, training=True).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert objective.losses(model, batch, seed=0, epoch=0).mean().item() < 0.05
