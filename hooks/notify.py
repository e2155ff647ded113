"""Tell people who do not read the job's log: SNS topics and webhooks, off until `SMSSH_NOTIFY` names one.

A webhook is sent a POST with JSON: `text` (the message of the template; what Slack, Mattermost and others show), and
the values of the template's names beside it. Slack's own addresses (hooks.slack.com) are sent `text` alone. SNS is
sent the text, with `event`, `job` and `host` as message attributes for filter policies.

What is sent has names, times and exit statuses in it; never an environment, a command line, output or an error's
text. The address of a webhook is a secret: no log shows more of it than the host.

Everything is sent by one thread of its own, so nothing waits for it but the end: at most STOP_LIMIT seconds.
"""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import threading
import time
from string import Template
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .._version import __version__
from ..container import aws_calls
from ..container.cost import waiting
from ..hookspecs import Context, Hold, hookimpl

if TYPE_CHECKING:
    from urllib.request import Request

TIMEOUT = 5.0
"""Seconds for each step of one try: connecting, sending, answering."""
TRIES = 3
PAUSE = 1.0
"""Seconds before the second try, twice as long before the third."""
STOP_LIMIT = 2.0
"""Seconds that the end of a job waits for what is not sent yet; the rest is dropped."""
WAITING_LIMIT = 100
"""Events that wait to be sent; what comes when there are more is dropped."""
SLACK = "hooks.slack.com"
SUBJECT_LIMIT = 100
"""Characters of the subject of an SNS message (Publish in the SNS API reference), which is ASCII."""

_log = logging.getLogger("smssh.notify")


class _State:
    """What this supervisor sends; there is one supervisor in a process."""

    events: queue.Queue[dict[str, str] | None] = queue.Queue(WAITING_LIMIT)
    sender: threading.Thread | None = None
    over = threading.Event()
    """Set when there is no time any more: what waits is dropped."""


@hookimpl
def smssh_notify(context: Context, event: str, message: str, hold: Hold | None) -> None:
    """Have the event sent, if it is one that somebody wants to be told of."""
    settings = context.settings
    if not settings.notify or event not in settings.notify_events:
        return
    if _State.sender is None:
        _State.sender = threading.Thread(
            target=_send_all, args=(_State.events, settings.notify, _State.over), name="send", daemon=True
        )
        _State.sender.start()
    values = names(context, event, message, hold)
    try:
        _State.events.put_nowait(
            dict(values, text=Template(settings.notify_template).safe_substitute(values))
        )
    except queue.Full:
        _log.warning("%s is not sent: too much waits to be sent", event)


@hookimpl
def smssh_stop() -> None:
    """Let out what is not sent yet, within STOP_LIMIT."""
    if _State.sender is None:
        return
    deadline = time.monotonic() + STOP_LIMIT
    with contextlib.suppress(queue.Full):
        _State.events.put(None, timeout=STOP_LIMIT)
    _State.sender.join(max(0.0, deadline - time.monotonic()))
    _State.over.set()


def names(context: Context, event: str, message: str, hold: Hold | None) -> dict[str, str]:
    """The values of `setting_values.TEMPLATE_NAMES`."""
    left = "" if hold is None else str(max(0, round(hold.ends - time.time())))
    return {
        "event": event,
        "message": message,
        "job": context.job.name,
        "kind": context.job.kind,
        "host": context.job.host,
        "step": context.job.step,
        "address": context.job.address,
        "connect": context.connect_command,
        "attempt": str(context.attempt) if context.attempt else "",
        "exit_code": "" if context.exit_code is None else str(context.exit_code),
        "seconds_left": left,
        "cost": waiting(context, hold, time.time()),
    }


def _send_all(
    events: queue.Queue[dict[str, str] | None], targets: tuple[str, ...], over: threading.Event
) -> None:
    while True:
        event = events.get()
        if event is None:
            return
        for target in targets:
            if over.is_set():
                return
            _send(target, event, over)


def _send(target: str, event: dict[str, str], over: threading.Event) -> None:
    """Send one event to one target, and try again what may pass."""
    shown = target if target.startswith("arn:") else str(urlsplit(target).hostname)
    pause = PAUSE
    for tried in range(1, TRIES + 1):
        try:
            if target.startswith("arn:"):
                _publish(target, event)
            else:
                _post(target, event)
        except Exception as error:  # noqa: BLE001 - botocore's, urllib's and ssl's errors share no base
            # The text of an error may have the address in it.
            final = tried == TRIES or not _passes(error)
            _log.warning("%s: %s is not sent (%s)", shown, event["event"], _name(error))
            if final:
                return
        else:
            return
        if over.wait(pause):
            return
        pause *= 2


def _name(error: Exception) -> str:
    """An error without its text: its type, and the status or code that a service has answered with."""
    response = getattr(error, "response", None)
    code = getattr(error, "code", None) or (response or {}).get("Error", {}).get("Code")
    return type(error).__name__ + (f" {code}" if code else "")


def _passes(error: Exception) -> bool:
    """Whether it makes sense to try again."""
    response = getattr(error, "response", None)
    status = getattr(error, "code", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return not isinstance(status, int) or status == 429 or status >= 500


def _post(url: str, event: dict[str, str]) -> None:
    """POST the event as JSON.

    Raises:
        OSError: it did not arrive (urllib's errors are OSErrors).
    """
    from urllib.request import HTTPRedirectHandler, build_opener
    from urllib.request import Request as NewRequest

    class Stay(HTTPRedirectHandler):
        """A redirected POST would arrive as a GET, or somewhere that nobody has named."""

        def redirect_request(self, *_: Any) -> Request | None:
            return None

    body = {"text": event["text"]} if urlsplit(url).hostname == SLACK else event
    request = NewRequest(  # noqa: S310 - the settings let no other scheme in
        url,
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "User-Agent": f"smssh-plugin/{__version__}"},
        method="POST",
    )
    with build_opener(Stay).open(request, timeout=TIMEOUT):
        pass  # what it answers is of no use


def _publish(topic: str, event: dict[str, str]) -> None:
    """Publish the event to an SNS topic, with the job's own credentials."""
    client = aws_calls.client("sns", topic.split(":")[3])
    subject = "smssh: {event} {address}".format(**event).encode("ascii", "replace").decode()
    client.publish(
        TopicArn=topic,
        Subject=" ".join(subject.split())[:SUBJECT_LIMIT],
        Message=event["text"],
        MessageAttributes={
            name: {"DataType": "String", "StringValue": event[name]} for name in ("event", "job", "host")
        },
    )
