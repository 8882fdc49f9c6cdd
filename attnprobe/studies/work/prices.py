"""How many labelled sequences it takes to hear, on the untrained model, what self-pretraining went on to do."""

import math
from collections.abc import Callable
from pathlib import Path

from attnprobe.capture import Subject
from attnprobe.probes import alignment
from attnprobe.probes.alignment.change import change_of_scores

PRICE = "label.dependent.sequences"
VISIBILITY = "label.dependent.visibility"
MEANS = 500  # sequences that are enough for the mean change of scores
SHUFFLES = 99  # of the labels, for p-values, which nobody asks for here


def rows(
    pretrained: Path, subject: Callable[[Path], Subject], *, n: int = 8000, seed: int = 0, power: float = 0.8
) -> list[tuple[str, float]]:
    """Quantity and estimate of the alignment probe on the untrained model of a pretrained one, head by head.

    The direction is the change of scores that pretraining made in that head: where the model has to go. Added is
    VISIBILITY, 1 / PRICE of the head that labels are heard in first, and 0 where they are heard in none with ``n``
    sequences: unlike prices, which are then infinite, it can be averaged. subject: opens a checkpoint; the untrained
    one lies beside the other.
    """
    before, after = subject(pretrained.with_name("init.pt")), subject(pretrained)
    change = change_of_scores(before, after, n=min(n, MEANS), seed=seed)
    found = alignment.measure(
        before, n=n, directions=[change], shuffles=SHUFFLES, null="none", groups=1, seed=seed, power=power
    )
    known = [(row.quantity, row.interval.estimate) for row in found.rows]
    prices = [price for quantity, price in known if quantity == PRICE and not math.isnan(price)]
    return [*known, (VISIBILITY, max((1 / price for price in prices), default=0.0))]
