"""Foreign models that do not pass the self-test are refused, with the reason and exit code 4."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnprobe.capture.watching import watch
from attnprobe.errors import ConfigError, NotApplicableError
from attnprobe.probes import decomposition, proximity
from tests.capture.foreign import Fused, Module, N, WithWeights, Written, encoder, inputs


class Nothing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.softmax(-1)


class Twice(Module):
    """The defect of other tools: what is taken for scores went through a softmax."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (q @ k.mT).softmax(-1).softmax(-1) @ v


class StillDropping(Module):
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=0.5)


class Leaking(Fused):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + x.mean(1, keepdim=True))


class Alone(Module):
    """Every position attends to itself only, in a batch of its own."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        parts = (x.transpose(1, 2).flatten(0, 1)[:, :, None] for x in (q, k, v))
        return F.scaled_dot_product_attention(*parts).view(q.transpose(1, 2).shape).transpose(1, 2)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Nothing, "no attention was seen"),
        (Twice, "is a pattern already"),
        (StillDropping, "differs from the output"),
        (Leaking, "changing the last input"),
    ],
)
def test_what_does_not_pass_the_self_test_is_refused(model: type[nn.Module], reason: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(NotApplicableError, match=reason) as refusal:
        watch(model(), [inputs()])
    assert refusal.value.exit_code == 4


@pytest.mark.parametrize("make", [Fused, Written, WithWeights, encoder])
@pytest.mark.parametrize("part", ["q", "v"])
def test_weights_that_are_not_finite_are_called_so(make: Callable[[], nn.Module], part: str) -> None:
    """Not a look into the future: no difference from NaN is small."""
    model = make()
    for name, weight in model.named_parameters():
        if name.endswith(("qkv.weight", "in_proj_weight")):
            weight.data[:3] = torch.nan if part == "q" else weight.data[:3]
            weight.data[-3:] = torch.inf if part == "v" else weight.data[-3:]
    with pytest.raises(NotApplicableError, match="NaN or infinite") as refusal:
        watch(model, [inputs()])
    assert refusal.value.exit_code == 4


def test_a_kernel_that_goes_wrong_after_the_first_pass_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = watch(Fused(), [inputs()])
    fused = F.scaled_dot_product_attention
    monkeypatch.setattr(Fused, "attend", lambda self, q, k, v: fused(q, k, v, dropout_p=0.5))
    with pytest.raises(NotApplicableError, match="differs from the output"):
        subject.run(np.arange(N))


def test_attention_within_parts_of_a_sequence_is_no_subject_of_probes() -> None:
    subject = watch(Alone(), [inputs()])
    with pytest.raises(NotApplicableError, match="over parts of 5 sequences"):
        subject.run(np.arange(N))


def test_a_pass_with_other_calls_than_the_first_is_refused() -> None:
    model = encoder()
    subject = watch(model, [inputs()])
    model.layers = model.layers[:1]
    with pytest.raises(NotApplicableError, match="did not attend in this pass"):
        subject.run(np.arange(N))


@pytest.mark.parametrize(
    ("batches", "reason"),
    [
        ([], "no batches"),
        (torch.zeros(3, 7, 6), "single one"),
        ([torch.zeros(3, 7, 6), torch.zeros(3, 8, 6)], "length"),
        ([(torch.zeros(3, 7, 6), torch.zeros(2, 7))], "2, 3 sequences"),
        ([{"x": 3}], "no sequences"),
    ],
)
def test_batches_that_do_not_fit_are_refused(batches: object, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        watch(encoder(), batches)


def test_labels_must_be_as_many_as_sequences() -> None:
    with pytest.raises(ConfigError, match="3 labels for 5"):
        watch(encoder(), [inputs()], labels=[0, 1, 1])


def test_what_nobody_knows_how_to_start_is_not_drawn_anew() -> None:
    subject = watch(encoder(), [inputs()])
    with pytest.raises(NotApplicableError, match="nobody says how"):
        subject.redrawn(0)
    rows = proximity.measure(subject, n=N).rows
    assert {row.p_value for row in rows} == {None}


class SoftmaxModule(Written):
    """The softmax is a module of its own, which has no parameters: exporters write attention so."""

    def __init__(self) -> None:
        super().__init__()
        self.softmax = nn.Softmax(dim=-1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.softmax(q @ k.mT) @ v


def test_a_module_without_parameters_has_nothing_to_draw_anew() -> None:
    subject = watch(SoftmaxModule(), [inputs()])
    assert [layer.name for layer in subject.layers] == ["softmax"]
    with pytest.raises(NotApplicableError, match="softmax shows no W_Q and W_K of its own"):
        subject.redrawn(0)
    assert {row.p_value for row in proximity.measure(subject, n=N).rows} == {None}


def test_parts_of_scores_that_were_not_seen_as_products_are_refused() -> None:
    with pytest.raises(NotApplicableError, match="not seen as products"):
        decomposition.measure(watch(Written(), [inputs()]))
