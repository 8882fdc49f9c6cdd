"""Figures are written, the same each time, and nothing in them overlaps."""

import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from attnprobe.capture import ours
from attnprobe.errors import NotApplicableError
from attnprobe.models import TransformerConfig, make_model
from attnprobe.probes import proximity
from attnprobe.probes.rows import Measurement
from attnprobe.report import figures, trajectory_figures
from attnprobe.statistics.intervals import Interval
from attnprobe.tasks import Spec, Split

CHECKPOINTS = ("initial", "pretrained")


@pytest.fixture(scope="module", params=["sequence", "grid"])
def results(request: pytest.FixtureRequest) -> dict[str, proximity.Proximity]:
    grid = (5, 7) if request.param == "grid" else None
    spec = Spec(length=35, classes=2, grid=grid)
    config = TransformerConfig(d_model=12, layers=2, heads=2, d_mlp=8)
    g = torch.Generator().manual_seed(0)
    split = Split(inputs=torch.randn(4, 35, 1, generator=g), labels=torch.zeros(4, dtype=torch.int64))
    return {
        name: proximity.measure(ours.of(make_model(config, spec, "values", seed=seed), split), null="none")
        for seed, name in enumerate(CHECKPOINTS)
    }


def draw(
    call: Callable[[Path], list[Path]], folder: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType = figures
) -> Figure:
    """Run a drawing function of ``module`` and hand back its figure."""
    drawn: list[Figure] = []
    save = figures.save_figure
    monkeypatch.setattr(module, "save_figure", lambda figure, stem: (drawn.append(figure), save(figure, stem))[1])
    before = dict(matplotlib.rcParams)
    paths = call(folder / "new" / "v1.5")
    assert [path.name for path in paths] == ["v1.5.png", "v1.5.pdf"]
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    assert paths[1].read_bytes().startswith(b"%PDF")
    assert dict(matplotlib.rcParams) == before
    return drawn[0]


