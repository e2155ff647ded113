"""The times of a hold: two deadlines, idleness, what is said each minute and before the end, what waiting costs."""

import threading
import time

import pytest

from smssh_plugin.hooks import hold
from smssh_plugin.hookspecs import Context, Job, Server, hookimpl
from smssh_plugin.plugins import Plugins
from smssh_plugin.settings import load
from smssh_plugin.supervisor import hold as keepers
from tests.waiting import LIMIT, until


class Recorder:
    """Keeps what people would be told."""

    def __init__(self):
        self.told = []

    @hookimpl
    def smssh_notify(self, event, message, hold):
        self.told.append((event, message, hold))

    def events(self):
        return [event for event, _, _ in self.told]

    def messages(self, event):
        return [message for each, message, _ in self.told if each == event]


class Held:
    """A keeper with a hold that goes on in a thread."""

    def __init__(self, tmp_path, monkeypatch, **environ):
        monkeypatch.setattr(keepers, "POLL_SECONDS", 0.02)
        self.connected = 0
        monkeypatch.setattr(keepers, "sessions", lambda _context: self.connected)
        self.recorder = Recorder()
        plugins = Plugins([("hold", hold)], entry_points=False)
        plugins.register(self.recorder, "recorder")
        context = Context(load(environ), Job("job", "training", "algo-1"), tmp_path, {}, "/", "")
        context.server = Server("sshd", 1, "root", "key")
        self.keeper = keepers.Keeper(context, plugins, lambda line: None)
        self.keeper.ready()
        self.decision = None
        self.thread = threading.Thread(target=self._hold, daemon=True)

    def _hold(self):
        self.decision = self.keeper.failed({"exit_code": 3}, lambda line: None, lambda: False)

    def start(self):
        self.thread.start()
        until(lambda: self.keeper.status()["hold"], what="the hold")
        return self

    def deadline(self):
        return self.keeper.status()["hold"]["deadline"]


@pytest.fixture
def held(tmp_path, monkeypatch):
    made = []

    def make(**environ):
        made.append(Held(tmp_path, monkeypatch, SMSSH_HOLD="failure", **environ))
        return made[-1]

    yield make
    for each in made:
        each.keeper.finish(5)
        each.thread.join(LIMIT) if each.thread.ident else None


def test_a_countdown_with_the_command_and_the_cost(held, monkeypatch):
    monkeypatch.setattr(keepers, "REMINDER_SECONDS", 0.1)
    made = held(SMSSH_PRICE_PER_HOUR="3.60 EUR").start()
    lines = until(lambda: len(made.recorder.messages("reminder")) > 2 and made.recorder.messages("reminder"))
    assert lines[0].startswith(
        "held: smssh connect algo-1.job.training.sagemaker | nobody connected, 10 min left"
    )
    assert "| the instance costs 3.60 EUR an hour, 0.00 EUR since the hold began |" in lines[0]
    assert lines[0].endswith("then: smssh-hook retry, release or extend 30m")


def test_no_price_no_cost(held):
    made = held().start()
    held_line = until(lambda: made.recorder.messages("held"))[0]
    assert "cost" not in held_line
    assert made.recorder.events()[:2] == ["ready", "failed"]
    assert made.recorder.messages("failed") == ["attempt 1 ended with exit status 3"]


def test_about_to_end_is_said_once_for_each_deadline(held):
    made = held(SMSSH_HOLD_SECONDS="2").start()
    until(lambda: made.recorder.messages("expiring"), what="the first warning")
    made.keeper.extend(3600)
    time.sleep(0.3)
    assert len(made.recorder.messages("expiring")) == 1
    made.keeper.release(None)
    made.thread.join(LIMIT)
    assert made.decision["action"] == "release"
    until(lambda: "released" in made.recorder.events())


def test_idle_is_counted_from_the_last_person(held):
    made = held(SMSSH_HOLD_SECONDS="1h", SMSSH_IDLE_SECONDS="1").start()
    time.sleep(1.5)
    assert made.thread.is_alive(), "nobody has come yet: the first deadline counts"
    made.connected = 1
    until(lambda: made.keeper.status()["hold"]["connected"])
    assert made.deadline() < time.time() + 5
    time.sleep(1.5)
    assert made.thread.is_alive(), "somebody is there"
    made.connected = 0
    made.thread.join(LIMIT)
    assert made.decision["action"] == "release"
    # People are told in a thread of its own.
    assert until(lambda: made.recorder.messages("released")) == ["released: nobody was connected for 1 s"]


def test_idle_does_not_take_back_what_was_extended(held):
    made = held(SMSSH_HOLD_SECONDS="1h", SMSSH_IDLE_SECONDS="1").start()
    made.connected = 1
    until(lambda: made.keeper.status()["hold"]["connected"])
    made.keeper.extend(1800)
    made.connected = 0
    time.sleep(1.5)
    assert made.thread.is_alive()
    assert made.deadline() > time.time() + 1000


def test_which_deadline_counts(held):
    made = held(SMSSH_HOLD_SECONDS="60", SMSSH_HOLD_MAX_SECONDS="600").start()
    status = made.keeper.status()["hold"]
    assert status["ends"] == status["deadline"]
    made.connected = 1
    until(lambda: made.keeper.status()["hold"]["ends"] == status["max_deadline"])
    lines = until(lambda: made.recorder.messages("held"))
    assert "nobody connected, 1 min left" in lines[0]


def test_what_is_told_late_is_told_as_it_was(tmp_path):
    """The events wait until no plugin changes the settings any more, and the entry point goes on meanwhile."""
    told = []

    class Late:
        @hookimpl
        def smssh_notify(self, context, event):
            told.append((event, context.attempt, context.exit_code))

    plugins = Plugins(entry_points=False)
    plugins.register(Late(), "late")
    context = Context(load({}), Job("job", "training", "algo-1"), tmp_path, {}, "/", "")
    keeper = keepers.Keeper(context, plugins, lambda line: None)
    keeper.before({"command": ["x"]})
    keeper.failed({"exit_code": 3}, lambda line: None, lambda: False)
    keeper.before({"command": ["x"]})
    assert not told
    keeper.finish(5)
    assert told == [("running", 1, None), ("failed", 1, 3), ("running", 2, None), ("ended", 2, None)]
