"""Carry out a run: phase after phase, from settings to a finished run directory."""

import functools
import time
from pathlib import Path
from typing import Any

import torch

from attnprobe import published, run
from attnprobe.config import choice_name
from attnprobe.errors import ConfigError
from attnprobe.files import reading, write_atomically
from attnprobe.models import Transformer, make_model
from attnprobe.models.initialisation import state_on_cpu
from attnprobe.objectives import OBJECTIVES, Objective
from attnprobe.run import Phase, RunConfig
from attnprobe.tasks import Data
from attnprobe.training.evaluation import evaluate_phase
from attnprobe.training.execution import Execution, Moment, Recorder
from attnprobe.training.guards.first_batch import check_first_batch
from attnprobe.training.guards.hints import how_to_go_on
from attnprobe.training.guards.losses import MOST_RESTARTS, DivergedError
from attnprobe.training.guards.memory import explained_memory
from attnprobe.training.logs import opened_logs
from attnprobe.training.loop import Trainer, Training, alone
from attnprobe.training.saved.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from attnprobe.training.saved.claim import check_claim, claimed, keep_settings
from attnprobe.training.saved.manifest import make_manifest
from attnprobe.training.saved.replacing import remove_kept, where_kept
from attnprobe.training.saved.resuming import RESUME_FORMAT, RESUME_VERSION, read_resume
from attnprobe.training.saved.run_directory import START_AGAIN, RunDirectory
from attnprobe.training.score_profile import check_score_profile, described, install, kept_profile, measured_profile
from attnprobe.training.starting import check_run, install_backbone, starting_point
from attnprobe.training.transfer import freeze, transfer
from attnprobe.training.updates.attention_kernels import choose_for_phases

SECONDS_BETWEEN_SAVES = 15.0


def execute(config: RunConfig, out: Path, **fields: Any) -> dict[str, Any]:
    """Run all phases and return the content of result.json; Interrupted if ``should_stop`` said so.

    fields: the others of ``Execution``; device and monitor are needed.
    """
    return alone(updates(Execution(config=config, directory=RunDirectory(out), **fields)))


def updates(execution: Execution) -> Training[dict[str, Any]]:
    """A whole run as the generator of its updates (see ``loop``); returns the content of result.json."""
    config, directory = execution.config, execution.directory
    if config.engine.on_nan == "restart" and execution.world.size > 1:
        hint = "take --on-nan skip, or one process"
        raise ConfigError("--on-nan restart goes back to a save, and processes that share a run save apart", hint)
    claim = {"resume": execution.resume, "overwrite": execution.overwrite}
    check_claim(directory, config, **claim)
    start = starting_point(config)
    check_run(config, start, execution.data)
    source, execution.pretrain = start
    data = {name: execution.data(config.task_of(phase)) for name, phase in config.phases().items()}
    if not (execution.resume and directory.checkpoint("init").exists()):  # else the run has its profile in there
        check_score_profile(config, (found.spec for found in data.values()))
        _measure_profile(execution)
    earlier = directory.read_manifest().get("attention", {}) if execution.resume else execution.attention
    chosen = choose_for_phases(config, execution.device, data, earlier, processes=execution.world.size)
    chosen = execution.world.broadcast(chosen)
    execution.attention = {name: choice.kernel for name, choice in chosen.items()}
    manifest = make_manifest(config, execution.device, data, chosen)
    with claimed(directory, config, **claim) as continued:
        if continued:
            finished = directory.read_result()
            if finished is not None:  # the folder may have moved since
                remove_kept(directory.path)
                return finished | {"run_dir": str(directory.path), "checkpoints": directory.checkpoints()}
            directory.check_same_data(manifest)
            _restore(execution)
            keep_settings(directory, config)
        if kept := where_kept(directory.path):
            execution.monitor.message(kept)
        for line in published.lines(run.to_table(config)):
            execution.monitor.message(line)
        if execution.resumed is None:
            _measure_profile(execution)
            member = {"together": True} if execution.in_group else {}
            directory.write_json(directory.manifest, manifest | described(config, execution.data) | member)
        elif config.model.score_profile is not None:
            execution.profile = kept_profile(load_checkpoint(directory.checkpoint("init")))
        with opened_logs(execution.log, directory, run.to_table(config)) as execution.logs:
            model: Transformer | None = None
            for name, phase in config.phases().items():
                model = source = yield from _run_phase(execution, name, phase, source)
        assert model is not None
        return _finish(execution, model)


