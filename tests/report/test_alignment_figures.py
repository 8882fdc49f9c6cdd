"""Figures of the alignment and intervention probes: what is drawn is what was measured."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from attnprobe.models import TransformerConfig, make_model
from attnprobe.objectives import Classification, MaskedReconstruction
from attnprobe.probes.alignment import Alignment, measure
from attnprobe.probes.interventions import DoseResponse, dose_response
from attnprobe.report import alignment_figures, intervention_figures
from attnprobe.report.alignment_figures import draw_alignment
from attnprobe.report.intervention_figures import draw_dose_response
from attnprobe.tasks import Spec, Split


def make_results(grid: tuple[int, int] | None) -> tuple[Alignment, DoseResponse]:
    length = 11 if grid is None else grid[0] * grid[1]
    spec = Spec(length=length, classes=2, grid=grid)
    model = make_model(TransformerConfig(d_model=6, layers=2, heads=3, d_mlp=5), spec, "values", seed=0)
    inputs = torch.randn(30, length, 1, generator=torch.Generator().manual_seed(0))
    split = Split(inputs=inputs, labels=torch.arange(30) % 2)
    draw = np.random.default_rng(0)
    label = Classification()
    aligned = measure(
        model, split, label=label, reconstruction=MaskedReconstruction(), shuffles=19, groups=10, generator=draw
    )
    return aligned, dose_response(model, split, objective=label, doses=(-1.0, 0.0, 1.0), controls=2, generator=draw)


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
    directions, offsets, cosines, doses = figures
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
    cosine = {(r.layer, r.head): r.interval.estimate for r in aligned.select("cosine.W_K")}
    values = cosines.axes[0].collections[0].get_array().reshape(6, 4)
    column = [text.get_text() for text in cosines.axes[0].get_xticklabels()].index("W_K")
    np.testing.assert_allclose(np.ma.filled(values[:, column], np.nan), list(cosine.values()))
    accuracy = {r.dose: r.interval.estimate for r in response.select("accuracy", "own")}
    x, y = doses.axes[0].lines[0].get_data()
    assert dict(zip(x, y, strict=True)) == accuracy
