"""The benchmarks work, and tell what they say they tell. How fast anything is, is no business of a test."""

import json
from time import monotonic

import pytest
import requests

from tests.benchmarks.__main__ import main
from tests.benchmarks.figures import Figure, percentile, ratio
from tests.benchmarks.stand_in import brevo


def test_a_run_tells_each_figure_with_its_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quick", "--json", "status"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert list(told) == ["status"]
    for figure in told["status"]:
        assert figure["value"] > 0, figure
        most = figure["most"]
        assert figure["is_met"] == (None if most is None else figure["value"] <= most), figure
        assert figure["floor"], figure


def test_a_benchmark_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["nothing"])
    assert refused.value.code == 2
    assert "no such benchmark: nothing; there are enqueue, " in capsys.readouterr().err


def test_a_figure_is_met_within_its_bounds_and_neither_without_any() -> None:
    assert Figure(name="", value=3, least=3).is_met is True
    assert Figure(name="", value=3, least=1, most=2).is_met is False
    assert Figure(name="", value=None, most=2, note="not installed").is_met is None
    assert Figure(name="", value=3).is_met is None


def test_a_ratio_is_of_what_was_taken_together() -> None:
    assert ratio([1, 20, 3], [2, 40, 3]) == 0.5
    assert percentile([4, 1, 3, 2], 0.5) == 2
    assert percentile([4, 1, 3, 2], 0.99) == 4


def test_the_stand_in_tells_when_each_call_came_and_about_whom() -> None:
    with brevo() as stand_in, requests.Session() as session:
        started = monotonic()
        made = session.post(f"{stand_in.url}/contacts", json={"email": "jane@example.com"})
        changed = session.put(f"{stand_in.url}/contacts/jane%40example.com", json={"attributes": {}})
        attributes = session.get(f"{stand_in.url}/contacts/attributes").json()["attributes"]
        (first, whom), (second, whose) = stand_in.calls()
        assert started < first < second < monotonic()
        assert (whom, whose) == ("jane@example.com", "jane%40example.com")
        assert (made.status_code, changed.status_code, len(attributes)) == (201, 204, 3)
        assert stand_in.calls() == []
