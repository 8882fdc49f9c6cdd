"""What a probe found, in plain words with the numbers that carry it, and what it does not say.

Every function takes tidy records (with q_value; ``checkpoint`` may be any short name) and returns a few sentences. They
rest on estimates with their intervals, on redrawn W_Q and W_K, on label shuffles and on random orders of the positions.
"""

import math
from collections.abc import Iterable
from typing import Any

from attnprobe.scores.named import MAIN_DIRECTIONS
from attnprobe.statistics.permutations import alpha

Record = dict[str, Any]
Head = tuple[int | None, int | None]


def proximity(records: list[Record]) -> str:
    """Of every checkpoint the head with the largest bias, against the largest head of the null; of pooled seeds too."""
    texts = []
    largest = known(records, "proximity_bias.max")
    for name, rows in by_checkpoint(known(records, "proximity_bias")).items():
        best = max(rows, key=lambda r: r["estimate"])
        what = "prefers near keys most" if best["estimate"] > 0 else "shuns near keys least (no head prefers them)"
        of_model = [r for r in largest if r["checkpoint"] == name][-1:]  # the row of the model comes after its layers'
        against = "".join(beside_null(r) for r in of_model)
        texts.append(f"{name}: {place(best)} {what}, {measured(best, '+.2f')} sd of its scores{against}")
    single = set(by_checkpoint(known(records, "proximity_bias")))
    beyond = known(records, "proximity_bias.max_beyond_null")
    for row in (r for r in largest if r["checkpoint"] not in single):
        where = "the model" if row["layer"] is None else f"layer {row['layer']}"
        number = measured(row, "+.2f", over="seeds")
        text = f"{row['checkpoint']}, {where}: its largest head has {number} sd on average"
        more = [r for r in beyond if same(r, row) and r["null"] == "init"]
        text += "".join(f", {measured(r, '+.2f', over=None)} beyond that of W_Q and W_K drawn anew" for r in more)
        texts.append(text + ("" if more else beside_null(row)))
    tested = {r["null"] for r in largest if r["p_value"] is not None}
    limits = (
        "Each is the largest of its heads, which alone makes it larger than a typical one: its interval leaves that "
        f"out{', a p-value does not' if tested else ''}. Intervals over sequences say nothing of other training seeds."
    )
    if "init" in tested:
        limits += " That W_Q and W_K are not like those at the start does not say what made them so."
    return sentences(texts, limits, "no head has scores that vary, so there is no bias to speak of")


def beside_null(row: Record) -> str:
    """How the largest head stands to the largest of each draw of the null."""
    if row["p_value"] is None:
        return ", compared with no null"
    p = f"p = {row['p_value']:.2g}"
    if row["null"] == "keys":
        return f" ({p} against permuted keys, which random W_Q and W_K often fail as well)"
    beats = row["p_value"] <= alpha(row["level"])
    return f", {'more' if beats else 'no more'} than the largest head has when W_Q and W_K are drawn anew ({p})"


def alignment(records: list[Record]) -> str:
    """Along one direction, how many heads hear the labels, and where the order of the data drives reconstruction."""
    measured_along = {r.get("direction") for r in records}
    direction = next((d for d in MAIN_DIRECTIONS if d in measured_along), MAIN_DIRECTIONS[0])
    texts = []
    for name, every in by_checkpoint(records).items():
        rows = [r for r in every if r.get("direction") == direction]
        tested = [r for r in rows if r["quantity"] == "label.dependent.mean" and r["q_value"] is not None]
        ordered = [r for r in known(rows, "reconstruction.positions") if r["q_value"] is not None]
        pulls = known(rows, "reconstruction.t")
        if not tested or not pulls:
            continue
        level, largest = alpha(tested[0]["level"]), max(pulls, key=lambda r: abs(r["estimate"]))
        heard = sum(stands_out(r, level) for r in tested)
        texts.append(
            f"{name}, along {direction}: in {heard} of {len(tested)} heads the label gradient differs from that "
            f"of shuffled labels (q <= {level:.2g}, n = {tested[0]['n']}); the reconstruction "
            f"gradient is strongest in {place(largest)}, t = {measured(largest, '+.1f')}"
            f"{unheard(rows, tested, level)}{arranged(ordered, level)}"
            f"{out_of_reach(every, tested, level, 'shuffles')}{out_of_reach(every, ordered, level, 'orders')}"
        )
    limits = (
        "A head where no difference is seen may still have one that more sequences would show. A large t says "
        "that the gradient is not zero on average, not that it favours near keys over other patterns."
    )
    return sentences(texts, limits, f"nothing was measured along {direction}")


def stands_out(record: Record, level: float) -> bool:
    return round(record["q_value"], 9) <= level  # p is a fraction of whole numbers: q may be just the level


