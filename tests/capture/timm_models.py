"""A vision transformer of timm, also where torchvision is missing: only image files need that, and names are enough."""

import contextlib
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from attnprobe.capture.watching import watch
from attnprobe.scores.call import AttentionCall

PARTS = ("", ".transforms", ".transforms.functional", ".datasets", ".datasets.folder", ".ops", ".ops.misc", ".models",
         ".models.feature_extraction", ".utils")  # fmt: skip


class Named(type):
    """Classes whose attributes are their own names, as those of an enumeration."""

    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class Names(types.ModuleType):
    """A module that has every name."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Named(name, (), {})


@contextlib.contextmanager
def without_torchvision() -> Iterator[None]:
    """While open, importing torchvision gives names alone, unless it is there."""
    modules: dict[str, types.ModuleType] = {}
    for part in PARTS if importlib.util.find_spec("torchvision") is None else ():
        name = f"torchvision{part}"
        modules[name] = Names(name)
        modules[name].__path__ = []
        modules[name].__spec__ = importlib.machinery.ModuleSpec(name, None)
        above, _, last = name.rpartition(".")
        if above:
            setattr(modules[above], last, modules[name])
    with mock.patch.dict(sys.modules, modules):
        import timm.models.vision_transformer  # noqa: F401  # pyright: ignore[reportMissingImports]

        kept = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "timm"}
        yield
    sys.modules.update(kept)


def vision_transformer(*, fused: bool) -> nn.Module:
    with without_torchvision():
        from timm.models.vision_transformer import VisionTransformer  # pyright: ignore[reportMissingImports]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = VisionTransformer(img_size=16, patch_size=4, embed_dim=16, depth=2, num_heads=2, num_classes=5).eval()
    for block in model.blocks:
        nn.init.normal_(block.attn.qkv.weight, std=0.5)  # so that attention is not uniform
        block.attn.fused_attn = fused
    return model


def way_of(*, fused: bool) -> str:
    """How it is watched. AssertionError if that changes its output, or patterns are not those that it computes."""
    torch.manual_seed(1)
    model, pixels = vision_transformer(fused=fused), torch.randn(3, 3, 16, 16)
    written = vision_transformer(fused=False)
    for one, other in zip(written.parameters(), model.parameters(), strict=True):
        one.data = other.data
    patterns: list[Tensor] = []
    for block in written.blocks:  # pyright: ignore[reportGeneralTypeIssues]
        block.attn.attn_drop.register_forward_hook(lambda module, args, output: patterns.append(output))
    with torch.no_grad():
        expected = model(pixels)
        written(pixels)
        subject = watch(model, [pixels], grid=(4, 4))
        calls: list[AttentionCall] = []
        output, _ = subject._pass(torch.arange(3).numpy(), calls.append)
    assert torch.equal(output, expected)
    assert [call.name for call in calls] == ["blocks.0.attn", "blocks.1.attn"]
    for call, pattern in zip(calls, patterns, strict=True):
        assert torch.allclose(call.pattern(), pattern, atol=5e-6)
        assert pattern.std() > 0.01
    assert subject.capture is not None
    assert subject.space.leading == 1
    return subject.capture.way