def _measure_profile(execution: Execution) -> None:
    if execution.config.model.score_profile is not None and execution.profile is None:
        execution.profile = measured_profile(execution.config, execution.data, execution.device)


def _run_phase(execution: Execution, name: str, phase: Phase, source: Transformer | None) -> Training[Transformer]:
    """Train one phase, or take its checkpoint if it was finished before an interruption."""
    config, directory = execution.config, execution.directory
    path = directory.checkpoint(name)
    if execution.resumed is not None and name in execution.resumed["finished"]:
        return load_checkpoint(path).make_model().to(execution.device)
    data = execution.data(config.task_of(phase))
    model = _untrained(execution, name, phase, data, source)
    common = {
        "run": config,
        "task": config.task_of(phase),
        "spec": data.spec,
        "target": model.target,
        "pretrain": execution.pretrain,
        "data_sha256": directory.read_manifest().get("data_sha256", {}).get(name),
    }
    if not directory.checkpoint("init").exists():
        initial = Checkpoint(phase="init", epoch=0, numbers={}, state=state_on_cpu(model), **common)
        save_checkpoint(directory.checkpoint("init"), initial)
    model.to(execution.device)

    def new_trainer() -> Trainer:
        engine = execution.engine(name)
        return Trainer(model, data, name, phase, engine, seed=config.seed, world=execution.world)

    def watch(step: int) -> None:
        if execution.watch is not None:
            trained = run.objectives(config, execution.pretrain)
            execution.watch(Moment(phase=name, step=step, model=model, data=data, objectives=trained))

    trainer = new_trainer()
    if execution.resumed is not None and execution.resumed["phase"] == name:
        with reading(directory.resume, START_AGAIN):
            trainer.load_state_dict(execution.resumed["trainer"])
    else:
        watch(0)  # an interrupted run has seen the start of the phase
        directory.amend_manifest("first_batch", {name: check_first_batch(trainer)})
        if config.engine.on_nan == "restart":
            write_resume(execution, trainer)  # to have something to go back to
    with explained_memory(execution, name, phase, data, model.target):
        while True:
            try:
                yield from trainer.fit(
                    Recorder(execution),
                    should_stop=execution.should_stop,
                    save=functools.partial(_save_resume, execution, trainer),
                    watch=watch,
                )
                break
            except DivergedError as error:
                if config.engine.on_nan != "restart" or len(trainer.progress.restarts) == MOST_RESTARTS:
                    error.hint = how_to_go_on(execution, trainer)
                    raise
                trainer = _gone_back(execution, trainer.progress.restarts, error, new_trainer())
    _note_mode(execution, trainer)
    best = trainer.progress
    numbers, epoch = best.best_numbers, best.best_epoch + 1
    save_checkpoint(path, Checkpoint(phase=name, epoch=epoch, numbers=numbers, state=state_on_cpu(model), **common))
    return model


def _gone_back(execution: Execution, restarts: list[dict[str, Any]], error: DivergedError, trainer: Trainer) -> Trainer:
    """After an update that is no number: the trainer as it was last saved, with half the learning rate, and saved so.

    restarts: those before this one.
    """
    directory = execution.directory
    document = read_resume(directory.resume, list(execution.config.phases()))
    with reading(directory.resume, START_AGAIN):
        trainer.load_state_dict(document["trainer"])
    directory.truncate(document["sizes"])
    step = trainer.progress.step
    trainer.progress.restarts = [*restarts, {"update": error.update, "back_to": step}]
    write_resume(execution, trainer)
    directory.amend_manifest("restarts", {trainer.name: trainer.progress.restarts})
    times = f"{len(restarts) + 1} of at most {MOST_RESTARTS}"
    execution.monitor.message(f"{error}; going back to update {step} with half the learning rate ({times})")
    return trainer


def _untrained(execution: Execution, name: str, phase: Phase, data: Data, source: Transformer | None) -> Transformer:
    """The model of a phase with all it takes over, before its first update; on the CPU."""
    config = execution.config
    model = make_model(
        config.model, data.spec, run.reconstruction_target(config, data.spec, execution.pretrain), seed=config.seed
    )
    install(model, execution.profile)
    for line in install_backbone(model):
        execution.monitor.message(f"{name}: {line}")
    if source is not None:
        carried = transfer(model, source, phase.transfer)
        execution.monitor.message(f"{name}: {len(carried.carried)} tensors carried over, fresh: {_list(carried.fresh)}")
        if carried.unfit:
            execution.monitor.message(f"{name}: heads of another size start fresh: {_list(carried.unfit)}")
        left = tuple(sorted(source.state_dict().keys() - model.state_dict().keys()))
        if left:  # a fixed score profile, for one
            execution.monitor.message(f"{name}: stays behind, for it has no place in this model: {_list(left)}")
    freeze(model, phase.freeze)
    return model


