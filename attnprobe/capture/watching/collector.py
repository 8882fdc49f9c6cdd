"""One pass of a foreign model: which module attends how often, what is added to its scores, who is told."""

import fnmatch
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from attnprobe.capture.watching.masks import rules
from attnprobe.errors import NotApplicableError
from attnprobe.scores.call import AttentionCall, Observer
from attnprobe.scores.visibility import Visibility

Place = tuple[str, int]  # qualified name of a module, and how often it was called before in the same pass


class Collector:
    """What both ways of watching report to. Calls are numbered in their order, or as ``places`` says."""

    def __init__(
        self,
        model: nn.Module,
        observe: Observer,
        *,
        score_offsets: Mapping[int, Tensor] | None = None,
        places: Mapping[Place, int] | None = None,
        only: str = "*",
        real: Tensor | None = None,
    ) -> None:
        """only: pattern of the modules' names (fnmatch). real: (sequence, length) bool, False at padding."""
        self.names = {id(module): name for name, module in model.named_modules()}
        self.observe, self.score_offsets, self.only, self.real = observe, score_offsets or {}, only, real
        self.known, self.places = places, dict[Place, int]()
        self.counts = dict[str, int]()
        self.ways = set[str]()  # that found something
        self.inside = False  # of a kernel: what it calls itself is no further call
        self._masks = dict[tuple[Any, ...], tuple[object, tuple[Visibility, Tensor | None]]]()

    def begin(self, name: str) -> Place | None:
        """A module starts what may be attention; None if it was not asked for."""
        place = (name, self.counts.get(name, 0))
        self.counts[name] = place[1] + 1
        return place if fnmatch.fnmatchcase(name, self.only) else None

    def offset(self, place: Place) -> Tensor | None:
        """What is to be added to its scores; nothing in a pass that numbers the calls."""
        return None if self.known is None or place not in self.known else self.score_offsets.get(self.known[place])

    def end(
        self,
        place: Place,
        way: str,
        *,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        output: Tensor,
        mask: object,
        causal: bool,
        scale: float,
        bias: Tensor | None = None,
        **more: Any,
    ) -> None:
        """It has attended; mask and causal as the kernel was given them, without score offset."""
        name, number = place
        if self.known is not None and place not in self.known:
            reason = f"{name or 'the model'} attends {1 + number} times in this pass, but not in the first one"
            raise NotApplicableError(reason, hint="give it inputs of one kind and length")
        self.places[place] = len(self.places) if self.known is None else self.known[place]
        self.ways.add(way)
        shape = (*q.shape[:3], k.shape[2])
        key = (id(mask), shape, causal)
        if key not in self._masks:  # layers share them
            found = rules(mask, shape, causal=causal, real=self._real_of(shape), device=q.device)
            self._masks[key] = (mask, found)  # held, so that its id stays its own
        seen, hidden_bias = self._masks[key][1]
        if bias is not None:
            bias = bias[..., : shape[3]].expand(-1, -1, *shape[2:])
        total = hidden_bias if bias is None else bias if hidden_bias is None else bias + hidden_bias
        self.observe(
            AttentionCall(
                layer=self.places[place], name=name, call=number, q=q, k=k, v=v, output=output, scale=float(scale),
                visibility=seen, bias=total, **more,
            )
        )  # fmt: skip

    def _real_of(self, shape: tuple[int, ...]) -> Tensor | None:
        return self.real if self.real is not None and len(self.real) == shape[0] else None

    def finish(self) -> None:
        """NotApplicableError if a call of the first pass was missing."""
        missing = [] if self.known is None else [place for place in self.known if place not in self.places]
        if missing:
            reason = f"{missing[0][0]} did not attend in this pass, but in the first one"
            raise NotApplicableError(reason, hint="give the model inputs of one kind and length")
