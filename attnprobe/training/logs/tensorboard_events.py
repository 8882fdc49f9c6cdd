"""Event files of TensorBoard, in tensorboard/ of the run: scalars called phase/metric, by the step of their phase."""

from collections.abc import Sequence
from datetime import datetime

from tensorboard.backend.event_processing.event_accumulator import (  # pyright: ignore[reportMissingImports]
    EventAccumulator,
)
from torch.utils.tensorboard import SummaryWriter  # pyright: ignore[reportPrivateImportUsage]

from attnprobe.files import reading, writing
from attnprobe.training.logs import Record, scalars, step_of
from attnprobe.training.saved.run_directory import RunDirectory


class TensorboardEvents:
    def __init__(self, directory: RunDirectory) -> None:
        self.folder = folder = directory.path / "tensorboard"
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with reading(folder, hint="move the folder away; it is written anew"):
            earlier = EventAccumulator(str(folder), size_guidance={"scalars": 0})
            earlier.Reload()
            tags = earlier.Tags()["scalars"]
            self.known = {(tag, event.step) for tag in tags for event in earlier.Scalars(tag)}
        with writing(folder):
            self.writer = SummaryWriter(str(folder))

    def update(self, records: Sequence[Record]) -> None:
        with writing(self.folder):
            for record in records:
                step, time = step_of(record), datetime.fromisoformat(record["time"]).timestamp()
                for name, value in scalars(record).items():
                    tag = f"{record['phase']}/{name}"
                    if (tag, step) not in self.known:
                        self.known.add((tag, step))
                        self.writer.add_scalar(tag, value, step, walltime=time)
            self.writer.flush()

    def close(self) -> None:
        self.writer.close()
