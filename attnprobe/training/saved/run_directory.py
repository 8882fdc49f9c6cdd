"""The run directory: settings, manifest, metrics, checkpoints and result of one run. Light: it opens no checkpoint."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attnprobe.errors import ArtifactError, shown
from attnprobe.files import read_json, reading, to_json, write_text, writing

STAGES = ("init", "pretrained", "finetuned")
FILES = (  # all that a run writes; what else lies in its folder is somebody else's
    "run.toml", "manifest.json", "metrics.jsonl", "trajectory.jsonl", "telemetry.jsonl", "resume.pt", "resume.next.pt",
    "result.json", "metrics.csv", "wandb.json",
    *(f"checkpoints/{stage}.pt" for stage in STAGES),
)  # fmt: skip
EVENTS = "tensorboard/events.out.tfevents.*"  # which TensorBoard names itself
START_AGAIN = "start again: --overwrite"
RESULTS = (
    "phase",
    "objective",
    "seed",
    "seconds",
    "train_accuracy",
    "validation_accuracy",
    "test_accuracy",
    "test_loss",
)


class RunDirectory:
    """Layout: run.toml, manifest.json, metrics.jsonl, checkpoints/*.pt, result.json; resume.pt while running; and
    trajectory.jsonl if it was asked for. ``claim`` decides who may write there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings = path / "run.toml"
        self.manifest = path / "manifest.json"
        self.metrics = path / "metrics.jsonl"
        self.resume = path / "resume.pt"
        self.resume_next = path / "resume.next.pt"  # of a member of an ensemble, until all members have written theirs
        self.result = path / "result.json"

    @property
    def trajectory(self) -> Path:
        """Earlier versions called the file telemetry.jsonl; a run that has one goes on with it."""
        new, old = self.path / "trajectory.jsonl", self.path / "telemetry.jsonl"
        return old if old.exists() and not new.exists() else new

    def checkpoint(self, name: str) -> Path:
        return self.path / "checkpoints" / f"{name}.pt"

    def checkpoints(self) -> dict[str, str]:
        """Name -> path of those that exist, in the order in which training writes them."""
        return {name: str(path) for name in STAGES if (path := self.checkpoint(name)).exists()}

    def write_json(self, path: Path, document: Any) -> None:
        write_text(path, to_json(document) + "\n")

    def append(self, path: Path, records: list[dict[str, Any]]) -> None:
        """Add lines of JSON to metrics or trajectory."""
        with writing(path), path.open("a", encoding="utf-8") as file:
            file.writelines(to_json(record, indent=None) + "\n" for record in records)

    def sizes(self) -> dict[str, int]:
        """Bytes recorded so far, by file."""
        return {path.name: path.stat().st_size for path in (self.metrics, self.trajectory) if path.exists()}

    def truncate(self, sizes: Mapping[str, int]) -> None:
        """Forget what was recorded after the moment from which a run is continued."""
        for path in (self.metrics, self.trajectory):
            if path.exists() and path.stat().st_size > sizes.get(path.name, 0):
                os.truncate(path, sizes.get(path.name, 0))

    def read_result(self) -> dict[str, Any] | None:
        """None if the run is not finished."""
        if not self.result.exists():
            return None
        result = read_json(self.result, START_AGAIN)
        with reading(self.result, START_AGAIN):
            for name in RESULTS:
                value = result[name]
                if not isinstance(value, str if name in ("phase", "objective") else int | float | None):
                    raise ValueError(f"its {name} is {shown(value)}")
        return result

    def read_manifest(self) -> dict[str, Any]:
        """Empty if the run was killed before it was written."""
        if not self.manifest.exists():
            return {}
        manifest = read_json(self.manifest, START_AGAIN)
        with reading(self.manifest, START_AGAIN):
            if not isinstance(manifest.get("attention", {}), dict):
                raise ValueError("its attention names no kernels")
        return manifest

    def amend_manifest(self, key: str, found: Mapping[str, Any]) -> None:
        """Add to what the manifest says of ``key``, by phase; nothing if that is known already."""
        manifest = self.read_manifest()
        known = manifest.get(key, {})
        if manifest and known | found != known:
            self.write_json(self.manifest, manifest | {key: known | found})

    def check_same_data(self, manifest: dict[str, Any]) -> None:
        """ArtifactError if a run to be continued was started on other data than there is now."""
        earlier = self.read_manifest()
        if earlier and earlier.get("data_sha256") != manifest["data_sha256"]:
            raise ArtifactError(f"{self.path} was started on other data than is found now", hint="choose another --out")
