"""attnprobe probe kernels."""

from pathlib import Path


def test_the_command_compares_with_the_structured_start(attnprobe, tiny, tmp_path: Path) -> None:
    run, mixer = tmp_path / "run", "model.mixer={name='s4d', states=8, start='normal'}"
    assert attnprobe("train", *tiny, "-s", mixer, "-s", "model.d_mlp=0", "--out", run, "-q").code == 0
    init, trained = run / "checkpoints" / "init.pt", run / "checkpoints" / "pretrained.pt"
    outcome = attnprobe("probe", "kernels", init, trained, "--figure", tmp_path / "k.png", "--json")
    assert outcome.code == 0
    document = outcome.document()
    assert [r["checkpoint"] for r in document["rows"][::3]] == [str(init), "structured start", str(trained)]
    assert {r["quantity"] for r in document["rows"]} == {"near_mass", "distance", "entropy"}
    assert (tmp_path / "k.png").stat().st_size > 10_000
    assert "structured start: the most local kernels" in document["verdict"]


def test_models_without_kernels_are_refused(attnprobe, trained) -> None:
    outcome = attnprobe("probe", "kernels", trained / "checkpoints" / "init.pt")
    assert outcome.code == 4
    outcome.complains("no long convolutions")
