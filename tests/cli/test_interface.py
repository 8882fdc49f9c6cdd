"""``import attnprobe as ap``: the same numbers as the commands, without torch until something is asked for."""

import doctest
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import attnprobe as ap
from attnprobe import interface
from attnprobe.errors import ArtifactError, ConfigError, NotApplicableError
from attnprobe.report.answer import Pictures

ROOT = Path(__file__).parents[2]


def test_the_import_is_light() -> None:
    code = "import sys, attnprobe; print([m for m in ('torch', 'numpy', 'pandas') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_all_is_exact() -> None:
    functions = {
        name
        for name, value in vars(interface).items()
        if inspect.isfunction(value) and not name.startswith("_") and value.__module__ == interface.__name__
    }
    assert (
        sorted(functions | {"arrays", "runs", "study", "watch"})
        == ap.__all__
        == [name for name in dir(ap) if name in ap.__all__]
    )
    for name in ap.__all__:
        assert getattr(ap, name).__doc__, name
    with pytest.raises(AttributeError, match="nothing"):
        ap.nothing  # noqa: B018


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(interface).attempted > 0
    assert doctest.testmod(interface).failed == 0


@pytest.mark.parametrize(("causal", "padded"), [(False, False), (True, False), (False, True)])
def test_arrays_against_a_dense_reference(causal: bool, padded: bool) -> None:
    """Bias of three layers' heads from their definition, in float64."""
    generator = np.random.default_rng(3)
    q, k = ([generator.standard_normal((5, heads, 11, 3)) for heads in (2, 1)] for _ in range(2))
    valid = np.arange(11) < np.array([11, 7, 9, 11, 4])[:, None] if padded else None
    answer = ap.proximity(ap.arrays(q, k, causal=causal, valid=valid), n=5, radius=2, null="keys", draws=19)
    found = {(r["layer"], r["head"]): r["estimate"] for r in answer.rows if r["quantity"] == "proximity_bias"}
    offset = np.arange(11) - np.arange(11)[:, None]
    for layer in range(2):
        for head in range(q[layer].shape[1]):
            near, far, everything = [], [], []
            for s in range(5):
                seen = (offset <= 0) if causal else np.ones((11, 11), dtype=bool)
                if valid is not None:
                    seen = seen & valid[s] & valid[s][:, None]
                scores = np.where(seen, q[layer][s, head] @ k[layer][s, head].T * 3**-0.5, np.nan)
                centred = scores - np.nanmean(scores, 1, keepdims=True) if valid is None else _centred(scores, valid[s])
                near.append(centred[seen & (abs(offset) <= 2)])
                far.append(centred[seen & (abs(offset) > 2)])
                everything.append(centred[seen])
            sd = np.sqrt(np.mean(np.square(np.concatenate(everything))))
            expected = (np.concatenate(near).mean() - np.concatenate(far).mean()) / sd
            assert found[layer, head] == pytest.approx(expected, rel=1e-9)


def _centred(scores: np.ndarray, valid: np.ndarray) -> np.ndarray:
    centred = np.full_like(scores, np.nan)
    centred[valid] = scores[valid] - np.nanmean(scores[valid], 1, keepdims=True)
    return centred


def test_arrays_that_do_not_fit() -> None:
    q = torch.zeros(2, 3, 5, 7)
    for wrong in (
        lambda: ap.arrays(q, q[:1]),
        lambda: ap.arrays(q[0], q[0]),
        lambda: ap.arrays([q, q], [q]),
        lambda: ap.arrays([], []),
        lambda: ap.arrays(q, q, grid=(2, 3)),
        lambda: ap.arrays(q, q, grid=(-1, -5)),
        lambda: ap.arrays(q, q, grid=(1.0, 5.0)),
        lambda: ap.arrays(q, q, grid=5),
        lambda: ap.arrays(q, q, grid="1x5"),
        lambda: ap.arrays(q[:0], q[:0]),
        lambda: ap.arrays(q.to(torch.complex64), q),
        lambda: ap.arrays("q", "k"),
        lambda: ap.arrays(None, None),
        lambda: ap.arrays(q, q, valid=np.ones((2, 4))),
    ):
        with pytest.raises(ConfigError) as caught:
            wrong()
        assert caught.value.hint


def test_same_numbers_as_the_command(attnprobe, trained: Path) -> None:
    path = trained / "checkpoints" / "finetuned.pt"
    rows = attnprobe("probe", "proximity", path, "-n", 20, "--draws", 19, "--json").document()["rows"]
    answer = ap.proximity(ap.open(path), n=20, draws=19)
    assert answer.rows == [{key: row[key] for key in answer.rows[0]} for row in rows]
    frame = answer.to_frame()
    assert len(frame) == len(rows)
    assert "q_value" in frame
    assert answer.verdict.split(":", 1)[1][:60] in answer._repr_html_().replace("&#x27;", "'")
    assert repr(answer).startswith("proximity of pre-softmax scores: ")
    json.dumps(answer.to_dict(), allow_nan=False)
    pictures = answer.plot()
    assert pictures
    assert all(png.startswith(b"\x89PNG") for png in pictures)


def test_every_probe_answers(trained: Path) -> None:
    subject = ap.open(trained / "checkpoints" / "finetuned.pt", split="train")
    for probe, options in (
        (ap.alignment, {"n": 20, "shuffles": 19}),
        (ap.intervene, {"n": 10, "doses": (-1.0, 0.0), "controls": 2}),
        (ap.decompose, {"n": 10}),
        (ap.certify, {"n": 10, "shuffles": 19}),
    ):
        answer = probe(subject, **options)
        assert len(answer.to_frame()) == len(answer.rows) > 0
        assert "checkpoint" not in answer.to_frame()
        assert answer.verdict.endswith(".")


