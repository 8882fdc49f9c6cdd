"""Which architectures can be watched: tiny random models of many families, two kernels, padded or not.

``python -m tests.capture.coverage`` writes tests/COVERAGE.md; a test sees that it is true.
"""

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from attnprobe.capture.watching import watch
from attnprobe.capture.watching.watched import Watched
from attnprobe.errors import AttnprobeError
from attnprobe.models.hugging_face.loading import library
from attnprobe.probes import proximity
from attnprobe.scores.call import AttentionCall
from tests.capture.families import FAMILIES, Family

FILE = Path(__file__).parents[1] / "COVERAGE.md"
N, LENGTH = 3, 11
HEADER = """# Which architectures can be watched

{families} families of transformers {version}, tiny and with random weights, each under its eager and its sdpa kernel
and, where it reads texts, with padding and without. Made by `python -m tests.capture.coverage`; a test sees
that it is true.

A cell names the way in which attention was seen: `AttentionInterface` (queries, keys, values and mask as the kernel is
given them) or `functions` (scaled_dot_product_attention, nn.MultiheadAttention, or a softmax that is written out, of
which the scores are seen, not queries and keys). It stands there only if the model's output is the same to the last bit
as without being watched, if pattern times values is the output of every kernel, and if the pattern is that which the
eager kernel hands out, at every query that is no padding (up to 5e-6; where it hands out none, the cell says so).

The last column says whether `probe proximity` can be measured, or why it is refused. The last row is no model of
transformers: timm's, with its fused attention (sdpa) and without (eager).
"""
TIMM = "| timm ViT"
EAGER = 5e-6  # allowed difference of a pattern from the eager weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """Of one family under one kernel."""

    way: str = ""
    refused: str = ""  # why nothing is measured
    checked: bool = False  # patterns are those that the eager kernel hands out
    proximity: str = ""  # why the probes of scores refuse it; empty: they do not


def build(family: Family, kernel: str) -> nn.Module:
    config = transformers.AutoConfig.for_model(family.kind, **family.sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModel.from_config(config, attn_implementation=kernel).eval()
    return model.get_submodule(family.part)


def inputs(family: Family, *, padded: bool) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(1)
    if family.inputs == "pixels":
        return {"pixel_values": torch.randn(N, 3, *family.image, generator=g)}
    if family.inputs == "sound":
        return {"input_features": torch.randn(N, 8, 2 * LENGTH, generator=g)}
    tokens = torch.randint(5, 40, (N, LENGTH), generator=g)
    lengths = torch.tensor([LENGTH, 4, 7]) if padded else torch.full((N,), LENGTH)
    found = {"input_ids": tokens, "attention_mask": (torch.arange(LENGTH) < lengths[:, None]).long()}
    return found | ({"decoder_input_ids": tokens[:, :5]} if family.inputs == "two texts" else {})


def measured(family: Family, kernel: str) -> Result:
    """Both without and, for texts, with padding."""
    try:
        model = build(family, kernel)
    except (ValueError, KeyError) as error:
        if "does not support an attention implementation" not in str(error):
            raise
        return Result(refused=f"transformers has no {kernel} kernel for it")
    result = Result()
    for padded in (False, True) if family.inputs in ("text", "two texts") else (False,):
        try:
            result = watched(family, model, inputs(family, padded=padded))
        except AttnprobeError as error:
            return Result(refused=f"{error}{' (padded)' if padded else ''}")
    return result


def watched(family: Family, model: nn.Module, given: dict[str, Tensor]) -> Result:
    """Raises AssertionError if the output or a pattern is not what the model has without being watched."""
    with torch.no_grad():
        expected = first_tensor(model(**given))
        subject = watch(model, [given])
        calls: list[AttentionCall] = []
        output, _ = subject._pass(np.arange(N), calls.append)
        assert torch.equal(first_tensor(output), expected), f"{family.kind}: watching changes the output"
    capture = subject.capture
    assert capture is not None
    checked = as_eager(family, calls, given)
    return Result(way=capture.way, checked=checked, proximity=refusal(subject, family))


def as_eager(family: Family, calls: list[AttentionCall], given: dict[str, Tensor]) -> bool:
    """Whether the eager kernel hands out its weights, which must then be the patterns, at queries that are read."""
    with torch.no_grad():
        output = build(family, "eager")(**given, output_attentions=True)
    names = (
        ("attentions",)
        if family.inputs != "two texts"
        else ("encoder_attentions", "decoder_attentions", "cross_attentions")
    )
    weights = [w for name in names for w in (output.get(name) or ()) if isinstance(w, Tensor)]
    if len(weights) != len(calls) or family.inputs == "two texts":
        by_shape = {(*w.shape,): [] for w in weights}
        weights = pair(calls, weights) if by_shape else []
    if len(weights) != len(calls):
        return False
    for call, weight in zip(calls, weights, strict=True):
        pattern = call.pattern()
        if pattern.shape != weight.shape:
            return False
        read = torch.ones(len(pattern), pattern.shape[2], dtype=torch.bool)
        if "attention_mask" in given and pattern.shape[2] == LENGTH:
            read = given["attention_mask"].bool()
        apart = (pattern - weight).detach().abs().amax((1, 3))[read]
        assert float(apart.max()) < EAGER, f"{family.kind}: {call.name} differs by {float(apart.max())}"
    return True


def pair(calls: list[AttentionCall], weights: list[Tensor]) -> list[Tensor]:
    """Weights of encoder, decoder and both, which come one kind after the other, in the order of the calls."""
    left, found = list(weights), []
    for call in calls:
        pattern = call.pattern()
        same = [w for w in left if w.shape == pattern.shape]
        if not same:
            return []
        best = min(same, key=lambda w: float((w - pattern).detach().abs().max()))
        left = [w for w in left if w is not best]
        found.append(best)
    return found


def refusal(subject: Watched, family: Family) -> str:
    """Why proximity cannot be measured on those of its modules that should allow it."""
    if family.only != "*":
        subject = watch(subject.model, [subject.inputs.kwargs], only=family.only)
    try:
        proximity.measure(subject, n=N, null="none", radius=1)
    except AttnprobeError as error:
        return str(error)
    return ""


def first_tensor(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def document() -> str:
    library()
    lines = ["| family | eager | sdpa | proximity |", "|---|---|---|---|"]
    for family in FAMILIES:
        results = [measured(family, kernel) for kernel in ("eager", "sdpa")]
        served = next((result for result in results if not result.refused), None)
        probes = "-" if served is None else f"refused: {served.proximity}" if served.proximity else "yes"
        probes += f" (of `{family.only}`)" if probes == "yes" and family.only != "*" else ""
        lines.append(f"| {family.name} | {' | '.join(map(cell, results))} | {probes} |")
    if importlib.util.find_spec("timm") is not None:
        from tests.capture.timm_models import way_of

        lines.append(f"{TIMM} | {way_of(fused=False)} | {way_of(fused=True)} | yes |")
    text = HEADER.format(families=len(FAMILIES), version=transformers.__version__)
    return f"{text}\n{chr(10).join(lines)}\n"


def cell(result: Result) -> str:
    if result.refused:
        return f"refused: {result.refused}"
    return result.way + ("" if result.checked else ", no eager weights to compare with")


if __name__ == "__main__":
    FILE.write_text(document())
