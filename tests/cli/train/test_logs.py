"""--log: other programs get what metrics.jsonl says, and no point twice, however often a run is interrupted."""

import csv
import importlib.util
import json
from pathlib import Path

import pytest

from attnprobe.training import execute
from attnprobe.training.loop import Trainer

BLOCK = 2**15
EPOCHS = ["-s", "pretrain.epochs=3", "-s", "finetune.epochs=4", "-s", "finetune.batch_size=10"]


@pytest.fixture(scope="module", autouse=True)
def _no_account(tmp_path_factory) -> None:
    """wandb keeps what it knows in the home folder, and looks for an account there."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
            patch.setenv(name, str(tmp_path_factory.mktemp("wandb")))
        yield


def interrupt_after(monkeypatch: pytest.MonkeyPatch, updates: int, *, saved_at: int) -> None:
    """Stop a run after so many updates as a kill would: what goes on was saved earlier."""
    plain_update, plain_save, made = Trainer.update, execute._save_resume, [0]

    def update(self, *arguments):
        if made[0] == updates:
            raise KeyboardInterrupt
        made[0] += 1
        return plain_update(self, *arguments)

    def save(execution, trainer, force):
        if made[0] == saved_at:
            plain_save(execution, trainer, True)

    monkeypatch.setattr(Trainer, "update", update)
    monkeypatch.setattr(execute, "_save_resume", save)


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def interrupted_and_resumed(attnprobe, tiny, monkeypatch, log: str) -> Path:
    """Killed in the fourth epoch of finetuning, with a save in the second; returns the finished run's folder."""
    arguments = ["train", *tiny, *EPOCHS, "--out", "run", "-q", "--log", log]
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3 + 13, saved_at=3 + 6)
        assert attnprobe(*arguments).code == 130
    assert [record["epoch"] for record in metrics(Path("run"))] == [1, 2, 3, 1, 2, 3]
    assert attnprobe(*arguments, "--resume").code == 0
    return Path("run")


def expected(run: Path, *, number: str = "validation_loss") -> dict[str, list[tuple[int, float]]]:
    """Phase -> steps and values."""
    steps = {"pretrained": [1, 2, 3], "finetuned": [4, 8, 12, 16]}
    found = metrics(run)
    assert [(r["phase"], r["step"]) for r in found] == [(phase, s) for phase, own in steps.items() for s in own]
    return {phase: [(r["step"], r[number]) for r in found if r["phase"] == phase] for phase in steps}


def test_csv_is_metrics(attnprobe, tiny, monkeypatch) -> None:
    run = interrupted_and_resumed(attnprobe, tiny, monkeypatch, "csv")
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row, record in zip(rows, metrics(run), strict=True):
        assert {key: value for key, value in row.items() if value} == {key: str(value) for key, value in record.items()}
    assert expected(run)
    assert attnprobe("train", *tiny, "--out", "run", "-q", "--overwrite").code == 0
    assert not (run / "metrics.csv").exists(), "the earlier run's went with it"


def test_a_log_that_is_asked_for_later_has_the_earlier_epochs(attnprobe, tiny, monkeypatch) -> None:
    arguments = ["train", *tiny, *EPOCHS, "--out", "run", "-q"]
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3 + 13, saved_at=3 + 6)
        assert attnprobe(*arguments).code == 130
    assert attnprobe(*arguments, "--resume", "--log", "csv").code == 0
    assert len(Path("run/metrics.csv").read_text().splitlines()) == 1 + len(metrics(Path("run")))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["side by side", "together"])
