"""The data sets a model can learn: ``TASKS``, and the types they share.

Both are loaded when they are first asked for: they need torch, which takes seconds, and ``sources`` does without it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attnprobe.tasks.by_name import TASKS as TASKS
    from attnprobe.tasks.data import MASK_ID as MASK_ID
    from attnprobe.tasks.data import Batch as Batch
    from attnprobe.tasks.data import Data as Data
    from attnprobe.tasks.data import Outline as Outline
    from attnprobe.tasks.data import Spec as Spec
    from attnprobe.tasks.data import Split as Split
    from attnprobe.tasks.data import Task as Task


def __getattr__(name: str) -> Any:
    home = "by_name" if name == "TASKS" else "data"
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
