"""The check of the theory's claims, predicted against measured."""

from attnprobe.report.page.material import Material
from attnprobe.report.page.parts import Section, Table, Text, number


def section(material: Material) -> Section | None:
    if material.theory is None:
        return None
    rows = material.theory.rows
    lines = []
    for claim in dict.fromkeys(row["claim"] for row in rows):
        own = [row for row in rows if row["claim"] == claim]
        counted = []
        for control in (False, True):
            kind = [row["passed"] for row in own if row["control"] == control]
            counted.append(f"{sum(kind)} of {len(kind)}")
        ratios = [row["error"] / row["tolerance"] for row in own if not row["control"] and row["tolerance"]]
        verdict = "pass" if all(row["passed"] for row in own) else "FAIL"
        lines.append([claim, *counted, number(max(ratios, default=0.0), ".1g"), verdict])
    columns = ["claim", "predictions pass", "controls pass", "largest error / tolerance", "verdict"]
    parts = [
        Text(text=material.theory.verdict),
        Table(caption="Claims of the theory of local blindness", columns=columns, rows=lines),
    ]
    word = "pass" if material.theory.passed else "do NOT all pass"
    return Section(
        title="Check of the theory", parts=parts, short=f"The {len(rows)} rows of the theory's check {word}."
    )
