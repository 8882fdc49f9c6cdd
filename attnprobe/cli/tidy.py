"""Measurements as files: tidy CSV rows and arrays with named axes."""

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnprobe.training.files import write_atomically

if TYPE_CHECKING:
    from attnprobe.probes.statistics import NamedArray
