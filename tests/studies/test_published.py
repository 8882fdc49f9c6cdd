"""Published numbers: one row each, percentages as shares, mistakes in one line."""

from pathlib import Path

import pytest

from attnprobe.errors import ArtifactError, ConfigError
from attnprobe.studies.published import Published, published, read, rows, table_path
from attnprobe.studies.study import Choice, Layout, Scale, Study

PLACE = {"task": "listops", "arm": "scratch"}
WHERE = "tables.main"


def study_with(columns: dict[str, str], *, arm: str | None = "from_scratch_100ep") -> Study:
    axes = {"task": {"listops": Choice(published="ListOps")}, "arm": {"scratch": Choice(published=arm)}}
    layout = Layout(rows=("arm",), columns=("task",), published=columns)
    return Study(title="", question="", axes=axes, tables={"main": layout}, scales={"laptop": Scale()})


def found(study: Study) -> Published | None:
    return published(study, study.tables["main"], PLACE, where=WHERE)


COSER = {"paper": "000_coser_orvieto", "table": "1", "task": "{task}", "setting": "{arm}"}


def test_templates_find_the_row_of_a_place() -> None:
    answer = found(study_with(COSER))
    assert answer == Published(text="0.402", value=0.402, where="000_coser_orvieto, table 1")


def test_percentages_become_shares_and_r2_stays() -> None:
    row = {"paper": "002_amos", "table": "1", "metric": "test_acc_%", "value": "66.63"}
    assert read(row).value == pytest.approx(0.6663)
    assert read(row | {"metric": "R2", "value": "0.61"}).value == 0.61
    assert read(row | {"value": "chance(x)"}) == Published(text="chance(x)", value=None, where="002_amos, table 1")


def test_places_that_no_paper_has_are_no_mistake() -> None:
    assert found(study_with(COSER, arm=None)) is None
    assert found(study_with({})) is None


@pytest.mark.parametrize(
    ("study", "message"),
    [
        (study_with(COSER | {"setting": "from_scratch"}), "0 rows of published.csv have .*setting 'from_scratch'"),
        (study_with(COSER | {"setting": "{arms}"}), "names no axis: 'arms'"),
        (study_with({"paper": "000_coser_orvieto", "table": "1"}), "15 rows of published.csv have"),
        (study_with({"papers": "000_coser_orvieto"}), "tables.main.published.papers is no column"),
    ],
)
def test_anything_but_one_row_is_said_in_one_line(study: Study, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        found(study)
    assert caught.value.hint
    assert "\n" not in str(caught.value)


def test_ambiguous_rows_name_the_columns_that_would_tell() -> None:
    with pytest.raises(ConfigError) as caught:
        found(study_with({"paper": "000_coser_orvieto", "table": "1", "task": "{task}"}))
    assert caught.value.hint == "they differ in setting"


def test_every_row_of_the_table_can_be_read() -> None:
    table = rows(table_path())
    assert len(table) > 700
    percent = [read(row).value for row in table if row["metric"] == "test_acc_%"]
    assert len(percent) > 200
    assert all(value is None or 0.05 < value <= 1 for value in percent)


def test_a_damaged_table_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "published.csv"
    path.write_text("paper,table\n1,2\n")
    with pytest.raises(ArtifactError, match="its heading is not"):
        rows(path)
