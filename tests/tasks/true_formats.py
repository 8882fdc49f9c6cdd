"""Writers of small data sets in the formats of the published ones, and the sizes that readers then expect."""

import csv
import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile

from attnprobe.tasks import bidmc, fashion_mnist, images, speech, text
from attnprobe.tasks.sources import copies

PER_BATCH, N_VALIDATION = 23, 15  # CIFAR
FASHION_TRAIN, FASHION_VALIDATION, FASHION_TEST = 70, 20, 30
PER_CLASS = 10  # IMDb
LENGTH = 37  # Speech Commands and BIDMC
WORDS = ("bed", "cat", "zero")

# Settings with which every task gives a few short sequences; those with padding have padded ones among them.
FEW: dict[str, dict[str, Any]] = {
    "textures": {"side": 5, "n_train": 12, "n_validation": 8, "n_test": 8},
    "listops": {"min_length": 3, "max_length": 31, "max_depth": 4, "n_train": 12, "n_validation": 8, "n_test": 8},
    "pathfinder": {"contour_length": 6, "downsample": 4, "n_train": 12, "n_validation": 8, "n_test": 8},
    "fashion-mnist": {"side": 7, "n_train": 12, "n_validation": 8, "n_test": 8},
    "image": {"side": 8, "n_train": 12, "n_validation": 8, "n_test": 8},
    "scifar": {"side": 8, "n_train": 12, "n_validation": 8, "n_test": 8},
    "text": {"max_length": 47, "n_train": 12, "n_validation": 2, "n_test": 8},
    "retrieval": {"max_length": 101, "n_train": 6, "n_validation": 2, "n_test": 3},
    "speech-commands": {"downsample": 2, "n_train": 12, "n_validation": 3, "n_test": 3},
    "bidmc": {"downsample": 2, "n_train": 12, "n_validation": 3, "n_test": 3},
    "arrays": {"path": "values.npz", "n_train": 12, "n_validation": 3, "n_test": 5},
    "table": {"path": "texts.csv", "n_train": 12, "n_validation": 3, "n_test": 5},
    "images": {"path": "photos", "n_train": 12, "n_validation": 3, "n_test": 5},
}


def shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the readers expect the small sizes of this module."""
    monkeypatch.setattr(images, "PER_BATCH", PER_BATCH)
    monkeypatch.setattr(images, "N_VALIDATION", N_VALIDATION)
    monkeypatch.setattr(text, "PER_CLASS", PER_CLASS)
    monkeypatch.setattr(speech, "LENGTH", LENGTH)
    monkeypatch.setattr(speech, "WORDS", WORDS)
    monkeypatch.setattr(bidmc, "LENGTH", LENGTH)
    monkeypatch.setattr(fashion_mnist, "N_TRAIN", FASHION_TRAIN)
    monkeypatch.setattr(fashion_mnist, "N_VALIDATION", FASHION_VALIDATION)
    monkeypatch.setattr(fashion_mnist, "N_TEST", FASHION_TEST)


def in_published_formats(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with a small copy of everything that tasks read, and nothing to be found elsewhere."""
    monkeypatch.setenv("ATTNPROBE_DATA", str(folder / "cache"))
    monkeypatch.setattr(copies, "SYSTEM_FOLDER", folder / "system")
    shrink(monkeypatch)
    data = folder / "data"
    write_fashion(data / "fashion-mnist")
    write_cifar_binary(data / "cifar-10")
    write_imdb(data / "imdb")
    write_aan(data / "aan")
    write_speech(data / "speech-commands")
    for target in ("HR", "RR", "SpO2"):
        write_bidmc(data / "bidmc", target)
    write_arrays(data)
    write_table(data / "texts.csv")
    write_images(data / "photos")
    return data


def idx_bytes(array: np.ndarray, magic: int | None = None) -> bytes:
    magic = 0x0800 + array.ndim if magic is None else magic
    return struct.pack(f">{1 + array.ndim}I", magic, *array.shape) + array.astype(np.uint8).tobytes()


