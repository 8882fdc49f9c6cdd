"""Bytes that are measured while a call runs."""

import torch

from attnprobe.capture.footprint import peak_bytes

KIB = 1024


def kib(n: int, **options) -> torch.Tensor:
    return torch.zeros(n, KIB // 4, **options)


def test_the_peak_counts_what_is_alive_at_once_and_views_once() -> None:
    def call() -> None:
        first = kib(4)
        second = first.view(-1)[: KIB // 2] + 1  # 2 KiB of a view
        del first
        kib(1)
        del second
        kib(3)

    assert peak_bytes(call) == 6 * KIB


def test_what_was_there_before_costs_nothing() -> None:
    given = kib(64)
    assert peak_bytes(lambda: given.flatten().add_(1)) == 0
    assert peak_bytes(lambda: given[:2] * 2) == 2 * KIB


def test_saved_tensors_and_gradients_count() -> None:
    x = kib(2, requires_grad=True)

    def call() -> None:
        y = x
        for _ in range(5):
            y = y.exp()  # keeps its result
        torch.autograd.grad(y.sum(), x)

    assert 5 * 2 * KIB < peak_bytes(call) < 9 * 2 * KIB
    with torch.no_grad():
        assert peak_bytes(lambda: x.exp().exp().exp().exp().exp()) <= 2 * 2 * KIB
