"""Our state-space layers beside those of a checkout of github.com/IdoAmos/not-from-scratch, on the same weights.

``python -m tests.benchmarks.published_kernels CHECKOUT [THREADS]`` prints the page that RESULTS.md quotes; it needs
einops, opt_einsum and omegaconf. Theirs is what plain torch does there, without KeOps and without their CUDA code.
Nothing of theirs is kept here: what their layers do not use is replaced by mocks, and a typing error that keeps
``dss.py`` from being read is mended on the way.
"""

import importlib
import logging
import sys
import types
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from attnprobe.bench.report import heading, surroundings, table
from tests.benchmarks.mixers import layer, take_turns

WIDTH, ROUNDS, BATCH = 128, 5, 4
LENGTHS = (1024, 4096, 16384)
STATES = {"s4": 64, "s4d": 64, "dlr": 1024}
MOST = {"s4": 4096, "s4d": 4096, "dlr": 16384}  # theirs holds channels x states x length complex numbers several times
UNUSED = (
    "hydra", "pytorch_lightning", "pytorch_lightning.utilities", "src.utils", "src.utils.config", "src.utils.registry",
    "src.utils.train",
)  # fmt: skip
TYPING_ERROR = ("channels////", "channels")


def published(checkout: Path) -> tuple[type[nn.Module], type[nn.Module]]:
    """Their layers S4 (with S4D's kernel, too) and DSS (with DLR's)."""
    logging.disable(logging.WARNING)
    sys.path.insert(0, str(checkout))
    sys.modules.update({name: mock.MagicMock() for name in UNUSED})
    importlib.import_module("src").__dict__["utils"] = sys.modules["src.utils"]
    s4 = importlib.import_module("src.models.sequence.ss.s4")
    path = checkout / "src" / "models" / "sequence" / "ss" / "dss.py"
    dss = types.ModuleType("dss")
    exec(compile(path.read_text(encoding="utf-8").replace(*TYPING_ERROR), str(path), "exec"), dss.__dict__)
    return s4.S4, dss.DSS


def pair(kinds: tuple[type[nn.Module], type[nn.Module]], name: str, length: int) -> tuple[nn.Module, nn.Module]:
    """Ours and theirs, bidirectional, with the same parameters."""
    states = STATES[name]
    ours = layer(name, length, WIDTH, states=states)
    settings = {"bidirectional": True, "postact": "glu", "transposed": True, "l_max": length}
    if name == "dlr":
        rates = importlib.import_module("omegaconf").DictConfig({"Lambda_re": 1e-4})  # they ask for it as an attribute
        theirs = kinds[1](WIDTH, states, lr=rates, **settings)
        names = {"root_decay": "Lambda_log_neg_re", "frequency": "Lambda_im", "output": "W"}
    else:
        chosen = {"mode": "diag", "measure": "diag-legs"} if name == "s4d" else {"mode": "nplr", "measure": "legs"}
        theirs = kinds[0](WIDTH, states, lr=1e-3, **chosen, **settings)
        names = {"log_step": "log_dt", "log_decay": "inv_A_real", "frequency": "A_imag", "input": "B", "output": "C"}
        if name == "s4":
            theirs(torch.zeros(1, WIDTH, length))  # at the first call they make C (1 - A^length) of C
            names |= {"log_decay": "inv_w_real", "frequency": "w_imag", "low_rank": "P"}
    kernel = theirs.get_submodule("kernel") if name == "dlr" else theirs.get_submodule("kernel.kernel")
    with torch.no_grad():
        for mine, other in names.items():
            own = ours.get_parameter(f"convolution.{mine}")
            own.copy_(kernel.get_parameter(other).view(own.shape))
        ours.get_parameter("convolution.skip").copy_(theirs.get_parameter("D")[0])
        for part in ("weight", "bias"):
            own = ours.get_parameter(f"out.{part}")
            own.copy_(theirs.get_parameter(f"output_linear.0.{part}").view(own.shape))
    return ours, theirs


def row(kinds: tuple[type[nn.Module], type[nn.Module]], name: str, length: int) -> dict[str, str]:
    """Times of a pass forward and backward, and their ratio: median, with 10 and 90 % quantiles of rounds."""
    ours, theirs = pair(kinds, name, length)
    x = torch.randn(BATCH, length, WIDTH, requires_grad=True)

    def run(x: Tensor) -> Tensor:
        return theirs(x.mT)[0].mT

    with torch.no_grad():
        mine, other = ours(x), run(x)
    difference = float((mine - other).abs().max() / other.abs().max())
    found = take_turns({"ours": ours, "theirs": run, "ours again": ours}, x, ROUNDS)
    texts = {}
    for peer, times in found.items():
        low, middle, high = np.quantile(times / found["ours"], [0.1, 0.5, 0.9])
        texts[peer] = f"{middle:.2f} [{low:.2f}, {high:.2f}]"
    medians = {f"{peer}, ms": f"{1000 * np.median(found[peer]):.0f}" for peer in ("ours", "theirs")}
    largest = {"largest difference": f"{difference:.0e}"}
    return {"layer": name, "length": str(length), **medians, "theirs / ours": texts["theirs"],
            "ours again / ours": texts["ours again"], **largest}  # fmt: skip


def main() -> None:
    checkout, *rest = sys.argv[1:]
    threads = int(rest[0]) if rest else 2
    torch.set_num_threads(threads)
    command = f"python -m tests.benchmarks.published_kernels CHECKOUT {threads}"
    lines = heading(surroundings(torch.device("cpu")), command)
    kinds = published(Path(checkout))
    rows = [row(kinds, name, length) for name in STATES for length in LENGTHS if length <= MOST[name]]
    print("\n".join([*lines, "", *table(rows)]))


if __name__ == "__main__":
    main()
