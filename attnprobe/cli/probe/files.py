"""Measurements on their way into files: tidy CSV rows, arrays with named axes."""

import csv as csv_format
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnprobe.files import write_atomically
from attnprobe.files.outputs import Kind, check_replaceable

if TYPE_CHECKING:
    import numpy as np

Record = dict[str, Any]


def write_csv(path: Path, records: list[Record], kind: Kind = "rows") -> None:
    """One line per record; a number that is not known is an empty field."""
    columns = list(dict.fromkeys(key for record in records for key in record))
    text = io.StringIO()
    writer = csv_format.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    check_replaceable(path, kind)
    content = text.getvalue().encode("utf-8", "surrogateescape")  # names of files may be bytes that are no text
    write_atomically(path, lambda file: file.write(content))


def write_arrays(path: Path, arrays: "dict[str, dict[str, np.ndarray]]") -> None:
    """An .npz; with several checkpoints each array's name starts with the checkpoint's label and a slash.

    Every checkpoint's entry "axes" is JSON that maps the name of each of its arrays to the names of the array's axes.
    """
    import numpy as np

    several = len(arrays) > 1
    content = {
        f"{label}/{name}" if several else name: array
        for label, found in arrays.items()
        for name, array in found.items()
    }
    check_replaceable(path, "arrays")
    write_atomically(path, lambda file: np.savez_compressed(file, **content))  # pyright: ignore[reportArgumentType]
