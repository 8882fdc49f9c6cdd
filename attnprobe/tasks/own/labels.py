"""Classes by name: which there are, in which order, and which one every sample has."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attnprobe.errors import ArtifactError, one_line, shown

LONGEST = 200  # characters of a class's name


def classes_of(
    path: Path, what: str, values: Sequence[Any], names: Sequence[str] = ()
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels (n,) int64 and the names of the classes: whole numbers by size, texts by the alphabet.

    what: how messages call the labels. names: of the classes 0, 1, ... if the data give them; else every label is a
    name. ArtifactError unless every sample has a label, and there are several classes, but fewer than samples.
    """
    missing = [row for row, value in enumerate(values) if is_missing(value)]
    if missing:
        message = f"{path}: {what} are missing for {len(missing)} of {len(values)} samples, first {missing[0] + 1}"
        raise ArtifactError(message, hint="leave such samples out; of tables: -s task.missing=drop")
    texts = [name_of(path, what, value) for value in values]
    found = sorted(set(texts), key=_order)
    if len(found) < 2:
        hint = "a classifier needs at least two; is it the right column or array?"
        raise ArtifactError(f"{path}: {what} know one class only: {shown(next(iter(found), ''))}", hint=hint)
    if len(found) > max(2, len(texts) // 2):
        message = f"{path}: {what} have {len(found)} different values in {len(texts)} samples"
        raise ArtifactError(message, hint="classes need several samples each; are these really the labels?")
    if len(set(names)) < len(names):
        raise ArtifactError(f"{path}: two classes have one name", hint="give every class a name of its own")
    number = {str(label): i for i, label in enumerate(range(len(names)) if names else found)}
    wrong = next((text for text in found if text not in number), None)
    if wrong is not None:
        hint = f"{len(names)} classes are named, so labels run from 0 to {len(names) - 1}"
        hint += "; rows of tables without a label: -s task.missing=drop" if wrong == "-1" else ""
        raise ArtifactError(f"{path}: {what} hold {shown(wrong)}", hint=hint)
    return np.array([number[text] for text in texts], np.int64), tuple(one_line(name) for name in names or found)


def is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value) or (isinstance(value, str) and not value)


def name_of(path: Path, what: str, value: Any) -> str:
    if isinstance(value, float) and not value.is_integer():
        hint = "labels are classes: whole numbers or names; for numbers in ranges, name the ranges"
        raise ArtifactError(f"{path}: {what} are numbers with fractions, such as {value}", hint=hint)
    text = str(int(value)) if isinstance(value, float) else str(value)
    if len(text) > LONGEST:
        raise ArtifactError(f"{path}: {what} hold long texts: {shown(text)}", hint="are these really the labels?")
    return text


def _order(name: str) -> tuple[bool, int, str]:
    """Whole numbers by size, before all texts."""
    digits = name.removeprefix("-")
    is_number = digits.isascii() and digits.isdecimal() and len(digits) < 19
    return (not is_number, int(name) if is_number else 0, name)
