"""A subject's offset profile: the mean row-centred score at every offset, of every head."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from attnprobe.capture.calls import check_call, seen
from attnprobe.capture.subject import Subject
from attnprobe.scores.call import AttentionCall
from attnprobe.scores.visible_sums import pair_counts, score_sums


@torch.no_grad()
def mean_profile(subject: Subject, batches: Iterable[np.ndarray]) -> Tensor:
    """(layer, head, *offsets) float64 on the CPU, over the samples of all batches; 0 where never seen.

    Each query's scores are centred over the keys it can see. Leading tokens are left out as queries and as keys.
    """
    layout, bins = subject.space.layout, subject.space.layout.offsets
    sums, counts = torch.zeros(*subject.shape, *bins, dtype=torch.float64), torch.zeros(bins, dtype=torch.float64)

    def add(call: AttentionCall) -> None:
        check_call(subject, call)
        q, k = (x[..., subject.space.leading :, :].double() for x in call.channels())
        valid = seen(subject, call)
        sums[call.layer] += score_sums(q, k, layout, scale=call.scale, valid=valid).sum(0).cpu()
        if call.layer == 0:
            pairs = pair_counts(layout, valid).cpu()
            counts.add_(pairs.sum(0) * (len(q) // len(pairs)))

    for samples in batches:
        subject.run(samples, observe=add)
    return sums / counts.clamp(min=1)
