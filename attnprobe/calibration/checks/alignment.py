"""p-values and intervals of the alignment probe along one direction, for one head of each model."""

from attnprobe.calibration.outcomes import Outcome, covers, p_value, row_of
from attnprobe.calibration.truths import offset_share, on_real_pairs, projected, score_gradients
from attnprobe.calibration.verdicts import rejects
from attnprobe.calibration.worlds import RADIUS, Replica
from attnprobe.probes import alignment
from attnprobe.probes.rows import with_q_values
from attnprobe.scores.directions import Direction
from attnprobe.scores.named import Along, kernel_name, named_directions
from attnprobe.statistics.permutations import sign_flip_p_value
from attnprobe.streams import stream

SHUFFLES = 199
GROUPS = 2  # cosines are judged by their p-values, which do not depend on groups
ORDERS = 19  # the p-value of a rank among them is .05 in exactly one of twenty replicas


def check(replica: Replica) -> list[Outcome]:
    subject, head = replica.subject, replica.head
    found = alignment.measure(
        subject,
        directions=[direction(replica), direction(replica, "contrast")],
        shuffles=SHUFFLES,
        null="positions",
        orders=ORDERS,
        groups=GROUPS,
        seed=replica.seed,
    )
    fitted = on_real_pairs(replica.population, replica.along)
    truth = {loss: float(projected(g, fitted)[:, head].mean()) for loss, g in replica.gradients.items()}
    truth["label.dependent"] = 0.0  # labels are drawn apart from the inputs
    along = [row for row in found.rows if row.direction == kernel_name("proximity", RADIUS)]
    means = {name: row_of(along, f"{name}.mean", head) for name in truth}
    outcomes = [covers(f"{name}.mean", means[name].interval, value) for name, value in truth.items()]
    outcomes.append(p_value("label.dependent.mean", means["label.dependent"].p_value))
    tested = [r for r in with_q_values(found.records("")) if r["quantity"] == "label.dependent.mean"]
    seen = any(rejects(r["q_value"]) for r in tested)
    outcomes.append(Outcome(quantity="label.dependent.mean, any q <= .05", kind="verdict", value=float(seen)))
    for where in ("scores", "offsets", "W_Q", "W_K"):
        outcomes.append(p_value(f"cosine.{where}", row_of(found.rows, f"cosine.{where}", head).p_value))
    for loss, gradients in replica.gradients.items():
        share = offset_share(replica.population, gradients)[head]
        outcomes.append(
            covers(f"{loss}.offset_share", row_of(found.rows, f"{loss}.offset_share", head).interval, share)
        )
    # The null of the sign flips is a mean of zero, which holds for what is left of the true mean.
    own = projected(score_gradients(subject, "reconstruction"), on_real_pairs(subject, replica.along))[:, head]
    own -= truth["reconstruction"]
    p = sign_flip_p_value(own, permutations=SHUFFLES, generator=stream(replica.seed, "sign flips"))
    outcomes.append(p_value("reconstruction.mean - truth", float(p)))
    arranged = row_of([row for row in found.rows if row not in along], "reconstruction.positions", head)
    if replica.cell.data == "white":  # then it is zero in every order, not only on average over orders
        outcomes.append(covers("reconstruction.positions", arranged.interval, 0.0))
    return [*outcomes, p_value("reconstruction.positions", arranged.p_value)]


def direction(replica: Replica, kernel: Along = "proximity") -> Direction:
    name = kernel_name(kernel, RADIUS)
    return next(d for d in named_directions(replica.subject.space, along=kernel, radii=(RADIUS,)) if d.name == name)
