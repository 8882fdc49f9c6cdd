"""What padding costs: ListOps in batches padded as published and in length buckets.

As a program, ``python -m tests.benchmarks.lengths [THREADS]`` prints the page that RESULTS.md quotes.

Every round, all peers train on the same samples, each in batches of its own making; so the ratio of their times
is the ratio of their speeds per real token.
"""

import dataclasses
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from attnprobe.bench.peers import timed
from attnprobe.bench.report import heading, surroundings, table
from attnprobe.bench.rounds import GateError, Spread, spread
from attnprobe.models import TransformerConfig, make_model
from attnprobe.objectives import Classification
from attnprobe.run import Engine, Optimizer, Phase
from attnprobe.tasks import Data, Split
from attnprobe.tasks.listops.task import ListOps
from attnprobe.training.buckets import Batches, longest, training_batches
from attnprobe.training.loop import Trainer
from attnprobe.training.updates.attention_kernels import Shape, choose_attention

TOLERANCE = {"float32": 1e-5, "bfloat16": 0.1}  # largest difference of a sample's loss
TASK = ListOps(n_train=4096, n_validation=1, n_test=1)
MODEL = TransformerConfig(d_model=64, layers=1, heads=4, d_mlp=128)

Times = dict[str, list[tuple[float, float]]]  # peer -> (seconds, CPU seconds) of each round


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lengths:
    """How much is measured. The default has ListOps' own lengths: 500 to 2000, about 1035 on average."""

    task: ListOps = TASK
    model: TransformerConfig = MODEL
    batch: int = 16
    steps: int = 8  # per round
    rounds: int = 5


class Peer:
    """A trainer, and the batches it makes of what the buckets hold."""

    def __init__(self, setting: Lengths, data: Data, engine: Engine) -> None:
        model = make_model(setting.model, data.spec, "classes", seed=0).to(data.train.labels.device)
        optimizer = Optimizer(schedule="constant", warmup=0)
        phase = Phase(objective=Classification(), batch_size=setting.batch, epochs=1_000_000, optimizer=optimizer)
        self.trainer = Trainer(model, data, "bench", phase, engine, seed=0)

    def batches(self, buckets: Batches) -> Batches:
        """The same samples: as they are, or in random company and padded to the full length."""
        if self.trainer.trim:
            return buckets
        samples = torch.cat(buckets.index)
        mixed = samples[torch.randperm(len(samples), generator=torch.Generator().manual_seed(0)).to(samples.device)]
        return Batches(split=buckets.split, index=mixed.split(self.trainer.batch_size), lengths=None)

    @torch.no_grad()
    def losses(self, buckets: Batches) -> Tensor:
        """(samples,) in the order of their numbers."""
        batches = self.batches(buckets)
        with self.trainer.stepper.arithmetic():
            found = [self.trainer.stepper.losses(batches[number], 0).loss for number in range(len(batches))]
        return torch.cat(found)[torch.cat(batches.index).argsort()]

    def train(self, buckets: Batches) -> tuple[float, float]:
        """(seconds, CPU seconds) for one update per batch."""
        batches = self.batches(buckets)

        def work() -> None:
            for number in range(len(batches)):
                self.trainer.update(batches[number], 0)
                self.trainer.progress.step += 1

        return timed(work, self.trainer.device)


def make_peers(setting: Lengths, data: Data, precision: str) -> dict[str, Peer]:
    model, reduced = setting.model, precision == "bfloat16"
    shape = Shape(
        sequences=setting.batch, heads=model.heads, length=data.spec.length, d_head=model.d_model // model.heads,
        precision="bfloat16" if reduced else "float32", masked=True, causal=False,
    )  # fmt: skip
    engine = Engine(precision="bfloat16" if reduced else "float32")
    engine = dataclasses.replace(engine, attention=choose_attention(engine, shape, data.train.labels.device).kernel)
    padded = dataclasses.replace(engine, batching="padded")
    return {
        "padded, as published": Peer(setting, data, padded),
        "buckets": Peer(setting, data, engine),
        "buckets again": Peer(setting, data, engine),
    }


