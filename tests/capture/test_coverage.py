"""The table of architectures that can be watched says what is so."""

import re

import pytest

pytest.importorskip("transformers")

import transformers

from tests.capture.coverage import FILE, TIMM, document
from tests.capture.families import FAMILIES

pytestmark = [pytest.mark.hf, pytest.mark.slow]


def test_the_table_is_true() -> None:
    written = FILE.read_text()
    assert len({family.name for family in FAMILIES}) >= 40
    version = re.search(r"transformers ([\d.]+\d)", written)
    assert version
    if version[1] != transformers.__version__:
        pytest.skip(f"the table was made with transformers {version[1]}")
    found, told = ([line for line in text.splitlines() if not line.startswith(TIMM)] for text in (document(), written))
    assert found == told


def test_the_row_of_timm_is_true() -> None:
    pytest.importorskip("timm")
    from tests.capture.timm_models import way_of

    assert f"{TIMM} | {way_of(fused=False)} | {way_of(fused=True)} | yes |" in FILE.read_text().splitlines()
