"""attnprobe study list: the studies that can be run by name."""

from attnprobe.cli.screen.output import Json, print_json, print_table, say


def list_studies(json: Json = False) -> None:
    """List the studies that come with attnprobe: what they ask, how large they can be, what they reproduce.

    Examples:

        attnprobe study list

        attnprobe study list --json
    """
    from attnprobe.studies.plan.reading import names, read

    found = []
    for name in names():
        study = read(name).study
        found.append({"name": name, "title": study.title, "scales": list(study.scales), "reproduces": study.reproduces})
    if json:
        print_json({"studies": found})
        return
    rows = [[s["name"], s["title"], ", ".join(s["scales"]), s["reproduces"] or ""] for s in found]
    print_table("studies", ["name", "what it is", "scales", "reproduces"], rows, numeric_from=4)
    say("More of one: attnprobe study show NAME. One of your own: see experiments/README.md")
