"""The ssm transport: an activation makes the container a managed node, Amazon's agent serves its sessions.

The node's tags say all that a client needs: job, kind, host, step, owner, port, user and host key. The
activation serves one registration and expires within the hour; the agent keeps its credentials in a file of
its own, never in ~/.aws.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import queue
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Mapping

from .._version import __version__
from ..errors import SmsshError
from ..hookspecs import Context, Hold, Job, Transport, hookimpl
from ._child import Child

if TYPE_CHECKING:
    from ..settings import Settings

AGENT = "amazon-ssm-agent"
WORKERS = ("ssm-agent-worker", "ssm-session-worker", "ssm-document-worker", "ssm-cli")
"""The agent's own programs; it starts them from its own folder when that is not the usual one."""
ACTIVATION_SECONDS = 3600
MAX_ATTEMPTS = 10
"""Calls of an operation that is throttled or not reached, unless AWS_MAX_ATTEMPTS says otherwise."""
REGISTER_LIMIT = 120.0
"""Seconds for the agent's registration; it takes about one."""
SESSIONS_AT_ONCE = 100
"""With the agent's default of 1, sessions that start in the same instant are refused."""
TAG_LIMIT = 256
"""Characters of a tag's value."""
STATES = {
    "ready": "ready",
    "running": "running",
    "held": "held",
    "retried": "running",
    "released": "released",
    "ended": "ended",
}
"""Event to the value of the tag SMSSHState."""

_NODE = re.compile(r"\bmi-[0-9a-f]{17}\b")


class _State:
    """The node of this supervisor; there is one supervisor in a process."""

    client: Any = None
    node = ""
    activation = ""
    agent: Child | None = None
    last = ""
    tags: queue.Queue[str | None] = queue.Queue()
    tagger: threading.Thread | None = None


@hookimpl
def smssh_configure(settings: Settings, job: Job) -> None:  # noqa: ARG001 - the hook's signature
    """Import boto3 (150 ms and more) while the SSH server starts."""
    if settings.transport == "ssm":
        threading.Thread(target=_import_boto3, name="import-boto3", daemon=True).start()


def _import_boto3() -> None:
    with contextlib.suppress(ImportError):
        import boto3  # noqa: F401


@hookimpl
def smssh_start_transport(context: Context) -> Transport | None:
    """Register this container as a managed node and run the agent."""
    if context.settings.transport != "ssm":
        return None
    region = context.environment.get("AWS_REGION") or context.environment.get("AWS_DEFAULT_REGION")
    if not region:
        raise SmsshError("AWS_REGION is not set in this job.", reference="no-region")
    if not context.settings.role:
        raise SmsshError(
            "SMSSH_ROLE is not set.", hint="It names the IAM role of the managed node.", reference="no-role"
        )
    program = shutil.which(AGENT, path=context.environment.get("PATH")) or shutil.which(AGENT)
    if program is None:
        raise SmsshError(f"There is no {AGENT} on the PATH of this image.", reference="no-agent")
    client = _State.client = _client(region)
    folder = _relocate(context, Path(program), region)
    code = _activate(context, client)
    _State.node = _register(context, folder, region, code)
    _start_agent(context, folder)
    context.log.info("managed node %s", _State.node)
    return Transport("ssm", _State.node)


@hookimpl
def smssh_notify(context: Context, event: str, hold: Hold | None) -> None:
    """Keep the node's tag SMSSHState true, best effort and in the background."""
    # The container may be held before its node exists.
    state = "held" if event == "ready" and hold is not None else STATES.get(event)
    if state is None or not _State.node or state == _State.last:
        return
    _State.last = state
    if _State.tagger is None:
        _State.tagger = threading.Thread(target=_tag_all, args=(context,), name="tags", daemon=True)
        _State.tagger.start()
    _State.tags.put(state)


