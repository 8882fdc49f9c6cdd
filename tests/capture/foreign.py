"""Attention of foreign makes, one for each way of writing it."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnprobe.capture import Loss
from attnprobe.capture.watching import ForeignLoss, watch
from attnprobe.scores.call import AttentionCall

N, LENGTH, WIDTH, HEADS = 5, 7, 6, 2


def inputs(seed: int = 0) -> Tensor:
    return torch.randn(N, LENGTH, WIDTH, generator=torch.Generator().manual_seed(seed))


class Module(nn.Module):
    """One attention layer of a foreign make: which functions it calls is the subclass's affair."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def parts(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.qkv(x).unflatten(-1, (3, HEADS, -1)).transpose(1, 3).unbind(2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.out(self.attend(*self.parts(x)).transpose(1, 2).flatten(2))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        raise NotImplementedError


class Fused(Module):
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.7)


class Biased(Module):
    """A bias for every pair and head, and one key in the past hidden from all."""

    def mask(self) -> Tensor:
        bias = torch.linspace(-1, 1, HEADS * LENGTH * LENGTH).view(1, HEADS, LENGTH, LENGTH)
        return bias.masked_fill(torch.arange(LENGTH) == 2, -torch.inf)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask())


class Grouped(Module):
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k[:, :1], v[:, :1], enable_gqa=True)


class Written(Module):
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = torch.einsum("bhid,bhjd->bhij", q, k) * 0.7
        return torch.softmax(scores.masked_fill(torch.ones(LENGTH, LENGTH).triu(1).bool(), -1e9), dim=-1) @ v


class ByLetters(Module):
    """Positions before sequences, all by einsum."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        pattern = (torch.einsum("bhid,bhjd->bhij", q, k) * 0.7).softmax(dim=3)
        return torch.einsum("bhij,jbhd->ibhd", pattern, v.permute(2, 0, 1, 3)).permute(1, 2, 0, 3)


class OneAxis(Module):
    """Sequences and heads along one axis."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = torch.baddbmm(torch.zeros(1, 1, LENGTH), q.flatten(0, 1), k.flatten(0, 1).mT, alpha=0.3)
        pattern = F.dropout(scores.view(-1, HEADS, LENGTH, LENGTH).softmax(-1), 0.5, self.training)
        return torch.bmm(pattern.view(-1, LENGTH, LENGTH), v.flatten(0, 1)).view(q.shape)


class WithWeights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, average_attn_weights=False)[0]


def encoder() -> nn.Module:
    torch.manual_seed(0)
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(WIDTH, HEADS, 8, batch_first=True), 2)


KINDS = {
    "fused": Fused, "biased": Biased, "grouped": Grouped, "written": Written, "by letters": ByLetters,
    "one axis": OneAxis, "with weights": WithWeights, "encoder": encoder,
}  # fmt: skip


def loss(output: Tensor, batch: object, samples: np.ndarray) -> Loss:
    targets = output.flatten(1) @ torch.linspace(-1, 1, LENGTH * WIDTH)
    return Loss(targets=targets[:, None], of=lambda targets: targets[:, 0])


LOSSES = {"label": ForeignLoss(of=loss)}


def calls(model: nn.Module, samples: int = N) -> list[AttentionCall]:
    found: list[AttentionCall] = []
    watch(model, [inputs()]).run(np.arange(samples), observe=found.append)
    return found
