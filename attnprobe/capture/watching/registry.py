"""Hugging Face models: their own kernel, mask and dispatch, watched where transformers looks the kernel up.

Replacing ``AttentionInterface.get_interface`` while a pass runs leaves names, masks and branches of the models alone,
which registering a kernel of one's own does not: a name without a mask function gets no mask.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from attnprobe.capture.watching.collector import Collector
from attnprobe.capture.watching.masks import with_offset
from attnprobe.errors import NotApplicableError

WAY = "AttentionInterface"
DENSE = (None, "eager", "sdpa")  # kernels that are given a mask from which one can tell who sees whom


@contextlib.contextmanager
def watching_registry(collector: Collector) -> Iterator[None]:
    """While open, every attention call of a Hugging Face model goes to the collector; nothing if there is none."""
    modeling = sys.modules.get("transformers.modeling_utils")
    if modeling is None:  # then no model of it can run either
        yield
        return
    interface = modeling.AttentionInterface
    if not hasattr(interface, "get_interface"):
        raise NotApplicableError("this version of transformers is too old", hint="pip install 'transformers>=5.1'")
    original = interface.get_interface

    def get_interface(self: Any, implementation: str | None, default: Callable[..., Any]) -> Callable[..., Any]:
        return _watched(original(self, implementation, default), implementation, collector)

    interface.get_interface = get_interface
    try:
        yield
    finally:
        interface.get_interface = original


def _watched(kernel: Callable[..., Any], implementation: str | None, collector: Collector) -> Callable[..., Any]:
    def run(
        module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any = None, **options: Any
    ) -> tuple[Tensor, Any]:
        name = collector.names.get(id(module))
        place = None if name is None else collector.begin(name)
        outer, collector.inside = collector.inside, True
        try:
            if place is None:  # another model, or not asked for
                return kernel(module, query, key, value, attention_mask, **options)
            if implementation not in DENSE:
                reason = f"{name}: from the kernel {implementation} one cannot tell who sees whom"
                raise NotApplicableError(reason, hint="load the model with attn_implementation sdpa or eager")
            causal = _causal(module, query, attention_mask, implementation, options)
            offset, given, changed = collector.offset(place), attention_mask, options
            if offset is not None:
                shape = (*query.shape[:3], key.shape[2])
                given = with_offset(attention_mask, causal, offset, shape, query)
                changed = options | ({"is_causal": False} if "is_causal" in options else {})
            output, weights = kernel(module, query, key, value, given, **changed)
            heads_first = output.transpose(1, 2)
            scaling, sinks = options.get("scaling"), options.get("s_aux", options.get("sinks"))
            collector.end(
                place, WAY, q=query, k=key, v=value, output=heads_first, mask=attention_mask, causal=causal,
                scale=query.shape[-1] ** -0.5 if scaling is None else scaling, softcap=options.get("softcap"),
                bias=options.get("position_bias"), sinks=sinks,
            )  # fmt: skip
        finally:
            collector.inside = outer
        # Losses can be differentiated along what was observed only if the model goes on with just that.
        return (heads_first.transpose(1, 2) if torch.is_grad_enabled() else output), weights

    return run


def _causal(module: Any, query: Tensor, mask: Any, implementation: str | None, options: dict[str, Any]) -> bool:
    """Without a mask: eager kernels then hide nothing; sdpa's hide the future unless module or caller deny it."""
    if mask is not None or implementation != "sdpa" or query.shape[2] == 1:
        return False
    given = options.get("is_causal")
    return bool(getattr(module, "is_causal", True) if given is None else given)
