"""Measurements on their way out: tidy CSV rows, arrays with named axes, one JSON document, lines about figures."""

import csv as csv_format
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnprobe.cli.output import print_json, say
from attnprobe.files import write_atomically
from attnprobe.outputs import check_replaceable

if TYPE_CHECKING:
    import numpy as np

Record = dict[str, Any]


def deliver(
    checkpoints: Sequence[Path],
    records: list[Record],
    arrays: "dict[str, dict[str, np.ndarray]]",
    figures: list[Path],
    *,
    csv: Path | None,
    npz: Path | None,
    json: bool,
    quiet: bool,
    extra: Record | None = None,
) -> None:
    """Write the files that were asked for, then the JSON document (with ``extra`` keys) or a line per file.

    Every record gains q_value, its p-value adjusted across layers and heads (Benjamini-Hochberg).
    """
    from attnprobe.probes.statistics import with_q_values

    records = with_q_values(records)
    if csv is not None:
        write_csv(csv, records)
    if npz is not None:
        write_arrays(npz, arrays)
    if json:
        paths = {"checkpoints": list(map(str, checkpoints)), "figures": list(map(str, figures))}
        print_json(paths | (extra or {}) | {"rows": records})
        return
    for kind, path in (("rows", csv), ("arrays", npz), *(("figure", path) for path in figures)):
        if path is not None:
            say(f"{kind}: {path}", quiet=quiet)


def write_csv(path: Path, records: list[Record]) -> None:
    """One line per record; a number that is not known is an empty field."""
    columns = list(dict.fromkeys(key for record in records for key in record))
    text = io.StringIO()
    writer = csv_format.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    check_replaceable(path, "rows")
    write_atomically(path, lambda file: file.write(text.getvalue().encode()))


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
