"""Batch norm against torch's, with padding and in ensembles; scale norm; norms before and after."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from attnprobe.config import build
from attnprobe.models import Transformer, TransformerConfig, make_model
from attnprobe.models.norms import BatchNorm, ScaleNorm
from attnprobe.models.stacking import stack
from attnprobe.tasks import Spec
from attnprobe.training.transfer import freeze, transfer

WIDTH, LENGTH, BATCH = 6, 11, 5
SPEC = Spec(length=LENGTH, classes=3, channels=2)


def batch_norm() -> BatchNorm:
    made = BatchNorm(WIDTH).double()
    with torch.no_grad():
        for name, tensor in made.state_dict().items():
            tensor.copy_(torch.rand(WIDTH, dtype=torch.float64) + (name in ("weight", "variance")))
    return made


def test_it_is_torchs() -> None:
    made, theirs = batch_norm(), torch.nn.BatchNorm1d(WIDTH).double()
    theirs.load_state_dict(
        {"weight": made.weight, "bias": made.bias, "running_mean": made.mean, "running_var": made.variance,
         "num_batches_tracked": torch.tensor(0)}
    )  # fmt: skip
    for training in (True, True, False):
        made.train(training)
        theirs.train(training)
        x = torch.randn(BATCH, LENGTH, WIDTH, dtype=torch.float64) * 3 + 1
        assert (made(x) - theirs(x.mT).mT).abs().max() < 1e-12
    assert torch.allclose(made.mean, theirs.running_mean, atol=1e-12)  # pyright: ignore[reportArgumentType]
    assert torch.allclose(made.variance, theirs.running_var, atol=1e-12)  # pyright: ignore[reportArgumentType]


def test_padding_counts_for_nothing() -> None:
    made, again = batch_norm(), batch_norm()
    again.load_state_dict(made.state_dict())
    x, lengths = torch.randn(BATCH, LENGTH, WIDTH, dtype=torch.float64), torch.tensor([11, 4, 7, 1, 5])
    valid = torch.arange(LENGTH) < lengths[:, None]
    got = made(torch.where(valid[..., None], x, 1e6), valid)
    wanted = again(x[valid][:, None])[:, 0]  # every real position a sequence of its own
    assert (got[valid] - wanted).abs().max() < 1e-12
    assert torch.allclose(made.variance, again.variance, atol=1e-12)


def test_scale_norm_is_its_formula() -> None:
    x, made = torch.randn(BATCH, LENGTH, WIDTH, dtype=torch.float64), ScaleNorm().double()
    torch.nn.init.constant_(made.gain, 1.7)
    wanted = 1.7 * F.rms_norm(x, (WIDTH,), eps=1e-5)
    assert (made(x) - wanted).abs().max() < 1e-12


def test_models_with_scale_norm_can_be_stacked() -> None:
    config = build(
        TransformerConfig, {"d_model": WIDTH, "heads": 2, "layers": 2, "norm": "scale", "activation": "silu"}
    )
    models = [make_model(config, SPEC, "values", seed=seed).double() for seed in (1, 2)]
    for number, model in enumerate(models):
        for name, parameter in model.named_parameters():
            if name.endswith("gain"):
                torch.nn.init.constant_(parameter, 1 + number)
    x = torch.randn(2 * BATCH, LENGTH, 2, dtype=torch.float64)
    alone = torch.cat([model(part) for model, part in zip(models, x.chunk(2), strict=True)])
    assert (stack(models)(x) - alone).abs().max() < 1e-12
    assert not torch.allclose(alone[:BATCH], models[1](x[:BATCH]))


def test_the_mlp_has_its_activation() -> None:
    outputs = {}
    for name in ("gelu", "silu"):
        config = build(TransformerConfig, {"d_model": WIDTH, "heads": 2, "layers": 1, "activation": name})
        block = make_model(config, SPEC, "values", seed=1).double().blocks[0]
        x = torch.randn(BATCH, LENGTH, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        after = x + block.attention(block.norm1(x))
        wanted = after + block.down(getattr(F, name)(block.up(block.norm2(after))))
        outputs[name] = block(x, None, None, None)
        assert (outputs[name] - wanted).abs().max() < 1e-12
    assert (outputs["gelu"] - outputs["silu"]).abs().max() > 1e-3


def shared_batch(share: slice) -> list[torch.Tensor]:
    """Gradients of input and gain, and the running averages, of a process that has this share of a fixed batch."""
    generator, made = torch.Generator().manual_seed(0), BatchNorm(WIDTH).double()
    for name, start in (("weight", 1.5), ("bias", 0.2), ("mean", 0.0), ("variance", 1.0)):
        made.state_dict()[name].fill_(start)
    shape = 2 * BATCH, LENGTH, WIDTH
    x, along = (torch.randn(shape, generator=generator, dtype=torch.float64)[share] for _ in range(2))
    valid = (torch.arange(LENGTH) < torch.arange(2, 12)[:, None])[share]
    (made(x.requires_grad_(), valid) * along * valid[..., None]).sum().backward()
    assert x.grad is not None
    assert made.weight.grad is not None
    return [x.grad, made.weight.grad, made.mean, made.variance]


def one_of_two(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    torch.save(shared_batch(slice(rank, None, 2)), folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_a_batch_that_processes_share_is_one_batch(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(one_of_two, (tmp_path,), nprocs=2)  # pyright: ignore[reportPrivateImportUsage]
    shares, (x, weight, *averages) = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)], shared_batch(slice(None))
    for rank, (own, _, *others) in enumerate(shares):
        assert (own - x[rank::2]).abs().max() < 1e-12
        assert all((a - b).abs().max() < 1e-12 for a, b in zip(others, averages, strict=True))
    assert (shares[0][1] + shares[1][1] - weight).abs().max() < 1e-12


def test_sums_of_bfloat16_are_float32() -> None:
    """257 positions are 256 or 258 in bfloat16."""
    x = torch.randn(1, 257, WIDTH, generator=torch.Generator().manual_seed(0)).bfloat16()
    made = batch_norm().float()
    with torch.autocast("cpu", torch.bfloat16):
        got = made(x)
    assert torch.equal(got, made(x.float()))


def make(seed: int = 0, **settings) -> Transformer:
    table = {"d_model": WIDTH, "heads": 2, "layers": 2, "d_mlp": 7, **settings}
    return make_model(build(TransformerConfig, table), SPEC, "values", seed=seed).double()


def test_members_of_an_ensemble_keep_their_own_averages() -> None:
    settings = {"norm": "batch", "norm_place": "after"}
    models, alone = [make(seed, **settings) for seed in (1, 2)], [make(seed, **settings) for seed in (1, 2)]
    x, valid = (
        torch.randn(2 * BATCH, LENGTH, 2, dtype=torch.float64),
        torch.arange(LENGTH) < torch.arange(2, 12)[:, None],
    )
    whole = stack(models)
    together = whole(x, valid=valid)
    apart = torch.cat([m(p, valid=v) for m, p, v in zip(alone, x.chunk(2), valid.chunk(2), strict=True)])
    assert ((together - apart) * valid[..., None]).abs().max() < 1e-12
    for one, other in zip(models, alone, strict=True):
        for name, tensor in one.state_dict().items():
            assert torch.allclose(tensor, other.state_dict()[name], atol=1e-12), name
    assert not torch.equal(models[0].get_buffer("blocks.0.norm1.mean"), models[1].get_buffer("blocks.0.norm1.mean"))


@pytest.mark.parametrize("d_mlp", [0, 7])
def test_norms_after(d_mlp: int) -> None:
    model = make(layers=1, norm_place="after", d_mlp=d_mlp)
    block, x = model.blocks[0], torch.randn(BATCH, LENGTH, 2, dtype=torch.float64)
    h = model.positions(model.embedding(x, None))
    h = F.layer_norm(h + block.get_submodule("attention")(h), (WIDTH,))
    if d_mlp:
        up, down = block.get_submodule("up"), block.get_submodule("down")
        h = F.layer_norm(h + down(F.gelu(up(h))), (WIDTH,))
    assert (model(x) - h).abs().max() < 1e-12
    assert not any(name.startswith("norm.") for name, _ in model.named_parameters())


@pytest.mark.parametrize("norm", ["layer", "batch"])
@pytest.mark.parametrize("place", ["before", "after"])
def test_some_positions_are_those_of_the_whole(norm: str, place: str) -> None:
    x, at = torch.randn(BATCH, LENGTH, 2, dtype=torch.float64), torch.tensor([[3, 0, 10]]).expand(BATCH, 3)
    whole, some = make(norm=norm, norm_place=place)(x), make(norm=norm, norm_place=place)(x, at=at)
    assert (some - whole[:, [3, 0, 10]]).abs().max() < 1e-12


def test_evaluation_neither_uses_nor_changes_the_batch() -> None:
    model, x = make(norm="batch"), torch.randn(BATCH, LENGTH, 2, dtype=torch.float64)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with model.evaluating():
        one, all_of_them = model(x[:1]), model(x)
    assert (one - all_of_them[:1]).abs().max() < 1e-12
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training
    model(x)
    assert not torch.equal(model.get_buffer("norm.mean"), before["norm.mean"])


def test_a_frozen_norm_is_a_fixed_function() -> None:
    model, x = make(norm="batch"), torch.randn(BATCH, LENGTH, 2, dtype=torch.float64)
    freeze(model, "norms")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    one, all_of_them = model(x[:1]), model(x)
    assert (one - all_of_them[:1]).abs().max() < 1e-12
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_averages_are_carried_over_with_their_norm() -> None:
    source, target = make(1, norm="batch"), make(2, norm="batch")
    source(torch.randn(BATCH, LENGTH, 2, dtype=torch.float64))
    transfer(target, source, "norms")
    assert torch.equal(target.get_buffer("blocks.1.norm2.variance"), source.get_buffer("blocks.1.norm2.variance"))
    fresh = make(2, norm="batch")
    transfer(fresh, source, "qk")
    assert torch.equal(fresh.get_buffer("norm.mean"), torch.zeros(WIDTH, dtype=torch.float64))


def test_features_of_performer_are_carried_over_with_its_projections() -> None:
    mixer = {"name": "performer", "features": 4}
    source, target = make(1, mixer=mixer), make(2, mixer=mixer)
    name = "blocks.0.performer.directions"
    assert not torch.equal(target.get_buffer(name), source.get_buffer(name))
    transfer(target, source, "attention")
    assert torch.equal(target.get_buffer(name), source.get_buffer(name))
