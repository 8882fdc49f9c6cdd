import pytest

from attnprobe import presets, run
from attnprobe.config import override


class Silent:
    """A monitor that remembers what it heard."""

    def __init__(self) -> None:
        self.epochs: list[tuple[str, int]] = []
        self.messages: list[str] = []

    def phase_started(self, name, phase, samples, done) -> None: ...
    def stepped(self, samples) -> None: ...

    def epoch_finished(self, name, epoch, numbers) -> None:
        self.epochs.append((name, epoch))

    def message(self, text) -> None:
        self.messages.append(text)


SMALL = [
    "task.side=5", "task.n_train=53", "task.n_validation=29", "task.n_test=31", "model.d_model=12", "model.heads=2",
    "model.d_mlp=17", "pretrain.epochs=3", "finetune.epochs=4", "pretrain.batch_size=11", "finetune.batch_size=13",
]  # fmt: skip


@pytest.fixture
def small():
    def make(*changes: str) -> run.RunConfig:
        return run.from_table(override(presets.read_table("textures"), [*SMALL, *changes]))

    return make


@pytest.fixture
def monitor() -> Silent:
    return Silent()
