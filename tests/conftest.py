import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: tiny tensors only lose time to threads
os.environ.setdefault("MPLBACKEND", "Agg")

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("attnprobe", deadline=None, derandomize=True)
hypothesis.settings.load_profile("attnprobe")


@pytest.fixture(autouse=True)
def _quiet_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread, and no setting of the person who runs the tests."""
    torch.set_num_threads(1)
    for name in [name for name in os.environ if name.startswith("ATTNPROBE_")]:
        monkeypatch.delenv(name)
