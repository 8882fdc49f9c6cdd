"""Long measurements say how far they are: never backwards, never beyond the total, and to the end."""

from collections.abc import Callable

import pytest
import torch

from attnprobe.capture import Subject, ours
from attnprobe.models import TransformerConfig, make_model
from attnprobe.probes import alignment, decomposition, interventions, proximity
from attnprobe.probes.alignment.change import change_of_scores
from attnprobe.probes.sequences import Progress
from attnprobe.tasks import Spec, Split

CALLS: dict[str, Callable[[Subject, Progress], object]] = {
    "proximity": lambda s, told: proximity.measure(s, draws=19, progress=told),
    "decompose": lambda s, told: decomposition.measure(s, progress=told),
    "change": lambda s, told: change_of_scores(s, s, progress=told),
    "swap": lambda s, told: interventions.swap_response(s, s, progress=told),
    "alignment": lambda s, told: alignment.measure(s, shuffles=19, orders=19, progress=told),
}


@pytest.mark.parametrize("name", CALLS)
def test_progress_goes_forward_to_its_end(name: str) -> None:
    model = make_model(TransformerConfig(d_model=8, heads=2, d_mlp=6), Spec(length=7, classes=2), "values", seed=0)
    inputs = torch.randn(300, 7, 1, generator=torch.Generator().manual_seed(0))
    split = Split(inputs=inputs, labels=torch.arange(300) % 2)
    told: list[tuple[int, int]] = []
    CALLS[name](ours.of(model, split), lambda done, total: told.append((done, total)))
    done = [part for part, _ in told]
    assert len({total for _, total in told}) == 1
    assert done == sorted(set(done))
    assert done
    assert done[-1] == told[-1][1]
