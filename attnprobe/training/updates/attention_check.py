"""Whether a kernel computes attention: its output and all gradients against the formula in float64.

A kernel runs on tensors of the size, mask and precision it is going to have. Beside ordinary tensors there are some
with scores so low that exp(-logsumexp) is no float32 number: there, cuDNN's gradient of the queries has been seen to be
NaN on Hopper GPUs under a mask, at lengths that leave 64 when divided by 128 (torch 2.11 and later, PyTorch's issue
196678). Batches trimmed to multiples of 32 have such lengths, so the longest of every remainder is tried.

The formula is evaluated for ``ROWS`` queries spread over the whole length. The gradient that arrives at the others is
zero, so the gradients of keys and values are exact too, and nothing of size length x length is needed.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from attnprobe.run import Precision
from attnprobe.scores.visibility import Visibility, as_mask

ROWS = 256
REMAINDERS, TILE = (32, 64, 96), 128
LOW_SCORE = -128.0  # exp(88.7) is the largest float32 number
CPU_LENGTH = 192  # most positions tried on a CPU: its kernels have no such tiles, and a run must start at once
# Largest error, relative to the sum of the absolute values of what is added up: a few roundings of the factors. In
# float32 it is low scores that need most: products of features reach 2048, so a sum of d_head of them may be off by
# 1e-4 once it is divided by sqrt(d_head), and with it every number of the pattern. bfloat16 is coarse: gradients of
# queries and keys are small sums of large terms, so one that is wrong by a tenth throughout mostly passes.
TOLERANCE: dict[Precision, float] = {"float32": 5e-4, "tf32": 5e-3, "bfloat16": 2e-2}


class Size(NamedTuple):
    sequences: int
    heads: int
    length: int
    d_head: int


class Case(NamedTuple):
    """Tensors (sequences, heads, length, d_head) of one dtype; ``gradient`` is that of the output."""

    q: Tensor
    k: Tensor
    v: Tensor
    gradient: Tensor
    rows: Tensor  # (rows,) int64: the queries whose gradient is not zero
    valid: Tensor | None  # (sequences, length) bool
    causal: bool
    bias: Tensor | None = None  # (1, heads, length, length) of the same dtype, added to the scores

    def mask(self) -> Tensor | None:
        """What a kernel is given for padding and bias; None: causality at most, which it is told."""
        visible = None
        if self.valid is not None or (self.causal and self.bias is not None):
            visible = Visibility(causal=self.causal, valid=self.valid).whole(self.q.shape[2], self.q.device)
        return as_mask(visible, self.bias, self.q.dtype)


def lengths_to_check(length: int, *, masked: bool) -> list[int]:
    """The length itself, and if batches are trimmed the longest ones below it of every remainder."""
    shorter = [length - (length - r) % TILE for r in REMAINDERS] if masked else []
    return sorted({length, *(n for n in shorter if n > 0)}, reverse=True)


def deviation(
    backend: SDPBackend,
    size: Size,
    precision: Precision,
    device: torch.device,
    *,
    masked: bool,
    causal: bool,
    biased: bool = False,
) -> float:
    """Largest error over lengths, ordinary and low scores, output and gradients; inf if one is no finite number.

    RuntimeError if the kernel refuses the tensors.
    """
    size = size._replace(sequences=min(size.sequences, 2))
    if device.type == "cpu":
        size = size._replace(heads=1, length=min(size.length, CPU_LENGTH))
    largest = 0.0
    for length in lengths_to_check(size.length, masked=masked):
        for low in (False, True):
            one = size._replace(length=length)
            case = make_case(one, precision, device, masked=masked, causal=causal, low=low, biased=biased)
            largest = max(largest, error(case, computed(case, backend)))
    return largest


def make_case(
    size: Size,
    precision: Precision,
    device: torch.device,
    *,
    masked: bool,
    causal: bool,
    low: bool,
    biased: bool = False,
) -> Case:
    """Normal tensors; ``low`` adds the same number far below zero to all scores, which changes no pattern."""
    generator = torch.Generator(device).manual_seed(0)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    q, k, v, gradient = (torch.randn(size, generator=generator, device=device) for _ in range(4))
    if low:  # powers of two, so that no precision rounds them
        q[..., 0] = 16.0
        k[..., 0] = -(2.0 ** math.ceil(math.log2(-LOW_SCORE * math.sqrt(size.d_head) / 16)))
    rows = torch.linspace(0, size.length - 1, min(ROWS, size.length), device=device).round().long()
    arriving = torch.zeros_like(gradient).index_copy_(2, rows, gradient.index_select(2, rows))
    valid = torch.ones(size.sequences, size.length, dtype=torch.bool, device=device) if masked else None
    if valid is not None:
        valid[-1, max(1, size.length * 3 // 4) :] = False
    q, k, v, arriving = (t.to(dtype) for t in (q, k, v, arriving))
    bias = None
    if biased:
        square = (1, size.heads, size.length, size.length)
        bias = torch.randn(square, generator=generator, device=device).to(dtype)
    return Case(q, k, v, arriving, rows, valid, causal, bias)


def computed(case: Case, backend: SDPBackend) -> tuple[Tensor, ...]:
    """Output at ``rows`` and the gradients of q (at ``rows``), k and v, by torch's kernel."""
    q, k, v = (t.clone().requires_grad_() for t in (case.q, case.k, case.v))
    length, device = q.shape[2], q.device
    mask = case.mask()
    with sdpa_kernel(backend):
        output = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=case.causal and mask is None)
    found = torch.autograd.grad(output, (q, k, v), case.gradient)
    rest = torch.ones(length, dtype=torch.bool, device=device).index_fill_(0, case.rows, False)
    if not bool(found[0][:, :, rest].isfinite().all()):  # queries whose gradient is zero must not spoil the others
        found = (torch.full_like(found[0], torch.nan), *found[1:])
    return output.detach().index_select(2, case.rows), found[0].index_select(2, case.rows), *found[1:]


