"""`smssh proxy ADDRESS`: the body of an SSH ProxyCommand.

stdout carries the stream and nothing else. Whatever way it ends by (end of input, the container's end,
SIGHUP from `ssh`, SIGTERM, Ctrl-C, a broken pipe, an error), it calls TerminateSession: a session that is
only left behind keeps a process of the agent and an sshd in the container until the account's idle time-out,
20 minutes by default.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import ExitStatus, SmsshError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from ..aws import AwsSession
    from .channel import Opening

__all__ = ["DOCUMENT", "run"]

DOCUMENT = "AWS-StartSSHSession"
WAIT_SECONDS = 30.0
"""How long TargetNotConnected is asked again: a node shows as Online before its agent can take a session."""
_PAUSE_FIRST = 0.2
_PAUSE_LONGEST = 2.0
_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


class Reachable(Protocol):
    """What an address leads to: a target of StartSession, and the port of the SSH server there."""

    @property
    def target(self) -> str: ...

    @property
    def port(self) -> int: ...


class _Stopped(Exception):  # noqa: N818 - not an error
    """A signal came, and nothing has to be undone."""


class _Signals:
    """Turns signals into a readable descriptor, and into `_Stopped` where that is allowed."""

    def __init__(self) -> None:
        self.number = 0
        """The first signal that came; 0 for none."""
        self.raising = False
        """Whether a signal may interrupt what runs now."""
        self.wake, self._written = os.pipe()
        for fd in (self.wake, self._written):
            os.set_blocking(fd, False)

    def __enter__(self) -> _Signals:  # noqa: PYI034 - Self is of 3.11
        self._before: list[Any] = [signal.signal(number, self._note) for number in _SIGNALS]
        self._wakeup = signal.set_wakeup_fd(self._written, warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in zip(_SIGNALS, self._before, strict=True):
            signal.signal(number, handler)
        os.close(self.wake)
        os.close(self._written)

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Within this block a signal raises `_Stopped`; one that came before does so at once."""
        self.raising = True
        try:
            if self.number:
                raise _Stopped
            yield
        finally:
            self.raising = False

    def pause(self, seconds: float) -> None:
        """Sleep, but not over a signal.

        Raises:
            _Stopped: a signal came, now or before.
        """
        if self.number or select.select([self.wake], [], [], seconds)[0]:
            raise _Stopped

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.number = self.number or number
        if self.raising:
            self.raising = False
            raise _Stopped


def run(
    address: str,
    resolve: Callable[[str, AwsSession], Reachable] | None = None,
    *,
    region: str | None = None,
    profile: str | None = None,
    port: int | None = None,
    target: str | None = None,
    wait: float = WAIT_SECONDS,
    source: int = 0,
    sink: int = 1,
) -> int:
    """Connect stdin and stdout with a port of the container behind `address`; only in the main thread.

    Args:
        address: the address of a job or step; it isn't looked up if `target` is given.
        resolve: finds what an address leads to; needed unless `target` is given.
        region: the AWS region; by default the environment's.
        profile: the profile of the AWS configuration; by default AWS_PROFILE.
        port: the port in the container; by default the one that the node announces, 22 for a bare `target`.
        target: the managed node (`mi-...`) or another target of StartSession.
        wait: seconds to try again while the target is not connected.
        source: the descriptor to read, instead of stdin.
        sink: the descriptor to write, instead of stdout.

    Returns:
        The exit status: 0, one of `ExitStatus` with an explanation on stderr, or 128 + the signal.
    """
    with _Signals() as signals:
        try:
            with signals.interruptible():
                from ..aws import AwsSession

                session = AwsSession(region, profile)
                if target is None:
                    if resolve is None:
                        raise TypeError("run() needs `resolve` or `target`")
                    node = resolve(address, session)
                    target, port = node.target, port or node.port
            _connect(session, target, port or 22, wait, signals, source, sink)
        except _Stopped:
            pass
        except SmsshError as error:
            if not signals.number:
                _say(error.message if error.hint is None else f"{error.message} ({error.hint})")
                return int(error.status)
        return 128 + signals.number if signals.number else ExitStatus.OK


def _connect(
    session: AwsSession, target: str, port: int, wait: float, signals: _Signals, source: int, sink: int
) -> None:
    opening = _start_session(session, target, port, wait, signals)
    try:
        if signals.number:
            raise _Stopped
        _pump(session, opening, signals, source, sink)
    finally:
        _terminate(session, opening.session_id)


