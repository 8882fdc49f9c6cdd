import dataclasses
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from typer.testing import CliRunner, Result

from attnprobe.cli.data.command import data_app
from attnprobe.errors import ArtifactError, ConfigError, RunError
from attnprobe.tasks import TASKS
from attnprobe.tasks.sources import copies
from attnprobe.tasks.sources.catalogue import SOURCES, Source
from tests.tasks.sources.serving import Server, serve
from tests.tasks.sources.test_archives import make_tar
from tests.tasks.true_formats import (
    shrink,
    write_aan,
    write_bidmc,
    write_cifar_binary,
    write_imdb,
    write_speech,
)

SMALL = ["-s", "n_train=12", "-s", "n_validation=4", "-s", "n_test=4"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATTNPROBE_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr(copies, "SYSTEM_FOLDER", tmp_path / "system")
    shrink(monkeypatch)
    return tmp_path / "cache"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """Serves a small IMDb archive, and the table says so."""
    write_imdb(tmp_path / "made" / "aclImdb")
    files = {str(p.relative_to(tmp_path / "made")): p.read_bytes() for p in (tmp_path / "made").rglob("*.txt")}
    content = make_tar(tmp_path / "made.tar.gz", files).read_bytes()
    with serve() as running:
        running.files["/imdb"] = content
        (file,) = SOURCES["imdb"].files
        checksum = f"md5:{hashlib.md5(content).hexdigest()}"
        file = dataclasses.replace(file, urls=(running.url("/imdb"),), size=len(content), checksum=checksum)
        counts = dict.fromkeys(SOURCES["imdb"].counts, 10)
        monkeypatch.setitem(SOURCES, "imdb", dataclasses.replace(SOURCES["imdb"], files=(file,), counts=counts))
        yield running


def invoke(*arguments: str, answer: str | None = None) -> Result:
    return CliRunner().invoke(data_app, list(arguments), input=answer)


def run_json(*arguments: str) -> Any:
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.exception
    return json.loads(result.stdout)


def fails(error: type[Exception], *arguments: str, answer: str | None = None) -> Exception:
    result = invoke(*arguments, answer=answer)
    assert isinstance(result.exception, error), result.output
    assert result.stdout == ""
    return result.exception


@pytest.mark.parametrize("command", ["list", "fetch", "generate", "verify", "describe"])
def test_help_has_examples(command: str) -> None:
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert "Examples:" in result.stdout
    assert f"attnprobe data {command}" in result.stdout


def test_help_does_not_import_torch() -> None:
    code = "import sys, attnprobe.cli.data.command; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_list_knows_every_source_and_task(cache: Path) -> None:
    document = run_json("list")
    assert document["cache"] == str(cache)
    assert {source["name"]: source["status"] for source in document["sources"]} == dict.fromkeys(SOURCES, "absent")
    tasks = {task["name"]: task["sources"] for task in document["tasks"]}
    assert tasks["image"] == ["cifar-10", "cifar-10-python"]
    assert tasks["textures"] == []
    write_cifar_binary(cache / "cifar-10")
    statuses = {source["name"]: source["status"] for source in run_json("list")["sources"]}
    assert (statuses["cifar-10"], statuses["cifar-10-python"]) == ("ready", "absent")
    text = invoke("list").stdout
    assert "170.1 MB" in text
    assert "generated" in text


def test_fetch_asks_with_the_size(server: Server, cache: Path) -> None:
    error = fails(RunError, "fetch", "text", answer="n\n")
    assert str(error) == "imdb was not downloaded"
    assert server.requests == []
    result = invoke("fetch", "text", answer="y\n")
    assert result.exit_code == 0, result.exception
    assert f"Download 0.0 MB to {cache / 'imdb'}?" in result.stderr
    assert result.stdout == ""
    assert (cache / "imdb" / "aclImdb_v1.tar.gz").exists()


def test_fetch_without_anybody_to_ask_downloads_nothing(server: Server) -> None:
    error = fails(RunError, "fetch", "imdb")
    assert "--yes" in error.hint  # pyright: ignore[reportAttributeAccessIssue]
    assert server.requests == []


def test_fetch_unpacks_and_is_done_once(server: Server, cache: Path) -> None:
    for _ in range(2):
        document = run_json("fetch", "imdb", "--yes")
        (fetched,) = document["fetched"]
        folder = Path(fetched["folder"])
        assert (folder / "train" / "pos").is_dir()
        assert folder.is_relative_to(cache)
    assert len(server.requests) == 1
    assert run_json("describe", "text", "-s", "max_length=64")["splits"]["test"]["samples"] == 20
    assert run_json("verify")["passed"]


def test_fetch_replaces_a_wrong_archive_after_asking(server: Server, cache: Path) -> None:
    (cache / "imdb").mkdir(parents=True)
    (cache / "imdb" / "aclImdb_v1.tar.gz").write_bytes(b"cut")
    fails(RunError, "fetch", "imdb", answer="n\n")
    assert invoke("fetch", "imdb", answer="y\n").exit_code == 0
    assert run_json("verify", "imdb")["passed"]


def test_fetch_takes_an_archive_that_lies_elsewhere(server: Server, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "made.tar.gz").rename(tmp_path / "mine" / "aclImdb_v1.tar.gz")
    run_json("fetch", "imdb", "--data-dir", str(tmp_path / "mine"))
    assert server.requests == []


def test_offline_fetch_is_one_line(server: Server) -> None:
    server.files.clear()
    error = fails(ArtifactError, "fetch", "imdb", "--yes")
    assert "404" in str(error)
    assert server.url("/imdb") in error.hint  # pyright: ignore[reportAttributeAccessIssue]


def test_a_mistyped_data_folder_is_not_passed_over(tmp_path: Path) -> None:
    for command in (["list"], ["verify"], ["describe", "image"], ["describe", "listops", "-s", "source=published"]):
        assert "there is no folder" in str(fails(ArtifactError, *command, "--data-dir", str(tmp_path / "typo")))


def test_fetch_makes_the_folder_it_is_given(server: Server, tmp_path: Path) -> None:
    document = run_json("fetch", "imdb", "--yes", "--data-dir", str(tmp_path / "new" / "disk"))
    assert len(document["fetched"]) == 1
    assert (tmp_path / "new" / "disk" / "imdb" / "aclImdb_v1.tar.gz").exists()


def test_a_sheet_is_a_png_file() -> None:
    error = fails(ConfigError, "describe", "textures", "--figure", "sheet.jpg")
    assert "sheet.jpg is not a PNG" in str(error)


def test_fetch_of_unknown_names_is_refused() -> None:
    assert "there is no data set 'imbd'" in str(fails(ConfigError, "fetch", "imbd"))
    assert "textures needs no download" in str(fails(ConfigError, "fetch", "textures"))


def test_a_task_of_three_targets_fetches_all(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    for target in ("RR", "HR", "SpO2"):
        write_bidmc(cache / "bidmc", target)
    names = [fetched["name"] for fetched in run_json("fetch", "bidmc")["fetched"]]
    assert names == ["bidmc-rr", "bidmc-hr", "bidmc-spo2"]


def test_verify_names_what_differs_and_fails(server: Server) -> None:
    (fetched,) = run_json("fetch", "imdb", "--yes")["fetched"]
    next((Path(fetched["folder"]) / "train" / "neg").iterdir()).unlink()
    result = invoke("verify", "text", "--json")
    assert result.exit_code == 5
    document = json.loads(result.stdout)
    assert not document["passed"]
    failed = [check for check in document["sources"]["imdb"] if check["ok"] is False]
    assert [(check["what"], check["found"]) for check in failed] == [("train/neg/*.txt", "9 files")]
    assert "WRONG" in invoke("verify").stdout


def test_verify_of_nothing(cache: Path) -> None:
    assert run_json("verify") == {"passed": True, "sources": {}}
    fails(ArtifactError, "verify", "image")


def test_verify_compares_with_the_published_checksums(cache: Path) -> None:
    write_cifar_binary(cache / "cifar-10")  # the right format, other images
    result = invoke("verify", "image", "--json")
    assert result.exit_code == 5
    wrong = [check["what"] for check in json.loads(result.stdout)["sources"]["cifar-10"] if check["ok"] is False]
    assert len(wrong) == 6


def test_generate_reports_the_same_data_every_time() -> None:
    first, second = (run_json("generate", "textures", "-s", "side=5", *SMALL) for _ in range(2))
    assert first["fingerprint"] == second["fingerprint"]
    assert first["splits"]["train"]["class_counts"] == [3, 3, 3, 3]
    assert "fingerprint" in invoke("generate", "textures", "-s", "task.side=5", *SMALL).stderr


def test_generate_refuses_what_is_read() -> None:
    assert "read from files" in str(fails(ConfigError, "generate", "image"))
    assert "unknown setting 'task.sides'" in str(fails(ConfigError, "generate", "textures", "-s", "sides=5"))
    assert "there is no task 'texture'" in str(fails(ConfigError, "generate", "texture"))


def test_quiet_says_nothing() -> None:
    result = invoke("describe", "textures", "-s", "side=5", *SMALL, "-q")
    assert (result.exit_code, result.output) == (0, "")


WRITERS = {
    "image": write_cifar_binary,
    "scifar": write_cifar_binary,
    "text": write_imdb,
    "retrieval": write_aan,
    "speech-commands": write_speech,
    "bidmc": write_bidmc,
}


@pytest.mark.parametrize("name", WRITERS)
def test_describe_counts_and_draws(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / "data")
    figure = tmp_path / "figures" / "sheet.png"
    arguments = ["describe", name, "--data-dir", str(tmp_path / "data"), "--figure", str(figure)]
    document = run_json(*arguments)
    data = TASKS[name]().load(tmp_path / "data")
    assert document["fingerprint"] == data.fingerprint()
    for split_name, split in data.splits().items():
        facts = document["splits"][split_name]
        assert facts["shape"] == list(split.inputs.shape)
        if name == "bidmc":
            assert facts["labels"]["max"] == pytest.approx(split.labels.max().item())
        else:
            assert sum(facts["class_counts"]) == len(split)
        if split.lengths is not None:
            assert sum(facts["lengths"]["counts"]) == split.lengths.numel()
            assert facts["lengths"]["max"] == split.lengths.max()
    with PIL.Image.open(figure) as image:
        assert min(image.size) > 100
        assert len(np.unique(np.asarray(image.convert("L")))) > 10  # not a blank page
    text = invoke(*arguments[:-2])
    assert "fingerprint" in text.stderr
    assert " x ".join(map(str, data.train.inputs.shape)) in text.stdout


def test_a_source_of_unknown_size_is_asked_for_as_such() -> None:
    source = Source(title="t", folder="f", files=SOURCES["aan"].files, markers=("m",))
    from attnprobe.cli.data.downloads import known_size, megabytes

    assert known_size(source) is None
    assert megabytes(None) == "?"
    assert megabytes(84_125_825) == "84.1 MB"
