"""config.sample.yaml holds every setting with its default."""

from pathlib import Path

from outboxd import config
from outboxd.config import settings
from outboxd.config.document import load

SAMPLE = Path(__file__).parent.parent / "config.sample.yaml"


def test_the_sample_says_the_defaults() -> None:
    assert config.read(SAMPLE) == config.from_mapping({}, "nothing")


def test_the_sample_holds_every_setting() -> None:
    data = load(SAMPLE.read_text(), "sample").data
    sync = data["skills"][settings.SKILL]
    for section, written in (
        (settings.TOP, data),
        (settings.SYNC, sync),
        (settings.OPTIONS, sync["options"]),
        (settings.BREVO, data["brevo"]),
        (settings.RETRY, data["retry"]),
        (settings.BATCH, data["batch"]),
        (settings.HYBRID, data["hybrid"]),
        (settings.METRICS, data["metrics"]),
        (settings.NOTIFICATIONS, data["notifications"]),
        (settings.RETENTION, data["retention"]),
    ):
        assert set(section) == set(written)
