"""What a person reads of a probe: tables that fit and break no word, and all of it with --full."""

from typing import Any

import pytest

from attnprobe.cli.probe import alignment, certify, decompose, intervene, proximity, trajectory
from attnprobe.cli.probe.table import MOST_LINES, Table, show

TABLES = {
    "proximity": (proximity.TABLE, ["probe", "proximity", "--draws", 19]),
    "alignment": (alignment.TABLE, ["probe", "alignment", "--shuffles", 19]),
    "decompose": (decompose.TABLE, ["probe", "decompose"]),
    "intervene": (intervene.TABLE, ["probe", "intervene", "--doses=-1,2"]),
    "certify": (certify.TABLE, ["theory", "certify", "--shuffles", 19, "--stepped", 5]),
}


def rows_of(probe: str, attnprobe, tiny) -> tuple[Table, list[dict[str, Any]]]:
    """The table of a probe, and its rows for models of two layers with three heads."""
    model = ["-s", "model.layers=2", "-s", "model.heads=3", "-s", "model.d_model=12", "--probe-sequences", 8]
    assert attnprobe("train", *tiny, *model, "--probe-every", 2, "--out", "a-run/s0", "-q").code == 0
    if probe == "trajectory":
        rows = attnprobe("probe", "trajectory", "a-run/s0", "--json").document()["rows"]
        return trajectory.table(rows), rows
    table, command = TABLES[probe]
    paths = [f"a-run/s0/checkpoints/{name}.pt" for name in ("init", "finetuned")]
    paths = paths[: 1 if probe == "intervene" else 2]
    return table, attnprobe(*command, *paths, "-n", 12, "--json").document()["rows"]


@pytest.mark.parametrize("probe", [*TABLES, "trajectory"])
def test_tables_fit_and_break_no_word_at_any_width(probe: str, attnprobe, tiny, monkeypatch, capsys) -> None:
    table, rows = rows_of(probe, attnprobe, tiny)

    def lines(width: int, *, full: bool) -> list[str]:
        monkeypatch.setenv("COLUMNS", str(width))
        show(table, rows, full=full)
        return capsys.readouterr().out.splitlines()

    def words(found: list[str]) -> set[str]:
        return set(" ".join(found).replace("/", "/ ").replace(":", "").split())

    every = words(lines(1000, full=True))
    for width in (60, 80, 200):
        short, whole = lines(width, full=False), lines(width, full=True)
        assert max(map(len, short + whole)) <= width
        assert words(short) <= every
        assert words(whole) == every
        assert len(short) < 3 * MOST_LINES
    places = {(row["layer"], row["head"]) for row in rows if row["head"] is not None}
    assert places == (set() if probe == "intervene" else {(layer, head) for layer in (0, 1) for head in (0, 1, 2)})


def numbered(heads: int) -> list[dict[str, Any]]:
    return [
        {"checkpoint": "a", "layer": 0, "head": head, "quantity": "proximity_bias", "estimate": head / 100, "low": None,
         "high": 1.0, "p_value": None, "q_value": None}
        for head in reversed(range(heads))
    ]  # fmt: skip


def test_heads_are_sorted_as_numbers_and_the_strongest_of_many_are_shown(capsys) -> None:
    show(proximity.TABLE, numbered(12), full=False)
    out, err = capsys.readouterr()
    assert [int(line.split()[1]) for line in out.splitlines()[3:]] == list(range(12))
    assert "+0.110 [?, +1.000]" in out
    show(proximity.TABLE, numbered(30), full=False)
    out, err = capsys.readouterr()
    assert [int(line.split()[1]) for line in out.splitlines()[3:]] == list(range(30 - MOST_LINES, 30))
    assert f"{MOST_LINES} of 30 rows" in err
    assert "--full" in err
    show(proximity.TABLE, numbered(30), full=True)
    out, err = capsys.readouterr()
    assert [int(line.split()[1]) for line in out.splitlines()[3:]] == list(range(30))
    assert err == ""
