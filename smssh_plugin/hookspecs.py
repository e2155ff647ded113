"""The hooks of smssh-plugin: what each is called with, when, and what its answer means.

A plugin is any installed package with an entry point in the group `smssh`:

    # pyproject.toml
    [project.entry-points.smssh]
    mine = "my_package.smssh"

    # my_package/smssh.py
    from smssh_plugin import hookimpl


    @hookimpl
    def smssh_ready(context):
        print("log in with:", context.connect_command)

An implementation takes only the arguments it needs, by name. One that raises is named in the supervisor's
log and
skipped: no plugin can fail a job. `SMSSH_DISABLE_HOOKS=mine` leaves a plugin out, the built-in ones too.

Container-side hooks run in the supervisor, never in the interpreter that runs the user's script.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Mapping, Sequence, TypeVar

if TYPE_CHECKING:
    from pathlib import Path
    from typing import overload

    from .settings import Settings

    _F = TypeVar("_F", bound=Callable[..., Any])

    class _Marker:
        """pluggy's markers, typed: they return the function that they mark."""

        def __init__(self, project_name: str) -> None: ...
        @overload
        def __call__(self, function: _F) -> _F: ...
        @overload
        def __call__(self, *, firstresult: bool = False) -> Callable[[_F], _F]: ...
        @overload
        def __call__(
            self,
            *,
            tryfirst: bool = False,
            trylast: bool = False,
            optionalhook: bool = False,
            wrapper: bool = False,
        ) -> Callable[[_F], _F]: ...
        def __call__(self, function: Any = None, **options: bool) -> Any: ...

    HookspecMarker = HookimplMarker = _Marker
else:
    from pluggy import HookimplMarker, HookspecMarker

__all__ = [
    "Context",
    "Failure",
    "Hold",
    "HostAnswer",
    "HostQuestion",
    "HostState",
    "Job",
    "Server",
    "Transport",
    "hookimpl",
    "hookspec",
]

hookspec = HookspecMarker("smssh")
hookimpl = HookimplMarker("smssh")


# -------------------------------------------------------------------------------------------------
# What hooks are given
# -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """Which job, and which of its hosts, this container is."""

    name: str
    kind: str
    """training, processing, transform, or inference (an endpoint)."""
    host: str
    """algo-1, algo-2, ..."""
    arn: str = ""
    step: str = ""
    hosts: tuple[str, ...] = ()
    """All hosts of the job, this one among them; empty where nobody said."""

    @property
    def address(self) -> str:
        """What a client calls this host, for example `algo-1.my-job.training.sagemaker`."""
        return f"{self.host}.{self.name}.{self.kind}.sagemaker"


@dataclass(frozen=True)
class Server:
    """A running SSH server on loopback."""

    name: str
    port: int
    user: str
    host_key: str
    """The public host key: type and base64, without a comment."""
    control_port: int = 0
    """A second port of it, for what smssh asks by itself: who comes by it does not count as a person. 0: it has
    none, and such a login counts."""
    logins: Path | None = None
    """The log in which it says who logs in and out, in OpenSSH's words ("Accepted publickey for USER from HOST port
    PORT ..."). None: it does not say it, and every connection counts as a login."""


@dataclass(frozen=True)
class Transport:
    """How a client reaches the SSH server."""

    name: str
    target: str | None = None
    """What a client names to reach it: for ssm the managed node's id (mi-...), for native SageMaker's own
    (sagemaker-training-job:JOB_HOST)."""


@dataclass(frozen=True)
class Failure:
    """How one attempt of the entry point failed."""

    attempt: int
    command: Sequence[str]
    exit_code: int | None
    error: str | None = None
    log_tail: Sequence[str] | None = None
    started: float = 0.0
    """Seconds since the epoch."""


@dataclass
class Hold:
    """A hold that is going on; times are seconds since the epoch."""

    point: str
    since: float
    deadline: float
    """When it ends if nobody is connected."""
    max_deadline: float
    """When it ends whoever is connected: the longest hold is over, or the job's own limit is near."""
    connected: int = 0
    """People who are logged in, whatever for."""
    ends: float = 0.0
    """Which of the two deadlines counts now."""
    extended: float = 0.0
    """Until when somebody has extended it; 0 for nobody."""

    def __post_init__(self) -> None:
        """Nobody is connected at first."""
        self.ends = self.ends or self.deadline


@dataclass(frozen=True)
class HostState:
    """What one host of a job with several has told the others about its entry point."""

    host: str
    state: str
    """running, failed, succeeded, held or released."""
    attempt: int = 1
    exit_code: int | None = None
    failed: float = 0.0
    """When its last attempt failed, in seconds since the epoch by its own clock; 0 when it did not."""
    connected: bool = False
    """Whether somebody is logged in there."""
    decision: str = ""
    """What was decided there last: `retry` or `release` by a person, `expire` by a deadline, or nothing yet."""
    chosen: int | None = None
    """The exit status that was chosen with a release."""
    first: bool = False
    """Whether its last attempt failed before any other host was known to have failed in that attempt."""

    @property
    def phase(self) -> str:
        """The state in one word, for questions: `occupied` where somebody is logged in, else `state`."""
        return "occupied" if self.connected else self.state

    @property
    def course(self) -> str:
        """What the others would follow, for questions: `released`, `expired`, or else the number of its attempt."""
        if self.state == "released" and self.decision in ("release", "expire"):
            return self.decision + "d"
        return str(self.attempt)


