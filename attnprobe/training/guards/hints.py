"""What can be done about a run that failed, in words."""

from attnprobe import run
from attnprobe.training.execution import Execution
from attnprobe.training.loop import Trainer


def how_to_go_on(execution: Execution, trainer: Trainer) -> str:
    """What can be done about a run that diverged, with its last good state."""
    section = next(key for key, own in run.SECTIONS.items() if own == trainer.name)
    gentler = f"with a smaller {section}.optimizer.lr or with {section}.optimizer.clip=1.0"
    saved = execution.saved or "nothing of this phase had been saved"
    if execution.in_group or execution.world.size > 1:
        return f"{saved}; start again {gentler}"
    on_nan = execution.config.engine.on_nan
    ways = [
        "--on-nan skip, which leaves such updates out" if on_nan != "skip" else "",
        "--on-nan restart, which halves the learning rate" if on_nan == "stop" else "",
    ]
    again = " or ".join(filter(None, ways))
    return f"{saved}; " + (f"go on with --resume and {again}; or " if again else "") + f"start again {gentler}"
