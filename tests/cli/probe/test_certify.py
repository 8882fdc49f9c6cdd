"""`attnprobe theory certify`."""

import pytest

from attnprobe.probes import blindness
from attnprobe.tasks.textures import Textures


def test_certify(attnprobe, checkpoints) -> None:
    command = ("theory", "certify", *checkpoints[:2], "-n", 30, "--stepped", 9, "--shuffles", 99, "--json")
    outcome = attnprobe(*command, "--csv", "rows.csv")
    document = outcome.document()
    answers = [row for row in document["rows"] if row["blind"] is not None and row["family"] == "blind"]
    assert [row["checkpoint"] for row in answers] == list(map(str, checkpoints[:2]))
    assert document["passed"] == all(row["blind"] for row in answers)
    assert outcome.code == (0 if document["passed"] else 5)
    for row in answers:
        assert row["blind"] == (row["family_p"] > 0.05 and row["agrees"])
    assert {(row["loss"], row["quantity"], row["n"]) for row in document["rows"] if row["layer"] is not None} == {
        (loss, quantity, n)
        for loss in ("label", "reconstruction", "label / reconstruction")
        for quantity, n in (("slope", 30), ("curvature", 9))
    }


def test_certify_refuses_at_once(attnprobe, checkpoints, monkeypatch) -> None:
    outcome = attnprobe("theory", "certify", checkpoints[0], "--shuffles", 18)
    assert outcome.code == 2
    outcome.complains("the number of shuffles is 18: no p-value could be as small as 0.05", "take at least 19")
    monkeypatch.setattr(blindness, "measure", lambda *_, **__: pytest.fail("it was measured"))
    assert attnprobe("theory", "certify", checkpoints[0], "missing.pt").code == 3
    monkeypatch.setattr(Textures, "load", lambda *_: pytest.fail("data were made"))
    outcome = attnprobe("theory", "certify", checkpoints[0], "--task", "textures", "-q")
    assert outcome.code == 3  # 8 x 8 images for a model of 5 x 5
    outcome.complains("does not fit the model")
