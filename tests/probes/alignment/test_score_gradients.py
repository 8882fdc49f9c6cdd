"""Score gradients against central finite differences and dense autograd, in float64."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from attnprobe.capture import ours
from attnprobe.capture.ours import Ours
from attnprobe.errors import NotApplicableError, RunError
from attnprobe.models import AttentionCall, TransformerConfig, make_model
from attnprobe.models.mixers.block_local import BlockLocalSettings
from attnprobe.models.mixers.spade import SpadeSettings
from attnprobe.objectives import CausalPrediction, MaskedReconstruction
from attnprobe.probes.score_gradients import trace
from attnprobe.scores.directions import Projector
from attnprobe.scores.named import named_directions
from attnprobe.tasks import Spec, Split

LENGTH, BATCH, CLASSES = 13, 5, 3

CASES = {
    "plain": (TransformerConfig(d_model=12, layers=2, heads=3, d_mlp=7), (None, None)),
    "padded": (TransformerConfig(d_model=12, layers=2, heads=3, d_mlp=7, readout="max"), (None, "padded")),
    "attended": (TransformerConfig(d_model=12, layers=2, heads=3, d_mlp=7, padding="attended"), (None, "padded")),
    "causal": (TransformerConfig(d_model=12, layers=2, heads=2, d_mlp=7, causal=True), (None, None)),
    "causal, padded": (
        TransformerConfig(d_model=12, layers=2, heads=2, d_mlp=7, causal=True, readout="last"),
        (None, "padded"),
    ),
    "rotary": (TransformerConfig(d_model=12, layers=2, heads=3, d_mlp=7, positions="rotary"), (None, None)),
    "class token": (TransformerConfig(d_model=12, layers=2, heads=3, d_mlp=7, readout="token"), (None, "padded")),
    "grid": (TransformerConfig(d_model=12, layers=2, heads=3, d_mlp=7, positions="learned"), ((5, 3), None)),
    "windows": (
        TransformerConfig(d_model=12, layers=2, heads=3, d_mlp=7, mixer=BlockLocalSettings(window=3)),
        (None, "padded"),
    ),
    "sliding causal windows": (
        TransformerConfig(
            d_model=12, layers=2, heads=3, d_mlp=7, causal=True, mixer=BlockLocalSettings(window=4, sliding=True)
        ),
        (None, "padded"),
    ),
    "windows beside a state space": (
        TransformerConfig(d_model=12, layers=2, heads=3, d_mlp=7, mixer=SpadeSettings(window=4, states=4)),
        (None, "padded"),
    ),
    "causal grid": (TransformerConfig(d_model=12, layers=2, heads=3, d_mlp=7, causal=True), ((3, 5), None)),
}


EVERY = np.arange(BATCH)


def make_case(name: str) -> Ours:
    config, (grid, padded) = CASES[name]
    length = LENGTH if grid is None else grid[0] * grid[1]
    spec = Spec(length=length, classes=CLASSES, channels=2, mean=(0.0, 0.0), std=(1.0, 1.0), grid=grid)
    model = make_model(config, spec, "values", seed=1).double()
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(BATCH, length, 2, generator=generator, dtype=torch.float64)
    lengths = torch.tensor([length, 3, length - 2, 7, length]) if padded else None
    split = Split(inputs=inputs, labels=torch.tensor([0, 1, 2, 1, 0]), lengths=lengths)
    objective = CausalPrediction(loss="l2") if config.causal else MaskedReconstruction(loss="l2")
    return ours.of(model, split, trained=[objective], seed=3)


def gradients(subject: Ours, loss: str, method, rows: int) -> Tensor:
    """(layer, target, batch, head, length, length), without class tokens."""
    traced = trace(subject, EVERY, loss, method=method)
    blocks: dict[int, list[Tensor]] = {}
    for block in traced.gradients(rows):
        blocks.setdefault(block.layer, []).append(block.values)
    return torch.stack([torch.cat(parts, -2) for parts in blocks.values()])


LOSSES = ("label", "reconstruction")


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", CASES)
def test_streamed_and_dense_gradients_agree(name: str, loss: str) -> None:
    subject = make_case(name)
    dense = gradients(subject, loss, "dense", 100)
    for rows in (1, 4, 100):
        streamed = gradients(subject, loss, "streamed", rows)
        assert float((streamed - dense).abs().max()) <= 1e-13
    assert float(dense.abs().max()) > 1e-4


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", CASES)
def test_projections_agree_with_central_finite_differences(name: str, loss: str) -> None:
    subject = make_case(name)
    space, (layers, heads) = subject.space, subject.shape
    directions = named_directions(space, reach=1, radii=(2.0,), controls=1)
    projector = Projector(space, directions, layers=layers, heads=heads)
    full = gradients(subject, loss, "streamed", 4)

    def moved(layer: int, head: int, direction: str, step: float) -> Tensor:
        offset = torch.zeros(1, heads, space.size, space.size, dtype=torch.float64)
        offset[0, head] = step * projector.matrix(direction).expand(layers, heads, -1, -1)[layer, head]
        with torch.no_grad():
            return subject.loss(loss, EVERY, score_offsets={layer: offset}).targets

    rows = slice(0, space.length)
    h = 2e-2
    for layer, head in ((0, 0), (1, heads - 1)):
        block = full[layer]
        found = projector.project(block, space.fold(block, rows), layer, rows)[:, :, head]
        for d, direction in enumerate(projector.names):
            f = {step: moved(layer, head, direction, step * h) for step in (-3, -2, -1, 1, 2, 3)}
            difference = (45 * (f[1] - f[-1]) - 9 * (f[2] - f[-2]) + (f[3] - f[-3])) / (60 * h)  # error ~ h^6
            assert torch.allclose(found[..., d].T, difference, atol=1e-10), (layer, head, direction)


def test_float32_gradients_pass_the_checks_and_lie_close_to_float64() -> None:
    subject = make_case("padded")
    exact = gradients(subject, "label", "dense", 100)
    split = dataclasses.replace(subject.split, inputs=subject.split.inputs.float())
    single = ours.of(subject.model.float(), split)
    for method in ("dense", "streamed"):
        found = gradients(single, "label", method, 4)
        assert float((found - exact).abs().max() / exact.abs().max()) < 1e-4


def test_frozen_parameters_are_no_obstacle_and_stay_frozen() -> None:
    subject = make_case("plain")
    expected = gradients(subject, "label", "streamed", 4)
    subject.model.requires_grad_(False)
    assert torch.equal(gradients(subject, "label", "streamed", 4), expected)
    assert not any(p.requires_grad or p.grad is not None for p in subject.model.parameters())


def test_dense_works_although_the_fused_cpu_kernel_refuses_masks_with_gradients() -> None:
    q = torch.randn(1, 1, 3, 4)
    mask = torch.zeros(3, 3, requires_grad=True)
    with (
        sdpa_kernel(SDPBackend.FLASH_ATTENTION),
        pytest.warns(UserWarning, match="not used because"),
        pytest.raises(RuntimeError, match="No available kernel"),
    ):
        F.scaled_dot_product_attention(q, q, q, attn_mask=mask)
    F.scaled_dot_product_attention(q, q, q, attn_mask=mask).sum().backward()  # the dispatcher falls back by itself
    assert mask.grad is not None


def test_nan_is_reported_with_layer_and_head() -> None:
    subject = make_case("plain")
    with torch.no_grad():
        subject.model.blocks[1].attention.k.weight[4 * 2] = torch.nan  # d_head is 4: the third head
    with pytest.raises(NotApplicableError, match="layer 1, head 2: k holds NaN"):
        trace(subject, EVERY, "label", method="streamed")


def test_an_output_that_is_not_the_softmax_of_the_scores_is_noticed() -> None:
    traced = trace(make_case("plain"), EVERY, "label", method="streamed")
    call = traced.calls[1]
    wrong: list[AttentionCall] = [traced.calls[0], dataclasses.replace(call, scale=call.scale * 1.5)]
    with pytest.raises(RunError, match="layer 1: the rows of the score gradient do not sum to zero"):
        list(dataclasses.replace(traced, calls=wrong).gradients(4))


def test_gradient_at_hidden_keys_is_noticed() -> None:
    traced = trace(make_case("causal"), EVERY, "label", method="dense")
    call = traced.calls[0]
    first_hidden = torch.arange(call.k.shape[-2]).expand(len(call.k), -1) > 0
    wrong = dataclasses.replace(call, visibility=dataclasses.replace(call.visibility, valid=first_hidden))
    with pytest.raises(RunError, match="layer 0: the score gradient is not zero at hidden keys"):
        list(dataclasses.replace(traced, calls=[wrong, traced.calls[1]]).gradients(4))


class LargestTensor(TorchDispatchMode):
    """Remembers the size of the largest tensor that any operation returned."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.numel = max(self.numel, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


def test_streaming_a_long_sequence_never_makes_a_matrix_of_its_length_squared() -> None:
    length = 1031
    spec = Spec(length=length, classes=2)
    model = make_model(TransformerConfig(d_model=4, heads=2, d_mlp=4), spec, "values", seed=0)
    split = Split(inputs=torch.randn(1, length, 1), labels=torch.zeros(1, dtype=torch.int64))
    subject = ours.of(model, split)
    with LargestTensor() as largest:
        traced = trace(subject, np.arange(1), "label", method="streamed")
        for block in traced.gradients(64):
            subject.space.fold(block.values, block.rows)
    assert 64 * length < largest.numel < length**2 // 2