@dataclass(frozen=True)
class HostQuestion:
    """Which other host is looked for: one that fits each of the fields that are not empty."""

    phases: tuple[str, ...] = ()
    """One of these is its `HostState.phase`."""
    courses: tuple[str, ...] = ()
    """One of these is its `HostState.course`; 100 at most, as of each field."""
    first: int = 0
    """It was the first that failed in this attempt (`HostState.first`)."""
    decides: bool = False
    """What it says is going to be followed: its whole state is needed, and no doubt which host it is."""

    def fits(self, state: HostState) -> bool:
        """Whether this state is one that is looked for."""
        return (
            (not self.phases or state.phase in self.phases)
            and (not self.courses or state.course in self.courses)
            and (not self.first or (state.first and state.attempt == self.first))
        )


@dataclass(frozen=True)
class HostAnswer:
    """The answer to a `HostQuestion`."""

    host: HostState | None = None
    """One host that fits; None where no other host does."""
    known: bool = True
    """False where nobody could say now, for instance because AWS throttles: it is asked again later."""


@dataclass
class Context:
    """What the supervisor knows; every container-side hook is given it."""

    settings: Settings
    job: Job
    run_dir: Path
    """The container's private folder, mode 0700; never uploaded."""
    environment: dict[str, str]
    """The job's environment, as its entry point sees it. It may hold secrets: never log it."""
    code_dir: str
    """The folder of the user's code."""
    python_path: str
    """What PYTHONPATH must be for a child that imports smssh_plugin; empty when it is installed."""
    bundle: Path | None = None
    """The folder of the bundle, if there is one."""
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("smssh"))
    say: Callable[[str], None] = print
    """Writes one line into the job's log."""
    server: Server | None = None
    transport: Transport | None = None
    authorized_keys: tuple[str, ...] = ()
    attempt: int = 0
    """The attempt of the entry point that runs, or the last one; 0 before the first."""
    exit_code: int | None = None
    """How it has ended; None while it runs."""
    ending: threading.Event = field(default_factory=threading.Event)
    """Set as soon as the job is over: a hook that waits for something gives up then."""

    @property
    def connect_command(self) -> str:
        """What a person types to log in."""
        return f"smssh connect {self.job.address}"


# -------------------------------------------------------------------------------------------------
# Container: called once each, in this order, when the supervisor starts
# -------------------------------------------------------------------------------------------------


@hookspec
def smssh_configure(settings: Settings, job: Job) -> Mapping[str, Any] | None:
    """Change settings before anything is started; the mappings of all plugins are merged.

    Args:
        settings: what the job's environment and the bundle say.
        job: which job and host this is.

    Returns:
        New values by field name of `Settings`, for example `{"hold": ("failure",)}`, or None.
    """


@hookspec
def smssh_authorized_keys(context: Context) -> list[str] | None:
    """Give public keys that may log in; the lists of all plugins are joined.

    Args:
        context: the supervisor's context.

    Returns:
        Lines as in an authorized_keys file, or None.
    """


@hookspec(firstresult=True)
def smssh_start_server(context: Context) -> Server | None:
    """Start an SSH server on loopback; stops at the first plugin that returns one.

    Args:
        context: the supervisor's context; `authorized_keys` is filled in.

    Returns:
        The server, already listening, or None when this plugin cannot serve here.
    """


@hookspec(firstresult=True)
def smssh_start_transport(context: Context) -> Transport | None:
    """Make the SSH server reachable for clients; stops at the first plugin that returns a transport.

    Args:
        context: the supervisor's context; `server` is listening.

    Returns:
        The transport, or None when `settings.transport` names another.
    """


@hookspec
def smssh_announce(context: Context) -> None:
    """Publish the host key and the status where the client finds them.

    Args:
        context: the supervisor's context; `server` and `transport` are filled in.
    """


@hookspec
def smssh_ready(context: Context) -> None:
    """Called once, when a login is possible.

    Args:
        context: the supervisor's context.
    """


# -------------------------------------------------------------------------------------------------
# Container: called at every attempt of the entry point
# -------------------------------------------------------------------------------------------------


@hookspec
def smssh_before_entry_point(context: Context, attempt: int, command: Sequence[str]) -> None:
    """Called when an attempt of the entry point starts; it does not wait for the hooks.

    Args:
        context: the supervisor's context.
        attempt: 1 for the first.
        command: the entry point's command line.
    """


