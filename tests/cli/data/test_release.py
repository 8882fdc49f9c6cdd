"""The release of the Long Range Arena: one archive, one download, several data sets of which each is unpacked alone."""

import dataclasses
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from attnprobe.cli.data.command import data_app
from attnprobe.errors import ArtifactError, RunError
from attnprobe.tasks.listops import ListOps
from attnprobe.tasks.pathfinder import Pathfinder
from attnprobe.tasks.sources import copies, download
from attnprobe.tasks.sources.catalogue import PATHFINDER_FOLDERS, SOURCES
from tests.tasks.listops.test_listops import SMALL, write_published
from tests.tasks.pathfinder.test_published import N, make_archive
from tests.tasks.sources.serving import Server, serve
from tests.tasks.sources.test_archives import make_tar
from tests.tasks.true_formats import write_aan

ROOT = "lra_release/lra_release"
HARD = PATHFINDER_FOLDERS[14]
LRA = [name for name, source in SOURCES.items() if source.download_folder == "lra"]


def release(folder: Path) -> bytes:
    """A small archive with the layout of the published one; only one difficulty of Pathfinder."""
    write_published(folder / "listops-1000", SMALL)
    write_aan(folder / "tsv_data")
    make_archive(folder)
    for side in (64, 128, 256):
        make_archive(folder / "other")
        (folder / "other" / "pathfinder32").rename(folder / f"pathfinder{side}")
    (folder / "other").rmdir()
    files = {f"{ROOT}/{p.relative_to(folder)}": p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    files[f"{ROOT}/elsewhere"] = random.Random(0).randbytes(600_011)  # nobody wants it
    return make_tar(folder.parent / "made.gz", files).read_bytes()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATTNPROBE_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr(copies, "SYSTEM_FOLDER", tmp_path / "system")
    return tmp_path / "cache"


@pytest.fixture
def server(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serve() as running:
        running.files["/lra"] = release(tmp_path / "made")
        for name in LRA:
            (file,) = SOURCES[name].files
            file = dataclasses.replace(file, urls=(running.url("/lra"),), about=0)
            changes: dict[str, Any] = {"files": (file,), "on_disk": 0}
            if name == "listops":
                changes["rows"] = {"basic_train.tsv": 1_001, "basic_val.tsv": 54, "basic_test.tsv": 48}
            if name.startswith("pathfinder"):
                changes["counts"] = dict.fromkeys(SOURCES[name].counts, N)
                changes["lines"] = dict.fromkeys(SOURCES[name].lines, N)
            monkeypatch.setitem(SOURCES, name, dataclasses.replace(SOURCES[name], **changes))
        yield running


def invoke(*arguments: str, answer: str | None = None) -> Result:
    return CliRunner().invoke(data_app, list(arguments), input=answer)


def run_json(*arguments: str, exit_code: int = 0) -> Any:
    result = invoke(*arguments, "--json")
    assert result.exit_code == exit_code, result.exception
    return json.loads(result.stdout)


def statuses() -> dict[str, str]:
    return {source["name"]: source["status"] for source in run_json("list")["sources"] if source["name"] in LRA}


def test_all_of_the_release_are_known() -> None:
    assert LRA == ["aan", "listops", "pathfinder32", "pathfinder64", "pathfinder128", "pathfinder256"]


def test_one_download_serves_all_and_each_is_unpacked_alone(server: Server, cache: Path) -> None:
    (fetched,) = run_json("fetch", "listops", "--yes")["fetched"]
    assert statuses() == {name: "ready" if name == "listops" else "packed" for name in LRA}
    assert sorted(p.name for p in cache.rglob("*.tsv")) == ["basic_test.tsv", "basic_train.tsv", "basic_val.tsv"]
    assert not list(cache.rglob("*.png"))
    assert ListOps.load(dataclasses.replace(SMALL, source="published")).fingerprint() == SMALL.load().fingerprint()
    assert Path(fetched["folder"]).is_relative_to(cache / "listops")

    (fetched,) = run_json("fetch", "pathfinder64")["fetched"]  # nothing to agree to: the archive is here
    assert len(server.requests) == 1
    folders = {str(p).split("lra_release/")[-1].partition("/")[0] for p in cache.rglob("*.png")}
    assert folders == {"pathfinder64"}
    assert (Path(fetched["folder"]) / HARD / "metadata" / "0.npy").is_file()
    run_json("fetch", "pathfinder32", "aan")
    packed = ("pathfinder128", "pathfinder256")
    assert statuses() == {name: "packed" if name in packed else "ready" for name in LRA}
    data = Pathfinder(source="published").load()
    assert [len(split) for split in data.splits().values()] == [48, 6, 6]
    assert len(server.requests) == 1


def test_a_task_fetches_all_its_sizes(server: Server) -> None:
    names = [fetched["name"] for fetched in run_json("fetch", "pathfinder", "--yes")["fetched"]]
    assert names == LRA[2:]
    assert len(server.requests) == 1


@pytest.mark.parametrize("tells_size", [True, False])
def test_a_broken_download_goes_on(server: Server, cache: Path, tells_size: bool) -> None:
    """Nobody published the size of this archive, so only the server can say whether all of it has arrived."""
    server.tells_size = tells_size
    whole = server.files["/lra"]
    server.cut["/lra"] = 400_000
    result = invoke("fetch", "listops", "--yes")
    assert isinstance(result.exception, ArtifactError)
    part = cache / "lra" / ".lra_release.gz.part"
    arrived = part.stat().st_size
    assert 0 < arrived < len(whole)
    run_json("fetch", "listops", "--yes")
    assert server.requests[1:] == [("/lra", f"bytes={arrived}-")]
    archive = cache / "lra" / "lra_release.gz"
    assert archive.read_bytes() == whole
    archive.rename(part)  # as if killed between the last byte and the renaming
    run_json("fetch", "pathfinder32", "--yes")
    assert len(server.requests) == (3 if tells_size else 4)  # without the size it must be brought again
    assert archive.read_bytes() == whole


def test_the_size_is_told_before_the_download(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    (file,) = SOURCES["listops"].files
    changed = dataclasses.replace(SOURCES["listops"], files=(dataclasses.replace(file, about=7_700_000_000),))
    monkeypatch.setitem(SOURCES, "listops", changed)
    result = invoke("fetch", "listops", answer="n\n")
    assert isinstance(result.exception, RunError)
    assert "Download about 7700.0 MB" in result.stderr
    assert server.requests == []


@pytest.mark.parametrize("about", [1_000, 0])
def test_a_full_disk_is_noticed_before_or_by_what_the_server_says(
    server: Server, monkeypatch: pytest.MonkeyPatch, about: int
) -> None:
    (file,) = SOURCES["listops"].files
    changed = dataclasses.replace(SOURCES["listops"], files=(dataclasses.replace(file, about=about),))
    monkeypatch.setitem(SOURCES, "listops", changed)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 999}))
    result = invoke("fetch", "listops", "--yes")
    assert isinstance(result.exception, RunError)
    assert "999 bytes free" in str(result.exception)
    assert len(server.requests) == (0 if about else 1)


