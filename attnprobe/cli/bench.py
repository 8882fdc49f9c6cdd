"""attnprobe bench: speed against other implementations, on this machine."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from attnprobe.cli.screen.output import Device, Json, Quiet, print_json, say, stdout
from attnprobe.errors import RunError
from attnprobe.files.outputs import check_outputs


def bench(
    suite: Annotated[
        Literal["quick", "cpu", "gpu"],
        typer.Option(help="quick: seconds; cpu: minutes; gpu: 5 minutes of one GPU."),
    ] = "quick",
    out: Annotated[Path, typer.Option(help="Folder for bench-<suite>.json and bench-<suite>.md.")] = Path("bench"),
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads for every peer.")] = None,
    precision: Annotated[
        Literal["float32", "bfloat16"], typer.Option(help="Of every peer; the gpu suite has its own.")
    ] = "float32",
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure training speed side by side with the other implementations that are installed.

    Ours and plain torch start from the same weights and must have the same losses, or nothing is timed. Then everyone
    trains in turns; the ratios are taken within rounds. Ours takes part twice: the ratio of the two is the noise.

    Examples:

        attnprobe bench

        attnprobe bench --suite cpu --threads 2 --out results

        attnprobe bench --suite gpu

    The peers come with: pip install "attnprobe\\[bench]"
    """
    import torch

    from attnprobe.bench.gpu import run_gpu_suite
    from attnprobe.bench.suites import SUITES, run_suite
    from attnprobe.files import to_json, write_text
    from attnprobe.machine import choose_device

    chosen = choose_device(device)
    if suite == "gpu" and chosen.type != "cuda":
        raise RunError("the gpu suite needs a CUDA device", hint="use --suite cpu")
    names = {"json": out / f"bench-{suite}.json", "page": out / f"bench-{suite}.md"}
    check_outputs([("--out", "benchmark", list(names.values()))])
    if threads is not None:
        torch.set_num_threads(threads)
    command = " ".join(["attnprobe", *sys.argv[1:]])

    def report(text: str) -> None:
        say(text, quiet=quiet or json)

    if suite == "gpu":
        document, page = run_gpu_suite(command, device=chosen, say=report)
    else:
        document, page = run_suite(SUITES[suite], command, device=chosen, precision=precision, say=report)
    for path, text in ((names["json"], to_json(document)), (names["page"], page)):
        write_text(path, text)
    if json:
        print_json(document)
    elif not quiet:
        stdout.out(page, end="")
        say(f"written to {out}")
    if document.get("stopped"):
        raise typer.Exit(130)
