"""Raw scores by offset without the length x length matrix: cross-correlations by FFT, on sequences and pixel grids.

The sum of q_i . k_(i + offset) over i is, channel by channel, a cross-correlation of two signals: O(L log L).

Scores are centred first: adding a constant to all scores of a query changes nothing after the softmax, so the mean
over the query's visible keys is taken off. The centred score is again an inner product (``centre``), hence every sum
here is exact, with padding and causality, in O(length) memory. A layout without ``self_pairs`` leaves the pairs of a
position with itself out of the sums and out of the means alike.
"""

import math
from collections.abc import Iterable, Iterator

import scipy.fft
import torch
from torch import Tensor

from attnprobe.scores.layout import Layout

BLOCK = 256  # queries per step where a running sum over earlier keys is needed
SHORT = 256  # up to this length one matrix product with the weights of all pairs is faster than transforms


def centre(
    q: Tensor, k: Tensor, valid: Tensor | None, *, causal: bool, self_pairs: bool = True
) -> tuple[Tensor, Tensor]:
    """q', k' (batch, head, length, d_head [+ 1]) whose inner products are the row-centred scores on visible pairs.

    Where every query sees the same keys the mean visible key is taken off every key. Under causality, or without the
    query's own key, the mean differs from query to query; one more channel, minus the mean score of the query times
    one, takes it off. Padded positions become zero vectors.
    """
    same_keys = self_pairs and not causal
    if valid is None:
        k = k - k.mean(-2, keepdim=True)
        if same_keys:
            return q, k
        real = k.new_ones(1, 1, k.shape[-2], 1)
    else:
        real = valid[:, None, :, None].to(k.dtype)
        k = (k - (k * real).sum(-2, keepdim=True) / real.sum(-2, keepdim=True).clamp(min=1)) * real
        q = q * real
        if same_keys:
            return q, k
    total, seen = (t.cumsum(-2) if causal else t.sum(-2, keepdim=True) for t in (k, real))
    if not self_pairs:
        total, seen = total - k, seen - real
    row_mean = (q * total).sum(-1, keepdim=True) / seen.clamp(min=1)
    return torch.cat([q, -row_mean], -1), torch.cat([k, real.expand_as(row_mean)], -1)


