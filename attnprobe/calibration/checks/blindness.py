"""The certificate's verdict over all heads; p-values and intervals along one direction, for one head of each model."""

from attnprobe.calibration.checks.alignment import SHUFFLES, direction
from attnprobe.calibration.outcomes import Outcome, covers, p_value
from attnprobe.calibration.truths import on_real_pairs, projected
from attnprobe.calibration.worlds import N, Replica
from attnprobe.probes import blindness


def check(replica: Replica) -> list[Outcome]:
    subject, head = replica.subject, replica.head
    claims = [blindness.Claim(direction=direction(replica))]
    found = blindness.measure(subject, claims=claims, n=N, shuffles=SHUFFLES, seed=replica.seed)
    rows = {(row.loss, row.quantity): row for row in found.rows if row.head == head}
    fitted = on_real_pairs(replica.population, replica.along)
    pull = float(projected(replica.gradients["reconstruction"], fitted)[:, head].mean())
    truth = {"label": 0.0, "reconstruction": pull}  # labels are drawn apart from the inputs
    outcomes = [covers(f"{loss} slope", rows[loss, "slope"].interval, value) for loss, value in truth.items()]
    for quantity in ("slope", "curvature"):
        outcomes.append(p_value(f"label {quantity}", rows["label", quantity].p_value))
    return [*outcomes, Outcome(quantity="not blind", kind="verdict", value=float(not found.passed))]
