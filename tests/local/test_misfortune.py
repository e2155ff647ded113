"""What an emulator meets on a machine that is short of something: descriptors, disk, a connection to its moto."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from smssh_plugin.local.jobs import job_run
from smssh_plugin.local.jobs.log_streams import LogStream
from tests.waiting import LIMIT

from .jobs_support import REPOSITORY

if TYPE_CHECKING:
    from .jobs_support import World

pytestmark = [pytest.mark.timeout(180), pytest.mark.needs("namespaces")]

SMSSH = [sys.executable, "-m", "smssh_plugin.cli", "local"]


def local(home: Path, *words: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return subprocess.run(
        [*SMSSH, *words],
        env={**environ, "SMSSH_HOME": str(home), "PYTHONPATH": str(REPOSITORY)},
        text=True,
        capture_output=True,
        timeout=150,
        check=False,
        **settings,
    )


MANY = """
import sys, time, boto3
sm, logs = boto3.client("sagemaker"), boto3.client("logs")
names = [f"job-{number}" for number in range(int(sys.argv[1]))]
for name in names:
    script = "trap 'exit 0' TERM; (setsid sleep 1000 &); ulimit -Sn; sleep 1000 & wait"
    sm.create_processing_job(
        ProcessingJobName=name,
        RoleArn="arn:aws:iam::123456789012:role/SageMakerRole",
        AppSpecification={"ImageUri": "image", "ContainerEntrypoint": ["/bin/sh", "-c", script]},
        ProcessingResources={
            "ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}},
    )
group, limits = "/aws/sagemaker/ProcessingJobs", {}
def job(name):
    return sm.describe_processing_job(ProcessingJobName=name)
while len(limits) < len(names):
    for name in set(names) - set(limits):
        if job(name)["ProcessingJobStatus"] != "InProgress":
            sys.exit(f"{name}: {job(name)}")
        try:
            (stream,) = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{name}/")["logStreams"]
            events = logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"])["events"]
        except (ValueError, logs.exceptions.ResourceNotFoundException):
            continue
        limits.update({name: event["message"] for event in events})
    time.sleep(0.1)
for name in names:
    sm.stop_processing_job(ProcessingJobName=name)
while any(job(name)["ProcessingJobStatus"] in ("InProgress", "Stopping") for name in names):
    time.sleep(0.1)
print({job(name)["ProcessingJobStatus"] for name in names}, set(limits.values()))
"""


def test_more_jobs_at_once_than_there_are_descriptors(tmp_path: Path) -> None:
    """Twenty at the soft limit of a shell that was told to be careful; each keeps that limit itself."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    done = local(
        tmp_path,
        *("run", "--", sys.executable, "-c", MANY, "20"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard)),
    )
    assert (done.returncode, done.stdout) == (0, "{'Stopped'} {'128'}\n"), done.stdout + done.stderr


def test_a_log_on_a_full_disk(caplog: pytest.LogCaptureFixture) -> None:
    """Its copy ends; the job does not, and CloudWatch gets what it always got."""
    for path in (Path("/dev/full"), Path("/nonexistent/x")):
        told: list[str] = []
        seen: list[str] = []
        asyncio.run(_follow(path, told, seen, failures=0))
        assert told == seen == ["a", "b", "c"]
        assert f"is written to {path}" in caplog.text


def test_a_log_whose_service_cannot_be_reached(tmp_path: Path) -> None:
    """Whatever the error is: what cannot be delivered is given up, and nobody waits for it."""
    told: list[str] = []
    seen: list[str] = []
    asyncio.run(asyncio.wait_for(_follow(tmp_path / "log", told, seen, failures=1000), LIMIT))
    assert (told, seen) == ([], ["a", "b", "c"])
    assert (tmp_path / "log").read_text() == "a\nb\nc"


async def _follow(path: Path, told: list[str], seen: list[str], failures: int) -> None:
    class Logs:
        class exceptions:  # noqa: N801 - boto3's name
            ResourceAlreadyExistsException = KeyError

        def _call(self, **_: Any) -> None:
            nonlocal failures
            if failures:
                failures -= 1
                raise BlockingIOError(11, "Resource temporarily unavailable")

        create_log_group = create_log_stream = _call

        def put_log_events(self, **request: Any) -> None:
            self._call()
            told.extend(event["message"] for event in request["logEvents"])

    with ThreadPoolExecutor(1) as pool:
        stream = LogStream(Logs(), pool, "group", "stream", path, seen.append)
        for chunk in (b"a\nb", b"\nc"):
            await stream.write(chunk)
        await stream.close()


FULL = """
import sys, time, boto3
sm = boto3.client("sagemaker")
def run(name, script):
    sm.create_processing_job(
        ProcessingJobName=name,
        RoleArn="arn:aws:iam::123456789012:role/SageMakerRole",
        AppSpecification={"ImageUri": "image", "ContainerEntrypoint": ["/bin/sh", "-c", script]},
        ProcessingResources={
            "ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}},
    )
    while (job := sm.describe_processing_job(ProcessingJobName=name))["ProcessingJobStatus"] == "InProgress":
        time.sleep(0.05)
    print(name, job["ProcessingJobStatus"], job.get("ExitMessage"), job.get("FailureReason"))
run("writer", "dd if=/dev/zero of=/opt/ml/x bs=65536 count=1000 2>&1 | tail -n 1; test -s /opt/ml/x")
run("loud", "head -c 8000000 /dev/zero | tr '\\\\0' '\\\\n'; exit 0")
run("quiet", "echo hello")
"""


@pytest.mark.needs("unshare")
@pytest.mark.applies(os.geteuid() == 0, "only root mounts a small disk")
def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """A job that fills it ends as it ends by itself, so does one that finds it full; and a start says what is wrong."""
    disk = tmp_path / "disk"
    disk.mkdir()
    script = 'mount -t tmpfs -o size=$1k tmpfs $2; shift 2; exec "$@"'
    mounted = ["unshare", "--mount", "sh", "-ec", script, "sh"]

    def on_a_disk_of(kilobytes: int, *words: str) -> subprocess.CompletedProcess[str]:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        return subprocess.run(
            [*mounted, str(kilobytes), str(disk), *SMSSH, *words],
            env={**environ, "SMSSH_HOME": f"{disk}/home", "PYTHONPATH": str(REPOSITORY)},
            text=True,
            capture_output=True,
            timeout=150,
            check=False,
        )

    done = on_a_disk_of(6000, "run", "--", sys.executable, "-c", FULL)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{name} Completed None None" for name in ("writer", "loud", "quiet")]
    for size in (16, 100):
        done = on_a_disk_of(size, "up", "--port", "0")
        assert done.returncode != 0
        assert "No space left on device" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_part_that_cannot_be_closed_keeps_no_other_from_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a job of two hosts: the other one is closed, the job ends, and it is not remembered for ever."""
    closed = []
    close = job_run.Container.close

    async def failing(self: job_run.Container) -> None:
        await close(self)
        closed.append(self.host)
        if self.host == "algo-1":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(job_run.Container, "close", failing)

    async def main() -> None:
        async with world.runner() as runner:
            config = {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1}
            outcome = await runner.run(world.training(["true"], ResourceConfig=config))
            assert outcome.status == "Completed"
            assert runner._runs == {}

    asyncio.run(main())
    assert sorted(closed) == ["algo-1", "algo-2"]
