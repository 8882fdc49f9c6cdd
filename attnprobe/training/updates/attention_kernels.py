"""Which of torch's kernels computes attention: the one asked for, or the fastest in a short trial when a run starts.

No kernel is taken before its numbers were checked (``attention_check``); mixers without scores leave the choice to
torch, cuDNN excepted. Kernels round differently, so the choice is
part of a run: the manifest keeps it by phase, and a resumed run takes it from there instead of measuring again. A run
is repeated exactly by asking for what its manifest names, for instance ``-s engine.attention=flash``. On the CPU there
is one fused kernel and hence nothing to measure.
"""

import contextlib
import dataclasses
import functools
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from attnprobe.errors import ConfigError
from attnprobe.machine import synchronise
from attnprobe.run import AttentionKernel, Engine, Phase, Precision, RunConfig
from attnprobe.scores.visibility import Visibility, as_mask
from attnprobe.tasks import Data
from attnprobe.training.updates import attention_check
from attnprobe.training.updates.arithmetic import check_precision, process_settings

KernelName = Literal[AttentionKernel, "auto"]  # auto: torch's own order without cuDNN, where nothing was checked

KERNELS: dict[AttentionKernel, SDPBackend] = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
# What enters the trial, by device. "math" keeps all scores in memory: it is what remains if every other one refuses.
CANDIDATES: dict[str, tuple[AttentionKernel, ...]] = {"cpu": ("flash",), "cuda": ("cudnn", "flash", "efficient")}
DETERMINISTIC: tuple[AttentionKernel, ...] = ("flash", "math")  # flash: in a variant that torch takes when it must be
NEARLY = 1.1  # a kernel this close to the fastest wins by its place in the list, so that repeated trials agree
TRIAL_SECONDS = 0.04  # per kernel, its first call left out


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """One layer's attention in training."""

    sequences: int
    heads: int
    length: int
    d_head: int
    precision: Precision
    masked: bool  # keys are hidden by a mask: padding, or what the mixer never looks at
    causal: bool
    biased: bool = False  # the model adds a fixed profile to its scores

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32


class KernelChoice(NamedTuple):
    """A kernel, and what the check of its numbers found: the largest error of every kernel that was checked."""

    kernel: KernelName
    deviations: dict[str, float]


def shape_of(config: RunConfig, phase: Phase, data: Data, processes: int = 1) -> Shape:
    """What a phase's layers compute on their longest batches."""
    model, spec = config.model, data.spec
    squares, length = model.mixer.squares(spec.length + (model.readout == "token"))
    return Shape(
        sequences=min(phase.batch_size, len(data.train)) // processes * (2 if spec.pairs else 1) * squares,
        heads=model.heads,
        length=length,
        d_head=model.d_model // model.heads,
        precision=config.engine.precision,
        masked=model.mixer.layer.masks or (data.train.lengths is not None and model.padding == "masked"),
        causal=model.causal,
        biased=model.score_profile is not None,
    )


def choose_attention(engine: Engine, shape: Shape, device: torch.device, earlier: str | None = None) -> KernelChoice:
    """The kernel for a phase; ``earlier`` is what the manifest of an interrupted run names.

    ConfigError if the engine asks for a kernel that refuses these tensors, or whose numbers are wrong.
    """
    known: tuple[AttentionKernel, ...] = (*CANDIDATES.get(device.type, ()), "math")
    for kernel in known:
        if kernel == earlier:
            return KernelChoice(kernel, {})
    with process_settings(engine):
        if engine.attention != "auto":
            return _asked_for(engine.attention, shape, device)
        kernels = DETERMINISTIC if engine.deterministic else known
        return _fastest_right(tuple(k for k in known if k in kernels and k != "math"), shape, device)


def _fastest_right(candidates: tuple[AttentionKernel, ...], shape: Shape, device: torch.device) -> KernelChoice:
    """The fastest candidate whose numbers are right, else math; auto on a device of another kind."""
    if device.type not in CANDIDATES:
        return KernelChoice("auto", {})
    deviations: dict[str, float] = {}
    left: list[AttentionKernel] = [kernel for kernel in candidates if not has_known_fault(kernel, shape)]
    while left:
        kernel = fastest(tuple(left), shape, device) if len(left) > 1 else left[0]
        found = deviation(kernel, shape, device)
        if found is not None:
            deviations[kernel] = found
            if found <= attention_check.TOLERANCE[shape.precision]:
                return KernelChoice(kernel, deviations)
        if kernel not in left:  # math, since all of them refuse
            break
        left.remove(kernel)
    return KernelChoice("math", deviations)


