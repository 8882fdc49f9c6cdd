"""What a comparison says, in plain words, and what it does not."""

from collections.abc import Sequence

from attnprobe.comparison.compare import Comparison
from attnprobe.comparison.differences import Row


def verdict(found: Comparison) -> str:
    """Of accuracy, or else of loss: over seeds, if there are several, and over sequences."""
    quantities = [row["quantity"] for row in found.rows if row["over"] == "sequences"] or ["test_accuracy", "test_loss"]
    rows = [row for row in found.rows if row["quantity"] == quantities[0]]
    of_seeds = [row for row in rows if row["over"] == "seeds" and row["n"] > 1]
    of_sequences = [row for row in rows if row["over"] == "sequences"]
    texts = [sentence(row) for row in of_seeds]
    untrained = [f"{side} is an untrained checkpoint (init)." for side in found.untrained]
    if len(of_sequences) == 1:
        texts.append(sentence(of_sequences[0]))
    elif of_sequences:
        texts.append(seed_by_seed(of_sequences))
    if not texts:
        return " ".join([*untrained, "Nothing could be paired, so no difference has an interval."])
    if of_seeds:
        texts.append("An interval over seeds is about runs like these on this test set, their differences being normal")
    if of_sequences:
        texts.append("One over sequences is about these very weights; it says nothing of other training seeds")
    return " ".join([*untrained, ". ".join(texts) + "."])


def sentence(row: Row) -> str:
    scale, digits, unit = (100, ".1f", " points") if row["quantity"].endswith("accuracy") else (1, ".3g", "")
    low, high = (format(scale * row[key], f"+{digits}") for key in ("low", "high"))
    number = row["quantity"].replace("_", " ")
    return (
        f"B has {abs(scale * row['estimate']):{digits}}{unit} {'more' if row['estimate'] >= 0 else 'less'} {number} "
        f"than A ({100 * row['level']:g} % interval {low} to {high}, paired over {row['n']} {row['over']})"
        + ("" if settled(row) else ", which leaves open which has more")
    )


def seed_by_seed(rows: Sequence[Row]) -> str:
    """How many pairs of checkpoints differ beyond doubt, one by one."""
    more, less = (sum(settled(row) and sign * row["estimate"] > 0 for row in rows) for sign in (1, -1))
    return (
        f"Of the {len(rows)} pairs of checkpoints, each paired over {rows[0]['n']} sequences, {more} have more "
        f"{rows[0]['quantity'].replace('_', ' ')} on B's side and {less} on A's; {len(rows) - more - less} stay open, "
        "each at its own level"
    )


def settled(row: Row) -> bool:
    return row["low"] > 0 or row["high"] < 0
