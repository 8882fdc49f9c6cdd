"""Tables of a study: what stands where, what is bold, and that Markdown and LaTeX show it as it is."""

import re

import pytest

from attnprobe.report.studies.pages import escape, latex, markdown, number, tex
from attnprobe.report.studies.sheet import MISSING, Entry, Sheet, contents, sheet
from attnprobe.studies.cells import cells
from attnprobe.studies.study import Outcome
from tests.studies.fixtures import arms_by_tasks, results

STUDY = arms_by_tasks()


def made(name: str = "main", outcomes: list[Outcome] | None = None) -> Sheet:
    found = results(STUDY) if outcomes is None else outcomes
    return sheet(contents(STUDY, name, cells(found, "test_accuracy")))


def line_of(found: Sheet, *texts: str) -> list[Entry]:
    """Of a row and of what is said there; rows name themselves on their first line only."""
    start = next(i for i, line in enumerate(found.lines) if line[0].text == texts[0])
    return next(list(line) for line in found.lines[start:] if line[1].text == texts[1])


def test_every_row_says_ours_gain_published_and_difference() -> None:
    found = made()
    assert found.head == ["arm", "", "listops", "image", "pathfinder"]
    ours, paper = (line_of(found, "self-pretrained", what)[2:] for what in ("ours", "published"))
    assert [entry.value for entry in paper] == [0.56, 0.72, 0.85]
    gain, difference = (
        line_of(found, "self-pretrained", w)[2:] for w in ("minus from scratch", "ours minus published")
    )
    scratch = line_of(found, "from scratch", "ours")[2:]
    for i in range(3):
        assert gain[i].value == pytest.approx((ours[i].value or 0) - (scratch[i].value or 0))
        assert difference[i].value == pytest.approx((ours[i].value or 0) - (paper[i].value or 0))
        assert difference[i].high - difference[i].low == pytest.approx(ours[i].high - ours[i].low)
    assert all(entry.bold for entry in gain)
    assert not any(entry.bold for line in (ours, paper, difference, scratch) for entry in line)
    odd = "50 % of W_Q & W_K | #1"
    at = [line[0].text for line in found.lines].index(odd)
    assert [line[1].text for line in found.lines[at:]] == ["ours", "minus from scratch"]  # no paper has it


def test_rows_come_in_the_order_of_their_choices() -> None:
    found = made("long")
    names = [(line[0].text, line[1].text) for line in found.lines]
    labels = ["from scratch", "self-pretrained", "50 % of W_Q & W_K | #1"]
    assert names == [(task, arm) for task in STUDY.axes["task"] for arm in labels]
    assert found.head == ["task", "arm", "test accuracy", "minus from scratch"]


def test_missing_and_incomplete_cells_are_marked() -> None:
    some = [
        Outcome(place=o.place, seed=o.seed, trial=o.trial, numbers={}) if gone(o) else o for o in results(STUDY)
    ]  # fmt: skip
    found = made(outcomes=some)
    ours = line_of(found, "self-pretrained", "ours")
    assert (ours[2].text, ours[2].note) == (MISSING, "0 of 5 seeds")
    assert ours[3].note == "3 of 5 seeds"
    gain = line_of(found, "self-pretrained", "minus from scratch")
    assert (gain[2].text, gain[3].note) == (MISSING, "3 of 5 seeds")
    page = markdown([found], title="t", question="q", opening="o", figures={})
    assert f"| {MISSING} (0 of 5 seeds) |" in page


def gone(outcome: Outcome) -> bool:
    if outcome.place["arm"] != "pretrained":
        return False
    return outcome.place["task"] == "listops" or (outcome.place["task"] == "image" and outcome.seed > 2)


def test_two_seeds_are_never_bold() -> None:
    found = made(outcomes=results(STUDY, seeds=2))
    assert not any(entry.bold for line in found.lines for entry in line)


def test_markdown_has_as_many_fields_in_every_line() -> None:
    page = markdown([made(), made("long")], title="a_b", question="*q*", opening="o", figures={"f": "f.png"})
    assert "a\\_b" in page
    tables = [block.splitlines() for block in page.split("\n\n") if block.startswith("|")]
    assert len(tables) == 2
    for table in tables:
        fields = {len(re.split(r"(?<!\\)\|", line)) for line in table}
        assert len(fields) == 1
    assert "**+0." in page


def test_latex_is_balanced_and_escaped() -> None:
    text = latex([made(), made("long")], opening="attnprobe study render x")
    assert text.startswith("% attnprobe study render x\n")
    for opened, closed in ((r"\begin{", r"\end{"), (r"\toprule", r"\bottomrule")):
        assert text.count(opened) == text.count(closed) > 0
    plain = re.sub(r"\\[{}]", "", text)
    assert plain.count("{") == plain.count("}")
    rows = [line for line in text.splitlines() if line.endswith(r"\\") and not line.startswith("%")]
    assert {len(re.split(r"(?<!\\)&", row)) for row in rows} == {5, 4}
    assert r"50 \% of W\_Q \& W\_K \textbar{} \#1" in text
    assert r"$\mathbf{+0." in text


@pytest.mark.parametrize(("text", "shown"), [("a|b*c", r"a\|b\*c"), ("two\nlines", "two lines")])
def test_escape(text: str, shown: str) -> None:
    assert escape(text) == shown


def test_tex_of_every_special_sign() -> None:
    assert tex("\\{}$&#_%~^") == r"\textbackslash{}\{\}\$\&\#\_\%\textasciitilde{}\textasciicircum{}"


def test_numbers() -> None:
    assert [number(x) for x in (0.12345, 1.234e-5, -1.5, 123.4, 12345678.0, 1e12)] == [
        "0.123",
        "1.2e-05",
        "-1.500",
        "123",
        "12,345,678",
        "1e+12",
    ]
    assert [number(x, signed=True) for x in (0.5, -0.5, 0.0)] == ["+0.500", "-0.500", "0.000"]
