"""The fake agent as a program: its command line, its files, its life."""

# ruff: noqa: F811 - fixtures that are imported

from __future__ import annotations

import configparser
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from smssh_plugin.local.agent.installed import _head, install
from tests.session.conftest import agent, new_agent, stack  # noqa: F401 - fixtures
from tests.session.support import Agent, Stack
from tests.waiting import LIMIT, until

if TYPE_CHECKING:
    from pathlib import Path

Make = Callable[..., Agent]


def test_it_reports_a_version_like_the_real_one(new_agent: Make) -> None:
    done = new_agent().run("-version")
    assert (done.returncode, done.stdout) == (0, "SSM Agent version: 3.3.987.0\n")


def test_registering_prints_the_node_and_keeps_the_key_to_its_owner(new_agent: Make) -> None:
    made = new_agent()
    node = made.register()
    state = made.folder / "state"
    assert json.loads((state / "registration").read_text()) == {
        "ManagedInstanceID": node,
        "Region": "us-east-1",
    }
    key = state / "Vault" / "Store" / "RegistrationKey"
    assert key.stat().st_mode & 0o777 == 0o600
    assert "RSA PRIVATE KEY" in key.read_text()
    assert made.run("-register", "-clear").returncode == 0
    assert not (state / "registration").exists()
    assert made.run().returncode == 1  # not registered


def test_a_refused_activation_fails_at_once(new_agent: Make) -> None:
    made = new_agent()
    done = made.run("-register", "-id", "i" * 36, "-code", "c" * 20, "-region", "us-east-1", "-y")
    assert done.returncode == 1
    assert "InvalidActivation" in done.stderr
    done = made.run("-register", "-id", "i" * 36, "-code", "short", "-region", "us-east-1", "-y")
    assert done.returncode == 1
    assert "20 characters" in done.stderr
    assert made.run("-register").returncode == 1
    assert made.run("-nonsense").returncode == 2


def test_it_asks_before_it_registers_again_unless_told_not_to(new_agent: Make) -> None:
    made = new_agent()
    first = made.register()
    done = made.run("-register", "-id", "i", "-code", "c" * 20, "-region", "us-east-1", input="no\n")
    assert done.returncode == 1
    assert "already registered" in done.stdout
    assert "canceled by user" in done.stderr
    assert made.register() != first


@pytest.mark.parametrize(
    "endpoints",
    [
        {},
        {"Ssm": {"Endpoint": "http://127.0.0.1:1"}},
        # The real agent takes this for no endpoint, in silence, and calls AWS.
        {"Ssm": {"Endpoint": "http://127.0.0.1:1"}, "Mgs": {"Endpoint": "127.0.0.1:1"}},
    ],
)
def test_it_never_falls_back_to_aws(new_agent: Make, endpoints: dict[str, object]) -> None:
    made = new_agent()
    made.register()
    (made.folder / "configuration" / "amazon-ssm-agent.json").write_text(json.dumps(endpoints))
    done = made.run()
    assert done.returncode == 1
    assert "Endpoint" in done.stderr


def test_it_comes_online_pings_and_ends_quickly(agent: Agent, stack: Stack) -> None:
    (shown,) = stack.call("DescribeInstanceInformation")["InstanceInformationList"]
    assert shown["PingStatus"] == "Online"
    assert shown["AgentVersion"] == "3.3.987.0"
    assert shown["PlatformType"] == "Linux"
    started = time.monotonic()
    assert agent.stop() == 0
    assert time.monotonic() - started < 5
    until(lambda: stack.events("control-closed") == [agent.node])
    # The node still shows as Online: only TargetNotConnected tells.
    (shown,) = stack.call("DescribeInstanceInformation")["InstanceInformationList"]
    assert shown["PingStatus"] == "Online"
    assert stack.call("GetConnectionStatus", Target=agent.node)["Status"] == "notconnected"


def test_a_cut_control_channel_is_opened_again(agent: Agent, stack: Stack) -> None:
    stack.do(stack.service.drop("control", agent.node))
    until(lambda: stack.events("control-open").count(agent.node) == 2)


def test_it_starts_before_the_service_does(new_agent: Make, stack: Stack) -> None:
    made = new_agent()
    made.register()
    configuration = made.folder / "configuration" / "amazon-ssm-agent.json"
    good = configuration.read_text()
    configuration.write_text(good.replace(stack.url, "http://127.0.0.1:9"))
    made.start()
    log = made.folder / "log"
    until(lambda: log.exists() and "again in" in log.read_text())
    assert made.process is not None
    assert made.process.poll() is None
    assert made.stop() == 0


def test_shared_credentials_go_where_the_environment_says(new_agent: Make, tmp_path: Path) -> None:
    """With the real agent's defaults the job's own boto3 would use the node's role."""
    made = new_agent(ShareCreds=True)
    made.register()
    own = tmp_path / "own" / "credentials"
    made.start(AWS_SHARED_CREDENTIALS_FILE=str(own))
    made.wait_connected()
    parser = configparser.RawConfigParser()
    parser.read(own)
    assert parser["default"]["aws_access_key_id"].startswith("ASIA")
    assert own.stat().st_mode & 0o777 == 0o600
    assert not (made.folder / ".aws").exists()
    made.stop()
    made.start()
    made.wait_connected()
    until((made.folder / ".aws" / "credentials").exists)  # as the real one does: HOME is hijacked


def test_the_launcher_may_be_copied_and_ignores_the_jobs_python_variables(
    new_agent: Make, tmp_path: Path
) -> None:
    made = new_agent()
    other = tmp_path / "elsewhere"
    other.mkdir()
    shutil.copy(made.program, other)
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")
    done = subprocess.run(
        ["amazon-ssm-agent", "-version"],
        cwd=tmp_path,
        env={"PATH": str(other), "PYTHONPATH": str(tmp_path), "PYTHONHOME": "/nowhere"},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "SSM Agent version: 3.3.987.0\n"), done.stderr


def test_the_launcher_works_for_an_interpreter_with_a_space_in_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spaced = tmp_path / "with a space"
    spaced.mkdir()
    wrapper = spaced / "python"
    wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    wrapper.chmod(0o755)
    assert _head(str(wrapper)).startswith("#!/bin/sh\n")
    monkeypatch.setattr(sys, "executable", str(wrapper))
    program = install(tmp_path / "bin")
    done = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.stdout == "SSM Agent version: 3.3.987.0\n", done.stderr
    assert os.access(program, os.X_OK)


def test_ctrl_c_is_a_clean_end_too(agent: Agent) -> None:
    assert agent.process is not None
    agent.process.send_signal(signal.SIGINT)
    assert agent.process.wait(LIMIT) == 0
    assert "Traceback" not in (agent.folder / "log").read_text()
