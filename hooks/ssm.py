"""The ssm transport: an activation makes the container a managed node, Amazon's agent serves its sessions.

The node's tags say all that a client needs: job, kind, host, step, owner, port, user and host key. Why a login
is not possible stands in the job's log, in one line.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Any

from ..container import aws_calls, ssm_agent
from ..container.managed_node import ContainerNode
from ..container.node_state import STATES
from ..container.ssm_calls import prepare, suffices
from ..errors import SmsshError
from ..hookspecs import Context, Hold, Job, Transport, hookimpl

if TYPE_CHECKING:
    from ..settings import Settings

AGENT_STOP_SECONDS = 1.0
"""The agent takes 7 s to end by itself; its sessions have ended with the node."""
ANY_REGION = "us-east-1"
"""For a client that calls nothing."""


class _State:
    """The node of this supervisor; there is one supervisor in a process."""

    preparation: threading.Thread | None = None
    boto_session: Any = None
    node: ContainerNode | None = None
    agent: ssm_agent.Running | None = None


@hookimpl
def smssh_configure(settings: Settings, job: Job) -> None:  # noqa: ARG001 - the hook's signature
    """Import what the calls need while the SSH server starts: boto3 and its models take 400 ms and more."""
    if settings.transport == "ssm":
        _State.preparation = threading.Thread(target=_prepare, name="prepare", daemon=True)
        _State.preparation.start()


def _prepare() -> None:
    # Whatever is wrong here is wrong again, and told, when it is needed.
    with contextlib.suppress(Exception):
        if suffices(ANY_REGION, os.environ):
            prepare()
        else:
            boto_session = aws_calls.boto_session()
            aws_calls.client("ssm", ANY_REGION, boto_session)
            _State.boto_session = boto_session


@hookimpl
def smssh_start_transport(context: Context) -> Transport | None:
    """Register this container as a managed node and run the agent."""
    if context.settings.transport != "ssm":
        return None
    try:
        node = _start(context)
    except (SmsshError, OSError) as error:
        # An OSError is the run folder's: full, or read-only.
        if not context.ending.is_set():
            context.say("smssh: {}".format(str(error).replace("\n", " ")))
        raise
    context.log.info("managed node %s", node)
    return Transport("ssm", node)


def _start(context: Context) -> str:
    region = aws_calls.region(context)
    if not context.settings.role:
        raise SmsshError(
            "SMSSH_ROLE is not set",
            hint="set it in the job's environment to the IAM role of the managed node, such as the job's own; with_ssh "
            "does it by itself",
            reference="no-role",
        )
    installed = ssm_agent.install(context, region)
    context.log.info("the agent is %s", installed.origin)
    if _State.preparation is not None:
        _State.preparation.join()
    node = _State.node = ContainerNode(context, aws_calls.client("ssm", region, _State.boto_session))
    node.register(installed, region)
    agent = _State.agent = ssm_agent.Running(context, installed)
    try:
        agent.start()
    except SmsshError:
        agent.stop(AGENT_STOP_SECONDS)
        raise
    return node.id


@hookimpl
def smssh_notify(event: str, hold: Hold | None) -> None:
    """Keep the node's tag SMSSHState true, best effort and in the background."""
    # The container may be held before its node exists.
    state = "held" if event == "ready" and hold is not None else STATES.get(event)
    if state is not None and _State.node is not None:
        _State.node.tag_state(state)


@hookimpl(tryfirst=True)
def smssh_stop() -> None:
    """Deregister the node, then stop the agent: a running agent tries for ever to come back."""
    if _State.node is not None:
        _State.node.deregister()
    if _State.agent is not None:
        _State.agent.stop(AGENT_STOP_SECONDS)
