"""What a mixer does not declare is refused, never ignored; shown with mixers that somebody else might write."""

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from attnprobe.config import build
from attnprobe.errors import ConfigError, NotApplicableError, RunError
from attnprobe.models import Transformer, TransformerConfig, make_model
from attnprobe.models.initialisation import state_on_cpu
from attnprobe.models.mixers import MIXERS, AttentionSettings, Mixer
from attnprobe.models.parameter_sets import matching, sets_of
from attnprobe.models.parts import normal, uniform
from attnprobe.models.stacking import stack
from attnprobe.objectives import Classification
from attnprobe.run import Optimizer, Phase
from attnprobe.tasks import Spec
from attnprobe.training.saved.checkpoint import load_checkpoint
from attnprobe.training.transfer import freeze, transfer
from attnprobe.training.updates.optim import make_optimizer
from tests.models.foreign import Recurrence, RecurrenceSettings

SPEC = Spec(length=11, classes=3, channels=2)
DECAY = "blocks.0.recurrence.decay"


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch):
    """A model whose mixer is the recurrence with some of its declarations replaced."""

    def make(**changes: Any) -> Transformer:
        kind = type("Changed", (Recurrence,), changes)
        settings = dataclasses.make_dataclass(
            "ChangedSettings", [("layer", ClassVar[type[Mixer]], kind)], bases=(RecurrenceSettings,), frozen=True
        )
        monkeypatch.setitem(MIXERS, "recurrence", settings)
        config = TransformerConfig(d_model=6, layers=2, d_mlp=7, mixer=settings())
        return make_model(config, SPEC, "values", seed=3)

    return make


def another(model: Transformer, seed: int) -> Transformer:
    return make_model(model.config, SPEC, "values", seed=seed)


@pytest.mark.parametrize(
    ("initial", "message"),
    [
        ({}, f"nothing says how {DECAY} of Changed starts"),
        ({"decay": normal(), "gain": normal()}, r"recurrence\.gain is declared but no parameter"),
        ({"decay": lambda tensor, generator: tensor.normal_()}, f"{DECAY} draws from torch's global seed"),
        ({"decay": lambda tensor, generator: None}, f"{DECAY} does not set all of it"),
        ({"decay": lambda tensor, generator: tensor[:3].fill_(0)}, f"{DECAY} does not set all of it"),
    ],
    ids=["missing", "unknown", "global seed", "nothing", "a part"],
)
def test_a_start_that_is_not_declared_is_refused(model, initial: dict, message: str) -> None:
    with pytest.raises(RunError, match=message) as caught:
        model(initial=lambda self: initial)
    assert caught.value.hint


def test_a_buffer_that_is_saved_must_be_declared_too(model) -> None:
    def init(self, site, settings):
        Recurrence.__init__(self, site, settings)
        self.register_buffer("features", torch.randn(5))

    with pytest.raises(RunError, match=r"nothing says how blocks\.0\.recurrence\.features"):
        model(__init__=init)
    declared = {"decay": normal(), "features": normal()}
    one, other = (model(__init__=init, initial=lambda self: declared).state_dict() for _ in range(2))
    assert torch.equal(one["blocks.1.recurrence.features"], other["blocks.1.recurrence.features"])
    assert not torch.equal(one["blocks.1.recurrence.features"], one["blocks.0.recurrence.features"])


def test_the_global_seed_changes_nothing(model) -> None:
    torch.manual_seed(1)
    one = model()
    torch.manual_seed(2)
    other = another(one, 3).state_dict()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.state_dict().items())
    assert not torch.equal(another(one, 4).state_dict()[DECAY], other[DECAY])


def test_what_is_declared_further_out_has_the_last_word(model) -> None:
    small = model(initial=lambda self: {"decay": normal(), "out.weight": uniform(1e-3)})
    assert 0 < small.state_dict()["blocks.1.recurrence.out.weight"].abs().max() <= 1e-3
    assert small.state_dict()["blocks.1.recurrence.out.bias"].abs().max() > 1e-2
    copied = model(initial=lambda self: {"decay": "out.bias"}).state_dict()
    assert torch.equal(copied[DECAY], copied["blocks.0.recurrence.out.bias"])


