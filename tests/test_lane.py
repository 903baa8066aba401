"""The lane: what stops all deliveries, and how they begin again."""

from datetime import UTC, datetime, timedelta

import pytest

from outboxd.event import Outcome, Verdict
from outboxd.lane import RUN, Lane

NOW = datetime(2026, 11, 23, 16, 0, tzinfo=UTC)
CALL = "POST /contacts"
FINE = Outcome(Verdict.DELIVERED, call=CALL, http_status=201)
BROKEN = Outcome(Verdict.RETRY, call=CALL, http_status=503)
REFUSED = Outcome(Verdict.REFUSED, call=CALL, http_status=400)
UNREACHED = Outcome(Verdict.RETRY, call=CALL, detail="Brevo cannot be reached", is_network=True)
REVOKED = Outcome(Verdict.BLOCKED, call=CALL, http_status=401, detail="Brevo does not know this API key")


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def too_many(wait: float) -> Outcome:
    return Outcome(Verdict.BLOCKED, call=CALL, http_status=429, wait=timedelta(seconds=wait))


def run(lane: Lane, *outcomes: Outcome, at: datetime = NOW) -> tuple[Lane, list[Verdict]]:
    verdicts = []
    for outcome in outcomes:
        lane, judged = lane.judge(outcome, at)
        verdicts.append(judged.verdict)
    return lane, verdicts


@pytest.mark.parametrize("outcome", [FINE, BROKEN, REFUSED])
def test_what_concerns_one_event_stops_nobody_else(outcome: Outcome) -> None:
    lane, verdicts = run(Lane(), *[outcome] * 50)
    assert (lane.state, lane.room(NOW), set(verdicts)) == ("running", None, {outcome.verdict})


def test_a_revoked_key_stops_the_lane_and_says_why() -> None:
    lane, _ = run(Lane(), REVOKED)
    assert (lane.state, lane.reason, lane.room(NOW)) == ("blocked", REVOKED.detail, 0)


def test_a_blocked_lane_is_probed_with_one_call() -> None:
    lane, _ = run(Lane(), REVOKED)
    assert [lane.room(after(seconds)) for seconds in (0, 4.9, 5)] == [0, 0, 1]


def test_a_probe_that_succeeds_opens_the_lane() -> None:
    lane, _ = run(Lane(), REVOKED)
    assert lane.judge(FINE, after(5)) == (Lane(), FINE)


def test_probes_become_rarer_up_to_two_minutes() -> None:
    lane, now, waits = Lane(), NOW, []
    for _ in range(8):
        lane, _ = lane.judge(REVOKED, now)
        assert lane.until is not None
        waits.append((lane.until - now).total_seconds())
        now = lane.until
    assert waits == [5, 10, 20, 40, 80, 120, 120, 120]


def test_calls_that_were_under_way_together_count_as_one_stop() -> None:
    lane, _ = run(Lane(), *[REVOKED] * 8)
    assert lane.until == after(5)
    lane, _ = run(lane, *[REVOKED] * 8, at=after(5))
    assert lane.until == after(15)


def test_a_used_up_rate_limit_waits_as_long_as_brevo_says() -> None:
    lane, _ = run(Lane(), too_many(30))
    assert (lane.state, lane.until, lane.room(after(29)), lane.room(after(30))) == (
        "waiting",
        after(30),
        0,
        1,
    )


def test_the_longest_of_several_waits_counts() -> None:
    lane, _ = run(Lane(), too_many(30), too_many(2))
    assert lane.until == after(30)


@pytest.mark.parametrize("outcome", [FINE, BROKEN, REFUSED])
def test_a_call_that_was_under_way_does_not_cut_the_wait_short(outcome: Outcome) -> None:
    lane, verdicts = run(Lane(), too_many(30), outcome, at=NOW)
    assert (lane.state, lane.until, verdicts[1]) == ("waiting", after(30), outcome.verdict)


def test_after_the_wait_the_first_success_opens_the_lane() -> None:
    lane, _ = run(Lane(), too_many(30))
    assert lane.judge(FINE, after(30))[0] == Lane()


