"""The probes' commands on vision models of Hugging Face and folders of images."""

from pathlib import Path

import pytest

pytest.importorskip("transformers")

from attnprobe.models.hugging_face.loading import library
from tests.capture.hugging_face_folders import VISION, write_images, write_model

pytestmark = pytest.mark.hf
CLASSES = {"label2id": {"cats": 0, "dogs": 1}, "id2label": {0: "cats", 1: "dogs"}}


@pytest.fixture(autouse=True)
def quiet() -> None:
    library()


@pytest.mark.parametrize(("name", "quantities"), [("vit", {"accuracy", "loss"}), ("masked vit", {"loss"})])
def test_doses_of_the_own_profile(name: str, quantities: set[str], attnprobe) -> None:
    model, images = write_model(name, Path("m"), **(CLASSES if name == "vit" else {})), write_images(Path("i"))
    command = ("probe", "intervene", f"hf:{model}", "--images", images, "--doses=-1,0", "--controls", 2)
    outcome = attnprobe(*command, "--json", "--figure", "dose")
    rows = outcome.document()["rows"]
    assert {row["quantity"] for row in rows if "change" not in row["quantity"]} == quantities
    change = {r["dose"]: r["estimate"] for r in rows if r["kind"] == "own" and r["quantity"] == "loss.change"}
    assert change[0] == 0
    assert abs(change[-1]) > 1e-5
    (capture,) = outcome.document()["capture"].values()
    wanted = {"label": "classes, by the model's own classifier"}
    assert capture["losses"] == (
        wanted if name == "vit" else {"reconstruction": "hidden patches, by the model's own head"}
    )
    assert f"m: {next(iter(capture['losses']))} loss: " in outcome.err


@pytest.mark.parametrize("name", ["vit", *VISION])
def test_gradients_of_both_losses(name: str, attnprobe) -> None:
    command = (f"hf:{write_model(name, Path('m'))}", "--images", write_images(Path("i")), "--shuffles", 19, "--json")
    pulls = attnprobe("probe", "alignment", *command, "--orders", 19).document()
    assert {"label.t", "reconstruction.t", "reconstruction.positions"} <= {row["quantity"] for row in pulls["rows"]}
    (capture,) = pulls["capture"].values()
    head = (
        "hidden patches, by the model's own head" if name == "masked vit" else "grey patches, by a readout drawn anew"
    )
    assert capture["losses"] == {"label": "classes, by a readout drawn anew", "reconstruction": head}
    if name == "vit":
        blind = attnprobe("theory", "certify", *command, "--stepped", 5)
        assert blind.code in (0, 5)
        agreeing = [row["agrees"] for row in blind.document()["rows"] if row.get("agrees") is not None]
        assert agreeing
        assert all(agreeing)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("intervene", "hf:dino", "--images", "i"), 4, ["neither a classifier nor a head"]),
        (("intervene", "hf:vit", "--images", "i"), 2, ["'cats', 'dogs' are no classes of this model", "LABEL_0"]),
        (("intervene", "hf:vit", "--images", "i/cats"), 2, ["no folders of images", "IMAGES/CLASS/FILE"]),
        (("alignment", "hf:vit", "--images", "i/cats"), 2, ["no folders of images"]),
        (("alignment", "hf:vit", "--images", "nowhere"), 3, ["nowhere is no folder"]),
    ],
)
def test_refusals(arguments: tuple[str, ...], code: int, words: list[str], attnprobe) -> None:
    write_model("vit", Path("vit"))
    write_model("dinov2", Path("dino"))
    write_images(Path("i"))
    outcome = attnprobe("probe", *arguments)
    assert outcome.code == code
    outcome.complains(*words, "hint:")