@pytest.mark.parametrize(
    ("stacking", "message"),
    [
        (Mixer.stack.__func__, r"blocks\.0\.recurrence cannot be stacked.*mixer Changed does not say how"),
        (lambda cls, layers: None, r"blocks\.0\.recurrence cannot be stacked.*Changed does not say how"),
        (lambda cls, layers: layers[0], r"blocks\.0\.recurrence\.decay.* shape \[6\] instead of \[3, 6\]"),
        (lambda cls, layers: torch.nn.Identity(), r"its twin has shape None instead of \[3, 6\]"),
    ],
    ids=["not declared", "by its parts", "a copy", "without parameters"],
)
def test_what_cannot_be_stacked_is_refused_and_left_whole(model, stacking: Any, message: str) -> None:
    """Once, unknown parameters became scalars."""
    first = model(stack=classmethod(stacking))
    models = [first, another(first, 4), another(first, 5)]
    before = [state_on_cpu(m) for m in models]
    with pytest.raises(NotApplicableError, match=message) as caught:
        stack(models)
    assert caught.value.hint
    for m, states in zip(models, before, strict=True):
        assert all(torch.equal(tensor, states[name]) for name, tensor in m.state_dict().items())


def test_parameters_that_parts_share_are_not_stacked(model) -> None:
    """Each part would get a twin of its own, and they would part ways."""
    first = model()
    models = [first, another(first, 4)]
    for made in models:
        made.blocks[1].up.weight = made.blocks[0].up.weight
    with pytest.raises(NotApplicableError, match="share"):
        stack(models)


def test_a_set_without_parameters_is_refused_by_name(model) -> None:
    """Once, transfer="qk" carried nothing over, without a word."""
    target = model()
    source = another(target, 4)
    for act in (lambda: transfer(target, source, "qk"), lambda: freeze(target, "qk")):
        with pytest.raises(ConfigError, match="'qk' names no parameters of this model") as caught:
            act()
        for name in ("recurrence", "decays", "mlp", "norms", "embedding", "all", "recurrence+positions"):
            assert f" {name}" in caught.value.hint
        assert "qk" not in caught.value.hint
        assert "attention" not in caught.value.hint
    assert transfer(target, source, "decays").carried == (DECAY, "blocks.1.recurrence.decay")
    assert freeze(target, "recurrence") == {n for n in source.state_dict() if ".recurrence." in n}


def test_names_of_sets_that_no_model_has_are_refused_early() -> None:
    with pytest.raises(ConfigError, match="'recurrence' is no named set"):
        Phase(objective=Classification(), transfer="recurrence")


@pytest.mark.usefixtures("foreign")
def test_names_of_sets_of_a_new_mixer_are_known() -> None:
    Phase(objective=Classification(), transfer="recurrence", freeze="decays")


def test_the_sets_of_attention_are_what_they_were() -> None:
    """As patterns over all names, from before mixers declared them."""
    earlier = {
        "all": ("embedding.*", "token.*", "positions.*", "blocks.*", "norm.*", "reconstruction_head.*"),
        "none": (),
        "qk": ("blocks.*.attention.q.*", "blocks.*.attention.k.*"),
        "attention": ("blocks.*.attention.*",),
        "attention+positions": ("blocks.*.attention.*", "positions.*"),
        "mlp": ("blocks.*.up.*", "blocks.*.down.*"),
        "embedding": ("embedding.*", "token.*"),
        "norms": ("blocks.*.norm1.*", "blocks.*.norm2.*", "norm.*"),
    }
    config = TransformerConfig(d_model=8, heads=2, layers=2, positions="learned", readout="token")
    made = make_model(config, SPEC, "values", seed=0)
    names, found = [name for name, _ in made.named_parameters()], sets_of(made)
    assert {name: found[name] for name in earlier} == {n: matching(names, p) for n, p in earlier.items()}
    assert found.keys() - earlier.keys() == {"qk+positions"}


