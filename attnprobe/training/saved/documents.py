"""Reading what torch.save wrote, without torch's own reader: files are input, and nothing in one is believed.

The file is a zip archive of one pickle and one record per tensor storage. Here the pickle may only build tables, lists,
texts, numbers and dense tensors, every size it names is compared with what the file holds before anything is made of
it, and every checksum is verified. torch.load(weights_only=True) opens the same files, but believes the sizes: a wrong
one makes it read beyond the end of its memory.
"""

import io
import math
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attnprobe.errors import ArtifactError, shown
from attnprobe.files import check_plain, reading

MOST_AXES = 8
DAMAGED = "was it copied or downloaded completely?"
FOREIGN = "only files written by attnprobe are opened; pickles that hold code never are"
DTYPES = {
    "FloatStorage": torch.float32, "DoubleStorage": torch.float64, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8,
}  # fmt: skip

# What the pickle of a document needs. Others could hash, call or build what is not plain.
OPCODES = (
    pickle.PROTO, pickle.STOP, pickle.MARK, pickle.EMPTY_DICT, pickle.EMPTY_LIST, pickle.EMPTY_TUPLE, pickle.TUPLE,
    pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.APPEND, pickle.APPENDS, pickle.SETITEM, pickle.SETITEMS,
    pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1,
    pickle.BINFLOAT, pickle.BINUNICODE, pickle.GLOBAL, pickle.REDUCE, pickle.BINPERSID, pickle.BINPUT,
    pickle.LONG_BINPUT, pickle.BINGET, pickle.LONG_BINGET,
)  # fmt: skip


def read_document(path: Path, expected_format: str, newest_version: int) -> dict[str, Any]:
    """The table in a file of the given format; ArtifactError if it is missing, damaged, foreign, or of a newer version.

    All tensors are dense, on the CPU, and own their memory.
    """
    if path.is_dir():
        inside = sorted(path.glob("checkpoints/*.pt"))
        hint = f"try {inside[-1]}" if inside else "give the path of a .pt file"
        raise ArtifactError(f"{path} is a folder, not a checkpoint", hint=hint)
    with reading(path, FOREIGN):
        if path.exists() and not path.is_file():  # opening a pipe would wait for whoever writes into it
            raise ArtifactError(f"{path} is no regular file and was not opened", hint="copy it to a file first")
        if not zipfile.is_zipfile(path):
            with path.open("rb") as file:
                start = file.read(4)
            damaged = not start or start.startswith(b"PK")
            message = f"{path} is damaged or truncated" if damaged else f"{path} is no checkpoint and was not opened"
            raise ArtifactError(message, hint=DAMAGED if damaged else FOREIGN)
    with reading(path, DAMAGED), zipfile.ZipFile(path) as archive:
        records = _records(path, archive)
        try:
            document = _Reader(records.pop("data.pkl"), records).load()
        except pickle.UnpicklingError as error:
            raise ArtifactError(f"{path} is no checkpoint, or holds code, and was not opened", hint=FOREIGN) from error
        if not isinstance(document, dict) or document.get("format") != expected_format:
            raise ArtifactError(f"{path} was not written by attnprobe: it is no {expected_format}", hint=FOREIGN)
        check_plain(document, ignore=(Tensor,))
    version = document.get("format_version")
    if type(version) is not int:
        raise ArtifactError(f"{path} does not say which format version it has", hint=FOREIGN)
    if version > newest_version:
        written_by = shown(document.get("attnprobe_version", "a newer version")).strip("'")
        message = f"{path} has format version {version}, newer than {newest_version}"
        raise ArtifactError(message, hint=f"it was written by attnprobe {written_by}; upgrade attnprobe")
    return document


def _records(path: Path, archive: zipfile.ZipFile) -> dict[str, bytes]:
    """The archive's records by name, without the folder's name; all their checksums hold."""
    entries = archive.infolist()
    if any(e.compress_type != zipfile.ZIP_STORED or e.compress_size != e.file_size for e in entries):
        raise ValueError("it is compressed, which attnprobe never does")
    if sum(e.file_size for e in entries) > path.stat().st_size:
        raise ValueError("its parts are larger than the file")
    try:
        records = {e.filename.partition("/")[2]: archive.read(e) for e in entries}
    except zipfile.BadZipFile as error:
        raise ArtifactError(f"{path} is damaged: some of its bytes have changed", hint=DAMAGED) from error
    if "data.pkl" not in records:
        raise ArtifactError(f"{path} was not written by attnprobe: it holds no document", hint=FOREIGN)
    if records.get("byteorder", sys.byteorder.encode()) != sys.byteorder.encode():
        raise ValueError("it was written on a machine of another byte order")
    return records


