"""Verdicts name the head that carries them, its numbers, and what they do not say."""

from types import SimpleNamespace
from typing import Any

from attnprobe.report import blindness_verdict, verdicts
from attnprobe.statistics.permutations import false_discovery_rate


def row(quantity: str, estimate: float, **other: Any) -> dict[str, Any]:
    return {
        "checkpoint": "init", "layer": 0, "head": 0, "quantity": quantity, "estimate": estimate, "low": estimate - 0.1,
        "high": estimate + 0.1, "level": 0.9, "n": 37, "unit": "", "p_value": None, "q_value": None, "family": quantity,
        "draws": None if quantity.endswith(".t") else 39,
    } | other  # fmt: skip


def test_proximity_names_the_most_local_head_and_sets_it_beside_the_null() -> None:
    rows = [row("proximity_bias", b, head=h, p_value=0.001) for h, b in enumerate((0.1, 0.5, -0.9))]
    rows += [row("proximity_bias", -0.2, checkpoint="final"), row("entropy", 9.0, checkpoint="final")]
    largest = {"init": ("init", 0.31), "final": ("init", 0.1), "other": ("keys", 0.02), "last": (None, None)}
    rows += [row("proximity_bias", 0.3, checkpoint=name) for name in ("other", "last")]
    for name, (null, p) in largest.items():
        for layer in (0, None):
            rows.append(
                row("proximity_bias.max", 0.5, checkpoint=name, layer=layer, head=None, null=null, p_value=layer or p)
            )
    text = verdicts.proximity(rows)
    assert "init: layer 0, head 1 prefers near keys most, +0.50 (90 % interval +0.40 to +0.60, 37 sequences) sd" in text
    assert "scores, no more than the largest head has when W_Q and W_K are drawn anew (p = 0.31)" in text
    assert "final: layer 0, head 0 shuns near keys least (no head prefers them), -0.20" in text
    assert "scores, more than the largest head has when W_Q and W_K are drawn anew (p = 0.1)" in text
    assert "(p = 0.02 against permuted keys, which random W_Q and W_K often fail as well)" in text
    assert "compared with no null" in text
    assert "other training seeds" in text
    assert verdicts.proximity([row("proximity_bias", 0.0) | {"estimate": None}]).startswith("No head")


def test_proximity_of_pooled_seeds_says_what_is_beyond_the_null() -> None:
    rows = [row("proximity_bias.max", 0.7, head=None, null="init", p_value=0.02, n=5)]
    rows += [row("proximity_bias.max_beyond_null", 0.4, head=None, n=5, null="init")]
    text = verdicts.proximity(rows)
    assert (
        "init, layer 0: its largest head has +0.70 (90 % interval +0.60 to +0.80, 5 seeds) sd on average, +0.40" in text
    )
    assert "beyond that of W_Q and W_K drawn anew" in text


def test_alignment_counts_heads_after_adjustment_along_one_direction() -> None:
    rows = []
    for head, (q, t) in enumerate(((0.04, 2.0), (0.11, -7.0), (0.1, 3.0))):
        rows.append(row("label.dependent.mean", 0.0, head=head, direction="proximity r=2", q_value=q, p_value=0.001))
        rows.append(row("reconstruction.t", t, head=head, direction="proximity r=2"))
        rows.append(row("reconstruction.t", 99.0, head=head, direction="random 1"))
    text = verdicts.alignment(rows)
    assert "in 2 of 3 heads the label gradient differs from that of shuffled labels (q <= 0.1" in text
    assert "strongest in layer 0, head 1, t = -7.0 (90 % interval -7.1 to -6.9" in text
    assert "may still have one" in text
    assert "arrangement" not in text
    for head, (q, mean) in enumerate(((0.04, -2.0), (0.1, 7.0), (0.2, 3.0))):
        rows.append(row("reconstruction.positions", mean, head=head, direction="proximity r=2", q_value=q))
    text = verdicts.alignment(rows)
    assert "in 2 of 3 heads the arrangement of the data along the positions drives it (q <= 0.1" in text
    assert "random orders), 1 of them towards near keys" in text
    for head, high in enumerate((9.0, 0.24, None)):
        rows.append(row("label_to_reconstruction", 0.1, head=head, direction="proximity r=2") | {"high": high})
    assert "where none is seen, the labels' part is at most 0.24 times that of reconstruction (90 % bound of all" in (
        verdicts.alignment(rows)
    )
    unbound = [r | {"high": None} for r in rows if r["quantity"] == "label_to_reconstruction"]
    rows = [r for r in rows if r["quantity"] != "label_to_reconstruction"]
    assert "cannot be said, reconstruction is not resolved" in verdicts.alignment([*rows, *unbound])


