"""What was run: every run, and what tells the arms apart."""

from collections.abc import Sequence

from attnprobe.comparison.differences import differing
from attnprobe.report.page.material import Arm, Material, own_settings
from attnprobe.report.page.parts import Section, Table, Text, number


def section(material: Material) -> Section | None:
    if not material.listed:
        return None
    rows = []
    for run in material.listed:
        numbers = [run.train_accuracy, run.validation_accuracy, run.test_accuracy]
        what = [run.task or "?", run.model or "?", run.arm or "?", "?" if run.seed is None else run.seed, run.state]
        rows.append([run.folder, *what, (run.started or "?")[:16].replace("T", " "), *map(number, numbers)])
    columns = ["run", "task", "model", "arm", "seed", "state", "started", "train", "validation", "test"]
    parts = [Table(caption="Runs, with their accuracies", columns=columns, rows=rows, numeric_from=7)]
    notes = [Text(text=f"Damaged: {run.note}") for run in material.listed if run.note]
    states = [run.state for run in material.listed]
    counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    short = f"{len(states)} runs ({counted}) in {len(material.arms)} arms."
    return Section(title="What was run", parts=[*parts, *differences(material.arms), *notes], short=short)


def differences(arms: Sequence[Arm]) -> list[Table | Text]:
    """The settings that the arms do not share; a section that some lack altogether is one line."""
    if len(arms) < 2:
        return []
    tables = [own_settings(arm.runs[0]) for arm in arms]
    keys = list(dict.fromkeys(row["key"] for table in tables[1:] for row in differing([tables[0]], [table])))
    sections = {key.partition(".")[0] for key in keys}
    lacking = {s for s in sections if any(not any(k.startswith(f"{s}.") for k in table) for table in tables)}
    lacking -= {key for key in keys if "." not in key}
    rows = []
    for name in sorted(lacking):
        rows.append([f"{name} (whole section)", *("yes" if _has(table, name) else "no" for table in tables)])
    for key in keys:
        if key.partition(".")[0] not in lacking:
            rows.append([key, *("" if table.get(key) is None else str(table[key]) for table in tables)])
    columns = ["setting", *(arm.name for arm in arms)]
    return [Table(caption="Settings in which the arms differ", columns=columns, rows=rows, numeric_from=len(columns))]


def _has(table: dict, name: str) -> bool:
    return any(key.startswith(f"{name}.") for key in table)
