"""Losses of vision models per image, their gradients along the scores, and patches in another order."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("transformers")

import transformers

from attnprobe.capture.hugging_face.image_losses import HIDDEN_SHARE
from attnprobe.capture.hugging_face.opening import Needs, Source, open_source
from attnprobe.capture.hugging_face.patches import Patches
from attnprobe.capture.watching.watched import Watched
from attnprobe.errors import ConfigError, NotApplicableError
from attnprobe.models.hugging_face.loading import library
from attnprobe.probes.score_gradients import trace
from tests.capture.hugging_face_folders import VISION, write_images, write_model

pytestmark = pytest.mark.hf
CPU, PATCHES = torch.device("cpu"), 25
SAMPLES = np.arange(7)


@pytest.fixture(autouse=True)
def quiet() -> None:
    library()


def opened(name: str, folder: Path, needs: Needs = "both", **changes: object) -> Watched:
    write_model(name, folder / "model", **changes)
    given = Source(model=str(folder / "model"), images=write_images(folder / "images"))
    return open_source(given, CPU, needs=needs, seed=3)


def as_patches(pixels: torch.Tensor) -> torch.Tensor:
    """(image, patch, values) by torch's own unfolding."""
    return F.unfold(pixels, 4, stride=4).mT


def test_hidden_patches_cost_what_transformers_says_image_by_image(tmp_path: Path) -> None:
    subject = opened("masked vit", tmp_path)
    model = transformers.AutoModelForMaskedImageModeling.from_pretrained(tmp_path / "model").eval()
    batch = subject.losses["reconstruction"].prepare(subject.inputs.take(SAMPLES), SAMPLES)
    pixels, hidden = batch.targets
    assert (hidden.sum(1) == round(HIDDEN_SHARE * PATCHES)).all()
    assert len({tuple(row.tolist()) for row in hidden}) == len(SAMPLES)
    with torch.no_grad():
        found = subject.loss("reconstruction", SAMPLES).value
        alone = subject.loss("reconstruction", SAMPLES[4:5]).value
        for sample in SAMPLES:
            one = slice(sample, sample + 1)
            wanted = model(pixel_values=pixels[one], bool_masked_pos=hidden[one]).loss
            assert float(found[sample]) == pytest.approx(float(wanted), rel=1e-4)
    assert float(alone[0]) == pytest.approx(float(found[4]), rel=1e-5)


def test_grey_patches_are_read_out_of_the_last_states(tmp_path: Path) -> None:
    subject = opened("vit", tmp_path)
    model = transformers.AutoModel.from_pretrained(tmp_path / "model", add_pooling_layer=False).eval()
    loss = subject.losses["reconstruction"]
    batch = loss.prepare(subject.inputs.take(SAMPLES), SAMPLES)
    pixels, hidden = batch.targets
    grey = torch.where(hidden[..., None], 0.0, as_patches(pixels))
    assert torch.equal(as_patches(batch.kwargs["pixel_values"]), grey)
    with torch.no_grad():
        found = subject.loss("reconstruction", SAMPLES).value
        states = model(pixel_values=F.fold(grey.mT, 20, 4, stride=4)).last_hidden_state[:, 1:]
    readout = loss.of.__closure__
    assert readout is not None
    (weights,) = (cell.cell_contents for cell in readout if isinstance(cell.cell_contents, np.ndarray))
    assert weights.shape == (16, 48)
    assert weights.std() == pytest.approx(16**-0.5, rel=0.1)
    errors = (states.numpy() @ weights - as_patches(pixels).numpy()) ** 2
    wanted = [error[chosen].mean() for error, chosen in zip(errors, hidden.numpy(), strict=True)]
    assert found.numpy() == pytest.approx(np.array(wanted), rel=1e-4)


def test_the_readout_of_classes_sees_the_same_states_with_and_without_a_head(tmp_path: Path) -> None:
    subject = opened("masked vit", tmp_path)
    with torch.no_grad():
        wanted = subject.model.base_model(subject.inputs.kwargs["pixel_values"]).last_hidden_state
        output = subject.model(subject.inputs.kwargs["pixel_values"])
    assert torch.equal(output.last_hidden_state, wanted)
    exact = subject.double()
    with torch.no_grad():
        one, other = (s.loss("label", SAMPLES).value for s in (subject, exact))
    assert other.dtype == torch.float64
    assert torch.allclose(one.double(), other, atol=1e-5)


