"""What ``theory certify`` found, in plain words: blind up to which ratio, or where not."""

from attnprobe.report.verdicts import Record, by_checkpoint, measured, place, sentences
from attnprobe.statistics.permutations import alpha


def certify(records: list[Record]) -> str:
    """Of every checkpoint whether it is blind, and what that is worth."""
    texts, answers = [], []
    for name, rows in by_checkpoint(records).items():
        of = {r["family"]: r for r in rows if r["blind"] is not None}
        answers.append(of["blind"]["blind"])
        texts.append(f"{name}: {blindness(rows, of['blind'])}{what_controls_say(rows, of)}")
    limits = []
    if any(answers):
        limits.append(
            "Blind means not told from shuffled labels, at this checkpoint and to second order: it does not say that "
            "labels have no effect, and nothing of where larger steps lead."
        )
    if not all(answers):
        limits.append(
            "Not blind does not say towards what labels pull, nor that they would find it from the start; by chance "
            f"{100 * (1 - records[0]['level']):.3g} % of blind checkpoints are called so: sequences of another split "
            "tell whether it stands."
        )
    return sentences(texts, " ".join(limits), "nothing was measured")


def blindness(rows: list[Record], answer: Record) -> str:
    tested = [r for r in rows if r["family"] == "blind" and r["loss"] == "label"]
    wrong = [r for r in rows if r["family"] == "blind" and r["agrees"] is False and r["layer"] is not None]
    seen = [r for r in tested if r["family_p"] <= alpha(answer["level"])]
    least = f"family-wise p = {answer['family_p']:.2g}, {len(tested)} derivatives"
    if wrong:
        text = f"NO ANSWER, as {len(wrong)} derivatives do not agree with their second computation; {least}"
    elif seen:
        first = min(seen, key=lambda r: (r["p_value"], r["quantity"] != "slope", -abs(r["estimate"])))
        ratio = ratio_at(rows, first)
        beside = (
            "beside a reconstruction that may be flat there" if ratio is None else f"{ratio:.2g} of reconstruction's"
        )
        text = (
            f"NOT blind ({least}, {len(seen)} of them seen): {place(first)}, {first['direction']}, "
            f"{first['quantity']}, p = {first['family_p']:.2g}: the part that depends on the labels is "
            f"{measured(first, '+.1e')}, {beside}"
        )
    else:
        text = f"blind to these directions{bounded(answer)} ({least}, n = {answer['n']})"
    if answer["unresolved"]:
        slopes = sum(r["quantity"] == "slope" for r in tested)
        text += (
            f"; in {answer['unresolved']} of {slopes} places reconstruction's own slope may be zero, and nothing "
            "bounds the ratio there"
        )
    return text


def bounded(answer: Record) -> str:
    if answer["high"] is None:
        return ", with no bound on the ratio"
    return f" up to {answer['high']:.2g} of reconstruction's slope ({100 * answer['level']:g} % bound, all at once)"


def what_controls_say(rows: list[Record], answers: dict[str, Record]) -> str:
    """Controls are directions that labels may see: they tell whether the test sees anything."""
    if "control" not in answers:
        return ""
    tested = [r for r in rows if r["family"] == "control" and r["loss"] == "label"]
    seen = sum(r["family_p"] <= alpha(answers["control"]["level"]) for r in tested)
    if seen or not answers["blind"]["blind"]:
        return f". Along the controls labels are seen in {seen} of {len(tested)} places"
    return ". Nothing is seen along the controls either: labels may not reach attention at all here, or n is too small"


def ratio_at(rows: list[Record], record: Record) -> float | None:
    """|label part| / |reconstruction| at the record's place; None where reconstruction is not resolved."""
    keys = ("layer", "head", "direction", "quantity")
    here = [r for r in rows if all(r[key] == record[key] for key in keys) and r["difference"] is None]
    return here[0]["estimate"] if here and here[0]["high"] is not None else None
