"""attnprobe study status: how far a study is."""

from typing import Any

from attnprobe.cli.screen.output import Json, print_json, print_table, say
from attnprobe.cli.study.options import STUDIES, Name, Out, RunSettings, ScaleName, Seeds, requested


def status(
    name: Name,
    scale: ScaleName = None,
    seeds: Seeds = None,
    settings: RunSettings = None,
    out: Out = STUDIES,
    json: Json = False,
) -> None:
    """Show how many runs of each arm are done, running, interrupted, failed or missing, and why some failed.

    Examples:

        attnprobe study status qk-transfer

        attnprobe study status qk-transfer --scale laptop --seeds 5 --json
    """
    from attnprobe.studies.store.status import status as status_of

    found = status_of(requested(name, scale, seeds, settings, out))
    if json:
        print_json(found)
        return
    show_status(found)


def show_status(found: dict[str, Any]) -> None:
    states = [state for state, count in found["states"].items() if count or state in ("done", "missing")]
    rows = [[arm["arm"], *(str(arm[state]) for state in states)] for arm in found["arms"]]
    rows.append(["all", *(str(found["states"][state]) for state in states)])
    title = f"{found['study']} at scale {found['scale']}: {found['states']['done']} of {found['runs']} runs are done"
    print_table(title, ["arm", *states], rows)
    for problem in found["problems"]:
        say(f"{problem['state']}: {problem['run']}: {problem['reason']}")
