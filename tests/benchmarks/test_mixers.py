"""The benchmark of mixers runs, and what it compares is the same."""

from attnprobe.models.mixers import MIXERS
from tests.benchmarks.mixers import growth, long_windows, windows_beside_dense


def test_rows() -> None:
    row = windows_beside_dense(29, 4)
    assert row["L / 3w"] == f"{29 / 12:.1f}"
    assert float(row["windows, ms"]) > 0
    for name in MIXERS:
        assert float(growth(name, lengths=(32, 64))["ms at 64"]) > 0


def test_long_windows() -> None:
    first, second = long_windows((512, 4096), window=16)
    assert not first["exponent of time"]
    assert 0.5 < float(second["exponent of memory"]) < 1.5
