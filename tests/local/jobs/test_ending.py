"""How jobs of the local emulator are stopped, and that nothing is left of them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from typing import TYPE_CHECKING

import pytest

from smssh_plugin.errors import SmsshError
from smssh_plugin.local.sandbox.container import shared_network
from smssh_plugin.local.state import process_birth
from tests.local.jobs_support import REPOSITORY, World, descendants, network_namespaces, processes
from tests.waiting import LIMIT, until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(90)

STUBBORN = (
    "trap '' TERM; echo ready; echo 1 > /opt/ml/model/m; sleep {mark} & while :; do wait; sleep 0.1; done"
)


def _mark() -> str:
    """The argument of a `sleep` that is found in the process list."""
    return f"{3000 + int(uuid.uuid4().int % 1000)}.{uuid.uuid4().int % 10**9:09d}"


def test_stop_kills_what_ignores_sigterm(world: World) -> None:
    mark = _mark()
    job = world.training(["/bin/sh", "-c", STUBBORN.format(mark=mark)])

    async def main() -> None:
        async with world.runner(grace=0.5) as runner:
            task = asyncio.create_task(runner.run(job))
            await asyncio.to_thread(until, lambda: "algo-1: ready" in world.lines and bool(processes(mark)))
            start = time.monotonic()
            await runner.stop(job.name)
            outcome = await task
            assert 0.5 <= time.monotonic() - start < 10
            assert (outcome.status, outcome.secondary_status) == ("Stopped", "Stopped")
            assert (outcome.exit_code, outcome.failure_reason) == (137, None)
            # The service uploads what is there when a job is stopped.
            assert outcome.model_artifacts is not None
            assert world.unpack(outcome.model_artifacts) == {"m": "1\n"}
            assert (job.name, "Stopping") in world.statuses

    asyncio.run(main())
    assert processes(mark) == []


def test_stop_lets_a_handler_finish(world: World) -> None:
    script = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
    job = world.processing(["/bin/sh", "-c", script])

    async def main() -> None:
        async with world.runner(grace=30) as runner:
            task = asyncio.create_task(runner.run(job))
            await asyncio.to_thread(until, lambda: "algo-1: ready" in world.lines)
            await runner.stop(job.name, "processing")
            outcome = await asyncio.wait_for(task, 15)
            assert (outcome.status, outcome.exit_code) == ("Stopped", 0)

    asyncio.run(main())
    assert world.lines[-1] == "algo-1: bye"


def test_pid_1_without_a_handler_does_not_see_sigterm(world: World) -> None:
    """As on AWS: `train` is PID 1, and the kernel drops signals that PID 1 has no handler for."""
    job = world.training(["sleep", _mark()])

    async def main() -> None:
        async with world.runner(grace=0.3) as runner:
            task = asyncio.create_task(runner.run(job))
            await asyncio.to_thread(until, lambda: (job.name, "Training") in world.statuses)
            await asyncio.to_thread(
                until, lambda: bool(processes(job.request["AlgorithmSpecification"]["ContainerArguments"][0]))
            )
            await runner.stop(job.name)
            assert (await task).exit_code == 137

    asyncio.run(main())


def test_too_long_a_run(world: World) -> None:
    job = world.training(["sleep", "60"], StoppingCondition={"MaxRuntimeInSeconds": 1})
    outcome = world.run(job, grace=0.1)
    assert (outcome.status, outcome.secondary_status) == ("Stopped", "MaxRuntimeExceeded")


def test_two_jobs_at_once(world: World) -> None:
    """Each sees its own /opt/ml; the first goes on only after the second has ended."""
    one = world.training(
        ["/bin/sh", "-c", "echo ready; touch /opt/ml/one; while [ ! -e /opt/ml/go ]; do sleep 0.05; done"]
    )
    two = world.training(["/bin/sh", "-c", "ls /opt/ml; echo seen"])

    async def main() -> None:
        async with world.runner() as runner:
            first = asyncio.create_task(runner.run(one))
            await asyncio.to_thread(until, lambda: "algo-1: ready" in world.lines)
            second = await asyncio.wait_for(runner.run(two), 20)
            assert second.status == "Completed"
            assert not first.done()
            (world.root / "jobs" / one.name / "algo-1" / "ml" / "go").touch()
            assert (await asyncio.wait_for(first, 20)).status == "Completed"

    asyncio.run(main())
    assert "algo-1: seen" in world.lines
    assert "algo-1: one" not in world.lines


def test_close_is_quick_and_leaves_nothing(world: World) -> None:
    marks = [_mark(), _mark()]
    jobs = [world.training(["/bin/sh", "-c", STUBBORN.format(mark=mark)]) for mark in marks]

    async def main() -> None:
        async with world.runner(grace=60) as runner:
            tasks = [asyncio.create_task(runner.run(job)) for job in jobs]
            await asyncio.to_thread(until, lambda: all(processes(mark) for mark in marks))
            await runner.stop(jobs[0].name)
            start = time.monotonic()
            await runner.close()
            assert time.monotonic() - start < 10
            assert [task.result().status for task in tasks] == ["Stopped", "Stopped"]
            assert (await runner.run(world.training(["true"]))).status == "Stopped"

    asyncio.run(main())
    assert [processes(mark) for mark in marks] == [[], []]


def test_cancelled_run_leaves_nothing(world: World) -> None:
    mark = _mark()
    job = world.training(["/bin/sh", "-c", STUBBORN.format(mark=mark)])

    async def main() -> None:
        async with world.runner() as runner:
            task = asyncio.create_task(runner.run(job))
            await asyncio.to_thread(until, lambda: bool(processes(mark)))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert processes(mark) == []

    asyncio.run(main())


def test_a_job_that_runs_already(world: World) -> None:
    job = world.training(["sleep", "60"])

    async def main() -> None:
        async with world.runner() as runner:
            task = asyncio.create_task(runner.run(job))
            await asyncio.to_thread(until, lambda: (job.name, "Starting") in world.statuses)
            with pytest.raises(SmsshError, match="runs already"):
                await runner.run(job)
            await runner.close()
            await task

    asyncio.run(main())


def test_daemons_of_a_container_end_with_it(world: World) -> None:
    mark = _mark()
    script = f"setsid sleep {mark} < /dev/null > /dev/null 2>&1 & sleep 0.2; exit 0"
    outcome = world.run(world.training(["/bin/sh", "-c", script]))
    assert outcome.status == "Completed"
    assert processes(mark) == []


CHILD = """
import asyncio, json, sys, boto3
from pathlib import Path
from smssh_plugin.local.jobs.manager import Job, JobRunner
root, endpoint, image, request, kind = sys.argv[1:]
request = json.loads(request)
def client(name):
    keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x"}
    return boto3.client(name, endpoint_url=endpoint, region_name="us-east-1", **keys)
