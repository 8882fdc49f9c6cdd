"""Every mixer is trained like attention: carried over, resumed to the bit, and as a member of an ensemble."""

from pathlib import Path

import pytest
import torch

from attnprobe.models.mixers import MIXERS
from attnprobe.models.parameter_sets import sets_of
from attnprobe.training.ensembles.ensemble import together
from attnprobe.training.execute import execute, updates
from attnprobe.training.execution import Execution
from attnprobe.training.loop import Interrupted
from attnprobe.training.saved.checkpoint import load_checkpoint
from attnprobe.training.saved.run_directory import RunDirectory

CPU = torch.device("cpu")
SMALL = {
    "block_local": "window=3", "s4": "states=4", "s4d": "states=4", "dlr": "states=8", "performer": "features=8",
    "linformer": "rank=3", "longformer": "window=2", "bigbird": "block=2", "reformer": "chunk=4, buckets=2",
    "mega": "states=2, d_shared=4, d_value=8, chunk=4", "spade": "states=4, window=3",
}  # fmt: skip
STATE_SPACE = ("s4", "s4d", "dlr")

pytestmark = pytest.mark.parametrize("name", [name for name in MIXERS if name != "attention"])


def settings(name: str) -> tuple[str, ...]:
    sizes = f", {SMALL[name]}" if name in SMALL else ""
    published = ("model.norm=batch", "model.norm_place=after", "model.d_mlp=0") if name in STATE_SPACE else ()
    return f"model.mixer={{name='{name}'{sizes}}}", "pretrain.epochs=2", "finetune.epochs=2", *published


def states(path: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {p.stem: load_checkpoint(p).state for p in (path / "checkpoints").glob("*.pt")}


@pytest.mark.parametrize("objective", ["masked", "causal"])
def test_it_is_carried_over_and_resumed_to_the_bit(name: str, objective: str, small, monitor, tmp_path) -> None:
    causal = objective == "causal"
    if causal and "causal" not in MIXERS[name].layer.obeys:
        pytest.skip("refused, as the contract's test shows")
    chosen = "kernels" if name in STATE_SPACE else "qk"
    pretraining = (f"model.causal={str(causal).lower()}", f"pretrain.objective={{name='{objective}'}}")
    config = small(*settings(name), *pretraining, f"finetune.transfer={chosen}", f"finetune.freeze={chosen}")
    execute(config, tmp_path / "whole", device=CPU, monitor=monitor)
    asked = iter(range(10**6))
    with pytest.raises(Interrupted):
        execute(config, tmp_path / "halves", device=CPU, monitor=monitor, should_stop=lambda: next(asked) == 5)
    execute(config, tmp_path / "halves", device=CPU, monitor=monitor, resume=True)
    whole, halves = states(tmp_path / "whole"), states(tmp_path / "halves")
    assert whole.keys() == halves.keys() == {"init", "pretrained", "finetuned"}
    for stage, state in whole.items():
        assert all(torch.equal(tensor, halves[stage][key]) for key, tensor in state.items())
    kept = {key for key, tensor in whole["finetuned"].items() if torch.equal(tensor, whole["pretrained"][key])}
    moved = {key for key, tensor in whole["pretrained"].items() if not torch.equal(tensor, whole["init"][key])}
    model = load_checkpoint(tmp_path / "whole" / "checkpoints" / "finetuned.pt").make_model()
    fixed = sets_of(model)[chosen]
    assert fixed
    assert fixed <= kept  # carried over, and left as they were
    assert {key for key in fixed if "k.bias" not in key} <= moved  # which the softmax does not notice
    learned = {key for key, _ in model.named_parameters() if f".{name}." in key} - fixed
    assert not learned & kept


def test_as_a_member_of_an_ensemble_it_is_its_solo_run(name: str, small, monitor, tmp_path) -> None:
    if not MIXERS[name].layer.can_be_stacked():
        pytest.skip("refused, as the contract's test shows")
    configs = [small(*settings(name), f"seed={seed}") for seed in (1, 2)]
    executions = [
        Execution(config=config, directory=RunDirectory(tmp_path / f"member{n}"), device=CPU, monitor=monitor)
        for n, config in enumerate(configs)
    ]
    together([updates(e) for e in executions])
    for number, config in enumerate(configs):
        execute(config, tmp_path / f"solo{number}", device=CPU, monitor=monitor)
        one, other = states(tmp_path / f"member{number}"), states(tmp_path / f"solo{number}")
        for stage in ("pretrained", "finetuned"):
            for key, tensor in one[stage].items():
                if key.endswith("k.bias"):  # the softmax does not notice it: AdamW enlarges what rounding leaves
                    continue
                assert torch.allclose(tensor, other[stage][key], rtol=1e-3, atol=5e-5), (stage, key)