def error(case: Case, found: tuple[Tensor, ...]) -> float:
    """Largest difference from the formula, relative to the largest sum of absolute values that a feature adds up."""
    largest = 0.0
    for value, (right, terms) in zip(found, formula(case), strict=True):
        apart = (value.double() - right).abs() / terms.amax((0, 1, 2)).clamp(min=torch.finfo(torch.float32).tiny)
        worst = float(apart.max())
        largest = max(largest, worst) if math.isfinite(worst) else math.inf
    return largest


def formula(case: Case) -> list[tuple[Tensor, Tensor]]:
    """What ``computed`` should be, in float64, each with the sum of the absolute values of its terms."""
    q, gradient = (t.index_select(2, case.rows).double() for t in (case.q, case.gradient))
    k, v, scale = case.k.double(), case.v.double(), case.q.shape[-1] ** -0.5
    visible = Visibility(causal=case.causal, valid=case.valid).whole(k.shape[2], k.device)
    if visible is not None and visible.shape[-2] > 1:
        visible = visible.index_select(-2, case.rows)
    scores = q @ k.mT * scale
    if case.bias is not None:
        scores = scores + case.bias.index_select(2, case.rows).double()
    pattern = (scores if visible is None else scores.masked_fill(~visible, -torch.inf)).softmax(-1)
    output = pattern @ v
    along_pattern = gradient @ v.mT
    along_scores = pattern * (along_pattern - (gradient * output).sum(-1, keepdim=True))
    scores_terms = pattern * (gradient.abs() @ v.abs().mT + (gradient * output).abs().sum(-1, keepdim=True))
    return [
        (output, pattern @ v.abs()),
        (along_scores @ k * scale, scores_terms @ k.abs() * scale),
        (along_scores.mT @ q * scale, scores_terms.mT @ q.abs() * scale),
        (pattern.mT @ gradient, pattern.mT @ gradient.abs()),
    ]
