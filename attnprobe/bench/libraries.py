"""Peers from other libraries; each is entered if its library is installed (extra ``bench``).

Their models have the size of ours and the same embedding, heads, loss, batches and optimizer; where their blocks differ
in detail (BERT normalises after each sublayer), the work per token is nearly the same.
"""

import logging
import os
import tempfile
import time
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from attnprobe.bench.peers import MaskedEncoder, PlainLoop, dataset, torch_encoder
from attnprobe.bench.problem import LEARNING_RATE, Problem
from attnprobe.machine import synchronise

# pyright: reportMissingImports=false, reportMissingTypeStubs=false, reportCallIssue=false


class BertEncoder(nn.Module):
    """transformers' BertModel on embedded inputs."""

    def __init__(self, problem: Problem) -> None:
        from transformers import BertConfig, BertModel

        super().__init__()
        config = BertConfig(
            hidden_size=problem.d_model, num_hidden_layers=problem.layers, num_attention_heads=problem.heads,
            intermediate_size=problem.d_mlp, max_position_embeddings=problem.length, vocab_size=2,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, attn_implementation="sdpa",
        )  # fmt: skip
        self.bert = BertModel(config, add_pooling_layer=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.bert(inputs_embeds=x).last_hidden_state


class XEncoder(nn.Module):
    """x-transformers' Encoder with its fused attention."""

    def __init__(self, problem: Problem) -> None:
        from x_transformers import Encoder

        super().__init__()
        self.encoder = Encoder(
            dim=problem.d_model, depth=problem.layers, heads=problem.heads, attn_flash=True,
            attn_dim_head=problem.d_model // problem.heads, ff_mult=problem.d_mlp / problem.d_model,
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x)


class Stopwatch:
    """Time from the end of a framework's first step to the end of its last: its start-up is left out."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.marks: list[tuple[float, float]] = []

    def step_ended(self) -> None:
        self.marks.append((time.perf_counter(), time.process_time()))

    def total(self, steps: int) -> tuple[float, float]:
        """Seconds and CPU seconds of ``steps`` steps, at the pace of those after the first."""
        if self.device.type == "cuda":  # the last step was launched, not finished, when its callback came
            synchronise(self.device)
            self.marks[-1] = (time.perf_counter(), time.process_time())
        (start, cpu), (stop, cpu_stop) = self.marks[0], self.marks[-1]
        share = steps / (len(self.marks) - 1)
        return (stop - start) * share, (cpu_stop - cpu) * share


class Samples(Dataset[dict[str, Tensor]]):
    """Named tensors, as transformers' Trainer wants them; the mask is drawn with the sample."""

    def __init__(self, problem: Problem, model: MaskedEncoder) -> None:
        self.parts, self.hide = dataset(problem), model.mask

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        inputs, labels, sample = self.parts[number]
        return {"inputs": inputs, "labels": labels, "hidden": self.hide(sample[None], 0)[0]}


class _ReturnsDictionary(nn.Module):
    """transformers' Trainer takes the loss from a dictionary."""

    def __init__(self, model: MaskedEncoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor, labels: Tensor, hidden: Tensor) -> dict[str, Tensor]:
        return {"loss": self.model(inputs, labels, hidden)}


class BertTrainer:
    """BertModel in transformers' Trainer with its default habits, reports and saving switched off."""

    def __init__(self, problem: Problem, device: torch.device, precision: str) -> None:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        self.problem, self.device, self.precision = problem, device, precision
        self.inner = MaskedEncoder(problem, BertEncoder(problem))
        self.model = _ReturnsDictionary(self.inner).to(device)
        self.losses: list[Tensor] = []
        self.folder = tempfile.TemporaryDirectory()

    def run(self, steps: int) -> tuple[float, float]:
        from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
        from transformers.utils import logging as transformers_logging

        transformers_logging.set_verbosity_error()
        watch = Stopwatch(self.device)

        class Watch(TrainerCallback):
            def on_step_end(self, *arguments: Any, **keywords: Any) -> None:
                watch.step_ended()

        settings = TrainingArguments(
            output_dir=self.folder.name, max_steps=steps, per_device_train_batch_size=self.problem.batch,
            learning_rate=LEARNING_RATE, lr_scheduler_type="constant", save_strategy="no", report_to=[],
            logging_strategy="no", disable_tqdm=True, use_cpu=self.device.type == "cpu", max_grad_norm=0.0,
            bf16=self.precision == "bfloat16", dataloader_pin_memory=False, remove_unused_columns=False,
        )  # fmt: skip
        trainer = Trainer(
            model=self.model, args=settings, train_dataset=Samples(self.problem, self.inner), callbacks=[Watch()]
        )
        trainer.remove_callback(PrinterCallback)
        with warnings.catch_warnings(action="ignore"):
            output = trainer.train()
        self.losses.append(torch.tensor(output.training_loss))
        return watch.total(steps)


class LightningLoop:
    """nn.TransformerEncoder in a LightningModule, loss logged every step as the papers' code does."""

    def __init__(self, problem: Problem, device: torch.device, precision: str) -> None:
        import lightning

        for name in ("lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self.problem, self.device, self.precision = problem, device, precision
        self.losses: list[Tensor] = []
        inner, losses = MaskedEncoder(problem, torch_encoder(problem)), self.losses

        class Module(lightning.LightningModule):
            def __init__(self) -> None:
                super().__init__()
                self.inner = inner

            def training_step(self, batch: list[Tensor], number: int) -> Tensor:
                inputs, labels, sample = batch
                loss = self.inner(inputs, labels, self.inner.mask(sample, 0))
                self.log("loss", loss)
                losses.append(loss.detach())
                return loss

            def configure_optimizers(self) -> torch.optim.Optimizer:
                return torch.optim.AdamW(self.parameters(), lr=LEARNING_RATE, weight_decay=0.0)

        self.model = Module()

    def run(self, steps: int) -> tuple[float, float]:
        import lightning

        watch = Stopwatch(self.device)

        class Watch(lightning.Callback):
            def on_train_batch_end(self, *arguments: Any, **keywords: Any) -> None:
                watch.step_ended()

        with warnings.catch_warnings(action="ignore"):
            trainer = lightning.Trainer(
                max_steps=steps, accelerator="gpu" if self.device.type == "cuda" else "cpu", devices=1, logger=False,
                precision="bf16-mixed" if self.precision == "bfloat16" else "32-true", callbacks=[Watch()],
                enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            )  # fmt: skip
            trainer.fit(self.model, DataLoader(dataset(self.problem), batch_size=self.problem.batch, shuffle=True))
        return watch.total(steps)


def make_x_transformers(problem: Problem, device: torch.device, precision: str) -> PlainLoop:
    return PlainLoop(problem, MaskedEncoder(problem, XEncoder(problem)), device, precision)
