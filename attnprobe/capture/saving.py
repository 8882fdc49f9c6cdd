"""Queries and keys as they enter the scores, in files that anything can read: safetensors, one per layer and batch."""

from pathlib import Path

import numpy as np
import torch

from attnprobe.capture.subject import Subject
from attnprobe.errors import ConfigError, NotApplicableError
from attnprobe.scores.call import AttentionCall

AT_ONCE = 32  # samples in a file


def check_folder(folder: Path) -> None:
    """ConfigError if something is there already: nothing of others is replaced, and nothing mixed with it."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is not empty", hint="name a new folder, or empty it")


@torch.no_grad()
def save_queries_and_keys(subject: Subject, samples: np.ndarray, folder: Path) -> list[Path]:
    """Write ``layer-<number>-<batch>.safetensors`` with tensors q (sample, head, length, d_head), k (sample, key head,
    length, d_head), samples (sample,), and valid (sample, length) where there is padding; leading tokens are left out.

    The metadata name the module, scale, softcap, whether queries see only what comes before, and whether there is a
    bias, which is not saved. ConfigError if the folder is not empty or safetensors is missing, NotApplicableError for
    layers that show no queries and keys.
    """
    try:
        from safetensors.torch import save_file  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError("saving queries and keys needs safetensors", hint="pip install 'attnprobe[hf]'") from error
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for number, first in enumerate(range(0, len(samples), subject.at_once or AT_ONCE)):
        part = samples[first : first + (subject.at_once or AT_ONCE)]
        valid = subject.real(part)

        def save(call: AttentionCall, number=number, part=part, valid=valid) -> None:
            if not call.projected:
                reason = f"layer {call.layer} shows its scores only, no queries and keys"
                raise NotApplicableError(reason, hint="leave --save-qk out")
            tensors = {name: getattr(call, name)[..., subject.space.leading :, :].contiguous() for name in ("q", "k")}
            tensors |= {"samples": torch.from_numpy(part)} | ({} if valid is None else {"valid": valid.contiguous()})
            told = {"module": call.name, "scale": call.scale, "softcap": call.softcap, "bias": call.bias is not None}
            told |= {"causal": call.visibility.causal, "call": call.call}
            path = folder / f"layer-{call.layer:02}-{number:03}.safetensors"
            save_file(tensors, path, {name: str(value) for name, value in told.items()})
            written.append(path)

        subject.run(part, observe=save)
    return written
