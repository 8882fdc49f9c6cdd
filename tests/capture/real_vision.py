"""A text recogniser with trained weights: numbers of experiments/README.md.

``python -m tests.capture.real_vision TEXT`` with the packages that ship the weights (rapidocr-onnxruntime) and turn
them into a torch module (onnx, onnx2torch). It reads a line of print, 48 pixels high, through convolutions and then two
layers of attention over 40 places along the line; no positions are added.
"""

import importlib
import importlib.util
import itertools
import sys
import textwrap
from pathlib import Path
from typing import Any
from unittest import mock

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from attnprobe.capture.watching import watch
from attnprobe.probes import proximity
from attnprobe.statistics.intervals import Interval

HEIGHT, WIDTH, LAYERS, HEADS = 48, 320, 2, 8
FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


def weights() -> Path:
    spec = importlib.util.find_spec("rapidocr_onnxruntime")
    assert spec is not None and spec.origin is not None, "pip install --no-deps rapidocr-onnxruntime"  # noqa: PT018
    return Path(spec.origin).parent / "models" / "ch_PP-OCRv4_rec_infer.onnx"


def recogniser() -> tuple[nn.Module, list[str]]:
    """Images (n, 3, 48, 320) in -1 ... 1 -> probabilities (n, 40, class); and what the classes after the first read."""
    onnx = importlib.import_module("onnx")
    model = onnx.load(weights())
    characters = next(entry.value for entry in model.metadata_props if entry.key == "character").splitlines()
    plain_constants(onnx, model.graph)
    plain_norms(onnx, model.graph)
    missing = {"torchvision": mock.MagicMock(), "torchvision.ops": mock.MagicMock()}  # for layers that are not in it
    with mock.patch.dict(sys.modules, missing):
        convert = importlib.import_module("onnx2torch").convert
    return convert(model).eval(), [*characters, " "]


def plain_constants(onnx: Any, graph: Any) -> None:
    """Weights that are nodes, as initialisers, where the conversion looks for them."""
    for node in [node for node in graph.node if node.op_type == "Constant"]:
        tensor = node.attribute[0].t
        tensor.name = node.output[0]
        graph.initializer.append(tensor)
        graph.node.remove(node)


def plain_norms(onnx: Any, graph: Any) -> None:
    """Batch norms as a product and a sum: of some the conversion does not know how many axes they have."""
    known = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for place in reversed([i for i, node in enumerate(graph.node) if node.op_type == "BatchNormalization"]):
        node = graph.node[place]
        epsilon = next(a.f for a in node.attribute if a.name == "epsilon")
        scale, shift, mean, variance = (known[name] for name in node.input[1:5])
        factor = scale / np.sqrt(variance + epsilon)
        name, given, result = node.output[0], node.input[0], node.output[0]
        for part, value in (("factor", factor), ("shift", shift - mean * factor)):
            graph.initializer.append(onnx.numpy_helper.from_array(value.reshape(1, -1, 1, 1), f"{name}.{part}"))
        make = onnx.helper.make_node
        graph.node.remove(node)
        graph.node.insert(place, make("Mul", [given, f"{name}.factor"], [f"{name}.scaled"], name=f"{name}.product"))
        graph.node.insert(place + 1, make("Add", [f"{name}.scaled", f"{name}.shift"], [result], name=f"{name}.sum"))


def lines_of(text: str, n: int, *, width: int = 28) -> list[str]:
    """So many different lines of printable letters, wrapped words."""
    wrapped = textwrap.wrap(" ".join("".join(c for c in text if " " <= c <= "~" or c.isspace()).split()), width)
    return list(dict.fromkeys(line for line in wrapped if len(line) > width - 5))[:n]


def printed(lines: list[str]) -> Tensor:
    """Black on white, as the recogniser was trained to be given them."""
    font, images = ImageFont.truetype(str(FONT), 30), []
    for line in lines:
        image = Image.new("L", (int(font.getlength(line)) + 12, HEIGHT), 255)
        ImageDraw.Draw(image).text((6, 5), line, fill=0, font=font)
        images.append(np.asarray(image.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)))
    return (torch.from_numpy(np.stack(images)).float() / 127.5 - 1)[:, None].expand(-1, 3, -1, -1).contiguous()


def read(probabilities: Tensor, characters: list[str]) -> list[str]:
    """The most likely class at every place, repeated ones once, the first class (blank) left out."""
    return [
        "".join(characters[c - 1] for c, _ in itertools.groupby(classes) if c)
        for classes in probabilities.argmax(-1).tolist()
    ]


def text_of(interval: Interval, digits: str) -> str:
    return " ".join((f"{interval.estimate:{digits}}", f"[{interval.low:{digits}}, {interval.high:{digits}}]"))


def main(path: Path) -> None:
    model, characters = recogniser()
    lines = lines_of(path.read_text(encoding="utf-8"), 64)
    images = printed(lines)
    with torch.no_grad():
        right = np.mean([one == other for one, other in zip(read(model(images), characters), lines, strict=True)])
    subject = watch(model, [images])
    found = proximity.measure(subject, n=len(lines), null="keys", draws=99)
    rows = {(row.layer, row.head, row.quantity): row for row in found.rows}
    for layer in range(LAYERS):
        for head in range(HEADS):
            bias, near, distance = (rows[layer, head, name] for name in ("proximity_bias", "near_mass", "distance"))
            cells = text_of(bias.interval, ".2f"), text_of(near.interval, ".2f"), text_of(distance.interval, ".1f")
            print("|", " | ".join((str(layer), str(head), *cells)), "|", bias.p_value, "|")
    print(f"{len(lines)} lines, {right:.2f} of them read without a mistake. {subject.capture}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