@hookimpl(tryfirst=True)
def smssh_stop(context: Context) -> None:
    """Deregister the node, then stop the agent: a running agent tries for ever to come back."""
    if _State.tagger is not None:
        _State.tags.put(None)
        _State.tagger.join(1.0)
    if _State.client is not None:
        if _State.node:
            try:
                _State.client.deregister_managed_instance(InstanceId=_State.node)
            except Exception as error:  # noqa: BLE001 - botocore's errors share no base worth naming
                context.log.warning("the node is not deregistered: %s", error)
        if _State.activation:
            # It is used up, but would stay in the account's list.
            with contextlib.suppress(Exception):
                _State.client.delete_activation(ActivationId=_State.activation)
    if _State.agent is not None:
        _State.agent.stop(3.0)


def _client(region: str) -> Any:
    """An SSM client with the container's own credentials; botocore retries with jitter, throttling too."""
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise SmsshError("Neither the image nor the bundle has boto3.", reference="no-boto3") from None
    retries: Any = {"mode": "standard"}
    if "AWS_MAX_ATTEMPTS" not in os.environ:
        retries["max_attempts"] = MAX_ATTEMPTS
    config = Config(
        retries=retries,
        connect_timeout=5,
        read_timeout=20,
        user_agent_extra=f"smssh-plugin/{__version__}",
    )
    return boto3.session.Session(region_name=region).client("ssm", config=config)


def tags(context: Context) -> dict[str, str]:
    """The tags of the node; what is empty or too long for a tag is left out."""
    server, job = context.server, context.job
    values = {
        "SMSSH": __version__,
        "SMSSHJob": job.name,
        "SMSSHKind": job.kind,
        "SMSSHHost": job.host,
        "SMSSHStep": job.step,
        "SSHOwner": context.settings.owner,
        "SMSSHHostKey": "" if server is None else server.host_key,
        "SMSSHPort": "" if server is None else str(server.port),
        "SMSSHUser": "" if server is None else server.user,
        "SMSSHCreated": str(int(time.time())),
    }
    return {name: value for name, value in values.items() if 0 < len(value) <= TAG_LIMIT}


def _activate(context: Context, client: Any) -> str:
    """Create the activation; its id is kept for the end, its code is returned and kept nowhere."""
    role = context.settings.role
    if role.startswith("arn:"):
        # arn:aws:iam::123456789012:role/path/name: the operation takes what follows role/.
        role = role.partition(":role/")[2]
    expires = dt.datetime.now(dt.timezone.utc) + dt.timedelta(seconds=ACTIVATION_SECONDS)
    answer = client.create_activation(
        IamRole=role,
        RegistrationLimit=1,
        ExpirationDate=expires,
        DefaultInstanceName=context.job.name[:256],
        Description=f"smssh {context.job.address}"[:256],
        Tags=[{"Key": name, "Value": value} for name, value in tags(context).items()],
    )
    _State.activation = str(answer["ActivationId"])
    return str(answer["ActivationCode"])


def endpoints(environ: Mapping[str, str]) -> dict[str, str]:
    """Endpoints that the job's environment names: `ssm`, `ssmmessages`; what is missing is AWS's own."""
    everything = environ.get("AWS_ENDPOINT_URL")
    found = {
        "ssm": environ.get("AWS_ENDPOINT_URL_SSM") or everything,
        "ssmmessages": environ.get("AWS_ENDPOINT_URL_SSMMESSAGES") or everything,
    }
    return {service: url for service, url in found.items() if url}


