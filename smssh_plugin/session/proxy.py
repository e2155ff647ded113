"""`smssh proxy ADDRESS`: the body of an SSH ProxyCommand.

stdout carries the stream and nothing else; what went wrong is one line on stderr. However it ends, the session
ends, too: see `lifetime`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from ..errors import ExitStatus, SmsshError
from ..streams import input_aside, output_aside, own_stdin
from .lifetime import CONNECT_SECONDS, FORWARD_DOCUMENT, SSH_DOCUMENT, Document, Lifetime, say, started
from .signals import Signals, Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..aws.session import AwsSession
    from .loop import Ending
    from .wire.channel import ClientChannel

__all__ = ["WAIT_SECONDS", "Reachable", "Resolve", "Route", "run"]

WAIT_SECONDS = 600.0
"""How long a job that is still starting is waited for."""
_REFUSED = ("access-denied", "session-refused")
_DOWN = "ssh-server-down"
_UP = "check the job's log: it says whether the SSH server in the container was started"


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
        """The user that the SSH server accepts."""


class Resolve(Protocol):
    """Finds what an address leads to, as `client.lookup.resolve` does."""

    def __call__(
        self,
        address: str,
        aws: AwsSession,
        *,
        wait: float,
        on_wait: Callable[[str], None],
        cached: bool,
    ) -> Reachable:
        """Find it."""


@dataclass
class Route:
    """The way to a port of a container: looked up when it is needed, and again when it turns out to be stale.

    Attributes:
        aws: the AWS session.
        address: the address of a job or step; it isn't looked up if `target` is given.
        resolve: finds what an address leads to; needed unless `target` is given.
        target: the managed node (`mi-...`) or another target of StartSession.
        port: the port in the container; by default the one that the node announces, 22 for a bare `target`.
        user: the user that ssh is about to log in as; a warning is shown if the SSH server accepts another one only.
        wait: seconds to wait for a job that is starting; `CONNECT_SECONDS` of it at most for its agent.
        via: `session`: our own data channel; `plugin`: Amazon's session-manager-plugin.
    """

    aws: AwsSession
    address: str
    resolve: Resolve | None = None
    target: str | None = None
    port: int | None = None
    user: str | None = None
    wait: float = WAIT_SECONDS
    via: str = "session"
    _found: Reachable | None = field(default=None, init=False, repr=False)

    def find(self, anew: bool) -> str:
        """The target of StartSession."""
        if self.target is not None:
            return self.target
        found = self._found = self._look(self.wait, cached=not anew)
        if self.user is not None and self.user != found.user:
            import shlex  # a person may paste it

            say(
                f"the SSH server accepts the user {found.user!r}, not {self.user!r}: "
                f"use ssh -l {shlex.quote(found.user)}"
            )
            self.user = None
        return found.target

    def documents(self) -> Sequence[Document]:
        """What to start; a later one where those before it are not allowed."""
        port = str(self.port or (self._found.port if self._found is not None else 22))
        # With the other document Amazon's plugin would listen on a port here, and leave stdin and stdout alone.
        names = (SSH_DOCUMENT,) if self.via == "plugin" else (SSH_DOCUMENT, FORWARD_DOCUMENT)
        return [Document(name, {"portNumber": port}) for name in names]

    def explain(self, error: SmsshError) -> None:
        """Say what the lookup says of a target that is not connected: it knows of the job's end.

        Where no document of ours is allowed for SageMaker's own target, its shell may be; and a shell can start the
        server that does not answer there.

        Raises:
            SmsshError: it does.
        """
        target = self.target or (self._found.target if self._found is not None else "")
        if error.reference == "target-not-connected" and self.target is None:
            self._look(0.0, cached=False)
        elif target and not target.startswith("mi-"):
            ways = []
            if error.reference in _REFUSED:
                ways.append(f"try `smssh shell {self.address}`, which may be allowed all the same")
            elif error.reference == _DOWN:
                ways.append(f"start one: `smssh remote-debug {self.address} --install`")
            error.hint = "; ".join([*([error.hint] if error.hint else []), *ways]) or None

    def _look(self, wait: float, *, cached: bool) -> Reachable:
        if self.resolve is None:
            raise TypeError("a Route needs `resolve` or `target`")
        return self.resolve(
            self.address,
            self.aws,
            wait=wait,
            on_wait=lambda what: say(f"waiting: {what} (up to {wait:.0f} s)"),
            cached=cached,
        )


def run(route: Route, *, source: int | None = None, sink: int | None = None) -> int:
    """Connect stdin and stdout with a port of a container; only in the main thread.

    Args:
        route: the way there.
        source: the descriptor to read, instead of stdin. Whatever is started or asked here, stdin is /dev/null to it.
        sink: the descriptor to write, instead of stdout, which is stderr to all else.

    Returns:
        The exit status: 0, one of `ExitStatus` with an explanation on stderr, or 128 + the signal.
    """
    # By SIGHUP ssh ends us, under nohup as well.
    with input_aside(), output_aside() as output, Signals(ignored=True) as signals:
        source, sink = own_stdin() if source is None else source, output if sink is None else sink
        try:
            _connect(route, signals, source, sink)
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


def _connect(route: Route, signals: Signals, source: int, sink: int) -> None:
    wait = min(route.wait, CONNECT_SECONDS)
    try:
        with started(route.aws, route.find, route.documents, signals, wait=wait) as lifetime:
            if route.via == "plugin":
                from .amazon_plugin import talk

                talk(lifetime, source, sink)
            else:
                _talk(lifetime, source, sink)
    except SmsshError as error:
        with signals.interruptible():
            route.explain(error)
        raise


def _talk(lifetime: Lifetime, source: int, sink: int) -> None:
    from .loop import Ending, nonblocking
    from .wire.channel import PORT

    channel = lifetime.channel((PORT,))
    try:
        with nonblocking(source, sink):
            ending, received = _pump(lifetime, channel, source, sink)
        if ending is Ending.CLOSED and (channel.closed or not received):
            raise SmsshError(
                f"the session ended: {channel.closed}"
                if channel.closed
                else "the session ended before the SSH server said a word",
                hint="see the state of the job: `smssh status`" if received else _UP,
                reference="session-closed" if received else _DOWN,
                status=ExitStatus.UNREACHABLE,
            )
        channel.terminate(time.monotonic())
    finally:
        channel.close()


def _pump(lifetime: Lifetime, channel: ClientChannel, source: int, sink: int) -> tuple[Ending, int]:
    """Pump until the end; answers why it ended, and how many bytes came."""
    from .pump import Pump

    refused: list[bool] = []
    kind: type[Pump] = Pump
    if lifetime.document.name == FORWARD_DOCUMENT:
        from .mux_pump import MuxPump

        kind = MuxPump
        channel.on_unreachable = lambda: refused.append(True)
    pump = kind(channel, source, sink, wake=lifetime.signals.wake, ending=lifetime.signals.ending)
    ending = pump.run()
    if refused:
        raise SmsshError(
            "the agent cannot connect to the port", hint=_UP, reference=_DOWN, status=ExitStatus.UNREACHABLE
        )
    return ending, pump.received
