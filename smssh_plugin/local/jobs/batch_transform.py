"""Batch transform jobs: the model's server, fed with the objects of a prefix.

Facts: AWS' developer guide, "Use Batch Transform" and "Use Your Own Inference Code with Batch Transform";
the SDK's local mode, sagemaker.core.local.entities._LocalTransformJob, for variables, splitting and
assembling.

SplitType None and Line are served, BatchStrategy SingleRecord and MultiRecord, AssembleWith None and Line.
"""

from __future__ import annotations

import asyncio
import collections
import datetime as dt
import gzip
import json
import logging
import socket
import time
import zlib
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING, Any

import aiohttp

from ..sandbox.container import SandboxStartError, shared_network
from .inputs import S3Object, download, extract_model, find, shard
from .kinds import SEE_LOGS, ClientFault, Outcome, cannot_start
from .outputs import join, upload_file

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator
    from pathlib import Path

    from .job_run import Container, JobRun
    from .log_streams import LogStream

__all__ = ["Plan", "payloads", "run_transform"]

_log = logging.getLogger(__name__)

_PORT = 8080
"""Where a model's server listens."""
_PING_PERIOD = 0.1
_PING_TIMEOUT = 2.0
"""Seconds an answer to /ping may take: the service's own."""

_DEFAULT_PAYLOAD_MB = 6
_DEFAULT_TIMEOUT = 600
_DEFAULT_RETRIES = 3

_NO_RESPONSE = "AlgorithmError: Unable to get response from algorithm"


@dataclass(frozen=True)
class Plan:
    """How input becomes requests, and answers become output.

    Args:
        split: SplitType: None or Line.
        multi: whether a request holds as many records as fit (BatchStrategy).
        assemble: AssembleWith: None or Line.
        most_bytes: of a request's body; 0 for no limit.
        at_once: requests in flight on one host.
        content_type: of the requests.
        accept: of the requests.
        timeout: seconds for one answer.
        retries: after the first attempt, when there was no answer.
    """

    split: str
    multi: bool
    assemble: str
    most_bytes: int
    at_once: int
    content_type: str | None
    accept: str | None
    timeout: float
    retries: int


class _RecordFault(Exception):  # noqa: N818 - named as ClientFault is
    """An input object that cannot be transformed.

    Args:
        message: for the job's data log.
        by: who is to blame: `ClientError` or `AlgorithmError`.
    """

    def __init__(self, message: str, by: str) -> None:
        super().__init__(message)
        self.by = by


async def run_transform(run: JobRun) -> Outcome:
    """Run a transform job to its end.

    Raises:
        ClientFault: the request, the model, or what they name in S3, cannot be served.
        JobStopped: stopped before its containers ran.
    """
    request = run.job.request
    model = _container(run.job.model)
    plan = _plan(request)
    source = request["TransformInput"]["DataSource"]["S3DataSource"]
    containers = run.add_hosts(request["TransformResources"].get("InstanceCount", 1))
    run.status("Downloading", "Downloading model and input data")
    objects = await run.blocking(find, run.s3, source)
    for container in containers:
        await run.blocking(_prepare, run, container, model)
    run.check_stopped()

    run.status("Transforming", "Transforming in progress.")
    # Where all containers share one network, only one of them could have 8080; the toolkits bind to what is said.
    shared = shared_network() is not None
    ports = _free_ports(len(containers)) if shared else [_PORT] * len(containers)
    environments = [_environment(run, model, port) for port in ports]
    try:
        await run.start(["serve"], environments)
    except SandboxStartError as error:
        if error.stage != "exec":
            raise
        return Outcome("Failed", "Failed", failure_reason=cannot_start("serve", error.message), exit_code=127)

    hosts = [
        _Host(run, container, port, plan, shard(objects, "ShardedByS3Key", index, len(containers)))
        for index, (container, port) in enumerate(zip(containers, ports, strict=True))
    ]
    reason = await _transform(run, hosts)
    times: dict[str, Any] = {"started": run.started, "ended": run.ended}
    code = next((container.exit_code for container in containers if container.exit_code), 0)
    if run.stopped_as is not None:
        return Outcome("Stopped", run.stopped_as, exit_code=code, **times)
    if reason is not None:
        return Outcome("Failed", "Failed", failure_reason=reason, exit_code=code, **times)
    return Outcome("Completed", "Completed", exit_code=0, **times)


