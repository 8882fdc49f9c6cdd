import pytest

from attnprobe.models.mixers import MIXERS
from tests.models.foreign import RecurrenceSettings


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adds "recurrence" to the mixers."""
    monkeypatch.setitem(MIXERS, "recurrence", RecurrenceSettings)