def rounds_of_buckets(setting: Lengths, split: Split) -> list[Batches]:
    """A warm-up and the rounds: of an epoch's buckets in the order of their lengths, every so many-th."""
    whole = training_batches(split, setting.batch, True, torch.Generator().manual_seed(0))
    assert whole.lengths is not None
    lengths, stride = whole.lengths, len(whole) // setting.steps
    order = sorted(range(len(whole)), key=lambda number: lengths[number])
    chosen = [order[(stride // 2 + r) % stride :: stride][: setting.steps] for r in range(setting.rounds + 1)]
    if split.labels.is_cuda:  # kernels are prepared for each length they meet
        chosen[0] = list({lengths[number]: number for number in order}.values())
    return [
        Batches(split=split, index=tuple(whole.index[i] for i in part), lengths=tuple(lengths[i] for i in part))
        for part in chosen
    ]


def run_lengths(
    setting: Lengths, command: str, *, device: torch.device, precision: str, say: Callable[[str], None]
) -> tuple[dict[str, Any], str]:
    """The record as plain data and as a Markdown page; GateError if a sample's loss depends on its batch."""
    where = surroundings(device)
    data = setting.task.load(None).to(device)
    peers = make_peers(setting, data, precision)
    warm_up, *rounds = rounds_of_buckets(setting, data.train)
    difference = gate(peers, warm_up, TOLERANCE[precision])
    names = list(peers)
    for name in names:
        peers[name].train(warm_up)
    times: Times = {name: [] for name in names}
    for number, buckets in enumerate(rounds):
        say(f"lengths: round {number + 1} of {len(rounds)}")
        for name in names[number % len(names) :] + names[: number % len(names)]:  # no one is always first
            times[name].append(peers[name].train(buckets))
    tokens = [int(longest(data.train)[torch.cat(buckets.index).cpu()].sum()) for buckets in rounds]
    rows = [compared(name, times, tokens) for name in names]
    plain = [{k: dataclasses.asdict(v) if isinstance(v, Spread) else v for k, v in row.items()} for row in rows]
    document = {"command": command, "surroundings": where, "rows": plain, "largest_loss_difference": difference}
    sizes = f"{len(rounds)} rounds of {setting.steps} batches of {setting.batch}"
    lines = [*heading(where, command), "", f"ListOps, {setting.model}, {precision}, {sizes}. Tokens without padding; "]
    lines[-1] += f"median (min-max). Losses of a sample differ by at most {difference:.0e}.\n"
    return document, "\n".join([*lines, *table(rows)]) + "\n"


def gate(peers: dict[str, Peer], buckets: Batches, tolerance: float) -> float:
    """The largest difference of any sample's loss between the peers, all with the same weights."""
    losses = torch.stack([peer.losses(buckets).double() for peer in peers.values()])
    difference = float((losses.amax(0) - losses.amin(0)).max())
    if not difference <= tolerance:
        raise GateError(
            f"a sample's loss depends on its batch: it differs by {difference:.1e}, allowed {tolerance:.0e}"
        )
    return difference


def compared(name: str, times: Times, tokens: list[int]) -> dict[str, Any]:
    """A row of the table; CPU seconds hardly notice other programs."""
    pace = [n / wall for n, (wall, _) in zip(tokens, times[name], strict=True)]
    row: dict[str, Any] = {"batches": name, "seconds": sum(wall for wall, _ in times[name]), "tokens/s": spread(pace)}
    for clock, kind in enumerate(("", ", CPU seconds")):
        for title, other in (("times faster than padded", "padded, as published"), ("than buckets", "buckets")):
            pairs = zip(times[other], times[name], strict=True)
            row[title + kind] = spread([theirs[clock] / mine[clock] for theirs, mine in pairs])
    return row


def main() -> None:
    if len(sys.argv) > 1:
        torch.set_num_threads(int(sys.argv[1]))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    command = " ".join(["python -m tests.benchmarks.lengths", *sys.argv[1:]])
    say = partial(print, file=sys.stderr)
    print(run_lengths(Lengths(), command, device=device, precision="float32", say=say)[1])


if __name__ == "__main__":
    main()