def unheard(rows: list[Record], tested: list[Record], level: float) -> str:
    """How large the labels' part could be where none is seen."""
    silent = {(r["layer"], r["head"]) for r in tested if not stands_out(r, level)}
    bounds = [r["high"] for r in known(rows, "label_to_reconstruction") if (r["layer"], r["head"]) in silent]
    finite = [bound for bound in bounds if bound is not None]
    if not bounds:
        return ""
    if not finite:
        return "; how large the labels' part could be where none is seen cannot be said, reconstruction is not resolved"
    without = f", but for {len(bounds) - len(finite)} without a bound" if len(finite) < len(bounds) else ""
    return (
        f"; where none is seen, the labels' part is at most {max(finite):.2g} times that of reconstruction "
        f"({100 * (1 - level):g} % bound of all heads together{without})"
    )


def arranged(tested: list[Record], level: float) -> str:
    """In how many heads the order of the data drives reconstruction, and which way."""
    if not tested:
        return ""
    driven = [r for r in tested if stands_out(r, level)]
    near = sum(r["estimate"] < 0 for r in driven)
    which = f", {near} of them towards near keys" if driven else ""
    return (
        f", and in {len(driven)} of {len(tested)} heads the arrangement of the data along the positions drives it "
        f"(q <= {level:.2g} among random orders){which}"
    )


def out_of_reach(every: list[Record], tested: list[Record], level: float, drawn: str) -> str:
    """That so few draws let no test of the family stand out alone. q is p times the tests over its rank, and the least
    p is 1 / (draws + 1).
    """
    if not tested:
        return ""
    family = sum(r["family"] == tested[0]["family"] for r in every if r["p_value"] is not None)
    draws = tested[0]["draws"]
    if family <= round(level * (draws + 1), 9):
        return ""
    together = math.ceil(round(family / (draws + 1) / level, 9))
    return (
        f". With {draws} {drawn} q <= {level:.2g} cannot be reached by fewer than {together} of the family's {family} "
        f"tests together, nor q below {min(family / (draws + 1), 1):.2g} by one alone; "
        f"{math.ceil(round(family / level, 9)) - 1} {drawn} would let one reach it"
    )


def intervene(records: list[Record]) -> str:
    """Own profile against shuffled ones at dose -1, a given one at dose 1; or else at the dose furthest from 0."""
    quantity = "accuracy" if known(records, "accuracy.change") else "loss"
    changes = [r for r in known(records, f"{quantity}.change") if r["dose"]]
    texts = [against_shuffled(changes, kind, control, quantity) for kind, control in CONTROLLED.items()]
    limits = (
        "Intervals of what rests on shuffles hold their draw beside that of the sequences; p says how often a shuffled "
        "profile would stand as far from the others as this one. It says what this model does with its scores changed, "
        "not what it would have learned with them."
    )
    otherwise = "only the model left alone was measured; a dose other than 0 would say what its profile does"
    return sentences([text for text in texts if text], limits, otherwise)


CONTROLLED = {"own": "shuffled", "injected": "injected shuffled"}  # kind of intervention -> of its control


def against_shuffled(changes: list[Record], kind: str, control: str, quantity: str) -> str | None:
    """A sentence on the dose that says most; None if this intervention was not made."""
    doses = {r["dose"] for r in changes if r["kind"] == kind}
    if not doses:
        return None
    first = -1.0 if kind == "own" else 1.0
    dose = first if first in doses else max(doses, key=lambda d: (abs(d), d))
    rows = {r["kind"]: r for r in changes if r["dose"] == dose}
    one, shuffled, pair = rows[kind], rows[control], rows[f"{kind} - shuffled"]
    did = f"Adding {dose:g} times {'its own' if kind == 'own' else 'the given'} profile"
    if (kind, dose) == ("own", -1.0):
        did = "Removing the model's own offset profile (dose -1)"
    number = pair["controls"]
    least = ", the least that so many shuffles can give" if pair["p_value"] * (number + 1) < 1.5 else ""
    return (
        f"{did} changes {quantity} by {measured(one, '+.3f')}; the same values shuffled over the offsets ({number} "
        f"shuffles) change it by {measured(shuffled, '+.3f', over=None)}. The difference, profile minus shuffled, is "
        f"{measured(pair, '+.3f', over=None)}, p = {pair['p_value']:.2g}{least}"
    )


def decompose(records: list[Record]) -> str:
    """Of every checkpoint the range of the position share over heads, and the head with the largest."""
    texts = []
    for name, rows in by_checkpoint(known(records, "position_share")).items():
        best, least = (pick(rows, key=lambda r: r["estimate"]) for pick in (max, min))
        spread = "" if len(rows) == 1 else f"; the least, {least['estimate']:.2f}, in {place(least)}"
        rest = {r["quantity"]: r["estimate"] for r in records if same(r, best) and r["quantity"] != "position_share"}
        others = ", ".join(
            f"{what.removesuffix('_share')} {value:.2f}" for what, value in rest.items() if value is not None
        )
        texts.append(
            f"{name}: position alone makes up the largest share of the variance of scores in {place(best)}, "
            f"{measured(best, '.2f')} (there {others}){spread}"
        )
    limits = (
        "Intervals over sequences say nothing of other training seeds. A share of the scores' variance is no share of "
        "their effect."
    )
    return sentences(texts, limits, "no head has scores that vary")