async def main():
    runner = JobRunner(Path(root), client("s3"), client("logs"), Path(image), {})
    await runner.run(Job(kind, request["TrainingJobName"], "arn", request))
asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_death_of_the_emulator_leaves_nothing(world: World, tmp_path: Path, number: int) -> None:
    """SIGKILL, and SIGTERM to a program that has no handler for it; of a job of two hosts and their network."""
    mark = _mark()
    two = {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1}
    job = world.training(["/bin/sh", "-c", STUBBORN.format(mark=mark)], ResourceConfig=two)
    # A state folder of its own: what is left on the disk after SIGKILL is expected.
    arguments = [
        str(tmp_path / "killed"),
        world.endpoint,
        str(world.image),
        json.dumps(job.request),
        job.kind,
    ]
    with open(tmp_path / "output", "wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, *arguments],
            cwd=REPOSITORY,
            stdout=output,
            stderr=output,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]),
            },
        )
    try:
        # The child, and of each host a shell, all with the mark in their arguments, and what those have started.
        until(lambda: len(processes(mark)) == 5 or child.poll() is not None)
        assert child.poll() is None, (tmp_path / "output").read_text()
        below = descendants(child.pid)
        networks = network_namespaces(below) - network_namespaces([os.getpid()])
        if shared_network() is None:
            assert len(networks) == 3
        child.send_signal(number)
        child.wait(LIMIT)
        until(lambda: not processes(mark))
        until(lambda: not any(process_birth(pid) == birth for pid, birth in below.items()))
        everything = (int(name) for name in os.listdir("/proc") if name.isdigit())
        assert not networks & network_namespaces(everything)
    finally:
        child.kill()
        child.wait()
