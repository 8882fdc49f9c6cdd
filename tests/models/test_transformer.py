"""The model against an independent dense float64 implementation, written with numpy and loops over heads."""

import numpy as np
import pytest
import torch
from scipy.special import erf

from attnprobe.models import AttentionCall, Transformer, TransformerConfig, make_model
from attnprobe.models.positions import Rotary, sinusoidal_table
from attnprobe.tasks import Spec

LENGTH, CHANNELS, CLASSES, BATCH = 11, 2, 3, 5
SPEC = Spec(length=LENGTH, classes=CLASSES, channels=CHANNELS, mean=(0.25, -0.5), std=(1.5, 0.5))
TOKENS = Spec(length=LENGTH, classes=CLASSES, vocabulary=13)


def build(spec: Spec = SPEC, target: str = "values", **settings) -> Transformer:
    config = TransformerConfig(**{"d_model": 14, "heads": 7, "layers": 2, "d_mlp": 17} | settings)
    return make_model(config, spec, target, seed=3).double()


def inputs(spec: Spec = SPEC) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    if spec.is_tokens:
        return torch.randint(1, 13, (BATCH, LENGTH), generator=generator)
    return torch.randn(BATCH, LENGTH, CHANNELS, generator=generator, dtype=torch.float64)


def hidden_mask() -> torch.Tensor:
    return torch.rand(BATCH, LENGTH, generator=torch.Generator().manual_seed(1)) < 0.4


def norm(x, gain, shift):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * gain + shift


def reference(model: Transformer, x: np.ndarray, visible: np.ndarray, offsets: dict[int, np.ndarray]) -> np.ndarray:
    """Embedded inputs (batch, length, d_model) -> features, one sequence, head and query at a time."""
    p = {name: value.detach().numpy() for name, value in model.named_parameters()}
    config = model.config
    width = config.d_model // config.heads
    for layer in range(config.layers):

        def linear(x, name, layer=layer):
            return x @ p[f"blocks.{layer}.{name}.weight"].T + p[f"blocks.{layer}.{name}.bias"]

        h = norm(x, p[f"blocks.{layer}.norm1.weight"], p[f"blocks.{layer}.norm1.bias"])
        q, k, v = (linear(h, f"attention.{name}") for name in "qkv")
        mixed = np.zeros_like(q)
        for b in range(len(x)):
            for head in range(config.heads):
                part = slice(head * width, (head + 1) * width)
                for i in range(x.shape[1]):
                    scores = k[b, :, part] @ q[b, i, part] / np.sqrt(width)
                    if layer in offsets:
                        scores = scores + offsets[layer][b, head, i]
                    weights = np.exp(scores - scores.max()) * visible[b, i]
                    mixed[b, i, part] = weights / weights.sum() @ v[b, :, part]
        x = x + linear(mixed, "attention.o")
        h = linear(norm(x, p[f"blocks.{layer}.norm2.weight"], p[f"blocks.{layer}.norm2.bias"]), "up")
        x = x + linear(h * 0.5 * (1 + erf(h / np.sqrt(2))), "down")
    return norm(x, p["norm.weight"], p["norm.bias"])


