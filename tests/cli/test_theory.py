import dataclasses

import pytest

KEYS = {"claim", "quantity", "predicted", "measured", "error", "tolerance", "control", "passed"}


def test_json_rows(attnprobe) -> None:
    outcome = attnprobe("theory", "verify", "--claims", "C1,C2", "--length", 9, "--json")
    assert outcome.code == 0
    document = outcome.document()
    assert document["passed"] is True
    assert {row["claim"] for row in document["rows"]} == {"C1", "C2"}
    assert all(set(row) >= KEYS for row in document["rows"])
    assert any(row["control"] for row in document["rows"])


def test_table_and_several_seeds(attnprobe) -> None:
    outcome = attnprobe("theory", "verify", "--claims", "C1", "--length", 5, "--seeds", 2)
    assert outcome.code == 0
    assert "seed 1" in outcome.out
    assert "rows pass" in outcome.out
    everything = attnprobe("theory", "verify", "--claims", "C1", "--length", 5, "--seeds", 2, "--full").out
    assert "(seed 1)" in everything
    assert len(everything.splitlines()) > len(outcome.out.splitlines())


def test_a_failing_row_is_exit_code_5(attnprobe, monkeypatch) -> None:
    from theory import checks

    real = checks.CLAIMS[0]

    def broken(setting):
        return [dataclasses.replace(row, passed=False) for row in real.rows(setting)]

    monkeypatch.setattr(checks, "CLAIMS", (dataclasses.replace(real, rows=broken),))
    outcome = attnprobe("theory", "verify", "--length", 5)
    assert outcome.code == 5
    assert "FAIL" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--length", "2"], "length"),
        (["--length", "513"], "length"),
        (["--dim", "0"], "dim"),
        (["--claims", "C9"], "C9"),
        (["--claims", ""], "expected some of C1"),
        (["--seeds", "0"], "seeds"),
        (["--seed", "1", "--seeds", "2"], "exclude each other"),
    ],
)
def test_absurd_settings(attnprobe, arguments: list[str], word: str) -> None:
    outcome = attnprobe("theory", "verify", *arguments, "-q")
    assert outcome.code == 2
    outcome.complains(word)
