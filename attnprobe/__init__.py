"""attnprobe measures attention mechanisms and explains how their training signal shapes them.

Vocabulary, used in this sense everywhere:

scores          pre-softmax attention scores ``q @ k.T * scale``, axes (batch, head, query, key)
pattern         post-softmax attention weights, same axes
offset          key position minus query position; distance is its absolute value, or Euclidean on a pixel grid
score offset    an additive term on the scores, zero unless someone measures or intervenes
readout         the pooled label head; label loss is its loss
reconstruction  the per-position head that predicts hidden inputs; reconstruction loss is its loss
direction       a vector in the space of scores along which a loss is differentiated
null            the distribution of a statistic when the effect it measures is absent
hidden          boolean mask of positions whose input is removed (True = removed)
valid           boolean mask of real positions (False = padding)

In Python, ``import attnprobe as ap`` offers the functions behind the commands (see ``attnprobe.interface``).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attnprobe.interface import (
        alignment,
        arrays,
        certify,
        decompose,
        intervene,
        kernels,
        load_run,
        open,
        proximity,
        runs,
        study,
        train,
        trajectory,
        verify,
        watch,
    )

__version__ = "0.1.0"

__all__ = [
    "alignment",
    "arrays",
    "certify",
    "decompose",
    "intervene",
    "kernels",
    "load_run",
    "open",
    "proximity",
    "runs",
    "study",
    "train",
    "trajectory",
    "verify",
    "watch",
]


def __getattr__(name: str) -> Any:
    """Nothing heavy is imported before it is asked for: the command line must start fast."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from attnprobe import interface

    return getattr(interface, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
