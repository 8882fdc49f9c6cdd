import dataclasses
import json
from pathlib import Path

import pytest

from attnprobe.cli import main

TINY = [
    "task.side=5", "task.n_train=40", "task.n_validation=20", "task.n_test=30", "model.d_model=8", "model.heads=2",
    "model.d_mlp=8", "pretrain.epochs=1", "finetune.epochs=1",
]  # fmt: skip


@dataclasses.dataclass
class Outcome:
    code: int
    out: str
    err: str

    def document(self):
        """The one JSON document on stdout."""
        return json.loads(self.out)

    def complains(self, *words: str) -> None:
        """One error line, perhaps one hint line, no traceback, holding all the words."""
        assert "Traceback" not in self.err
        assert self.out == ""
        lines = [line for line in self.err.splitlines() if line.startswith(("error:", "hint:"))]
        assert len([line for line in lines if line.startswith("error:")]) == 1, self.err
        for word in words:
            assert word in self.err, self.err


@pytest.fixture
def attnprobe(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run the command line in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = 0
        try:
            main([str(a) for a in arguments])
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def tiny() -> list[str]:
    """Arguments that make a training run of the preset textures take well under a second."""
    return [part for change in TINY for part in ("-s", change)]


@pytest.fixture
def trained(attnprobe, tiny, tmp_path) -> Path:
    """A finished tiny run."""
    assert attnprobe("train", *tiny, "--out", "run", "-q").code == 0
    return tmp_path / "run"


@pytest.fixture
def checkpoints(trained) -> list[str]:
    """Of one run, in the order in which they were written."""
    return [str(trained / "checkpoints" / f"{name}.pt") for name in ("init", "pretrained", "finetuned")]