async def _transform(run: JobRun, hosts: list[_Host]) -> str | None:
    """Feed the servers; end them when all is done, one of them ends, or the job is to stop.

    Returns:
        The FailureReason; None if it succeeded.
    """
    work = asyncio.gather(*(host.run() for host in hosts))
    ends = [asyncio.create_task(container.wait()) for container in run.containers]
    stop = asyncio.create_task(run.stop_asked.wait())
    try:
        everything: set[asyncio.Future[Any]] = {work, stop, *ends}
        await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            reasons = [reason for reason in work.result() if reason is not None]
            return reasons[0] if reasons else None
        return None if stop.done() else "AlgorithmError: " + SEE_LOGS
    finally:
        work.cancel()
        stop.cancel()
        await asyncio.gather(work, stop, return_exceptions=True)
        grace = run.tools.grace if run.stopped_as is not None else run.tools.serve_grace
        await run.end_containers(grace)
        await asyncio.gather(*ends)


class _Connector(aiohttp.BaseConnector):
    """Connects to one port of a container, which is in another network: as aiohttp.UnixConnector does to a path."""

    def __init__(self, container: Container, port: int) -> None:
        super().__init__()
        self._container = container
        self._port = port

    async def _create_connection(self, _req: Any, _traces: Any, timeout: Any) -> Any:
        try:
            made = await asyncio.wait_for(self._container.connect(self._port), timeout.sock_connect)
            _, protocol = await self._loop.create_connection(self._factory, sock=made)
        except OSError as error:
            raise aiohttp.ClientConnectionError(
                f"port {self._port} of {self._container.host}: {error}"
            ) from error
        return protocol


class _Host:
    """One host's server, and its share of the input.

    Args:
        run: the job.
        container: the container.
        port: of its server.
        plan: how to feed it.
        objects: its share.
    """

    def __init__(
        self, run: JobRun, container: Container, port: int, plan: Plan, objects: list[S3Object]
    ) -> None:
        self._run = run
        self._container = container
        self._port = port
        self._url = f"http://127.0.0.1:{port}"
        self._plan = plan
        self._objects = objects

    async def run(self) -> str | None:
        """Transform everything.

        Returns:
            The FailureReason; None if it succeeded. An object that fails does not keep the others from
            being transformed.
        """
        reason = None
        log = self._container.stream("/data-log")
        try:
            async with aiohttp.ClientSession(connector=_Connector(self._container, self._port)) as client:
                if not await self._ready(client):
                    return _NO_RESPONSE
                await self._ask_limits(client)
                await _say(log, "", self._describe())
                for item in self._objects:
                    if item.relative.endswith("/") or not item.relative:
                        continue
                    try:
                        await self._object(client, item)
                    except _RecordFault as fault:
                        await _say(log, f"{item.bucket}/{item.key}", str(fault))
                        reason = reason or f"{fault.by}: {SEE_LOGS}"
        finally:
            await log.close()
        return reason

    async def _ready(self, client: aiohttp.ClientSession) -> bool:
        """Wait for 200 from /ping."""
        deadline = time.monotonic() + self._run.tools.ping_deadline
        timeout = aiohttp.ClientTimeout(total=_PING_TIMEOUT)
        while time.monotonic() < deadline:
            try:
                async with client.get(self._url + "/ping", timeout=timeout) as response:
                    if response.status == 200:
                        return True
            except (aiohttp.ClientError, asyncio.TimeoutError):
                pass
            await asyncio.sleep(_PING_PERIOD)
        return False

    async def _ask_limits(self, client: aiohttp.ClientSession) -> None:
        """Take from /execution-parameters what the request leaves open; a server need not have it."""
        try:
            timeout = aiohttp.ClientTimeout(total=_PING_TIMEOUT)
            async with client.get(self._url + "/execution-parameters", timeout=timeout) as response:
                if response.status != 200:
                    return
                limits = json.loads(await response.read())
                request = {**limits, **{key: value for key, value in self._run.job.request.items() if value}}
                asked = _plan({**request, "TransformInput": self._run.job.request["TransformInput"]})
                self._plan = replace(asked, split=self._plan.split)
        except (aiohttp.ClientError, asyncio.TimeoutError, ValueError, TypeError) as error:
            _log.info("no use of /execution-parameters: %s", error)

    def _describe(self) -> str:
        plan = self._plan
        return "MaxConcurrentTransforms={}, MaxPayloadInMB={}, BatchStrategy={}".format(
            plan.at_once, plan.most_bytes >> 20, "MULTI_RECORD" if plan.multi else "SINGLE_RECORD"
        )

    async def _object(self, client: aiohttp.ClientSession, item: S3Object) -> None:
        """Transform one object and upload its result.

        Raises:
            _RecordFault: a request failed; nothing is uploaded.
            ClientFault: S3 says no.
        """
        run = self._run
        request = run.job.request
        work = self._container.folder / "transform"
        source, result = work / "input", work / "output"
        name = replace(item, relative="input")
        await run.blocking(download, run.s3, [name], work, run.stopping)
        packed = request["TransformInput"].get("CompressionType", "None") == "Gzip"
        with open(source, "rb") as plain, open(result, "wb") as out:
            records: IO[bytes] = gzip.GzipFile(fileobj=plain) if packed else plain  # type: ignore[assignment]
            async for answer in self._answers(client, payloads(records, self._plan)):
                out.write(answer)
                if self._plan.assemble == "Line" and not answer.endswith(b"\n"):
                    out.write(b"\n")
        target = join(request["TransformOutput"]["S3OutputPath"], item.relative + ".out")
        await run.blocking(upload_file, run.s3, result, target)

    async def _answers(self, client: aiohttp.ClientSession, bodies: Iterable[bytes]) -> AsyncIterator[bytes]:
        """The answers in the order of the requests, of which some are in flight together.

        Raises:
            _RecordFault: one failed.
        """
        flying: collections.deque[asyncio.Task[bytes]] = collections.deque()
        try:
            for body in bodies:
                flying.append(asyncio.create_task(self._invoke(client, body)))
                if len(flying) >= self._plan.at_once:
                    yield await flying.popleft()
            while flying:
                yield await flying.popleft()
        finally:
            for task in flying:
                task.cancel()
            await asyncio.gather(*flying, return_exceptions=True)

    async def _invoke(self, client: aiohttp.ClientSession, body: bytes) -> bytes:
        """One request; again when there is no answer.

        Raises:
            _RecordFault: no answer, or one that is not 200.
        """
        plan = self._plan
        headers = {}
        if plan.content_type:
            headers["Content-Type"] = plan.content_type
        if plan.accept:
            headers["Accept"] = plan.accept
        attempt = 0
        while True:
            try:
                async with client.post(
                    self._url + "/invocations",
                    data=body,
                    headers=headers,
                    skip_auto_headers=["Content-Type", "Accept"],
                    timeout=aiohttp.ClientTimeout(total=plan.timeout),
                ) as response:
                    answer = await response.read()
                    if response.status == 200:
                        return answer
                    raise _RecordFault(
                        "Bad HTTP status received from algorithm: {}\n\nMessage:\n{}".format(
                            response.status, answer.decode("utf-8", "replace")
                        ),
                        "ClientError" if response.status < 500 else "AlgorithmError",
                    )
            except (aiohttp.ClientError, asyncio.TimeoutError) as error:  # noqa: PERF203 - it is the loop's point
                attempt += 1
                if attempt > plan.retries:
                    raise _RecordFault(
                        f"Unable to get response from algorithm: {error!r}", "AlgorithmError"
                    ) from None


