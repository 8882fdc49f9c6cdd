"""Attention in windows against a dense matrix, forward and backward; its time and memory against length."""

import itertools

import pytest
import torch

from attnprobe.config import build
from attnprobe.errors import ConfigError
from attnprobe.models import TransformerConfig, make_model
from attnprobe.models.mixers.block_local import BlockLocal
from attnprobe.scores.visibility import Visibility
from attnprobe.tasks import Spec

WINDOW, HEADS, WIDTH, BATCH = 4, 3, 12, 5


def layer(length: int, *, sliding: bool = False, **settings) -> BlockLocal:
    mixer = {"name": "block_local", "window": WINDOW, "sliding": sliding}
    table = {"d_model": WIDTH, "heads": HEADS, "layers": 1, "mixer": mixer, **settings}
    model = make_model(build(TransformerConfig, table), Spec(length=length, classes=3, channels=2), "values", seed=0)
    found = model.double().blocks[0].get_submodule("block_local")
    assert isinstance(found, BlockLocal)
    return found


def dense(made: BlockLocal, x: torch.Tensor, valid: torch.Tensor | None, offset: torch.Tensor | None) -> torch.Tensor:
    """By the matrix of all pairs, from the rule in words."""
    length = x.shape[1]
    q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (made.q(x), made.k(x), made.v(x)))
    if made.rotary is not None:
        q, k = made.rotary(q), made.rotary(k)
    scores = q @ k.mT / (WIDTH // HEADS) ** 0.5
    scores = scores if offset is None else scores + offset
    for i, j in itertools.product(range(length), repeat=2):
        far = abs(i - j) >= WINDOW if made.sliding else abs(i // WINDOW - j // WINDOW) > 1
        if far or (made.causal and j > i):
            scores[..., i, j] = -torch.inf
    if valid is not None:
        scores = scores.masked_fill(~valid[:, None, None], -torch.inf)
    return made.o((scores.softmax(-1).nan_to_num() @ v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("sliding", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("positions", ["sinusoidal", "rotary"])
@pytest.mark.parametrize("length", [3, 4, 8, 11, 29])
def test_it_is_dense_attention_under_its_mask(length: int, positions: str, causal: bool, sliding: bool) -> None:
    made = layer(length, positions=positions, causal=causal, sliding=sliding)
    torch.manual_seed(length)
    x = torch.randn(BATCH, length, WIDTH, dtype=torch.float64, requires_grad=True)
    padded = torch.arange(length) < torch.tensor([length, 1, 2, max(length - 4, 1), max(length // 2, 1)])[:, None]
    offsets = (None, *(torch.randn(shape, dtype=torch.float64) for shape in (
        (BATCH, 1, length, length), (length, length), (1, HEADS, 1, length))))  # fmt: skip
    for valid, offset in itertools.product((None, padded), offsets):
        got, wanted = made(x, valid=valid, score_offset=offset), dense(made, x, valid, offset)
        counted = torch.ones_like(got) if valid is None else valid[..., None].expand_as(got).double()
        assert ((got - wanted) * counted).abs().max() < 1e-12
        weights = torch.randn_like(got) * counted
        gradients = [torch.autograd.grad((y * weights).sum(), [x, *made.parameters()]) for y in (got, wanted)]
        for mine, reference in zip(*gradients, strict=True):
            assert (mine - reference).abs().max() < 1e-11


def test_what_it_hands_out_is_what_it_computed() -> None:
    made, seen = layer(11), []
    x = torch.randn(BATCH, 11, WIDTH, dtype=torch.float64)
    made(x, observe=seen.append)
    (call,) = seen
    assert (call.pattern() @ call.v - call.output).abs().max() < 1e-12
    assert call.visible is not None
    assert call.visible.sum(-1).flatten().tolist() == [8] * 4 + [11] * 4 + [7] * 3


def test_blocks_are_visible_as_they_say() -> None:
    whole = Visibility(block=3, causal=True).whole(8)
    assert whole is not None
    wanted = [[abs(i // 3 - j // 3) <= 1 and j <= i for j in range(8)] for i in range(8)]
    assert whole.tolist() == wanted
    part = Visibility(block=3).mask(slice(4, 6), slice(2, 8))
    assert part is not None
    assert part.tolist() == [[abs(i // 3 - j // 3) <= 1 for j in range(2, 8)] for i in (4, 5)]


def test_nothing_as_large_as_all_pairs_is_made() -> None:
    """Shapes only: the largest tensor of a pass grows like the length."""
    largest = {}
    for length in (64, 256):
        made = layer(length)
        sizes: list[int] = []

        class Watch(torch.overrides.TorchFunctionMode):
            def __torch_function__(self, function, types, args=(), kwargs=None, sizes=sizes):
                out = function(*args, **(kwargs or {}))
                sizes.extend([out.numel()] if isinstance(out, torch.Tensor) else [])
                return out

        with Watch():
            made(torch.randn(1, length, WIDTH, dtype=torch.float64))
        largest[length] = max(sizes)
    assert largest[256] == 4 * largest[64] < 256 * 256


@pytest.mark.parametrize("window", [0, -3])
def test_windows_are_positive(window: int) -> None:
    with pytest.raises(ConfigError, match="window"):
        build(TransformerConfig, {"mixer": {"name": "block_local", "window": window}})