def test_alignment_says_what_so_few_draws_cannot_resolve() -> None:
    """Twelve tests of which one direction is spoken of, at a level of .1."""
    rows = []
    for head in range(4):
        for direction in ("contrast r=2", "contrast r=4", "key row"):
            for quantity, draws in (("label.dependent.mean", 999), ("reconstruction.positions", 39)):
                p = {"p_value": 0.025, "q_value": 0.3, "draws": draws}
                rows.append(row(quantity, 0.0, head=head, direction=direction, **p))
        rows.append(row("reconstruction.t", 1.0, head=head, direction="contrast r=2"))
    # Benjamini and Hochberg: two at 1 / 40 have q = .025 * 12 / 2 = .15, three have .1
    text = verdicts.alignment(rows)
    assert "With 39 orders q <= 0.1 cannot be reached by fewer than 3 of the family's 12 tests together" in text
    assert "nor q below 0.3 by one alone; 119 orders would let one reach it" in text
    assert "shuffles q" not in text
    for some, reached in ((2, False), (3, True)):
        q = false_discovery_rate([1 / 40] * some + [1.0] * (12 - some))
        assert (round(q.min(), 9) <= 0.1) == reached
    assert (
        false_discovery_rate([1 / 120] + [1.0] * 11).min() <= 0.1 < false_discovery_rate([1 / 119] + [1.0] * 11).min()
    )
    for draws, alone in ((9, "1"), (11, "1"), (119, None)):  # q is never above 1, though 12 / 10 is
        for r in rows:
            r["draws"] = draws
        text = verdicts.alignment(rows)
        assert ("cannot be reached" in text) == (alone is not None)
        assert alone is None or f"nor q below {alone} by one alone" in text


def test_intervene_sets_a_profile_beside_shuffled_ones() -> None:
    changes = {"own": -0.3, "shuffled": -0.02, "own - shuffled": -0.28, "clamp": 0.5}
    changes |= {"injected": 0.2, "injected shuffled": 0.15, "injected - shuffled": 0.05}
    rows = [
        row(f"{quantity}.change", change, kind=kind, dose=dose, head=None, layer=None, controls=20,
            p_value=(1 / 21 if kind.startswith("own") else 0.4) if dose else None)
        for quantity in ("accuracy", "loss")
        for kind, change in changes.items()
        for dose in (-1.0, 0.0, 1.0, 2.0)
    ]  # fmt: skip
    text = verdicts.intervene(rows)
    assert "Removing the model's own offset profile (dose -1) changes accuracy by -0.300 (90 % interval -0.400" in text
    assert "37 sequences" in text
    assert "shuffled over the offsets (20 shuffles) change it by -0.020" in text
    assert "profile minus shuffled, is -0.280 (90 % interval -0.380 to -0.180), p = 0.048, the least that so" in text
    assert "Adding 1 times the given profile changes accuracy by +0.200" in text
    assert "is +0.050 (90 % interval -0.050 to +0.150), p = 0.4. " in text
    without = [r for r in rows if r["dose"] not in (-1, 1) and r["quantity"].startswith("loss")]
    assert "Adding 2 times its own profile changes loss by -0.300" in verdicts.intervene(without)
    assert "Only the model left alone" in verdicts.intervene([r for r in rows if r["dose"] == 0])


def test_decompose_names_the_largest_and_the_least_share_of_position() -> None:
    rows = []
    for head, share in enumerate((0.4, 0.7)):
        for part, value in (("position", share), ("content", 0.1), ("interaction", 0.9 - share)):
            rows.append(row(f"{part}_share", value, head=head))
    text = verdicts.decompose(rows)
    assert "largest share of the variance of scores in layer 0, head 1, 0.70 (90 % interval 0.60 to 0.80" in text
    assert "(there content 0.10, interaction 0.20); the least, 0.40, in layer 0, head 0" in text


