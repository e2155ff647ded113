"""`smssh proxy ADDRESS`: the body of an SSH ProxyCommand.

stdout carries the stream and nothing else; what went wrong is one line on stderr. However it ends, the session
ends, too: see `lifetime`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from ..errors import ExitStatus, SmsshError
from ..streams import given, input_aside, output_aside
from .lifetime import CONNECT_SECONDS, FORWARD_DOCUMENT, SSH_DOCUMENT, Document, Lifetime, say, started
from .signals import Signals, Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..aws.session import AwsSession
    from .wire.channel import ClientChannel

__all__ = ["WAIT_SECONDS", "Reachable", "Resolve", "run"]

WAIT_SECONDS = 600.0
"""How long a job that is still starting is waited for."""
_REFUSED = ("access-denied", "session-refused")
_DOWN = "ssh-server-down"
_UP = "is the SSH server in the container up? the job's log says what smssh did there"


class Reachable(Protocol):
    """What an address leads to: a target of StartSession, and the port of the SSH server there."""

    @property
    def target(self) -> str:
        """`mi-...`, or another target of StartSession."""

    @property
    def port(self) -> int:
        """On the container's loopback."""

    @property
    def user(self) -> str:
        """Whom the SSH server lets in."""


class Resolve(Protocol):
    """Finds what an address leads to, as `client.lookup.resolve` does."""

    def __call__(
        self,
        address: str,
        session: AwsSession,
        *,
        wait: float,
        on_wait: Callable[[str], None],
        remembered: bool,
    ) -> Reachable:
        """Find it."""


def run(
    address: str,
    resolve: Resolve | None = None,
    *,
    region: str | None = None,
    profile: str | None = None,
    port: int | None = None,
    target: str | None = None,
    user: str | None = None,
    wait: float = WAIT_SECONDS,
    via: str = "session",
    document: str | None = None,
    source: int | None = None,
    sink: int | None = None,
) -> int:
    """Connect stdin and stdout with a port of the container behind `address`; only in the main thread.

    Args:
        address: the address of a job or step; it isn't looked up if `target` is given.
        resolve: finds what an address leads to; needed unless `target` is given.
        region: the AWS region; by default the environment's.
        profile: the profile of the AWS configuration; by default AWS_PROFILE.
        port: the port in the container; by default the one that the node announces, 22 for a bare `target`.
        target: the managed node (`mi-...`) or another target of StartSession.
        user: whom ssh is about to log in as, so that a wrong one can be told.
        wait: seconds to wait for a job that is starting; `CONNECT_SECONDS` of it at most for its agent.
        via: `session`: our own data channel; `plugin`: Amazon's session-manager-plugin.
        document: a session document like AWS-StartSSHSession, instead of the one that is configured, or Amazon's.
        source: the descriptor to read, instead of stdin. Whatever is started or asked here, stdin is /dev/null to it.
        sink: the descriptor to write, instead of stdout, which is stderr to all else.

    Returns:
        The exit status: 0, one of `ExitStatus` with an explanation on stderr, or 128 + the signal.
    """
    from ..aws.session import AwsSession

    # By SIGHUP ssh ends us, under nohup as well.
    with input_aside(), output_aside() as output, Signals(ignored=True) as signals:
        source, sink = given() if source is None else source, output if sink is None else sink
        session = AwsSession(region, profile)
        if document is not None:
            session.documents["ssh"] = document
        # With the other document Amazon's plugin would listen on a port here, and leave stdin and stdout alone.
        names = (SSH_DOCUMENT,) if via == "plugin" else (SSH_DOCUMENT, FORWARD_DOCUMENT)
        way = _Way(session, address, resolve, target, port, user, wait, names)
        try:
            try:
                with started(
                    session, way.find, way.documents, signals, wait=min(wait, CONNECT_SECONDS)
                ) as lifetime:
                    if via == "plugin":
                        from .amazon_plugin import talk

                        talk(lifetime, source, sink)
                    else:
                        _talk(lifetime, source, sink)
            except SmsshError as error:
                with signals.interruptible():
                    way.explain(error)
                raise
        except Stopped:
            pass
        except SmsshError as error:
            if not signals.number:
                say(error.message if error.hint is None else f"{error.message} ({error.hint})")
                return int(error.status)
        except OSError as error:  # no room for a host key, no descriptor left
            if not signals.number:
                say(f"{error.filename or 'the connection'}: {error.strerror or error}")
                return int(ExitStatus.FAILED)
        return 128 + signals.number if signals.number else ExitStatus.OK


