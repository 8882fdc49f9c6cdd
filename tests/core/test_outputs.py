"""What stands at the place of an output is replaced only if attnprobe wrote it, as an output of the same kind."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from attnprobe.cli.probe.files import write_arrays, write_csv
from attnprobe.errors import ConfigError
from attnprobe.files.outputs import SIGNS, Kind, check_outputs, check_replaceable, figure_files, further_figure
from attnprobe.report.style import save_figure

ROW = {"checkpoint": "a.pt", "quantity": "bias", "estimate": 1.0, "low": 0.5, "high": 1.5, "level": 0.95, "n": 9}
ROW |= {"unit": "sd", "p_value": None, "q_value": None}


def write(kind: str, folder: Path) -> list[Path]:
    """Files as attnprobe writes them."""
    if kind == "rows":
        write_csv(folder / "own.csv", [ROW])
        return [folder / "own.csv"]
    if kind == "arrays":
        write_arrays(folder / "own.npz", {"a": {"x": np.arange(3), "axes": np.array("{}")}})
        return [folder / "own.npz"]
    return save_figure(Figure(), folder / "own")


@pytest.mark.parametrize("kind", ["rows", "arrays", "figure"])
def test_own_outputs_are_replaced_and_those_of_another_kind_are_not(kind: Kind, tmp_path: Path) -> None:
    files = write(kind, tmp_path)
    assert write(kind, tmp_path) == files
    for file in files:
        for other in SIGNS:
            if other != kind:
                with pytest.raises(ConfigError, match=f"is no {other} file written by attnprobe"):
                    check_replaceable(file, other)


def strangers(folder: Path) -> list[Path]:
    """Files of the right formats that somebody else wrote."""
    (folder / "table.csv").write_text("name,estimate\nx,1\n")
    (folder / "intervals.csv").write_text("quantity,estimate,low,high,comment\nmass,1,0,2,weighed twice\n")
    (folder / "notes.txt").write_text("my thesis")
    (folder / "bytes.bin").write_bytes(os.urandom(99))
    Figure().savefig(folder / "plot.png")
    Figure().savefig(folder / "plot.pdf")
    np.savez(folder / "data.npz", x=np.arange(3))
    np.savez(folder / "axes.npz", axes=np.arange(3), x=np.arange(3))
    np.save(folder / "axes.npy", np.arange(3))
    with zipfile.ZipFile(folder / "archive.pt", "w") as archive:
        archive.writestr("archive/data.pkl", b"x")
    (folder / "numbers.json").write_text("3")
    (folder / "nested.json").write_text("[" * 100_000)
    (folder / "notes.md").write_text("`attnprobe bench` is what I ran, with these thoughts\n")
    (folder / "README.md").write_text("# mine\n")
    (folder / "link.csv").symlink_to(folder / "table.csv")
    (folder / "dangling.csv").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "pipe")
    return sorted(folder.iterdir())


@pytest.mark.parametrize("kind", SIGNS)
def test_no_strangers_file_is_replaced(kind: Kind, tmp_path: Path) -> None:
    for file in strangers(tmp_path):
        with pytest.raises(ConfigError, match="exists and is no"):
            check_outputs([("--csv", kind, [file])])
        with pytest.raises(ConfigError, match="exists and is no"):
            check_replaceable(file, kind)


def test_writing_looks_again(tmp_path: Path) -> None:
    """Somebody may have put a file there while a probe was measuring."""
    (tmp_path / "f.png").write_text("x")
    with pytest.raises(ConfigError, match="is no figure file"):
        save_figure(Figure(), tmp_path / "f")
    assert not (tmp_path / "f.pdf").exists(), "all or nothing"
    for write_file in (lambda path: write_csv(path, [ROW]), lambda path: write_arrays(path, {})):
        with pytest.raises(ConfigError, match="written by attnprobe"):
            write_file(tmp_path / "f.png")
    assert (tmp_path / "f.png").read_text() == "x"


def test_an_empty_file_may_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "made-by-mktemp").touch()
    check_outputs([("--csv", "rows", [tmp_path / "made-by-mktemp"])])


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", Path("/proc/nowhere")):
        with pytest.raises(ConfigError, match=r"--npz .* cannot be written"):
            check_outputs([("--npz", "arrays", [folder / "x.npz"])])


@pytest.mark.parametrize(
    ("name", "files", "further"),
    [
        ("f.png", ["f.png"], "f_maps.png"),
        ("f.PDF", ["f.PDF"], "f_maps.PDF"),
        ("f", ["f.png", "f.pdf"], "f_maps"),
        ("v1.5", ["v1.5.png", "v1.5.pdf"], "v1.5_maps"),
    ],
)
def test_names_of_figures(name: str, files: list[str], further: str) -> None:
    assert figure_files(Path("a") / name) == [Path("a") / file for file in files]
    assert further_figure(Path("a") / name, "maps") == Path("a") / further
    assert further_figure(Path("a") / name, "s0/init").parent == Path("a")