def test_trajectory_follows_the_head_that_is_strongest_at_the_end() -> None:
    rows = [
        row("proximity_bias", bias, run=run, head=head, phase=phase, step=step)
        for run in ("a/s0", "a/s1")
        for phase, step, biases in (
            ("pretrained", 0, (0.9, 0.0)), ("pretrained", 8, (0.1, -0.5)), ("finetuned", 4, (0.2, -0.8)),
        )
        for head, bias in enumerate(biases)
    ]  # fmt: skip
    assert verdicts.followed_heads(rows) == {"a/s0": (0, 1), "a/s1": (0, 1)}
    text = verdicts.trajectory(rows)
    wild = verdicts.trajectory([row | {"estimate": 1e308 * (-1) ** row["step"]} for row in rows])
    assert "1e+308" in wild
    assert "000000" not in wild
    assert "a/s1: the bias of layer 0, head 1 goes from +0.00 to -0.50" in text
    assert "by step 8 of pretrained, then from -0.80 to -0.80" in text
    assert "chosen after the fact" in text


def certified(*slopes: float, blind: bool, control_p: float = 0.8, **answer: Any) -> list[dict[str, Any]]:
    """Records of one head with these family-wise p-values along as many directions, a control, and the answers."""
    place = {"family": "blind", "blind": None, "agrees": True, "rough": False, "difference": 1e-7, "family_p": None}
    rows = []
    for number, p in enumerate((*slopes, control_p)):
        here = place | {"direction": f"d{number}", "family": "control" if number == len(slopes) else "blind"}
        rows.append(row("slope", 0.3, loss="label", **here | {"family_p": p, "p_value": p}))
        rows.append(row("slope", 2.0, loss="reconstruction", **here))
        rows.append(row("slope", 0.15, loss="label / reconstruction", **here | {"agrees": None, "difference": None}))
    whole = place | {"layer": None, "head": None, "direction": None, "difference": None, "unresolved": 0}
    for family, p in (("blind", min(slopes)), ("control", control_p)):
        own = whole | {"family": family, "family_p": p, "blind": blind} | (answer if family == "blind" else {})
        rows.append(row("largest slope", 0.15, loss="label / reconstruction", **own))
    return rows


def test_certify_says_up_to_which_ratio_labels_are_blind() -> None:
    text = blindness_verdict.certify(certified(0.4, 0.6, blind=True))
    assert text.startswith("init: blind to these directions up to 0.25 of reconstruction's slope (90 % bound, all at")
    assert "(family-wise p = 0.4, 2 derivatives, n = 37)" in text
    assert "Nothing is seen along the controls either" in text
    assert "nothing bounds" not in text
    text = blindness_verdict.certify(certified(0.4, blind=True, control_p=0.01, unresolved=1, high=None))
    assert "with no bound on the ratio" in text
    assert "in 1 of 1 places reconstruction's own slope may be zero, and nothing bounds the ratio there" in text
    assert "Along the controls labels are seen in 1 of 1 places" in text


def test_certify_names_where_labels_are_seen_and_how_much() -> None:
    text = blindness_verdict.certify(certified(0.4, 0.01, blind=False))
    assert (
        "NOT blind (family-wise p = 0.01, 2 derivatives, 1 of them seen): layer 0, head 0, d1, slope, p = 0.01" in text
    )
    assert "labels is +3.0e-01 (90 % interval +2.0e-01 to +4.0e-01, 37 sequences), 0.15 of reconstruction's" in text
    assert "by chance 10 % of blind checkpoints are called so" in text
    rows = certified(0.4, 0.01, blind=False)
    rows[0]["agrees"] = False
    assert "NO ANSWER, as 1 derivatives do not agree" in blindness_verdict.certify(rows)


def test_theory_counts_what_fails_among_predictions_and_controls() -> None:
    rows = [SimpleNamespace(control=control, passed=passed) for control, passed in
            ((False, True), (False, False), (False, True), (True, True))]  # fmt: skip
    text = verdicts.theory(rows, length=7, dim=3)
    assert text.startswith(
        "3 of 4 rows pass, 1 FAIL: 2 of 3 predictions lie within their tolerances and 1 of 1 negative"
    )
    assert "length 7 and dimension 3" in text
    assert "FAIL" not in verdicts.theory(rows[2:], length=7, dim=3)
