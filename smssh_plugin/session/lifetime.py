"""One session from StartSession to TerminateSession, whatever goes on in it.

Whatever way it ends by (end of input, the container's end, a signal, a broken pipe, an error), TerminateSession is
called: a session that is only left behind keeps a process of the agent and its connection in the container until
the account's idle time-out, 20 minutes by default.
"""

from __future__ import annotations

import base64
import contextlib
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..aws.tier import ADVANCED, TIER
from ..errors import ExitStatus, SmsshError
from ..terminal import line

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from ..aws.session import AwsSession
    from .signals import Signals
    from .wire.channel import ClientChannel, Opening
    from .wire.encryption import DataKey

__all__ = [
    "COMMAND_DOCUMENT",
    "FORWARD_DOCUMENT",
    "REMOTE_DOCUMENT",
    "SSH_DOCUMENT",
    "USES",
    "Document",
    "Lifetime",
    "say",
    "started",
]

SSH_DOCUMENT = "AWS-StartSSHSession"
FORWARD_DOCUMENT = "AWS-StartPortForwardingSession"
REMOTE_DOCUMENT = "AWS-StartPortForwardingSessionToRemoteHost"
COMMAND_DOCUMENT = "AWS-StartInteractiveCommand"
USES = {
    SSH_DOCUMENT: "ssh",
    FORWARD_DOCUMENT: "port",
    REMOTE_DOCUMENT: "remote_port",
    COMMAND_DOCUMENT: "command",
    "": "shell",
}
"""What each of Amazon's documents is for, as SMSSH_<USE>_DOCUMENT has it."""
CONNECT_SECONDS = 30.0
"""How long TargetNotConnected is asked again: a node shows as Online before its agent can take a session."""
_SAY_AGAIN = 60.0
_PAUSE_FIRST = 0.2
_PAUSE_LONGEST = 2.0
_REASON = "smssh"
_TIER = (
    "managed nodes need the advanced-instances tier of Systems Manager: aws ssm update-service-setting "
    f"--setting-id {TIER} --setting-value {ADVANCED}"
)


@dataclass(frozen=True)
class Document:
    """What is started: a session document and its parameters.

    Attributes:
        name: Amazon's name of it; "" for the account's own shell document. An account may have another one for the
            same use; see `AwsSession.document`.
        parameters: by name; each is sent as a list of one.
    """

    name: str
    parameters: dict[str, str] = field(default_factory=dict)

    def request(self, aws: AwsSession, target: str) -> dict[str, Any]:
        """The parameters of StartSession."""
        name = aws.document(USES[self.name], self.name)
        made: dict[str, Any] = {"Target": target, "Reason": _REASON}
        if name:
            made["DocumentName"] = name
        if self.parameters:
            made["Parameters"] = {name: [value] for name, value in self.parameters.items()}
        return made


@dataclass
class Lifetime:
    """A session that has been started.

    Attributes:
        aws: the AWS session.
        target: the target of the session.
        document: which of the documents it was started with.
        opening: StartSession's answer.
        signals: what may end it.
    """

    aws: AwsSession
    target: str
    document: Document
    opening: Opening
    signals: Signals
    _said: float = field(default=float("-inf"), repr=False)
    _away: bool = field(default=False, repr=False)
    """Whether the service could not be asked when the connection was to be resumed."""

    def channel(self, kinds: Collection[str]) -> ClientChannel:
        """Open its data channel.

        Raises:
            SmsshError: no connection.
            Stopped: a signal came.
        """
        from .wire.channel import ClientChannel, signed_headers

        with self.signals.interruptible():
            return ClientChannel(
                self.opening,
                resume=self._resume,
                # The credentials of that moment: a session lasts longer than some do.
                sign=lambda url: signed_headers(url, self.aws.credentials(), self.aws.region),
                pause=self.signals.pause,
                ca_bundle=self.aws.ca_bundle,
                kinds=kinds,
                data_key=self._data_key,
            )

    def _resume(self) -> Opening:
        from .wire.channel import Opening

        now = time.monotonic()
        if now - self._said > _SAY_AGAIN:  # not at each attempt
            self._said = now
            say("the connection was cut; resuming the session")
        self._away = True
        answer = self.aws.call_once("ssm", "resume_session", SessionId=self.opening.session_id)
        self._away = False
        if not answer.get("TokenValue"):
            raise SmsshError(
                "the session ended while the connection was cut",
                hint="connect again",
                reference="session-ended",
                status=ExitStatus.UNREACHABLE,
            )
        url = self.aws.stream_url(answer["StreamUrl"])
        return Opening(self.opening.session_id, answer["TokenValue"], url)

    def _data_key(self, key: str) -> DataKey:
        from .wire.encryption import KEY_BYTES, DataKey

        answer = self.aws.call(
            "kms",
            "generate_data_key",
            KeyId=key,
            NumberOfBytes=KEY_BYTES,
            EncryptionContext={
                "aws:ssm:SessionId": self.opening.session_id,
                "aws:ssm:TargetId": self.target,
            },
        )
        return DataKey(base64.b64decode(answer["Plaintext"]), base64.b64decode(answer["CiphertextBlob"]))

    def terminate(self) -> None:
        """TerminateSession; says so if that fails: the session costs the container memory until it times out."""
        try:
            # A network that is gone must not keep the terminal.
            call = self.aws.call_once if self._away else self.aws.call
            call("ssm", "terminate_session", SessionId=self.opening.session_id)
        except SmsshError as error:
            say(
                f"session {self.opening.session_id} could not be ended, and stays until its idle time-out: "
                f"{error.message}"
            )


