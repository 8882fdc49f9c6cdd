"""p-values and intervals of the alignment probe along one direction, for one head of each model."""

from attnprobe.calibration.outcomes import Outcome, covers, p_value, row_of
from attnprobe.calibration.truths import projections
from attnprobe.calibration.worlds import RADIUS, Replica
from attnprobe.probes import alignment
from attnprobe.scores.directions import Direction
from attnprobe.scores.named import named_directions
from attnprobe.statistics.permutations import sign_flip_p_value
from attnprobe.streams import stream

SHUFFLES = 199
GROUPS = 10


def check(replica: Replica) -> list[Outcome]:
    subject, head = replica.subject, replica.head
    found = alignment.measure(
        subject, directions=[direction(replica)], shuffles=SHUFFLES, null="none", groups=GROUPS, seed=replica.seed
    )
    gradients = {
        loss: projections(replica.population, loss, replica.along, real_pairs=True)
        for loss in ("label", "reconstruction")
    }
    truth = {loss: float(values[:, head].mean()) for loss, values in gradients.items()}
    truth["label.dependent"] = 0.0  # labels are drawn apart from the inputs
    means = {name: row_of(found.rows, f"{name}.mean", head) for name in truth}
    outcomes = [covers(f"{name}.mean", means[name].interval, value) for name, value in truth.items()]
    outcomes.append(p_value("label.dependent.mean", means["label.dependent"].p_value))
    # The null of the sign flips is a mean of zero, which holds for what is left of the true mean.
    own = projections(subject, "reconstruction", replica.along, real_pairs=True)[:, head] - truth["reconstruction"]
    p = sign_flip_p_value(own, permutations=SHUFFLES, generator=stream(replica.seed, "sign flips"))
    return [*outcomes, p_value("reconstruction.mean - truth", float(p))]


def direction(replica: Replica) -> Direction:
    name = f"proximity r={RADIUS:g}"
    return next(
        d for d in named_directions(replica.subject.space, along="proximity", radii=(RADIUS,)) if d.name == name
    )
