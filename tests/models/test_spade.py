"""SPADE against the parts it is made of, in float64."""

from typing import Any

import pytest
import torch

from attnprobe.config import build
from attnprobe.errors import ConfigError
from attnprobe.models import Transformer, TransformerConfig, make_model
from attnprobe.models.mixers.spade import Spade
from attnprobe.models.parameter_sets import sets_of
from attnprobe.tasks import Spec
from attnprobe.training.transfer import freeze

WIDTH, LENGTH, WINDOW = 6, 17, 3
S4 = {"states": 4}


def model(name: str = "spade", **settings: Any) -> Transformer:
    mixer = {"name": name, "window": WINDOW, **({} if name == "block_local" else S4), **settings}
    table = {"d_model": WIDTH, "heads": 2, "layers": 2, "d_mlp": 7, "mixer": mixer}
    spec = Spec(length=LENGTH, classes=3, channels=2)
    return make_model(build(TransformerConfig, table), spec, "values", seed=0).double()


def inputs() -> torch.Tensor:
    return torch.randn(4, LENGTH, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("sliding", [False, True])
def test_without_state_space_it_is_attention_in_windows(sliding: bool) -> None:
    windows, off = model("block_local", sliding=sliding), model(augmented=0, sliding=sliding)
    state = {name.replace("block_local", "spade"): tensor for name, tensor in windows.state_dict().items()}
    off.load_state_dict(state)
    valid = torch.arange(LENGTH) < torch.tensor([17, 3, 8, 1])[:, None]
    assert torch.equal(windows(inputs(), valid=valid), off(inputs(), valid=valid))


def test_the_first_layer_combines_both_and_the_second_has_attention_alone() -> None:
    made = model()
    first, second = (block.get_submodule("spade") for block in made.blocks)
    assert isinstance(first, Spade)
    assert not any("convolution" in name for name, _ in second.named_parameters())
    windows = model("block_local", sliding=True).blocks[0].get_submodule("block_local")
    windows.load_state_dict({k: v for k, v in first.state_dict().items() if k[:2] in ("q.", "k.", "v.", "o.")})
    x = torch.randn(4, LENGTH, WIDTH, dtype=torch.float64)

    def normed(norm: torch.nn.Module, y: torch.Tensor) -> torch.Tensor:
        y = y - y.mean(-1, keepdim=True)
        return y / (y.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight + norm.bias

    both = torch.cat([normed(first.norm_system, first.convolution(x)), normed(first.norm_attention, windows(x))], -1)
    wanted = both @ first.combine.weight.mT + first.combine.bias
    assert (first(x) - wanted).abs().max() < 1e-12


def test_only_the_state_space_reaches_beyond_the_windows() -> None:
    """Two layers of windows see less than 2 * 2 positions to each side."""
    x = inputs()
    changed = x.clone()
    changed[:, 0] += 2
    for augmented in (0, 1):
        made = model(augmented=augmented)
        far = (made(x) - made(changed)).abs().amax((0, 2))[2 * (WINDOW - 1) + 1 :]
        assert (far == 0).all() if augmented == 0 else (far > 1e-8).all()


def test_its_state_space_can_be_left_as_it_starts() -> None:
    made = model()
    frozen = freeze(made, "kernels")
    assert frozen == {name for name, _ in made.named_parameters() if name.startswith("blocks.0.spade.convolution.")}
    assert frozen == sets_of(made)["kernels"]


@pytest.mark.parametrize("settings", [{"window": 0}, {"augmented": -1}, {"states": 3}, {"copies": 4}])
def test_impossible_settings_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings)) if "states" not in settings else "even"):
        build(TransformerConfig, {"d_model": 6, "heads": 2, "mixer": {"name": "spade", **settings}}, "model")
