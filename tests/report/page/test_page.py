"""The page's structure, escaping and self-containedness, without a browser."""

import base64
import hashlib
import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest

from attnprobe.cli import main
from attnprobe.report.page.charts.axes import Scale, limits, nice
from attnprobe.report.page.charts.lines import Line, Panel, line_figure
from attnprobe.report.page.charts.maps import Map, map_figure, shade
from attnprobe.report.page.material import find_runs, read_arms
from attnprobe.report.page.sections import SECTIONS
from attnprobe.report.page.sections.accuracy import gains
from tests.report.page.outline import Node, read_page
from tests.report.page.runs_on_disk import HOSTILE, write_runs


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Node:
    folder = write_runs(tmp_path_factory.mktemp("page") / "runs")
    with pytest.raises(SystemExit) as stop:
        main(["report", str(folder), "-o", str(folder.parent / "report.html"), "--title", HOSTILE, "-q", "--seed", "3"])
    assert not stop.value.code
    return read_page((folder.parent / "report.html").read_text(encoding="utf-8"))


def test_headings_are_in_order_and_sections_are_there(page: Node) -> None:
    levels = [int(n.tag[1]) for n in nodes(page) if re.fullmatch("h[1-6]", n.tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    titles = [n.text for n in page.all("h2")]
    assert titles == [
        "What was run", "Accuracy", "Learning curves", "Trajectory", "Proximity of the scores", "Check of the theory",
        "Manifest",
    ]  # fmt: skip
    assert len(SECTIONS) == len(titles) + 1, "all but the studies, of which there are none here"
    targets = {n.attributes["href"] for n in page.all("nav")[0].all("a")}
    assert targets == {f"#{n.attributes['id']}" for n in page.all("section")}
    assert page.all("html")[0].attributes["lang"] == "en"
    identities = [n.attributes["id"] for n in nodes(page) if "id" in n.attributes]
    assert len(set(identities)) == len(identities)


def test_tables_and_pictures_can_be_read_aloud(page: Node) -> None:
    for table in page.all("table"):
        assert table.all("caption")[0].text
        assert all(th.attributes.get("scope") in ("col", "row") for th in table.all("th"))
        widths = {len(row.all("th") + row.all("td")) for row in table.all("tr")}
        assert len(widths) == 1, "every row has all columns"
    pictures = [svg for svg in page.all("svg") if svg.attributes.get("aria-hidden") != "true"]
    assert len(pictures) > 10
    for svg in pictures:
        assert svg.attributes["role"] == "img"
        assert svg.attributes["aria-label"]
        marks = [n for n in nodes(svg) if "mark" in n.classes]
        assert marks
        assert all(len(mark.all("title")) == 1 and mark.all("title")[0].text for mark in marks)
        for n in nodes(svg):
            for name in ("cx", "cy", "x", "y", "x1", "x2", "y1", "y2", "r", "width", "height"):
                assert math.isfinite(float(n.attributes.get(name, 0))), n
    for figure in page.all("figure"):
        assert figure.all("figcaption")[0].text
        assert figure.all("details")[0].all("table")[0].all("tbody")[0].children


def test_nothing_of_a_file_becomes_markup(page: Node) -> None:
    assert len(page.all("script")) == 1
    assert page.all("img") == []
    assert page.all("h1")[0].text == page.all("title")[0].text == HOSTILE
    whole = page.text
    assert whole.count("<script>alert(1)") >= 3
    assert "<img src=x onerror=alert(2)>" in whole
    assert not [n for n in nodes(page) for name in n.attributes if name.startswith("on")]


def test_the_page_needs_nothing_else(page: Node) -> None:
    for n in nodes(page):
        for name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
            assert n.attributes.get(name, "#").startswith(("#", "data:")), n
        assert n.tag not in ("iframe", "object", "embed", "base", "form", "img")
        assert "style" not in n.attributes
    style, script = page.all("style")[0].own_text, page.all("script")[0].own_text
    assert not re.search(r"url\(|@import|https?:", style)
    assert not re.search(r"fetch|XMLHttp|import|https?:|eval|innerHTML", script)
    [policy] = [m.attributes["content"] for m in page.all("meta") if "http-equiv" in m.attributes]
    assert "default-src 'none'" in policy
    for content in (style, script):
        assert "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() in policy


def test_numbers(page: Node) -> None:
    tables = {table.all("caption")[0].text: rows_of(table) for table in page.all("table")}
    arms = tables["Accuracy on textures, means over seeds"]
    assert [row[:5] for row in arms] == [
        ["from scratch", "2", "0.525", "0.525", "0.525"], ["self-pretrained", "2", "0.775", "0.775", "0.775"],
    ]  # fmt: skip
    half = 12.706204736432095 * 0.05 / 2  # Student's t with one degree of freedom: s / sqrt(2) is half the difference
    assert arms[0][5] == f"[{0.525 - half:.3f}, {0.525 + half:.3f}]"
    [gain] = tables["Test accuracy beyond from scratch, paired by seed"]
    assert gain[:3] == ["self-pretrained", "2", "+0.250"]
    states = [row[5] for row in tables["Runs, with their accuracies"]]
    assert sorted(states) == ["damaged", "finished", "finished", "finished", "finished", "interrupted"]
    assert ["pretrain (whole section)", "no", "yes"] in tables["Settings in which the arms differ"]
    curves = next(found for caption, found in tables.items() if "Training on labels, by epoch" in caption)
    assert ["validation accuracy", "from scratch (2 seeds)", "2", "0.400", "[0.400, 0.400]"] in curves
    assert ["validation loss", "from scratch (2 seeds)", "3", "1.000", "[0.500, 1.500]"] in curves
    assert any("self-pretrained (2 seeds)" in row for row in curves)
    theory = tables["Claims of the theory of local blindness"]
    assert [row[0] for row in theory] == [f"C{n}" for n in range(1, 8)]
    assert "Not measured: " in page.text, "checkpoints that are none are told"


def test_arms_on_other_data_are_not_paired(tmp_path: Path) -> None:
    arms = read_arms(find_runs([write_runs(tmp_path / "runs")], warn=lambda text: None))
    assert len(gains(arms)[0]) == 1
    for file in tmp_path.glob("runs/scratch/*/manifest.json"):
        file.write_text(file.read_text().replace("ab" * 32, "cd" * 32))
    assert gains(read_arms(find_runs([tmp_path / "runs"], warn=lambda text: None))) == ([], "")


def test_scales_and_ticks() -> None:
    assert nice(0, 1, 5) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert nice(-0.013, 0.031, 5) == [-0.01, 0, 0.01, 0.02, 0.03]
    assert Scale(low=1, high=6, start=0, end=1, whole=True).ticks() == [1, 2, 3, 4, 5, 6]
    assert Scale(low=1, high=2, start=0, end=1, whole=True).ticks() == [1, 2]
    steps = Scale(low=0, high=1000, start=0, end=340, kind="steps")
    assert steps.ticks() == [0, 1, 10, 100, 1000]
    assert [round(steps(v)) for v in steps.ticks()] == [0, 40, 140, 240, 340]
    assert limits([3.0, 3.0]) == (1.5, 4.5)
    assert limits([math.nan]) == (-0.5, 0.5)
    assert limits([1e308, 3.0, -1e308, math.inf]) == (1.5, 4.5)


def test_gaps_and_single_points_are_drawn() -> None:
    line = Line(
        name="a", style=0, x=[1, 2, 3], y=[0.5, math.nan, 0.25], low=[0.4, math.nan, 0.2], high=[0.6, math.nan, 0.3]
    )
    dot = Line(name="b", style=1, x=[2], y=[0.1])
    figure = line_figure(
        [Panel(title="p", lines=[line, dot]), Panel(title="empty", lines=[])], caption="c", x_label="x"
    )
    [picture] = figure.pictures
    assert "nan" not in picture.markup()
    assert [row[1:4] for row in figure.table.rows] == [["a", "1", "0.500"], ["a", "3", "0.250"], ["b", "2", "0.100"]]


def test_runs_that_went_on_after_they_diverged_are_drawn(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    folder = write_runs(tmp_path / "runs")
    for file in folder.glob("scratch/*/*.jsonl"):
        wild = "NaN" if file.name == "metrics.jsonl" else "1e308"
        lines = [re.sub(r'("validation_loss"|"estimate"|"low"): [^,}]+', rf"\1: {wild}", file.read_text())]
        file.write_text("".join(lines))
    with pytest.raises(SystemExit) as stop:
        main(["report", str(folder), "-o", str(tmp_path / "report.html"), "--seed", "3"])
    assert not stop.value.code
    said = capfd.readouterr().err
    assert "RuntimeWarning" not in said
    assert "internal error" not in said


def test_maps_are_shaded_by_size() -> None:
    assert [shade(v, 2.0) for v in (-2, -0.99, 0, 1, 5)] == ["v-10", "v-5", "v0", "v5", "v10"]
    values = np.array([[1.0, np.nan], [-2.0, 0.0]])
    figure = map_figure(
        [Map(title="m", more="n", y=np.arange(2), x=np.arange(2), values=values)], caption="c", axes=("rows", "columns")
    )
    assert [row[1:] for row in figure.table.rows] == [["0", "+1.000", ""], ["1", "-2.000", "+0.000"]]
    assert figure.pictures[0].markup().count("<rect") == 3


def nodes(root: Node) -> list[Node]:
    return [root, *(n for child in root.children for n in nodes(child))]


def rows_of(table: Node) -> list[list[str]]:
    return [[cell.text for cell in row.children if cell.tag in ("th", "td")] for row in table.all("tbody")[0].all("tr")]
