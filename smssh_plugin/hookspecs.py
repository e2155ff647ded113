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

An implementation takes only the arguments that it needs, by name. One that raises, answers with another type than its
hook's, or takes longer than the hook's limit, is named in the supervisor's log and skipped: no plugin can fail a job.
`SMSSH_DISABLE_HOOKS=mine` leaves a plugin out, the built-in ones too.

Container-side hooks run in the supervisor, never in the interpreter that runs the user's script.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Mapping, Sequence, TypeVar

from pluggy import HookimplMarker, HookspecMarker

if TYPE_CHECKING:
    from pathlib import Path

    from .settings import Settings

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
    "hook",
    "hookimpl",
]

hookimpl = HookimplMarker("smssh")
_F = TypeVar("_F", bound=Callable[..., Any])


def hook(*, since: str, limit: float | None, firstresult: bool = False) -> Callable[[_F], _F]:
    """Declare a hook.

    Args:
        since: the first version of smssh-plugin that calls it.
        limit: seconds for one plugin's part in it, because a job, its hold or its end may be waiting. After that the
            implementation goes on in its thread, and its answer is not used. None: nothing of a job waits for it.
        firstresult: whether the first answer that is not None ends the call.
    """

    def declare(function: _F) -> _F:
        function.smssh_since, function.smssh_limit = since, limit  # type: ignore[attr-defined]
        return HookspecMarker("smssh")(firstresult=firstresult)(function)

    return declare


# -------------------------------------------------------------------------------------------------
# Container: called once each, in this order, when the supervisor starts
# -------------------------------------------------------------------------------------------------


@hook(since="0.1", limit=30.0)
def smssh_configure(settings: Settings, job: Job) -> Mapping[str, Any] | None:
    """Change settings before anything is started; the mappings of all plugins are merged.

    Args:
        settings: what the job's environment and the bundle say.
        job: which job and host this is.

    Returns:
        New values by field name of `Settings`, for example `{"hold": ("failure",)}`, or None. They are parsed, and held
        to their limits, as those of a job: `{"hold_seconds": "10m"}` does as well.
    """


@hook(since="0.1", limit=30.0)
def smssh_authorized_keys(context: Context) -> list[str] | None:
    """Give public keys that may log in; the lists of all plugins are joined.

    Args:
        context: the supervisor's context.

    Returns:
        Lines as in an authorized_keys file, or None.
    """


@hook(since="0.1", limit=None, firstresult=True)
def smssh_start_server(context: Context) -> Server | None:
    """Start an SSH server on loopback; stops at the first plugin that returns one.

    No limit: an entry point waits for it only where `SMSSH_WAIT` or `SMSSH_STRICT` says so. Bound the start yourself.

    Args:
        context: the supervisor's context; `authorized_keys` is filled in.

    Returns:
        The server, already listening, or None when this plugin cannot serve here.
    """


@hook(since="0.1", limit=None, firstresult=True)
def smssh_start_transport(context: Context) -> Transport | None:
    """Make the SSH server reachable for clients; stops at the first plugin that returns a transport.

    A transport also publishes the host key, because a client cannot verify a host without it: `ssm` in the tags of the
    managed node, `native` in an object in S3. No limit: as for `smssh_start_server`.

    Args:
        context: the supervisor's context; `server` is listening.

    Returns:
        The transport, or None when `settings.transport` names another.
    """


@hook(since="0.1", limit=60.0)
def smssh_announce(context: Context) -> None:
    """Publish the address, the host key or the status in places of your own.

    No built-in plugin implements it: what the `smssh` client reads is published by `smssh_start_transport`, and kept
    up to date by the transport's `smssh_notify`.

    Args:
        context: the supervisor's context; `server` and `transport` are filled in.
    """


@hook(since="0.1", limit=60.0)
def smssh_ready(context: Context) -> None:
    """React to the first moment at which a login is possible.

    Args:
        context: the supervisor's context.
    """


# -------------------------------------------------------------------------------------------------
# Container: called at every attempt of the entry point
# -------------------------------------------------------------------------------------------------


@hook(since="0.1", limit=5.0)
def smssh_before_entry_point(context: Context, attempt: int, command: Sequence[str]) -> None:
    """React to the start of an attempt of the entry point, which does not wait for the hooks.

    Args:
        context: the supervisor's context.
        attempt: 1 for the first.
        command: the entry point's command line.
    """


@hook(since="0.1", limit=5.0)
def smssh_after_entry_point(context: Context, attempt: int, exit_code: int) -> None:
    """React to the end of an attempt of the entry point, however it ended.

    Args:
        context: the supervisor's context.
        attempt: 1 for the first.
        exit_code: its exit status; 128 + N when signal N ended it.
    """


