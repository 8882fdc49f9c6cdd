"""Damaged files end in one line with a hint, never in a traceback, a hang or a crash.

ATTNPROBE_TEST_FUZZ=20000 gives that many inputs to all parsers together instead of a few for each.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COUNT = int(os.environ.get("ATTNPROBE_TEST_FUZZ", "0"))
EACH = {"documents": 60, "records": 350, "data": 390, "archives": 80}  # inputs, about two seconds for each group
ROOT = Path(__file__).parents[2]
MOST_GROWN = 1024  # MiB


@pytest.mark.skipif(not hasattr(os, "fork"), reason="parsers work in forked processes")
@pytest.mark.parametrize("group", EACH)
def test_damaged_files_are_one_line(group: str) -> None:
    count = COUNT // len(EACH) or EACH[group]
    command = [sys.executable, "-m", "tests.fuzz", str(count), group]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600 + count)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) > 1
    for row in rows:
        print(json.dumps(row))
        assert (row["tracebacks"], row["hangs"], row["crashes"]) == ([], [], []), row
        assert row["grown_mib"] < MOST_GROWN, row