def test_kernels_takes_what_the_others_take(tiny: list[str], tmp_path: Path) -> None:
    settings = [*tiny[1::2], "model.mixer={name='s4d', states=4}"]
    run = ap.train(out=tmp_path / "run", settings=settings, pretrain=False)
    answer = ap.kernels(run.open("init"))
    assert answer.rows == ap.kernels(run.checkpoints["init"]).rows == ap.kernels(str(run.checkpoints["init"])).rows
    assert {row["quantity"] for row in answer.rows} == {"near_mass", "distance", "entropy"}
    with pytest.raises(NotApplicableError, match="no long convolutions"):
        ap.kernels(ap.arrays(torch.ones(2, 1, 5, 3), torch.ones(2, 1, 5, 3)))


def test_the_verdict_speaks_of_no_null_that_was_not_asked_for() -> None:
    q, k = np.random.default_rng(0).standard_normal((2, 5, 3, 13, 4))
    text = ap.proximity(ap.arrays(q, k), n=5).verdict
    assert "compared with no null" in text
    assert "W_Q" not in text
    assert "p-value" not in text
    text = ap.proximity(ap.arrays(q, k), n=5, null="keys").verdict
    assert "a p-value does not" in text
    assert "at the start" not in text


def test_one_picture_is_shown_as_one() -> None:
    pictures = Pictures([b"\x89PNG"])
    assert (pictures._repr_png_(), pictures._repr_html_(), repr(pictures)) == (b"\x89PNG", None, "1 picture")
    assert Pictures(2 * pictures)._repr_png_() is None
    assert (Pictures(2 * pictures)._repr_html_() or "").count("<img") == 2


def test_train_and_load(tiny: list[str], tmp_path: Path) -> None:
    run = ap.train(out=tmp_path / "run", settings=tiny[1::2])
    again = ap.load_run(tmp_path / "run")
    assert again.result["test_accuracy"] == run.result["test_accuracy"]
    assert list(again.checkpoints) == ["init", "pretrained", "finetuned"]
    assert again.metrics().phase.tolist() == ["pretrained", "finetuned"]
    assert again.open("init").samples == 30
    scratch = ap.train(out=tmp_path / "scratch", settings=tiny[1::2], pretrain=False)
    assert list(scratch.checkpoints) == ["init", "finetuned"]
    continued = ap.train(out=tmp_path / "more", settings=tiny[1::2], pretrained=run.checkpoints["pretrained"])
    assert continued.result["test_loss"] == run.result["test_loss"]
    with pytest.raises(ArtifactError, match="no checkpoint 'best'"):
        again.open("best")
    with pytest.raises(ArtifactError, match="holds no finished run"):
        ap.load_run(tmp_path)


def test_trajectory_has_the_rows_of_the_command(attnprobe, tiny: list[str]) -> None:
    runs = [ap.train(out=f"run{seed}", settings=[*tiny[1::2], f"seed={seed}"], probe_every=2) for seed in (0, 1)]
    rows = attnprobe("probe", "trajectory", "run0", "run1", "--json").document()["rows"]
    answer = ap.trajectory(runs[0], "run1")
    assert answer.rows == rows
    assert answer.to_frame().groupby("run").step.max().to_dict() == {"run0": 1, "run1": 1}
    assert answer.verdict.startswith("run0: the bias of layer")
    assert answer.plot()[0].startswith(b"\x89PNG")
    Path("run1/trajectory.jsonl").write_text(Path("run1/trajectory.jsonl").read_text()[:-9])
    with pytest.warns(UserWarning, match="cut off"):
        assert len(ap.trajectory(*runs).rows) == len(rows) - 1
    with pytest.raises(ArtifactError, match="does not exist"):
        ap.trajectory("nowhere")


def test_verify() -> None:
    rows = ap.verify(["C1"], length=11, dim=2)
    assert rows
    assert all(row.passed for row in rows)


def test_the_notebook_section_of_the_readme_runs(attnprobe, tiny: list[str], monkeypatch) -> None:
    """Its code, in order, on runs made small."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.split("\n## In a notebook\n")[1].split("\n## ")[0]
    train = interface.train

    def small(*arguments, settings=(), **more) -> interface.Run:
        return train(*arguments, settings=[*settings, *tiny[1::2]], **more)

    monkeypatch.setattr(interface, "train", small)
    names: dict = {}
    blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README", "exec"), names)


def test_arrays_of_an_answer_have_named_axes() -> None:
    xarray = pytest.importorskip("xarray")
    q, k = np.random.default_rng(0).standard_normal((2, 5, 3, 6, 4))
    for layout, axes in (({}, {"offset": 11}), ({"grid": (2, 3)}, {"offset_y": 3, "offset_x": 5})):
        answer = ap.proximity(ap.arrays(q, k, **layout), n=5, radius=1)
        found = answer.to_xarray()
        assert isinstance(found, xarray.Dataset)
        assert dict(found.sizes) | axes == dict(found.sizes)
        score = found["map_score_estimate" if "grid" in layout else "profile_score_estimate"]
        assert score.dims == ("layer", "head", *axes)
        wanted = answer.result.arrays()[str(score.name)]
        assert np.array_equal(score.values, wanted, equal_nan=True)
        assert score.sel(dict.fromkeys(axes, 0)).shape == (1, 3)
