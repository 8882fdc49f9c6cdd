"""Every parser of attnprobe with an undamaged file of its format, in groups; ``read`` is given the damaged one."""

import dataclasses
import functools
import gzip
import io
import json
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
import torch
from PIL import Image
from scipy.io import wavfile

from attnprobe import presets, run
from attnprobe.config import override, read_toml
from attnprobe.files import check_plain, checksum, ownership, reading
from attnprobe.launch import trajectory
from attnprobe.models import make_model
from attnprobe.models.initialisation import state_on_cpu
from attnprobe.report.training_figures import read_curve
from attnprobe.tasks import bidmc, fashion_mnist, images, retrieval, speech, text
from attnprobe.tasks.listops import published as listops
from attnprobe.tasks.pathfinder import published as pathfinder
from attnprobe.tasks.sources import generated
from attnprobe.tasks.sources.archives import unpack
from attnprobe.training.loop import Trainer
from attnprobe.training.saved.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from attnprobe.training.saved.resuming import RESUME_FORMAT, RESUME_VERSION, read_resume
from attnprobe.training.saved.run_directory import RunDirectory
from tests.fuzz.mutation import changed, damaged, pickle_damaged, saved
from tests.tasks.true_formats import LENGTH, PER_BATCH, idx_bytes, python2_pickle
from tests.training.conftest import SMALL

images.PER_BATCH = PER_BATCH  # small files, for this process alone
bidmc.LENGTH = speech.LENGTH = LENGTH

Mutate = Callable[[random.Random], bytes]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parser:
    group: str
    file: str  # its name says to some readers what it holds
    content: Callable[[], bytes]
    read: Callable[[Path], Any]
    more: Callable[[], list[Mutate]] = list  # kinds of damage beside the bytes


def settings() -> run.RunConfig:
    return run.from_table(override(presets.read_table("textures"), SMALL))


@functools.cache
def data():
    return settings().task.load()


def trainer() -> Trainer:
    config = settings()
    assert config.finetune is not None
    model = make_model(config.model, data().spec, "values", seed=0)
    return Trainer(model, data(), "finetuned", config.finetune, config.engine, seed=0)


@functools.cache
def checkpoint() -> dict[str, Any]:
    config = settings()
    model = make_model(config.model, data().spec, "values", seed=0)
    path = Path("sound.pt")
    save_checkpoint(
        path,
        Checkpoint(
            run=config, phase="finetuned", task=config.task, spec=data().spec, target="values", epoch=1,
            numbers={"validation_loss": 1.0}, state=state_on_cpu(model), pretrain=config.pretrain,
        ),
    )  # fmt: skip
    return torch.load(path, weights_only=True)


@functools.cache
def resume() -> dict[str, Any]:
    training = trainer()
    batches = training.batches(0)
    training.progress.sums = torch.zeros(3)
    for position in range(2):
        training.progress.sums += training.update(batches[position], 0)
        training.progress.step += 1
    return {
        "format": RESUME_FORMAT, "format_version": RESUME_VERSION, "phase": "finetuned", "finished": ["pretrained"],
        "trainer": training.state_dict(), "sizes": {"metrics.jsonl": 9}, "seconds": 1.5,
    }  # fmt: skip


def go_on(path: Path) -> None:
    """Load, and make a step: what does not fit the optimizer crashes there."""
    document = read_resume(path, ["pretrained", "finetuned"])
    training = trainer()
    with reading(path):
        training.load_state_dict(document["trainer"])
    if training.progress.step < training.steps:
        training.update(training.batches(0)[0], 0)


def of_torch(document: Callable[[], dict[str, Any]]) -> Callable[[], list[Mutate]]:
    return lambda: [
        lambda draw: saved(changed(document(), draw)),
        lambda draw: pickle_damaged(saved(document()), draw),
    ]


