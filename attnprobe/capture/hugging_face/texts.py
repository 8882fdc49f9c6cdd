"""Texts as sequences of tokens for a Hugging Face model: blocks of one text, or a row of a table each."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from attnprobe.errors import ArtifactError, ConfigError, shown
from attnprobe.files import reading
from attnprobe.tasks.own.columns import FORMATS, choice, read_columns
from attnprobe.tasks.own.labels import classes_of
from attnprobe.tasks.own.source import require_file, require_memory
from attnprobe.tasks.own.table import USUAL_TEXTS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# pyright: reportMissingImports=false

GROWTH = 40  # bytes while a byte of text becomes tokens, about


@dataclasses.dataclass(frozen=True, kw_only=True)
class Texts:
    """Sequences of one length; what the tokenizer puts around a text is no position of it."""

    ids: Tensor  # (sequence, length) int64
    seen: Tensor  # (sequence, length) bool, False at padding
    own: Tensor  # (sequence, length) bool, True at tokens of the text itself
    leading: int  # tokens that stand before every text ([CLS], a sign of the beginning)
    labels: np.ndarray | None  # (sequence,) classes


def read_texts(
    path: Path, tokenizer: "PreTrainedTokenizerBase", *, max_length: int, limit: int | None = None,
    text_column: str | None = None, label_column: str | None = None,
) -> Texts:  # fmt: skip
    """A plain text cut into blocks of ``max_length`` positions, or the rows of a table, cut where they are longer.

    What is left of a plain text after the last whole block is not used. limit: most sequences, the first ones. Raises
    ArtifactError if there is nothing to measure.
    """
    is_table = path.is_dir() or path.suffix.lower() in FORMATS
    if not is_table and label_column is not None:
        raise ConfigError(f"{path} is a plain text, so it has no column {label_column!r}", hint="give a table, as CSV")
    before, after = around(tokenizer)
    room = max_length - len(before) - len(after)
    if room < 2:
        raise ConfigError(f"{max_length} positions leave {room} for the text", hint="raise --max-length")
    labels = None
    if is_table:
        rows, labels = _rows(path, text_column, label_column)
        rows, labels = rows[:limit], None if labels is None else labels[:limit]
        bodies = [ids[:room] for ids in _encode(tokenizer, rows)]
        empty = next((number for number, ids in enumerate(bodies, 1) if not ids), None)
        if empty is not None:
            raise ArtifactError(f"{path}, row {empty} has no tokens", hint="leave empty texts out")
    else:
        ids = _encode(tokenizer, [_plain(path)])[0]
        bodies = [ids[first : first + room] for first in range(0, len(ids) - room + 1, room)][:limit]
        if not bodies:
            reason = f"{path} has {len(ids)} tokens, fewer than one block of {room}"
            raise ArtifactError(reason, hint="give a longer text, or lower --max-length")
    return _joined(bodies, before, after, tokenizer.pad_token_id or 0, labels)


def around(tokenizer: "PreTrainedTokenizerBase") -> tuple[list[int], list[int]]:
    """What the tokenizer puts before and after a text."""
    plain, full = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
    for first in range(len(full) - len(plain) + 1):
        if full[first : first + len(plain)] == plain:
            return full[:first], full[first + len(plain) :]
    raise ArtifactError("this tokenizer does not put its special tokens around a text", hint="use ap.watch instead")


def _joined(
    bodies: Sequence[Sequence[int]], before: list[int], after: list[int], padding: int, labels: np.ndarray | None
) -> Texts:
    """Padded behind the longest."""
    length = max(map(len, bodies)) + len(before) + len(after)
    ids = torch.full((len(bodies), length), padding)
    seen, own = (torch.zeros(len(bodies), length, dtype=torch.bool) for _ in range(2))
    for row, body in enumerate(bodies):
        end = len(before) + len(body)
        ids[row, : end + len(after)] = torch.tensor([*before, *body, *after])
        seen[row, : end + len(after)] = True
        own[row, len(before) : end] = True
    return Texts(ids=ids, seen=seen, own=own, leading=len(before), labels=labels)


def _encode(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]) -> list[list[int]]:
    return tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]


def _plain(path: Path) -> str:
    require_file(path)
    require_memory(path, GROWTH * path.stat().st_size)
    with reading(path, hint="give plain text in UTF-8, or a table as CSV"):
        return path.read_text(encoding="utf-8-sig")


def _rows(path: Path, text_column: str | None, label_column: str | None) -> tuple[list[str], np.ndarray | None]:
    """The texts of a table, and the classes if a column of them is named."""

    def choose(names: Sequence[str]) -> list[str]:
        usual = [name for name in USUAL_TEXTS if name in names and name != label_column]
        text = text_column or (usual[0] if usual else USUAL_TEXTS[0])
        wanted = {"--text-column NAME": text, "--label-column NAME": label_column}
        return [choice(path, names, name, option) for option, name in wanted.items() if name is not None]

    table = read_columns(path, choose, separator=None, quotes=True)
    rows, *classes = table.values.values()
    wrong = next((number for number, row in enumerate(rows, 1) if not isinstance(row, str)), None)
    if wrong is not None:
        message = f"{path}, row {wrong} holds {shown(rows[wrong - 1])}, which is no text"
        raise ArtifactError(message, hint="name the column of texts: --text-column NAME")
    if not rows:
        raise ArtifactError(f"{path} has no rows", hint="is it the right table?")
    labels: Any = classes_of(path, f"labels {label_column!r}", classes[0], table.class_names)[0] if classes else None
    return rows, labels
