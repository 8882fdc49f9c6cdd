"""Texts as ids: of characters, bytes or words, with an end sign; as our data sets of characters do it."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from attnprobe.tasks.characters import END_ID, SPECIALS, UNKNOWN_ID, code_points, count_characters, make_vocabulary

Unit = Literal["characters", "bytes", "words"]
Encode = Callable[[str], np.ndarray]


def encoder(unit: Unit, training: Sequence[str], max_length: int, minimum: int) -> tuple[Encode, int]:
    """What makes ids of a text, and how many ids there are.

    Characters and words are those of the training texts, before the cut to ``max_length`` positions, that occur at
    least ``minimum`` times; others share one id. Words stand between blanks.
    """
    if unit == "bytes":
        return (
            lambda text: SPECIALS + np.frombuffer(text.encode("utf-8", "replace"), np.uint8).astype(np.int32),
            256 + SPECIALS,
        )
    if unit == "characters":
        vocabulary = make_vocabulary(count_characters(training, max_length), minimum)
        table = vocabulary.table()
        return lambda text: table[code_points(text)].astype(np.int32), len(vocabulary)
    counts = Counter(word for text in training for word in text.split()[: max_length - 1])
    known = sorted((word for word, count in counts.items() if count >= minimum), key=lambda w: (-counts[w], w))
    number = {word: SPECIALS + i for i, word in enumerate(known)}

    def encode(text: str) -> np.ndarray:
        return np.array([number.get(word, UNKNOWN_ID) for word in text.split()], np.int32)

    return encode, SPECIALS + len(known)


def with_end(ids: np.ndarray, max_length: int) -> np.ndarray:
    """Cut to ``max_length`` - 1 ids, and the end sign."""
    return np.append(ids[: max_length - 1], np.int32(END_ID))
