"""metrics.csv: one line per epoch, written anew each time, so it is always what metrics.jsonl says."""

import csv
import io
from collections.abc import Sequence

from attnprobe.files import write_text
from attnprobe.training.logs import Record
from attnprobe.training.saved.run_directory import RunDirectory


class CsvFile:
    def __init__(self, directory: RunDirectory) -> None:
        self.path = directory.path / "metrics.csv"

    def update(self, records: Sequence[Record]) -> None:
        """What a phase does not measure is an empty field."""
        columns = list(dict.fromkeys(key for record in records for key in record))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
        write_text(self.path, text.getvalue())

    def close(self) -> None: ...
