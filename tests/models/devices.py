"""What a model computes on a device beside the same model in float64 on the CPU."""

import copy

import torch
from torch import Tensor

from attnprobe.config import build
from attnprobe.models import Transformer, TransformerConfig, make_model
from attnprobe.models.mixers import MIXERS
from attnprobe.tasks import Spec

LENGTH, BATCH, WIDTH = 150, 3, 24
SPEC = Spec(length=LENGTH, classes=3, channels=2)
SIZES = {  # several blocks of these positions
    "block_local": {"window": 32}, "longformer": {"window": 32}, "bigbird": {"block": 16, "random": 1},
    "reformer": {"chunk": 16, "buckets": 8}, "linformer": {"rank": 20}, "performer": {"features": 32},
    "mega": {"chunk": 64, "pattern": "laplace"}, "spade": {"window": 32, "states": 16}, "dlr": {"states": 64},
}  # fmt: skip


def model(name: str, **settings: object) -> Transformer:
    mixer = {"name": name, **SIZES.get(name, {})}
    table = {"d_model": WIDTH, "heads": 3, "layers": 2, "d_mlp": 16, "mixer": mixer, **settings}
    return make_model(build(TransformerConfig, table), SPEC, "values", seed=0)


def pass_of(made: Transformer, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """Label logits of padded sequences, and the gradients of all parameters of the blocks, as float64 on the CPU."""
    made = copy.deepcopy(made).to(device, dtype)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(BATCH, LENGTH, 2, generator=generator, dtype=torch.float64)
    valid = torch.arange(LENGTH) < torch.tensor([LENGTH, 40, 97])[:, None]
    features = made(x.to(device, dtype), valid=valid.to(device))
    outputs = made.classify(features, valid.to(device))
    gradients = torch.autograd.grad(outputs.square().sum(), list(made.blocks.parameters()))
    return [t.detach().double().cpu() for t in (outputs, *gradients)]


def error(name: str, device: torch.device, *, causal: bool) -> float:
    """Largest difference from float64 on the CPU: of the outputs, and of each gradient, relative to the largest."""
    made = model(name, causal=causal)
    wanted = pass_of(made, torch.device("cpu"), torch.float64)
    found = pass_of(made, device, torch.float32)
    scales = [wanted[0].abs().max(), *[max(w.abs().max() for w in wanted[1:])] * (len(wanted) - 1)]
    return max(float((f - w).abs().max() / s) for f, w, s in zip(found, wanted, scales, strict=True))


CASES = [(name, c) for name in MIXERS for c in (False, True) if not c or "causal" in MIXERS[name].layer.obeys]
TOLERANCE = 2e-5  # on a CPU S4 needs 5e-6, the others 1e-6
