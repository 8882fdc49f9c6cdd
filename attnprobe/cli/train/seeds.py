"""--seed and --seeds, which several commands have."""

from attnprobe.errors import ConfigError, shown

MOST_SEEDS = 10_000


def chosen_seeds(seed: int | None, seeds: str | None, default: int) -> list[int]:
    """What --seeds names, else --seed, else the default; ConfigError if both are given."""
    if seed is not None and seeds is not None:
        raise ConfigError("--seed and --seeds exclude each other", hint="leave one of them out")
    return [default if seed is None else seed] if seeds is None else parse_seeds(seeds)


def parse_seeds(text: str) -> list[int]:
    """ "5" -> 0..4, "0,3,7" -> these."""
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = []
    if len(numbers) == 1 and numbers[0] > MOST_SEEDS and "," not in text:
        raise ConfigError(f"--seeds {text} asks for more than {MOST_SEEDS:,} runs", hint="name one seed as --seed N")
    seeds = list(range(numbers[0])) if len(numbers) == 1 and "," not in text else numbers
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ConfigError(
            f"--seeds {shown(text)} is no list of different seeds", hint="write --seeds 5 or --seeds 0,3,7"
        )
    return seeds