def score_moments(
    q: Tensor,
    k: Tensor,
    layout: Layout,
    *,
    scale: float,
    valid: Tensor | None = None,
    squares: bool = False,
    block_bytes: int = 2**23,
) -> tuple[Tensor, Tensor | None]:
    """Sums (and sums of squares) of the centred scores over all visible pairs at each offset.

    q, k (batch, head, length, d_head), valid (batch, length) bool -> (batch, head, *layout.offsets); divide by
    ``pair_counts``. Squares are correlations of all d_head (d_head + 1) / 2 products of two channels. ``block_bytes``
    bounds the work space; one channel at a time is the least.
    """
    q, k = centre(q, k, valid, causal=layout.causal, self_pairs=layout.self_pairs)
    reachable = layout.reachable().to(q.device)
    channel_bytes = 8 * math.prod(_fft_size(layout)) * q[..., 0, 0].numel() * q.element_size()
    block = max(1, block_bytes // channel_bytes)
    # Channels first: a transform runs along contiguous positions.
    q, k = (x.movedim(-1, 0).contiguous() for x in (q, k))
    sums = cross_correlate(((q[c], k[c]) for c in _blocks(len(q), block)), layout) * scale
    if not squares:
        return sums * reachable, None
    products = cross_correlate(_channel_products(q, k, block), layout) * scale**2
    return sums * reachable, products.clamp(min=0) * reachable


def pair_counts(layout: Layout, valid: Tensor | None = None) -> Tensor:
    """Visible (query, key) pairs at each offset, float64: (batch or 1, *layout.offsets)."""
    if valid is None:
        # A box against itself: the count at an offset is the product over axes of size - |offset|.
        sizes = [size - axis.abs() for size, axis in zip(layout.shape, layout.axes(), strict=True)]
        counts = torch.stack(sizes).prod(0).double()[None]
    else:
        real = valid[:, None].double()
        counts = cross_correlate([(real[None], real[None])], layout)[:, 0].round()
    return counts * layout.reachable().to(counts.device)


def _channel_products(q: Tensor, k: Tensor, block: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(q . k)^2 = sum over channel pairs a <= b of (q_a q_b) (k_a k_b), twice where a < b."""
    for a in range(len(q)):
        for c in _blocks(len(q) - a, block):
            x, y = q[a:][c] * q[a], k[a:][c] * k[a]
            x[1 if c.start == 0 else 0 :] *= 2
            yield x, y


def _blocks(total: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, total, size))


def cross_correlate(channels: Iterable[tuple[Tensor, Tensor]], layout: Layout) -> Tensor:
    """Sum over i of x_i . y_(i + offset), (batch, head, *offsets), from blocks of channels (-, batch, head, length)."""
    size, axes = _fft_size(layout), len(layout.shape)
    dims = tuple(range(-axes, 0))
    spectrum: Tensor | None = None
    for x, y in channels:
        x, y = x.unflatten(-1, layout.shape), y.unflatten(-1, layout.shape)
        product = (torch.fft.rfftn(x, s=size, dim=dims).conj() * torch.fft.rfftn(y, s=size, dim=dims)).sum(0)
        spectrum = product if spectrum is None else spectrum + product
    assert spectrum is not None
    sums = torch.fft.irfftn(spectrum, s=size, dim=dims)
    # Negative offsets sit at the end of every axis.
    sums = sums.roll([n - 1 for n in layout.shape], dims)
    for dim, n in zip(dims, layout.offsets, strict=True):
        sums = sums.narrow(dim, 0, n)
    return sums


def _fft_size(layout: Layout) -> tuple[int, ...]:
    return tuple(scipy.fft.next_fast_len(n, real=True) for n in layout.offsets)  # pyright: ignore[reportReturnType]


def square_sum(q: Tensor, k: Tensor, layout: Layout, *, scale: float, valid: Tensor | None = None) -> Tensor:
    """Sum of the squared centred scores over all visible pairs: (batch, head).

    Zero where all scores of every query are equal up to rounding.
    """
    size = q.norm(dim=-1).square().sum(-1) * k.norm(dim=-1).square().sum(-1)  # bounds the raw sum of squares
    centred = centre(q, k, valid, causal=layout.causal, self_pairs=layout.self_pairs)
    total = product_sum(centred, centred, layout).clamp(min=0)
    floor = size * (64 * torch.finfo(q.dtype).eps) ** 2
    return torch.where(total <= floor, torch.zeros_like(total), total) * scale**2


def product_sum(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], layout: Layout) -> Tensor:
    """Sum over visible pairs of (q_i . k_j) (q'_i . k'_j) for two sets of centred queries and keys: (batch, head).

    The sum over keys of k_j k'_j^T comes first, so the cost is length * d_head * d_head'.
    """
    (q, k), (q2, k2) = first, second
    if not layout.causal:
        own = 0.0 if layout.self_pairs else ((q * k).sum(-1) * (q2 * k2).sum(-1)).sum(-1)
        return _bilinear(q, k.mT @ k2, q2).sum(-1) - own
    total = q.new_zeros(q.shape[:2])
    past = q.new_zeros(*q.shape[:2], q.shape[-1], q2.shape[-1])  # sum of k_j k'_j^T over earlier blocks
    for c in _blocks(q.shape[-2], BLOCK):
        inside = (q[..., c, :] @ k[..., c, :].mT) * (q2[..., c, :] @ k2[..., c, :].mT)
        inside = inside.tril(0 if layout.self_pairs else -1)
        total += _bilinear(q[..., c, :], past, q2[..., c, :]).sum(-1) + inside.sum((-2, -1))
        past += k[..., c, :].mT @ k2[..., c, :]
    return total


def _bilinear(x: Tensor, matrix: Tensor, y: Tensor) -> Tensor:
    """x^T matrix y for every row: (..., rows, d), (..., d, d'), (..., rows, d') -> (..., rows)."""
    return ((x @ matrix) * y).sum(-1)


def contrast_keys(q: Tensor, weights: Tensor, layout: Layout, *, scale: float, valid: Tensor | None = None) -> Tensor:
    """u (batch, head, length, d_head) with sum_j u_j . k_j = sum over visible pairs of weights[offset] * centred score.

    weights: shape ``layout.offsets``. The sum is linear in the keys, so a statistic of the scores under any other
    order of the keys costs one inner product instead of a new matrix of scores.
    """
    real = q.new_ones(1, 1, layout.length) if valid is None else valid[:, None].to(q)
    q = q * real[..., None]
    kernel = (weights * layout.reachable().to(weights.device)).to(q)
    direct = _correlate_with_weights(q.movedim(-1, 2), kernel, layout).movedim(2, -1)
    # Centring a row of scores is the same as centring the row of weights that it is multiplied with.
    spread = q * row_means(weights, layout, valid).to(q)[:, None, :, None]
    # Every key takes the part of all queries that see it; under causality those at or behind it.
    own = 0.0 if layout.self_pairs else spread
    spread = (spread.flip(-2).cumsum(-2).flip(-2) if layout.causal else spread.sum(-2, keepdim=True)) - own
    return (direct - spread) * real[..., None] * scale


def row_means(weights: Tensor, layout: Layout, valid: Tensor | None = None) -> Tensor:
    """Mean of weights[offset] over the visible keys of each query, float64 (batch or 1, length); 0 for padded queries.

    For an indicator of offsets this is the mass that uniform attention would put on them.
    """
    real = torch.ones(1, layout.length, device=weights.device) if valid is None else valid
    real = real.double()
    seen = real.cumsum(-1) if layout.causal else real.sum(-1, keepdim=True)
    seen = seen if layout.self_pairs else seen - real
    kernel = (weights * layout.reachable().to(weights.device)).double()
    sums = _correlate_with_weights(real, kernel.flip(tuple(range(kernel.dim()))).to(real.device), layout)
    return sums / seen.clamp(min=1) * real


def _correlate_with_weights(x: Tensor, weights: Tensor, layout: Layout) -> Tensor:
    """Sum over i of x_i weights[j - i]: (..., length) -> (..., length)."""
    if layout.length <= SHORT:
        place = torch.cartesian_prod(*map(torch.arange, layout.shape)).view(layout.length, -1)
        offset = place[None] - place[:, None] + torch.tensor(layout.shape) - 1
        return x @ weights[tuple(offset.movedim(-1, 0).to(weights.device))]
    axes = len(layout.shape)
    dims = tuple(range(-axes, 0))
    size = _fft_size(layout)  # what wraps around lands outside the part that is kept
    spectrum = torch.fft.rfftn(x.unflatten(-1, layout.shape), s=size, dim=dims)
    result = torch.fft.irfftn(spectrum * torch.fft.rfftn(weights, s=size, dim=dims), s=size, dim=dims)
    for dim, n in zip(dims, layout.shape, strict=True):
        result = result.narrow(dim, n - 1, n)
    return result.flatten(-axes)
