"""Whatever goes wrong is one line with a hint: no traceback, no hang, no crash."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from attnprobe.cli import app
from attnprobe.errors import RunError
from attnprobe.training import execute as execution


def outside(command: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """attnprobe in a process and a shell of its own; ``command`` holds the redirections."""

    root = str(Path(__file__).parents[3])
    return subprocess.run(
        ["bash", "-c", f'"{sys.executable}" -m attnprobe "$@" {command}', "-", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": root, "HOME": "/nonexistent", **environment},
    )


@pytest.mark.parametrize("command", [">&-", ">/dev/full"])
def test_a_closed_or_full_output(command: str) -> None:
    done = outside(command, "presets", "--json")
    assert done.returncode == 1
    assert done.stderr.startswith("error: the system refused")
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_both_outputs_closed() -> None:
    assert outside(">&- 2>&-", "presets").returncode == 1


def test_an_output_that_cannot_hold_the_characters() -> None:
    done = outside("", "train", "none\u2026.toml", PYTHONIOENCODING="ascii")
    assert done.returncode == 3
    assert "none\\u2026.toml does not exist" in done.stderr


def test_an_unexpected_exception(attnprobe, monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("inner\nworkings [/]")

    monkeypatch.setattr("attnprobe.cli.train.command.load_configs", fail)
    outcome = attnprobe("train")
    assert outcome.code == 1
    outcome.complains("internal error: ZeroDivisionError: inner", "ATTNPROBE_DEBUG=1")
    monkeypatch.setenv("ATTNPROBE_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        attnprobe("train")


@pytest.mark.parametrize("change", ["d_model=1000000", "d_mlp=100000000000"])
def test_a_model_larger_than_the_memory(attnprobe, change: str) -> None:
    """Before anything is allocated: a system that promises memory it does not have would kill the process."""
    outcome = attnprobe("train", "-s", f"model.{change}", "--dry-run")
    assert outcome.code == RunError.exit_code
    outcome.complains("not enough memory", "smaller model.d_model")


@pytest.mark.parametrize("kind", [RuntimeError, MemoryError])
def test_out_of_memory_while_training(attnprobe, tiny, monkeypatch, kind: type[Exception]) -> None:
    def fail(*_: object, **__: object) -> None:
        raise kind("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 7 GiB")

    monkeypatch.setattr(execution, "make_model", fail)
    outcome = attnprobe("train", *tiny, "--out", "run", "-q")
    assert outcome.code == 1
    outcome.complains("not enough memory: 2.50 GiB were asked for", "smaller size")


@pytest.mark.parametrize(
    "option", ["--memory-limit=inf", "--memory-limit=nan", "--memory-limit=1e300", "--level=nan", "--radius=inf"]
)
def test_numbers_that_are_not_finite(attnprobe, option: str) -> None:
    outcome = attnprobe("probe", "proximity", option, "x.pt")
    assert outcome.code == 2
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("seeds", ["99999999999999999999", "1000000000", "9" * 5000, "1,1", "-1", "x" * 9000])
def test_impossible_seeds(attnprobe, seeds: str) -> None:
    outcome = attnprobe("train", "--dry-run", f"--seeds={seeds}")
    assert outcome.code == 2
    outcome.complains("--seeds", "hint:")


@pytest.mark.parametrize("name", ["[/]", "[bold", "a\\[b]", "[/red]x", "x\x1b[31m"])
def test_markup_in_paths(attnprobe, tiny, name: str) -> None:
    outcome = attnprobe("train", *tiny, "--out", name, "--dry-run")
    assert outcome.code == 0, outcome.err
    assert "\x1b" in name or name in outcome.out
    outcome = attnprobe("probe", "proximity", f"{name}.pt")
    assert outcome.code == 3
    outcome.complains("\\x1b[31m" if "\x1b" in name else name)


@pytest.mark.parametrize("columns", ["²", "-3", "9" * 30, "wide", ""])
def test_a_width_that_is_none(columns: str) -> None:
    command = [sys.executable, "-m", "attnprobe", "presets"]
    environment = os.environ | {"COLUMNS": columns, "LINES": columns}
    outcome = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert "textures-10x10" in outcome.stdout


def test_settings_of_enormous_size(attnprobe, tmp_path: Path) -> None:
    with (tmp_path / "huge.toml").open("wb") as file:
        file.truncate(2**33)  # 8 GiB of nothing
    outcome = attnprobe("train", "huge.toml")
    assert outcome.code == 3
    outcome.complains("huge.toml", "more than 1,048,576 characters", "hint:")


def test_a_loop_of_links(attnprobe, tmp_path: Path) -> None:
    (tmp_path / "one.pt").symlink_to(tmp_path / "two.pt")
    (tmp_path / "two.pt").symlink_to(tmp_path / "one.pt")
    outcome = attnprobe("probe", "proximity", "one.pt")
    assert outcome.code in (1, 3)
    outcome.complains(".pt", "hint:")
    outcome = attnprobe("train", "--out", "one.pt")
    assert outcome.code in (1, 2)
    outcome.complains(".pt", "hint:")


def test_a_world_by_halves(attnprobe, tiny, monkeypatch) -> None:
    for environment, words in (
        ({"WORLD_SIZE": "2"}, "RANK is not set"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'"),
        ({"WORLD_SIZE": "2", "RANK": "7", "MASTER_ADDR": "x", "MASTER_PORT": "1"}, "RANK 7"),
        ({"WORLD_SIZE": "2", "RANK": "x", "MASTER_ADDR": "x", "MASTER_PORT": "1"}, "RANK is 'x'"),
    ):
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            outcome = attnprobe("train", *tiny, "--out", "run", "-q")
        assert outcome.code == 2
        outcome.complains(words, "hint:")


@pytest.mark.parametrize("name", ["result.json", "manifest.json"])
def test_a_damaged_record_of_a_run(attnprobe, trained, tiny, name: str) -> None:
    for content in (b"3", b"[]", b"", b"\xff\xfe", b"{" * 9000):
        (trained / name).write_bytes(content)
        outcome = attnprobe("train", *tiny, "--out", "run", "-q", "--resume")
        assert outcome.code == 3
        outcome.complains(name, "--overwrite")


@pytest.mark.parametrize("line", ["3", "{}", "[", '{"run": 1}', "\xff", "{" * 9000, '{"step": "x"}'])
def test_damaged_trajectory(attnprobe, tmp_path: Path, line: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "trajectory.jsonl").write_text(f"{line}\n{line}\n", encoding="latin-1")
    outcome = attnprobe("probe", "trajectory", "run")
    assert outcome.code == 3
    outcome.complains("line 1 is damaged", "hint:")


def test_the_boundary_is_the_one_that_the_console_script_calls() -> None:
    import attnprobe.cli

    assert attnprobe.cli.main is app.main


def test_names_that_are_no_text(attnprobe, tiny) -> None:
    """Bytes of file names that are no UTF-8: read and written as they are, but a run's settings are kept as text."""
    assert attnprobe("train", *tiny, "--out", "r\udcff", "-q").code == 0
    assert attnprobe("probe", "proximity", "r\udcff/checkpoints/init.pt", "-q", "--csv", "c.csv").code == 0
    assert b"r\xff/checkpoints/init.pt" in Path("c.csv").read_bytes()
    outcome = attnprobe("train", *tiny, "--pretrained", "r\udcff/checkpoints/pretrained.pt", "--out", "two")
    assert outcome.code == 2
    outcome.complains("pretrained must be text that UTF-8 can hold", "hint:")
    assert not Path("two").exists()


def test_a_cache_in_the_home_of_nobody(attnprobe, monkeypatch) -> None:
    monkeypatch.setenv("ATTNPROBE_DATA", "~nobody-of-that-name/data")
    outcome = attnprobe("data", "list")
    assert outcome.code == 2
    outcome.complains("$ATTNPROBE_DATA names the home of nobody", "hint:")
