"""A run's folder: nothing that attnprobe did not make there is moved, replaced or removed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from attnprobe.errors import ArtifactError, ConfigError, RunError
from attnprobe.files.ownership import LOCK, MARKER, held, one_writer, read_marker
from attnprobe.training.execute import execute
from attnprobe.training.loop import Interrupted
from attnprobe.training.saved import replacing
from attnprobe.training.saved.claim import check_claim
from attnprobe.training.saved.replacing import where_kept
from attnprobe.training.saved.run_directory import RunDirectory

CPU = torch.device("cpu")
ONE = ("pretrain.epochs=1", "finetune.epochs=1")


@pytest.fixture
def train(small, monitor, tmp_path):
    def make(*changes: str, out: str = "run", **keywords) -> dict:
        return execute(small(*ONE, *changes), tmp_path / out, device=CPU, monitor=monitor, **keywords)

    return make


def contents(folder: Path) -> dict[str, bytes]:
    """Every file and link by its path; the marker names processes, so only that it is there."""
    files = [path for path in folder.rglob("*") if path.name != LOCK and (path.is_symlink() or not path.is_dir())]
    return {
        str(path.relative_to(folder)): os.readlink(path).encode()
        if path.is_symlink()
        else b""
        if path.name == MARKER
        else path.read_bytes()
        for path in files
    }


def put_foreign_files(run: Path, outside: Path) -> None:
    """In every folder of a run: files, folders and links that attnprobe did not make."""
    outside.mkdir()
    (outside / "init.pt").write_text("elsewhere")
    for folder in (run, run / "checkpoints"):
        (folder / "thesis.tex").write_text("years of work")
        (folder / "data").mkdir()
        (folder / "data" / "run.toml").write_text("mine")
        (folder / "link").symlink_to(outside)
        (folder / "linked.pt").symlink_to(outside / "init.pt")


def test_overwriting_takes_only_what_the_run_wrote(train, tmp_path) -> None:
    train()
    run, outside = tmp_path / "run", tmp_path / "outside"
    before = contents(run)
    put_foreign_files(run, outside)
    foreign = {name: content for name, content in contents(run).items() if name not in before}
    train("seed=1", overwrite=True)
    after = contents(run)
    assert {name: content for name, content in after.items() if name not in before} == foreign
    assert set(after) - set(foreign) == set(before)
    assert after["checkpoints/init.pt"] != before["checkpoints/init.pt"]
    assert (outside / "init.pt").read_text() == "elsewhere"


def test_the_earlier_run_is_kept_whole_until_the_new_one_is_finished(train, monitor, tmp_path) -> None:
    train()
    before = contents(tmp_path / "run")
    asked = iter([False] * 5 + [True])
    with pytest.raises(Interrupted):
        train("seed=1", overwrite=True, should_stop=lambda: next(asked))
    kept = tmp_path / "run" / "replaced-1"
    assert contents(kept) == before
    assert str(kept) in where_kept(tmp_path / "run")
    assert any(str(kept) in message for message in monitor.messages)
    with pytest.raises(RunError, match="diverged") as caught:
        train("seed=2", "pretrain.optimizer.lr=1e18", overwrite=True)
    assert "them back" in caught.value.hint, "the finished run and the one that diverged"
    assert contents(kept) == before, "an unfinished run does not cost the finished one"
    kept.rename(tmp_path / "back")  # what the message says
    assert train(out="back", resume=True)["run_dir"] == str(tmp_path / "back")
    train("seed=3", overwrite=True)
    assert not list((tmp_path / "run").glob("replaced-*"))


@pytest.mark.parametrize("moved", [0, 3, 6])
def test_a_kill_while_the_earlier_run_is_moved_loses_nothing(train, tmp_path, monkeypatch, moved: int) -> None:
    train()
    run = tmp_path / "run"
    before, left = contents(run), iter(range(100))
    move = replacing._move

    def until_killed(file: Path, target: Path) -> None:
        if next(left) == moved:
            raise SystemError("killed")
        move(file, target)

    with monkeypatch.context() as patch:
        patch.setattr(replacing, "_move", until_killed)
        with pytest.raises(SystemError):
            train("seed=1", overwrite=True)
    assert len(list(run.glob("replaced-1/**/*.*"))) >= moved
    assert train(resume=True)["seed"] == 0
    assert contents(run) == before
    assert train("seed=1", overwrite=True)["seed"] == 1


def test_a_disk_that_fails_while_moving_leaves_the_earlier_run(train, tmp_path, monkeypatch) -> None:
    train()
    before, rename = contents(tmp_path / "run"), Path.rename

    def read_only(self: Path, target: Path) -> Path:
        if "replaced-1" in str(target) and self.name == "result.json":
            raise OSError(30, "Read-only file system")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", read_only)
    with pytest.raises(RunError, match="Read-only file system"):
        train("seed=1", overwrite=True)
    assert contents(tmp_path / "run") == before


def test_another_commands_folder_is_no_run_directory(train, tmp_path) -> None:
    with (
        held(tmp_path / "demo", "demo"),
        pytest.raises(ConfigError, match="is writing to"),
        one_writer(tmp_path / "demo"),
    ):
        pass
    (tmp_path / "demo" / "run.toml").write_text("mine")
    with pytest.raises(ConfigError, match="no run directory that attnprobe made"):
        train(out="demo", overwrite=True)
    with pytest.raises(ConfigError, match="is no folder of a demo"), held(Path(train()["run_dir"]), "demo"):
        pass


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("content", ["run.toml", "thesis.tex", ".git/config"])
def test_a_strangers_folder_is_refused(train, tmp_path, content: str, overwrite: bool) -> None:
    """A run.toml alone does not make a folder ours."""
    file = tmp_path / "project" / content
    file.parent.mkdir(parents=True)
    file.write_text("[task]\nname = 'textures'\n")
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match="no run directory that attnprobe made" if overwrite else "is not empty"):
        train(out="project", overwrite=overwrite)
    with pytest.raises(ArtifactError, match="holds no run to resume"):
        train(out="project", resume=True)
    assert contents(tmp_path) == before
    assert not (tmp_path / "project" / LOCK).exists()


@pytest.mark.parametrize("name", ["checkpoints", "run.toml", "checkpoints/pretrained.pt", MARKER])
def test_nothing_is_written_through_a_link(train, tmp_path, name: str) -> None:
    train()
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    (run / name).rename(elsewhere)
    (run / name).symlink_to(elsewhere)
    before = contents(tmp_path)
    for keywords in ({"overwrite": True}, {"resume": True}, {}):
        with pytest.raises((ConfigError, ArtifactError)):
            train(**keywords)
    assert contents(tmp_path) == before


def test_the_checkpoint_a_run_starts_from_is_never_replaced(train, small, monitor, tmp_path) -> None:
    train()
    config, before = small(*ONE), contents(tmp_path / "run")
    (tmp_path / "link.pt").symlink_to(tmp_path / "run" / "checkpoints" / "pretrained.pt")
    for source in (tmp_path / "run" / "checkpoints" / "pretrained.pt", tmp_path / "link.pt"):
        second = type(config)(task=config.task, model=config.model, finetune=config.finetune, pretrained=source)
        with pytest.raises(ConfigError, match="which lies in the folder that --overwrite would replace"):
            execute(second, tmp_path / "run", device=CPU, monitor=monitor, overwrite=True)
    assert contents(tmp_path / "run") == before


@pytest.mark.parametrize("left", [[LOCK], [LOCK, f".{MARKER}.a1b2c3d4"], [LOCK, MARKER], [LOCK, ".run.toml.x_y_z_01"]])
@pytest.mark.parametrize("how", ["", "resume", "overwrite"])
def test_a_folder_killed_before_the_run_began_is_taken_over(train, tmp_path, left: list[str], how: str) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in left:
        (run / name).touch()
    if MARKER in left:
        replacing.mark(run, replacing.RUN)
    assert train(**({how: True} if how else {}))["seed"] == 0
    assert not list(run.glob(".run.toml.*"))


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_whose_settings_were_moved_away_is_not_replaced(train, tmp_path, resume: bool) -> None:
    """As by someone who takes run.toml, changes it and trains again."""
    train()
    (tmp_path / "run" / "run.toml").rename(tmp_path / "mine.toml")
    before = contents(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"holds files of a run but not its run\.toml"):
        train("seed=1", resume=resume)
    assert contents(tmp_path / "run") == before
    assert train("seed=1", overwrite=True)["seed"] == 1


def test_every_earlier_run_that_is_kept_is_named(train, tmp_path) -> None:
    """Whoever overwrites a second time before the new run is finished still wants the first, finished one."""
    run = tmp_path / "my run"
    train(out="my run")
    for _ in range(11):
        with pytest.raises(Interrupted):
            train(out="my run", overwrite=True, should_stop=lambda: True)
    kept = where_kept(run)
    assert f"{run / 'replaced-1'}, {run / 'replaced-2'}, " in kept
    assert f"'{run / 'replaced-10'}' '{run / 'replaced-11'}' ELSEWHERE` brings them back" in kept
    assert train(out="my run", overwrite=True)["seed"] == 0
    assert not where_kept(run)


def test_a_run_without_a_marker_goes_on_but_is_not_overwritten(train, tmp_path) -> None:
    """As versions before the marker left them."""
    asked = iter([False] * 5 + [True])
    with pytest.raises(Interrupted):
        train(should_stop=lambda: next(asked))
    (tmp_path / "run" / MARKER).unlink()
    with pytest.raises(ConfigError, match="is no run directory that attnprobe made"):
        train(overwrite=True)
    assert train(resume=True)["seed"] == 0
    assert not read_marker(tmp_path / "run")


def test_one_writer(train, small, tmp_path) -> None:
    """Another process holds the folder; when it is killed, the folder is free."""
    train()
    run = tmp_path / "run"
    hold = (
        "import sys, time, pathlib; from attnprobe.files.ownership import mark, one_writer\n"
        "with one_writer(p := pathlib.Path(sys.argv[1])): mark(p, 'run'); print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", hold, str(run)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        for keywords in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(ConfigError, match=f"process {holder.pid} on .* is writing to"):
                train("seed=0", **keywords)
            with pytest.raises(ConfigError, match="is writing to"):
                check_claim(RunDirectory(run), small(*ONE), **{"resume": False, "overwrite": False, **keywords})
    finally:
        holder.kill()
        holder.communicate()
    with one_writer(run):
        pass
    assert train(resume=True)["seed"] == 0