def _finish(execution: Execution, model: Transformer) -> dict[str, Any]:
    config, directory = execution.config, execution.directory
    name, phase = list(config.phases().items())[-1]
    data = execution.data(config.task_of(phase))
    objective: Objective = phase.objective
    result: dict[str, Any] = {
        "run_dir": str(directory.path),
        "checkpoints": directory.checkpoints(),
        "seed": config.seed,
        "phase": name,
        "objective": choice_name(OBJECTIVES, objective),
    }
    for split_name, split in data.splits().items():
        numbers = evaluate_phase(model, split, phase, execution.engine(name), seed=config.seed, world=execution.world)
        result[f"{split_name}_accuracy"] = numbers.get("accuracy")
        result |= {f"{split_name}_{key}": value for key, value in numbers.items()}
    result["seconds"] = round(execution.seconds(), 3)
    directory.write_json(directory.result, result)
    directory.resume.unlink(missing_ok=True)
    directory.resume_next.unlink(missing_ok=True)
    remove_kept(directory.path)
    return result


def _note_mode(execution: Execution, trainer: Trainer) -> None:
    """Write down how updates are carried out; the first one may have shown that it is not as it was chosen."""
    choice = trainer.choice
    if execution.modes.get(trainer.name) != choice:
        execution.modes[trainer.name] = choice
        text = choice.mode if choice.warning is None else f"{choice.mode} ({choice.warning})"
        execution.directory.amend_manifest("mode", {trainer.name: text})


def _save_resume(execution: Execution, trainer: Trainer, force: bool) -> None:
    _note_mode(execution, trainer)
    due = not execution.in_group and time.perf_counter() - execution.last_save >= SECONDS_BETWEEN_SAVES
    if force or due:
        write_resume(execution, trainer)


def write_resume(execution: Execution, trainer: Trainer) -> None:
    """Save where a run stands between two updates; that of a member counts once all members have written theirs.

    DivergedError, and the last save stays, if there are numbers in it that are not finite.
    """
    directory = execution.directory
    try:
        trainer.check_finite()
    except DivergedError:
        if execution.world.size > 1:
            return  # others save at other times; all processes find out together at the end of the epoch
        raise
    names = list(execution.config.phases())
    document = {
        "format": RESUME_FORMAT,
        "format_version": RESUME_VERSION,
        "phase": trainer.name,
        "finished": names[: names.index(trainer.name)],
        "trainer": trainer.state_dict(),
        "sizes": directory.sizes(),
        "seconds": execution.seconds(),
        "run": run.to_table(execution.config),
    }
    path = directory.resume_next if execution.in_group else directory.resume
    write_atomically(path, lambda file: torch.save(document, file))
    execution.last_save = time.perf_counter()
    execution.saved = _held(directory, trainer.name, trainer.progress.step)


def _held(directory: RunDirectory, phase: str, step: int) -> str:
    return f"{directory.resume} holds the run after update {step} of the {phase} phase"


def _restore(execution: Execution) -> None:
    """Pick up resume.pt; a run that was killed before its first save starts again."""
    directory = execution.directory
    latest = directory.resume if execution.in_group else directory.resume_next  # alone, no other member's is waited for
    if (execution.resume_from or latest) == directory.resume_next and directory.resume_next.exists():
        directory.resume_next.replace(directory.resume)
    directory.resume_next.unlink(missing_ok=True)
    if not directory.resume.exists():
        directory.truncate({})
        for path in directory.checkpoints().values():
            Path(path).unlink()
        return
    document = read_resume(directory.resume, list(execution.config.phases()))
    with reading(directory.resume, START_AGAIN):
        saved = document.get("run") or run.to_table(execution.config)  # earlier versions did not say
        known = run.from_checkpoint_table(saved, str(directory.resume))
        if run.fingerprint(known) != run.fingerprint(execution.config):
            raise ValueError("it was saved by a run with other settings")
        execution.saved = _held(directory, document["phase"], document["trainer"]["progress"]["step"])
    execution.resumed = document
    execution.seconds_before = document["seconds"]
    directory.truncate(document["sizes"])


def _list(names: tuple[str, ...]) -> str:
    return "none" if not names else ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
