"""The probes' commands on folders of Hugging Face models, held against what the models' own eager weights say."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers")

import transformers
from PIL import Image

from attnprobe.models.hugging_face.loading import library
from tests.capture.hugging_face_folders import KINDS, TEXT, write_images, write_model, write_table, write_text

pytestmark = pytest.mark.hf


@pytest.fixture(autouse=True)
def quiet() -> None:
    library()


def reference(scores: Tensor, seen: Tensor, near: Tensor) -> Tensor:
    """(head,) proximity bias from its definition. scores (n, head, length, length), seen (n, length, length) bool."""
    seen = seen[:, None].double()
    centred = (scores - (scores * seen).sum(-1, keepdim=True) / seen.sum(-1, keepdim=True).clamp(min=1)) * seen
    close, away = seen * near, seen * ~near
    gap = (centred * close).sum((0, 2, 3)) / close.sum() - (centred * away).sum((0, 2, 3)) / away.sum()
    return gap / (centred.square().sum((0, 2, 3)) / seen.sum()).sqrt()


@pytest.mark.parametrize("kind", [*KINDS])
@pytest.mark.parametrize("padded", [False, True])
def test_proximity_is_that_of_the_eager_weights(kind: str, padded: bool, tmp_path: Path, attnprobe) -> None:
    """Up to a constant for every query, which centring takes off, the logarithm of the pattern are the scores."""
    if kind == "vit" and padded:
        pytest.skip("images are not padded")
    folder = write_model(kind, tmp_path / kind)
    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    if kind == "vit":
        given, leading = ["--images", write_images(tmp_path / "images")], 1
        processor = transformers.AutoImageProcessor.from_pretrained(folder)
        files = sorted((tmp_path / "images").rglob("*.png"))
        inputs = dict(processor(images=[Image.open(file) for file in files], return_tensors="pt"))
        own = torch.ones(len(files), 25, dtype=torch.bool)
        place = torch.cartesian_prod(torch.arange(5), torch.arange(5)).double()
        near = torch.cdist(place, place) <= 1.5
    else:
        path = write_table(tmp_path / "t.csv") if padded else write_text(tmp_path / "t.txt")
        given, leading = ["--text", path, "--max-length", 12], int(kind == "bert")
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        around = leading * 2
        if padded:
            texts = [line.split(",")[0].split()[: 12 - around] for line in path.read_text().splitlines()[1:]]
        else:
            words = path.read_text().split()
            texts = [words[i : i + 12 - around] for i in range(0, len(words) - 12 + around + 1, 12 - around)]
        inputs = dict(tokenizer([" ".join(text) for text in texts], padding=True, return_tensors="pt"))
        length = inputs["input_ids"].shape[1] - leading
        own = torch.arange(length) < torch.tensor([len(text) for text in texts])[:, None]
        offset = torch.arange(length) - torch.arange(length)[:, None]
        near = offset.abs() <= 3
    inputs.pop("token_type_ids", None)
    with torch.no_grad():
        weights = model(**inputs, output_attentions=True).attentions
    seen = own[:, None] & own[:, :, None]
    if kind in ("gpt2", "gpt_neox", "llama", "bloom"):
        seen = seen.tril()
    outcome = attnprobe(
        "probe", "proximity", f"hf:{folder}", *given, "-n", len(own), "--draws", 19, "--json", "--null", "keys"
    )
    assert outcome.code == 0, outcome.err
    document = json.loads(outcome.out)
    rows = {(r["layer"], r["head"]): r for r in document["rows"] if r["quantity"] == "proximity_bias"}
    assert len(rows) == 4
    for layer, weight in enumerate(weights):
        scores = weight.double()[:, :, leading:, leading:].clamp(min=1e-300).log()
        for head, wanted in enumerate(reference(scores, seen, near).tolist()):
            assert rows[layer, head]["estimate"] == pytest.approx(wanted, abs=1e-4)
            assert rows[layer, head]["n"] == len(own)
    (capture,) = document["capture"].values()
    assert capture["way"] == ("functions" if kind == "bloom" else "AttentionInterface")
    assert capture["calls"] == 2
    assert capture["error"] <= capture["allowed"]
    assert f"2 calls seen by {capture['way']}" in outcome.err


@pytest.mark.parametrize("kind", [*KINDS])
def test_a_trained_bias_stands_out_from_weights_drawn_anew(kind: str, tmp_path: Path, attnprobe) -> None:
    folder = write_model(kind, tmp_path / kind)
    data = ("--images", write_images(tmp_path / "images")) if kind == "vit" else ("--text", write_text(tmp_path / "t"))
    outcome = attnprobe(
        "probe", "proximity", f"hf:{folder}", *data, "--max-length", 16, "-n", 12, "--draws", 19, "--json"
    )
    assert outcome.code == 0, outcome.err
    rows = [row for row in json.loads(outcome.out)["rows"] if row["quantity"] == "proximity_bias"]
    assert all(row["null"] == "init" and row["p_value"] >= 0.05 for row in rows)
    assert "seed" not in rows[0]


def test_decompose_of_random_positions_and_contents(tmp_path: Path, attnprobe) -> None:
    folder = write_model("gpt2", tmp_path / "gpt2")
    outcome = attnprobe(
        "probe", "decompose", f"hf:{folder}", "--text", write_text(tmp_path / "t"), "--max-length", 9, "--json"
    )
    rows = json.loads(outcome.out)["rows"]
    for layer in (0, 1):
        of_head = [row["estimate"] for row in rows if row["layer"] == layer and row["head"] == 1]
        assert sum(of_head) == pytest.approx(1)
    first = {row["quantity"]: row["estimate"] for row in rows if row["layer"] == row["head"] == 0}
    assert min(first["position_share"], first["content_share"]) > 0.05  # learned positions, random tokens


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        ([], 2, "needs something to be run on"),
        (["--text", "{missing}"], 3, "missing.txt"),
        (["--text", "{text}", "--max-length", "99"], 2, "more than this model's 48 positions"),
        (["--text", "{text}", "--only", "decoder.*"], 4, "no attention was seen"),
        (["--images", "{images}"], 3, "preprocessor_config.json"),
        (["--text", "{table}", "--text-column", "tekst"], 3, "choose it by --text-column"),
        (["--text", "{text}", "--figure", "x.jpg"], 2, "x.jpg: figures are .png or .pdf"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    arguments: list[str], code: int, reason: str, tmp_path: Path, attnprobe
) -> None:
    folder = write_model("bert", tmp_path / "bert")
    write_text(tmp_path / "text.txt")
    write_table(tmp_path / "table.csv")
    write_images(tmp_path / "images")
    places = {"missing": "missing.txt", "text": "text.txt", "images": "images", "table": "table.csv"}
    given = [part.format(**{name: tmp_path / place for name, place in places.items()}) for part in arguments]
    outcome = attnprobe("probe", "proximity", f"hf:{folder}", *given)
    assert outcome.code == code, outcome.err
    assert reason in outcome.err
    assert "Traceback" not in outcome.err


def test_a_tokenizer_of_another_model(tmp_path: Path, attnprobe) -> None:
    folder = write_model("bert", tmp_path / "bert", vocab_size=31)
    outcome = attnprobe("probe", "proximity", f"hf:{folder}", "--text", write_text(tmp_path / "t"), "-n", 6)
    assert outcome.code == 3, outcome.err
    assert "made the token" in outcome.err
    assert "knows 0 to 30" in outcome.err


def test_nothing_is_fetched_unasked(tmp_path: Path, attnprobe) -> None:
    outcome = attnprobe("probe", "proximity", "hf:nobody/nothing", "--text", write_text(tmp_path / "t"))
    assert outcome.code == 3
    assert "--allow-download" in outcome.err


def test_samples_follow_the_rule_of_all_probes(tmp_path: Path, attnprobe) -> None:
    folder = write_model("bert", tmp_path / "bert")
    command = ("probe", "proximity", f"hf:{folder}", "--text", write_table(tmp_path / "t.csv"), "-n", 9, "--json")
    found = [json.loads(attnprobe(*command, "--null", "none", "--batch-size", size).out)["rows"] for size in (2, 9)]
    assert [row["n"] for row in found[0]] == [9] * len(found[0])
    assert np.allclose(*[[row["estimate"] for row in rows] for rows in found], rtol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_losses_by_dose_alignment_and_blindness(kind: str, tmp_path: Path, attnprobe) -> None:
    model, table = f"hf:{write_model(kind, tmp_path / kind)}", write_table(tmp_path / "t.csv")
    common = ("--text", table, "-n", 30, "--max-length", 10, "--json")
    doses = attnprobe("probe", "intervene", model, *common, "--doses=-1,0", "--controls", 2).document()["rows"]
    change = {r["dose"]: r["estimate"] for r in doses if r["kind"] == "own" and r["quantity"] == "loss.change"}
    assert change[0] == 0
    assert abs(change[-1]) > 1e-5
    labels = (*common, "--label-column", "answer")
    asked = ("probe", "alignment", model, *labels, "--shuffles", 19)
    attnprobe(*asked, "--orders", 19, "--null", "positions").complains("--null")  # lengths differ
    outcome = attnprobe(*asked)
    assert f"{kind}: sequences differ too much in length" in outcome.err
    assert outcome.document()["rows"] == attnprobe(*asked, "--null", "none").document()["rows"]
    assert {"label.t", "reconstruction.t"} <= {row["quantity"] for row in outcome.document()["rows"]}
    blind = attnprobe("theory", "certify", model, *labels, "--shuffles", 19, "--stepped", 5)
    assert blind.code in (0, 5)
    assert {row["loss"] for row in blind.document()["rows"]} == {"label", "reconstruction", "label / reconstruction"}
    assert all(row["agrees"] for row in blind.document()["rows"] if row.get("agrees") is not None)
    attnprobe("probe", "alignment", model, *common[:-1]).complains("--label-column")
    attnprobe("probe", "alignment", model, *labels[:-3], *labels[-2:], "--change-to", "a.pt").complains("--change-to")


def test_saved_queries_and_keys_open_without_attnprobe(tmp_path: Path, attnprobe) -> None:
    from safetensors import safe_open

    folder, text = write_model("gpt2", tmp_path / "gpt2"), write_text(tmp_path / "t", 500)
    command = ("probe", "proximity", f"hf:{folder}", "--text", text, "--max-length", 9, "--null", "none", "-n", 40)
    assert attnprobe(*command, "--save-qk", "out").code == 0
    files = sorted(path.name for path in Path("out").iterdir())
    assert files == [f"layer-0{layer}-00{part}.safetensors" for layer in (0, 1) for part in (0, 1)]
    model = transformers.GPT2Model.from_pretrained(folder, attn_implementation="eager").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor(tokenizer(text.read_text())["input_ids"][: 500 // 9 * 9]).view(-1, 9)
    with safe_open("out/layer-01-001.safetensors", "pt") as file, torch.no_grad():
        q, k, samples = (file.get_tensor(name) for name in ("q", "k", "samples"))
        told = file.metadata()
        wanted = model(input_ids=ids[samples], output_attentions=True).attentions[1]
    assert told["module"] == "h.1.attn"
    assert told["causal"] == "True"
    scores = q @ k.mT * float(told["scale"])
    future = torch.ones(9, 9).triu(1).bool()
    assert torch.allclose(scores.masked_fill(future, -torch.inf).softmax(-1), wanted, atol=1e-5)
    attnprobe(*command, "--save-qk", "out").complains("not empty")


def test_the_usual_length_leaves_out_positions_that_roberta_does_not_use(tmp_path: Path, attnprobe) -> None:
    """It numbers positions from behind that of the padding token, of 48 here 47."""
    from tests.capture.hugging_face_folders import write_tokenizer

    config = transformers.AutoConfig.for_model("roberta", **TEXT, pad_token_id=0, bos_token_id=2, eos_token_id=3)
    transformers.AutoModelForMaskedLM.from_config(config).save_pretrained(tmp_path / "roberta")
    write_tokenizer(tmp_path / "roberta", around=True)
    probe = ("probe", "proximity", f"hf:{tmp_path / 'roberta'}", "--text", write_text(tmp_path / "t", 500), "-n", 4)
    assert attnprobe(*probe, "--null", "none").code == 0
    attnprobe(*probe, "--max-length", 48).complains("more than this model's 47 positions")


def test_kernels_are_those_of_ours(attnprobe) -> None:
    outcome = attnprobe("probe", "kernels", "hf:models/mamba")
    assert outcome.code == 4
    outcome.complains("hf:models/mamba: long convolutions", "attnprobe probe proximity")