@hook(since="0.1", limit=15.0)
def smssh_entry_point_failed(context: Context, failure: Failure) -> None:
    """React to the failure of an attempt that is going to be held, before the report is collected.

    Args:
        context: the supervisor's context.
        failure: how it failed.
    """


@hook(since="0.1", limit=60.0)
def smssh_collect_report(context: Context, failure: Failure) -> Mapping[str, Any] | None:
    """Give sections of the failure report; of two plugins that give one name, the first counts.

    Args:
        context: the supervisor's context.
        failure: how the attempt failed.

    Returns:
        Values that JSON can hold, by section name, or None. No secrets: the report leaves the container.
    """


@hook(since="0.1", limit=5.0, firstresult=True)
def smssh_hold(context: Context, point: str, exit_code: int | None) -> bool | None:
    """Decide whether the container is held at a point; stops at the first answer that is not None.

    Args:
        context: the supervisor's context.
        point: `start`, `failure` or `end`.
        exit_code: the entry point's exit status; None at `start`.

    Returns:
        True to hold, False not to, None to leave it to the next plugin.
    """


@hook(since="0.1", limit=60.0)
def smssh_tell_hosts(context: Context, own: HostState) -> bool | None:
    """Tell the other hosts of the job what this one does.

    Called at every change, where the job has several hosts and a hold is asked for.

    Args:
        context: the supervisor's context.
        own: the state of this host.

    Returns:
        False if it has to be told again, because it could not be told now; anything else counts as told.
    """


@hook(since="0.1", limit=60.0, firstresult=True)
def smssh_ask_hosts(context: Context, question: HostQuestion) -> HostAnswer | None:
    """Look for another host of the job; stops at the first plugin that can answer.

    Each host calls it repeatedly while hosts wait for each other, so one call must cost as little with a thousand hosts
    as with two. If no plugin answers, `smssh_other_hosts` is asked.

    Args:
        context: the supervisor's context.
        question: which host is looked for.

    Returns:
        The answer; None when this plugin cannot ask the others here.
    """


@hook(since="0.1", limit=20.0, firstresult=True)
def smssh_other_hosts(context: Context) -> Mapping[str, HostState] | None:
    """List the states of the job's other hosts, for people to read; stops at the first plugin that answers.

    Args:
        context: the supervisor's context.

    Returns:
        The states by host, of the hosts that are up, without this one; None when they cannot be asked here. Where
        there are too many hosts to list, the ones that failed first are kept.
    """


@hook(since="0.1", limit=30.0)
def smssh_notify(context: Context, event: str, message: str, hold: Hold | None) -> None:
    """Tell people of an event.

    Called in a thread of its own, in the order of the events.

    Args:
        context: the supervisor's context.
        event: `ready`, `running`, `failed` (an attempt ended with another status than 0), `held`, `reminder`
            (once a minute in a hold), `expiring` (once, when a hold is about to end), `extended`, `retried`,
            `released` or `ended`.
        message: one line of text, no secrets in it.
        hold: the hold that is going on, if any.
    """


@hook(since="0.1", limit=6.0)
def smssh_stop(context: Context) -> None:
    """End what this plugin started.

    Called once, as the last hook.

    Args:
        context: the supervisor's context.
    """


# -------------------------------------------------------------------------------------------------
# Submit side: called where the request is made
# -------------------------------------------------------------------------------------------------