def _start_session(session: AwsSession, target: str, port: int, wait: float, signals: _Signals) -> Opening:
    """StartSession, again and again until the target is connected.

    A signal does not interrupt the call: the session that it would have started could not be ended then.
    """
    from ..aws import ServiceRefused
    from .channel import Opening

    with signals.interruptible():
        session.credentials()  # they may have to be fetched, which takes its time
    deadline = time.monotonic() + wait
    pause, waited = _PAUSE_FIRST, False
    while True:
        try:
            answer = session.call(
                "ssm",
                "start_session",
                Target=target,
                DocumentName=DOCUMENT,
                Parameters={"portNumber": [str(port)]},
                Reason="smssh",
            )
        except ServiceRefused as error:
            if error.code != "TargetNotConnected":
                raise _refused(error) from error
            if time.monotonic() >= deadline:
                raise SmsshError(
                    f"{target} is not connected" + (f" after {wait:.0f} s" if wait else ""),
                    hint="has the job ended, or does its container not reach ssmmessages? see its log",
                    reference="target-not-connected",
                    status=ExitStatus.UNREACHABLE,
                ) from error
        else:
            return Opening(answer["SessionId"], answer["TokenValue"], answer["StreamUrl"])
        if not waited:
            _say(f"waiting for the agent of {target} to connect (up to {wait:.0f} s)")
            waited = True
        signals.pause(min(pause, max(0.0, deadline - time.monotonic())))
        pause = min(pause * 1.6, _PAUSE_LONGEST)


def _pump(session: AwsSession, opening: Opening, signals: _Signals, source: int, sink: int) -> None:
    from .channel import ClientChannel, Opening, signed_headers
    from .pump import Ending, Pump

    def resume() -> Opening:
        _say("the connection was cut; resuming the session")
        answer = session.call("ssm", "resume_session", SessionId=opening.session_id)
        if not answer.get("TokenValue"):
            raise SmsshError(
                "the session ended while the connection was cut",
                reference="session-ended",
                status=ExitStatus.UNREACHABLE,
            )
        return Opening(opening.session_id, answer["TokenValue"], answer["StreamUrl"])

    with signals.interruptible():
        credentials = session.credentials()
        channel = ClientChannel(
            opening,
            resume=resume,
            sign=lambda url: signed_headers(url, credentials, session.region),
            pause=signals.pause,
            ca_bundle=os.environ.get("AWS_CA_BUNDLE") or None,
        )
    try:
        with _nonblocking(source, sink):
            pump = Pump(channel, source, sink, wake=signals.wake)
            ending = pump.run()
        if ending is Ending.CLOSED and channel.closed:
            raise SmsshError(
                f"the session ended: {channel.closed}",
                hint="`smssh status` shows the state of the job",
                reference="session-closed",
                status=ExitStatus.UNREACHABLE,
            )
        if ending is Ending.CLOSED and not pump.received:
            raise SmsshError(
                "the session ended before the SSH server said a word",
                hint="is the SSH server in the container up? the job's log says what smssh did there",
                reference="session-closed",
                status=ExitStatus.UNREACHABLE,
            )
        channel.terminate(time.monotonic())
    finally:
        channel.close()


def _terminate(session: AwsSession, session_id: str) -> None:
    """TerminateSession; says so if that fails: the session costs the container memory until it times out."""
    try:
        session.call("ssm", "terminate_session", SessionId=session_id)
    except SmsshError as error:
        _say(f"session {session_id} could not be ended, and stays until its idle time-out: {error.message}")


def _refused(error: Any) -> SmsshError:
    hints = {
        "InvalidDocument": f"the document {DOCUMENT} has to be available in this account and region",
        "BadRequest": "managed nodes need the advanced-instances tier of Systems Manager: "
        "aws ssm update-service-setting --setting-id /ssm/managed-instance/activation-tier "
        "--setting-value advanced",
    }
    return SmsshError(
        error.message,
        hint=hints.get(error.code),
        reference="session-refused",
        status=ExitStatus.UNREACHABLE,
    )


@contextlib.contextmanager
def _nonblocking(*fds: int) -> Iterator[None]:
    """Reads and writes do not block in this block. Restored after it: a terminal's descriptors are shared."""
    before = [(fd, os.get_blocking(fd)) for fd in fds]
    try:
        for fd in fds:
            os.set_blocking(fd, False)
        yield
    finally:
        for fd, blocking in before:
            os.set_blocking(fd, blocking)


def _say(text: str) -> None:
    """One line on stderr. It may be closed: ssh with ControlPersist takes it away."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        print(f"smssh: {text}", file=sys.stderr, flush=True)