def embed(model: Transformer, values: torch.Tensor, hidden: torch.Tensor | None) -> np.ndarray:
    p = {name: value.detach().numpy() for name, value in model.named_parameters()}
    if model.spec.is_tokens:
        ids = values.numpy().copy()
        if hidden is not None:
            ids[hidden.numpy()] = 0
        x = p["embedding.table.weight"][ids]
    else:
        standard = (values.numpy() - np.array(SPEC.mean)) / np.array(SPEC.std)
        flag = np.zeros(values.shape[:2]) if hidden is None else hidden.numpy().astype(float)
        x = np.concatenate([standard * (1 - flag[..., None]), flag[..., None]], -1)
        x = x @ p["embedding.linear.weight"].T + p["embedding.linear.bias"]
    if model.config.positions == "learned":
        return x + p["positions.table"]
    if model.config.positions == "sinusoidal":
        position, pair = np.arange(LENGTH)[:, None], np.arange(model.config.d_model // 2)
        angle = position / 10_000 ** (2 * pair / model.config.d_model)
        table = np.zeros((LENGTH, model.config.d_model))
        table[:, 0::2], table[:, 1::2] = np.sin(angle), np.cos(angle)
        return x + table
    return x


@pytest.mark.parametrize("spec", [SPEC, TOKENS], ids=["values", "tokens"])
@pytest.mark.parametrize("positions", ["none", "learned", "sinusoidal"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_features_equal_the_reference(spec: Spec, positions: str, causal: bool, masked: bool, padded: bool) -> None:
    model = build(spec, "classes" if spec.is_tokens else "values", positions=positions, causal=causal)
    hidden = hidden_mask() if masked else None
    valid = torch.arange(LENGTH) < torch.tensor([11, 4, 7, 1, 11])[:, None] if padded else None
    visible = np.ones((BATCH, LENGTH, LENGTH))
    if padded:
        visible = visible * valid.numpy()[:, None, :]
    if causal:
        visible = visible * np.tril(np.ones((LENGTH, LENGTH)))
    generator = np.random.default_rng(5)
    offsets = {1: generator.standard_normal((BATCH, 7, LENGTH, LENGTH))}
    got = model(inputs(spec), hidden=hidden, valid=valid, score_offsets={1: torch.from_numpy(offsets[1])}).detach()
    wanted = reference(model, embed(model, inputs(spec), hidden), visible, offsets)
    # sinusoidal tables are kept in float32
    tolerance = 1e-6 if positions == "sinusoidal" else 1e-12
    assert np.abs(got.numpy() - wanted).max() < tolerance


def test_a_zero_score_offset_changes_nothing_and_its_gradient_is_the_finite_difference() -> None:
    model = build()
    zero = {layer: torch.zeros(BATCH, 7, LENGTH, LENGTH, dtype=torch.float64, requires_grad=True) for layer in (0, 1)}
    assert (model(inputs(), score_offsets=zero) - model(inputs())).abs().max() < 1e-13
    weight = torch.linspace(-1, 1, BATCH * CLASSES, dtype=torch.float64).view(BATCH, CLASSES)

    def loss(offsets):
        return (model.classify(model(inputs(), score_offsets=offsets)) * weight).sum()

    gradients = torch.autograd.grad(loss(zero), list(zero.values()))
    generator = torch.Generator().manual_seed(2)
    direction = [torch.randn(g.shape, generator=generator, dtype=torch.float64) for g in gradients]
    eps = 1e-5
    ends = [loss({layer: sign * eps * d for layer, d in enumerate(direction)}) for sign in (1, -1)]
    slope = ((ends[0] - ends[1]) / (2 * eps)).item()
    assert slope == pytest.approx(
        sum((g * d).sum().item() for g, d in zip(gradients, direction, strict=True)), rel=1e-6
    )
    for gradient in gradients:
        assert gradient.sum(-1).abs().max() < 1e-15  # a constant added to a row changes nothing


def test_observed_scores_reproduce_the_attention_output() -> None:
    calls: list[AttentionCall] = []
    model = build(positions="rotary", causal=True)
    valid = torch.arange(LENGTH) < torch.tensor([11, 4, 7, 1, 11])[:, None]
    model(inputs(), valid=valid, observe=calls.append)
    assert [call.layer for call in calls] == [0, 1]
    for call in calls:
        assert call.scores().shape == (BATCH, 7, LENGTH, LENGTH)
        assert (call.pattern() @ call.v - call.output).abs().max() < 1e-14


def test_rotary_scores_depend_on_the_offset_only() -> None:
    rotary = Rotary(23, 6).double()
    q, k = torch.randn(2, 1, 1, 1, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scores = rotary(q.expand(1, 1, 23, 6)) @ rotary(k.expand(1, 1, 23, 6)).mT
    for offset in range(-22, 23):
        diagonal = scores[0, 0].diagonal(offset)
        assert (diagonal - diagonal[0]).abs().max() < 1e-6  # tables are float32
    pair = rotary(torch.eye(6, dtype=torch.float64)[None, None, :1].expand(1, 1, 23, 6))
    assert pair[0, 0, 1, 0].item() == pytest.approx(np.cos(1.0), abs=1e-7)
    assert pair[0, 0, 1, 1].item() == pytest.approx(np.sin(1.0), abs=1e-7)  # interleaved pairs


def test_sinusoidal_table_known_values() -> None:
    table = sinusoidal_table(5, 6)
    assert table[0].tolist() == [0, 1, 0, 1, 0, 1]
    assert table[3, 0].item() == pytest.approx(np.sin(3.0), abs=1e-6)
    assert table[3, 3].item() == pytest.approx(np.cos(3.0 / 10_000 ** (2 / 6)), abs=1e-6)
    assert sinusoidal_table(4, 5).shape == (4, 5)


@pytest.mark.parametrize("readout", ["mean", "max", "last", "token"])
@pytest.mark.parametrize("positions", ["none", "learned", "sinusoidal", "rotary"])
@pytest.mark.parametrize("spec", [SPEC, TOKENS], ids=["values", "tokens"])
def test_padding_changes_nothing(readout: str, positions: str, spec: Spec) -> None:
    model = build(spec, "classes" if spec.is_tokens else "values", readout=readout, positions=positions)
    lengths = torch.tensor([7, 4, 6, 1, 5])
    valid = torch.arange(LENGTH) < lengths[:, None]
    x = inputs(spec)
    noisy = torch.where(valid if spec.is_tokens else valid[..., None], x, x.flip(1) + (0 if spec.is_tokens else 3.0))
    hidden = hidden_mask() & valid
    full, cut = model(noisy, hidden=hidden, valid=valid), model(x[:, :7], hidden=hidden[:, :7], valid=valid[:, :7])
    assert (model.classify(full, valid) - model.classify(cut, valid[:, :7])).abs().max() < 1e-12
    difference = (model.reconstruct(full)[:, :7] - model.reconstruct(cut)).abs()
    assert (difference.flatten(2).amax(-1) * valid[:, :7]).max() < 1e-12
    for b, n in enumerate(lengths.tolist()):  # and each equals the sequence on its own, without any padding
        alone = model.classify(model(x[b : b + 1, :n], hidden=hidden[b : b + 1, :n]))
        assert (alone - model.classify(full, valid)[b]).abs().max() < 1e-12


def test_initialisation_belongs_to_the_name_and_leaves_the_global_seed_alone() -> None:
    state = torch.random.get_rng_state()
    one, two = build(), build(layers=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    shared = dict(two.named_parameters())
    for name, parameter in one.named_parameters():
        assert torch.equal(parameter, shared[name])
    other = make_model(one.config, SPEC, "values", seed=4)
    assert not torch.equal(other.blocks[0].up.weight.double(), one.blocks[0].up.weight)


def test_initial_distributions() -> None:
    config = TransformerConfig(d_model=128, heads=4, d_mlp=256, positions="learned")
    model = make_model(config, Spec(length=31, classes=2, vocabulary=101), "classes", seed=0)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            assert torch.equal(parameter, torch.full_like(parameter, name.endswith("weight")))
        elif name.startswith("positions"):
            assert parameter.std().item() == pytest.approx(0.02, rel=0.05)
        elif name == "embedding.table.weight":
            assert parameter.std().item() == pytest.approx(1.0, rel=0.05)
        else:
            fan_in = 256 if ".down." in name else 128
            assert parameter.abs().max() <= fan_in**-0.5
            if parameter.numel() > 1000:
                assert parameter.std().item() == pytest.approx((3 * fan_in) ** -0.5, rel=0.05)


def test_tied_projections_start_as_copies_and_train_apart() -> None:
    attention = build(init="tied").blocks[0].attention
    for other in (attention.k, attention.v, attention.o):
        assert torch.equal(other.weight, attention.q.weight)
        assert torch.equal(other.bias, attention.q.bias)
        assert other.weight.data_ptr() != attention.q.weight.data_ptr()


def test_cross_entropy_head_has_one_logit_per_level() -> None:
    spec = Spec(length=LENGTH, classes=CLASSES, channels=2, levels=19)
    model = make_model(TransformerConfig(d_model=8, heads=2), spec, "classes", seed=0)
    stored = torch.randint(0, 19, (BATCH, LENGTH, 2), dtype=torch.uint8)
    assert model.reconstruct(model(stored)).shape == (BATCH, LENGTH, 2, 19)


@pytest.mark.parametrize(("fan_in", "width"), [("with_mask", CHANNELS + 1), ("without_mask", CHANNELS)])
def test_the_start_of_the_embedding_counts_the_mask_channel_or_not(fan_in: str, width: int) -> None:
    """Bounds of 2000 uniform numbers, and nothing else changes; tokens have no such channel."""
    model = build(d_model=700, heads=1, layers=1, embedding_fan_in=fan_in)
    for parameter in (model.embedding.linear.weight, model.embedding.linear.bias):
        assert parameter.abs().max().item() == pytest.approx(width**-0.5, rel=0.01)
        assert parameter.abs().max().item() <= width**-0.5
    plain = dict(build(d_model=700, heads=1, layers=1).named_parameters())
    for name, parameter in model.named_parameters():
        assert name.startswith("embedding") or torch.equal(parameter, plain[name])
    tokens = [build(TOKENS, "classes", embedding_fan_in=f).state_dict() for f in ("with_mask", "without_mask")]
    assert all(torch.equal(value, tokens[1][name]) for name, value in tokens[0].items())


def test_queries_and_keys_that_start_as_a_kernel_of_the_distance() -> None:
    """Of features that are positions alone, scores depend on the distance; shuffled, neither that nor the norms."""
    spec = Spec(length=13, classes=3)
    common = {"d_model": 32, "heads": 2, "layers": 2}
    near, mixed = (
        make_model(TransformerConfig(**common, init=init), spec, "values", seed=3) for init in ("proximity", "shuffled")
    )
    x = sinusoidal_table(13, 32)[None]
    scores = []
    for model in (near, mixed):
        calls = []
        model.blocks[1].attention(x, observe=calls.append)
        scores.append((calls[0].q @ calls[0].k.mT)[0])
    offsets = torch.arange(13)[None] - torch.arange(13)[:, None]
    for distance in range(13):
        assert scores[0][:, offsets.abs() == distance].std(1).max() < 1e-4
    assert (scores[0][:, offsets == 0] > scores[0].masked_fill(offsets == 0, -torch.inf).amax(2)).all()
    assert scores[1][:, offsets == 2].std(1).min() > 0.1, "no kernel of the offset"
    weights = [model.blocks[1].attention.k.weight for model in (near, mixed)]
    assert weights[0].norm() == weights[1].norm()
    assert not torch.equal(*weights)
    assert torch.equal(near.blocks[1].attention.v.weight, mixed.blocks[1].attention.v.weight)
    other = make_model(TransformerConfig(**common, init="shuffled"), spec, "values", seed=5)
    assert not torch.equal(other.blocks[1].attention.k.weight, weights[1])
