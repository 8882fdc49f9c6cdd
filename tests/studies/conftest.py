from collections.abc import Callable
from pathlib import Path

import pytest

from attnprobe.studies.executors.serial import OneByOne
from attnprobe.studies.request import Request, request
from attnprobe.studies.work.carrying import complete
from attnprobe.studies.work.jobs import Asked

STUDY = """
title = "A small study"
question = "Does it run?"
settings = { "task.side" = 5, "task.n_train" = 53, "task.n_validation" = 29, "task.n_test" = 31, "model.d_model" = 12, \
"model.heads" = 2, "model.d_mlp" = 17, "pretrain.epochs" = 3, "finetune.epochs" = 4, "pretrain.batch_size" = 11, \
"finetune.batch_size" = 13 }

[axes.arm.scratch]
pretrain = false
[axes.arm.qk]
settings = { "finetune.transfer" = "qk" }
[axes.arm.all]

[tables.main]
rows = ["arm"]
compare = "arm"
against = "scratch"

[scales.tiny]
preset = "textures"
seeds = 2
"""


@pytest.fixture
def study(tmp_path: Path) -> Callable[..., Request]:
    """A small study with lines added, or others in their place, asked for in a store of the test's own."""

    def make(more: str = "", *, text: str = STUDY, **asked) -> Request:
        path = tmp_path / "small.toml"
        path.write_text(text + more)
        return request(str(path), **{"out": tmp_path / "studies"} | asked)

    return make


@pytest.fixture
def run_all() -> Callable[..., dict]:
    """Carries a request out, one job after the other."""

    def run(asked: Request, **options) -> dict:
        asked.store.claim()
        return complete(Asked(request=asked, device="cpu"), OneByOne(), **options)

    return run