@contextlib.contextmanager
def started(
    aws: AwsSession,
    find: Callable[[bool], str],
    documents: Sequence[Document] | Callable[[], Sequence[Document]],
    signals: Signals,
    *,
    wait: float = CONNECT_SECONDS,
) -> Iterator[Lifetime]:
    """Start a session, and end it with the block.

    Args:
        aws: the AWS session.
        find: answers the target; asked once more, with True, when the one that it first gave is not connected:
            what was remembered may be over.
        documents: what to start; where one is refused to us, the next is tried. Asked for after `find`, if it
            is a function.
        signals: a signal ends the waiting; it does not interrupt StartSession, since the session that it would
            have started could not be ended then.
        wait: seconds to ask again while the target is not connected.

    Raises:
        SmsshError: no session could be started.
        Stopped: a signal came.
    """
    from .signals import Stopped

    with signals.interruptible():
        target = find(False)
        aws.credentials()  # they may have to be fetched, which takes its time
    session = _start(aws, target, find, documents, signals, wait)
    try:
        if signals.number:
            raise Stopped
        yield session
    finally:
        session.terminate()


def _start(
    aws: AwsSession,
    target: str,
    find: Callable[[bool], str],
    documents: Sequence[Document] | Callable[[], Sequence[Document]],
    signals: Signals,
    wait: float,
) -> Lifetime:
    from ..aws.session import ServiceRefused

    deadline: float | None = None
    pause, sure = _PAUSE_FIRST, False
    while True:
        try:
            chosen = documents() if callable(documents) else documents
            document, opening = _first_allowed(aws, target, chosen)
        except ServiceRefused as error:
            if error.code != "TargetNotConnected":
                raise _explained(error, target) from error
            if not sure:
                sure = True
                with signals.interruptible():
                    before, target = target, find(True)
                if target != before:
                    continue
            began = time.monotonic()
            if deadline is None and wait:
                # From here on: the first call, slow by machine or network, was not waiting for the agent.
                deadline = began + wait
                say(f"waiting for the agent of {target} to connect (up to {wait:.0f} s)")
            elif deadline is None or began >= deadline:
                raise SmsshError(
                    f"{target} is not connected" + (f" after {wait:.0f} s" if wait else ""),
                    hint="see the job's log: it may have ended, or its container may not reach ssmmessages",
                    reference="target-not-connected",
                    status=ExitStatus.UNREACHABLE,
                ) from error
        else:
            return Lifetime(aws, target, document, opening, signals)
        signals.pause(min(pause, max(0.0, deadline - time.monotonic())))
        pause = min(pause * 1.6, _PAUSE_LONGEST)


def _first_allowed(aws: AwsSession, target: str, documents: Sequence[Document]) -> tuple[Document, Opening]:
    """Start the first of the documents that this account and this target allow."""
    from ..aws.session import ServiceRefused
    from .wire.channel import Opening

    first: SmsshError | None = None
    for document in documents:
        try:
            answer = aws.call("ssm", "start_session", **document.request(aws, target))
        except SmsshError as error:  # noqa: PERF203 - of two
            code = error.code if isinstance(error, ServiceRefused) else error.reference
            # What the service allows for targets that are not managed nodes is not documented.
            undocumented = code == "BadRequest" and not target.startswith("mi-")
            if code not in ("access-denied", "InvalidDocument") and not undocumented:
                raise
            first = first or error
        else:
            url = aws.stream_url(answer["StreamUrl"])
            return document, Opening(answer["SessionId"], answer["TokenValue"], url)
    assert first is not None
    raise first


def _explained(error: Any, target: str) -> SmsshError:
    hint = None
    if error.code == "InvalidDocument":
        hint = "the document has to be available in this account and region"
    elif error.code == "BadRequest" and target.startswith("mi-"):
        hint = _TIER
    elif error.code == "InvalidTarget" or "Target" in error.message:
        hint = "is the job still running, and is this its region? `smssh list` shows what there is"
    elif error.code.startswith("Throttl"):
        hint = "the account starts too many sessions at once: try again in a moment"
    return SmsshError(
        error.message,
        hint=hint,
        reference="session-refused",
        status=ExitStatus.UNREACHABLE,
        check="account.tier" if hint == _TIER else "",
    )


def say(text: str) -> None:
    """One line on stderr. It may be closed: ssh with ControlPersist takes it away."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        print(f"smssh: {' '.join(line(text).split())}", file=sys.stderr, flush=True)