def agent_configuration(region: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """The agent's amazon-ssm-agent.json."""
    urls = endpoints(environ)
    configuration: dict[str, dict[str, Any]] = {
        "Mgs": {"Region": region, "SessionWorkerBufferLimit": SESSIONS_AT_ONCE},
        "Agent": {"Region": region},
        "Identity": {"ConsumptionOrder": ["OnPrem"]},
        "Profile": {"ShareCreds": True},
    }
    if "ssm" in urls:
        configuration["Ssm"] = {"Endpoint": urls["ssm"]}
        configuration["Mds"] = {"Endpoint": urls["ssm"]}
    if "ssmmessages" in urls:
        configuration["Mgs"]["Endpoint"] = urls["ssmmessages"]
    return configuration


def _relocate(context: Context, program: Path, region: str) -> Path:
    """A copy of the agent in the run folder, so that it reads our configuration and not /etc/amazon/ssm.

    The agent takes its folder for its own only if its workers lie there too, owned by root and writable for
    nobody else.
    """
    folder = context.run_dir / "agent"
    (folder / "configuration").mkdir(mode=0o755, parents=True, exist_ok=True)
    origin = program.resolve().parent
    for name, source in [(AGENT, program)] + [(name, origin / name) for name in WORKERS]:
        if source.exists():
            shutil.copyfile(str(source), str(folder / name))
            (folder / name).chmod(0o755)
    seelog = next((path for path in (origin / "configuration" / "seelog.xml",) if path.exists()), None)
    if seelog is not None:
        shutil.copyfile(str(seelog), str(folder / "configuration" / "seelog.xml"))
    text = json.dumps(agent_configuration(region, context.environment), indent=1)
    (folder / "configuration" / "amazon-ssm-agent.json").write_text(text, encoding="utf-8")
    return folder


def _agent_environment(context: Context, folder: Path) -> dict[str, str]:
    """The agent's environment: the job's, with a credentials file of its own."""
    environ = {
        name: value
        for name, value in context.environment.items()
        # The agent gets its own role's credentials; the job's must not be mistaken for them.
        if not name.startswith(("PYTHON", "AWS_ACCESS", "AWS_SECRET", "AWS_SESSION", "AWS_CONTAINER"))
    }
    environ["AWS_SHARED_CREDENTIALS_FILE"] = str(folder / "credentials")
    return environ


def _register(context: Context, folder: Path, region: str, code: str) -> str:
    """Register the node and return its id."""
    # The agent takes the code on its command line only. It is good for one registration, which is this one.
    command = [
        str(folder / AGENT),
        "-register",
        "-id",
        _State.activation,
        "-code",
        code,
        "-region",
        region,
        "-y",
    ]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=_agent_environment(context, folder),
            cwd="/",
            timeout=REGISTER_LIMIT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        # Not the error's text: a time-out's has the command line, and with it the code.
        raise SmsshError(
            f"{AGENT} -register did not end: {type(error).__name__}.", reference="not-registered"
        ) from None
    text = done.stdout.decode("utf-8", "replace").replace(code, "...")
    found = _NODE.findall(text)
    if done.returncode != 0 or not found:
        raise SmsshError(
            f"{AGENT} -register failed with status {done.returncode}: {_last_lines(text)}",
            reference="not-registered",
        )
    return str(found[-1])


def _last_lines(text: str) -> str:
    lines: list[str] = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-3:])


def _start_agent(context: Context, folder: Path) -> None:
    agent = Child(
        AGENT,
        [str(folder / AGENT)],
        _agent_environment(context, folder),
        context.run_dir / "agent.log",
        restart=True,
    )
    try:
        agent.start()
    except OSError as error:
        raise SmsshError(f"{AGENT} does not start: {error}.", reference="no-agent") from None
    _State.agent = agent


def _tag_all(context: Context) -> None:
    """Set the tag as the states come; of several that wait, only the last."""
    while True:
        state = _State.tags.get()
        while state is not None and not _State.tags.empty():
            state = _State.tags.get()
        if state is None:
            return
        try:
            _State.client.add_tags_to_resource(
                ResourceType="ManagedInstance",
                ResourceId=_State.node,
                Tags=[{"Key": "SMSSHState", "Value": state}],
            )
        except Exception as error:  # noqa: BLE001 - botocore's errors share no base worth naming
            context.log.warning("SMSSHState=%s is not set: %s", state, error)
