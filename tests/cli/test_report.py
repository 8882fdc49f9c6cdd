"""attnprobe report: where it writes, and that a run's probes stand on its page."""

from pathlib import Path

import pytest

from tests.report.page.outline import Node, read_page
from tests.report.page.runs_on_disk import write_runs


def test_outputs_are_guarded(attnprobe, tmp_path: Path) -> None:
    write_runs(tmp_path / "runs")
    light = ["--no-probes", "--no-theory"]
    document = attnprobe("report", "runs", "--json", *light).document()
    assert len(document["runs"]) == 6
    assert document["bytes"] == Path("report.html").stat().st_size
    assert attnprobe("report", "runs", *light).code == 0, "a page of ours is replaced"
    titles = [n.text for n in read_page(Path("report.html").read_text()).all("h2")]
    assert "Check of the theory" not in titles
    assert "Proximity of the scores" not in titles
    Path("mine.html").write_text("<!DOCTYPE html><p>mine</p>")
    outcome = attnprobe("report", "runs", "-o", "mine.html", *light)
    assert outcome.code == 2
    outcome.complains("mine.html exists and is no report file written by attnprobe", "hint:")
    assert Path("mine.html").read_text() == "<!DOCTYPE html><p>mine</p>"
    Path("empty").mkdir()
    outcome = attnprobe("report", "empty", *light)
    assert outcome.code == 3
    outcome.complains("there is no run in empty")
    attnprobe("report", "nowhere", *light).complains("nowhere does not exist")


@pytest.mark.slow
def test_probes_of_a_real_run(attnprobe, tiny, trained: Path) -> None:
    assert attnprobe("report", "run", "-o", "page.html", "--no-theory", "-n", 20, "-q").code == 0
    page = read_page(Path("page.html").read_text())
    document = attnprobe(
        "probe", "proximity", "run/checkpoints/finetuned.pt", "-n", 20, "--draws", 19, "--json"
    ).document()
    expected = {(r["layer"], r["head"]): r for r in document["rows"] if r["quantity"] == "proximity_bias"}
    [table] = [rows_of(t) for t in page.all("table") if "Proximity bias" in t.all("caption")[0].text]
    for (layer, head), row in expected.items():
        [cells] = [cells for cells in table if cells[0] == f"layer {layer}, head {head}"]
        assert cells[-1].startswith(f"{row['estimate']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}], p ")
    maps = [svg for svg in page.all("svg") if "map by" in svg.attributes.get("aria-label", "")]
    assert len(maps) == 2 * 3, "heads times checkpoints"
    assert len(maps[0].all("rect")) == 9 * 9


def rows_of(table: Node) -> list[list[str]]:
    return [[cell.text for cell in row.children if cell.tag in ("th", "td")] for row in table.all("tbody")[0].all("tr")]
