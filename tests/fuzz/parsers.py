"""Every parser of attnprobe with an undamaged file of its format, in groups; ``read`` is given the damaged one."""

import dataclasses
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from attnprobe import run
from attnprobe.config import read_toml
from attnprobe.files import ownership
from attnprobe.launch import trajectory
from attnprobe.report.training_figures import read_curve
from attnprobe.tasks import bidmc, fashion_mnist, images, retrieval, speech, text
from attnprobe.tasks.listops import published as listops
from attnprobe.tasks.own.arrays import Arrays
from attnprobe.tasks.own.pictures import Picture, read_header, read_pixels
from attnprobe.tasks.own.table import Table
from attnprobe.tasks.pathfinder import published as pathfinder
from attnprobe.training.saved.checkpoint import load_checkpoint
from attnprobe.training.saved.run_directory import RunDirectory
from tests.fuzz.datasets import (
    array,
    kept,
    of_own_arrays,
    of_png,
    open_archive,
    own_arrays,
    packed,
    png,
    tar,
    ts,
    wav,
)
from tests.fuzz.mutation import damaged, saved
from tests.fuzz.runs import (
    METRICS,
    RESULT,
    TRAJECTORY,
    Mutate,
    assignment,
    checkpoint,
    go_on,
    of_json,
    of_toml,
    of_torch,
    resume,
    toml,
)
from tests.tasks.true_formats import idx_bytes, python2_pickle


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parser:
    group: str
    file: str  # its name says to some readers what it holds
    content: Callable[[], bytes]
    read: Callable[[Path], Any]
    more: Callable[[], list[Mutate]] = list  # kinds of damage beside the bytes


PARSERS: dict[str, Parser] = {
    "checkpoint": Parser(
        group="documents", file="c.pt", content=lambda: saved(checkpoint()), read=load_checkpoint,
        more=of_torch(checkpoint),
    ),
    "resume": Parser(
        group="documents", file="resume.pt", content=lambda: saved(resume()), read=go_on, more=of_torch(resume)
    ),
    "settings": Parser(
        group="records", file="run.toml", content=toml, read=lambda path: run.from_table(read_toml(path)),
        more=lambda: [of_toml],
    ),
    "assignment": Parser(group="records", file="words", content=lambda: b"finetune.optimizer.lr=1e-3", read=assignment),
    "result": Parser(
        group="records", file="result.json", content=lambda: RESULT,
        read=lambda path: RunDirectory(path.parent).read_result(), more=of_json(lambda: RESULT, lines=False),
    ),
    "manifest": Parser(
        group="records", file="manifest.json", content=lambda: b'{"attention": {"finetuned": "math"}, "seed": 0}',
        read=lambda path: RunDirectory(path.parent).read_manifest(),
    ),
    "metrics": Parser(
        group="records", file="metrics.jsonl", content=lambda: METRICS,
        read=lambda path: read_curve(path.parent, "train_accuracy"), more=of_json(lambda: METRICS, lines=True),
    ),
    "trajectory": Parser(
        group="records", file="trajectory.jsonl", content=lambda: TRAJECTORY,
        read=lambda path: trajectory.read_run(path.parent, warn=print), more=of_json(lambda: TRAJECTORY, lines=True),
    ),
    "marker": Parser(
        group="records", file=ownership.MARKER, content=lambda: b'{"made by": "attnprobe", "kind": "run"}',
        read=lambda path: ownership.read_marker(path.parent),
    ),
    "generated cache": Parser(
        group="data", file="numbers.npy", content=lambda: array(np.arange(99, dtype=np.int16)), read=kept
    ),
    "idx": Parser(
        group="data", file="train-images-idx3-ubyte.gz",
        content=lambda: gzip.compress(idx_bytes(np.zeros((3, 28, 28))), mtime=0),
        read=lambda path: fashion_mnist.read_idx(path, 3),
        more=lambda: [lambda draw: gzip.compress(damaged(idx_bytes(np.zeros((3, 28, 28))), draw), mtime=0)],
    ),
    "CIFAR binary": Parser(
        group="data", file="data_batch_1.bin", content=lambda: bytes(images.PER_BATCH * 3073), read=images.read_binary
    ),
    "CIFAR pickle": Parser(
        group="data", file="data_batch_1",
        content=lambda: python2_pickle(np.zeros((images.PER_BATCH, 3072), np.uint8), [3] * images.PER_BATCH),
        read=images.read_pickled,
    ),
    "IMDb": Parser(
        group="data", file="0_7.txt", content=lambda: "A film\u2026<br />".encode() * 9, read=text.read_review
    ),
    "AAN": Parser(
        group="data", file="new_aan_pairs.train.tsv", content=lambda: b'1.0\tP1\tQ1\tone "a" text\t"two"\n' * 5,
        read=lambda path: list(retrieval.read_pairs(path)),
    ),
    "WAV": Parser(group="data", file="0_nohash_0.wav", content=wav, read=speech.read_clip),
    "speech list": Parser(
        group="data", file="testing_list.txt", content=lambda: b"bed/0_nohash_0.wav\n" * 3, read=speech.read_list
    ),
    "BIDMC ts": Parser(group="data", file="BIDMC32HR_TRAIN.ts", content=ts, read=bidmc.read_ts),
    "BIDMC npy": Parser(
        group="data", file="trainx.npy", content=lambda: array(np.zeros((2, 37, 2))),
        read=lambda path: bidmc.read_npy(path, (-1, 37, 2)),
    ),
    "Pathfinder rows": Parser(
        group="data", file="1.npy", content=lambda: array(np.array([["imgs/1", "a.png", "0", "1"]] * 3)),
        read=pathfinder.read_rows,
        more=lambda: [lambda draw: damaged(b"imgs/1 a.png 0 1 1.0 2.0\n" * 4, draw)],
    ),
    "PNG": Parser(
        group="data", file="a.png", content=png, read=lambda path: pathfinder.read_image(path, 32),
        more=lambda: [of_png],
    ),
    "ListOps": Parser(
        group="data", file="basic_train.tsv",
        content=lambda: b"Source\tTarget\n" + b"( ( ( [MAX 2 ) 9 ) ] )\t9\n" * 4,
        read=lambda path: listops.read_published(path, 9),
    ),
    "own npz": Parser(
        group="data", file="mine.npz", content=own_arrays, read=lambda path: Arrays(path=path).load(),
        more=lambda: [of_own_arrays],
    ),
    "own table": Parser(
        group="data", file="mine.csv", content=lambda: b'text,label\n"a, b",0\nc d,1\n' + b"e,0\nf,1\n" * 9,
        read=lambda path: Table(path=path).load(),
    ),
    "own image": Parser(
        group="data", file="mine.png", content=png,
        read=lambda path: (read_header(Picture(name=path)), read_pixels(Picture(name=path), (8, 8), 3)),
        more=lambda: [of_png],
    ),
    "tar": Parser(
        group="archives", file="a.tar.gz", content=tar, read=open_archive,
        more=lambda: [
            lambda draw: damaged(tar("w"), draw), lambda draw: gzip.compress(damaged(tar("w"), draw), mtime=0)
        ],
    ),
    "zip": Parser(group="archives", file="a.zip", content=packed, read=open_archive),
}  # fmt: skip