@hook(since="0.1", limit=None)
def smssh_transform_request(
    kind: str, request: Mapping[str, Any], options: object
) -> Mapping[str, Any] | None:
    """Change a request after `with_ssh` has changed it; each plugin sees what the one before returned.

    Any value in it may be a pipeline variable: never call str, ==, bool, len, hash or deepcopy on one. No limit: the
    submitting program waits for the answer.

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


@hook(since="0.1", limit=None)
def smssh_register_commands(commands: dict[str, str]) -> None:
    """Add commands to `smssh`; they have a section of their own in `smssh --help`.

    A command cannot have the name of a built-in one. No limit: a person waits at a terminal.

    Args:
        commands: command name to `module:attribute` of a click command, imported when the command is used;
            add to it.
    """


@hook(since="0.1", limit=None)
def smssh_probes() -> list[Any] | None:
    """Give probes for `smssh debug`, which inspect a held container and report what they find.

    They run one after the other when a step is held after a failure, before it is fixed. A probe that raises, or takes
    longer than a minute, is named in the report and skipped. The hook itself has no limit.

    Returns:
        Objects with a `name` and a method `run(host)`, or None. `host` is a `smssh_plugin.client.connection.Connection`
        (what `smssh_plugin.connect` gives): `run`, `get`, `put`, `forward`. What it returns, any value that JSON can
        hold, is shown in the report. No secrets: the report is for others to read.
    """


@hook(since="0.1", limit=None)
def smssh_checks() -> list[Any] | None:
    """Give checks for `smssh doctor`, which find out what keeps people from logging in.

    They run beside the built-in ones, and after these where `after` says so. A check that raises is reported as a
    crash, one that takes longer than 20 seconds as "cannot tell". The hook itself has no limit.

    Returns:
        Objects with an `id` (`SUBJECT.NAME`, not that of a built-in check), a `summary` and a method `run(aws)`,
        or None; they may have `after`, ids of checks whose problem would be the cause of theirs. `aws` is the AWS
        session of the command (`smssh_plugin.aws.session.AwsSession`). `run` returns a mapping with `outcome` (`ok`,
        `problem`, `hint` or `cannot tell`) and `message`, and if they say something `fix`, `who`, `statement` (an IAM
        statement) and `details` (a list of lines). `problem` needs `fix`.
    """


# -------------------------------------------------------------------------------------------------
# The types of the arguments and answers
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
    """All hosts of the job, this one included; empty if they are not known."""

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
    """A second port of the server, for smssh's own commands: a login there does not count as a person. 0: there is
    no second port, and such a login counts."""
    logins: Path | None = None
    """The server's log of logins and logouts, in OpenSSH's format ("Accepted publickey for USER from HOST port
    PORT ..."). None: the server has no such log, and every connection counts as a login."""


@dataclass(frozen=True)
class Transport:
    """How a client reaches the SSH server."""

    name: str
    target: str | None = None
    """The target of a session: the managed node's id (mi-...) for ssm, sagemaker-training-job:JOB_HOST for native."""


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
    """When it ends even if somebody is connected: at the longest hold, or shortly before the job's own limit."""
    connected: int = 0
    """How many people are logged in."""
    ends: float = 0.0
    """The deadline that applies now."""
    extended: float = 0.0
    """Until when somebody has extended it; 0 if nobody has."""

    def __post_init__(self) -> None:
        """Nobody is connected at first."""
        self.ends = self.ends or self.deadline


@dataclass(frozen=True)
class HostState:
    """What one host of a job with several hosts has told the others about its entry point."""

    host: str
    state: str
    """running, failed, succeeded, held or released."""
    attempt: int = 1
    exit_code: int | None = None
    failed: float = 0.0
    """When its last attempt failed, in seconds since the epoch by its own clock; 0 if it did not fail."""
    connected: bool = False
    """Whether somebody is logged in there."""
    decision: str = ""
    """The last decision there: `retry` or `release` by a person, `expire` by a deadline; empty before the first one."""
    chosen: int | None = None
    """The exit status that was chosen with a release."""
    first: bool = False
    """Whether its last attempt failed before any other host was known to have failed in that attempt."""

    @property
    def phase(self) -> str:
        """The state in one word, for questions: `occupied` if somebody is logged in, else `state`."""
        return "occupied" if self.connected else self.state

    @property
    def course(self) -> str:
        """The decision that others would follow, for questions: `released`, `expired`, or the number of its attempt."""
        if self.state == "released" and self.decision in ("release", "expire"):
            return self.decision + "d"
        return str(self.attempt)


@dataclass(frozen=True)
class HostQuestion:
    """Which other host is looked for: one that fits every field that is not empty."""

    phases: tuple[str, ...] = ()
    """Its `HostState.phase` is one of these."""
    courses: tuple[str, ...] = ()
    """Its `HostState.course` is one of these. A field has 100 values at most."""
    first: int = 0
    """It was the first host that failed in this attempt (`HostState.first`)."""
    decides: bool = False
    """Its answer is going to be followed: its whole state is needed, and its identity must be certain."""

    def fits(self, state: HostState) -> bool:
        """Whether a host in this state is looked for."""
        return (
            (not self.phases or state.phase in self.phases)
            and (not self.courses or state.course in self.courses)
            and (not self.first or (state.first and state.attempt == self.first))
        )


@dataclass(frozen=True)
class HostAnswer:
    """The answer to a `HostQuestion`."""

    host: HostState | None = None
    """One host that fits; None if no other host does."""
    known: bool = True
    """False if there is no answer now, for instance because AWS throttles: the question is asked again later."""


@dataclass
class Context:
    """What the supervisor knows; the first argument of most container-side hooks."""

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
    """The attempt of the entry point that runs or ran last; 0 before the first."""
    exit_code: int | None = None
    """The exit status of that attempt; None while it runs."""
    ending: threading.Event = field(default_factory=threading.Event)
    """Set as soon as the job is over. A hook that waits for something must give up then."""

    @property
    def connect_command(self) -> str:
        """What a person types to log in."""
        return f"smssh connect {self.job.address}"
