"""p-values and intervals of the certificate along one direction, for one head of each model."""

from attnprobe.calibration.checks.alignment import SHUFFLES, direction
from attnprobe.calibration.outcomes import Outcome, covers, p_value
from attnprobe.calibration.worlds import N, Replica
from attnprobe.probes import certificate


def check(replica: Replica) -> list[Outcome]:
    subject, head = replica.subject, replica.head
    found = certificate.measure(
        subject, directions=[direction(replica)], n=N, shuffles=SHUFFLES, batch=N, seed=replica.seed
    )
    rows = {(row.loss, row.quantity): row for row in found.rows if row.head == head}
    outcomes = []
    for loss, gradients in replica.gradients.items():
        outcomes.append(covers(f"{loss} slope", rows[loss, "slope"].interval, float(gradients[:, head].mean())))
    for quantity in ("slope", "curvature"):
        outcomes.append(p_value(f"label {quantity}", rows["label", quantity].p_value))
    return outcomes
