"""Any torch module: attention seen in the functions it is made of, while they run as they are.

``scaled_dot_product_attention`` shows queries, keys, values and mask. ``nn.MultiheadAttention`` hides them behind one
function, inside which the functions that it uses are replaced while it runs (torch asks a function mode about it again
and again, for ever, if the mode is on inside). Where attention is written out, the argument of a softmax over four
axes, whose result is then multiplied with values, are the scores; queries and keys are not seen.
"""

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from attnprobe.capture.watching.checks import not_finite
from attnprobe.capture.watching.collector import Collector, Place
from attnprobe.capture.watching.masks import parted, with_offset
from attnprobe.capture.watching.multi_head import inside_multi_head
from attnprobe.errors import NotApplicableError

WAY = "functions"
KEEPING = {"dropout", "to", "type", "type_as", "float", "half", "bfloat16", "double", "view", "reshape", "contiguous",
           "flatten", "unsqueeze", "nan_to_num"}  # fmt: skip
PRODUCTS = {"matmul", "__matmul__", "bmm"}
EINSUM = re.compile(r"(\w{4}),(\w{3,4})->(\w{4})")


@contextlib.contextmanager
def watching_functions(collector: Collector, batch: int | None = None) -> Iterator[None]:
    """While open, every attention that is seen in its functions goes to the collector. batch: of the model's inputs,
    needed where sequences and heads share one axis.
    """
    running: list[str] = []

    def enter(module: nn.Module, args: Any) -> None:
        running.append(collector.names.get(id(module), running[-1] if running else ""))

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        running.pop()

    hooks = nn.modules.module
    handles = [
        hooks.register_module_forward_pre_hook(enter),
        hooks.register_module_forward_hook(leave, always_call=True),
    ]
    try:
        with Functions(collector, running, batch):
            yield
    finally:
        for handle in handles:
            handle.remove()


