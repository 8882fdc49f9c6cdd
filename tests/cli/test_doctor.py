"""attnprobe doctor: all is well here, and what is not is found."""

from pathlib import Path

import pytest

from attnprobe.launch import doctor


def test_all_is_well(attnprobe) -> None:
    answer = attnprobe("doctor", "--json", "--device", "cpu")
    found = answer.document()
    assert answer.code == 0, answer.out
    assert found["passed"]
    assert [finding["what"] for finding in found["findings"]] == [*doctor.CHECKS, "theory"]


def test_table(attnprobe) -> None:
    answer = attnprobe("doctor", "--device", "cpu")
    assert answer.code == 0
    assert "weights differ by 0" in " ".join(answer.out.split())


def test_a_probe_that_is_off_is_found(attnprobe, monkeypatch: pytest.MonkeyPatch) -> None:
    right = doctor.measure

    def off(*given, **options):
        answer = right(*given, **options)
        answer.profile.score.estimate[0, 1, 3] += 1e-6
        return answer

    monkeypatch.setattr(doctor, "measure", off)
    assert doctor.look("probe", "cpu").state == "failed"
    assert attnprobe("doctor", "-q").code == 5


def test_a_run_that_goes_on_elsewhere_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = doctor.execute

    def forgetful(config, folder, *, resume=False, **options):
        if resume:
            (folder / "resume.pt").unlink()
            options["config"] = config
            return right(
                options.pop("config").__class__(**vars(config) | {"seed": 1}), folder, overwrite=True, **options
            )
        return right(config, folder, **options)

    monkeypatch.setattr(doctor, "execute", forgetful)
    found = doctor.look("engine", "cpu")
    assert found.state == "failed"
    assert "weights differ by 0;" not in found.found


def test_folders_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("ATTNPROBE_DATA", str(tmp_path / "file"))
    found = doctor.look("folders", "cpu")
    assert (found.state, "cannot be written" in found.found) == ("failed", True)


def test_too_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "cores", lambda: 0)
    assert doctor.look("threads", "cpu").state == "warning"


def test_a_device_that_is_not_there() -> None:
    found = doctor.look("device", "cuda:99")
    assert found.state == "failed"
    assert found.hint