def write_fashion(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for stem, n in (("train", FASHION_TRAIN), ("t10k", FASHION_TEST)):
        pixels = generator.integers(0, 256, (n, 28, 28))
        (folder / f"{stem}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(pixels)))
        (folder / f"{stem}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(np.arange(n) % 10)))


def cifar_batches(n: int = PER_BATCH) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name -> planar images (n, 3072) and labels (n,)."""
    generator = np.random.default_rng(5)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    return {
        name: (generator.integers(0, 256, (n, 3072), np.uint8), generator.permutation(np.arange(n) % 10))
        for name in names
    }


def write_cifar_binary(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, (pixels, labels) in cifar_batches().items():
        rows = np.concatenate([labels[:, None].astype(np.uint8), pixels], axis=1)
        (folder / f"{name}.bin").write_bytes(rows.tobytes())


def write_cifar_python(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, (pixels, labels) in cifar_batches().items():
        (folder / name).write_bytes(python2_pickle(pixels, labels.tolist()))


def python2_pickle(pixels: np.ndarray, labels: list[int]) -> bytes:
    """What Python 2's cPickle wrote with protocol 2 for a dict of byte strings, a list and an array."""

    def short(content: bytes) -> bytes:  # SHORT_BINSTRING
        return b"U" + bytes([len(content)]) + content

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + number(0) + b"\x85" + short(b"b") + b"\x87R"
    dtype = b"cnumpy\ndtype\nq\x07" + short(b"u1") + number(0) + number(1) + b"\x87R"
    dtype += b"(" + number(3) + short(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    content = b"T" + struct.pack("<i", pixels.size) + pixels.tobytes()  # BINSTRING
    shape = number(pixels.shape[0]) + number(pixels.shape[1]) + b"\x86"
    array += b"(" + number(1) + shape + dtype + b"\x89" + content + b"tb"
    items = short(b"batch_label") + short(b"training batch 1 of 5")
    items += short(b"labels") + b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    items += short(b"data") + array
    items += short(b"filenames") + b"](" + b"".join(short(f"{i}.png".encode()) for i in range(len(labels))) + b"e"
    return b"\x80\x02}q\x01(" + items + b"u."


def review(split: str, label: str, i: int) -> str:
    return f"{split} {label} {i}: a film<br />" + "xyz"[i % 3] * (5 * i)


def write_imdb(folder: Path) -> None:
    for split in ("train", "test"):
        for label in ("pos", "neg"):
            (folder / split / label).mkdir(parents=True)
            for i in range(PER_CLASS):
                (folder / split / label / f"{i}_7.txt").write_text(review(split, label, i), encoding="utf-8")


def write_aan(folder: Path, sizes: tuple[int, int, int] = (7, 3, 5)) -> None:
    folder.mkdir(parents=True)
    ends = np.cumsum(sizes)
    for split, start, stop in zip(("train", "eval", "test"), ends - sizes, ends, strict=True):
        rows = [f"{i % 2}.0\tP{i}\tQ{i}\tfirst {i}é\t{'second' * (i + 1)}\n" for i in range(start, stop)]
        (folder / f"new_aan_pairs.{split}.tsv").write_text("".join(rows), encoding="utf-8")


def write_speech(folder: Path, per_word: int = 6) -> None:
    """Clips 1 and 4 of every word validate and test; clip 2 is shorter than the others."""
    generator = np.random.default_rng(7)
    for word in WORDS:
        (folder / word).mkdir(parents=True)
        for i in range(per_word):
            n = LENGTH - 5 if i == 2 else LENGTH
            samples = generator.integers(-20_000, 20_000, n).astype(np.int16)
            wavfile.write(folder / word / f"{i}_nohash_0.wav", 16_000, samples)
    (folder / "_background_noise_").mkdir()
    wavfile.write(folder / "_background_noise_" / "pink.wav", 16_000, np.zeros(99, np.int16))
    for name, i in (("validation_list.txt", 1), ("testing_list.txt", 4)):
        (folder / name).write_text("".join(f"{word}/{i}_nohash_0.wav\n" for word in WORDS))


def write_bidmc(folder: Path, target: str = "HR", n: tuple[int, int] = (14, 6)) -> tuple[np.ndarray, np.ndarray]:
    """Returns the signals (20, length, 2) and labels (20,) of both files, in their order."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(11)
    signals = generator.normal(size=(sum(n), LENGTH, 2)).astype(np.float32)
    labels = generator.uniform(50, 120, sum(n)).round(3)
    header = f"# a comment\n@problemName BIDMC32{target}\n@timeStamps false\n@univariate false\n@dimensions 2\n"
    header += f"@equalLength true\n@seriesLength {LENGTH}\n@targetlabel true\n@data\n"
    lines = [
        ":".join(",".join(str(float(value)) for value in signal[:, c]) for c in range(2)) + f":{label}\n"
        for signal, label in zip(signals, labels, strict=True)
    ]
    for part, chosen in (("TRAIN", lines[: n[0]]), ("TEST", lines[n[0] :])):
        (folder / f"BIDMC32{target}_{part}.ts").write_text(header + "".join(chosen))
    return signals, labels


def write_arrays(folder: Path, n: int = 37) -> None:
    """Values of 3 channels on a grid of 5 x 7, and tokens of up to 53 positions; both padded."""
    generator = np.random.default_rng(13)
    labels = np.array(["low", "high", "mid"])[generator.permutation(np.arange(n) % 3)]
    values = generator.normal(2.0, 3.0, (n, 35, 3)).astype(np.float32)
    lengths = generator.integers(29, 36, n)
    np.savez(folder / "values.npz", inputs=values, labels=labels, lengths=lengths, grid=np.array([5, 7]))
    tokens, lengths = generator.integers(0, 11, (n, 53)), generator.integers(17, 54, n)
    np.savez_compressed(folder / "tokens.npz", inputs=tokens, labels=np.arange(n) % 2, lengths=lengths)


def write_table(path: Path, n: int = 37) -> None:
    """Every text is another one; those of label "b" are longer."""
    rows = [(f"text {i}, \u00e9t\u00e9: " + "xyz"[i % 3] * (i // 2), "ab"[i % 2]) for i in range(n)]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *rows])


def write_images(folder: Path, n: int = 37, side: tuple[int, int] = (5, 7)) -> None:
    generator = np.random.default_rng(17)
    for i in range(n):
        (folder / "xyz"[i % 3]).mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (*side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "xyz"[i % 3] / f"{i}.png")
