"""Reading columns of tables: CSV, TSV, Parquet, Arrow, and folders that the library ``datasets`` saved.

Nothing is loaded by that library, whose data sets may bring code along: their files are Arrow or Parquet.
"""

import csv
import dataclasses
import difflib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from attnprobe.errors import ArtifactError, shown
from attnprobe.files import parse_json, read_json, reading
from attnprobe.tasks.own.source import require_file, require_memory
from attnprobe.tasks.own.splits import PART_OF
from attnprobe.tasks.sources.copies import CSV_FIELD_LIMIT

SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
FORMATS = (*SEPARATORS, ".parquet", ".arrow")
ROWS = 1000  # that are read together
GROWTH = 8  # bytes of Python objects for one that is stored, about
SHOWN = 20  # names in a message
EXTRA = "pip install 'attnprobe[data]', or save the table as CSV"
ROW_HINT = "mend the row; texts that hold separators or line breaks stand in double quotes"
ENCODING_HINT = "tables of texts are read as UTF-8: save it with that encoding"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Columns:
    """Some columns of a table."""

    values: dict[str, list[Any]]  # by name, one entry per row
    parts: list[str] | None  # of every row the part that its file's place or name says; None where nothing does
    class_names: tuple[str, ...] = ()  # of the labels, if the file gives them
    passed_by: tuple[str, ...] = ()  # parts of a folder that are neither for training nor validation nor test


Choose = Callable[[Sequence[str]], Sequence[str]]  # all names of columns -> those to read, the labels' last


def read_columns(path: Path, choose: Choose, *, separator: str | None, quotes: bool) -> Columns:
    """The chosen columns of all rows. separator, quotes: of CSV and TSV; None = as the file's ending says."""
    if path.is_dir():
        files = saved_files(path)
        known = [(part, file) for part, file in files if part is None or part.lower() in PART_OF]
        others = dict.fromkeys(part for part, _ in files if part is not None and part.lower() not in PART_OF)
        table = join(path, [(part, read_arrow(file, choose)) for part, file in known])
        return dataclasses.replace(table, passed_by=tuple(others))
    require_file(path)
    ending = path.suffix.lower()
    if ending not in FORMATS:
        raise ArtifactError(f"{path} is no table that can be read", hint=f"the endings known are {', '.join(FORMATS)}")
    if ending in SEPARATORS:
        return read_csv(path, choose, separator or SEPARATORS[ending], quotes=quotes)
    return read_arrow(path, choose)


def read_csv(path: Path, choose: Choose, separator: str, *, quotes: bool) -> Columns:
    """Everything is read as text: neither are numbers rounded nor is "NA" taken for nothing.

    Rows must be as long as the heading: where they are not, separators within texts would shift columns silently.
    """
    require_memory(path, GROWTH * path.stat().st_size)
    csv.field_size_limit(CSV_FIELD_LIMIT)
    quoting = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
    with reading(path, ENCODING_HINT), path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=separator, quoting=quoting, strict=True)  # strict: quotes must close
        try:
            heading = next((row for row in reader if row), [])
            wanted = list(choose(heading))
            columns = {name: heading.index(name) for name in wanted}
            values: dict[str, list[Any]] = {name: [] for name in wanted}
            for row in filter(None, reader):
                if len(row) != len(heading):
                    message = f"{path}, line {reader.line_num} has {len(row)} columns, the heading {len(heading)}"
                    raise ArtifactError(message, hint=ROW_HINT)
                for name, number in columns.items():
                    values[name].append(row[number])
        except csv.Error as error:
            raise ArtifactError(f"{path}, line {reader.line_num} cannot be read: {error}", hint=ROW_HINT) from None
    if not values[wanted[-1]]:
        raise ArtifactError(f"{path} has a heading and no rows", hint="was it written completely?")
    return Columns(values=values, parts=None)


def read_arrow(path: Path, choose: Choose) -> Columns:
    """A Parquet file, or an Arrow file as ``datasets`` and others write it."""
    require_file(path)
    with reading(path):
        schema, batches = open_parquet(path) if path.suffix.lower() == ".parquet" else open_arrow(path)
        wanted = list(choose(schema.names))
        values: dict[str, list[Any]] = {name: [] for name in wanted}
        for batch in batches(wanted):
            require_memory(path, GROWTH * batch.nbytes)  # a small file may repeat large texts without end
            for name in wanted:
                values[name] += batch.column(name).to_pylist()
        names = class_names(schema.metadata, wanted[-1])
    if not values[wanted[-1]]:
        raise ArtifactError(f"{path} has no rows", hint="was it written completely?")
    return Columns(values=values, parts=None, class_names=names)


def open_parquet(path: Path) -> tuple[Any, Callable[[list[str]], Iterable[Any]]]:
    """The schema, and what yields batches of the columns of some names."""
    file = pyarrow_library().parquet.ParquetFile(path)
    return file.schema_arrow, lambda names: file.iter_batches(batch_size=ROWS, columns=names)