def test_room_is_asked_for_before_unpacking(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_json("fetch", "listops", "--yes")
    monkeypatch.setitem(SOURCES, "aan", dataclasses.replace(SOURCES["aan"], on_disk=1 << 60))
    result = invoke("fetch", "aan")
    assert isinstance(result.exception, RunError)
    assert f"takes about {1 << 60}" in str(result.exception)
    assert result.exception.hint
    assert not list((cache / "aan").glob("unpacked*"))


def test_verify_counts_files_lines_and_rows(server: Server) -> None:
    run_json("fetch", "listops", "pathfinder32", "--yes")
    document = run_json("verify", "listops", "pathfinder32")
    checks = {check["what"]: check for found in document["sources"].values() for check in found}
    assert checks["basic_train.tsv"]["ok"] is True
    assert checks[f"{HARD}/imgs/*/*.png"] | {"expected": ""} == {
        "what": f"{HARD}/imgs/*/*.png",
        "ok": True,
        "found": "60 files",
        "expected": "",
    }
    assert checks[f"{HARD}/metadata/*.npy"]["found"] == "60 lines"
    assert checks["curv_baseline/imgs/*/*.png"]["ok"] is None  # left out as a whole
    assert checks["curv_baseline/imgs/*/*.png"]["found"] == "absent"


def test_verify_names_what_was_lost(server: Server) -> None:
    first, second = run_json("fetch", "listops", "pathfinder32", "--yes")["fetched"]
    path = Path(first["folder"]) / "basic_val.tsv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    next((Path(second["folder"]) / HARD / "imgs").rglob("*.png")).unlink()
    metadata = Path(second["folder"]) / HARD / "metadata" / "0.npy"
    metadata.write_text("".join(metadata.read_text().splitlines(keepends=True)[:-2]))
    document = run_json("verify", "pathfinder32", "listops", exit_code=5)
    failed = {c["what"]: c["found"] for found in document["sources"].values() for c in found if c["ok"] is False}
    assert failed == {
        "basic_val.tsv": "53 rows",
        f"{HARD}/imgs/*/*.png": "59 files",
        f"{HARD}/metadata/*.npy": "58 lines",
    }


def test_verify_of_everything_unpacks_nothing(server: Server, cache: Path) -> None:
    run_json("fetch", "listops", "--yes")
    result = invoke("verify", "--json")
    assert list(json.loads(result.stdout)["sources"]) == ["listops"]
    assert "aan (packed)" in invoke("verify").stderr
    assert not list(cache.rglob("*.png"))


def test_the_tables_are_those_of_the_protocol() -> None:
    assert SOURCES["listops"].rows == {"basic_train.tsv": 96_001, "basic_val.tsv": 2_001, "basic_test.tsv": 2_001}
    for side in (32, 64, 128, 256):
        source = SOURCES[f"pathfinder{side}"]
        assert set(source.counts.values()) == set(source.lines.values()) == {200_000}
        assert len(source.counts) == 3