def _asked_for(kernel: AttentionKernel, shape: Shape, device: torch.device) -> KernelChoice:
    found, hint = deviation(kernel, shape, device), "engine.attention=auto takes one that does"
    if found is None:
        raise ConfigError(f"attention by {kernel!r} does not work here ({device}, {shape.precision})", hint)
    if found > attention_check.TOLERANCE[shape.precision]:
        off = f"off by {found:.1e} ({device}, {shape.precision})"
        raise ConfigError(f"attention by {kernel!r} gives wrong numbers here: {off}", hint.replace("does", "is right"))
    return KernelChoice(kernel, {kernel: found})


def has_known_fault(kernel: AttentionKernel, shape: Shape) -> bool:
    """cuDNN under a mask: see ``attention_check``. Nothing tells which versions are mended, so it is never chosen. What
    is added to the scores is given to a kernel as a mask.
    """
    return kernel == "cudnn" and (shape.masked or shape.biased)


@functools.cache
def deviation(kernel: AttentionKernel, shape: Shape, device: torch.device) -> float | None:
    """Largest error of its output and gradients (see ``attention_check``); None if it refuses the tensors."""
    size = attention_check.Size(shape.sequences, shape.heads, shape.length, shape.d_head)
    try:
        with warnings.catch_warnings(action="ignore"):  # torch warns of every refusal
            return attention_check.deviation(
                KERNELS[kernel], size, shape.precision, device, masked=shape.masked, causal=shape.causal,
                biased=shape.biased,
            )  # fmt: skip
    except RuntimeError:
        return None


@functools.cache
def fastest(candidates: tuple[AttentionKernel, ...], shape: Shape, device: torch.device) -> AttentionKernel:
    """The first of the candidates that takes at most ``NEARLY`` times as long as the best; math if all refuse.

    Tried once per process, so that runs of several seeds side by side in one process have the same kernel.
    """
    times: dict[AttentionKernel, float] = {}
    for kernel in candidates:
        needed = milliseconds(kernel, shape, device)
        if needed is not None:
            times[kernel] = needed
    for kernel, needed in times.items():
        if needed <= NEARLY * min(times.values()):
            return kernel
    return "math"


def milliseconds(kernel: AttentionKernel, shape: Shape, device: torch.device) -> float | None:
    """Forward and backward of one layer; None if the kernel refuses the tensors or they do not fit into memory."""
    try:
        run = _attention(shape, device)
        with warnings.catch_warnings(action="ignore"), sdpa_kernel(KERNELS[kernel]):  # torch warns of every refusal
            run(1)
            return 1000 * run(max(1, min(20, int(TRIAL_SECONDS / run(1)))))
    except RuntimeError:
        return None


def _attention(shape: Shape, device: torch.device) -> Callable[[int], float]:
    """Does so many forward and backward passes on fixed random tensors; seconds per pass."""
    generator = torch.Generator(device).manual_seed(0)
    size = (shape.sequences, shape.heads, shape.length, shape.d_head)
    q, k, v = (torch.randn(size, generator=generator, device=device).to(shape.dtype).requires_grad_() for _ in range(3))
    gradient = torch.randn(size, generator=generator, device=device).to(shape.dtype)
    valid = torch.ones(shape.sequences, shape.length, dtype=torch.bool, device=device) if shape.masked else None
    bias = torch.randn(shape.heads, shape.length, shape.length, device=device)[None] if shape.biased else None

    def run(times: int) -> float:
        synchronise(device)
        start = time.perf_counter()
        for _ in range(times):
            visibility = Visibility(causal=shape.causal, valid=valid)
            mask = visibility.whole(shape.length, device) if shape.masked or shape.biased else None
            mask = as_mask(mask, bias, shape.dtype)
            causal = shape.causal and mask is None
            F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal).backward(gradient)
        synchronise(device)
        return (time.perf_counter() - start) / times

    return run


def pinned(kernel: KernelName) -> contextlib.AbstractContextManager[object]:
    """Within it, attention is computed by ``kernel``, or by another where that refuses (math last, since it keeps all
    scores in memory; never by cuDNN, see ``has_known_fault``); "auto" leaves it to torch's order of these others.
    """
    others = [backend for name, backend in KERNELS.items() if name != "cudnn"]
    if kernel == "auto":
        return sdpa_kernel(others)
    if kernel == "math":
        return sdpa_kernel(SDPBackend.MATH)
    return sdpa_kernel(list(dict.fromkeys([KERNELS[kernel], *others])), set_priority=True)


def choose_for_phases(
    config: RunConfig, device: torch.device, data: Mapping[str, Data], earlier: Mapping[str, str], processes: int = 1
) -> dict[str, KernelChoice]:
    """Phase -> kernel and its check; ``earlier`` as the manifest keeps it, empty for a new run.

    ConfigError if the device has no arithmetic in the engine's precision.
    """
    check_precision(config.engine.precision, device)
    if not config.model.has_scores:
        return dict.fromkeys(config.phases(), KernelChoice("auto", {}))
    return {
        name: choose_attention(config.engine, shape_of(config, phase, data[name], processes), device, earlier.get(name))
        for name, phase in config.phases().items()
    }