class _Reader(pickle._Unpickler):  # the Python one: the C one lets a few bytes ask for gigabytes of memo
    dispatch = {code[0]: pickle._Unpickler.dispatch[code[0]] for code in OPCODES}  # noqa: RUF012 - as its base has it

    def __init__(self, content: bytes, records: dict[str, bytes]) -> None:
        super().__init__(io.BytesIO(content))
        self.records = records
        self.storages: dict[str, Tensor] = {}
        self.unused = sum(map(len, records.values()))  # bytes; what is used twice could be made endless

    def load(self) -> Any:
        try:
            return super().load()
        except KeyError as error:  # an opcode, or a memo, that is not there
            raise pickle.UnpicklingError("it holds what no document needs") from error

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self.tensor
        if (module, name) == ("collections", "OrderedDict"):  # hooks of tensors, of which there are none
            return _no_hooks
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        raise pickle.UnpicklingError(f"it names {shown(module)}.{shown(name)}, which documents do not need")

    def persistent_load(self, pid: Any) -> Tensor:
        """The storage ``("storage", type, record, device, number of elements)`` as a tensor of one axis."""
        kind, dtype, key, _device, count = pid
        content = self.records.get(f"data/{key}") if isinstance(key, str) else None
        if kind != "storage" or not isinstance(dtype, torch.dtype) or content is None:
            raise pickle.UnpicklingError("a tensor without a record")
        if type(count) is not int or count * dtype.itemsize != len(content):
            raise ValueError("a tensor's size is not that of its record")
        if key not in self.storages:
            empty = torch.empty(0, dtype=dtype)
            self.storages[key] = torch.frombuffer(bytearray(content), dtype=dtype) if content else empty
        if self.storages[key].dtype != dtype:
            raise ValueError("a tensor has two types")
        return self.storages[key]

    def tensor(self, storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, *more: Any) -> Tensor:
        """A copy of the part of a storage that shape and strides name, once it is known to lie within."""
        if not isinstance(storage, Tensor) or not isinstance(size, tuple) or len(size) > MOST_AXES or hooks or more:
            raise ValueError("a tensor without a shape")
        if not all(type(c) is int and 0 <= c < 2**63 for c in (offset, *size, *stride)) or len(size) != len(stride):
            raise ValueError("a tensor without a shape")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        self.unused -= math.prod(size) * storage.itemsize
        if self.unused < 0 or (0 not in size and last >= storage.numel()):
            raise ValueError("a tensor is larger than its record")
        return storage.as_strided(size, stride, offset).clone()

    def load_setitem(self) -> None:
        self.check_keys(self.stack[-3:-2], self.stack[-2:-1])  # pyright: ignore[reportAttributeAccessIssue]
        super().load_setitem()  # pyright: ignore[reportAttributeAccessIssue]

    def load_setitems(self) -> None:
        table = self.metastack[-1][-1:]  # pyright: ignore[reportAttributeAccessIssue]
        self.check_keys(table, self.stack[::2])  # pyright: ignore[reportAttributeAccessIssue]
        super().load_setitems()  # pyright: ignore[reportAttributeAccessIssue]

    def check_keys(self, table: list[Any], keys: list[Any]) -> None:
        """Keys are hashed, and hashing tuples that hold each other would take forever."""
        if not table or type(table[0]) is not dict or not all(isinstance(key, str | int) for key in keys):
            raise ValueError("a table has keys that are neither texts nor numbers")

    dispatch[pickle.SETITEM[0]] = load_setitem  # pyright: ignore[reportArgumentType]
    dispatch[pickle.SETITEMS[0]] = load_setitems  # pyright: ignore[reportArgumentType]


def _no_hooks(*arguments: Any) -> dict[str, Any]:
    if arguments:
        raise pickle.UnpicklingError("a tensor with hooks")
    return {}