class Functions(TorchFunctionMode):
    def __init__(self, collector: Collector, running: list[str], batch: int | None) -> None:
        super().__init__()
        self.collector, self.running, self.batch = collector, running, batch
        self.open: Written | None = None  # the last softmax, until its result meets values

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, name = kwargs or {}, getattr(function, "__name__", "")
        if self.collector.inside:
            return function(*args, **kwargs)
        if name == "scaled_dot_product_attention":
            return self.fused(function, *args, **kwargs)
        if name == "multi_head_attention_forward":
            return self.multi_head(function, args, kwargs)
        if name == "softmax":
            return self.softmax(function, args, kwargs)
        result = function(*args, **kwargs)
        if self.open is not None and name == "einsum" and len(args) == 3 and self.open.is_pattern(args[1]):
            return self.einsum(self.open, args[0], args[2], result)
        if self.open is not None and args and self.open.is_pattern(args[0]):
            if name in PRODUCTS:
                result = self.product(self.open, args[1] if len(args) > 1 else kwargs.get("other"), result)
            elif name in KEEPING and isinstance(result, Tensor):
                self.open.aliases.append(result)
        return result

    def fused(
        self, function: Callable[..., Any], query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
        dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None, **more: Any,
    ) -> Tensor:  # fmt: skip
        place = self.collector.begin(self.running[-1] if self.running else "")
        if place is None:
            return function(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, **more)
        q, k, v, mask = (four_axes(x, self.batch) for x in (query, key, value, attn_mask))
        offset, given, triangle = self.collector.offset(place), attn_mask, is_causal
        if offset is not None:
            shape = (*q.shape[:3], k.shape[2])
            given, triangle = with_offset(mask, is_causal, offset, shape, q), False
            given = given if query.dim() == 4 else given.expand(*shape[:2], -1, -1).flatten(0, 1)
        output = function(query, key, value, given, dropout_p, triangle, scale=scale, **more)
        used = query.shape[-1] ** -0.5 if scale is None else scale
        seen = four_axes(output, self.batch)
        self.collector.end(place, WAY, q=q, k=k, v=v, output=seen, mask=mask, causal=is_causal, scale=used)
        return goes_on(seen, output)

    def softmax(self, function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Tensor:
        """Of what may be scores; whether they are is known once its result is multiplied with values."""
        scores = args[0] if args else kwargs["input"]
        dim = args[1] if len(args) > 1 else kwargs.get("dim")
        self.open = None
        if not isinstance(scores, Tensor) or scores.dim() != 4 or dim not in (-1, 3):
            return function(*args, **kwargs)
        place = self.collector.begin(self.running[-1] if self.running else "")
        if place is None:
            return function(*args, **kwargs)
        offset = self.collector.offset(place)
        if offset is not None:
            args = (scores + offset.to(scores.dtype), *args[1:])
            kwargs = {key: value for key, value in kwargs.items() if key != "input"}
        pattern = function(*args, **kwargs)
        self.open = Written(place=place, scores=scores, aliases=[pattern])
        return pattern

    def product(self, written: "Written", values: Any, output: Tensor) -> Tensor:
        """Of the result of a softmax with values: it was attention."""
        scores = written.scores
        if not isinstance(values, Tensor) or values.shape[-2] != scores.shape[-1]:
            return output
        self.open = None
        if bool(scores.isnan().any()):  # one cannot tell what they hide
            raise not_finite(f"{written.place[0] or 'the model'}: its scores hold")
        visible, q = parted(scores)
        marks = torch.eye(q.shape[-1], dtype=q.dtype, device=q.device).expand(len(q), 1, -1, -1)
        seen = four_axes(output, len(q))
        self.collector.end(
            written.place, WAY, q=q, k=marks, v=four_axes(values, len(q)), output=seen, mask=visible, causal=False,
            scale=1.0, projected=False,
        )  # fmt: skip
        return goes_on(seen, output)

    def einsum(self, written: "Written", equation: str, values: Tensor, output: Tensor) -> Tensor:
        """``product`` where the axes of values and output are told by letters."""
        found = EINSUM.fullmatch(equation.replace(" ", ""))
        if found is None:
            return output
        pattern, of_values, of_output = found.groups()
        width = set(of_values) - set(pattern)
        wanted, shared = pattern[:2] + pattern[3], set(pattern[:2]) - set(of_values)
        if len(width) != 1 or set(of_output) != {*pattern[:3], *width} or shared - {pattern[1]}:
            return output
        letters = "".join(letter for letter in wanted if letter not in shared) + width.pop()
        heads = torch.einsum(f"{of_values}->{letters}", values)
        back = "".join((*pattern[:3], letters[-1]))
        seen = self.product(
            written, heads[:, None] if shared else heads, torch.einsum(f"{of_output}->{back}", output)
        )  # fmt: skip
        return torch.einsum(f"{back}->{of_output}", seen) if torch.is_grad_enabled() else output

    def multi_head(self, function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        query = args[0] if args else kwargs["query"]
        batch = query.shape[1] if query.dim() == 3 else 1  # its first axis is the length
        outer, self.batch = self.batch, batch
        try:
            with inside_multi_head(self, batch):
                return function(*args, **kwargs)
        finally:
            self.batch = outer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Written:
    """A softmax over four axes, whose result may become attention."""

    place: Place
    scores: Tensor
    aliases: list[Tensor]  # its result, under other shapes and types too

    def is_pattern(self, x: object) -> bool:
        return any(x is alias for alias in self.aliases)


def four_axes(x: Any, batch: int | None) -> Any:
    """(sequence, head, row, column), from one axis of both, or without either; None stays None."""
    if x is None or x.dim() == 4:
        return x
    if x.dim() == 2:
        return x[None, None]
    if x.dim() == 3 and batch is not None and len(x) % batch == 0:
        return x.unflatten(0, (batch, -1))
    reason = f"attention over {tuple(x.shape)} does not show which axis are heads"
    raise NotApplicableError(reason, hint="its axes must be (sequence, head, length, d_head)")


def goes_on(seen: Tensor, output: Tensor) -> Tensor:
    """What the model goes on with: under gradients just what was observed, so that they can be taken along it."""
    return seen.reshape(output.shape) if torch.is_grad_enabled() else output
