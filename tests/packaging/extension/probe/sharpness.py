"""How much of a query's attention its favourite key receives."""

import dataclasses

import numpy as np
import torch

from attnprobe.capture.subject import Subject
from attnprobe.probes.heads import Heads
from attnprobe.probes.rows import Measurement
from attnprobe.probes.sequences import Progress, batches, by_sample
from attnprobe.scores.call import AttentionCall
from attnprobe.statistics.intervals import bootstrap
from attnprobe.streams import stream


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sharpness:
    rows: list[Measurement]
    samples: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        return {"sharpness": np.array([row.interval.estimate for row in self.rows])}


@torch.inference_mode()
def measure(
    subject: Subject, *, n: int, level: float, memory_limit: int, seed: int, progress: Progress | None = None
) -> Sharpness:
    """The largest weight of each query, averaged over queries, per head; one sequence at a time."""
    samples, heads = subject.draw(n, seed), Heads.of(subject)
    found = np.zeros((len(samples), heads.total))
    for span, part in batches(samples, 1, progress):

        def add(call: AttentionCall, span: slice = span) -> None:
            largest = by_sample(subject, call.pattern().amax(-1).mean(-1)) / subject.per_sample
            found[span, heads.within(call.layer)] = largest.double().cpu().numpy()

        subject.run(part, observe=add)
    band = bootstrap(found, level=level, generator=stream(seed, "bootstrap of sharpness"))
    rows = [
        Measurement(layer=layer, head=head, quantity="sharpness", interval=band.interval(number, unit="weight"))
        for number, (layer, head) in enumerate(heads.places())
    ]
    return Sharpness(rows=rows, samples=samples)
