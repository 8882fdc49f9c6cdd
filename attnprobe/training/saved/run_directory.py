"""The run directory: settings, manifest, metrics, checkpoints and result of one run."""

import functools
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import torch

from attnprobe import __version__, published, run
from attnprobe.errors import ArtifactError, shown
from attnprobe.files import read_json, reading, to_json, unwritable, write_text
from attnprobe.machine import now, processor_name
from attnprobe.run import RunConfig
from attnprobe.tasks import Data
from attnprobe.training.updates.attention_kernels import Choice

STAGES = ("init", "pretrained", "finetuned")
FILES = (  # all that a run writes; what else lies in its folder is somebody else's
    "run.toml", "manifest.json", "metrics.jsonl", "telemetry.jsonl", "resume.pt", "resume.next.pt", "result.json",
    *(f"checkpoints/{stage}.pt" for stage in STAGES),
)  # fmt: skip
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
    telemetry.jsonl if it was asked for. ``claim`` decides who may write there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings = path / "run.toml"
        self.manifest = path / "manifest.json"
        self.metrics = path / "metrics.jsonl"
        self.telemetry = path / "telemetry.jsonl"
        self.resume = path / "resume.pt"
        self.resume_next = path / "resume.next.pt"  # of a member of an ensemble, until all members have written theirs
        self.result = path / "result.json"

    def checkpoint(self, name: str) -> Path:
        return self.path / "checkpoints" / f"{name}.pt"

    def checkpoints(self) -> dict[str, str]:
        """Name -> path of those that exist, in the order in which training writes them."""
        return {name: str(path) for name in STAGES if (path := self.checkpoint(name)).exists()}

    def write_json(self, path: Path, document: Any) -> None:
        write_text(path, to_json(document) + "\n")

    def append(self, path: Path, records: list[dict[str, Any]]) -> None:
        """Add lines of JSON to metrics or telemetry."""
        try:
            with path.open("a", encoding="utf-8") as file:
                file.writelines(to_json(record, indent=None) + "\n" for record in records)
        except OSError as error:
            raise unwritable(path, error) from error

    def sizes(self) -> dict[str, int]:
        """Bytes recorded so far, by file."""
        return {path.name: path.stat().st_size for path in (self.metrics, self.telemetry) if path.exists()}

    def truncate(self, sizes: Mapping[str, int]) -> None:
        """Forget what was recorded after the moment from which a run is continued."""
        for path in (self.metrics, self.telemetry):
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


def make_manifest(
    config: RunConfig, device: torch.device, data: Mapping[str, Data], attention: Mapping[str, Choice]
) -> dict[str, Any]:
    """Who ran what, where, with which versions, on which data and with which attention kernel (both by phase)."""
    return {
        "argv": sys.argv,
        "fingerprint": run.fingerprint(config),
        "seed": config.seed,
        "attnprobe": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "platform": platform.platform(),
        "commit": _git_commit(),
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name(),
        "precision": config.engine.precision,
        "deterministic": config.engine.deterministic,
        "published": published.described(run.to_table(config)),
        "attention": {phase: choice.kernel for phase, choice in attention.items()},
        "attention_deviation": {phase: choice.deviations for phase, choice in attention.items()},
        "threads": torch.get_num_threads(),
        "data_sha256": {phase: found.fingerprint() for phase, found in data.items()},
        "data_notes": {phase: found.notes for phase, found in data.items()},
        "started": now(),
    }


@functools.cache
def _git_commit() -> str | None:
    """The commit of the source tree this package is imported from, with "+" if it was changed; None outside git."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            answer = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return answer.stdout.strip() if answer.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if not commit or git("ls-files", "--error-unmatch", __file__) is None:
        return None
    return commit + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
