"""Reading arrays that strangers wrote: sizes are compared before anything is allocated, and pickles stay closed."""

import difflib
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from attnprobe.errors import ArtifactError, shown
from attnprobe.files import reading
from attnprobe.tasks.own.source import require_file, require_memory

KINDS = "biufUS"  # of numpy: truth values, numbers, texts
SHOWN = 20  # names in a message
PICKLED = "arrays of Python objects are never opened; save numbers or texts: np.savez(file, inputs=inputs.astype(...))"


def read_arrays(path: Path, needed: Sequence[str], optional: Sequence[str]) -> dict[str, np.ndarray]:
    """Arrays of an .npz or .safetensors file by name: all that are needed, and the optional ones that are there."""
    require_file(path)
    readers = {".npz": read_npz, ".safetensors": read_safetensors}
    if path.suffix.lower() not in readers:
        raise ArtifactError(
            f"{path} is no .npz or .safetensors file", hint="write one: np.savez(file, inputs=, labels=)"
        )
    return readers[path.suffix.lower()](path, needed, optional)


def read_npz(path: Path, needed: Sequence[str], optional: Sequence[str]) -> dict[str, np.ndarray]:
    with reading(path), zipfile.ZipFile(path) as archive:
        entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
        names = chosen(path, list(entries), needed, optional)
        sizes = []
        for name in names:
            with archive.open(entries[name]) as member:
                sizes.append(declared_bytes(path, name, member, entries[name].file_size))
        require_memory(path, 3 * sum(sizes))  # as stored, as ids or float32, and one more while it is divided
        arrays = {}
        for name in names:
            with archive.open(entries[name]) as member:
                arrays[name] = np.lib.format.read_array(member, allow_pickle=False)
                if member.read(1):  # reaches the end, where the checksum is compared
                    raise ArtifactError(f"{path}: {name!r} is longer than it declares", hint="write the file again")
    return arrays


def declared_bytes(path: Path, name: str, member: IO[bytes], size: int) -> int:
    """Of one array, by its header, which must fit the ``size`` that the archive declares."""
    version = np.lib.format.read_magic(member)  # pyright: ignore[reportArgumentType]
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(member)  # pyright: ignore[reportArgumentType]
    if dtype.hasobject:
        raise ArtifactError(f"{path}: {name!r} holds pickled Python objects", hint=PICKLED)
    require_kind(path, name, dtype.kind)
    if not all(type(extent) is int and extent >= 0 for extent in shape):
        raise ArtifactError(f"{path}: {name!r} has the impossible shape {shown(shape)}", hint="write the file again")
    wanted = math.prod(shape) * dtype.itemsize
    if member.tell() + wanted != size:
        message = f"{path}: {name!r} declares {wanted:,} bytes, its place holds {size - member.tell():,}"
        raise ArtifactError(message, hint="was the file written and copied completely?")
    return wanted


def read_safetensors(path: Path, needed: Sequence[str], optional: Sequence[str]) -> dict[str, np.ndarray]:
    """The library compares the header with the file before it reads anything."""
    try:
        from safetensors import safe_open  # pyright: ignore[reportMissingImports]
    except ImportError:
        hint = "pip install 'attnprobe[data]', or save the arrays as .npz"
        raise ArtifactError("the package safetensors is missing, which reads such files", hint=hint) from None
    with reading(path), safe_open(str(path), framework="pt") as file:
        names = chosen(path, list(file.keys()), needed, optional)
        require_memory(path, 3 * path.stat().st_size)
        return {name: as_array(file.get_tensor(name)) for name in names}


def as_array(tensor: Any) -> np.ndarray:
    """numpy knows neither bfloat16 nor the types of eight bits."""
    short = tensor.is_floating_point() and tensor.element_size() < 4
    return (tensor.float() if short else tensor).numpy()


def require_kind(path: Path, name: str, kind: str) -> None:
    if kind not in KINDS:
        raise ArtifactError(f"{path}: {name!r} holds neither numbers nor texts", hint="save an array of numbers")


def chosen(path: Path, found: Sequence[str], needed: Sequence[str], optional: Sequence[str]) -> list[str]:
    """The names to read; ArtifactError if a needed one is not there."""
    for name in needed:
        if name not in found:
            there = f"it holds {', '.join(map(shown, found[:SHOWN]))}" if found else "it holds nothing"
            near = difflib.get_close_matches(name, found, n=1)
            choose = "choose arrays by -s task.inputs=NAME and -s task.labels=NAME"
            hint = (f"did you mean {shown(near[0])}? " if near else "") + choose
            raise ArtifactError(f"{path} has no array {shown(name)}; {there}", hint=hint)
    return [*needed, *(name for name in optional if name in found and name not in needed)]