def test_scores_that_are_not_there_are_not_handed_out(model) -> None:
    """Once, the proximity of such a model was a table of NaN."""
    made, x = model(), torch.randn(2, 11, 2)
    assert not made.has_scores
    assert make_model(TransformerConfig(d_model=8), SPEC, "values", seed=0).has_scores
    for asked in ({"observe": lambda call: None}, {"score_offsets": {}}):
        with pytest.raises(NotApplicableError, match="mixer 'recurrence' has no attention scores"):
            made(x, **asked)


@pytest.mark.usefixtures("foreign")
@pytest.mark.parametrize(
    ("setting", "value"), [("positions", "rotary"), ("attention_dropout", 0.1), ("init", "tied"), ("causal", True)]
)
def test_settings_that_a_mixer_cannot_carry_out_are_refused(monkeypatch, setting: str, value: object) -> None:
    table = {"d_model": 6, "mixer": {"name": "recurrence", "spread": 0.5}}
    assert build(TransformerConfig, table).mixer == RecurrenceSettings(spread=0.5)  # 6 channels need not fit 4 heads
    monkeypatch.setattr(Recurrence, "obeys", frozenset())
    with pytest.raises(ConfigError, match=f"^{setting} .*mixer 'recurrence'") as caught:
        build(TransformerConfig, table | {setting: value})
    assert "model.mixer=recurrence" in caught.value.hint


@pytest.mark.parametrize("name", ["up", "norm2", "forward", "a.b"])
def test_a_mixer_cannot_take_the_name_of_another_part(monkeypatch, name: str) -> None:
    monkeypatch.setitem(MIXERS, name, RecurrenceSettings)
    with pytest.raises(ConfigError, match="cannot be the name"):
        TransformerConfig(mixer=RecurrenceSettings())


def test_the_mlp_of_a_block_is_not_that_of_its_mixer(model) -> None:
    def init(self, site, settings):
        Recurrence.__init__(self, site, settings)
        self.up = torch.nn.Linear(3, 3)

    assert not [name for name in sets_of(model(__init__=init))["mlp"] if "recurrence" in name]


def test_the_optimizer_does_as_parts_declare(model) -> None:
    for decay in ("matrices", "all"):
        made = model()
        optimizer = make_optimizer(Optimizer(lr=1e-2, weight_decay=0.1, decay=decay), made)
        groups = {id(p): g for g in optimizer.param_groups for p in g["params"]}
        for name, parameter in made.named_parameters():
            group, own = groups[id(parameter)], name.endswith("recurrence.decay")
            assert group.get("scale", 1.0) == pytest.approx(0.01 if own else 1.0), name
            decayed = not own and (decay == "all" or parameter.dim() == 2)
            assert group["weight_decay"] == (0.1 if decayed else 0.0), name
    with pytest.raises(RunError, match=r"update of blocks\.\d\.recurrence\.gain is declared"):
        make_optimizer(Optimizer(), model(updates=lambda self: {"gain": None}))


def test_a_checkpoint_from_before_mixers_opens_and_has_the_same_start() -> None:
    """The file was written when attention was the only mixer; its parameters are drawn anew here."""
    loaded = load_checkpoint(Path(__file__).parent / "before_mixers.pt")
    assert loaded.run.model.mixer == AttentionSettings()
    fresh = make_model(loaded.run.model, loaded.spec, loaded.target, seed=loaded.run.seed).state_dict()
    assert list(fresh) == list(loaded.state)
    assert all(torch.equal(tensor, loaded.state[name]) for name, tensor in fresh.items())
    assert {"blocks.0.attention.q.weight", "positions.table", "token.vector"} <= fresh.keys()


def test_a_declared_set_that_matches_nothing_is_no_set(model) -> None:
    made = model(parameter_sets={"kernels": ("kernel.*",), "decays": ("decay",)})
    assert "kernels" not in sets_of(made)
    with pytest.raises(ConfigError, match="freeze 'kernels' names no parameters"):
        freeze(made, "kernels")
    with pytest.raises(ConfigError, match=r"freeze 'kernels\+positions' names no parameters"):
        freeze(made, "kernels+positions")
    assert freeze(made, "none") == set()