def test_logs_of_several_seeds(how: str, attnprobe, tiny) -> None:
    more = ["--together"] if how == "together" else []
    assert attnprobe("train", *tiny, "--seeds", 2, *more, "--out", "runs", "-q", "--log", "csv").code == 0
    for seed in (0, 1):
        run = Path(f"runs/s{seed}")
        assert len((run / "metrics.csv").read_text().splitlines()) == 1 + len(metrics(run))


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_package_is_one_line(name: str, attnprobe, tiny, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda package: None)
        outcome = attnprobe("train", *tiny, "--log", name)
    assert outcome.code == 2
    outcome.complains(f"--log {name} needs the package {name}", f"pip install 'attnprobe[{name}]'")
    assert not Path("runs").exists()
    Path(name).mkdir()
    monkeypatch.syspath_prepend(Path.cwd())
    importlib.invalidate_caches()
    if importlib.util.find_spec(name).origin is None:  # where it is not installed, a folder of its name does not count
        attnprobe("train", *tiny, "--log", name).complains(f"needs the package {name}")
    attnprobe("train", *tiny, "--log", "cvs").complains("did you mean 'csv'?")


def test_tensorboard_reads_every_point_once(attnprobe, tiny, monkeypatch) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = interrupted_and_resumed(attnprobe, tiny, monkeypatch, "tensorboard")
    files = list((run / "tensorboard").iterdir())
    assert len(files) == 2, "one of each start"
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader").EventFileLoader
    points = [
        (value.tag, event.step) for file in files for event in loader(str(file)).Load() for value in event.summary.value
    ]
    assert len(set(points)) == len(points) > 0, "also in the files themselves"
    found = accumulator.EventAccumulator(str(run / "tensorboard"))
    found.Reload()
    for phase, own in expected(run).items():
        events = found.Scalars(f"{phase}/validation_loss")
        assert [(e.step, e.value) for e in events] == [(step, pytest.approx(value, rel=1e-6)) for step, value in own]
    assert "finetuned/train_accuracy" in found.Tags()["scalars"]
    assert "pretrained/epoch" not in found.Tags()["scalars"]
    (run / "tensorboard" / "mine.txt").write_text("mine")
    assert attnprobe("train", *tiny, "--out", "run", "-q", "--overwrite", "--log", "tensorboard").code == 0
    again = accumulator.EventAccumulator(str(run / "tensorboard"))
    again.Reload()
    assert [e.step for e in again.Scalars("finetuned/train_loss")] == [1], "those of the replaced run are gone"
    assert (run / "tensorboard" / "mine.txt").read_text() == "mine"
    assert not list(run.glob("replaced-*"))


@pytest.mark.slow
def test_wandb_offline_has_every_point_once(attnprobe, tiny, monkeypatch) -> None:
    pytest.importorskip("wandb")
    run = interrupted_and_resumed(attnprobe, tiny, monkeypatch, "wandb")
    points = [point for file in sorted(run.glob("wandb/offline-run-*/*.wandb")) for point in history(file)]
    assert len(list(run.glob("wandb/offline-run-*"))) == 2
    for phase, own in expected(run).items():
        found = [(p[f"{phase}/step"], p[f"{phase}/validation_loss"]) for p in points if f"{phase}/step" in p]
        assert found == [(step, pytest.approx(value)) for step, value in own]
    kept = json.loads((run / "wandb.json").read_text())
    assert kept["logged"] == {"pretrained": 3, "finetuned": 16}
    assert all(kept["id"] in path.name for path in run.glob("wandb/offline-run-*"))
    assert attnprobe("train", *tiny, "--out", "run", "-q", "--overwrite", "--log", "wandb").code == 0
    assert json.loads((run / "wandb.json").read_text())["id"] != kept["id"], "another run"


def history(file: Path) -> list[dict]:
    """What an offline run holds: records in blocks as LevelDB's log has them, each a message of wandb's."""
    from wandb.proto import wandb_internal_pb2

    content, place, whole, points = file.read_bytes(), 7, b"", []
    assert content.startswith(b":W&B")
    while place + 7 <= len(content):
        if (left := BLOCK - place % BLOCK) < 7:  # too few bytes for a header end a block
            place += left
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            whole = b""
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                points.append({i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items})
    return points
