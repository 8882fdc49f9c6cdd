"""What a run starts from, and whether it could be carried out at all."""

from collections.abc import Callable

from attnprobe import run
from attnprobe.errors import ConfigError
from attnprobe.models import Transformer, make_model
from attnprobe.run import Phase, RunConfig
from attnprobe.tasks import Data, Outline, Task
from attnprobe.training.saved.checkpoint import load_checkpoint
from attnprobe.training.transfer import freeze, match_parameters, transfer

Start = tuple[Transformer | None, Phase | None]


def starting_point(config: RunConfig) -> Start:
    """The model that the run starts from, if any; and the self-pretraining behind its models."""
    if config.pretrained is None:
        return None, config.pretrain
    checkpoint = load_checkpoint(config.pretrained)
    return checkpoint.make_model(), checkpoint.pretrain


def install_backbone(model: Transformer) -> list[str]:
    """Weights and names of tokens of a backbone's source, if the model has one; returns what is to be told."""
    if model.config.backbone is None:
        return []
    from attnprobe.models.hugging_face.encoder import HuggingFaceEncoder
    from attnprobe.models.hugging_face.pretrained import install

    assert isinstance(model, HuggingFaceEncoder)
    return install(model)


def check_run(config: RunConfig, start: Start, load: Callable[[Task], Data | Outline]) -> Transformer:
    """Refuse a run that could not be carried out, before anything is trained or written; returns its last model.

    Goes through the phases on untrained models: data, objective, transfer and freezing must fit. start: what
    ``starting_point`` gave.
    """
    source, pretrain = start
    model = None
    for phase in config.phases().values():
        data = load(config.task_of(phase))
        phase.objective.check(config.model, data.spec)
        model = make_model(
            config.model, data.spec, run.reconstruction_target(config, data.spec, pretrain), seed=config.seed
        )
        install_backbone(model)
        match_parameters(model, phase.transfer, "transfer")  # from scratch too: what is asked for must be there
        if source is not None:
            transfer(model, source, phase.transfer)
        unused = "label_head." if phase.objective.target is not None else "reconstruction_head."
        reached = {name for name, _ in model.named_parameters() if not name.startswith(unused)}
        if reached <= freeze(model, phase.freeze):
            raise ConfigError(
                "freeze leaves nothing to train",
                hint="freeze fewer parameters: finetune.freeze and pretrain.freeze name them",
            )
        source = model
    assert model is not None, "a run has at least one phase"
    return model
