import multiprocessing
import os
import time
from pathlib import Path

import pytest

from attnprobe.errors import ArtifactError, RunError
from attnprobe.files.ownership import mark
from attnprobe.tasks.sources.cache import REMAINS, build_once, cache_dir, discard, locked


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATTNPROBE_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_environment_names_the_folder(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_dir() == cache
    monkeypatch.setenv("ATTNPROBE_DATA", "~/elsewhere")
    assert cache_dir() == Path.home() / "elsewhere"


def test_without_environment_the_system_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ATTNPROBE_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "attnprobe"


def test_a_folder_is_built_once(cache: Path) -> None:
    calls = []

    def make(path: Path) -> None:
        calls.append(path)
        path.mkdir()
        (path / "file").write_text("content")

    for _ in range(2):
        target = build_once(cache / "deep" / "target", make)
        assert (target / "file").read_text() == "content"
    assert len(calls) == 1


def test_a_failed_build_leaves_nothing(cache: Path) -> None:
    def fail(path: Path) -> None:
        path.mkdir()
        (path / "half").write_text("done")
        raise ArtifactError("no")

    with pytest.raises(ArtifactError):
        build_once(cache / "target", fail)
    assert [path.name for path in cache.rglob("*") if not path.name.endswith(".lock")] == []


def test_what_a_killed_process_left_is_removed(cache: Path) -> None:
    remains = cache / ".target-abc123" / "content"
    remains.mkdir(parents=True)
    mark(remains.parent, REMAINS)
    build_once(cache / "target", lambda path: path.mkdir())
    assert not remains.parent.exists()


@pytest.mark.skipif(os.name != "posix", reason="modes")
def test_a_place_that_cannot_be_written_is_one_line(cache: Path) -> None:
    cache.parent.mkdir(exist_ok=True)
    cache.write_text("a file where a folder should be")
    with pytest.raises(RunError, match="cannot write"):
        build_once(cache / "target", lambda path: path.mkdir())


def _slow_builder(target: Path, log: Path) -> None:
    def make(path: Path) -> None:
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        path.mkdir()
        for i in range(5):
            (path / f"{i}").write_text("x")
            time.sleep(0.02)

    build_once(target, make)
    assert len(list(target.glob("[0-9]"))) == 5  # never seen half done


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes that start at once")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # the children only touch files
def test_processes_share_one_build(cache: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_slow_builder, args=(cache / "target", tmp_path / "log")) for _ in range(5)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert len((tmp_path / "log").read_text().split()) == 1


def test_the_lock_is_free_after_an_error(cache: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(cache / "target"):
        _ = 1 / 0
    with locked(cache / "target"):
        pass


def test_only_folders_that_bear_the_marker_are_cleared(tmp_path: Path) -> None:
    target = tmp_path / "entry"
    for name in (".entry-mine", ".entry-empty", ".entry-killed"):
        (tmp_path / name).mkdir()
    (tmp_path / ".entry-mine" / "thesis.tex").write_text("years of work")
    (tmp_path / ".entry-link").symlink_to(tmp_path / ".entry-mine")
    mark(tmp_path / ".entry-killed", REMAINS)

    def make(folder: Path) -> None:
        folder.mkdir()
        (folder / "x.npy").write_text("x")

    build_once(target, make)
    assert (tmp_path / ".entry-mine" / "thesis.tex").read_text() == "years of work"
    assert (tmp_path / ".entry-link").is_symlink()
    assert not (tmp_path / ".entry-empty").exists()
    assert not (tmp_path / ".entry-killed").exists()
    (target / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactError, match=r"it holds notes\.txt, which attnprobe did not write"):
        discard(target)
    (target / "notes.txt").unlink()
    discard(target)
    assert not target.exists()
