"""Undamaged files of data sets and archives, what reads them, and damage that only they can have."""

import io
import json
import random
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import wavfile

from attnprobe.files import checksum
from attnprobe.tasks import bidmc, images, speech
from attnprobe.tasks.sources import generated
from attnprobe.tasks.sources.archives import unpack
from tests.fuzz.mutation import damaged
from tests.tasks.true_formats import LENGTH, PER_BATCH

images.PER_BATCH = PER_BATCH  # small files, for this process alone
bidmc.LENGTH = speech.LENGTH = LENGTH


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


def own_arrays() -> bytes:
    file = io.BytesIO()
    labels = np.array(["a", "b"] * 9)
    np.savez(file, inputs=np.arange(90).reshape(18, 5), labels=labels, lengths=np.full(18, 3), grid=np.array([1, 5]))
    return file.getvalue()


def of_own_arrays(draw: random.Random) -> bytes:
    """One array damaged, all checksums right."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(own_arrays())) as old, zipfile.ZipFile(target, "w") as new:
        chosen = draw.choice(old.namelist())
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, damaged(content, draw) if name == chosen else content)
    return target.getvalue()


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
