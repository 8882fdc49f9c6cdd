"""Where the numbers come from: versions, machines, data, commands, settings."""

import json
import shlex

import tomli_w

from attnprobe.comparison.differences import distinct, surroundings
from attnprobe.report.page.material import Material
from attnprobe.report.page.parts import Section, Table, Verbatim


def section(material: Material) -> Section:
    runs = [run for arm in material.arms for run in arm.runs]
    tables = [surroundings(run.manifest) for run in runs if run.manifest]
    keys = list(dict.fromkeys(key for table in tables for key in table))
    rows = [[key, "; ".join(map(str, distinct([table[key] for table in tables if key in table])))] for key in keys]
    parts: list = []
    if rows:
        parts.append(Table(caption="Versions and machine", columns=["what", "value"], rows=rows, numeric_from=2))
    data = []
    for arm in material.arms:
        found = [run.manifest.get("data_sha256") or {} for run in arm.runs]
        for phase in dict.fromkeys(phase for table in found for phase in table):
            sums = distinct([table[phase] for table in found if phase in table])
            data.append([arm.name, phase, "; ".join(map(str, sums))])
    if data:
        parts.append(
            Table(caption="SHA-256 of the data", columns=["arm", "phase", "fingerprint"], rows=data, numeric_from=3)
        )
    commands = [
        f"# {run.folder}\n{shlex.join(map(str, run.manifest['argv']))}"
        for run in runs
        if isinstance(run.manifest.get("argv"), list)
    ]
    if commands:
        parts.append(Verbatim(summary=f"Commands of {len(commands)} runs", text="\n".join(commands)))
    for arm in material.arms:
        parts.append(Verbatim(summary=f"All settings: {arm.name}", text=tomli_w.dumps(arm.runs[0].settings)))
    about = {"written by": material.command, "at": material.written}
    parts.append(Verbatim(summary="This page", text=json.dumps(about, indent=2, ensure_ascii=False)))
    return Section(title="Manifest", parts=parts)
