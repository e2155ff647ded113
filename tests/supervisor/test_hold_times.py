"""The times of a hold: two deadlines, idleness, what is said each minute and before the end, what waiting costs."""

import threading

import pytest

from smssh_plugin.errors import SmsshError
from smssh_plugin.supervisor.clock import Clock
from smssh_plugin.supervisor.countdown import LIMIT_NEAR

from .simulated import EPOCH, Simulated

RELEASED = {"action": "release", "exit_code": None}


@pytest.fixture
def simulated(tmp_path):
    """Makes simulated supervisors whose start is over."""
    made = []

    def make(**options):
        made.append(Simulated(tmp_path, **options))
        made[-1].operations.started()
        return made[-1]

    yield make
    for each in made:
        each.operations.finish(10)


def test_a_countdown_with_the_command_and_the_cost(simulated) -> None:
    made = simulated(SMSSH_PRICE_PER_HOUR="3.60 EUR")
    assert made.fail_and_end() == (RELEASED, 600)
    assert made.recorder.events() == [
        "ready",
        "failed",
        "held",
        *["reminder"] * 4,
        "expiring",
        *["reminder"] * 5,  # that of the same moment comes a second later
        "released",
        "ended",
    ]
    assert made.recorder.messages("failed") == ["attempt 1 ended with exit status 3"]
    assert made.recorder.messages("reminder")[0] == (
        "held: smssh connect algo-1.job.training.sagemaker | nobody connected, 9 min left | the instance costs "
        "3.60 EUR an hour, 0.06 EUR since the hold began | then: smssh-hook retry, release or extend 30m"
    )
    assert "nobody connected, 5 min left | " in made.recorder.messages("expiring")[0]
    assert made.recorder.messages("released") == ["released: nobody was connected for 10 min"]


def test_no_price_no_cost(simulated) -> None:
    made = simulated()
    made.fail_and_end()
    assert "cost" not in " ".join(message for _, message, *_ in made.recorder.told)


def test_about_to_end_is_said_once_for_each_deadline(simulated) -> None:
    made = simulated(SMSSH_HOLD_SECONDS="100")
    made.at(80, lambda: made.ask(op="extend", seconds=1000))
    assert made.fail_and_end() == (RELEASED, 1080)
    told = made.recorder.messages("expiring")
    assert ["50 s left" in line for line in told] == [True, True]
    assert made.recorder.messages("extended") == ["extended: 16 min 40 s left"]


def test_the_first_deadline_counts_until_somebody_comes(simulated) -> None:
    made = simulated(SMSSH_HOLD_SECONDS="1h", SMSSH_IDLE_SECONDS="60")
    assert made.fail_and_end() == (RELEASED, 3600)
    assert made.recorder.messages("released") == ["released: nobody was connected for 1 h"]


def test_idle_is_counted_from_the_last_person(simulated) -> None:
    made = simulated(SMSSH_HOLD_SECONDS="1h", SMSSH_IDLE_SECONDS="60")
    made.at(600.5, made.connect)
    made.at(700.5, lambda: made.connect(0))
    assert made.fail_and_end() == (RELEASED, 760)
    assert made.recorder.messages("released") == ["released: nobody was connected for 1 min"]


def test_somebody_who_comes_back_in_time_stays(simulated) -> None:
    made = simulated(SMSSH_HOLD_SECONDS="1h", SMSSH_IDLE_SECONDS="60")
    for second in (600.5, 700.5, 800.5):
        made.at(second, made.connect)
        made.at(second + 50, lambda: made.connect(0))
    assert made.fail_and_end() == (RELEASED, 910)


def test_idle_does_not_take_back_what_was_extended(simulated) -> None:
    made = simulated(SMSSH_HOLD_SECONDS="1h", SMSSH_IDLE_SECONDS="60")
    made.at(10.5, made.connect)
    made.at(20.5, lambda: made.ask(op="extend", seconds=1800))
    made.at(30.5, lambda: made.connect(0))
    assert made.fail_and_end() == (RELEASED, 1821)


def test_which_deadline_counts(simulated) -> None:
    made = simulated(SMSSH_HOLD_SECONDS="60", SMSSH_HOLD_MAX_SECONDS="600")
    ends = {}

    def look(name):
        ends[name] = made.ask(op="status")["hold"]["ends"] - EPOCH

    made.at(1.5, lambda: look("nobody"))
    made.at(10.5, made.connect)
    made.at(12.5, lambda: look("somebody"))
    assert made.fail_and_end() == (RELEASED, 600)
    assert ends == {"nobody": 60, "somebody": 600}
    assert "nobody connected, 1 min left" in made.recorder.messages("held")[0]
    assert made.recorder.messages("released") == ["released: 10 min are over"]


def test_nobody_can_come_before_the_start_is_over(tmp_path) -> None:
    """The first stage begins when a login is possible, and after START_LIMIT at the latest."""
    made = Simulated(tmp_path, SMSSH_HOLD_SECONDS="60")
    made.at(100.5, made.operations.started)
    assert made.fail_and_end() == (RELEASED, 160)
    never = Simulated(tmp_path, SMSSH_HOLD_SECONDS="60")
    assert never.fail_and_end() == (RELEASED, 359)


