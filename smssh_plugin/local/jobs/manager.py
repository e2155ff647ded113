"""The local emulator's job runner: the containers of training, processing and transform jobs, several at once.

It knows nothing of the API's store: it gets a request, says how far the job is, and returns how it ended.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import SmsshError
from ..agent.installed import PACE
from ..image_views import Views
from ..images import Images
from ..sandbox.container import SandboxStartError, check_support
from .batch_transform import run_transform
from .job_run import JobRun, Tools
from .kinds import ClientFault, Job, JobStopped, Kind, Outcome, Status, clip
from .processing import run_processing
from .training import run_training

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..keyring import Keyring

__all__ = ["Job", "JobRunner", "Kind", "Outcome", "Status"]

_log = logging.getLogger(__name__)

StatusCallback = Callable[[Job, str, str], None]
LineCallback = Callable[[Job, str, str], None]

_THREADS = 16

_KINDS = {"training": run_training, "processing": run_processing, "transform": run_transform}


class JobRunner:
    """Runs jobs. To be used in one event loop, whose thread lives as long as the jobs.

    Args:
        root: the folder for everything it keeps: `jobs/<name>/<host>.log`, and the folders of running jobs.
        s3: a boto3 S3 client.
        logs: a boto3 CloudWatch Logs client.
        image_env: the folder of every image that is not in `images`: a Python environment or a root folder, see
            images.py. Jobs may change it: what they change is theirs alone.
        environment: variables that every container gets: region, endpoint; read when one starts.
        images: the folders of other images, by full URI, by `repository:tag` or by `repository`.
        known_images_only: fail jobs whose image is not in `images`.
        keyring: issues credentials for each job, which end with it; without it `environment` has to have some.
        grace: seconds from SIGTERM to SIGKILL on a stop; the service has 120.
        serve_grace: the same for a transform job's server at its end; the service has 30.
        ping_deadline: seconds that a transform job's server has until it answers /ping; the service has 30
            minutes.
        pace: seconds from one message of a fake agent's output to the next; 0 for as fast as it goes.
        s3_of: a client of S3 by the ARN of a job's role, where what roles may do differs; by default `s3`.

    Raises:
        SmsshError: a folder is not an image, or cannot be mounted here.
    """

    def __init__(
        self,
        root: Path,
        s3: Any,
        logs: Any,
        image_env: Path,
        environment: dict[str, str],
        *,
        images: Mapping[str, Path] | None = None,
        known_images_only: bool = False,
        keyring: Keyring | None = None,
        grace: float = 120.0,
        serve_grace: float = 30.0,
        ping_deadline: float = 1800.0,
        pace: float = PACE,
        s3_of: Callable[[str], Any] | None = None,
    ) -> None:
        self.images = Images(image_env, images, known_only=known_images_only)
        root = Path(os.path.abspath(root))
        self._views = Views(self.images, root, environment, pace)
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="smssh-jobs")
        self._tools = Tools(
            s3_of=s3_of or (lambda _role: s3),
            logs=logs,
            pool=self._pool,
            jobs=root / "jobs",
            environment=environment,
            keyring=keyring,
            grace=grace,
            serve_grace=serve_grace,
            ping_deadline=ping_deadline,
            pace=pace,
        )
        self._runs: dict[tuple[str, str], JobRun] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._status_callbacks: list[StatusCallback] = []
        self._line_callbacks: list[LineCallback] = []
        self._closed = False

    def on_status(self, callback: StatusCallback) -> Callable[[], None]:
        """Have `callback(job, secondary_status, message)` called, in the loop's thread, as jobs go on.

        The statuses of a training job are those of the service: Starting, Downloading, Training, Uploading,
        Stopping. Jobs of the other kinds have Processing or Transforming in the place of Training. The last
        status is in the Outcome.

        Returns:
            A function that ends this.
        """
        return _subscribe(self._status_callbacks, callback)

    def on_line(self, callback: LineCallback) -> Callable[[], None]:
        """Have `callback(job, host, line)` called, in the loop's thread, for every line of output.

        Returns:
            A function that ends this.
        """
        return _subscribe(self._line_callbacks, callback)

    async def run(self, job: Job) -> Outcome:
        """Run one job to its end.

        When this returns, nothing of the job runs, its log is delivered and its output in S3.

        Raises:
            SmsshError: this machine cannot run containers, or a job of that kind and name runs.
        """
        check_support()
        key = (job.kind, job.name)
        if key in self._runs:
            raise SmsshError(f"the {job.kind} job {job.name} runs already", reference="job-exists")
        if self._closed:
            return Outcome("Stopped", "Stopped")
        run = JobRun(job, self._tools, self._tell_status, self._tell_line)
        self._runs[key] = run
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            return await self._run(run)
        finally:
            try:
                await asyncio.shield(run.close())
            finally:
                del self._runs[key]
                self._tasks.discard(task)

    async def stop(self, name: str, kind: Kind | None = None) -> None:
        """Ask a job to stop: SIGTERM, and SIGKILL after the grace.

        Returns at once; `run` returns when the job has stopped.
        A job that does not run (any more) is not an error.

        Args:
            name: its name.
            kind: its kind; None for every kind.
        """
        for (its_kind, its_name), run in list(self._runs.items()):
            if its_name == name and kind in (None, its_kind):
                run.stop()

    async def remote_debug(self, name: str, enabled: bool) -> None:
        """Turn remote debugging of a training job on or off; a job that does not run (any more) is not an error."""
        run = self._runs.get(("training", name))
        if run is not None:
            await run.remote_debug(enabled)

    async def close(self) -> None:
        """Kill every job and wait until nothing of them is left. No job starts afterwards."""
        self._closed = True
        for run in list(self._runs.values()):
            run.stop(hurry=True)
        tasks = self._tasks - {asyncio.current_task()}
        if tasks:
            await asyncio.wait(tasks)
        self._pool.shutdown(wait=True)

    async def _run(self, run: JobRun) -> Outcome:
        """Run a job; every error becomes an outcome."""
        run.status("Starting", f"Preparing the instances for {run.job.kind}")
        try:
            run.pulled(await run.blocking(lambda: self._views.of(self.images.pull(run.job))))
            return await _KINDS[run.job.kind](run)
        except JobStopped:
            return Outcome("Stopped", run.stopped_as or "Stopped")
        except ClientFault as fault:
            return _failed(run, f"ClientError: {fault}")
        except SandboxStartError as error:
            _log.warning("%s: %s", run.job.name, error)
            return _failed(run, f"InternalServerError: {error.message}")
        except Exception:  # noqa: BLE001 - a job must end, whatever is wrong here
            # The service says no more than this about its own errors; the local emulator's log does.
            _log.exception("the %s job %s failed in the local emulator", run.job.kind, run.job.name)
            return _failed(run, "InternalServerError: We encountered an internal error. Please try again.")

    def _tell_status(self, job: Job, status: str, message: str) -> None:
        for callback in list(self._status_callbacks):
            callback(job, status, message)

    def _tell_line(self, job: Job, host: str, line: str) -> None:
        for callback in list(self._line_callbacks):
            callback(job, host, line)


def _failed(run: JobRun, reason: str) -> Outcome:
    """The outcome of a job that failed outside of its containers."""
    code = next((container.exit_code for container in run.containers if container.exit_code), None)
    return Outcome(
        "Failed", "Failed", failure_reason=clip(reason), exit_code=code, started=run.started, ended=run.ended
    )


def _subscribe(callbacks: list[Any], callback: Any) -> Callable[[], None]:
    """Add a callback; return what removes it."""
    callbacks.append(callback)

    def remove() -> None:
        if callback in callbacks:
            callbacks.remove(callback)

    return remove
