"""The main job: a failing pipeline step is entered over SSH, fixed and carried on."""

import json
import os
import re
import signal
import sys
import time

import boto3
import pytest

from .machine import CHURN, IMAGE, SMSSH, node, wait_for

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not IMAGE.exists(), reason="no image environment; make it with dev/environments.py"),
]


def churn(*words):
    return [sys.executable, CHURN / "pipeline.py", "--local", IMAGE, "--report", "report", *words]


def sagemaker(machine):
    return boto3.client(
        "sagemaker",
        endpoint_url=machine.environ["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="y",
    )


def failure_reason(machine, arn):
    steps = sagemaker(machine).list_pipeline_execution_steps(PipelineExecutionArn=arn)[
        "PipelineExecutionSteps"
    ]
    return {step["StepName"]: step.get("FailureReason") for step in steps}["Train"]


def test_the_failed_step_is_fixed_and_the_pipeline_succeeds(machine):
    done = machine.run(*churn())

    assert "could not convert string to float: ' '" in done.stdout
    report = json.loads((machine.home / "report" / "report.json").read_text())
    assert report["version"] == 1
    assert report["status"] == "Succeeded"
    steps = {step["name"]: step for step in report["steps"]}
    assert {name: step["status"] for name, step in steps.items()} == dict.fromkeys(
        ["Prepare", "Train", "Segment", "Model", "Score"], "Succeeded"
    )
    page = (machine.home / "report" / "report.html").read_text()
    assert "could not convert string to float" in page
    assert not re.search(r"""(src|href)=["']?https?:|@import|<script""", page)
    machine.assert_nothing_left()


def test_off_it_fails_at_the_bug_and_a_release_gives_the_same_reason(held):
    machine, arn = held
    machine.smssh("release", "Train.churn.pipeline.sagemaker")
    client = sagemaker(machine)
    wait_for(
        lambda: (
            client.describe_pipeline_execution(PipelineExecutionArn=arn)["PipelineExecutionStatus"]
            == "Failed"
        )
    )
    released = failure_reason(machine, arn)

    off = machine.run(
        sys.executable, CHURN / "pipeline.py", "--report", "report", check=False, SMSSH_ENABLE="0"
    )

    assert off.returncode == 7
    arn = re.search(r"started (\S+)", off.stdout).group(1)
    assert failure_reason(machine, arn) == released
    assert "ExecuteUserScriptError" in released
    definition = client.describe_pipeline(PipelineName="churn")["PipelineDefinition"]
    assert "smssh" not in definition.lower()


def test_by_hand(held):
    machine, _ = held
    address = "Train.churn.pipeline.sagemaker"

    status = json.loads(machine.smssh("connect", address, "--", "smssh-hook status --json").stdout)
    assert (status["state"], status["point"], status["step"]) == ("held", "failure", "Train")
    report = json.loads(machine.smssh("connect", address, "--", "smssh-hook report --json").stdout)
    assert "could not convert string to float: ' '" in report["traceback"]
    assert "SM_MODEL_DIR" in report["environment_names"]
    assert report["processes"]
    assert report["disk"]

    edit = 'cd "$SMSSH_CODE_DIR" && sed -i "s/float(customer\\[\\"total_charges\\"\\])/0.0/" features.py && smssh-hook retry'
    machine.smssh("connect", address, "--", edit)
    wait_for(lambda: not node(machine, "Train"))


def test_a_wrong_key_is_refused(held):
    machine, _ = held
    key = machine.home / "smssh" / "id_ed25519"
    for path in (key, key.with_suffix(".pub")):
        path.rename(path.with_name("kept-" + path.name))

    refused = machine.smssh("connect", "Train.churn.pipeline.sagemaker", "--", "true", check=False)

    assert refused.returncode != 0
    assert "Permission denied (publickey)" in refused.stderr
    for path in (key, key.with_suffix(".pub")):
        path.with_name("kept-" + path.name).rename(path)


def test_a_wrong_host_key_is_refused(held):
    machine, _ = held
    ssm = boto3.client(
        "ssm",
        endpoint_url=machine.environ["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="y",
    )
    target = node(machine, "Train")["target"]
    impostor = machine.home / "impostor"
    machine.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", impostor)
    tag = {"Key": "SMSSHHostKey", "Value": impostor.with_suffix(".pub").read_text().strip()}
    ssm.add_tags_to_resource(ResourceType="ManagedInstance", ResourceId=target, Tags=[tag])

    refused = machine.smssh("connect", "Train.churn.pipeline.sagemaker", "--", "true", check=False)

    assert refused.returncode != 0
    assert "Host key verification failed" in refused.stderr


def test_a_port_of_the_held_job_is_reached_from_python(held):
    machine, _ = held
    program = """
import urllib.request, smssh_plugin
with smssh_plugin.connect("Train.churn.pipeline.sagemaker") as job:
    port = int(job.run("python3 -c 'import socket; s = socket.socket(); s.bind((\\"127.0.0.1\\", 0)); print(s.getsockname()[1])'").text)
    job.run(f'cd "$SMSSH_CODE_DIR" && (python3 -m http.server {port} --bind 127.0.0.1 >/dev/null 2>&1 & echo $! > /tmp/server.pid)')
    with job.forward(port) as tunnel:
        for attempt in range(50):
            try:
                print(urllib.request.urlopen(f"http://127.0.0.1:{tunnel.local_port}/train.py", timeout=5).read().decode())
                break
            except OSError:
                __import__("time").sleep(0.2)
"""
    page = machine.run(sys.executable, "-c", program).stdout
    assert page.strip() == (CHURN / "train" / "train.py").read_text().strip()


@pytest.mark.parametrize("moment", ["started arn:", "Train"])
def test_ctrl_c_in_the_demo_leaves_nothing_behind(machine, moment):
    demo = machine.start(*churn())
    for line in demo.stdout:
        if moment in line:
            break
    os.killpg(demo.pid, signal.SIGINT)
    rest = demo.communicate(timeout=120)[0]
    assert demo.returncode == 130, rest
    machine.assert_nothing_left()


def test_ctrl_c_in_the_debugger_leaves_the_step_held(held):
    machine, arn = held
    debugger = machine.start(*SMSSH, "debug", "churn", "--execution", arn, "--keep", "--report", "report")
    for line in debugger.stdout:
        if "held" in line:
            break
    time.sleep(1)
    os.killpg(debugger.pid, signal.SIGINT)
    rest = debugger.communicate(timeout=60)[0]
    assert debugger.returncode == 130, rest
    assert "Traceback" not in rest.split("could not convert")[-1]
    assert node(machine, "Train")["state"] == "held"
    assert json.loads((machine.home / "report" / "report.json").read_text())["status"] != "Succeeded"
