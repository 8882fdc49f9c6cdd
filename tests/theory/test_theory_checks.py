"""The public interface, and every claim at lengths short and long, odd and even."""

import json
import math
import subprocess
import sys

import pytest

from theory.checks import CLAIMS, Row, verify
from theory.setting import Setting

NAMES = [claim.name for claim in CLAIMS]


def failures(rows: list[Row]) -> list[Row]:
    return [row for row in rows if not row.passed]


@pytest.mark.parametrize("claim", CLAIMS, ids=NAMES)
@pytest.mark.parametrize(("length", "dim"), [(3, 1), (4, 2), (5, 3), (8, 7), (13, 5), (64, 5)])
def test_every_row_passes(claim, length, dim):
    rows = claim.rows(Setting(length=length, dim=dim, seed=length, draws=20_000 if length == 64 else 4000))
    assert not failures(rows)
    assert {row.claim for row in rows} == {claim.name}
    assert len({row.quantity for row in rows}) == len(rows), "two rows have one name"


@pytest.mark.parametrize("claim", CLAIMS, ids=NAMES)
def test_every_claim_has_checks_and_negative_controls(claim):
    rows = claim.rows(Setting(length=5, draws=4000))
    assert sum(not row.control for row in rows) >= 3
    assert sum(row.control for row in rows) >= 2
    assert all(row.note for row in rows)
    assert all(row.error > row.tolerance if row.control else row.error <= row.tolerance for row in rows)


@pytest.mark.parametrize("claim", CLAIMS, ids=NAMES)
def test_same_arguments_give_same_rows_and_another_seed_other_rows(claim):
    first, again, other = (claim.rows(Setting(length=6, dim=2, seed=seed, draws=4000)) for seed in (5, 5, 6))
    assert first == again
    assert first != other


def test_a_claim_alone_gives_the_rows_it_gives_among_others():
    together = verify(length=5, dim=2)
    for name in ("C2", "C5"):
        assert verify(claims=[name], length=5, dim=2) == [row for row in together if row.claim == name]


def test_rows_are_finite_and_serialise():
    rows = verify(length=4, dim=3)
    for row in rows:
        assert all(type(x) is float and math.isfinite(x) for x in (row.predicted, row.measured, row.error))
        assert type(row.tolerance) is float
        assert type(row.passed) is bool
        assert type(row.control) is bool
    json.dumps([vars(row) for row in rows], allow_nan=False)


def test_progress_names_each_claim_in_order():
    seen: list[str] = []
    verify(claims=["C2", "C1"], length=3, dim=1, progress=seen.append)
    assert [line.split()[0] for line in seen] == ["C1", "C2"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"length": 2}, "length = 2"),
        ({"length": 513}, "length = 513"),
        ({"length": float("nan")}, "length = nan"),
        ({"length": 8.0}, "length = 8.0"),
        ({"length": True}, "length = True"),
        ({"dim": 0}, "dim = 0"),
        ({"dim": 10**9}, "dim = 1000000000"),
        ({"seed": -1}, "seed = -1"),
        ({"seed": float("inf")}, "seed = inf"),
        ({"claims": ["C1", "C9"]}, "C9.*C1, C2"),
        ({"claims": []}, "expected some of C1"),
    ],
)
def test_wrong_arguments_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        verify(**arguments)


@pytest.mark.parametrize("gain", [0.0, -1.0, math.nan, math.inf, True, "1"])
def test_a_gain_must_be_positive_and_finite(gain):
    with pytest.raises(ValueError, match="gain"):
        Setting(gain=gain)


def test_importing_theory_imports_nothing_heavy():
    code = "import sys, theory; print(sorted({'torch', 'matplotlib', 'numpy', 'attnprobe'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_checks_import_nothing_of_the_measured_package():
    code = "import sys, theory.checks, theory.drawing.figures as _; print(any(m.split('.')[0] == 'attnprobe' for m in "
    code += "sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
