from pathlib import Path

import pytest

from attnprobe.tasks.sources import copies


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and no data of the system's."""
    monkeypatch.setenv("ATTNPROBE_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr(copies, "SYSTEM_FOLDER", tmp_path / "system")
    return tmp_path / "cache"