def boxes_of_text(figure: Figure) -> list[tuple[str, Bbox]]:
    """Extent of every text that is drawn; ticks beyond the view keep labels that are not."""
    hidden = set()
    for panel in figure.axes:
        for axis in (panel.xaxis, panel.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks():
                if not low <= tick.get_loc() <= high:
                    hidden |= {tick.label1, tick.label2}
    texts = [t for t in figure.findobj(Text) if t not in hidden and t.get_visible() and t.get_text().strip()]
    return [(t.get_text(), t.get_window_extent()) for t in texts]


def check_layout(figure: Figure) -> None:
    """All text lies inside the figure, and no two texts or panels lie on one another."""
    FigureCanvasAgg(figure).draw()
    boxes = boxes_of_text(figure)
    panels = [(f"panel {i}", a.get_window_extent()) for i, a in enumerate(figure.axes)]
    width, height = figure.get_size_inches() * figure.dpi
    for text, box in boxes:
        assert box.x0 >= -1, text
        assert box.y0 >= -1, text
        assert box.x1 <= width + 1, text
        assert box.y1 <= height + 1, text
    everything = [*panels, *boxes]
    for i, (name, box) in enumerate(everything):
        for other, its_box in everything[i + 1 :]:
            both = Bbox.intersection(box, its_box)
            assert both is None or min(both.width, both.height) < 1, f"{name!r} overlaps {other!r}"


def test_offset_profiles(
    results: dict[str, proximity.Proximity], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = draw(lambda stem: figures.draw_offset_profiles(results, stem), tmp_path, monkeypatch)
    check_layout(figure)
    assert len(figure.axes) == 4
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == list(CHECKPOINTS)
    # The line shows what was measured, in standard deviations.
    result = results["pretrained"]
    line = figure.axes[3].get_lines()[2]
    x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
    (values,) = result.profile.axes.values()
    wanted = result.profile.score.estimate[1, 1] / result.sd[1, 1]
    np.testing.assert_allclose(y, wanted[np.isin(values, x)])
    assert len(x) > 3


def test_proximity_maps(
    results: dict[str, proximity.Proximity], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if results["initial"].map is None:
        with pytest.raises(NotApplicableError, match="grid"):
            figures.draw_proximity_maps(results, tmp_path / "map")
        return
    figure = draw(lambda stem: figures.draw_proximity_maps(results, stem), tmp_path, monkeypatch)
    check_layout(figure)
    assert len(figure.axes) == 2 * 4 + 1
    shown = figure.axes[0].get_images()[0].get_array()
    result = results["initial"]
    assert result.map is not None
    np.testing.assert_allclose(np.asarray(shown), result.map.score.estimate[0, 0] / result.sd[0, 0])


def test_quantities(results: dict[str, proximity.Proximity], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {name: [row for row in result.rows if row.head is not None] for name, result in results.items()}
    figure = draw(lambda stem: figures.draw_quantities(rows, stem), tmp_path, monkeypatch)
    check_layout(figure)
    assert [panel.get_title() for panel in figure.axes] == [
        "proximity bias", "score sd", "near mass", "distance", "entropy",
    ]  # fmt: skip


@pytest.mark.parametrize("runs", [1, 3])
def test_trajectory_tells_heads_of_one_run_or_several_runs_apart(
    runs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [
        {
            "run": f"runs/s{run}", "seed": run, "phase": phase, "step": step, "layer": 0, "head": head,
            "quantity": quantity, "estimate": head + run + step / 7, "low": head - 1.0, "high": head + 40.0,
        }
        for run in range(runs) for phase in ("pretrained", "finetuned") for step in (0, 1, 2, 130)
        for head in range(2) for quantity in ("proximity_bias", "reconstruction.t", "label.dependent.t")
    ]  # fmt: skip
    figure = draw(
        lambda stem: trajectory_figures.draw_trajectory(records, stem), tmp_path, monkeypatch, trajectory_figures
    )
    check_layout(figure)
    lines = [line for line in figure.axes[0].get_lines() if len(np.asarray(line.get_xdata())) == 4]
    assert len(lines) == 2 * runs
    assert len({line.get_color() for line in lines}) == (2 if runs == 1 else 3)
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == [
        "0",
        "1",
        "2",
        "5",
        "10",
        "20",
        "50",
        "100",
    ]
    title = figure.legends[0].get_title().get_text()
    assert title == ("every line is a head" if runs == 1 else "every line is a head of a run")
    assert (figure.axes[0].get_ylim()[1] > 40) == (runs == 1)  # intervals are drawn where they can be told apart


def test_trajectory_sorts_runs_and_heads_as_numbers_and_long_runs_have_few_ticks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drawn(runs: list[str], heads: list[int]) -> Figure:
        records = [
            {"run": run, "phase": "pretrained", "step": step, "layer": 0, "head": head, "quantity": "proximity_bias",
             "estimate": 1.0, "low": 0.0, "high": 2.0}
            for run in runs for head in heads for step in (0, 1, 70_000)
        ]  # fmt: skip
        return draw(
            lambda stem: trajectory_figures.draw_trajectory(records, stem), tmp_path, monkeypatch, trajectory_figures
        )

    figure = drawn(["s10", "s2", "s\u00b2"], [0])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["s2", "s10", "s\u00b2"]
    ticks = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert ticks == ["0", "1", "10", "100", "1,000", "10,000"]
    figure = drawn(["s"], [10, 2])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["layer 0, head 2", "layer 0, head 10"]


def test_three_quantities_leave_no_panel_empty_and_intervals_are_wider_than_marks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        Measurement(
            layer=0, head=0, quantity=f"{part}_share",
            interval=Interval(estimate=0.3, low=0.25, high=0.35, level=0.95, n=9, unit="share"),
        )
        for part in ("position", "content", "interaction")
    ]  # fmt: skip
    figure = draw(lambda stem: figures.draw_quantities({"a": rows}, stem), tmp_path, monkeypatch)
    check_layout(figure)
    rows_of_panels = {round(panel.get_position().y0, 3) for panel in figure.axes}
    assert (len(figure.axes), len(rows_of_panels)) == (3, 1)
    mark, _, (bar,) = figure.axes[0].containers[0]
    (low, high) = bar.get_segments()[0][:, 1]
    assert (low, high) == pytest.approx((0.25, 0.35))
    assert bar.get_linewidth()[0] > mark.get_markeredgewidth()


def test_the_same_figure_gives_the_same_bytes(results: dict[str, proximity.Proximity], tmp_path: Path) -> None:
    one = {"initial": results["initial"]}
    first, second = (figures.draw_offset_profiles(one, tmp_path / name) for name in "ab")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_many_heads_and_unknown_bounds_still_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {
        f"a checkpoint with a long name, step {step}": [
            Measurement(
                layer=layer,
                head=head,
                quantity="entropy",
                interval=Interval(estimate=layer + step, low=math.nan, high=math.nan, level=0.95, n=1, unit="nats"),
            )
            for layer in range(6)
            for head in range(8)
        ]
        for step in range(4)
    }
    check_layout(draw(lambda stem: figures.draw_quantities(rows, stem), tmp_path, monkeypatch))


def test_results_of_different_models_do_not_share_a_figure(
    results: dict[str, proximity.Proximity], tmp_path: Path
) -> None:
    spec = Spec(length=35, classes=2)
    split = Split(inputs=torch.randn(2, 35, 1), labels=torch.zeros(2, dtype=torch.int64))
    model = make_model(TransformerConfig(d_model=12, layers=1, heads=2, d_mlp=8), spec, "values", seed=0)
    other = proximity.measure(ours.of(model, split), null="none")
    with pytest.raises(NotApplicableError, match="other has other heads"):
        figures.draw_offset_profiles({**results, "other": other}, tmp_path / "x")
