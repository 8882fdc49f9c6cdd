"""No false verdict at random settings, and the largest length."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theory.checks import CLAIMS, verify
from theory.setting import Setting

BY_NAME = {claim.name: claim for claim in CLAIMS}


def drawn(longest: int) -> st.SearchStrategy[Setting]:
    return st.builds(
        Setting,
        length=st.integers(3, longest),
        dim=st.integers(1, 6),
        gain=st.floats(0.02, 30),
        seed=st.integers(0, 2**32 - 1),
        draws=st.just(4000),
    )


def check(names: tuple[str, ...], setting: Setting) -> None:
    for name in names:
        assert [row for row in BY_NAME[name].rows(setting) if not row.passed] == []


@settings(max_examples=200)
@given(setting=drawn(longest=8))
def test_deterministic_claims_hold_at_random_settings(setting):
    check(("C1", "C2", "C4", "C5"), setting)


@settings(max_examples=int(os.environ.get("ATTNPROBE_TEST_EXAMPLES", "6")))  # a flow and a simulation each: slow
@given(setting=drawn(longest=9))
def test_flows_and_sample_sizes_hold_at_random_settings(setting):
    check(("C3", "C6", "C7"), setting)


@pytest.mark.slow
def test_the_largest_length():
    rows = verify(length=512, dim=3, seed=2)
    assert [row for row in rows if not row.passed] == []
