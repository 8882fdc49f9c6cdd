"""Which runs lie below a folder: what they are, how far they came, what they reached. Light: no tensor is touched.

A run is never an error here: of one whose files cannot be read the row says so.
"""

import dataclasses
import os
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from attnprobe.config import Table, read_toml
from attnprobe.errors import ArtifactError
from attnprobe.files import reading
from attnprobe.files.ownership import MARKER, has_writer
from attnprobe.training.saved.replacing import is_run
from attnprobe.training.saved.run_directory import RunDirectory

if TYPE_CHECKING:
    import pandas

State = Literal["finished", "interrupted", "running", "damaged"]
RECORDS = ("manifest.json", "result.json", "resume.pt", "metrics.jsonl")  # one of them beside run.toml makes a run
REACHED = ("train_accuracy", "validation_accuracy", "test_accuracy", "test_loss", "seconds")
NOT_RUNS = ("checkpoints", "replaced-*")  # of a run: its own folders, and earlier runs that are kept for a while


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListedRun:
    """One run, as far as its files tell; None is what they do not."""

    folder: str
    state: State
    note: str = ""  # what is wrong with a damaged one
    task: str | None = None
    model: str | None = None  # mixer, layers and width
    arm: str | None = None  # its phases, and what they carry over or freeze
    seed: int | None = None
    started: str | None = None  # ISO time
    seconds: float | None = None
    train_accuracy: float | None = None
    validation_accuracy: float | None = None
    test_accuracy: float | None = None
    test_loss: float | None = None


def runs(folder: str | Path = "runs") -> "pandas.DataFrame":
    """The runs below a folder, one per row, as ``attnprobe runs`` lists them: folder, state, note, task, model, arm,
    seed, started, seconds, accuracies, test_loss. Damaged ones are rows; ArtifactError if it cannot be opened.
    """
    import pandas

    found = list_runs(Path(folder), warn=lambda text: warnings.warn(text, stacklevel=2))
    columns = [field.name for field in dataclasses.fields(ListedRun)]
    return pandas.DataFrame([dataclasses.asdict(run) for run in found], columns=columns)


def list_runs(folder: Path, *, warn: Callable[[str], None] = lambda text: None) -> list[ListedRun]:
    """All runs in ``folder`` and below, in the order of their paths, numbers in these by size.

    Links to folders are not followed. warn: hears of folders that cannot be opened. ArtifactError if ``folder`` itself
    cannot be.
    """
    with reading(folder, hint="give the folder in which runs lie"):
        os.scandir(folder).close()
    return [listed(found) for found in run_folders(folder, warn)]


def run_folders(folder: Path, warn: Callable[[str], None] = lambda text: None) -> Iterator[Path]:
    """The run directories in ``folder`` and below."""
    try:
        with os.scandir(folder) as entries:
            names = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
    except OSError as error:
        warn(f"{folder} cannot be opened: {error.strerror}")
        return
    own = MARKER in names or "run.toml" in names
    own = own and (is_run(folder) or ("run.toml" in names and not names.keys().isdisjoint(RECORDS)))
    if own:
        yield folder
    for name in sorted((name for name, is_folder in names.items() if is_folder), key=natural):
        if not (own and any(Path(name).match(pattern) for pattern in NOT_RUNS)):
            yield from run_folders(folder / name, warn)


def natural(text: str) -> list[tuple[int, str]]:
    """Sorts s2 before s10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]{1,18})", text)]


def listed(folder: Path) -> ListedRun:
    directory = RunDirectory(folder)
    try:
        found = _described(read_toml(directory.settings)) | _reached(directory)
        started = directory.read_manifest().get("started")
    except ArtifactError as error:
        if has_writer(folder):  # it has only begun
            return ListedRun(folder=str(folder), state="running")
        return ListedRun(folder=str(folder), state="damaged", note=str(error))
    state: State = "finished" if "seconds" in found else "running" if has_writer(folder) else "interrupted"
    return ListedRun(folder=str(folder), state=state, started=started if isinstance(started, str) else None, **found)


def _described(table: Table) -> dict[str, Any]:
    """What run.toml says the run is; of settings of other versions what can be made out."""
    model, seed = section(table, "model"), table.get("seed")
    sizes = "x".join(str(model[size]) for size in ("layers", "d_model") if isinstance(model.get(size), int))
    mixer = "backbone" if section(model, "backbone") else named(model, "mixer")
    return {
        "task": named(table, "task"),
        "model": " ".join(filter(None, [mixer, sizes])) or None,
        "arm": arm_of(table),
        "seed": seed if type(seed) is int else None,
    }


def _reached(directory: RunDirectory) -> dict[str, Any]:
    """The numbers of a finished run; ArtifactError if they, or the checkpoint they are those of, cannot be had."""
    result = directory.read_result()
    if result is None:
        return {}
    checkpoint = directory.checkpoint(result["phase"])
    if not checkpoint.exists():
        raise ArtifactError(f"{checkpoint} is missing", hint="put it back, or start the run again: --overwrite")
    return {name: result[name] for name in REACHED}


def arm_of(table: Table) -> str:
    """What a run does with its phases, in words; of carrying over and freezing what is not the default."""
    finetune = section(table, "finetune")
    if "pretrain" in table and "finetune" in table:
        words = ["self-pretrained"]
    elif "pretrain" in table:
        words = ["pretraining only"]
    else:
        words = ["continued" if table.get("pretrained") else "from scratch"]
    words += ["given profile"] if section(table, "model").get("score_profile") else []
    for setting, default in (("transfer", "all"), ("freeze", "none")):
        value = finetune.get(setting, default)
        if value != default and not (setting == "transfer" and words[0] == "from scratch"):
            words.append(f"{setting} {value if isinstance(value, str) else '+'.join(map(str, value))}")
    return ", ".join(words)


def section(table: Table, name: str) -> Table:
    value = table.get(name)
    return value if isinstance(value, dict) else {}


def named(table: Table, name: str) -> str | None:
    """The name of a choice, which may stand alone or as the ``name`` of a section."""
    value = table.get(name)
    value = value.get("name") if isinstance(value, dict) else value
    return value if isinstance(value, str) else None