class _Way:
    """The way to the container: looked up when it is needed, and again when it turns out to be stale."""

    def __init__(
        self,
        session: AwsSession,
        address: str,
        resolve: Resolve | None,
        target: str | None,
        port: int | None,
        user: str | None,
        wait: float,
        documents: Sequence[str],
    ) -> None:
        self._session = session
        self._address = address
        self._resolve = resolve
        self._target = target
        self._port = port
        self._user = user
        self._wait = wait
        self._documents = documents
        self._found: Reachable | None = None

    def find(self, anew: bool) -> str:
        """The target of StartSession."""
        if self._target is not None:
            return self._target
        self._found = self._look(self._wait, remembered=not anew)
        if self._user is not None and self._user != self._found.user:
            say(f"its SSH server lets {self._found.user!r} in, not {self._user!r}: ssh -l {self._found.user}")
            self._user = None
        return self._found.target

    def documents(self) -> Sequence[Document]:
        """What to start; a later one where those before it are not allowed."""
        port = str(self._port or (self._found.port if self._found is not None else 22))
        return [Document(name, {"portNumber": port}) for name in self._documents]

    def explain(self, error: SmsshError) -> None:
        """Say what the lookup says of a target that is not connected: it knows of the job's end.

        Where no document of ours is allowed for SageMaker's own target, its shell may be; and a shell can start the
        server that does not answer there.

        Raises:
            SmsshError: it does.
        """
        target = self._target or (self._found.target if self._found is not None else "")
        if error.reference == "target-not-connected" and self._target is None:
            self._look(0.0, remembered=False)
        elif target and not target.startswith("mi-"):
            ways = []
            if error.reference in _REFUSED:
                ways.append(f"`smssh shell {self._address}` may be allowed all the same")
            elif error.reference == _DOWN:
                ways.append(f"`smssh remote-debug {self._address} --install` starts one")
            error.hint = "; ".join([*([error.hint] if error.hint else []), *ways]) or None

    def _look(self, wait: float, *, remembered: bool) -> Reachable:
        if self._resolve is None:
            raise TypeError("run() needs `resolve` or `target`")
        return self._resolve(
            self._address,
            self._session,
            wait=wait,
            on_wait=lambda what: say(f"waiting: {what} (up to {wait:.0f} s)"),
            remembered=remembered,
        )


def _talk(lifetime: Lifetime, source: int, sink: int) -> None:
    from .pump import Ending, nonblocking
    from .wire.channel import PORT

    channel = lifetime.channel((PORT,))
    try:
        with nonblocking(source, sink):
            ending, received = _forward(lifetime, channel, source, sink)
        if ending is Ending.CLOSED and (channel.closed or not received):
            raise SmsshError(
                f"the session ended: {channel.closed}"
                if channel.closed
                else "the session ended before the SSH server said a word",
                hint="`smssh status` shows the state of the job" if received else _UP,
                reference="session-closed" if received else _DOWN,
                status=ExitStatus.UNREACHABLE,
            )
        channel.terminate(time.monotonic())
    finally:
        channel.close()


def _forward(lifetime: Lifetime, channel: ClientChannel, source: int, sink: int) -> tuple[object, int]:
    """Pump until the end; answers why it ended, and how many bytes came."""
    signals = lifetime.signals
    if lifetime.document.name == FORWARD_DOCUMENT:
        from .forward_loop import Forwarder

        refused: list[bool] = []
        forwarder = Forwarder(
            channel,
            wake=signals.wake,
            ending=signals.ending,
            on_unreachable=lambda: refused.append(True),
        )
        forwarder.attach(source, sink)
        ending = forwarder.run()
        if refused:
            raise SmsshError(
                "the agent cannot connect to the port",
                hint=_UP,
                reference=_DOWN,
                status=ExitStatus.UNREACHABLE,
            )
        return ending, forwarder.received
    from .pump import Pump

    pump = Pump(channel, source, sink, wake=signals.wake, ending=signals.ending)
    return pump.run(), pump.received
