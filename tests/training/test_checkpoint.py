import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from attnprobe.errors import ArtifactError
from attnprobe.training.checkpoint import FORMAT_VERSION, load_checkpoint
from attnprobe.training.execute import execute


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
