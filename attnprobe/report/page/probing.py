"""Proximity of the checkpoints of one run of every arm, for its page."""

from collections.abc import Callable, Sequence
from pathlib import Path

from attnprobe.errors import AttnprobeError
from attnprobe.opening import Opener
from attnprobe.probes.proximity.probe import measure
from attnprobe.probes.rows import rows_to_records, with_q_values
from attnprobe.report.page.material import Arm, Probed
from attnprobe.training.saved.run_directory import RunDirectory

DRAWS = 19  # of W_Q and W_K anew: enough for p = 0.05


def probe_arms(
    arms: Sequence[Arm], opener: Opener, *, n: int, seed: int, progress: Callable[[int, int], None]
) -> list[Probed]:
    """The first finished run of every arm; what cannot be measured is told, not raised."""
    found = []
    for number, arm in enumerate(arms):
        if arm.finished:
            found.append(probe_run(arm, opener, n=n, seed=seed))
        progress(number + 1, len(arms))
    return found


def probe_run(arm: Arm, opener: Opener, *, n: int, seed: int) -> Probed:
    folder = arm.finished[0].folder
    results, records = {}, []
    try:
        for label, path in RunDirectory(folder).checkpoints().items():
            opened = opener.open(Path(path), label)
            results[label] = measure(opened.subject(), n=n, null="init", draws=DRAWS, seed=seed)
            records += [opened.origin() | record for record in rows_to_records(results[label].rows, label, "null")]
    except AttnprobeError as error:
        return Probed(arm=arm.name, folder=str(folder), reason=str(error))
    return Probed(arm=arm.name, folder=str(folder), results=results, records=with_q_values(records))
