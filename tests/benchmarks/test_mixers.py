"""The benchmark of mixers runs, and what it compares is the same."""

from attnprobe.models.mixers import MIXERS
from tests.benchmarks.mixers import growth, windows_beside_dense


def test_rows() -> None:
    row = windows_beside_dense(29, 4)
    assert row["L / 3w"] == f"{29 / 12:.1f}"
    assert float(row["windows, ms"]) > 0
    for name in MIXERS:
        assert float(growth(name, lengths=(32, 64))["ms at 64"]) > 0
