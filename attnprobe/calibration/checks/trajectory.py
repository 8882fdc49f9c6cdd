"""What is recorded while a model trains, from fewer sequences and shuffles, for one head of each model."""

from attnprobe.calibration.outcomes import Outcome, covers, p_value
from attnprobe.calibration.worlds import Cell, Replica
from attnprobe.probes.proximity.probe import GRID_RADIUS
from attnprobe.probes.trajectory import Trajectory
from attnprobe.statistics.intervals import Interval


def asked(cell: Cell) -> bool:
    """The rows are those of ``proximity`` and ``alignment``, which are judged everywhere."""
    return cell.visibility == "full" and cell.data == "white"


def check(replica: Replica) -> list[Outcome]:
    records = Trajectory(seed=replica.seed).measure(replica.subject)
    rows = {record["quantity"]: record for record in records if record["head"] == replica.head}
    truth = replica.scores.bias(GRID_RADIUS)
    outcomes = []
    for quantity in ("proximity_bias", "score_sd"):
        row = rows[quantity]
        numbers = {name: row[name] for name in ("estimate", "low", "high", "level", "n", "unit")}
        outcomes.append(covers(quantity, Interval(**numbers), float(truth[quantity][replica.head])))
    return [*outcomes, p_value("label.dependent.mean", rows["label.dependent.mean"]["p_value"])]
