"""What a language model can be asked to do with texts: predict tokens, and tell classes by a readout."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from attnprobe.capture.hugging_face.texts import Texts
from attnprobe.capture.subject import Loss
from attnprobe.capture.watching.inputs import Batch
from attnprobe.capture.watching.watched import ForeignLoss
from attnprobe.streams import stream

HIDDEN_SHARE = 0.15  # of a text's tokens, as BERT's pretraining hides them (Devlin et al. 2019)


def next_token(texts: Texts) -> ForeignLoss:
    """Cross entropy of every token of a text from those before it, the mean over the text's tokens."""

    def of(output: Any, batch: Batch, samples: np.ndarray) -> Loss:
        ids = batch.kwargs["input_ids"]
        predicted = texts.own[torch.as_tensor(samples)][:, 1:].to(ids.device)
        return _mean_of_tokens(output.logits[:, :-1], ids[:, 1:], predicted)

    return ForeignLoss(of=of, what="next tokens, by the model's own head")


def masked_token(texts: Texts, mask_id: int, seed: int) -> ForeignLoss:
    """Cross entropy of hidden tokens, the mean over those of a text. Which are hidden depends on seed, text and place
    alone; all are replaced by the mask token, at least one in every text.
    """
    draws = torch.from_numpy(stream(seed, "hidden tokens").random(texts.own.shape))
    draws = draws.masked_fill(~texts.own, 2.0)
    hidden = (draws < HIDDEN_SHARE) | (draws == draws.amin(1, keepdim=True))

    def prepare(batch: Batch, samples: np.ndarray) -> Batch:
        ids = batch.kwargs["input_ids"]
        chosen = hidden[torch.as_tensor(samples)].to(ids.device)
        return batch.replaced(input_ids=ids.masked_fill(chosen, mask_id), targets=(ids, chosen))

    def of(output: Any, batch: Batch, samples: np.ndarray) -> Loss:
        return _mean_of_tokens(output.logits, *batch.targets)

    return ForeignLoss(of=of, prepare=prepare, what="hidden tokens, by the model's own head")


def fresh_readout(texts: Texts, width: int, seed: int) -> ForeignLoss:
    """Cross entropy of the classes from a linear readout of the mean of the last hidden states of a text's tokens.

    The readout is drawn anew, N(0, 1 / width): it is where training on labels would start.
    """
    labels = texts.labels
    assert labels is not None, "a column of labels"
    weights = stream(seed, "fresh readout").standard_normal((width, 1 + int(labels.max()))) / width**0.5

    def prepare(batch: Batch, samples: np.ndarray) -> Batch:
        return batch.replaced(output_hidden_states=True)

    def of(output: Any, batch: Batch, samples: np.ndarray) -> Loss:
        states = output.hidden_states[-1]
        own = texts.own[torch.as_tensor(samples)].to(states)
        pooled = (states * own[..., None]).sum(1) / own.sum(1, keepdim=True)
        return classes_loss(pooled @ torch.from_numpy(weights).to(states), labels[samples])

    return ForeignLoss(of=of, prepare=prepare, what="classes, by a readout drawn anew")


def classes_loss(outputs: Tensor, labels: np.ndarray) -> Loss:
    """outputs (sequence, class)."""
    classes = torch.from_numpy(labels).to(outputs.device)
    right = (outputs.argmax(-1) == classes).float()
    return Loss(targets=outputs, of=lambda targets: F.cross_entropy(targets, classes, reduction="none"), accuracy=right)


def _mean_of_tokens(logits: Tensor, ids: Tensor, chosen: Tensor) -> Loss:
    """Over the chosen positions (sequence, length) of every sequence; logits (sequence, length, vocabulary)."""
    rows, places = chosen.nonzero(as_tuple=True)
    found, wanted = logits[rows, places], ids[rows, places]
    counts = chosen.sum(1).clamp(min=1)

    def per_sequence(values: Tensor) -> Tensor:
        return values.new_zeros(len(ids)).index_add(0, rows, values) / counts

    losses = per_sequence(F.cross_entropy(found, wanted, reduction="none"))
    right = per_sequence((found.argmax(-1) == wanted).to(losses.dtype))
    return Loss(targets=losses[:, None], of=lambda targets: targets[:, 0], accuracy=right)
