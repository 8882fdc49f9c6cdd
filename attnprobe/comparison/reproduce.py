"""A finished run carried out again by its own records, and both side by side."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from attnprobe import run
from attnprobe.comparison.differences import Row, differing, flat, known_to_both, surroundings
from attnprobe.config import read_toml
from attnprobe.errors import ArtifactError, RunError
from attnprobe.machine import choose_device
from attnprobe.run import RunConfig
from attnprobe.tasks import Data, Task
from attnprobe.training.saved.checkpoint import load_checkpoint
from attnprobe.training.saved.run_directory import RunDirectory

TOLERANCE = 1e-3  # of accuracies, and of losses as a share of themselves
OWN = ("seconds", "seed")  # numbers of a result that are none of the model

Carried = Callable[..., object]  # (config, folder, device=..., datasets=..., attention=...)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reproduction:
    """What came of it; in rows ``a`` is the record and ``b`` the new run."""

    run: str
    settings: list[Row]  # of the last checkpoint and of run.toml, by which the run was carried out
    versions: list[Row]
    data: list[Row]
    weights: list[dict[str, Any]]  # a row per checkpoint: name, equal (bit for bit), largest difference
    results: list[dict[str, Any]]  # a row per number: quantity, a, b, difference
    tolerance: float
    passed: bool  # no difference of results is larger
    notes: list[str]


def reproduce(
    folder: Path, carry_out: Carried, again: Path, *, device: str, data_dir: Path | None, tolerance: float = TOLERANCE
) -> Reproduction:
    """Carry the run of a folder out once more into ``again``; as many threads are used as then.

    device: "auto" is that of the record, if it is there. ArtifactError if the run is not finished, its records are not
    whole, or its data are gone or others.
    """
    recorded = RunDirectory(folder)
    result, manifest = recorded.read_result(), recorded.read_manifest()
    if result is None or not manifest:
        hint = "only finished runs can be reproduced; attnprobe runs shows which are"
        raise ArtifactError(f"{folder} holds no finished run", hint)
    last = load_checkpoint(recorded.checkpoint(result["phase"]))
    config = run.from_checkpoint_table(read_toml(recorded.settings), str(recorded.settings))
    chosen = recorded_device(manifest) if device == "auto" else choose_device(device)
    datasets = same_data(config, manifest, data_dir, chosen)
    if type(manifest.get("threads")) is int:
        torch.set_num_threads(max(1, manifest["threads"]))
    carry_out(config, again, device=chosen, datasets=datasets, attention=manifest.get("attention", {}))
    new = RunDirectory(again)
    found, now = new.read_result(), new.read_manifest()
    if found is None:
        raise RunError(f"{again} was not finished", hint="go on with it: the same command")
    results = result_rows(result, found)
    return Reproduction(
        run=str(folder),
        settings=differing([flat(run.to_table(last.run))], [flat(run.to_table(config))]),
        versions=known_to_both(differing([surroundings(manifest)], [surroundings(now)])),
        data=differing([flat(manifest["data_sha256"])], [flat(now["data_sha256"])]),
        weights=[weight_row(name, Path(path), new) for name, path in recorded.checkpoints().items()],
        results=results,
        tolerance=tolerance,
        passed=all(row["difference"] <= tolerance for row in results),
        notes=notes(manifest),
    )


def recorded_device(manifest: Mapping[str, Any]) -> torch.device:
    """That of the record, or the one "auto" means where there is no such."""
    try:
        return choose_device(str(manifest.get("device", "auto")))
    except RunError:
        return choose_device("auto")


def same_data(
    config: RunConfig, manifest: Mapping[str, Any], data_dir: Path | None, device: torch.device
) -> dict[Task, Data]:
    """The data of all phases, on the device; ArtifactError if they are gone, or not those of the record."""
    datasets: dict[Task, Data] = {}
    known = manifest.get("data_sha256")
    for name, phase in config.phases().items():
        task = config.task_of(phase)
        if task not in datasets:
            datasets[task] = task.load(data_dir).to(device)
        if not isinstance(known, dict) or known.get(name) != datasets[task].fingerprint():
            hint = "attnprobe data verify says whether the files are the published ones; --data-dir takes others"
            raise ArtifactError(f"the data of the {name} phase are not those the run was trained on", hint)
    return datasets


def weight_row(name: str, path: Path, new: RunDirectory) -> dict[str, Any]:
    """How far a checkpoint is from its counterpart; NaN in the same places counts as equal."""
    a, b = load_checkpoint(path).state, load_checkpoint(new.checkpoint(name)).state
    if a.keys() != b.keys() or any(a[key].shape != b[key].shape for key in a):
        return {"name": name, "equal": False, "largest": math.inf}
    largest = max((float((a[key].double() - b[key].double()).abs().max()) for key in a if a[key].numel()), default=0.0)
    return {"name": name, "equal": all(torch.equal(a[key], b[key]) for key in a), "largest": largest}


def result_rows(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every number of the recorded result beside the new one: accuracies differ by points, the rest by shares."""
    rows = []
    for key, a in one.items():
        if key in OWN or type(a) not in (int, float):
            continue
        b = other.get(key)
        difference = math.inf
        if type(b) in (int, float):
            difference = abs(a - b) if key.endswith("accuracy") else abs(a - b) / max(abs(a), 1e-12)
        rows.append({"quantity": key, "a": a, "b": b, "difference": difference})
    return rows


def notes(manifest: Mapping[str, Any]) -> list[str]:
    """Why a run may differ though nothing is wrong."""
    found = []
    if manifest.get("together"):
        found.append("it was a member of an ensemble (--together), which equals its solo run up to rounding only")
    if manifest.get("restarts"):
        found.append("it went back to saves (--on-nan restart), whose moments depend on the clock")
    if str(manifest.get("device", "")).startswith("cuda") and not manifest.get("deterministic"):
        found.append("it ran on a GPU without --deterministic, where sums are added up in any order")
    return found


def verdict(found: Reproduction) -> str:
    """In a few sentences."""
    apart = max((row["difference"] for row in found.results), default=0.0)
    unequal = [row for row in found.weights if not row["equal"]]
    words = ["Reproduced." if found.passed else "Not reproduced."]
    if not unequal:
        words.append("The weights of all checkpoints are equal bit for bit.")
    else:
        names = ", ".join(row["name"] for row in unequal)
        words.append(f"Weights differ ({names}), by {max(row['largest'] for row in unequal):.2g} at most.")
    words.append(
        "All results are the same."
        if apart == 0
        else f"Results differ by {apart:.2g} at most; {found.tolerance:g} is allowed."
    )
    if found.versions:
        words.append(f"What surrounds the run differs in {', '.join(row['key'] for row in found.versions)}.")
    return " ".join([*words, *(f"Note: {note}." for note in found.notes)])
