"""What a foreign model is called with, sequence by sequence."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from attnprobe.capture.reordering import reordered_places
from attnprobe.errors import ConfigError, NotApplicableError

MASK = "attention_mask"  # what Hugging Face calls the positions that are no padding


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """Arguments of one call of the model, on its device."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    last: int = 0  # the position that differs, where one does
    targets: Any = None  # what a loss keeps of the inputs that it changed

    def run(self, model: Callable[..., Any]) -> Any:
        return model(*self.args, **self.kwargs)

    def replaced(self, *, targets: Any = None, **kwargs: Any) -> "Batch":
        return dataclasses.replace(self, kwargs=self.kwargs | kwargs, targets=targets)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """All sequences: tensors have them along the first axis, everything else is the same for all."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    valid: Tensor | None  # (sequence, length) bool, False at padding
    device: torch.device
    samples: int

    @classmethod
    def of(cls, batches: Iterable[Any], *, valid: Any, device: torch.device, **more: Any) -> Self:
        """ConfigError unless all batches are of one form and their sequences of one length."""
        if isinstance(batches, Tensor | Mapping):
            raise ConfigError("batches is a single one", hint="give a list of batches, or a data loader")
        calls = [_call(batch) for batch in batches]
        if not calls:
            raise ConfigError("there are no batches", hint="give at least one")
        forms = {(len(args), *sorted(kwargs)) for args, kwargs in calls}
        if len(forms) > 1:
            raise ConfigError("batches differ in their arguments", hint="give all of them the same ones")
        args = tuple(_joined([call[0][i] for call in calls], f"argument {i}") for i in range(len(calls[0][0])))
        kwargs = {name: _joined([call[1][name] for call in calls], name) for name in calls[0][1]}
        tensors = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
        counts = {len(x) for x in tensors}
        if len(counts) != 1:
            raise ConfigError(
                f"the inputs have {', '.join(map(str, sorted(counts))) or 'no'} sequences",
                hint="every tensor has them along its first axis",
            )
        mask = kwargs.get(MASK) if valid is None else torch.as_tensor(valid)
        return cls(
            args=args,
            kwargs=kwargs,
            valid=mask.bool() if isinstance(mask, Tensor) and mask.dim() == 2 else None,
            device=device,
            samples=counts.pop(),
            **more,
        )

    def take(self, samples: np.ndarray) -> Batch:
        chosen = torch.as_tensor(samples)

        def rows(x: Any) -> Any:
            return x[chosen.to(x.device)].to(self.device) if isinstance(x, Tensor) else x

        return Batch(args=tuple(map(rows, self.args)), kwargs={name: rows(x) for name, x in self.kwargs.items()})

    def real(self, samples: np.ndarray) -> Tensor | None:
        """(sequence, length) bool, with leading tokens; None if nobody says what is padding."""
        return None if self.valid is None else self.valid[torch.as_tensor(samples)].to(self.device)

    def with_another_last(self, size: int) -> Batch | None:
        """The first sequence with what stands first at its last real position too; None if no input has positions."""
        batch = self.take(np.zeros(1, dtype=np.int64))
        real = self.real(np.zeros(1, dtype=np.int64))
        last = size - 1 if real is None else int(real[0].nonzero().max())
        found = False

        def changed(x: Any) -> Any:
            nonlocal found
            if not isinstance(x, Tensor) or x.dim() < 2 or x.shape[1] != size or x.dtype == torch.bool:
                return x
            x = x.clone()
            others = (x[0] != x[0, last]).flatten(1).any(1) if x.dim() > 2 else x[0] != x[0, last]
            if bool(others[:last].any()):
                x[0, last], found = x[0, int(others[:last].nonzero()[0])], True
            return x

        kwargs = {name: x if name == MASK else changed(x) for name, x in batch.kwargs.items()}
        other = Batch(args=tuple(map(changed, batch.args)), kwargs=kwargs, last=last)
        return other if found else None

    def reordered(self, order: Tensor, *, leading: int) -> "Inputs":
        """Everything that has positions along its second axis; NotApplicableError if nothing has."""
        size = leading + len(order)
        valid = None if self.valid is None else self.valid[:, leading:]
        places = reordered_places(order.cpu(), valid, sequences=self.samples)
        source = torch.cat([torch.arange(leading).expand(self.samples, -1), places + leading], 1)
        rows, moved = torch.arange(self.samples)[:, None], []

        def turned(x: Any, name: str = "") -> Any:
            if name == MASK or not isinstance(x, Tensor) or x.dim() < 2 or x.shape[1] != size:
                return x
            moved.append(name)
            return x[rows.to(x.device), source.to(x.device)]

        args, kwargs = tuple(map(turned, self.args)), {name: turned(x, name) for name, x in self.kwargs.items()}
        if not moved:
            reason = "no input of this model has its positions along the second axis, so they cannot be reordered"
            raise NotApplicableError(reason, hint="take the null of random phases, or none")
        return dataclasses.replace(self, args=args, kwargs=kwargs)

    def double(self) -> "Inputs":
        """Inputs that are real numbers in float64."""

        def wide(x: Any) -> Any:
            return x.double() if isinstance(x, Tensor) and x.is_floating_point() else x

        return dataclasses.replace(
            self, args=tuple(map(wide, self.args)), kwargs={name: wide(x) for name, x in self.kwargs.items()}
        )


def _call(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(batch, Mapping):
        return (), dict(batch)
    return (tuple(batch), {}) if isinstance(batch, tuple | list) else ((batch,), {})


def _joined(parts: list[Any], name: str) -> Any:
    if not all(isinstance(part, Tensor) and part.dim() > 0 for part in parts):
        return parts[0]
    if len({part.shape[1:] for part in parts}) > 1:
        reason = f"{name}: sequences differ in length between batches"
        raise ConfigError(reason, hint="pad them to one length and give attention_mask, or valid")
    return torch.cat(parts)
