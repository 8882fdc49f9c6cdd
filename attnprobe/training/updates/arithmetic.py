"""How numbers are computed: the precision of products, and whether sums are added up in one fixed order.

Parameters, their averages, norms, softmax sums and losses are float32 in every precision. What differs is what matrix
products make of their factors: "float32" takes them whole; "tf32" rounds them to 10 bits of fraction, in the tensor
cores of a CUDA device; "bfloat16" (autocast) rounds them and their results to 7 bits, in half the memory.
"""

import contextlib
import os
from collections.abc import Iterator

import torch

from attnprobe.errors import ConfigError
from attnprobe.run import Engine, Precision

AMPERE = (8, 0)  # the first compute capability whose tensor cores know TF32 and bfloat16


def check_precision(precision: Precision, device: torch.device) -> None:
    """ConfigError if the device has no such arithmetic; on a CPU bfloat16 works, though it is rarely faster."""
    if device.type != "cuda":
        if precision == "tf32":
            hint = "use --precision float32; bfloat16 works everywhere"
            raise ConfigError(f"tf32 is arithmetic of CUDA devices, and this run is on the {device.type}", hint)
    elif precision != "float32" and torch.cuda.get_device_capability(device) < AMPERE:
        hint = "use --precision float32"
        raise ConfigError(f"{torch.cuda.get_device_name(device)} has no arithmetic in {precision}", hint)


@contextlib.contextmanager
def process_settings(engine: Engine) -> Iterator[None]:
    """Within it, torch's switches for the whole process are as the engine says; around an update or an evaluation.

    float32 products are those of the engine, whatever the process was set to before. A deterministic engine refuses
    operations (RuntimeError) that add up in any order.
    """
    precision, deterministic = torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()
    torch.set_float32_matmul_precision("high" if engine.precision == "tf32" else "highest")
    if engine.deterministic and not deterministic:
        # cuBLAS may otherwise share its workspace between streams; it reads this when it is first used.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        if engine.deterministic and not deterministic:
            torch.use_deterministic_algorithms(False)
