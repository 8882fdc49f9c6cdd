"""Weights & Biases, without a network: `wandb sync` uploads what lies in wandb/ of the run, if somebody wants that.

$WANDB_MODE=online sends it at once. The run's id, and how far each phase was logged, are kept in wandb.json: what an
offline run wrote cannot be read back simply.
"""

import os
import uuid
from collections.abc import Sequence
from typing import Any

import wandb  # pyright: ignore[reportMissingImports]

from attnprobe.errors import RunError
from attnprobe.files import read_json, reading
from attnprobe.training.logs import Record, scalars, step_of
from attnprobe.training.saved.run_directory import RunDirectory

PROJECT = "attnprobe"
AGAIN = "remove wandb.json; the run is then logged anew"


class WandbOffline:
    def __init__(self, directory: RunDirectory, settings: Record) -> None:
        self.directory, self.path = directory, directory.path / "wandb.json"
        self.logged: dict[str, int] = {}  # phase -> last step
        self.id = uuid.uuid4().hex[:8]
        if self.path.exists():
            kept = read_json(self.path, AGAIN)
            with reading(self.path, AGAIN):
                self.id = str(kept["id"])
                self.logged = {phase: int(step) for phase, step in kept["logged"].items()}
        options: dict[str, Any] = {"mode": os.environ.get("WANDB_MODE", "offline"), "resume": "allow"}
        name = "/".join(directory.path.resolve().parts[-2:])
        try:
            self.run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT), dir=str(directory.path), id=self.id, name=name,
                config=settings, settings=wandb.Settings(silent=True, console="off"), **options,
            )  # fmt: skip
        except Exception as error:  # of its service, its files or its network, which it says in many ways
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise RunError(f"wandb cannot start: {first}", hint="leave out --log wandb") from error
        for phase in ("pretrained", "finetuned"):
            self.run.define_metric(f"{phase}/*", step_metric=f"{phase}/step")

    def update(self, records: Sequence[Record]) -> None:
        for record in records:
            phase, step = record["phase"], step_of(record)
            if step > self.logged.get(phase, -1):
                numbers = {f"{phase}/{name}": value for name, value in scalars(record).items()}
                self.run.log(numbers | {f"{phase}/step": step, f"{phase}/epoch": record["epoch"]})
                self.logged[phase] = step
                self.directory.write_json(self.path, {"id": self.id, "logged": self.logged})

    def close(self) -> None:
        self.run.finish()
