"""Multi-head attention with two taps: an additive score offset, and the queries and keys themselves."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnprobe.models.dropout import Dropout, attention_site
from attnprobe.models.mixers.contract import Init, Mixer, MixerSettings, Site
from attnprobe.models.parts import Initial, constant
from attnprobe.models.positions import Rotary, take_positions
from attnprobe.scores.call import AttentionCall, Observer
from attnprobe.scores.visibility import Visibility, as_mask


class Attention(Mixer):
    """softmax(q k^T / sqrt(d_head) + score offset) v with separate projections q, k, v, o (all with bias)."""

    obeys = frozenset({"causal", "heads", "rotary", "attention_dropout", "init"})
    has_scores = selects = True
    called: ClassVar[str] = "attention"  # in the names of its calls
    parameter_sets: ClassVar[Mapping[str, tuple[str, ...]]] = {"qk": ("q.*", "k.*"), "attention": ("*",)}

    def __init__(
        self, d_model: int, heads: int, *, layer: int, causal: bool, rotary: Rotary | None, dropout: float = 0.0,
        init: Init = "independent",
    ) -> None:  # fmt: skip
        nn.Module.__init__(self)
        self.heads, self.layer, self.causal, self.dropout, self.init = heads, layer, causal, dropout, init
        self.q = nn.Linear(d_model, d_model)
        self.k = nn.Linear(d_model, d_model)
        self.v = nn.Linear(d_model, d_model)
        self.o = nn.Linear(d_model, d_model)
        self.rotary = rotary

    def initial(self) -> Mapping[str, Initial]:
        """Tied: k, v and o start as copies of q (the published code clones one linear layer).

        Proximity: q and k start as the identity, so that scores are products of features, and of what positions add to
        these a kernel of the distance. Shuffled: k's rows in random order, which keeps its norm and leaves no kernel.
        """
        if self.init == "tied":
            return {f"{copy}.{part}": f"q.{part}" for copy in "kvo" for part in ("weight", "bias")}
        if self.init == "independent":
            return {}
        identity = constant(torch.eye(self.q.in_features, device="cpu"))
        keys = identity if self.init == "proximity" else permuted_rows
        biases = {f"{part}.bias": constant(0.0) for part in "qk"}
        return {"q.weight": identity, "k.weight": keys, **biases}

    @classmethod
    def stack(cls, layers: Sequence[Any]) -> None:
        """By its four projections."""

    def forward(
        self,
        x: Tensor,
        *,
        valid: Tensor | None = None,
        score_offset: Tensor | None = None,
        observe: Observer | None = None,
        at: Tensor | None = None,
        dropout: Dropout | None = None,
    ) -> Tensor:
        """(batch, length, d_model) -> the same, or (batch, n, d_model) if only the positions ``at`` (batch, n) query.

        ``valid`` (batch, length) bool hides padded keys. ``score_offset`` broadcasts to (batch, head, query, key), all
        queries, and is added to the scaled scores: the gradient with respect to a zero offset is the gradient along
        the scores.
        ``dropout`` holds the counters of a training batch; its weights then take length x length memory.
        """
        assert at is None or not self.causal, "a causal pattern needs every query in its place"
        q, k, v = self.q(x if at is None else take_positions(x, at)), self.k(x), self.v(x)
        q, k, v = (self._split_heads(t) for t in (q, k, v))
        if self.rotary is not None:
            q, k = self.rotary(q, at), self.rotary(k)
        if score_offset is not None and at is not None:
            score_offset = _rows(score_offset, at)
        scale, visibility = q.shape[-1] ** -0.5, self.visibility(valid)
        if dropout is not None and self.dropout > 0:
            pattern = _pattern(q @ k.mT * scale, visibility.whole(x.shape[1], x.device), score_offset)
            mixed = dropout.pattern(pattern, self.dropout, attention_site(self.layer), at) @ v
        else:
            mixed = self.attend(q, k, v, scale, visibility, score_offset)
        if observe is not None:
            name = f"blocks.{self.layer}.{self.called}"
            observe(
                AttentionCall(
                    layer=self.layer, name=name, q=q, k=k, v=v, output=mixed, scale=scale, visibility=visibility
                )
            )
        return self.o(mixed.transpose(1, 2).flatten(2))

    def visibility(self, valid: Tensor | None) -> Visibility:
        """Who sees whom among positions of which ``valid`` (batch, length) are real."""
        return Visibility(causal=self.causal, valid=valid)

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, scale: float, visibility: Visibility, offset: Tensor | None
    ) -> Tensor:
        """(batch, head, query, d_head), keys and values of all positions -> the pattern times v, of q's shape."""
        if offset is None and visibility.valid is None:
            return F.scaled_dot_product_attention(q, k, v, is_causal=self.causal, scale=scale)
        mask = as_mask(visibility.whole(k.shape[-2], k.device), offset, q.dtype)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def permuted_rows(tensor: Tensor, generator: torch.Generator) -> None:
    """The identity with its rows in random order."""
    order = torch.randperm(len(tensor), generator=generator)
    tensor.copy_(torch.eye(len(tensor), device="cpu")[order])


def _rows(score_offset: Tensor, at: Tensor) -> Tensor:
    """The rows ``at`` (batch, n) of an offset, broadcastable to (batch, head, n, key)."""
    whole = score_offset.expand(len(at), *score_offset.shape[1:])
    rows = at[:, None, :, None].expand(-1, whole.shape[1], -1, whole.shape[3])
    return whole.gather(2, rows)


def _pattern(scores: Tensor, visible: Tensor | None, offset: Tensor | None) -> Tensor:
    """Post-softmax weights (batch, head, query, key)."""
    scores = scores if offset is None else scores + offset
    return (scores if visible is None else scores.masked_fill(~visible, -torch.inf)).softmax(-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionSettings(MixerSettings):
    """Softmax attention of every position to every other (Vaswani et al. 2017)."""

    layer: ClassVar[type[Mixer]] = Attention

    def make(self, site: Site) -> Attention:
        return Attention(
            site.d_model, site.heads, layer=site.layer, causal=site.causal, rotary=site.rotary, dropout=site.dropout,
            init=site.init,
        )  # fmt: skip
