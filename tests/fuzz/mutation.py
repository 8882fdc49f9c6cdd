"""Damage of many kinds, reproducible from a seed."""

import copy
import io
import random
import zipfile
from typing import Any

import torch

NASTY = [
    b"\0",
    b"\xff" * 4,
    b"\x7f\xff\xff\xff",
    b"[" * 3000,
    b"9" * 5000,
    b"\n",
    b"\x1b[31m",
    b"..",
    b"nan",
    b"1e999",
    b'"',
]
VALUES: list[Any] = [
    None, True, -1, 0, 1, 2**31, 2**62, 10**30, 10**400, 0.5, float("inf"), float("nan"), "", "x" * 5000, "\x1b\n", [],
    {}, [[[[]]]], {"a": 1}, (), (3, 5),
]  # fmt: skip


def damaged(content: bytes, draw: random.Random) -> bytes:
    """One to four places flipped, cut, doubled, moved, replaced or filled with what parsers dislike."""
    for _ in range(draw.choice([1, 1, 1, 2, 4])):
        place = draw.randrange(len(content) + 1)
        end = min(len(content), place + draw.choice([1, 2, 4, 16, 200]))
        kind = draw.randrange(7)
        if kind == 0 and place < len(content):
            content = content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]
        elif kind == 1:
            content = content[:place]
        elif kind == 2:
            content = content[:place] + draw.choice(NASTY) + content[place:]
        elif kind == 3:
            content = content[:place] + content[end:]
        elif kind == 4:
            content = content[:end] + content[place:end] * draw.choice([1, 2, 50]) + content[end:]
        elif kind == 5:
            content = content[:place] + draw.randbytes(end - place) + content[end:]
        else:
            content = content[:place] + draw.choice(NASTY)[: end - place] + content[end:]
    return content


def entangled(levels: int) -> list[Any]:
    """Lists that hold each other: 2 ** levels values when printed."""
    value: list[Any] = []
    for _ in range(levels):
        value = [value, value]
    return value


def changed(document: Any, draw: random.Random) -> Any:
    """A copy of a document with a few of its parts removed, renamed, exchanged, reshaped or entangled."""
    document = copy.deepcopy(document)
    for _ in range(draw.choice([1, 1, 2, 3])):
        node = document
        for _ in range(draw.randrange(1, 6)):
            keys = [key for key in _keys(node) if _keys(node[key])]
            if not keys:
                break
            node = node[draw.choice(keys)]
        if not _keys(node):
            continue
        key = draw.choice(_keys(node))
        if draw.random() < 0.1 and isinstance(node, dict):
            node[draw.choice(["new", 7, "\x1b", "x" * 999])] = node.pop(key)
        elif draw.random() < 0.1:
            del node[key]
        else:
            node[key] = _other(node[key], draw)
    return document


def _keys(node: Any) -> list[Any]:
    return list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, list) else []


def _other(value: Any, draw: random.Random) -> Any:
    if isinstance(value, torch.Tensor) and draw.random() < 0.8:
        kinds = [
            lambda t: torch.zeros([*t.shape, 2]), lambda t: t.flatten()[:-1], lambda t: t.double(), lambda t: t.long(),
            lambda t: t.half(), lambda t: t.T if t.dim() == 2 else t[None], lambda t: torch.zeros(1).expand(10**9),
            lambda t: torch.full_like(t, draw.choice([float("nan"), float("inf"), -1.0])), lambda t: t[:0],
            lambda t: t.to_sparse(), lambda t: t.to(torch.bool), lambda t: torch.zeros(()),
        ]  # fmt: skip
        return draw.choice(kinds)(value)
    if draw.random() < 0.15:
        return draw.choice([entangled(40), entangled(5), [value] * 3, {"a": entangled(40)}])
    return draw.choice(VALUES)


def saved(document: Any) -> bytes:
    file = io.BytesIO()
    torch.save(document, file)
    return file.getvalue()


def pickle_damaged(content: bytes, draw: random.Random) -> bytes:
    """The archive of torch.save with another pickle or other records in it, all checksums right."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            part = old.read(entry)
            if entry.filename.endswith("data.pkl") or draw.random() < 0.02:
                part = damaged(part, draw)
            new.writestr(entry.filename, part)
    return target.getvalue()
