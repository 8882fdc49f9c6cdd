"""The cache of generated data: what was changed since is noticed, what has no checksums is made again."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from attnprobe.errors import ArtifactError
from attnprobe.tasks.sources.generated import CHECKSUMS, SETTINGS, keep, read_kept

MADE: list[Path] = []


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATTNPROBE_DATA", str(tmp_path))
    MADE.clear()
    return again()


def again() -> Path:
    return keep("numbers", {"n": 7}, write)


def write(folder: Path) -> None:
    MADE.append(folder)
    np.save(folder / "numbers.npy", np.arange(7, dtype=np.int16))


def test_every_flipped_bit_is_noticed(kept: Path) -> None:
    path = kept / "numbers.npy"
    content = path.read_bytes()
    assert np.array_equal(read_kept(kept, "numbers"), np.arange(7))
    draw = random.Random(0)
    for place in [*range(0, len(content), 5), len(content) - 1]:
        changed = bytearray(content)
        changed[place] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(ArtifactError, match=r"is damaged: its bytes") as caught:
            read_kept(kept, "numbers")
        assert str(kept) in caught.value.hint
    path.write_bytes(content)
    assert np.array_equal(read_kept(kept, "numbers"), np.arange(7))


def test_cut_missing_and_foreign_files(kept: Path) -> None:
    path = kept / "numbers.npy"
    for content in (b"", b"x", path.read_bytes()[:-1]):
        path.write_bytes(content)
        with pytest.raises(ArtifactError, match="damaged"):
            read_kept(kept, "numbers")
    path.unlink()
    with pytest.raises(ArtifactError, match="does not exist"):
        read_kept(kept, "numbers")
    for content in (b"3", b"\xff", b"{}", b'{"numbers.npy": 3}', b"[" * 9000):
        (kept / CHECKSUMS).write_bytes(content)
        with pytest.raises(ArtifactError):
            read_kept(kept, "numbers")


def test_a_folder_without_checksums_is_made_again(kept: Path) -> None:
    (kept / CHECKSUMS).unlink()
    np.save(kept / "numbers.npy", np.zeros(7))
    assert again() == kept
    assert len(MADE) == 2
    assert np.array_equal(read_kept(kept, "numbers"), np.arange(7))
    assert again() == kept
    assert len(MADE) == 2
    assert [path.name for path in kept.parent.iterdir() if path.is_dir()] == [kept.name]


@pytest.mark.parametrize("content", [b"\xff\xfe", b"{}", b"", json.dumps({"n": 8}).encode()])
def test_settings_of_others_or_not_of_text_are_never_touched(kept: Path, content: bytes) -> None:
    (kept / SETTINGS).write_bytes(content)
    for name in (CHECKSUMS, None):
        if name:
            (kept / name).unlink()
        with pytest.raises(ArtifactError, match="was not made with the settings") as caught:
            again()
        assert f"move {kept} away" in caught.value.hint, "it may be a stranger's: nobody is told to delete it"
        assert (kept / SETTINGS).read_bytes() == content


def test_one_reading_of_the_bytes_is_enough_for_a_process(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_kept(kept, "numbers")
    monkeypatch.setattr("attnprobe.tasks.sources.generated.checksum", lambda path: pytest.fail("read again"))
    read_kept(kept, "numbers")
