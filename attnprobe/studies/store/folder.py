"""The store: every run and every measurement of all studies in it, each in a place that its content names.

runs/<key>/                  run directories, as of attnprobe train; runs of all studies share them
measures/<key>-<measure>.json    what a probe found in a checkpoint of the run <key>
failures/<key>.json          why the last attempt failed, until one succeeds
arms.json                    what ``plan.keys`` remembers
<study>/                     tables and figures
"""

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any, Literal

from attnprobe.errors import ArtifactError, AttnprobeError, ConfigError
from attnprobe.files import read_json, to_json, write_text
from attnprobe.files.ownership import has_writer, mark, read_marker
from attnprobe.machine import now

KIND = "store of studies"
STUDY = "study"  # what the manifest of a run says of the store it was made for
State = Literal["done", "running", "interrupted", "failed", "missing", "damaged"]
AGAIN = "attnprobe study run does it again"
Result = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Store:
    """One folder of studies. Nothing in it is opened before it is asked for."""

    path: Path

    def claim(self) -> None:
        """Make and mark the folder; ConfigError if it holds somebody else's files. Several processes may use it."""
        if self.is_ours():
            return
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            message = f"{self.path} is not empty, and no folder of studies that attnprobe made"
            raise ConfigError(message, hint="choose another --out")
        mark(self.path, KIND)

    def is_ours(self) -> bool:
        return read_marker(self.path).get("kind") == KIND

    @property
    def memory(self) -> Path:
        return self.path / "arms.json"

    def run(self, key: str) -> Path:
        return self.path / "runs" / key

    def checkpoint(self, key: str, name: str) -> Path:
        return self.run(key) / "checkpoints" / f"{name}.pt"

    def failure(self, key: str) -> Path:
        return self.path / "failures" / f"{key}.json"

    def measure(self, key: str, measure: str) -> Path:
        return self.path / "measures" / f"{key}-{measure}.json"

    def result(self, key: str) -> Result | None:
        """The content of result.json of a finished run; None if it is not finished, ArtifactError if damaged.

        A run is finished once its manifest says that it is the one that its folder is named by; that is written last.
        """
        folder = self.run(key)
        try:
            result, manifest = (_object(folder / f"{name}.json") for name in ("result", "manifest"))
        except FileNotFoundError:
            return None
        said = manifest.get(STUDY)
        if said is None:  # killed in between; what was begun is ended by the next run of the study
            return None
        if not isinstance(said, dict) or said.get("key") != key:
            raise ArtifactError(f"{folder / 'manifest.json'} is that of another run", hint=AGAIN)
        return result

    def numbers(self, key: str) -> dict[str, float]:
        """All finite numbers of a finished run's result; empty if it is not finished."""
        result = self.result(key) or {}
        return {name: float(value) for name, value in result.items() if _is_finite(value) and name != "seed"}

    def measured(self, key: str, measure: str) -> dict[str, float] | None:
        """Quantity -> number of a measurement, NaN where none was finite; None if there is no measurement yet.

        ArtifactError if its file is damaged.
        """
        try:
            found = _object(self.measure(key, measure)).get("numbers")
        except FileNotFoundError:
            return None
        if not isinstance(found, dict) or not all(value is None or _is_finite(value) for value in found.values()):
            raise ArtifactError(f"{self.measure(key, measure)} holds no numbers", hint=AGAIN)
        return {name: math.nan if value is None else float(value) for name, value in found.items()}

    def state(self, key: str) -> tuple[State, str]:
        """Where a run stands, and why if it failed or is damaged."""
        try:
            if self.result(key) is not None:
                return "done", ""
        except ArtifactError as error:
            return "damaged", str(error)
        folder = self.run(key)
        if has_writer(folder):
            return "running", ""
        if reason := self.reason(key):
            return "failed", reason
        return ("interrupted", "") if (folder / "run.toml").exists() else ("missing", "")

    def reason(self, key: str) -> str:
        """Why the last attempt failed; empty if it did not."""
        try:
            return str(_object(self.failure(key)).get("reason", ""))
        except FileNotFoundError:
            return ""
        except ArtifactError as error:
            return str(error)

    def note_failure(self, key: str, name: str, error: AttnprobeError) -> None:
        said = {"run": name, "reason": str(error), "hint": error.hint, "time": now()}
        write_text(self.failure(key), to_json(said) + "\n")

    def forget_failure(self, key: str) -> None:
        self.failure(key).unlink(missing_ok=True)


def _is_finite(value: object) -> bool:
    """A number that a float can be; of JSON, which knows whole numbers of any size."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _object(path: Path) -> dict[str, Any]:
    """As ``read_json``, which has words for whatever is wrong; but thousands of files are read fast.

    FileNotFoundError if there is none.
    """
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else read_json(path, AGAIN)
