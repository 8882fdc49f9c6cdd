"""Which device a name means."""

import pytest
import torch

from attnprobe.errors import ConfigError, RunError
from attnprobe.machine import choose_device

CPU = torch.device("cpu")


def test_devices(monkeypatch) -> None:
    assert choose_device("cpu") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == CPU
    with pytest.raises(RunError, match="no cuda device"):
        choose_device("cuda")
    with pytest.raises(ConfigError, match="unknown device"):
        choose_device("gpu")
