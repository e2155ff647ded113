"""A container's life as a managed node of Systems Manager: activated, registered, tagged, taken away again.

The activation is good for one registration and ends by itself after ACTIVATION_SECONDS; it is deleted as soon
as the node is registered. The node is deregistered when the job ends, within END_SECONDS: what a job leaves
behind when it is killed before that is found by its tags.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import re
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any, Callable

from .._version import __version__
from ..errors import SmsshError
from ..setting_values import TAG_LIMIT, no_tag_holds
from . import aws_calls
from .node_state import STATES
from .ssm_agent import AGENT, Installed, agent_environment

if TYPE_CHECKING:
    from ..hookspecs import Context

__all__ = ["ContainerNode", "role_names", "tag_text", "tags"]

ACTIVATION_SECONDS = 1800
"""How long an activation can be used; it is within seconds."""
END_PAUSE = 1.0
"""Between two attempts at the end of the job, at most."""
REGISTER_SECONDS = 60.0
"""For the agent's registration; it takes about one second, and 8 s to give up where nobody answers."""
GRACE_SECONDS = 1.5
"""What is left to a registration when the job ends in the middle of it."""
END_SECONDS = 4.0
"""For all calls at the end of the job. Where nobody answers, the job ends this much later and no more."""
ROLE_LIMIT = 64
"""Characters of CreateActivation's IamRole, in botocore's model of the service."""

# Agents print it as "Managed instance-id: mi-...".
_NODE = re.compile(r"\bmi-[0-9a-f]{17}\b")
_log = logging.getLogger("smssh.ssm")


def tag_text(text: str) -> str:
    """The text as a tag can hold it: other characters become `_`; "" when it is too long."""
    unfit = no_tag_holds(text)
    kept = "".join("_" if each in unfit else each for each in text).strip()
    return kept if len(kept) <= TAG_LIMIT else ""


def tags(context: Context) -> dict[str, str]:
    """The tags of the node: all that a client needs to find it and to know its host key."""
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
        "SMSSHControlPort": "" if server is None or not server.control_port else str(server.control_port),
        "SMSSHUser": "" if server is None else server.user,
        "SMSSHCreated": str(int(time.time())),
    }
    if len(job.hosts) > 1 and context.settings.hold_hosts == "all":
        # From the first moment on the others know of it; see `hosts`, which changes them.
        values.update(SMSSHPhase="running", SMSSHCourse="1")
    found = {}
    for name, value in values.items():
        found[name] = tag_text(value)
        if found[name] != value:
            # An IAM condition on SSHOwner compares with the value as it was meant.
            context.log.warning("the tag %s cannot hold %r; it is %r", name, value[:300], found[name])
    return {name: value for name, value in found.items() if value}


def role_names(role: str) -> list[str]:
    """The role as CreateActivation takes it, likeliest first: with its path, and by its bare name.

    The service's documentation names no path; in the console and for sagemaker-ssh-helper it works with one.
    """
    # arn:aws:iam::123456789012:role/path/name
    whole = role.partition(":role/")[2] if role.startswith("arn:") else role
    names = [whole, whole.rpartition("/")[2]]
    return [name for name in dict.fromkeys(names) if len(name) <= ROLE_LIMIT] or names[1:]


