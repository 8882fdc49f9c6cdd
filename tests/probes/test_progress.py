"""Long measurements say how far they are: never backwards, never beyond the total, and to the end."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from attnprobe.models import Transformer, TransformerConfig, make_model
from attnprobe.objectives import Classification, MaskedReconstruction
from attnprobe.probes import alignment, decomposition, interventions, proximity
from attnprobe.probes.alignment.change import change_of_scores
from attnprobe.probes.sequences import Progress
from attnprobe.tasks import Spec, Split

CALLS: dict[str, Callable[[Transformer, Split, Progress, np.random.Generator], object]] = {
    "proximity": lambda m, s, told, draw: proximity.measure(m, s, permutations=9, generator=draw, progress=told),
    "decompose": lambda m, s, told, draw: decomposition.measure(m, s, generator=draw, progress=told),
    "change": lambda m, s, told, draw: change_of_scores(m, m, s, progress=told),
    "swap": lambda m, s, told, draw: interventions.swap_response(
        m, m, s, objective=Classification(), generator=draw, progress=told
    ),
    "alignment": lambda m, s, told, draw: alignment.measure(
        m, s, label=Classification(), reconstruction=MaskedReconstruction(), shuffles=19, generator=draw, progress=told
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_progress_goes_forward_to_its_end(name: str) -> None:
    model = make_model(TransformerConfig(d_model=8, heads=2, d_mlp=6), Spec(length=7, classes=2), "values", seed=0)
    inputs = torch.randn(300, 7, 1, generator=torch.Generator().manual_seed(0))
    split = Split(inputs=inputs, labels=torch.arange(300) % 2)
    told: list[tuple[int, int]] = []
    CALLS[name](model, split, lambda done, total: told.append((done, total)), np.random.default_rng(0))
    done = [part for part, _ in told]
    assert len({total for _, total in told}) == 1
    assert done == sorted(set(done))
    assert done
    assert done[-1] == told[-1][1]
