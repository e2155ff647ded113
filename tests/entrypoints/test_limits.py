"""A job's own limit (MaxRuntimeInSeconds): no hold promises more time than that leaves, and each ends in order."""

import json
import os
import re
import time

import pytest

from smssh_plugin.settings import end_seconds, load
from smssh_plugin.supervisor import job
from tests.waiting import LIMIT

FAILS = "import sys; sys.exit(7)\n"


def test_the_banner_and_the_deadlines_are_the_jobs_own(container) -> None:
    """A job of an hour with a hold of four: what is left is less than an hour, with or without a login."""
    before = time.time()
    container.wrap("python", container.script(FAILS), SMSSH_HOLD="failure", SMSSH_MAX_RUNTIME=3600)
    status = container.wait_for("held")
    # The folders of the job were made before.
    assert before + 3600 - 300 - 60 < status["hold"]["max_deadline"] <= before + 3600 - 300 + 60
    assert re.match(r"5\d min( \d+ s)? left\.$", container.hook("extend", "4h").stdout)
    extended = container.status()["hold"]
    assert extended["deadline"] == pytest.approx(extended["max_deadline"], abs=2)
    refused = container.hook("extend", "4h", check=False)
    assert "MaxRuntimeInSeconds" in refused.stderr
    assert "SMSSH_HOLD_MAX_SECONDS" not in refused.stderr
    container.hook("release")
    assert container.processes[-1].wait(LIMIT) == 7


def test_the_hold_ends_before_the_job_is_stopped(container) -> None:
    """With somebody connected; the status is the job's own, and nothing is left."""
    process = container.wrap("python", container.script(FAILS), SMSSH_HOLD="failure", SMSSH_MAX_RUNTIME=20)
    before = time.time()
    status = container.wait_for("held")
    assert status["hold"]["max_deadline"] < before + 20
    client = container.start(
        "ssh", *container.ssh_options(status), "127.0.0.1", "sleep 1000", on=False, PATH="/usr/bin:/bin"
    )
    assert process.wait(LIMIT) == 7
    assert "released: the job's own limit is near (MaxRuntimeInSeconds)" in container.output(0)
    client.kill()
    client.wait()
    container.assert_quiet()


def test_a_processing_job_knows_by_itself(container) -> None:
    config = container.base / "config"
    config.mkdir(parents=True)
    request = {"ProcessingJobName": "p", "StoppingCondition": {"MaxRuntimeInSeconds": 1800}}
    config.joinpath("processingjobconfig.json").write_text(json.dumps(request))
    before = time.time()
    container.wrap("python", container.script(FAILS), SMSSH_HOLD="failure")
    assert container.wait_for("held")["hold"]["max_deadline"] <= before + 1800 - 180 + 60
    container.hook("release")
    assert container.processes[-1].wait(LIMIT) == 7


def test_a_placeholder_ends_in_time(container) -> None:
    process = container.wrap("smssh-hook", "placeholder", SMSSH_MAX_RUNTIME=10)
    assert process.wait(LIMIT) == 0
    assert "the job's own limit is near" in container.output()


def test_the_start_of_the_job_is_its_earliest_trace(tmp_path) -> None:
    """Data and images come before the container; what is older than the machine came with the image."""
    environ = {"SAGEMAKER_BASE_DIR": str(tmp_path)}
    now = time.time()
    assert job.started(environ) == pytest.approx(now, abs=5)
    config = tmp_path / "input" / "config"
    channel = tmp_path / "input" / "data" / "train"
    for folder in (config, channel):
        folder.mkdir(parents=True)
    parameters = config / "hyperparameters.json"
    parameters.write_text("{}")
    os.utime(parameters, (now - 300, now - 300))
    assert job.started(environ) == pytest.approx(now - 300, abs=1)
    os.utime(channel, (now - 600, now - 600))
    assert job.started(environ) == pytest.approx(now - 600, abs=1)
    with open("/proc/uptime") as file:
        booted = now - float(file.read().split()[0])
    os.utime(config, (booted - 3600, booted - 3600))
    assert job.started(environ) == pytest.approx(now - 600, abs=1)
    os.utime(config, (now + 3600, now + 3600))
    assert job.started(environ) == pytest.approx(now - 600, abs=1)


@pytest.mark.parametrize("odd", ["soon", -1, 0, True, 10**12, None, {}])
def test_an_odd_limit_is_not_a_limit(tmp_path, odd) -> None:
    (tmp_path / "config").mkdir()
    request = {"StoppingCondition": {"MaxRuntimeInSeconds": odd}}
    tmp_path.joinpath("config", "processingjobconfig.json").write_text(json.dumps(request))
    environ = {"SAGEMAKER_BASE_DIR": str(tmp_path)}
    assert job.max_runtime(environ, 0) == 0
    assert job.max_runtime(environ, 60) == 60


@pytest.mark.parametrize(("limit", "reserve"), [(86400, 300), (3000, 300), (600, 60), (60, 6), (1, 0)])
def test_what_the_end_takes(limit, reserve) -> None:
    assert end_seconds(limit) == reserve
    assert load({"SMSSH_MAX_RUNTIME": str(limit)}).max_runtime == limit