def test_a_hold_that_nobody_can_enter_is_over(tmp_path) -> None:
    made = Simulated(tmp_path, SMSSH_HOLD_SECONDS="60")
    made.at(10.5, lambda: made.operations.started("no key"))
    assert made.fail_and_end() == (RELEASED, 11)
    assert made.recorder.messages("released") == ["released: no login is possible in this container"]


def test_a_hold_ends_with_what_waits_for_it(simulated) -> None:
    made = simulated()
    made.at(20.5, lambda: setattr(made, "is_gone", True))
    assert made.fail_and_end() == (RELEASED, 21)
    assert made.recorder.messages("released") == ["released: the process that runs the entry point is gone"]


def test_a_decision_ends_a_hold_at_once(simulated) -> None:
    made = simulated()
    answers = []
    made.at(30.25, lambda: answers.append(made.ask(op="release", exit_code=7)))
    assert made.fail_and_end() == ({"action": "release", "exit_code": 7}, 30.25)
    assert answers == [{"ok": True, "point": "failure", "exit_code": 7}]
    with pytest.raises(SmsshError, match="nothing is held: the state is ended"):
        made.ask(op="release", exit_code=None)


def test_a_retry_is_answered_when_its_attempt_has_ended(simulated) -> None:
    made = simulated()
    made.at(10.25, lambda: made.ask(op="retry", wait=False))
    assert made.fail() == {"action": "retry", "exit_code": None}
    made.ask(op="before", started=made.clock.now())
    made.at(40.25, lambda: made.ask(op="release", exit_code=None))
    assert made.fail() == RELEASED
    status = made.ask(op="status")
    assert (status["state"], status["attempt"]) == ("ended", 2)
    assert status["attempts"] == [
        {"attempt": 1, "exit_code": 3, "seconds": 0.0},
        {"attempt": 2, "exit_code": 3, "seconds": 0.0},
    ]
    made.operations.finish(10)
    assert made.recorder.messages("retried") == ["retried: the entry point runs again"]


def test_the_maximum_cannot_be_extended(simulated) -> None:
    made = simulated(SMSSH_HOLD_MAX_SECONDS="1h")
    refused = []

    def extend():
        made.ask(op="extend", seconds=7200)
        with pytest.raises(SmsshError) as error:
            made.ask(op="extend", seconds=7200)
        refused.append(error.value.hint)

    made.at(10.5, extend)
    assert made.fail_and_end() == (RELEASED, 3600)
    assert refused == ["set SMSSH_HOLD_MAX_SECONDS when you submit the job"]


def test_what_is_told_late_is_told_as_it_was(tmp_path) -> None:
    """The events wait until no plugin changes the settings any more, and the entry point goes on meanwhile."""
    made = Simulated(tmp_path, SMSSH_HOLD="")
    made.ask(op="before", started=EPOCH, command=["x"])
    made.fail()
    made.ask(op="before", started=EPOCH + 1, command=["x"])
    assert not made.recorder.told
    made.operations.finish(5)
    assert [(event, *rest) for event, _, *rest in made.recorder.told] == [
        ("running", 1, None),
        ("failed", 1, 3),
        ("running", 2, None),
        ("ended", 2, None),
    ]


# ------------------------------------------------------------------------------------------ the job's own limit


def test_the_banner_says_whose_deadline_it_is(simulated) -> None:
    made = simulated(ends=600, SMSSH_HOLD_SECONDS="1h")
    seen = []
    made.at(60.5, lambda: seen.append(made.hold.max_deadline - EPOCH))
    made.at(60.5, made.connect)
    assert made.fail_and_end() == (RELEASED, 600)
    assert seen == [600]
    assert (
        "nobody connected, 9 min left (the job's own limit, MaxRuntimeInSeconds)"
        in made.recorder.messages("reminder")[0]
    )
    assert made.recorder.messages("released") == [f"released: {LIMIT_NEAR}"]


def test_a_clock_that_is_set_moves_no_limit(simulated) -> None:
    """Neither the job's, nor how long a hold lasts."""
    for ends, length in ((600, 600), (None, 3600)):
        made = simulated(ends=ends, SMSSH_HOLD_SECONDS="1h")
        seen = []
        made.at(60.5, lambda made=made: made.clock.set(7200))
        made.at(70.5, lambda made=made, seen=seen: seen.append(made.hold.ends - EPOCH))
        assert made.fail_and_end() == (RELEASED, length)
        assert seen == [7200 + length]


def test_a_decision_in_another_thread_wakes_the_hold(tmp_path) -> None:
    """By the machine's clock, and long before the hold would look."""
    made = Simulated(tmp_path, clock=Clock())
    made.operations.started()
    decided = []
    thread = threading.Thread(target=lambda: decided.append(made.fail()), daemon=True)
    with made.operations.lifecycle.changed:
        thread.start()
        assert made.operations.lifecycle.changed.wait_for(lambda: made.operations.holds.hold, 30)
        made.ask(op="release", exit_code=5)
    thread.join(30)
    assert decided == [{"action": "release", "exit_code": 5}]
    made.operations.finish(10)


def test_a_failure_is_told_while_an_attempt_is_just_starting(tmp_path, monkeypatch) -> None:
    """Init and the toolkit tell it in threads of their own, and one can be faster than the other."""
    made = Simulated(tmp_path)
    start = threading.Thread.start

    def start_late(thread):
        if thread.name == "before":
            made.operations.attempts.end_before_hooks()
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_late)
    try:
        assert made.ask(op="before")["attempt"] == 1
    finally:
        made.operations.finish(10)
