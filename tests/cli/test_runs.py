"""attnprobe runs: every run below a folder is a row, whatever state its files are in."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import attnprobe as ap
from attnprobe.files.ownership import mark, one_writer
from attnprobe.training.saved.listing import list_runs

SETTINGS = """seed = {seed}
[task]
name = "textures"
[model]
layers = 3
d_model = 7
[model.mixer]
name = "attention"
[finetune]
transfer = "qk"
freeze = ["blocks.0.*"]
"""
RESULT = {"phase": "finetuned", "objective": "classification", "seconds": 1.5, "train_accuracy": 0.75,
          "validation_accuracy": 0.5, "test_loss": 2.0}  # fmt: skip


def write_run(folder: Path, *, seed: int = 0, accuracy: float | None = 0.5, settings: str = SETTINGS) -> Path:
    """The files of a finished run without weights; accuracy=None: of one that is not finished."""
    (folder / "checkpoints").mkdir(parents=True)
    mark(folder, "run")
    (folder / "run.toml").write_text(settings.format(seed=seed))
    (folder / "manifest.json").write_text(json.dumps({"started": f"2026-01-02T03:04:{seed:02}+00:00"}))
    if accuracy is not None:
        (folder / "checkpoints" / "finetuned.pt").write_bytes(b"")
        (folder / "result.json").write_text(json.dumps(RESULT | {"seed": seed, "test_accuracy": accuracy}))
    return folder


def test_what_a_run_is_and_reached(attnprobe, tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "a" / "s2", seed=2)
    [row] = attnprobe("runs", "--json").document()["runs"]
    assert row == {
        "folder": "runs/a/s2", "state": "finished", "note": "", "task": "textures", "model": "attention 3x7",
        "arm": "from scratch, freeze blocks.0.*", "seed": 2, "started": "2026-01-02T03:04:02+00:00", "seconds": 1.5,
        "train_accuracy": 0.75, "validation_accuracy": 0.5, "test_accuracy": 0.5, "test_loss": 2.0,
    }  # fmt: skip
    shown = attnprobe("runs")
    for word in ("a/s2", "attention 3x7", "from scratch", "finished", "2026-01-02 03:04", "0.750", "1 finished"):
        assert word in shown.out


@pytest.mark.parametrize(
    ("table", "arm"),
    [
        ("[pretrain]\n[finetune]\n", "self-pretrained"),
        ('[pretrain]\n[finetune]\ntransfer = "qk"\n', "self-pretrained, transfer qk"),
        ('[pretrain]\n[finetune]\ntransfer = ["a", "b"]\nfreeze = "qk"\n', "self-pretrained, transfer a+b, freeze qk"),
        ("[pretrain]\n", "pretraining only"),
        ("[finetune]\n", "from scratch"),
        ('pretrained = "a.pt"\n[finetune]\n', "continued"),
        ('[model]\nscore_profile = "a.pt"\n[finetune]\n', "from scratch, given profile"),
        ('model = "strange"\nfinetune = 3\n', "from scratch"),
    ],
)
def test_arms(table: str, arm: str, tmp_path: Path) -> None:
    write_run(tmp_path / "run", settings=table)
    [row] = list_runs(tmp_path)
    assert row.arm == arm


def test_states(attnprobe, tmp_path: Path) -> None:
    write_run(tmp_path / "done")
    write_run(tmp_path / "stopped", accuracy=None)
    write_run(tmp_path / "busy", accuracy=None)
    write_run(tmp_path / "begun", accuracy=None)
    (tmp_path / "begun" / "run.toml").unlink()
    broken = {"run.toml": b"[[[", "result.json": b"{", "manifest.json": b"\xff", "checkpoints/finetuned.pt": None}
    for name, content in broken.items():
        file = write_run(tmp_path / f"broken-{Path(name).stem}") / name
        file.unlink() if content is None else file.write_bytes(content)
    write_run(tmp_path / "no-settings")
    (tmp_path / "no-settings" / "run.toml").unlink()
    with one_writer(tmp_path / "busy"), one_writer(tmp_path / "begun"):
        outcome = attnprobe("runs", ".", "--json")
        found = {row["folder"]: row for row in outcome.document()["runs"]}
        people = attnprobe("runs", ".")
    states = {name: row["state"] for name, row in found.items()}
    assert states.pop("done") == "finished"
    assert states.pop("stopped") == "interrupted"
    assert {states.pop("busy"), states.pop("begun")} == {"running"}
    assert set(states.values()) == {"damaged"}
    assert len(states) == 5
    assert "checkpoints/finetuned.pt is missing" in found["broken-finetuned"]["note"]
    assert outcome.code == people.code == 0
    assert people.err.count("damaged: ") == 5
    assert "5 damaged" in people.out
    assert {row.state for row in list_runs(tmp_path) if "busy" in row.folder} == {"interrupted"}


def test_only_runs_are_listed_and_nothing_is_changed(tmp_path: Path) -> None:
    write_run(tmp_path / "demo" / "runs" / "s10", seed=10)
    run = write_run(tmp_path / "demo" / "runs" / "s2", seed=2)
    write_run(run / "replaced-1")
    write_run(run / "inner")
    mark(tmp_path / "demo", "demo")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "run.toml").write_text("a file of somebody's own")
    before = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}
    names = [str(Path(row.folder).relative_to(tmp_path)) for row in list_runs(tmp_path)]
    assert names == ["demo/runs/s2", "demo/runs/s2/inner", "demo/runs/s10"]
    assert {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    shutil.rmtree(tmp_path / "demo" / "runs" / "s10" / "checkpoints")
    (tmp_path / "demo" / "runs" / "s10" / ".attnprobe").unlink()  # what earlier versions left
    assert [row.state for row in list_runs(tmp_path)] == ["finished", "finished", "damaged"]


def test_order(attnprobe, tmp_path: Path) -> None:
    for seed, accuracy in ((3, 0.75), (1, 0.25), (2, None)):
        write_run(tmp_path / f"s{seed}", seed=seed, accuracy=accuracy)

    def seeds(*options: str) -> list[int]:
        return [row["seed"] for row in attnprobe("runs", ".", "--json", *options).document()["runs"]]

    assert seeds() == [1, 2, 3]
    assert seeds("--sort", "started") == [1, 2, 3]
    assert seeds("--sort", "test_accuracy") == [2, 1, 3]
    assert seeds("--sort", "state") == [1, 3, 2]


def test_folders_without_runs_and_folders_that_are_none(attnprobe, tmp_path: Path) -> None:
    outcome = attnprobe("runs", ".")
    assert (outcome.code, outcome.out) == (0, "")
    assert "there is no run" in outcome.err
    outcome = attnprobe("runs")
    assert outcome.code == 3
    outcome.complains("runs does not exist", "hint:")
    (tmp_path / "file").write_text("")
    attnprobe("runs", "file").complains("file cannot be read", "hint:")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_closed_folders_are_told_and_passed_over(attnprobe, tmp_path: Path) -> None:
    write_run(tmp_path / "open")
    (tmp_path / "closed").mkdir(mode=0)
    outcome = attnprobe("runs", ".", "--json")
    assert [row["folder"] for row in outcome.document()["runs"]] == ["open"]
    assert "warning: closed cannot be opened" in outcome.err


def test_in_python(tmp_path: Path) -> None:
    write_run(tmp_path / "s1", seed=1)
    frame = ap.runs(tmp_path)
    assert frame.seed.tolist() == [1]
    assert list(ap.runs(tmp_path / "s1" / "checkpoints").columns) == list(frame.columns)


def test_listing_loads_nothing_heavy(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    code = "import sys\nfrom attnprobe.cli import main\ntry:\n    main(['runs', '.'])\nexcept SystemExit:\n    pass\n"
    code += "print([m for m in ('torch', 'numpy', 'pandas') if m in sys.modules])"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True, env=environment
    )
    assert finished.stdout.splitlines()[-1] == "[]"
    assert "1 finished" in finished.stdout


def test_names_with_digits_that_are_no_decimals(tmp_path: Path) -> None:
    for name in ("run1²", "run2", "run10", "³"):
        write_run(tmp_path / name)
    assert [Path(row.folder).name for row in list_runs(tmp_path)] == ["run1²", "run2", "run10", "³"]
