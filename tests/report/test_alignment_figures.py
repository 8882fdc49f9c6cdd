"""Figures of the alignment and intervention probes: what is drawn is what was measured."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from attnprobe.capture import ours
from attnprobe.models import TransformerConfig, make_model
from attnprobe.probes.alignment.probe import Alignment, measure
from attnprobe.probes.alignment.rows import AlignmentRow
from attnprobe.probes.interventions.probe import DoseResponse, dose_response
from attnprobe.report import alignment_figures, intervention_figures
from attnprobe.report.alignment_figures import draw_alignment
from attnprobe.report.intervention_figures import draw_dose_response
from attnprobe.scores.directions import ScoreSpace
from attnprobe.scores.layout import Layout
from attnprobe.statistics.intervals import Interval
from attnprobe.tasks import Spec, Split


def make_results(grid: tuple[int, int] | None) -> tuple[Alignment, DoseResponse]:
    length = 11 if grid is None else grid[0] * grid[1]
    spec = Spec(length=length, classes=2, grid=grid)
    model = make_model(TransformerConfig(d_model=6, layers=2, heads=3, d_mlp=5), spec, "values", seed=0)
    inputs = torch.randn(30, length, 1, generator=torch.Generator().manual_seed(0))
    split = Split(inputs=inputs, labels=torch.arange(30) % 2)
    subject = ours.of(model, split)
    aligned = measure(subject, shuffles=19, orders=19, groups=10)
    return aligned, dose_response(subject, doses=(-1.0, 0.0, 1.0), controls=2)


@pytest.mark.parametrize("grid", [None, (3, 5)])
def test_all_figures_are_written_as_png_and_pdf(grid: tuple[int, int] | None, tmp_path: Path) -> None:
    aligned, response = make_results(grid)
    paths = draw_alignment(aligned, tmp_path / "a") + draw_dose_response(response, tmp_path / "d")
    names = ["a", "a_offsets", "a_cosines", "d"]
    assert [path.name for path in paths] == [f"{name}.{kind}" for name in names for kind in ("png", "pdf")]
    for path in paths[::2]:
        with Image.open(path) as image:
            assert image.width > 300
            assert len(np.unique(np.asarray(image.convert("L")))) > 20  # something is drawn
    assert all(path.read_bytes().startswith(b"%PDF") for path in paths[1::2])


def test_points_and_bands_show_the_numbers_of_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aligned, response = make_results(None)
    figures = []
    for module in (alignment_figures, intervention_figures):
        monkeypatch.setattr(module, "save_figure", lambda figure, stem: figures.append(figure) or [])
    draw_alignment(aligned, tmp_path / "a")
    draw_dose_response(response, tmp_path / "d")
    directions, offsets, _, doses = figures
    panel = directions.axes[4]  # layer 1, head 1
    assert panel.get_title() == "layer 1, head 1"
    names = [text.get_text() for text in directions.axes[0].get_yticklabels()]
    found = {r.direction: r.interval for r in aligned.select("reconstruction.t") if (r.layer, r.head) == (1, 1)}
    drawn = panel.containers[2].lines[0].get_xdata()
    np.testing.assert_allclose(drawn, [found[name].estimate for name in names])
    null = {r.direction: r.interval for r in aligned.select("label.t.null") if (r.layer, r.head) == (1, 1)}
    bars = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in panel.containers[0].patches]
    np.testing.assert_allclose(bars, [(null[name].low, null[name].high) for name in names])
    part = {
        r.direction: r.interval.estimate for r in aligned.select("label.dependent.t") if (r.layer, r.head) == (0, 2)
    }
    x, y = offsets.axes[2].lines[-1].get_data()
    assert y[list(x).index(-3)] == part["offset -3"]
    assert np.isnan(y[list(x).index(9)])
    accuracy = {r.dose: r.interval.estimate for r in response.select("accuracy", "own")}
    x, y = doses.axes[0].lines[0].get_data()
    assert dict(zip(x, y, strict=True)) == accuracy
    at_zero = [[r.interval for r in response.select("loss", kind) if r.dose == 0] for kind in ("own", "shuffled")]
    assert at_zero[0] == at_zero[1]  # one model, one bootstrap


def test_cosines_are_clipped_and_what_is_not_resolved_is_hatched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = []
    monkeypatch.setattr(alignment_figures, "save_figure", lambda figure, stem: figures.append(figure) or [])
    nan = float("nan")
    cosines = {"W_Q": (0.5, 0.2, 0.7), "W_K": (1.04, 0.8, 1.2), "offsets": (1.9, nan, nan), "scores": (3.2, 0.5, 9.0)}
    rows = [
        AlignmentRow(
            layer=0,
            head=0,
            quantity=f"cosine.{where}",
            interval=Interval(estimate=e, low=low, high=high, level=0.95, n=20, unit="cosine"),
        )
        for where, (e, low, high) in cosines.items()
    ]
    result = Alignment(rows=rows, samples=np.arange(20), space=ScoreSpace(layout=Layout(shape=(5,))), profiles={})
    alignment_figures.draw_cosines(result, tmp_path / "c")
    alignment_figures.draw_cosines(dataclasses.replace(result, rows=rows[:2]), tmp_path / "c")
    panel = figures[0].axes[0]
    values = np.ma.filled(panel.collections[0].get_array().astype(float), np.nan).ravel()
    np.testing.assert_allclose(values, [0.5, 1.0, nan, nan])
    texts = [text.get_text() for text in panel.texts if text.get_text()]
    assert texts == ["+0.50\n[+0.20, +0.70]", "+1.00\n[+0.80, +1.00]"]
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == ["not resolved from noise"]
    assert panel.patch.get_hatch()
    assert figures[1].legends == []


def test_a_row_of_maps_that_shows_fewer_offsets_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = []
    monkeypatch.setattr(alignment_figures, "save_figure", lambda figure, stem: figures.append(figure) or [])
    result = make_results((5, 6))[0]
    alignment_figures.draw_offsets(result, tmp_path / "o")
    labels = [panel.get_ylabel() for panel in figures[0].axes[:-1:6]]
    assert labels == ["label", "reconstruction", "label, minus what\nshuffled labels do\n(offsets up to 3)"]