def open_arrow(path: Path) -> tuple[Any, Callable[[list[str]], Iterable[Any]]]:
    """The stream format, which ``datasets`` writes, or the file format."""
    pa = pyarrow_library()
    with path.open("rb") as file:
        is_file = file.read(6) == b"ARROW1"
    source = pa.memory_map(str(path))
    if not is_file:
        stream = pa.ipc.open_stream(source)
        return stream.schema, lambda names: (checked(batch).select(names) for batch in stream)
    table = pa.ipc.open_file(source)
    numbers = range(table.num_record_batches)
    return table.schema, lambda names: (checked(table.get_batch(i)).select(names) for i in numbers)


def checked(batch: Any) -> Any:
    """Offsets that lead out of the file would otherwise crash the process."""
    batch.validate(full=True)
    return batch


def pyarrow_library() -> Any:
    try:
        import pyarrow.ipc  # pyright: ignore[reportMissingImports]
        import pyarrow.parquet  # pyright: ignore[reportMissingImports]
    except ImportError:
        message = "the package pyarrow is missing, which reads Parquet and Arrow files"
        raise ArtifactError(message, hint=EXTRA) from None
    return pyarrow


def class_names(metadata: Any, label: str) -> tuple[str, ...]:
    """Of a column of labels that ``datasets`` wrote: the names of its classes, if it has any."""
    text = (metadata or {}).get(b"huggingface")
    if text is None:
        return ()
    features = parse_json(text.decode("utf-8")).get("info", {}).get("features", {})
    feature = features.get(label) if isinstance(features, dict) else None
    names = feature.get("names") if isinstance(feature, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return ()
    return tuple(names)


def saved_files(folder: Path) -> list[tuple[str | None, Path]]:
    """The files of a data set's folder, each with the part its place or name says.

    Folders by ``save_to_disk`` of a DatasetDict (a folder for each part) or of a Dataset, and folders of Parquet files
    whose names begin with their part: train-00000-of-00001.parquet.
    """
    with reading(folder):
        if (folder / "dataset_dict.json").is_file():
            parts = read_json(folder / "dataset_dict.json")["splits"]
            return [(str(part), file) for part in parts for file in data_files(folder / plain(folder, part))]
        if (folder / "state.json").is_file():
            return [(None, file) for file in data_files(folder)]
        found = sorted(p for place in (folder, folder / "data") if place.is_dir() for p in place.glob("*.parquet"))
    if not found:
        hint = "expected a folder by datasets.save_to_disk, or Parquet files; for image files: attnprobe train images"
        raise ArtifactError(f"{folder} holds no data set", hint=hint)
    parts = [file.name.partition("-")[0].partition(".")[0] for file in found]
    known = any(part.lower() in PART_OF for part in parts)
    return [(part if known else None, file) for part, file in zip(parts, found, strict=True)]


def holds_data_set(path: Path) -> bool:
    """Whether a path is a table, or a folder of one."""
    if not path.is_dir():
        return path.suffix.lower() in FORMATS
    places = [place for place in (path, path / "data") if place.is_dir()]
    known = any((path / name).is_file() for name in ("dataset_dict.json", "state.json"))
    return known or any(next(place.glob("*.parquet"), None) is not None for place in places)


def data_files(folder: Path) -> list[Path]:
    names = [entry["filename"] for entry in read_json(folder / "state.json")["_data_files"]]
    return [folder / plain(folder, name) for name in names]


def plain(folder: Path, name: object) -> str:
    """``name`` if it stays in the folder."""
    if not isinstance(name, str) or Path(name).name != name or name in ("", ".", ".."):
        message = f"{folder} names a file outside itself: {shown(name)}"
        raise ArtifactError(message, hint="save the data set again: save_to_disk")
    return name


def join(path: Path, pieces: Sequence[tuple[str | None, Columns]]) -> Columns:
    """The rows of several files one after the other."""
    if not pieces:
        raise ArtifactError(f"{path} holds no part to train on", hint="save the data set with a part called train")
    first = pieces[0][1]
    if any(columns.class_names != first.class_names for _, columns in pieces):
        raise ArtifactError(f"{path}: its files name other classes", hint="save the parts with the same features")
    values = {name: [v for _, columns in pieces for v in columns.values[name]] for name in first.values}
    parts = [part for part, columns in pieces for _ in next(iter(columns.values.values())) if part is not None]
    return dataclasses.replace(first, values=values, parts=parts or None)


def setting(name: str) -> str:
    """How a setting of a task is chosen."""
    return f"-s task.{name}=NAME"


def choice(path: Path, names: Sequence[str], wanted: str, option: str) -> str:
    """``wanted``, or ArtifactError if there is no such column. option: what a person chooses it by."""
    if wanted not in names:
        there = ", ".join(map(shown, names[:SHOWN]))
        near = difflib.get_close_matches(wanted, names, n=1)
        hint = (f"did you mean {shown(near[0])}? " if near else "") + f"choose it by {option}"
        raise ArtifactError(f"{path} has no column {shown(wanted)}; it has {there}", hint=hint)
    return wanted
