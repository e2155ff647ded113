"""One job while it runs: its folder, its containers, how they end.

What is particular to a kind is in training.py, processing.py and transform.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from ..native_agent import NativeAgent, target_of
from ..removal import remove_tree
from ..sandbox.container import HOME, Hub, Sandbox, SandboxSpec, SandboxStartError, interface, shared_network
from .kinds import Job, JobStopped, host_names
from .log_streams import LogStream
from .outputs import Tree

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable
    from concurrent.futures import Executor

    from ..image_views import View
    from ..keyring import Key, Keyring

__all__ = ["Container", "JobRun", "Tools", "remove_orphans"]

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

_GROUPS = {
    "training": "/aws/sagemaker/TrainingJobs",
    "processing": "/aws/sagemaker/ProcessingJobs",
    "transform": "/aws/sagemaker/TransformJobs",
}

_IMAGE_ENVIRONMENT = {
    # As the images of AWS have it: output as it comes, no bytecode into the image.
    "LANG": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
}


@dataclass(frozen=True)
class Tools:
    """What all jobs share.

    Args:
        s3_of: a boto3 S3 client for jobs, by the ARN of their role.
        logs: a boto3 CloudWatch Logs client.
        pool: where blocking calls run.
        jobs: the folder of the jobs' folders.
        environment: variables that every container gets: region, endpoint.
        keyring: issues the jobs' credentials; None where they are in `environment`.
        grace: seconds from SIGTERM to SIGKILL when a training or processing job is stopped.
        serve_grace: the same when a transform job's server is no longer needed.
        ping_deadline: seconds that a transform job's server has to answer /ping.
        pace: seconds from one message of an agent's output to the next.
    """

    s3_of: Callable[[str], Any]
    logs: Any
    pool: Executor
    jobs: Path
    environment: dict[str, str]
    keyring: Keyring | None
    grace: float
    serve_grace: float
    ping_deadline: float
    pace: float


class Container:
    """One host of a job."""

    def __init__(self, run: JobRun, host: str) -> None:
        self.host = host
        self.exit_code: int | None = None
        self._run = run
        self._log: LogStream | None = None
        self._sandbox: Sandbox | None = None
        self._environment: dict[str, str] = {}
        self._native: NativeAgent | None = None
        self._native_turn = asyncio.Lock()
        self._ending: asyncio.Task[int] | None = None
        self.folder = run.folder / host
        self.ml = self.folder / "ml"
        self.ml.mkdir(parents=True)

    def inside(self, path: str) -> Path:
        """Where a path below /opt/ml is on this machine.

        Raises:
            ValueError: it is not below /opt/ml.
        """
        normal = os.path.normpath(path)
        if normal != "/opt/ml" and not normal.startswith("/opt/ml/"):
            raise ValueError(path)
        return Path(str(self.ml) + normal[len("/opt/ml") :])

    def tree(self, path: str) -> Tree:
        """A folder below /opt/ml, to be uploaded.

        Raises:
            ValueError: it is not below /opt/ml.
        """
        return Tree(self.ml, self.inside(path))

    def stream(self, suffix: str = "") -> LogStream:
        """Open a log stream of this host."""
        run = self._run
        return LogStream(
            run.tools.logs,
            run.tools.pool,
            _GROUPS[run.job.kind],
            f"{run.job.name}/{self.host}-{int(time.time() * 1000)}{suffix}",
            run.folder / "{}{}.log".format(self.host, suffix.replace("/", "-")),
            lambda line: run.on_line(run.job, self.host, line),
        )

    async def start(
        self, argv: list[str], environment: dict[str, str], hosts: list[str], hub: Hub | None
    ) -> None:
        """Start the container's command.

        Args:
            argv: the command.
            environment: what this job, and its request, add.
            hosts: all hosts of the job.
            hub: what connects them.

        Raises:
            SandboxStartError: it does not start.
        """
        tools, view = self._run.tools, self._run.view
        # Of the container itself, whatever the request adds for its own program.
        self._environment = {
            "PATH": view.path,
            "HOME": HOME,
            **_IMAGE_ENVIRONMENT,
            **tools.environment,
            **self._run.credentials,
        }
        for name in ("NO_PROXY", "no_proxy"):
            if name in self._environment:  # the job's hosts are not the proxy's to reach
                self._environment[name] = ",".join((self._environment[name], *hosts))
        spec = SandboxSpec(
            argv=argv,
            environment={**self._environment, **environment},
            folder=self.folder,
            ml=self.ml,
            hosts=hosts,
            index=hosts.index(self.host),
            hub=hub,
            endpoints=endpoints(tools.environment),
            root=view.root,
            copy_on_write=view.copy_on_write,
            visible=view.visible,
            machine=view.machine,
        )
        self._log = self.stream()
        self._sandbox = await Sandbox.start(spec)
        self._ending = asyncio.create_task(self._end(self._sandbox, self._log))

    async def _end(self, sandbox: Sandbox, log: LogStream) -> int:
        """Take the output to its end; then the exit status."""
        await log.follow(sandbox.output)
        self.exit_code = await sandbox.wait()
        await log.close()
        return self.exit_code

    async def connect(self, port: int) -> socket.socket:
        """Connect to a port of its loopback.

        Raises:
            OSError: nobody listens there, or it has ended.
        """
        if self._sandbox is None:
            raise ConnectionRefusedError(f"{self.host} does not run")
        return await self._sandbox.connect(port)

    @property
    def running(self) -> bool:
        """Whether its command runs."""
        return self._sandbox is not None and self._sandbox.running

    async def remote_debug(self, enabled: bool) -> None:
        """Start or stop SageMaker's own agent in it. That it does not start is not a reason for a job to fail."""
        async with self._native_turn:
            if self._native is not None and (not enabled or not self._native.running):
                await self._native.stop()
                self._native = None
            if not enabled or self._native is not None or self._sandbox is None or not self.running:
                return
            job = self._run.job.name
            try:
                self._native = await NativeAgent.start(
                    self._sandbox,
                    target_of(job, self.host),
                    self.folder / "native",
                    self._run.folder / f"{self.host}-remote-debug.log",
                    self._environment,
                    self._run.tools.pace,
                    self._run.view.agent,
                )
            except (OSError, SandboxStartError) as error:
                _log.warning("%s: no remote debugging on %s: %s", job, self.host, error)

    async def wait(self) -> int:
        """Wait for its end, and until its log is delivered.

        Returns:
            The exit status; 128 + N after signal N.
        """
        assert self._ending is not None
        # Several wait for the same end, and one that is cancelled must not take it from the others.
        return await asyncio.shield(self._ending)

    async def stop(self, grace: float) -> None:
        """SIGTERM, and SIGKILL if it still runs after `grace` seconds; returns when it is gone."""
        if self._sandbox is None:
            return
        if self._sandbox.running and grace > 0:
            self._sandbox.terminate()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._sandbox.wait()), grace)
        if self._sandbox.running:
            self._sandbox.kill()
            await self._sandbox.wait()

    async def close(self) -> None:
        """Kill it if it still runs; deliver its log."""
        await self.remote_debug(False)
        if self._sandbox is not None:
            self._sandbox.kill()
            await self.wait()
            self._log = None
        elif self._log is not None:
            await self._log.close()
            self._log = None