def kernels(records: list[Record]) -> str:
    """Of every checkpoint the layer whose kernels are the most local."""
    texts = []
    for name, rows in by_checkpoint(known(records, "near_mass")).items():
        best = max(rows, key=lambda r: r["estimate"])
        low, high = (format(best[key], ".1f") for key in ("low", "high"))
        away = next(r for r in records if r["quantity"] == "distance" and same(r, best))
        texts.append(
            f"{name}: the most local kernels are those of layer {best['layer']}, with {best['estimate']:.1f} times the "
            f"weight near the query that equal weights would have ({100 * best['level']:g} % interval over its "
            f"{best['n']} channels {low} to {high}), at a mean distance of {away['estimate']:.1f} {away['unit']}"
        )
    limits = (
        "These are weights of a convolution, the same for every input and without the skip; how much a layer's output "
        "depends on them is not measured."
    )
    return sentences(texts, limits, "every kernel is zero")


def trajectory(records: list[Record]) -> str:
    """Of every run the followed head's bias at the first and at the last step of every phase."""
    texts = []
    for run, (layer, head) in followed_heads(records).items():
        mine = [r for r in known(records, "proximity_bias") if (r["run"], r["layer"], r["head"]) == (run, layer, head)]
        phases = []
        for phase in dict.fromkeys(r["phase"] for r in mine):
            steps = sorted((r for r in mine if r["phase"] == phase), key=lambda r: r["step"])
            first, last = steps[0], steps[-1]
            where = f"step {last['step']}" + ("" if phase is None else f" of {phase}")
            digits = "+.2f" if max(abs(first["estimate"]), abs(last["estimate"])) < 1e4 else "+.3g"
            phases.append(f"{format(first['estimate'], digits)} to {measured(last, digits)} by {where}")
        texts.append(f"{run}: the bias of {place(mine[-1])} goes from " + ", then from ".join(phases))
    limits = (
        "Each is the head with the largest bias in size at the end, chosen after the fact. Intervals are over the few "
        "sequences that were watched (of runs of ours for validation)."
    )
    return sentences(texts, limits, "no proximity bias was recorded")


def followed_heads(records: list[Record]) -> dict[str, Head]:
    """Of every run the layer and head whose proximity bias is the largest in size at the last step."""
    heads: dict[str, Head] = {}
    rows = known(records, "proximity_bias")
    for run in dict.fromkeys(r["run"] for r in rows):
        mine = [r for r in rows if r["run"] == run]
        last = [r for r in mine if r["phase"] == mine[-1]["phase"]]
        end = max(r["step"] for r in last)
        best = max((r for r in last if r["step"] == end), key=lambda r: abs(r["estimate"]))
        heads[run] = best["layer"], best["head"]
    return heads


def theory(rows: Iterable[Any], *, length: int, dim: int) -> str:
    """Of the rows of ``theory verify``."""
    rows = list(rows)
    failed = sum(not row.passed for row in rows)
    predictions, controls = ([row.passed for row in rows if row.control == control] for control in (False, True))
    return (
        f"{len(rows) - failed} of {len(rows)} rows pass{f', {failed} FAIL' if failed else ''}: {sum(predictions)} of "
        f"{len(predictions)} predictions lie within their tolerances and {sum(controls)} of {len(controls)} negative "
        f"controls break as they must, at length {length} and dimension {dim}. This checks the formulas on data that "
        "obey their assumptions; it says nothing of a trained model."
    )


def known(records: list[Record], quantity: str) -> list[Record]:
    return [r for r in records if r["quantity"] == quantity and r["estimate"] is not None]


def by_checkpoint(records: list[Record]) -> dict[str, list[Record]]:
    return {
        name: [r for r in records if r["checkpoint"] == name]
        for name in dict.fromkeys(r["checkpoint"] for r in records)
    }


def same(one: Record, other: Record) -> bool:
    return all(one[key] == other[key] for key in ("checkpoint", "layer", "head"))


def place(record: Record) -> str:
    return f"layer {record['layer']}, head {record['head']}"


def measured(record: Record, digits: str, *, over: str | None = "sequences") -> str:
    """The estimate and its interval, in words, with how many of what it is ``over`` (None: that was said already)."""
    low, high = ("?" if record[key] is None else format(record[key], digits) for key in ("low", "high"))
    counted = f", {record['n']} {over}" if over else ""
    return f"{format(record['estimate'], digits)} ({100 * record['level']:g} % interval {low} to {high}{counted})"


def sentences(texts: list[str], limits: str, otherwise: str) -> str:
    return f"{'. '.join(texts)}. {limits}" if texts else f"{otherwise[0].upper()}{otherwise[1:]}."
