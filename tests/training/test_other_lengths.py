"""What state-space layers learned on sequences of one length is kept on those of another."""

import dataclasses
from pathlib import Path

import pytest
import torch

from attnprobe.models.mixers.state_space.layer import LongConvolution
from attnprobe.training.execute import execute
from attnprobe.training.saved.checkpoint import load_checkpoint

CPU = torch.device("cpu")


def convolution(path: Path) -> LongConvolution:
    model = load_checkpoint(path).make_model().double()
    return next(module for module in model.modules() if isinstance(module, LongConvolution))


@pytest.mark.parametrize("side", [4, 7])
@pytest.mark.parametrize("name", ["s4", "spade"])
def test_training_at_one_length_and_finetuning_at_another(name: str, side: int, small, monitor, tmp_path: Path) -> None:
    """Pretrained on 25 positions, started on 16 or 49: within a run, and from a checkpoint."""
    mixer = f"model.mixer={{name='{name}', states=4, lr=0.0" + (", window=3}" if name == "spade" else "}")
    epochs = ("pretrain.epochs=1", "finetune.epochs=1", "finetune.optimizer.lr=1e-9")
    lengths = (f"task.side={side}", "pretrain.task={name='textures', side=5, n_train=53}")
    both = small(mixer, "model.positions=none", *epochs, *lengths)
    execute(both, tmp_path / "both", device=CPU, monitor=monitor)
    first = tmp_path / "both" / "checkpoints" / "pretrained.pt"
    continued = dataclasses.replace(both, pretrain=None, pretrained=first)
    execute(continued, tmp_path / "continued", device=CPU, monitor=monitor)
    stages = [first, *(tmp_path / run / "checkpoints" / "finetuned.pt" for run in ("both", "continued"))]
    before, *after = (convolution(path) for path in stages)
    assert [c.length for c in (before, *after)] == [25, side**2, side**2]
    shared, wanted = min(25, side**2), before.kernels(25)
    for other in after:
        gap = other.kernels(shared) - wanted[..., :shared]
        assert gap.abs().max() < 1e-5 * wanted.abs().max()