class JobRun:
    """One job while it runs.

    Args:
        job: the job.
        tools: what all jobs share.
        on_status: called with the job, a SecondaryStatus and a message.
        on_line: called with the job, a host and a line of its output.
    """

    def __init__(
        self,
        job: Job,
        tools: Tools,
        on_status: Callable[[Job, str, str], None],
        on_line: Callable[[Job, str, str], None],
    ) -> None:
        self.job = job
        self.tools = tools
        self.on_line = on_line
        self._on_status = on_status
        self.folder = _new_folder(tools.jobs, job.name)
        self.containers: list[Container] = []
        self._hub: Hub | None = None
        self._view: View | None = None
        self.stopping = threading.Event()
        self.stopped_as: str | None = None
        self.started: float | None = None
        self.ended: float | None = None
        self.stop_asked = asyncio.Event()
        self._remote_debug = bool((job.request.get("RemoteDebugConfig") or {}).get("EnableRemoteDebug"))
        self._hurry = asyncio.Event()
        role = str(job.request.get("RoleArn") or (job.model or {}).get("ExecutionRoleArn") or "")
        self._key: Key | None = (
            tools.keyring.issue(f"job {job.name}", role) if tools.keyring is not None else None
        )
        self.s3 = tools.s3_of(role)
        """A client of S3 that may do what the job's role may."""

    @property
    def credentials(self) -> dict[str, str]:
        """The variables of its credentials, which stand for those of its role; they end with it."""
        return self._key.variables() if self._key is not None else {}

    @property
    def view(self) -> View:
        """How its containers are made; known once `pulled` was called."""
        assert self._view is not None
        return self._view

    def pulled(self, view: View) -> None:
        """Have its image."""
        self._view = view

    def status(self, status: str, message: str) -> None:
        """Say how far the job is."""
        self._on_status(self.job, status, message)

    def stop(self, why: str = "Stopped", *, hurry: bool = False) -> None:
        """Ask the job to stop; the first reason given stays.

        Args:
            why: the SecondaryStatus that the job will have: Stopped or MaxRuntimeExceeded.
            hurry: SIGKILL at once, also if SIGTERM was sent already.
        """
        if hurry:
            self._hurry.set()
        if self.stopped_as is None:
            self.stopped_as = why
            if self.ended is None:
                self.status("Stopping", f"Stopping the {self.job.kind} job")
        self.stopping.set()
        self.stop_asked.set()

    def check_stopped(self) -> None:
        """Go no further when the job was asked to stop.

        Raises:
            JobStopped: it was.
        """
        if self.stopping.is_set():
            raise JobStopped

    async def blocking(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Call blocking code in a worker thread."""
        return await asyncio.get_running_loop().run_in_executor(self.tools.pool, function, *arguments)

    def add_hosts(self, count: int) -> list[Container]:
        """Make the folders of the hosts."""
        self.containers = [Container(self, host) for host in host_names(count)]
        return self.containers

    def cluster(self, host: str, config: dict[str, Any]) -> dict[str, Any]:
        """The content of resourceconfig.json on one host.

        Args:
            host: the host.
            config: ResourceConfig or ClusterConfig of the request.
        """
        names = [container.host for container in self.containers]
        groups = []
        taken = 0
        for group in config.get("InstanceGroups") or [config]:
            count = group.get("InstanceCount", len(names))
            groups.append(
                {
                    "instance_group_name": group.get("InstanceGroupName", "homogeneousCluster"),
                    "instance_type": group.get("InstanceType", "local"),
                    "hosts": names[taken : taken + count],
                }
            )
            taken += count
        mine = next(group for group in groups if host in group["hosts"])
        return {
            "current_host": host,
            "current_instance_type": mine["instance_type"],
            "current_group_name": mine["instance_group_name"],
            "hosts": names,
            "instance_groups": groups,
            "network_interface_name": interface(),
        }

    async def start(self, argv: list[str], environments: Iterable[dict[str, str]]) -> None:
        """Start the command on every host.

        Raises:
            SandboxStartError: it does not start on one of them.
            JobStopped: the job was asked to stop before.
        """
        self.check_stopped()
        names = [container.host for container in self.containers]
        self.started = time.time()
        if len(names) > 1 and shared_network() is None:
            self._hub = await Hub.start(self.job.name)
        for container, environment in zip(self.containers, environments, strict=True):
            await container.start(argv, environment, names, self._hub)
        if self._remote_debug:
            await self.remote_debug(True)

    async def remote_debug(self, enabled: bool) -> None:
        """Turn SageMaker's remote debugging on or off, at once where containers run, else when they start."""
        self._remote_debug = enabled
        for container in self.containers:
            await container.remote_debug(enabled)

    async def finish(self, limit: float | None) -> int:
        """Wait for the end of the containers; the first one to fail ends the others, and so does a stop.

        Args:
            limit: seconds they may run, counted from their start.

        Returns:
            The exit status of the first container that failed; 0 if none did.
        """
        waiting = {asyncio.create_task(container.wait()): container for container in self.containers}
        stop = asyncio.create_task(self.stop_asked.wait())
        pending: set[asyncio.Task[Any]] = set(waiting)
        assert self.started is not None
        code = 0
        try:
            while pending and code == 0 and not self.stop_asked.is_set():
                left = None if limit is None else max(0.0, self.started + limit - time.time())
                done, _ = await asyncio.wait(
                    {*pending, stop}, timeout=left, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    self.stop("MaxRuntimeExceeded")
                pending -= done
                for task in done - {stop}:
                    code = code or task.result()
            await self.end_containers(self.tools.grace)
            for task in waiting:
                code = code or await task
            return code
        finally:
            stop.cancel()

    async def end_containers(self, grace: float) -> None:
        """SIGTERM to every container that runs, SIGKILL `grace` seconds later; sooner when there is hurry."""
        ending = asyncio.gather(*(container.stop(grace) for container in self.containers))
        hurry = asyncio.create_task(self._hurry.wait())
        try:
            both: set[asyncio.Future[Any]] = {ending, hurry}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not ending.done():
                await asyncio.gather(*(container.stop(0) for container in self.containers))
            await ending
        finally:
            hurry.cancel()
        self.ended = time.time()

    async def close(self) -> None:
        """Leave nothing running, and nothing on the disk but the logs."""
        closing = [container.close() for container in self.containers]
        if self._hub is not None:
            closing.append(self._hub.close())
        # Whatever goes wrong with one of them, the others must not go on running for it.
        for result in await asyncio.gather(*closing, return_exceptions=True):
            if isinstance(result, BaseException):
                _log.error("a part of %s was not closed in order", self.job.name, exc_info=result)
        if self._key is not None and self.tools.keyring is not None:
            self.tools.keyring.revoke(self._key)
        await self.blocking(self._clean)

    def _clean(self) -> None:
        for container in self.containers:
            remove_tree(container.folder)


_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def endpoints(environment: dict[str, str]) -> tuple[tuple[str, int], ...]:
    """The (host, port) of endpoints and proxies in a container's environment that are on this machine's loopback."""
    found = []
    for name, value in environment.items():
        if name == "AWS_ENDPOINT_URL" or name.startswith("AWS_ENDPOINT_URL_") or name.upper() in _PROXIES:
            parts = urlsplit(value)
            if parts.hostname in ("127.0.0.1", "localhost", "::1") and parts.port is not None:
                found.append((parts.hostname, parts.port))
    # A port is served once, whatever names it has.
    return tuple({port: (host, port) for host, port in found}.values())


def remove_orphans(jobs: Path, functions: Path) -> None:
    """Remove what jobs and functions left whose emulator was killed: everything but their logs.

    Args:
        jobs: the folder of the jobs' folders; no job runs in it.
        functions: the folder of the functions' logs; no function runs in it.
    """
    for path in functions.glob("run-*"):
        remove_tree(path)
    for path in jobs.glob("*/*"):
        if path.is_dir():
            remove_tree(path)
        elif path.suffix != ".log":
            path.unlink()


def _new_folder(jobs: Path, name: str) -> Path:
    """A folder for a job: of its name, or, where a job of that name was before, with a number."""
    jobs.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        folder = jobs / (name if number == 1 else f"{name}.{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
        else:
            return folder
