"""attnprobe doctor: is everything in order here?"""

import dataclasses
from typing import TYPE_CHECKING

import typer

from attnprobe.cli.screen.output import CHECK_FAILED, Device, Json, Quiet, console, print_json, print_table

if TYPE_CHECKING:
    from attnprobe.launch.doctor import Finding


def doctor(device: Device = "auto", json: Json = False, quiet: Quiet = False) -> None:
    """Look at versions, device, threads, folders and data, and try engine, probe and theory; about five seconds.

    Examples:

        attnprobe doctor

        attnprobe doctor --json

    Exit code 5 if something is wrong; what is only worth knowing is a warning.
    """
    from attnprobe.launch.doctor import CHECKS, look

    findings: list[Finding] = []
    with console.status("looking", spinner="line") as status:
        for name in CHECKS:
            status.update(f"looking at: {name}")
            findings.append(look(name, device))
        status.update("looking at: theory")
        findings.append(theory())
    passed = all(found.state != "failed" for found in findings)
    if json:
        print_json({"passed": passed, "findings": [dataclasses.asdict(found) for found in findings]})
    elif not quiet:
        rows = [
            [found.what, found.state, f"{found.found}{f' ({found.hint})' * bool(found.hint)}"] for found in findings
        ]
        print_table("attnprobe doctor", ["what", "state", "found"], rows, numeric_from=3)
    if not passed:
        raise typer.Exit(CHECK_FAILED)


def theory() -> "Finding":
    """Every claim of the theory on short sequences."""
    from attnprobe.cli.theory import rows_for
    from attnprobe.launch.doctor import REPORT, Finding

    rows = rows_for(None, 16, 3, 0, quiet=True)
    failed = [row.quantity for row in rows if not row.passed]
    text = f"{len(rows) - len(failed)} of {len(rows)} rows pass{': not ' if failed else ''}{', '.join(failed)}"
    return Finding(what="theory", state="failed" if failed else "ok", found=text, hint=REPORT if failed else "")