def payloads(records: IO[bytes], plan: Plan) -> Iterator[bytes]:
    """The bodies of the requests for one object.

    Raises:
        _RecordFault: a record is larger than a request may be, or the object is not the gzip it should be.
    """
    try:
        yield from _bodies(records, plan)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _RecordFault(f"Not the Gzip that CompressionType says: {error}", "ClientError") from None


def _bodies(records: IO[bytes], plan: Plan) -> Iterator[bytes]:
    """As `payloads`; errors of reading are as they come.

    Raises:
        _RecordFault: a record is larger than a request may be.
    """
    limit = plan.most_bytes
    if plan.split == "None":
        body = records.read(limit + 1) if limit else records.read()
        if limit and len(body) > limit:
            raise _RecordFault("Too much data for max payload size", "ClientError")
        yield body
        return
    batch: list[bytes] = []
    size = 0
    for record in records:
        if not record.strip(b"\r\n"):
            continue
        if limit and len(record) > limit:
            raise _RecordFault("Too much data for max payload size", "ClientError")
        if batch and (not plan.multi or (limit and size + len(record) > limit)):
            yield b"".join(batch)
            batch, size = [], 0
        batch.append(record)
        size += len(record)
    if batch:
        yield b"".join(batch)


async def _say(log: LogStream, subject: str, text: str) -> None:
    """Write to the data log as the service does."""
    stamp = dt.datetime.now(dt.timezone.utc).isoformat(timespec="milliseconds")[:23]
    for line in text.split("\n"):
        parts = [stamp + ":[sagemaker logs]", *([subject] if subject else []), line]
        await log.write(": ".join(parts).encode() + b"\n")


def _container(model: dict[str, Any] | None) -> dict[str, Any]:
    """The one container of a model.

    Raises:
        ClientFault: there is no model, or more than one.
    """
    if model is None:
        raise ClientFault("the job has no model")
    containers = (
        [model["PrimaryContainer"]] if model.get("PrimaryContainer") else model.get("Containers") or []
    )
    if len(containers) != 1:
        raise ClientFault(f"a model of {len(containers)} containers is not served here; use one")
    first: dict[str, Any] = containers[0]
    return first