class ContainerNode:
    """The managed node of this container.

    Args:
        context: the supervisor's.
        client: of SSM, see `aws_calls.client`.
    """

    def __init__(self, context: Context, client: Any) -> None:
        self.id = ""
        """mi-..., once it is registered."""
        self._context = context
        self._client = client
        self._activation = ""
        """Its id, also after it is deleted: the node that it made is found by it."""
        self._activation_deleted = False
        self._chores: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._chore_thread: threading.Thread | None = None
        self._state = ""
        self._wanted_state = ""
        self._leaving = threading.Event()
        """Set from the beginning of the deregistration on, unless that has failed."""
        self._tagging = threading.Lock()

    # ------------------------------------------------------------------------------------------------ start

    def register(self, installed: Installed, region: str) -> None:
        """Activate and register.

        Raises:
            SmsshError: it cannot be done, or the job is over.
        """
        code = self._activate()
        try:
            self.id = self._register(installed, region, code)
        finally:
            # It can be used no more, and would stay in the account's list.
            self._later(self._delete_activation)

    def _activate(self) -> str:
        """Create the activation; its id is kept for the end, its code is returned and kept nowhere."""
        job = self._context.job
        names = role_names(self._context.settings.role)
        parameters: dict[str, Any] = {
            "RegistrationLimit": 1,
            "DefaultInstanceName": tag_text(job.name),
            "Description": f"smssh {job.address}"[:256],
            "Tags": [{"Key": name, "Value": value} for name, value in tags(self._context).items()],
        }
        while True:
            # Anew for each attempt: throttled for long, it would be over before it is created.
            expires = int(time.time()) + ACTIVATION_SECONDS
            try:
                answer = aws_calls.call(
                    self._client.create_activation,
                    self._context.ending,
                    IamRole=names.pop(0),
                    ExpirationDate=expires,
                    **parameters,
                )
            except SmsshError as error:
                if not names or "iamRole" not in error.message:
                    raise
            else:
                self._activation = str(answer["ActivationId"])
                return str(answer["ActivationCode"])

    def _register(self, installed: Installed, region: str, code: str) -> str:
        """Have the agent register, and return the node's id."""
        # The agent takes the code on its command line only; others can see it there for a second. It is good for
        # one registration, which is this one.
        command = [str(installed.program), "-register", "-id", self._activation, "-code", code]
        command += ["-region", region, "-y"]
        log = installed.folder / "register.log"
        try:
            handle = os.open(str(log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(handle, "wb") as out:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    env=agent_environment(self._context, installed.folder),
                    cwd="/",
                )
        except OSError as error:
            # Not the whole error: it may have the command line in it, and with it the code.
            raise SmsshError(
                f"{AGENT} -register does not start: {error.strerror}", reference="no-agent"
            ) from None
        status = self._wait(process)
        text = log.read_text(encoding="utf-8", errors="replace").replace(code, "...")
        log.unlink()
        found = _NODE.findall(text)
        # A registration that was cut off may be done all the same.
        self.id = str(found[-1]) if found else ""
        if status != 0 or not found:
            raise self._explain(status, text)
        return self.id

    def _wait(self, process: subprocess.Popen[bytes]) -> int | None:
        """The status of the registration; None when it was ended because time, or the job, was over."""
        deadline = time.monotonic() + REGISTER_SECONDS
        while process.poll() is None:
            if self._context.ending.wait(0.02):
                deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
                time.sleep(0.02)
            if time.monotonic() >= deadline:
                process.kill()
                process.wait()
                return None
        return process.returncode

    def _explain(self, status: int | None, text: str) -> SmsshError:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        said = " | ".join(lines[-3:])[-500:]
        hint = None
        if os.geteuid() != 0 and "permitted" in text:
            hint = (
                "run the container as root, or use SSHOptions(transport='native') for a training job: Amazon's agent "
                "registers as root only"
            )
        elif "read-only file system" in text.lower():
            hint = "make /var/lib/amazon/ssm writable, where the agent keeps its state"
        elif "RegisterManagedInstance" in text and "dial" in text:
            hint = "give a VPC without internet the interface endpoint ssm"
        ended = f"failed with status {status}" if status is not None else "did not end in time"
        return SmsshError(f"{AGENT} -register {ended}: {said}", hint=hint, reference="not-registered")

    # ------------------------------------------------------------------------------------- while the job runs

    def tag_state(self, state: str) -> None:
        """Set the tag SMSSHState, in the background; of several that wait, only the last.

        `ended` is not set before the node turns out to stay: it is about to be deregistered.
        """
        self._wanted_state = state
        if state != STATES["ended"]:
            self._later(self._tag_state)

    def _tag_state(self) -> None:
        with self._tagging:
            self._set_state(self._wanted_state)

    def _set_state(self, state: str) -> None:
        if not self.id or state == self._state or self._leaving.is_set():
            return
        try:
            self._client.add_tags_to_resource(
                ResourceType="ManagedInstance",
                ResourceId=self.id,
                Tags=[{"Key": "SMSSHState", "Value": state}],
            )
            self._state = state
        except Exception as error:  # noqa: BLE001 - errors of the network, the service and botocore
            if self._leaving.is_set():
                # A node that is gone has no owner: IAM denies the call, or the service knows no such node.
                _log.debug("SMSSHState=%s is not set any more", state)
                return
            _log.warning(
                "SMSSHState=%s is not set: %s", state, aws_calls.explain(error, self._client).message
            )

    def _later(self, chore: Callable[[], None]) -> None:
        """Have a chore done in the background, after those before it."""
        if self._chore_thread is None:
            self._chore_thread = threading.Thread(target=self._work, name="ssm-chores", daemon=True)
            self._chore_thread.start()
        self._chores.put(chore)

    def _work(self) -> None:
        while True:
            chore = self._chores.get()
            if chore is None:
                return
            chore()

    def _delete_activation(self, over: threading.Event | None = None) -> None:
        if not self._activation or self._activation_deleted:
            return
        try:
            if over is None:  # one attempt: other chores wait, and there is the end of the job
                self._client.delete_activation(ActivationId=self._activation)
            else:
                self._insist(self._client.delete_activation, over, ActivationId=self._activation)
            self._activation_deleted = True
        except Exception as error:  # noqa: BLE001 - errors of the network, the service and botocore
            _log.info("the activation is not deleted: %s", aws_calls.explain(error, self._client).message)

    # ------------------------------------------------------------------------------------------------- the end

    def deregister(self) -> None:
        """Take the node away, or what there is of it; END_SECONDS at most.

        Its tags go with it, so what of them was not set yet is not set any more, unless it cannot be taken away.
        """
        self._leaving.set()
        over = threading.Event()
        thread = threading.Thread(target=self._deregister, args=(over,), name="deregister", daemon=True)
        thread.start()
        thread.join(END_SECONDS)
        over.set()
        if thread.is_alive():
            _log.warning("the node %s is not deregistered in %.0f s", self.id, END_SECONDS)

    def _deregister(self, over: threading.Event) -> None:
        self._chores.put(None)
        # The service may take two calls at once in the other order: a node that is gone has no owner to compare.
        if self._tagging.acquire(timeout=END_PAUSE):
            self._tagging.release()
        for node in [self.id] if self.id else self._nodes_of_activation(over):
            try:
                self._insist(self._client.deregister_managed_instance, over, InstanceId=node)
            except Exception as error:  # noqa: BLE001, PERF203 - errors of the network, the service and botocore
                _log.warning(
                    "the node %s is not deregistered: %s",
                    node,
                    aws_calls.explain(error, self._client).message,
                )
                self._leaving.clear()
                self._tag_state()
        self._delete_activation(over)

    def _nodes_of_activation(self, over: threading.Event) -> list[str]:
        """A registration that was cut off in the middle may have left a node; only Systems Manager knows."""
        if not self._activation:
            return []
        filters = [{"Key": "ActivationIds", "Values": [self._activation]}]
        with contextlib.suppress(Exception):
            found = self._insist(self._client.describe_instance_information, over, Filters=filters)
            return [str(node["InstanceId"]) for node in found["InstanceInformationList"]]
        return []

    @staticmethod
    def _insist(operation: Callable[..., Any], over: threading.Event, **parameters: Any) -> Any:
        """Again while that may help: the hosts of a job end together, and are throttled together."""
        return aws_calls.call(operation, over, longest_pause=END_PAUSE, **parameters)
