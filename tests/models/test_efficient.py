"""Each efficient mixer's defining property, against dense matrices written out here; and what it costs."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from attnprobe.config import build
from attnprobe.errors import ConfigError
from attnprobe.models import TransformerConfig, make_model
from attnprobe.models.mixers import Site
from attnprobe.models.mixers.efficient.bigbird import BigBird, BigBirdSettings, draw_table
from attnprobe.models.mixers.efficient.linear import Performer, orthogonal_gaussians, weigh
from attnprobe.models.mixers.efficient.reformer import Reformer
from attnprobe.tasks import Spec

WIDTH, HEADS, BATCH = 12, 3, 4


def layer(name: str, length: int, *, causal: bool = False, layers: int = 1, **settings) -> Any:
    table = {
        "d_model": WIDTH, "heads": HEADS, "layers": layers, "causal": causal, "mixer": {"name": name, **settings}
    }  # fmt: skip
    model = make_model(build(TransformerConfig, table), Spec(length=length, classes=3, channels=2), "values", seed=0)
    return model.double().blocks[-1].get_submodule(name)


def inputs(length: int, width: int = WIDTH) -> Tensor:
    return torch.randn(BATCH, length, width, generator=torch.Generator().manual_seed(length), dtype=torch.float64)


def heads(made: Any, x: Tensor) -> tuple[Tensor, ...]:
    return tuple(part(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in (made.q, made.k, made.v))


def out(made: Any, mixed: Tensor) -> Tensor:
    return made.o(mixed.transpose(1, 2).flatten(2))


def masked(made: Any, x: Tensor, mask: Tensor) -> Tensor:
    q, k, v = heads(made, x)
    scores = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(~mask, -torch.inf)
    return out(made, scores.softmax(-1) @ v)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length", [5, 64, 131])
def test_linear_attention_is_its_quadratic_form(length: int, causal: bool) -> None:
    made, x = layer("linear", length, causal=causal), inputs(length)
    q, k, v = heads(made, x)
    weights = (F.elu(q) + 1) @ (F.elu(k) + 1).mT
    weights = weights.tril() if causal else weights
    assert (made(x) - out(made, weights / weights.sum(-1, keepdim=True) @ v)).abs().max() < 1e-12


def test_performers_estimate_is_softmax_attention_on_average() -> None:
    """Numerator and denominator, each over many draws of the features; a ratio of them is biased."""
    made = layer("performer", 7, features=8)
    q, k, _ = heads(made, inputs(7))
    d_head = q.shape[-1]
    wanted = (q @ k.mT / math.sqrt(d_head)).exp()
    generator, estimates = torch.Generator().manual_seed(0), []
    for _ in range(4000):
        orthogonal_gaussians(made.directions, generator)
        features = [(made._logarithms(t * d_head**-0.25)).exp() / math.sqrt(8) for t in (q, k)]
        estimates.append(features[0] @ features[1].mT)
    stacked = torch.stack(estimates)
    z = (stacked.mean(0) - wanted) / (stacked.std(0) / math.sqrt(len(stacked)))
    assert z.abs().max() < 5
    assert z.std() < 1.5  # heads share the features, so its entries are not independent
    assert (stacked.mean(0) / wanted - 1).abs().max() < 0.1


def test_performer_weighs_by_its_features() -> None:
    made, x = layer("performer", 9, features=16), inputs(9)
    assert isinstance(made, Performer)
    q, k, v = heads(made, x)
    features = [made._logarithms(t * q.shape[-1] ** -0.25).exp() for t in (q, k)]
    assert (made(x) - out(made, weigh(*features, v, causal=False))).abs().max() < 1e-12


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("length", [5, 64, 131])
def test_causal_performer_is_its_quadratic_form(length: int, padded: bool) -> None:
    made, x = layer("performer", length, causal=True, features=16), inputs(length)
    valid = torch.arange(length) < torch.tensor([length, 2, 5, length - 1])[:, None]
    valid = valid if padded else torch.ones_like(valid)
    q, k, v = heads(made, x)
    q, k = (made._logarithms(t * q.shape[-1] ** -0.25).exp() for t in (q, k))
    weights = (q @ k.mT).tril() * valid[:, None, None]
    found = made(x, valid=valid if padded else None)
    assert (found - out(made, weights / weights.sum(-1, keepdim=True) @ v)).abs().max() < 1e-12


@pytest.mark.parametrize("change", [("later", 100.0), ("earlier", 100.0), ("earlier", 30.0)], ids=str)
def test_causal_performer_sees_nothing_that_follows_in_float32(change: tuple[str, float]) -> None:
    """Long keys have features next to nothing: a common maximum of all keys took the weights of earlier queries away,
    or gave them back, with what came later.
    """
    which, factor = change
    length, first = 150, 97  # in the middle of the second chunk
    made = layer("performer", length, causal=True, features=16)
    drawn = torch.randn(3, 2, HEADS, length, WIDTH // HEADS, generator=torch.Generator().manual_seed(0))
    q, k, v = (x.requires_grad_() for x in drawn.unbind())
    scale = torch.where(torch.arange(length) < first, *((factor, 1.0) if which == "earlier" else (1.0, factor)))
    k = k * scale[:, None]
    other = torch.cat([k[:, :, :first], -3 * k[:, :, first:]], 2)
    whole, changed = made.float().mix(q, k, v, None), made.mix(q, other, v, None)
    assert torch.equal(whole[:, :, :first], changed[:, :, :first])
    assert which == "later" or not torch.allclose(whole[:, :, first:], changed[:, :, first:], atol=1e-3)
    exact = made.double().mix(q.double(), k.double(), v.double(), None)
    assert (whole - exact).abs().max() < 1e-2  # of the logarithms, some 10^4, float32 has three digits behind the point
    (gradient,) = torch.autograd.grad(whole[:, :, :first].square().sum(), k)
    assert gradient.isfinite().all()
    assert (gradient[:, :, first:] == 0).all()


def test_with_more_features_performer_comes_closer() -> None:
    x = inputs(11)
    errors = {}
    for features in (8, 8192):
        made = layer("performer", 11, features=features)
        errors[features] = (made(x) - masked(made, x, torch.ones(11, 11).bool())).abs().max().item()
    assert errors[8192] < 0.2 * errors[8]


def test_orthogonal_gaussians_are_both() -> None:
    rows = torch.empty(4000, 4, dtype=torch.float64)
    orthogonal_gaussians(rows, torch.Generator().manual_seed(1))
    products = rows.unflatten(0, (-1, 4)) @ rows.unflatten(0, (-1, 4)).mT
    assert (products - torch.diag_embed(products.diagonal(dim1=1, dim2=2))).abs().max() < 1e-12
    assert (rows.mT @ rows / 4000 - torch.eye(4)).abs().max() < 0.1
    assert rows.square().sum(-1).mean() == pytest.approx(4, rel=0.05)


def test_linformer_is_dense_where_it_projects_to_every_position() -> None:
    made, x = layer("linformer", 10, rank=10), inputs(10)
    with torch.no_grad():
        made.of_keys.copy_(torch.eye(10))
        made.of_values.copy_(torch.eye(10))
    assert (made(x) - masked(made, x, torch.ones(10, 10).bool())).abs().max() < 1e-12


def test_linformer_projects_keys_and_values() -> None:
    made, x = layer("linformer", 10, rank=3), inputs(10)
    q, k, v = heads(made, x)
    scores = q @ (made.of_keys @ k).mT / math.sqrt(q.shape[-1])
    assert (made(x) - out(made, scores.softmax(-1) @ (made.of_values @ v))).abs().max() < 1e-12


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("everywhere", [0, 1, 5])
@pytest.mark.parametrize("length", [3, 8, 23])
def test_longformer_is_dense_under_its_mask(length: int, everywhere: int, causal: bool) -> None:
    made, x = layer("longformer", length, window=4, everywhere=everywhere, causal=causal), inputs(length)
    i, j = torch.arange(length)[:, None], torch.arange(length)
    mask = ((i - j).abs() <= 4) | (i < everywhere) | (j < everywhere)
    mask = mask & (j <= i) if causal else mask
    assert (made(x) - masked(made, x, mask)).abs().max() < 1e-12


@pytest.mark.parametrize("length", [3, 8, 30])
def test_bigbird_is_dense_under_its_mask(length: int) -> None:
    made, x = layer("bigbird", length, block=3, random=2), inputs(length)
    assert isinstance(made, BigBird)
    mask = torch.zeros(length, length, dtype=torch.bool)
    for block, row in enumerate(made.table.tolist()):
        for key in range(length):
            seen = key // 3 in row or block == 0
            mask[3 * block : 3 * block + 3, key] = seen
    assert (made(x) - masked(made, x, mask)).abs().max() < 1e-12


def test_bigbirds_blocks() -> None:
    table = draw_table(12, 2, layer=0)
    for block, row in enumerate(table.tolist()):
        seen = [b for b in row if b >= 0]
        assert len(set(seen)) == len(seen)
        assert {b for b in (block - 1, block, block + 1, 0) if 0 <= b < 12} <= set(seen)
        assert len(seen) == len({b for b in (block - 1, block, block + 1, 0) if 0 <= b < 12}) + 2
    assert (table != draw_table(12, 2, layer=1)).any()


def test_more_blocks_than_can_be_drawn_are_refused() -> None:
    """Before any is drawn: a checkpoint may claim any length."""
    site = Site(layer=0, d_model=4, length=2**31, heads=1, causal=False, dropout=0.0, init="independent", rotary=None)
    with pytest.raises(ConfigError, match=r"model.mixer.block 1 makes 2,147,483,648 blocks"):
        BigBird(site, BigBirdSettings(block=1))


def test_reformer_with_one_bucket_is_dense_attention_with_shared_queries() -> None:
    length = 11
    made, x = layer("reformer", length, buckets=1, chunk=16, rounds=2), inputs(length)
    q, v = (part(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in (made.q, made.v))
    scores = q @ F.normalize(q, dim=-1).mT / math.sqrt(q.shape[-1])
    scores = scores - 1e5 * torch.eye(length, dtype=torch.float64)
    assert (made(x) - out(made, scores.softmax(-1) @ v)).abs().max() < 1e-10


def test_reformer_is_dense_within_buckets_and_chunks() -> None:
    """One round, from the rule in words: sorted by bucket, then by position; the own and the previous chunk."""
    length, chunk = 21, 4
    made, x = layer("reformer", length, buckets=4, chunk=chunk, rounds=1), inputs(length)
    assert isinstance(made, Reformer)
    q, v = (part(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in (made.q, made.v))
    bucket = made.bucket(q, None, made.rotations[0])
    assert bucket.unique().tolist() == [0, 1, 2, 3]
    mixed = torch.zeros_like(v)
    for b in range(BATCH):
        for h in range(HEADS):
            order = sorted(range(length), key=lambda i: (int(bucket[b, h, i]), i))
            for rank, i in enumerate(order):
                near = [j for r, j in enumerate(order) if 0 <= rank // chunk - r // chunk <= 1]
                keys = [j for j in near if bucket[b, h, j] == bucket[b, h, i] and j != i] or [i]
                unit = F.normalize(q[b, h, keys], dim=-1)
                weights = (unit @ q[b, h, i] / math.sqrt(q.shape[-1])).softmax(0)
                mixed[b, h, i] = weights @ v[b, h, keys]
    assert (made(x) - out(made, mixed)).abs().max() < 1e-10


def test_reformers_weights_add_up_in_bfloat16_too() -> None:
    """Within the rounding of its products, 2^-9 each, as long as hashes agree: here there is one bucket."""
    made = layer("reformer", 96, buckets=1, chunk=96).float()
    x = 3 * inputs(96).float()
    with torch.autocast("cpu", torch.bfloat16):
        got = made(x)
    wanted = made(x)
    assert (got - wanted).norm() < 0.006 * wanted.norm()


def test_reformers_gradients_are_those_of_finite_differences() -> None:
    made = layer("reformer", 9, buckets=2, chunk=4, rounds=2)
    x = inputs(9)[:1].requires_grad_()
    assert torch.autograd.gradcheck(made, (x,), atol=1e-6)


SIZES = {
    "linear": {}, "performer": {"features": 8}, "linformer": {"rank": 8}, "longformer": {"window": 8},
    "bigbird": {"block": 8}, "reformer": {"chunk": 8}, "block_local": {"window": 8},
}  # fmt: skip


@pytest.mark.parametrize("name", [*SIZES, "attention"])
def test_memory_grows_like_the_length(name: str) -> None:
    """The largest tensor a pass makes, and their sum, at four times the length: four times, sixteen for attention."""
    largest, total = {}, {}
    for length in (256, 1024):
        made, sizes = layer(name, length, **SIZES.get(name, {})), []

        class Watch(torch.overrides.TorchFunctionMode):
            def __torch_function__(self, function, types, args=(), kwargs=None, sizes=sizes):
                if name == "attention" and function is F.scaled_dot_product_attention:
                    q, k = args[:2]
                    sizes.append(q.shape[:-1].numel() * k.shape[-2])  # its fused kernel does not keep them
                result = function(*args, **(kwargs or {}))
                sizes.extend([result.numel()] if isinstance(result, Tensor) else [])
                return result

        with Watch():
            made(inputs(length))
        largest[length], total[length] = max(sizes), sum(sizes)
    exponent = math.log(total[1024] / total[256], 4)
    assert largest[1024] / largest[256] == (16 if name == "attention" else 4)
    assert (1.5 < exponent < 2.1) if name == "attention" else (0.9 < exponent < 1.1)


@pytest.mark.parametrize(
    ("mixer", "message"),
    [
        ({"name": "performer", "features": 0}, "features"),
        ({"name": "linformer", "rank": 0}, "rank"),
        ({"name": "longformer", "window": 0}, "window"),
        ({"name": "longformer", "everywhere": -1}, "everywhere"),
        ({"name": "bigbird", "block": 0}, "block"),
        ({"name": "reformer", "buckets": 3}, "even or 1"),
        ({"name": "reformer", "rounds": 0}, "rounds"),
    ],
)
def test_impossible_settings_are_refused(mixer: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(TransformerConfig, {"mixer": mixer})