def _plan(request: dict[str, Any]) -> Plan:
    """Read a request.

    Raises:
        ClientFault: it asks for what is not served.
    """
    source = request["TransformInput"]
    output = request["TransformOutput"]
    split = source.get("SplitType", "None")
    if split not in ("None", "Line"):
        raise ClientFault(f"SplitType {split} is not served here; use None or Line")
    processing = request.get("DataProcessing") or {}
    if (
        processing.get("InputFilter", "$") != "$"
        or processing.get("OutputFilter", "$") != "$"
        or processing.get("JoinSource", "None") != "None"
    ):
        raise ClientFault("DataProcessing is not served here")
    if "S3DataSource" not in source["DataSource"]:
        raise ClientFault("TransformInput.DataSource has no S3DataSource")
    client = request.get("ModelClientConfig") or {}
    # Without a SplitType there is one record an object.
    multi = split != "None" and request.get("BatchStrategy", "MultiRecord") == "MultiRecord"
    return Plan(
        split=split,
        multi=multi,
        assemble=output.get("AssembleWith", "None"),
        most_bytes=request.get("MaxPayloadInMB", _DEFAULT_PAYLOAD_MB) << 20,
        at_once=max(1, request.get("MaxConcurrentTransforms") or 1),
        content_type=source.get("ContentType"),
        accept=output.get("Accept"),
        timeout=client.get("InvocationsTimeoutInSeconds", _DEFAULT_TIMEOUT),
        retries=client.get("InvocationsMaxRetries", _DEFAULT_RETRIES),
    )


def _environment(run: JobRun, model: dict[str, Any], port: int) -> dict[str, str]:
    """The variables of the server: the job's over the model's."""
    request = run.job.request
    environment = {
        "TRANSFORM_JOB_NAME": run.job.name,
        "TRANSFORM_JOB_ARN": run.job.arn,
        "SAGEMAKER_BATCH": "True",
        "SAGEMAKER_MAX_PAYLOAD_IN_MB": str(request.get("MaxPayloadInMB", _DEFAULT_PAYLOAD_MB)),
        "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": str(request.get("MaxConcurrentTransforms") or 1),
    }
    if "BatchStrategy" in request:
        single = request["BatchStrategy"] == "SingleRecord"
        environment["SAGEMAKER_BATCH_STRATEGY"] = "SINGLE_RECORD" if single else "MULTI_RECORD"
    environment.update(model.get("Environment") or {})
    environment.update(request.get("Environment") or {})
    if port != _PORT:
        environment["SAGEMAKER_BIND_TO_PORT"] = str(port)
    return environment


def _prepare(run: JobRun, container: Container, model: dict[str, Any]) -> None:
    """Bring the model, and what comes with it.

    Raises:
        ClientFault: S3 says no, or the archive is bad.
        JobStopped: the job was asked to stop.
    """
    home = container.ml / "model"
    home.mkdir()
    if model.get("ModelDataUrl"):
        _bring(run, {"S3Uri": model["ModelDataUrl"], "S3DataType": "S3Object"}, "Gzip", container, home)
    elif model.get("ModelDataSource"):
        source = model["ModelDataSource"]["S3DataSource"]
        _bring(run, source, source.get("CompressionType", "None"), container, home)
    for extra in model.get("AdditionalModelDataSources") or []:
        source = extra["S3DataSource"]
        folder = container.ml / "additional-model-data-sources" / extra["ChannelName"]
        _bring(run, source, source.get("CompressionType", "None"), container, folder)
    run.check_stopped()


def _bring(run: JobRun, source: dict[str, Any], compression: str, container: Container, folder: Path) -> None:
    """Bring one model data source.

    Raises:
        ClientFault: S3 says no, or the archive is bad.
    """
    try:
        objects = find(run.s3, source)
    except ClientFault:
        raise ClientFault(
            "Could not access model data at {}. Please ensure that the object exists, and that the role has"
            ' "s3:GetObject" permissions.'.format(source["S3Uri"])
        ) from None
    if compression != "Gzip":
        download(run.s3, objects, folder, run.stopping)
        return
    work = container.folder / "archive"
    download(run.s3, [replace(objects[0], relative="model.tar.gz")], work, run.stopping)
    extract_model(work / "model.tar.gz", folder)
    (work / "model.tar.gz").unlink()


def _free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listens on, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [item.getsockname()[1] for item in sockets]
    finally:
        for item in sockets:
            item.close()
