"""Models that cannot be, as they are asked for on the command line: one line that says why, and nothing is trained."""

from pathlib import Path

import pytest

ON_OTHER_LENGTHS = "pretrain.task={name='textures', side=4, n_train=20, n_validation=10, n_test=10}"

IMPOSSIBLE = [
    (("model.mixer={name='block_local', window=0}",), ("model.mixer.window must be greater than zero, got 0",)),
    (("model.mixer={name='longformer', window=0}",), ("model.mixer.window must be greater than zero, got 0",)),
    (
        ("model.d_model=6", "model.heads=2", "model.positions=rotary"),
        ("model.positions rotary needs an even number of channels per head, not 6 / 2", "model.heads"),
    ),
    (
        ("model.mixer={name='mega', bias='rotary', d_shared=5}",),
        ("model.mixer.d_shared must be even with bias='rotary', got 5",),
    ),
    *(
        ((f"model.mixer={{name='{name}', states=0}}",), ("model.mixer.states must be greater than zero, got 0",))
        for name in ("s4", "s4d", "dlr", "mega", "spade")
    ),
    (("model.mixer={name='s4', states=3}",), ("model.mixer.states must be even, since they come in pairs, got 3",)),
    (
        ("model.positions=learned", "task.side=5", ON_OTHER_LENGTHS),
        ("cannot carry over positions.table", "have 25 positions here, those of the source 16", "sinusoidal"),
    ),
    (
        ("model.mixer={name='linformer', rank=3}", "task.side=3", ON_OTHER_LENGTHS),
        ("cannot carry over blocks.0.linformer.of_keys", "have 9 positions here, those of the source 16"),
    ),
]


@pytest.mark.parametrize(("settings", "words"), IMPOSSIBLE, ids=[settings[0] for settings, _ in IMPOSSIBLE])
def test_impossible_models_are_refused_before_anything_is_trained(
    settings: tuple[str, ...], words: tuple[str, ...], attnprobe, tiny
) -> None:
    changes = [part for setting in settings for part in ("-s", setting)]
    outcome = attnprobe("train", *tiny, *changes, "--out", "run")
    assert outcome.code == 2
    outcome.complains(*words)
    assert not Path("run").exists()


@pytest.mark.parametrize("sliding", ["true", "false"])
def test_a_window_need_not_divide_the_length(sliding: str, attnprobe, tiny) -> None:
    mixer = f"model.mixer={{name='block_local', window=7, sliding={sliding}}}"
    assert attnprobe("train", *tiny, "-s", "task.side=5", "-s", mixer, "--out", "run").code == 0
    assert Path("run/checkpoints/finetuned.pt").exists()