def test_a_few_failures_to_reach_brevo_are_attempts() -> None:
    lane, verdicts = run(Lane(), *[UNREACHED] * (RUN - 1))
    assert (lane.state, verdicts) == ("running", [Verdict.RETRY] * (RUN - 1))


def test_a_run_of_failures_to_reach_brevo_is_nobodys_attempt() -> None:
    lane, verdicts = run(Lane(), *[UNREACHED] * (RUN + 3))
    assert verdicts[RUN - 1 :] == [Verdict.BLOCKED] * 4
    assert (lane.state, lane.reason, lane.until) == ("blocked", UNREACHED.detail, after(5))


@pytest.mark.parametrize("outcome", [FINE, BROKEN, REFUSED])
def test_any_answer_between_them_ends_a_run_of_failures(outcome: Outcome) -> None:
    lane, verdicts = run(Lane(), *[UNREACHED] * (RUN - 1), outcome, *[UNREACHED] * (RUN - 1))
    assert lane.state == "running"
    assert Verdict.BLOCKED not in verdicts


@pytest.mark.parametrize("stop", [REVOKED, too_many(5)])
def test_a_probe_that_reaches_nobody_is_no_attempt_and_blocks_again(stop: Outcome) -> None:
    lane, verdicts = run(run(Lane(), stop)[0], UNREACHED, at=after(5))
    assert (lane.state, verdicts) == ("blocked", [Verdict.BLOCKED])
    assert lane.room(after(5)) == 0


@pytest.mark.parametrize(
    ("lane", "outlasts"),
    [
        (Lane(), False),
        (run(Lane(), too_many(15))[0], False),
        (run(Lane(), too_many(16))[0], True),
        (run(Lane(), REVOKED)[0], True),
    ],
)
def test_a_short_wait_is_sat_out_and_nothing_else_is(lane: Lane, outlasts: bool) -> None:
    assert lane.outlasts(timedelta(seconds=15), NOW) == outlasts


def test_waits_one_after_the_other_are_one_until_something_gets_through() -> None:
    patience, lane, told = timedelta(seconds=15), Lane(), []
    for seconds in (0, 5, 10, 15):
        lane, _ = lane.judge(too_many(5), after(seconds))
        told.append(lane.outlasts(patience, after(seconds)))
    assert told == [False, False, False, True]
    assert not lane.outlasts(patience, after(20)), "it is time for the next probe"
    lane, _ = run(run(lane, FINE, at=after(20))[0], too_many(5), at=after(20))
    assert not lane.outlasts(patience, after(20))


def test_a_clock_that_is_set_makes_no_wait_longer() -> None:
    lane, _ = run(Lane(), too_many(5))
    for by in (timedelta(days=1), timedelta(days=-1)):
        moved, _ = run(lane.shifted(by), too_many(5), at=after(5) + by)
        assert not moved.outlasts(timedelta(seconds=15), after(5) + by)


@pytest.mark.parametrize("lane", [Lane(), run(Lane(), REVOKED)[0], run(Lane(), *[UNREACHED] * 3)[0]])
def test_what_needed_no_call_tells_nothing_of_brevo(lane: Lane) -> None:
    unchanged = Outcome(Verdict.UNCHANGED)
    assert lane.judge(unchanged, after(60)) == (lane, unchanged)


@pytest.mark.parametrize("state", [None, "{}", '{"state": "running"}', '{"state": "waiting", "until": null}'])
def test_a_lane_that_was_not_blocked_begins_anew(state: str | None) -> None:
    assert Lane.left(state, NOW) == Lane()


def test_a_lane_that_was_left_blocked_waits_for_one_probe_to_find_brevo_well() -> None:
    left = Lane.left('{"state": "blocked", "reason": "wrong key", "until": "2026-11-23T15:00:00.000Z"}', NOW)
    assert (left.state, left.reason, left.room(NOW)) == ("blocked", "wrong key", 1)
    assert left.judge(FINE, NOW)[0] == Lane()
    still, _ = left.judge(REVOKED, NOW)
    assert (still.state, still.reason, still.room(NOW)) == ("blocked", REVOKED.detail, 0)