def of_json(content: Callable[[], bytes], *, lines: bool) -> Callable[[], list[Mutate]]:
    def mutate(draw: random.Random) -> bytes:
        documents = [json.loads(line) for line in content().splitlines()] if lines else [json.loads(content())]
        place = draw.randrange(len(documents))
        documents[place] = changed(documents[place], draw)
        try:
            check_plain(documents)  # what is entangled could not even be written
            return "\n".join(map(json.dumps, documents)).encode()
        except (ValueError, TypeError):
            return damaged(content(), draw)

    return lambda: [mutate]


def toml() -> bytes:
    return tomli_w.dumps(run.to_table(settings())).encode()


def of_toml(draw: random.Random) -> bytes:
    table = changed(run.to_table(settings()), draw)
    try:
        check_plain(table)
        return tomli_w.dumps(table).encode()
    except (ValueError, TypeError, RecursionError, AttributeError):
        return damaged(toml(), draw)


def assignment(path: Path) -> None:
    run.from_table(override(presets.read_table("textures"), path.read_text(errors="replace").split("\0")))


def kept(path: Path) -> None:
    sound = array(np.arange(99, dtype=np.int16))
    (path.parent / "sound.npy").write_bytes(sound)
    sums = json.dumps({path.name: checksum(path.parent / "sound.npy")})
    (path.parent / generated.CHECKSUMS).write_text(sums)
    if path.read_bytes() != sound:
        generated.read_kept(path.parent, path.stem)


def array(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.arange(1024, dtype=np.uint16).reshape(32, 32).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def of_png(draw: random.Random) -> bytes:
    """A header with other sizes and a right checksum."""
    import zlib

    content = bytearray(png())
    content[16:26] = struct.pack(">IIBB", *draw.choices([0, 1, 32, 33, 10**5, 2**31 - 1], k=2), 8, draw.randrange(7))
    content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    return bytes(content)


def wav() -> bytes:
    file = io.BytesIO()
    wavfile.write(file, 16_000, np.arange(37, dtype=np.int16))
    return file.getvalue()


def tar(kind: str = "w:gz") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=kind) as archive:  # pyright: ignore[reportCallIssue, reportArgumentType]
        for name in ("a/b.txt", "a/c.txt", "d"):
            member = tarfile.TarInfo(name)
            member.size = 700
            archive.addfile(member, io.BytesIO(b"x" * 700))
    return file.getvalue()


def packed() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("a/b.txt", "a/c.txt", "d"):
            archive.writestr(name, b"x" * 700)
    return file.getvalue()


def open_archive(path: Path) -> None:
    import shutil

    shutil.rmtree(path.parent / "unpacked", ignore_errors=True)
    unpack(path, path.parent / "unpacked", limit=10**6)


def ts() -> bytes:
    header = "@problemName BIDMC32HR\n@timeStamps false\n@univariate false\n@dimensions 2\n@equalLength true\n"
    line = ":".join([",".join(["0.5"] * bidmc.LENGTH)] * 2) + ":71.5\n"
    return f"{header}@seriesLength {bidmc.LENGTH}\n@targetlabel true\n@data\n{line * 2}".encode()


RESULT = json.dumps(
    {"run_dir": "r", "checkpoints": {"init": "i"}, "phase": "finetuned", "objective": "classification", "seed": 0,
     "seconds": 1.0, "train_accuracy": 0.5, "validation_accuracy": 0.5, "test_accuracy": 0.5, "test_loss": 1.0}
).encode()  # fmt: skip
METRICS = b'{"phase": "finetuned", "epoch": 1, "train_accuracy": 0.5}\n{"phase": "finetuned", "train_accuracy": 1}\n'
ROW = {"run": "r", "phase": "finetuned", "step": 1, "layer": 0, "head": 1, "quantity": "q", "direction": None}
TRAJECTORY = ((json.dumps(ROW | {"estimate": 0.5, "p_value": None}) + "\n") * 3).encode()

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
    "tar": Parser(
        group="archives", file="a.tar.gz", content=tar, read=open_archive,
        more=lambda: [
            lambda draw: damaged(tar("w"), draw), lambda draw: gzip.compress(damaged(tar("w"), draw), mtime=0)
        ],
    ),
    "zip": Parser(group="archives", file="a.zip", content=packed, read=open_archive),
}  # fmt: skip
