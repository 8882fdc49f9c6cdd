"""The measurement of the probes: every way to the sums agrees, and a process reports what it should."""

import pytest

from tests.benchmarks import probes


@pytest.mark.parametrize("squares", [False, True])
@pytest.mark.parametrize("name", probes.WAYS)
def test_every_way_gives_the_same_sums(name: str, squares: bool) -> None:
    assert probes.largest_error(name, squares) < probes.TOLERANCE
    sums, of_squares = probes.prepare_way(name, 37, squares)()
    assert sums.shape == (1, probes.HEADS, 73)
    assert (of_squares is not None) is squares


def test_a_process_of_its_own_reports_seconds_and_peak() -> None:
    way = probes.in_a_process("way", "dense, scatter", 3, 512, False)
    assert len(way["seconds"]) == 3
    assert way["peak"] > 4 * probes.HEADS * 512**2  # one matrix of scores is the least
    found = probes.in_a_process("probe", "decompose", 1, 64, 4, 2**30)
    assert found["seconds"][0] > 0
    assert found["error"] is None
