"""Notifications: a real HTTP server, SNS as moto has it, and what is never sent or waited for."""

import http.server
import json
import logging
import queue
import threading
import time

import boto3
import pytest
from moto import mock_aws

from smssh_plugin.container import cost
from smssh_plugin.hooks import notify
from smssh_plugin.hookspecs import Context, Hold, Job
from smssh_plugin.setting_values import TEMPLATE_NAMES
from smssh_plugin.settings import load
from tests.waiting import LIMIT, until

SECRET = "T000-secret"


class Receiver:
    """A webhook: keeps what it is sent, and answers as it is told."""

    def __init__(self):
        self.answers = []
        self.received = queue.Queue()
        self.release = threading.Event()
        self.release.set()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.received.put((self.path, self.headers["Content-Type"], json.loads(body)))
                receiver.release.wait(LIMIT)
                status = receiver.answers.pop(0) if receiver.answers else 200
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", receiver.url + "elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/{SECRET}/"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def one(self):
        return self.received.get(timeout=LIMIT)

    def close(self):
        self.release.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """The supervisor's state, as at its start; no long pauses, and time to send on a busy machine."""
    for name, value in (("events", queue.Queue(100)), ("sender", None)):
        monkeypatch.setattr(notify._State, name, value)
    monkeypatch.setattr(notify._State, "over", threading.Event())
    monkeypatch.setattr(notify, "PAUSE", 0.01)
    monkeypatch.setattr(notify, "STOP_LIMIT", 30.0)
    yield
    notify.smssh_stop()


@pytest.fixture
def context(tmp_path):
    def make(**environ):
        job = Job("job-1", "training", "algo-2", step="Train", hosts=("algo-1", "algo-2"))
        return Context(load(environ), job, tmp_path, {"PASSWORD": "hunter2"}, "/", "")

    return make


def test_off_by_default(context) -> None:
    notify.smssh_notify(context(), "failed", "x", None)
    assert notify._State.sender is None


def test_a_webhook_is_sent_json(context, receiver) -> None:
    made = context(SMSSH_NOTIFY=receiver.url, SMSSH_PRICE_PER_HOUR="1.21 USD")
    now = time.time()
    made.attempt, made.exit_code = 2, 7
    notify.smssh_notify(made, "held", "held (x)", Hold("failure", now - 1800, now + 600, now + 900))
    path, kind, body = receiver.one()
    assert (path, kind) == (f"/{SECRET}/", "application/json")
    assert body.keys() == {*TEMPLATE_NAMES, "text"}
    assert body["text"] == "algo-2.job-1.training.sagemaker: held (x)"
    assert (body["event"], body["attempt"], body["exit_code"], body["step"]) == ("held", "2", "7", "Train")
    assert 590 <= int(body["seconds_left"]) <= 600
    assert body["cost"] == "2 instances cost 2.42 USD an hour, 1.21 USD since the hold began"
    assert body["connect"] == "smssh connect algo-2.job-1.training.sagemaker"
    assert "hunter2" not in json.dumps(body)


def test_template_and_events(context, receiver) -> None:
    made = context(
        SMSSH_NOTIFY=receiver.url, SMSSH_NOTIFY_EVENTS="failed", SMSSH_NOTIFY_TEMPLATE="$step: $event $$5"
    )
    notify.smssh_notify(made, "ready", "ready", None)
    notify.smssh_notify(made, "failed", "x", None)
    assert receiver.one()[2]["text"] == "Train: failed $5"
    assert receiver.received.empty()


def test_slack_is_sent_the_text_alone(context, receiver, monkeypatch) -> None:
    monkeypatch.setattr(notify, "SLACK", "127.0.0.1")
    notify.smssh_notify(context(SMSSH_NOTIFY=receiver.url), "ready", "ready", None)
    assert receiver.one()[2] == {"text": "algo-2.job-1.training.sagemaker: ready"}


@pytest.mark.parametrize(
    ("answers", "tries"), [([500, 429, 200], 3), ([500] * 9, 3), ([404] * 9, 1), ([302] * 9, 1)]
)
def test_what_may_pass_is_tried_again(context, receiver, caplog, answers, tries) -> None:
    receiver.answers = list(answers)
    made = context(SMSSH_NOTIFY=receiver.url, SMSSH_NOTIFY_EVENTS="ready,held")
    notify.smssh_notify(made, "ready", "first", None)
    for _ in range(tries):
        assert receiver.one()[2]["message"] == "first"
    receiver.answers = []
    notify.smssh_notify(made, "held", "second", None)
    assert receiver.one()[2]["message"] == "second"
    until(notify._State.events.empty)
    # The address of a webhook is a secret.
    assert SECRET not in caplog.text
    assert f"127.0.0.1: ready is not sent (HTTPError {answers[0]})" in caplog.text


