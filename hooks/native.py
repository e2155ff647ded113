"""The native transport: SageMaker's own remote debugging brings the session, we bring the SSH server.

For training jobs with `RemoteDebugConfig.EnableRemoteDebug`, which `with_ssh(SSHOptions(transport="native"))`
sets. SageMaker runs an agent of its own in the container; its target is `sagemaker-training-job:JOB_HOST`
(Amazon SageMaker AI developer guide, "Access a training container through AWS Systems Manager for remote
debugging"). So there is no activation, no managed node and no agent of ours: the SSH server listens on loopback,
and this hook says in S3 where, because such a target has no tags.

The announcement, for clients:

* It is the object `PREFIX/hosts/JOB/HOST.json`; PREFIX is the setting `announce`, an s3:// address. The bucket must
  belong to the job's account, or to the one that the address names (`?owner=`): host and client tell S3 so.
* With a bundle PREFIX is the place of the bundles: a client finds it in the job's own request, as what stands before
  the digest in the S3 address of the channel that carries the bundle, and needs no option to know it. Where it is
  another place, and without a bundle, SMSSH_ANNOUNCE in the job's environment says it.
* It is JSON: `version` (1), `job`, `kind`, `host`, `step`, `arn`, `owner`, `target`, `port` (of the SSH server on
  loopback), `control_port` (of the same server, for what does not count as a person; 0: it has none), `user`,
  `host_key` (type and base64), `state` (ready, running, held, released, ended), `created` and `updated` (seconds since
  the epoch), `plugin_version`. A client must leave alone what it does not know.
* It is written anew with each state, whole, and stays when the job is over: `state` is `ended` then, unless the
  container was killed. SageMaker's own status of the job is the one to believe about its end.
* It is encrypted as the setting `s3_encryption` says: buckets may have a policy that demands it of each PUT.
* The job's role needs s3:PutObject on `PREFIX/hosts/*`, a client s3:GetObject. Everybody who may write there can name
  another host key, so allow it to nobody else.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from typing import TYPE_CHECKING, Any

from .._version import __version__
from ..aws.s3_address import account_of_arn, split_owner
from ..aws.s3_encryption import parameters
from ..container import aws_calls
from ..container.node_state import STATES
from ..errors import SmsshError
from ..hookspecs import Context, Hold, Transport, hookimpl

if TYPE_CHECKING:
    from ..hookspecs import Job

__all__ = ["announcement_key", "target"]

END_SECONDS = 3.0
"""For the last announcement. Where nobody answers, the job ends this much later and no more."""

_log = logging.getLogger("smssh.native")


class _State:
    """The announcement of this supervisor; there is one supervisor in a process."""

    announcement: Announcement | None = None


def target(job: Job) -> str:
    """What a client names to reach this host in a session."""
    return f"sagemaker-training-job:{job.name}_{job.host}"


def announcement_key(prefix: str, job: Job) -> str:
    """The key of a host's announcement.

    Args:
        prefix: without a slash at its end; may be empty.
        job: the job and the host.
    """
    return "/".join(part for part in (prefix, "hosts", job.name, f"{job.host}.json") if part)


class Announcement:
    """The object in S3 that says where this host's SSH server is, and what the job does.

    Args:
        context: the supervisor's; the server is running.
        client: a boto3 client of S3.
    """

    def __init__(self, context: Context, client: Any) -> None:
        address, owner = split_owner(context.settings.announce)
        bucket, _, prefix = address[len("s3://") :].partition("/")
        owner = owner or account_of_arn(context.job.arn)
        self._context = context
        self._client = client
        self._place = {"Bucket": bucket, "Key": announcement_key(prefix.strip("/"), context.job)}
        if owner:
            self._place["ExpectedBucketOwner"] = owner
        self._place.update(parameters(context.settings.s3_encryption))
        self._created = time.time()
        self._state = "ready"
        self._states: queue.Queue[str | None] = queue.Queue()
        self._thread = threading.Thread(target=self._write_all, name="announce", daemon=True)

    def start(self) -> None:
        """Announce for the first time, and keep announcing from then on.

        Raises:
            SmsshError: S3 does not take it.
        """
        aws_calls.call(self._client.put_object, self._context.ending, **self._request())
        self._thread.start()

    def tell(self, state: str) -> None:
        """Announce a state, in the background."""
        self._states.put(state)

    def stop(self) -> None:
        """Announce that the job has ended; END_SECONDS at most."""
        self._states.put("ended")
        self._states.put(None)
        if self._thread.is_alive():
            self._thread.join(END_SECONDS)
        if self._thread.is_alive():
            _log.warning("the end is not announced: no answer in %.0f s", END_SECONDS)

    def _request(self) -> dict[str, Any]:
        context, job, server = self._context, self._context.job, self._context.server
        assert server is not None  # a transport is started when a server is listening
        body = {
            "version": 1,
            "job": job.name,
            "kind": job.kind,
            "host": job.host,
            "step": job.step,
            "arn": job.arn,
            "owner": context.settings.owner,
            "target": target(job),
            "port": server.port,
            "control_port": server.control_port,
            "user": server.user,
            "host_key": server.host_key,
            "state": self._state,
            "created": round(self._created, 3),
            "updated": round(time.time(), 3),
            "plugin_version": __version__,
        }
        text = json.dumps(body, indent=1).encode() + b"\n"
        return {**self._place, "Body": text, "ContentType": "application/json"}

    def _write_all(self) -> None:
        """Announce the states as they come; of several that wait, only the last."""
        while True:
            states = [self._states.get()]
            while not self._states.empty():
                states.append(self._states.get())
            wanted = [state for state in states if state is not None]
            if wanted and wanted[-1] != self._state:
                self._state = wanted[-1]
                try:
                    self._client.put_object(**self._request())
                except Exception as error:  # noqa: BLE001 - botocore's errors share no base worth naming
                    _log.warning(
                        "%s is not announced: %s", self._state, aws_calls.explain(error, self._client).message
                    )
            if None in states:
                return


@hookimpl
def smssh_start_transport(context: Context) -> Transport | None:
    """Announce the SSH server to clients that come by SageMaker's remote debugging."""
    if context.settings.transport != "native":
        return None
    try:
        _start(context)
    except SmsshError as error:
        if not context.ending.is_set():
            context.say("smssh: {}".format(str(error).replace("\n", " ")))
        raise
    return Transport("native", target(context.job))


def _start(context: Context) -> None:
    if context.job.kind != "training":
        raise SmsshError(
            f"the native transport is SageMaker's remote debugging, which no {context.job.kind} job has",
            hint="use the transport ssm",
            reference="native-is-training-only",
        )
    if not context.settings.announce:
        raise SmsshError(
            "this job does not say where its host key is announced",
            hint="set SMSSH_ANNOUNCE=s3://bucket/prefix; with_ssh does it by itself",
            reference="no-announce-place",
        )
    announcement = Announcement(context, aws_calls.client("s3", aws_calls.region(context)))
    announcement.start()
    _State.announcement = announcement


@hookimpl
def smssh_notify(event: str, hold: Hold | None) -> None:
    """Keep the announced state true, in the background."""
    state = "held" if event == "ready" and hold is not None else STATES.get(event)
    if state is not None and _State.announcement is not None:
        _State.announcement.tell(state)


@hookimpl(tryfirst=True)
def smssh_stop() -> None:
    """Announce the end."""
    if _State.announcement is not None:
        _State.announcement.stop()