def test_its_own_classifier_is_asked_by_the_names_of_folders(tmp_path: Path) -> None:
    names = {"label2id": {"Dogs": 0, "birds": 1, "cats": 2}, "id2label": {0: "Dogs", 1: "birds", 2: "cats"}}
    subject = opened("vit", tmp_path, "reconstruction", **names)
    assert [*subject.losses] == ["label"]
    assert subject.labels is not None
    assert subject.labels.tolist() == [2] * 6 + [0] * 6
    model = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "model").eval()
    with torch.no_grad():
        found = subject.loss("label", SAMPLES)
        logits = model(subject.inputs.kwargs["pixel_values"][SAMPLES]).logits
    assert found.value.numpy() == pytest.approx(-logits.log_softmax(-1)[range(7), [2] * 6 + [0]].numpy(), rel=1e-5)
    assert found.accuracy is not None
    assert found.accuracy.tolist() == [float(row.argmax() == k) for row, k in zip(logits, [2] * 6 + [0], strict=True)]
    (tmp_path / "images" / "cats").rename(tmp_path / "images" / "1")
    numbered = open_source(
        Source(model=str(tmp_path / "model"), images=tmp_path / "images"), CPU, needs="reconstruction"
    )
    assert numbered.labels is not None
    assert numbered.labels.tolist() == [1] * 6 + [0] * 6
    (tmp_path / "images" / "1").rename(tmp_path / "images" / "cows")
    with pytest.raises(ConfigError, match="'cows' are no classes") as caught:
        open_source(Source(model=str(tmp_path / "model"), images=tmp_path / "images"), CPU, needs="reconstruction")
    assert "0 to 2" in caught.value.hint


@pytest.mark.parametrize("name", ["vit", *VISION])
@pytest.mark.parametrize("loss", ["label", "reconstruction"])
def test_gradients_along_scores_agree_between_offsets_and_outputs(name: str, loss: str, tmp_path: Path) -> None:
    subject, found = opened(name, tmp_path), []
    for method in ("dense", "streamed"):
        traced = trace(subject, SAMPLES, loss, method=method)
        found.append([block.values for block in traced.gradients(PATCHES)])
    assert len(found[0]) == 2
    for dense, streamed in zip(*found, strict=True):
        assert float(dense.abs().max()) > 1e-6
        assert torch.allclose(dense, streamed, atol=2e-5 * float(dense.abs().max()))


def test_another_order_is_that_of_the_patches(tmp_path: Path) -> None:
    subject = opened("vit", tmp_path)
    order = np.random.default_rng(0).permutation(PATCHES)
    moved = subject.reordered(order)
    before, after = (as_patches(s.inputs.kwargs["pixel_values"]) for s in (subject, moved))
    assert torch.equal(after, before[:, order])
    with torch.no_grad():
        first, other = (s.loss("reconstruction", SAMPLES).value for s in (subject, moved))
    assert not torch.allclose(first, other)


def test_patches_and_back() -> None:
    pixels = torch.randn(2, 3, 17, 23)
    patches = Patches(size=(5, 4), grid=(3, 5))
    values = patches.split(pixels)
    assert torch.equal(values, F.unfold(pixels[..., :15, :20], (5, 4), stride=(5, 4)).mT)
    assert torch.equal(patches.joined(values, pixels), pixels)
    assert torch.equal(patches.joined(values, torch.zeros_like(pixels))[..., 15:, :], torch.zeros(2, 3, 2, 23))


def test_an_encoder_that_hides_patches_sees_all_of_them_in_order(tmp_path: Path) -> None:
    """ViTMAE keeps a random quarter in random order, of which no position is the same twice."""
    subject = opened("vit_mae", tmp_path, "scores")
    assert (subject.space.layout.shape, subject.space.leading) == ((5, 5), 1)
    embeddings, seen = subject.model.embeddings, []
    embeddings.register_forward_hook(lambda module, args, output: seen.append(output[0]))
    subject.run(SAMPLES)
    pixels = subject.inputs.kwargs["pixel_values"][SAMPLES]
    wanted = embeddings.patch_embeddings(pixels) + embeddings.position_embeddings[:, 1:]
    assert torch.allclose(seen[0][:, 1:], wanted)


@pytest.mark.parametrize("name", ["vit_mae", "dinov2"])
def test_models_without_a_head_of_their_own_have_no_loss_of_their_own(name: str, tmp_path: Path) -> None:
    with pytest.raises(NotApplicableError, match="neither a classifier nor"):
        opened(name, tmp_path, "reconstruction")


def test_images_without_classes_have_no_labels(tmp_path: Path) -> None:
    write_model("dinov2", tmp_path / "model")
    images = write_images(tmp_path / "images") / "cats"
    given = Source(model=str(tmp_path / "model"), images=images)
    assert not given.gives_labels
    assert dataclasses.replace(given, images=tmp_path / "images").gives_labels
    with pytest.raises(ConfigError, match="no folders of images"):
        open_source(given, CPU, needs="both")
