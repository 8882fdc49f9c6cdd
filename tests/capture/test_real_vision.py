"""A trained text recogniser is watched: opt in with ATTNPROBE_TEST_REAL=1 and the packages that ship and convert it."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
import torch

import attnprobe as ap
from attnprobe.scores.call import AttentionCall
from tests.capture.real_vision import HEADS, LAYERS, lines_of, printed, read, recogniser

OPT_IN = os.environ.get("ATTNPROBE_TEST_REAL") == "1"  # before every test is made free of such settings
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not OPT_IN, reason="ATTNPROBE_TEST_REAL is not 1")]
TEXT = Path(__file__).parents[2] / "README.md"  # English prose, mostly
N = 16


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence", "ignore::DeprecationWarning")
def test_attention_of_a_trained_text_recogniser() -> None:
    if None in map(importlib.util.find_spec, ("onnx", "onnx2torch", "rapidocr_onnxruntime")):
        pytest.skip("without onnx, onnx2torch and rapidocr-onnxruntime")
    model, characters = recogniser()
    lines = lines_of(TEXT.read_text(encoding="utf-8"), N)
    images, calls = printed(lines), list[AttentionCall]()
    with torch.no_grad():
        output = model(images)
    found = read(output, characters)
    assert sum(one == other for one, other in zip(found, lines, strict=True)) > 0.7 * N  # it reads what is printed
    subject = ap.watch(model, [images])
    subject.run(np.arange(N), observe=calls.append)
    assert [call.q.shape[:3] for call in calls] == LAYERS * [(N, HEADS, 40)]
    assert subject.capture.error <= subject.capture.allowed
    answer = ap.proximity(subject, n=N, null="keys", draws=19)
    largest = {row["layer"]: row for row in answer.rows if row["quantity"] == "proximity_bias.max"}
    assert largest[1]["low"] > 0.9
    assert largest[None]["p_value"] == 0.05  # no order of the keys comes near
