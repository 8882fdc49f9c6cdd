"""attnprobe probe kernels."""

from pathlib import Path

import pytest


@pytest.mark.parametrize("name", ["s4", "s4d", "dlr", "spade", "mega"])
def test_the_command_compares_with_the_structured_start(name: str, attnprobe, tiny, tmp_path: Path) -> None:
    start = "" if name == "mega" else ", start='normal'"  # a moving average has no other start
    run, mixer = tmp_path / "run", f"model.mixer={{name='{name}', states=8{start}}}"
    assert attnprobe("train", *tiny, "-s", mixer, "-s", "model.d_mlp=0", "--out", run, "-q").code == 0
    init, trained = run / "checkpoints" / "init.pt", run / "checkpoints" / "pretrained.pt"
    outcome = attnprobe("probe", "kernels", init, trained, "--figure", tmp_path / "k.png", "--json")
    assert outcome.code == 0
    document = outcome.document()
    assert [r["checkpoint"] for r in document["rows"][::3]] == [str(init), "structured start", str(trained)]
    assert {r["quantity"] for r in document["rows"]} == {"near_mass", "distance", "entropy"}
    assert (tmp_path / "k.png").stat().st_size > 10_000
    assert name == "mega" or "structured start: the most local kernels" in document["verdict"]


def test_models_without_kernels_are_refused(attnprobe, trained) -> None:
    outcome = attnprobe("probe", "kernels", trained / "checkpoints" / "init.pt")
    assert outcome.code == 4
    outcome.complains("no long convolutions")


def test_models_of_another_kind_have_a_start_of_their_own(attnprobe, tiny, tmp_path: Path) -> None:
    inits = []
    for name, states in (("small", 4), ("large", 8)):
        mixer = f"model.mixer={{name='s4d', states={states}}}"
        arguments = (*tiny, "-s", mixer, "--no-finetune", "--out", tmp_path / name, "-q")
        assert attnprobe("train", *arguments).code == 0
        inits.append(tmp_path / name / "checkpoints" / "init.pt")
    outcome = attnprobe("probe", "kernels", *inits, "--figure", tmp_path / "k.png", "--json")
    start = "structured start of "
    found = [row["checkpoint"] for row in outcome.document()["rows"][::3]]
    assert found == [str(inits[0]), f"{start}small/init", str(inits[1]), f"{start}large/init"]


def test_a_radius_that_holds_all_positions_is_refused(attnprobe, tiny, tmp_path: Path) -> None:
    arguments = (*tiny, "-s", "model.mixer={name='s4d', states=4}", "--no-finetune", "--out", tmp_path / "run", "-q")
    assert attnprobe("train", *arguments).code == 0
    init = tmp_path / "run" / "checkpoints" / "init.pt"
    for radius, code, reason in (("1000", 4, "no pair of positions lies beyond radius 1000"), ("1e309", 2, "finite")):
        outcome = attnprobe("probe", "kernels", init, "--radius", radius)
        assert outcome.code == code
        outcome.complains(reason)
