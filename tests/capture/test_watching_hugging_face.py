"""Hugging Face models of tiny random weights: scores are those before the softmax, by the models' own kernels."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attnprobe.capture.watching import watch
from attnprobe.errors import NotApplicableError
from attnprobe.probes import proximity
from attnprobe.scores.call import AttentionCall

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.hf

N, LENGTH, HEADS, WIDTH = 5, 11, 4, 32
BASE = {"hidden_size": WIDTH, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": HEADS}
TEXT = BASE | {"vocab_size": 97, "max_position_embeddings": 64}
GROUPED = TEXT | {"num_key_value_heads": 2, "head_dim": 8}
SETTINGS = {
    "bert": TEXT,
    "gpt2": {"n_embd": WIDTH, "n_layer": 2, "n_head": HEADS, "vocab_size": 97},
    "llama": GROUPED,
    "gemma2": GROUPED | {"sliding_window": 3},
    "gpt_oss": GROUPED | {"num_local_experts": 2, "num_experts_per_tok": 1, "sliding_window": 64},
    "t5": {"d_model": WIDTH, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": HEADS, "vocab_size": 97},
    "bloom": {"hidden_size": WIDTH, "n_layer": 2, "n_head": HEADS, "vocab_size": 97},
    "vit": BASE | {"image_size": 15, "patch_size": 5},
}
FUSED = {"bert", "gpt2", "llama", "t5", "vit"}
CASES = [
    (family, kernel) for family in SETTINGS for kernel in ("eager", "sdpa") if kernel == "eager" or family in FUSED
]


def make(family: str, kernel: str) -> nn.Module:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family, **SETTINGS[family])
    return transformers.AutoModel.from_config(config, attn_implementation=kernel).eval()


def batch(family: str, *, padded: bool = True) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(0)
    if family == "vit":
        return {"pixel_values": torch.randn(N, 3, 15, 15, generator=g)}
    tokens = torch.randint(3, 90, (N, LENGTH), generator=g)
    lengths = torch.tensor([LENGTH, 4, 7, LENGTH, 5]) if padded else torch.full((N,), LENGTH)
    found = {"input_ids": tokens, "attention_mask": (torch.arange(LENGTH) < lengths[:, None]).long()}
    return found | ({"decoder_input_ids": tokens[:, :3]} if family == "t5" else {})


def seen(model: nn.Module, given: dict[str, Tensor]) -> tuple[list[AttentionCall], Tensor]:
    """All calls of all sequences, and the output of the pass in which they were seen."""
    found: list[AttentionCall] = []
    outputs: list[Tensor] = []
    subject = watch(model, [given])
    handle = model.register_forward_hook(lambda module, args, output: outputs.append(output[0]))
    with torch.no_grad():
        subject.run(np.arange(N), observe=found.append)
    handle.remove()
    return found, outputs[0]


@pytest.mark.parametrize(("family", "kernel"), CASES)
@pytest.mark.parametrize("padded", [False, True])
def test_outputs_are_the_same_bits_and_patterns_are_the_eager_weights(family: str, kernel: str, padded: bool) -> None:
    given = batch(family, padded=padded)
    model = make(family, kernel)
    with torch.no_grad():
        expected = model(**given)[0]
        eager = make(family, "eager")(**given, output_attentions=True)
    calls, output = seen(model, given)
    assert torch.equal(output, expected)
    weights = (
        [
            *eager.encoder_attentions,
            *(w for pair in zip(eager.decoder_attentions, eager.cross_attentions, strict=True) for w in pair),
        ]
        if family == "t5"
        else eager.attentions
    )
    assert len(calls) == len(weights)
    for call, weight in zip(calls, weights, strict=True):
        pattern, read = call.pattern(), slice(None)
        if "attention_mask" in given and pattern.shape[-2] == LENGTH:
            read = given["attention_mask"].bool()  # queries that are read
            pattern, weight = pattern.transpose(1, 2)[read], weight.transpose(1, 2)[read]
        assert torch.allclose(pattern, weight, atol=2e-6)


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_scores_of_bert_are_those_before_the_softmax(kernel: str) -> None:
    """Another tool hands out the pattern of BERT under the name of scores; these are its own weights in float64."""
    model, given = make("bert", kernel), batch("bert", padded=False)
    calls, _ = seen(model, given)
    attention = model.encoder.layer[0].attention.self
    with torch.no_grad():
        x = model.embeddings(given["input_ids"]).double()
        q, k = (
            (x @ p.weight.double().T + p.bias.double()).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for p in (attention.query, attention.key)
        )
    wanted = q @ k.mT / (WIDTH // HEADS) ** 0.5
    assert torch.allclose(calls[0].scores().double(), wanted, atol=1e-6)
    assert float((calls[0].scores().sum(-1) - 1).abs().max()) > 0.1
    assert torch.allclose(wanted.softmax(-1), calls[0].pattern().double(), atol=1e-6)


def test_what_the_calls_of_different_families_hold() -> None:
    first = {family: seen(make(family, "eager"), batch(family))[0] for family in SETTINGS}
    assert first["llama"][0].k.shape[1] == 2
    seen_by = [(call.visibility.causal, call.visibility.window) for call in first["gemma2"]]
    assert seen_by == [(True, 2), (True, None)]  # in every other layer itself and two before it
    assert first["gemma2"][0].softcap == 50.0
    assert first["gpt_oss"][0].sinks is not None
    assert first["t5"][0].bias is not None
    assert first["t5"][0].scale == 1.0
    assert not first["bloom"][0].projected
    valid = batch("bert")["attention_mask"].bool()
    assert torch.equal(first["bert"][0].visibility.valid, valid)
    assert torch.equal(first["gpt2"][0].visibility.valid, valid)
    assert first["gpt2"][0].visibility.causal


def test_padding_on_the_left_is_padding() -> None:
    for kernel in ("eager", "sdpa"):
        given = batch("llama")
        given["attention_mask"] = given["attention_mask"].flip(1)
        call = seen(make("llama", kernel), given)[0][0]
        assert call.visibility.causal
        assert torch.equal(call.visibility.valid, given["attention_mask"].bool())


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "bloom", "vit"])
def test_queries_and_keys_are_drawn_anew_as_the_configuration_says(family: str) -> None:
    model, given = make(family, "eager"), batch(family, padded=False)
    names = {name: p.clone() for name, p in model.named_parameters()}
    subject = watch(model, [given])
    drawn = subject.redrawn(3).weights
    for name, p in drawn.items():
        moved = p != names[name]
        if family == "gpt2" and p.dim() == 2:  # columns of queries, keys and values
            assert moved[:, : 2 * WIDTH].all()
            assert not moved[:, 2 * WIDTH :].any()
        elif family == "bloom" and p.dim() == 2:  # head by head
            by_part = moved.unflatten(0, (HEADS, 3, -1))
            assert by_part[:, :2].all()
            assert not by_part[:, 2].any()
        elif p.dim() == 2:
            assert moved.all()
        if p.dim() == 2:
            assert float(p[moved].std()) == pytest.approx(0.02, rel=0.1)
    own = {"bert": ("query", "key"), "llama": ("q_proj", "k_proj"), "vit": ("q_proj", "k_proj")}.get(
        family, ("c_attn", "query_key_value")
    )
    assert all(any(part in name for part in own) for name in drawn), sorted(drawn)
    assert len([name for name in drawn if name.endswith("weight")]) == (2 if family in ("gpt2", "bloom") else 4)
    assert all(torch.equal(p, names[name]) for name, p in model.named_parameters())
    rows = proximity.measure(subject, n=N, draws=19, radius=1).rows
    assert all(row.null == "init" for row in rows if row.quantity == "proximity_bias")


def test_attention_in_windows_and_between_two_sequences_is_no_proximity() -> None:
    with pytest.raises(NotApplicableError, match="layer 0 lets positions see others"):
        proximity.measure(watch(make("gemma2", "eager"), [batch("gemma2")]), n=N, null="none")
    with pytest.raises(NotApplicableError, match="layer 2 has 3 queries and 3 keys, but there are 11"):
        proximity.measure(watch(make("t5", "sdpa"), [batch("t5")]), n=N, null="none")
    rows = proximity.measure(watch(make("t5", "sdpa"), [batch("t5")], only="encoder.*"), n=N, null="none").rows
    assert {row.layer for row in rows} == {None, 0, 1}


@pytest.mark.filterwarnings("ignore:_compile flag:DeprecationWarning")  # transformers makes the mask, then is stopped
@pytest.mark.filterwarnings("ignore:.*script_method.* is deprecated:DeprecationWarning")  # of torch, when it loads flex
def test_kernels_that_do_not_tell_who_sees_whom_are_refused() -> None:
    model = make("bert", "sdpa")
    model.config._attn_implementation = "flex_attention"
    with pytest.raises(NotApplicableError, match="flex_attention"):
        watch(model, [batch("bert", padded=False)])
