"""Tables fit into the width there is, and no word in them is broken as long as that can be avoided."""

import io
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from attnprobe.cli.screen import output
from attnprobe.cli.screen.tables import layout

WORDS = st.lists(st.text("abc", min_size=1, max_size=9), max_size=7).map(" ".join)


@given(rows=st.lists(st.lists(WORDS, min_size=4, max_size=4), max_size=4), width=st.integers(20, 90))
def test_lines_fit_and_hold_every_word(rows: list[list[str]], width: int) -> None:
    columns = ["name", "first of all", "second", "third and last"]
    tables = layout(columns, rows, width)  # the key and the longest other column need at most 20
    assert all(cell_len(line) <= width for table in tables for line in table)
    again = [row[0] for row in [columns, *rows]] * (len(tables) - 1)  # the key column stands in every table
    wanted = " ".join([cell for row in [columns, *rows] for cell in row] + again).split()
    assert Counter(" ".join(line for table in tables for line in table).split()) == Counter(wanted)


def test_intervals_stay_whole_and_paths_break_after_slashes() -> None:
    rows = [["runs/a-long-folder/checkpoints/init.pt", "0.12 [-0.5, 0.7]"]]
    assert layout(["checkpoint", "bias"], rows, 30) == [
        [
            "checkpoint                bias",
            "runs/                     0.12",
            "a-long-folder/     [-0.5, 0.7]",
            "checkpoints/",
            "init.pt",
        ]
    ]


def test_a_word_longer_than_the_line_is_cut_and_nothing_is_lost() -> None:
    [lines] = layout(["x"], [["a" * 25]], 10)
    assert lines == ["x", "a" * 10, "a" * 10, "a" * 5]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_printed_tables_obey_the_width(width: int, monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    output.print_table(
        "a title of many words " * 5, ["name", *"abcdefgh"], [["x [b]", *["1.234 [0.1, 0.2]"] * 8]], keys=1
    )
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    assert sum(line.count("[0.1, 0.2]") for line in lines) == 8
    assert any(line.startswith("x [b]") for line in lines)


@pytest.mark.parametrize("label", ["init", "a-run-folder/finetuned with W_Q, W_K of another-run-folder/finetuned"])
@pytest.mark.parametrize("width", [40, 60, 80])
def test_progress_bars_show_their_numbers_at_any_width(width: int, label: str, monkeypatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(output, "console", Console(file=screen, width=width, force_terminal=True, color_system=None))
    with output.progress_bar(label, quiet=False) as report:
        report(300, 1000)
    assert " 300/1000 " in screen.getvalue()
    assert label[:4] in screen.getvalue()
    assert "━━" in screen.getvalue()