@hookspec
def smssh_after_entry_point(context: Context, attempt: int, exit_code: int) -> None:
    """Called when an attempt of the entry point has ended, however it ended.

    Args:
        context: the supervisor's context.
        attempt: 1 for the first.
        exit_code: its exit status; 128 + N when signal N ended it.
    """


@hookspec
def smssh_entry_point_failed(context: Context, failure: Failure) -> None:
    """Called when an attempt of the entry point has failed, before the report is collected.

    Args:
        context: the supervisor's context.
        failure: how it failed.
    """


@hookspec
def smssh_collect_report(context: Context, failure: Failure) -> Mapping[str, Any] | None:
    """Give sections of the failure report; the mappings of all plugins are merged, the first one wins a name.

    Args:
        context: the supervisor's context.
        failure: how the attempt failed.

    Returns:
        Values that JSON can hold, by section name, or None. No secrets: the report leaves the container.
    """


@hookspec(firstresult=True)
def smssh_hold(context: Context, point: str, exit_code: int | None) -> bool | None:
    """Decide whether the container is held at a point; stops at the first answer that is not None.

    Args:
        context: the supervisor's context.
        point: `start`, `failure` or `end`.
        exit_code: the entry point's exit status; None at `start`.

    Returns:
        True to hold, False not to, None to leave it to the next plugin.
    """


@hookspec
def smssh_tell_hosts(context: Context, own: HostState) -> bool | None:
    """Let the other hosts of the job know what this one does; called at every change, must not wait for long.

    Called where the job has several hosts and a hold is asked for.

    Args:
        context: the supervisor's context.
        own: the state of this host.

    Returns:
        False when it could not be told now and has to be told again; anything else counts as told.
    """


@hookspec(firstresult=True)
def smssh_ask_hosts(context: Context, question: HostQuestion) -> HostAnswer | None:
    """Look for another host of the job; stops at the first plugin that can say.

    Called by every host again and again while hosts wait for each other, so it must cost as little with a thousand
    hosts as with two. Without a plugin that answers, `smssh_other_hosts` is asked.

    Args:
        context: the supervisor's context.
        question: which host is looked for.

    Returns:
        The answer; None when this plugin cannot ask the others here.
    """


@hookspec(firstresult=True)
def smssh_other_hosts(context: Context) -> Mapping[str, HostState] | None:
    """List what the other hosts of the job have told, for people; stops at the first plugin that knows.

    Args:
        context: the supervisor's context.

    Returns:
        The states by host, of the hosts that are up, without this one; None when they cannot be asked here. It may
        leave hosts out, those that failed first last of all.
    """


@hookspec
def smssh_notify(context: Context, event: str, message: str, hold: Hold | None) -> None:
    """Tell people of an event; called in a thread of its own, in the order of the events.

    Args:
        context: the supervisor's context.
        event: `ready`, `running`, `failed` (an attempt ended with another status than 0), `held`, `reminder`
            (once a minute in a hold), `expiring` (once, when a hold is about to end), `extended`, `retried`,
            `released` or `ended`.
        message: one line of text, no secrets in it.
        hold: the hold that is going on, if any.
    """


@hookspec
def smssh_stop(context: Context) -> None:
    """End what this plugin started; called once, last, and bounded in time by the supervisor.

    Args:
        context: the supervisor's context.
    """


# -------------------------------------------------------------------------------------------------
# Submit side: called where the request is made
# -------------------------------------------------------------------------------------------------


@hookspec
def smssh_transform_request(
    kind: str, request: Mapping[str, Any], options: object
) -> Mapping[str, Any] | None:
    """Change a request after `with_ssh` has changed it; each plugin sees what the one before returned.

    Leaves may be pipeline variables: never call str, ==, bool, len, hash or deepcopy on one.

    Args:
        kind: `training`, `processing`, `transform`, `model` or `tuning`.
        request: the request as boto3 takes it.
        options: the step's `SSHOptions`.

    Returns:
        The request to send, or None to leave it as it is.
    """


# -------------------------------------------------------------------------------------------------
# Client side: called in the `smssh` command
# -------------------------------------------------------------------------------------------------


@hookspec
def smssh_register_commands(commands: dict[str, str]) -> None:
    """Add commands to `smssh`; they stand on their own in `smssh --help`, and cannot take the name of one of ours.

    Args:
        commands: command name to `module:attribute` of a click command, imported when the command is used;
            add to it.
    """


@hookspec
def smssh_probes() -> list[Any] | None:
    """Give probes for `smssh debug`, which look at a held container and say what they find.

    They run one after the other when a step is held after a failure, before it is fixed. One that raises, or takes
    longer than a minute, is named in the report and skipped.

    Returns:
        Objects with a `name` and a method `run(host)`, or None. `host` is a `smssh_plugin.client.connect.Connection`
        (what `smssh_plugin.connect` gives): `run`, `get`, `put`, `forward`. What it returns, any value that JSON can
        hold, is shown in the report. No secrets: the report is for others to read.
    """
