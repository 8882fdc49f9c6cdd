"""How far a study is: every run's state, counted by arm."""

from collections import Counter
from typing import Any, get_args

from attnprobe.studies.plan.keys import Planned
from attnprobe.studies.request import Request
from attnprobe.studies.store.folder import State, Store

STATES: tuple[State, ...] = get_args(State)


def status(request: Request) -> dict[str, Any]:
    """As ``attnprobe study status --json`` has it."""
    known: dict[str, tuple[State, str]] = {}
    states = [_state(request.store, planned, known) for planned in request.runs]
    arms: dict[str, dict[str, Any]] = {}
    for planned, (state, _) in zip(request.runs, states, strict=True):
        arm = planned.arm
        row = arms.setdefault(
            arm.name(), {"arm": arm.name(), "place": arm.place, "trial": arm.trial, **dict.fromkeys(STATES, 0)}
        )
        row[state] += 1
    problems = {
        (planned.key, reason): {"run": planned.name(), "key": planned.key, "state": state, "reason": reason}
        for planned, (state, reason) in zip(request.runs, states, strict=True)
        if reason
    }
    counted = Counter(state for state, _ in states)
    return {
        "study": request.name,
        "scale": request.scale,
        "seeds": list(request.seeds),
        "store": str(request.store.path),
        "runs": len(states),
        "states": {state: counted[state] for state in STATES},
        "arms": list(arms.values()),
        "problems": list(problems.values()),
    }


def _state(store: Store, planned: Planned, known: dict[str, tuple[State, str]]) -> tuple[State, str]:
    """Of the run; while it has not begun, of the pretraining that it waits for."""
    for key in filter(None, (planned.key, planned.pretraining)):
        if key not in known:
            known[key] = store.state(key)
    state, reason = known[planned.key]
    if state == "missing" and planned.pretraining is not None:
        before, why = known[planned.pretraining]
        if before not in ("done", "missing"):
            return before, f"its pretraining: {why}" if why else ""
    return state, reason
