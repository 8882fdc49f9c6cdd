import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from attnprobe.errors import ArtifactError
from attnprobe.training.execute import execute
from attnprobe.training.saved.checkpoint import FORMAT_VERSION, load_checkpoint


@pytest.fixture
def checkpoint(small, monitor, tmp_path) -> Path:
    execute(
        small("pretrain.epochs=1", "finetune.epochs=1"), tmp_path / "run", device=torch.device("cpu"), monitor=monitor
    )
    return tmp_path / "run" / "checkpoints" / "finetuned.pt"


def test_opens_without_data_and_makes_the_same_model(checkpoint: Path, small) -> None:
    loaded = load_checkpoint(checkpoint)
    assert loaded.phase == "finetuned"
    assert loaded.spec.grid == (5, 5)
    model = loaded.make_model()
    assert not model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state[name])


def test_missing_truncated_foreign_and_newer_files(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="does not exist"):
        load_checkpoint(tmp_path / "none.pt")
    with pytest.raises(ArtifactError, match="is a folder, not a checkpoint"):
        load_checkpoint(tmp_path)
    os.mkfifo(tmp_path / "pipe.pt")  # which nobody writes into: opening it would wait forever
    for what in (tmp_path / "pipe.pt", Path("/dev/null")):
        with pytest.raises(ArtifactError, match="is no regular file"):
            load_checkpoint(what)
    content = checkpoint.read_bytes()
    for size in (0, 10, len(content) // 2, len(content) - 1):
        cut = tmp_path / "cut.pt"
        cut.write_bytes(content[:size])
        with pytest.raises(ArtifactError, match=r"damaged|truncated|no checkpoint"):
            load_checkpoint(cut)
    torch.save({"weights": torch.ones(3)}, tmp_path / "foreign.pt")
    with pytest.raises(ArtifactError, match="was not written by attnprobe"):
        load_checkpoint(tmp_path / "foreign.pt")
    document = torch.load(checkpoint, weights_only=True)
    torch.save(document | {"format_version": FORMAT_VERSION + 1, "attnprobe_version": "9.9"}, tmp_path / "newer.pt")
    with pytest.raises(ArtifactError, match="newer than") as caught:
        load_checkpoint(tmp_path / "newer.pt")
    assert "9.9" in caught.value.hint


@pytest.mark.parametrize("part", ["data.pkl", "data/3"])
def test_changed_bytes_are_noticed(checkpoint: Path, tmp_path: Path, part: str) -> None:
    """In settings as in tensors; some would load as other settings, others make the reader fail."""
    content = checkpoint.read_bytes()
    with zipfile.ZipFile(checkpoint) as archive:
        name = next(n for n in archive.namelist() if n.endswith("/" + part))
        start = content.index(archive.read(name))
        size = archive.getinfo(name).file_size
    for place in range(start, start + size, max(1, size // 29)):
        changed = bytearray(content)
        changed[place] ^= 0x40
        (tmp_path / "changed.pt").write_bytes(changed)
        with pytest.raises(ArtifactError, match="bytes have changed"):
            load_checkpoint(tmp_path / "changed.pt")


@pytest.mark.parametrize("key", ["run", "spec", "state", "target", "epoch"])
def test_damaged_content(checkpoint: Path, tmp_path: Path, key: str) -> None:
    document = torch.load(checkpoint, weights_only=True)
    del document[key]
    torch.save(document, tmp_path / "damaged.pt")
    with pytest.raises(ArtifactError, match="damaged"):
        load_checkpoint(tmp_path / "damaged.pt")


def test_missing_tensor(checkpoint: Path, tmp_path: Path) -> None:
    document = torch.load(checkpoint, weights_only=True)
    del document["state"]["norm.weight"]
    torch.save(document, tmp_path / "damaged.pt")
    with pytest.raises(ArtifactError, match="damaged"):
        load_checkpoint(tmp_path / "damaged.pt")


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_code_in_a_pickle_never_runs(tmp_path: Path, writer: str) -> None:
    proof, file = tmp_path / "it-ran", tmp_path / "trap.pt"
    document = {"format": "attnprobe checkpoint", "format_version": 1, "state": Trap(proof)}
    if writer == "torch":
        torch.save(document, file)
    else:
        file.write_bytes(pickle.dumps(document))
    with pytest.raises(ArtifactError, match="not opened"):
        load_checkpoint(file)
    assert not proof.exists()


def test_a_text_file_is_no_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    for content in (b"[task]\nname = 'textures'\n", b"\x80\x02}q\x00.", b"no\n" * 10**5, b"\xff" * 99):
        (tmp_path / "run.toml").write_bytes(content)
        with pytest.raises(ArtifactError, match=r"is no checkpoint and was not opened") as caught:
            load_checkpoint(tmp_path / "run.toml")
        assert caught.value.hint


def entangled(levels: int) -> list:
    value: list = []
    for _ in range(levels):
        value = [value, value]
    return value


def endless() -> list:
    value: list = []
    value.append(value)
    return value


@pytest.mark.parametrize("value", [entangled(60), endless(), 10**400, "x" * 10**6, {"a": endless()}, [[]] * 250_000])
def test_entangled_and_endless_values(checkpoint: Path, tmp_path: Path, value: object) -> None:
    """A few lists that hold each other are 2 ** 60 values as soon as somebody prints them."""
    document = torch.load(checkpoint, weights_only=True)
    document["run"]["model"]["layers"] = value
    torch.save(document, tmp_path / "entangled.pt")
    with pytest.raises(ArtifactError) as caught:
        load_checkpoint(tmp_path / "entangled.pt")
    assert len(str(caught.value)) < 1000


def rewritten(source: Path, target: Path, change) -> Path:
    """The same archive with another pickle, its checksum right."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            new.writestr(entry.filename, change(content) if entry.filename.endswith("data.pkl") else content)
    return target


def test_sizes_that_the_file_does_not_hold(checkpoint: Path, tmp_path: Path) -> None:
    """torch's own reader believes the pickle and reads beyond its memory."""
    with zipfile.ZipFile(checkpoint) as archive:
        pickled = next(archive.read(n) for n in archive.namelist() if n.endswith("data.pkl"))
    for small, large in ((b"K\x0c", b"K\xfc"), (b"K\x0c\x85", b"K\xff\x85"), (b"K\x00", b"K\xf0")):
        assert small in pickled
        path = rewritten(checkpoint, tmp_path / "sizes.pt", lambda c, a=small, b=large: c.replace(a, b))
        with pytest.raises(ArtifactError, match="cannot be read"):
            load_checkpoint(path)


def test_an_archive_that_is_compressed_or_overlapping(checkpoint: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "small.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 10**8)
    with pytest.raises(ArtifactError, match="compressed"):
        load_checkpoint(tmp_path / "small.pt")


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("phase", ["", "step-x", 3, None]),
        ("epoch", [-1, 1.5, "x", True]),
        ("numbers", [{"a": "b"}, 3, {"a": torch.zeros(1)}]),
        ("target", ["pixels", None, "classes"]),
        ("state", [{}, 3, {"norm.weight": 3}]),
        ("spec", [{}, 3, {"length": 25, "classes": -4}, {"length": 10**15, "classes": 4}]),
        ("pretrain", [3, {"objective": 1}]),
    ],
)
def test_parts_of_a_wrong_kind(checkpoint: Path, tmp_path: Path, key: str, values: list) -> None:
    document = torch.load(checkpoint, weights_only=True)
    for value in values:
        torch.save(document | {key: value}, tmp_path / "wrong.pt")
        with pytest.raises(ArtifactError) as caught:
            load_checkpoint(tmp_path / "wrong.pt")
        assert caught.value.hint


def test_tensors_of_a_wrong_shape_or_type(checkpoint: Path, tmp_path: Path) -> None:
    document = torch.load(checkpoint, weights_only=True)
    state = document["state"]
    for wrong in (torch.zeros(11), torch.zeros(12, dtype=torch.float64), torch.zeros(1).expand(10**12), "x"):
        torch.save(document | {"state": state | {"norm.weight": wrong}}, tmp_path / "wrong.pt")
        with pytest.raises(ArtifactError, match=r"norm\.weight|larger than its record|tensors are missing"):
            load_checkpoint(tmp_path / "wrong.pt")


def test_opening_leaves_the_global_seed_alone(checkpoint: Path) -> None:
    before = torch.random.get_rng_state()
    load_checkpoint(checkpoint)
    assert torch.equal(torch.random.get_rng_state(), before)
