"""How good the models are: accuracies with intervals, and what an arm gains, paired by seed."""

import math
from collections.abc import Sequence

from attnprobe.comparison.pairs import over_seeds
from attnprobe.report.page.charts.intervals import Estimate, interval_figure
from attnprobe.report.page.material import Arm, Material
from attnprobe.report.page.parts import Section, Table, Text, interval, number
from attnprobe.statistics.intervals import student_interval
from attnprobe.statistics.shares import wilson

LEVEL = 0.95
REFERENCE = "from scratch"  # the arm that others are compared with, if there is one
HOW = (
    "Intervals of several seeds are Student's t over seeds; those of a single one are Wilson's over test sequences, "
    "and say nothing of other seeds."
)


def section(material: Material) -> Section | None:
    parts: list = []
    texts = []
    for task in dict.fromkeys(arm.task for arm in material.arms):
        arms = [arm for arm in material.arms if arm.task == task and scored(arm)]
        if not arms:
            continue
        estimates = [estimate_of(arm) for arm in arms]
        rows = [[arm.name, len(arm.finished), *_cells(arm, e)] for arm, e in zip(arms, estimates, strict=True)]
        columns = ["arm", "seeds", "train", "validation", "test", "95 % interval", "seconds a run"]
        parts.append(Table(caption=f"Accuracy on {task}, means over seeds", columns=columns, rows=rows))
        guess = chance(arms)
        caption = f"Test accuracy on {task} with 95 % intervals; small dots are single seeds"
        caption += f", the dotted line is {guess[0]}." if guess else "."
        figure = interval_figure(
            estimates,
            title=f"test accuracy on {task}",
            caption=caption,
            x_label="test accuracy",
            reference=guess,
        )
        gained, short = gains(arms)
        parts += [figure, *gained]
        texts += [short or "; ".join(f"{e.name}: test accuracy {said(e)}" for e in estimates) + "."]
    if not parts:
        return None
    return Section(title="Accuracy", parts=[*parts, Text(text=HOW)], short=" ".join(texts))


def scored(arm: Arm) -> bool:
    results = [run.result for run in arm.finished if run.result is not None]
    return bool(results) and all(result["test_accuracy"] is not None for result in results)


def estimate_of(arm: Arm) -> Estimate:
    found = {f"seed {run.listed.seed}": run.result["test_accuracy"] for run in arm.finished if run.result is not None}
    values = list(found.values())
    if len(values) > 1:
        over = student_interval(values, level=LEVEL, unit="accuracy")
        low, high, n, what = over.low, over.high, len(values), "seeds"
    else:
        outline = arm.outline()
        n, what = (outline.sizes["test"], "test sequences") if outline is not None else (1, "seed")
        low = high = math.nan
        if outline is not None:
            low, high = (float(bound) for bound in wilson(values[0], n, LEVEL))
    singles = list(found.items()) if len(values) > 1 else ()
    mean = math.fsum(values) / len(values)
    return Estimate(name=arm.name, estimate=mean, low=low, high=high, n=n, over=what, singles=singles)


def _cells(arm: Arm, estimate: Estimate) -> list[str]:
    def mean(name: str) -> float | None:
        values = [run.result[name] for run in arm.finished if run.result is not None]
        return None if None in values else math.fsum(values) / len(values)

    shown = [number(mean(name)) for name in ("train_accuracy", "validation_accuracy")]
    bounds = interval(estimate.low, estimate.high)
    return [*shown, number(estimate.estimate), bounds, number(mean("seconds"), ".0f")]


def said(e: Estimate) -> str:
    return f"{e.estimate:.3f} {interval(e.low, e.high)} ({e.n} {e.over})".replace("  ", " ")


def chance(arms: Sequence[Arm]) -> tuple[str, float] | None:
    outline = arms[0].outline()
    if outline is None or outline.spec.regression or outline.spec.classes < 2:
        return None
    return f"guessing among {outline.spec.classes} classes", 1 / outline.spec.classes


def gains(arms: Sequence[Arm]) -> tuple[list[Table], str]:
    """Every arm on the same data minus the reference, where both have two seeds at least; and that in a sentence."""
    reference = next((arm for arm in arms if arm.name.removeprefix(f"{arm.task}: ").startswith(REFERENCE)), arms[0])
    rows, texts = [], []
    for arm in arms:
        if arm is reference or data_of(arm) != data_of(reference):  # other test sequences, for all that is recorded
            continue
        for row in over_seeds(by_seed(reference), by_seed(arm), level=LEVEL):
            if row["quantity"] == "test_accuracy" and row["n"] > 1:
                bounds = interval(row["low"], row["high"], "+.3f")
                rows.append([arm.name, row["n"], number(row["estimate"], "+.3f"), bounds])
                points = f"{100 * row['estimate']:+.1f} points of test accuracy"
                texts.append(
                    f"{arm.name}: {points} against {reference.name}, 95 % interval {100 * row['low']:+.1f} to "
                    f"{100 * row['high']:+.1f} over {row['n']} seeds"
                )
    if not rows:
        return [], ""
    caption = f"Test accuracy beyond {reference.name}, paired by seed"
    columns = ["arm", "seeds", "difference", "95 % interval, each at its own level"]
    return [Table(caption=caption, columns=columns, rows=rows)], "; ".join(texts) + "."


def data_of(arm: Arm) -> set[str]:
    """Fingerprints of the data of the last phase."""
    found = [run.manifest.get("data_sha256") for run in arm.finished]
    return {str(list(phases.values())[-1]) for phases in found if isinstance(phases, dict) and phases}


def by_seed(arm: Arm) -> dict[int, dict]:
    return {run.result["seed"]: run.result for run in arm.finished if run.result is not None}
