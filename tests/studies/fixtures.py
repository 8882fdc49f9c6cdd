"""Studies with invented results, for tables and figures."""

import numpy as np

from attnprobe.studies.study import Choice, Figure, Layout, Outcome, Scale, Settings, Study

TASKS = {"listops": "ListOps", "image": "Image(CIFAR10-gray)", "pathfinder": "Pathfinder"}
SETTINGS = {"scratch": "from_scratch_100ep", "pretrained": "SPT_own_reproduction_200ep_PT+100ep_FT"}
RATES = (1e-3, 1e-2, 1e-1)


def arms_by_tasks() -> Study:
    """Two arms and an unpublished one on three tasks, beside table 1 of Coser and Orvieto."""
    axes = {
        "arm": {
            "scratch": Choice(label="from scratch", published=SETTINGS["scratch"]),
            "pretrained": Choice(label="self-pretrained", published=SETTINGS["pretrained"]),
            "odd": Choice(label="50 % of W_Q & W_K | #1"),
        },
        "task": {name: Choice(published=paper) for name, paper in TASKS.items()},
    }
    columns = {"paper": "000_coser_orvieto", "table": "1", "task": "{task}", "setting": "{arm}"}
    common: Settings = {"compare": "arm", "against": "scratch"}
    layout = Layout(title="Test accuracy", rows=("arm",), columns=("task",), published=columns, **common)
    long = Layout(title="The same, one below the other", rows=("task", "arm"), **common)
    return Study(
        title="Arms_and_tasks",
        question="Is *it* so?",
        axes=axes,
        tune={"finetune.optimizer.lr": RATES},
        tables={"main": layout, "long": long},
        figures={
            "bars": Figure(kind="bars", x="task", lines="arm"),
            "gains": Figure(kind="lines", x="task", lines="arm", against="scratch"),
        },
        scales={"laptop": Scale(seeds=5)},
    )


def results(study: Study, *, seeds: int = 5, seed: int = 0, done: float = 1.0) -> list[Outcome]:
    """Runs of the whole grid and all trials, the middle rate best; of which a share is done."""
    generator = np.random.default_rng(seed)
    found = []
    arms, tasks = list(study.axes["arm"]), list(study.axes["task"])
    for arm in arms:
        for task in tasks:
            shared = 0.02 * generator.standard_normal(seeds)
            for rate in RATES:
                for s in range(seeds):
                    value = 0.5 + 0.1 * arms.index(arm) + 0.05 * tasks.index(task) + shared[s] - 0.1 * (rate != 1e-2)
                    value += 0.01 * generator.standard_normal()
                    numbers = {"test_accuracy": value, "validation_accuracy": value + 0.005, "seconds": 3.0}
                    numbers = numbers if generator.random() < done else {}
                    place = {"arm": arm, "task": task}
                    found.append(Outcome(place=place, seed=s, trial={"finetune.optimizer.lr": rate}, numbers=numbers))
    return found


def phase_diagram(seeds: int = 5) -> tuple[Study, list[Outcome]]:
    """A map of gains over two axes of numbers, one field missing, with a predicted boundary."""
    images, along = ("250", "1000", "4000", "16000"), ("1.6", "2.2", "3.0")
    axes = {
        "images": {name: Choice() for name in images},
        "along": {name: Choice() for name in along},
        "arm": {"scratch": Choice(label="from scratch"), "pretrained": Choice(label="self-pretrained")},
    }
    figures = {
        "gain": Figure(kind="map", x="images", lines="along", panels="arm", against="scratch", boundary="heard"),
        "accuracy": Figure(kind="lines", x="images", lines="arm", panels="along"),
        "level": Figure(kind="map", x="images", lines="along", panels="arm"),
    }
    study = Study(title="When", question="?", axes=axes, figures=figures, scales={"laptop": Scale(seeds=seeds)})
    generator, outcomes = np.random.default_rng(0), []
    for i, n in enumerate(images):
        for j, a in enumerate(along):
            for arm in axes["arm"]:
                for s in range(seeds):
                    gain = 0.1 * (4 - i) * (arm == "pretrained") - 0.15 * (i == 3) * (arm == "pretrained")
                    value = 0.3 + 0.1 * j + 0.05 * i + gain + 0.03 * generator.standard_normal()
                    numbers = {"test_accuracy": value}
                    if arm == "pretrained":
                        numbers["heard"] = (0.0, 1 / 6000, 1 / 900)[j]
                    missing = (n, a) == ("4000", "2.2") and arm == "scratch"
                    place = {"images": n, "along": a, "arm": arm}
                    outcomes.append(Outcome(place=place, seed=s, numbers={} if missing else numbers))
    return study, outcomes
