"""Parameters by part: all of them, each once, and as many as were published."""

import pytest
import torch

from attnprobe import presets, run
from attnprobe.config import override
from attnprobe.models import Transformer
from attnprobe.models.anatomy import PartOfModel, parts
from attnprobe.models.initialisation import parameter_count, undrawn
from attnprobe.tasks import Spec

SPECS = {  # of the data as they are published, where a task has them; vocabularies differ a little from copy to copy
    "textures": Spec(length=64, classes=6), "fashion-mnist": Spec(length=196, classes=10),
    "listops": Spec(length=2000, classes=10, vocabulary=19), "text": Spec(length=4096, classes=2, vocabulary=135),
    "retrieval": Spec(length=4000, classes=2, vocabulary=98, pairs=True),
    "image": Spec(length=1024, classes=10, levels=256), "scifar": Spec(length=1024, classes=10, channels=3),
    "pathfinder": Spec(length=1024, classes=2, levels=256), "speech-commands": Spec(length=16000, classes=35),
    "bidmc": Spec(length=4000, classes=1, channels=2),
}  # fmt: skip


def model_of(preset: str, *changes: str) -> Transformer:
    """On the meta device: shapes alone."""
    table = override(presets.read_table(preset), changes)
    spec = SPECS[table["task"]["name"]]
    with torch.device("meta"):
        return undrawn(run.from_table(table).model, spec, "values" if spec.vocabulary is None else "classes")


OF_OUR_BLOCKS = [
    name
    for name in presets.descriptions()
    if (table := presets.read_table(name))["task"]["name"] in SPECS and "backbone" not in table["model"]
]


@pytest.mark.parametrize("preset", OF_OUR_BLOCKS)
def test_the_parts_of_every_preset_are_its_whole_model(preset: str) -> None:
    model = model_of(preset)
    found = parts(model)
    assert sum(part.parameters for part in found) == parameter_count(model) > 0
    of_blocks = [part for part in found if part.blocks]
    assert {block for part in of_blocks for block in part.blocks} == set(range(model.config.layers))
    assert len({(part.part, part.blocks) for part in found}) == len(found)


def test_parts_by_hand() -> None:
    d, mlp, classes = 64, 128, 6
    assert parts(model_of("textures", "model.layers=2")) == [
        PartOfModel(part="embedding", blocks=(), each=3 * d),
        PartOfModel(part="norms", blocks=(0, 1), each=4 * d),
        PartOfModel(part="mixer attention", blocks=(0, 1), each=4 * (d * d + d)),
        PartOfModel(part="MLP", blocks=(0, 1), each=2 * d * mlp + mlp + d),
        PartOfModel(part="last norm", blocks=(), each=2 * d),
        PartOfModel(part="label head", blocks=(), each=d * classes + classes),
        PartOfModel(part="reconstruction head", blocks=(), each=d + 1),
    ]


def test_blocks_that_are_not_alike_stand_apart() -> None:
    """SPADE has its state-space model in the first block alone."""
    found = [
        part for part in parts(model_of("textures", "model.layers=3", "model.mixer=spade")) if "spade" in part.part
    ]
    assert [part.blocks for part in found] == [(0,), (1, 2)]
    assert found[0].each > found[1].each


MINIMAL = (  # example.py of github.com/state-spaces/s4
    "model.d_model=128", "model.layers=4", "model.causal=true", "model.norm_place=after", "model.norm=layer",
    "model.mixer={name='s4d', states=64}",
)  # fmt: skip
# preset, changes, what is counted, what is published, what ours is, where; and why ours is another number
PUBLISHED = [
    (
        "image-rotary",
        (),
        "backbone",
        "3M",
        "3M",
        "Amos et al. 2023, Table 9, the size whose values are those of Table 2",
    ),
    (
        "image-s4",
        (),
        "backbone",
        "3M",
        "3.56M",
        "the same table; one column for S4 and Transformer, its number is rough",
    ),
    # The files of Amos et al. have 64 copies of the system with "# 2" behind; two give the number of Gu et al.
    ("speech-commands-s4", ("model.mixer.copies=2",), "classifier", "307K", "307K", "Gu et al. 2022 (S4D), S4-LegS"),
    (
        "speech-commands-s4",
        ("model.mixer={name='s4d', copies=2}",),
        "classifier",
        "306K",
        "306K",
        "Gu et al. 2022 (S4D), S4D-LegS",
    ),
    (
        "scifar-s4",
        MINIMAL,
        "classifier",
        "200K",
        "234K",
        "README of github.com/state-spaces/s4, whose B is fixed: 33K less",
    ),
]


@pytest.mark.parametrize(("preset", "changes", "counted", "published", "ours", "source"), PUBLISHED)
def test_parameters_are_as_many_as_published(
    preset: str, changes: tuple[str, ...], counted: str, published: str, ours: str, source: str
) -> None:
    """backbone: blocks and last norm; classifier: without the head of reconstruction, which is ours."""
    found = parts(model_of(preset, *changes))
    if counted == "backbone":
        found = [part for part in found if part.blocks or part.part == "last norm"]
    total = sum(part.parameters for part in found if part.part != "reconstruction head")
    number, unit = ours[:-1], {"K": 1e3, "M": 1e6}[ours[-1]]
    digits = len(number.partition(".")[2])
    assert f"{total / unit:.{digits}f}" == number
    assert ours == published or len(source.split(",")) > 1, "say why ours is another number"