def test_nothing_but_the_end_waits_and_that_not_for_long(context, receiver, monkeypatch) -> None:
    monkeypatch.setattr(notify, "STOP_LIMIT", 0.3)
    receiver.release.clear()
    made = context(SMSSH_NOTIFY=receiver.url)
    began = time.monotonic()
    for number in range(notify.WAITING_LIMIT + 20):
        notify.smssh_notify(made, "failed", str(number), None)
    assert time.monotonic() - began < 5
    receiver.one()
    began = time.monotonic()
    notify.smssh_stop()
    # One try takes TIMEOUT at most, and the end does not even wait for that.
    assert time.monotonic() - began < notify.TIMEOUT


def test_what_is_sent_before_the_end_arrives(context, receiver) -> None:
    made = context(SMSSH_NOTIFY=receiver.url)
    notify.smssh_notify(made, "released", "released", None)
    notify.smssh_stop()
    assert receiver.received.get_nowait()[2]["event"] == "released"


def test_a_target_that_is_down_does_not_keep_others_from_it(context, receiver, caplog) -> None:
    targets = f"https://127.0.0.1:9/{SECRET},{receiver.url}"
    notify.smssh_notify(context(SMSSH_NOTIFY=targets), "ready", "ready", None)
    assert receiver.one()[2]["event"] == "ready"
    assert "ready is not sent (URLError)" in caplog.text
    assert SECRET not in caplog.text


def test_sns(context, monkeypatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        sns = boto3.client("sns", "eu-west-1")
        sqs = boto3.client("sqs", "eu-west-1")
        topic = sns.create_topic(Name="jobs")["TopicArn"]
        address = sqs.create_queue(QueueName="inbox")["QueueUrl"]
        sns.subscribe(
            TopicArn=topic,
            Protocol="sqs",
            Endpoint="arn:aws:sqs:eu-west-1:123456789012:inbox",
            Attributes={"FilterPolicy": json.dumps({"event": ["held"]})},
        )
        made = context(SMSSH_NOTIFY=topic, AWS_REGION="us-east-1")
        notify.smssh_notify(made, "ready", "ready", None)
        notify.smssh_notify(made, "held", "held\nnow", None)
        notify.smssh_stop()
        message = until(lambda: sqs.receive_message(QueueUrl=address).get("Messages"), what="the message")
        body = json.loads(message[0]["Body"])
        assert body["Message"] == "algo-2.job-1.training.sagemaker: held\nnow"
        assert body["Subject"] == "smssh: held algo-2.job-1.training.sagemaker"
        assert body["MessageAttributes"]["job"]["Value"] == "job-1"
        assert not sqs.receive_message(QueueUrl=address).get("Messages")


def test_sns_that_says_no_is_asked_once(context, monkeypatch, caplog) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws(), caplog.at_level(logging.WARNING):
        notify.smssh_notify(
            context(SMSSH_NOTIFY="arn:aws:sns:eu-west-1:123456789012:none"), "ready", "x", None
        )
        notify.smssh_stop()
    assert caplog.text.count("ready is not sent (NotFoundException NotFound)") == 1


@pytest.mark.parametrize(
    ("value", "hosts", "text"),
    [
        ("", 1, ""),
        ("1.5", 1, "the instance costs 1.50 an hour, 0.75 since the hold began"),
        ("2 EUR", 0, "the instance costs 2.00 EUR an hour, 1.00 EUR since the hold began"),
        ("0.5", 4, "4 instances cost 2.00 an hour, 1.00 since the hold began"),
    ],
)
def test_price(tmp_path, value, hosts, text) -> None:
    job = Job("j", "training", "algo-1", hosts=tuple(f"algo-{n}" for n in range(hosts)))
    made = Context(load({"SMSSH_PRICE_PER_HOUR": value}), job, tmp_path, {}, "/", "")
    now = time.time()
    assert cost.waiting(made, Hold("failure", now - 1800, now + 1, now + 1), now) == text
    assert cost.waiting(made, None, now) == ""
