"""Lambda steps: functions that were created with a real client run when their step is reached."""

from __future__ import annotations

import io
import json
import textwrap
import zipfile

import pytest

from smssh_plugin.local import lambda_functions
from smssh_plugin.local.faults import Fault
from tests.waiting import until

from .jobs_support import processes
from .service_harness import ROLE, definition, running, step, training


@pytest.fixture
def service():
    with running() as one:
        trust = json.dumps({"Version": "2012-10-17", "Statement": []})
        one.client("iam").create_role(RoleName=ROLE.rpartition("/")[2], AssumeRolePolicyDocument=trust)
        yield one


def _create(service, source, name="f", runtime="python3.12", **more):
    """Create a function; answers its ARN."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("app.py", textwrap.dedent(source))
        file.writestr("helper.py", "WORD = 'green'\n")
    return service.client("lambda").create_function(
        FunctionName=name,
        Runtime=runtime,
        Role=ROLE,
        Handler="app.handle",
        Code={"ZipFile": archive.getvalue()},
        **{"Timeout": 60, **more},
    )["FunctionArn"]


def _lambda(arn, arguments=None, *outputs, name="Ask", **more):
    listed = [{"OutputName": name, "OutputType": kind} for name, kind in outputs]
    return {**step(name, "Lambda", arguments or {}, **more), "FunctionArn": arn, "OutputParameters": listed}


def _ended(service, *steps):
    if service.sagemaker.list_pipelines()["PipelineSummaries"]:
        service.sagemaker.update_pipeline(
            PipelineName="pipe", PipelineDefinition=json.dumps(definition(*steps))
        )
    else:
        service.pipeline(definition(*steps))
    arn = service.start_pipeline()
    status = service.execution(arn, "Succeeded", "Failed", "Stopped")["PipelineExecutionStatus"]
    return arn, status, service.steps(arn)


def test_a_function_runs_and_later_steps_get_what_it_returns(service) -> None:
    source = """
    import os, boto3
    from helper import WORD

    def handle(event, context):
        sts = boto3.client("sts").get_caller_identity()
        print(sorted(event))
        assert context.get_remaining_time_in_millis() > 0
        return {
            "colour": WORD + event["suffix"], "count": event["job"].count("-"), "account": sts["Account"],
            "name": context.function_name, "own": os.environ["OWN"], "unasked": [1], "good": True, "share": 0.5,
        }
    """
    arn = _create(service, source, Environment={"Variables": {"OWN": "x"}})
    outputs = [("colour", "String"), ("count", "Integer"), ("good", "Boolean"), ("share", "Float")]
    asks = _lambda(
        arn,
        {"suffix": "ish", "job": {"Get": "Steps.First.TrainingJobName"}},
        *outputs,
        *(("account", "String"), ("name", "String"), ("own", "String"), ("missing", "String")),
    )
    got = {name: {"Get": f"Steps.Ask.OutputParameters['{name}']"} for name, _ in outputs}
    conditions = [
        {"Type": "GreaterThan", "LeftValue": got["count"], "RightValue": 0},
        {"Type": "Equals", "LeftValue": got["good"], "RightValue": True},
        {"Type": "LessThan", "LeftValue": got["share"], "RightValue": 1},
    ]
    use = step("Use", "Training", training(Environment={"COLOUR": got["colour"]}))
    good = step("Good", "Condition", {"Conditions": conditions, "IfSteps": [use], "ElseSteps": []})
    _, status, steps = _ended(service, step("First", "Training", training()), asks, good)
    assert status == "Succeeded", steps
    assert service.runner.jobs[-1].request["Environment"] == {"COLOUR": "greenish"}
    metadata = steps["Ask"]["Metadata"]["Lambda"]
    assert metadata["Arn"] == arn
    shown = {one["Name"]: one["Value"] for one in metadata["OutputParameters"]}
    assert shown["good"] == "true"
    assert (shown["account"], shown["name"], shown["own"]) == ("123456789012", "f", "x")
    assert "missing" not in shown


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise KeyError('colour')", "KeyError: 'colour'"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("import os; os._exit(3)", "Runtime.ExitError: Runtime exited with error: exit status 3"),
        (
            "import os, sys; os.mkfifo(sys.argv[2]); os._exit(4)",
            "Runtime.ExitError: Runtime exited with error: exit status 4",
        ),
        ("return {1, 2}", "TypeError: Object of type set is not JSON serializable"),
        ("return 'x' * (7 << 20)", "Function.ResponseSizeTooLarge: the answer is larger than 6 MB"),
    ],
)
def test_a_function_that_fails_fails_its_step(service, body, reason) -> None:
    arn = _create(service, f"def handle(event, context):\n    {body}\n")
    _, status, steps = _ended(service, _lambda(arn))
    assert status == "Failed"
    assert steps["Ask"]["FailureReason"] == f"ClientError: The function {arn} failed: {reason}"


def test_a_function_that_takes_too_long_is_ended_with_all_that_it_started(service, monkeypatch) -> None:
    monkeypatch.setattr(lambda_functions, "_INIT_SECONDS", 5.0)
    source = """
    import subprocess, sys, time

    def handle(event, context):
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "left-by-a-function"])
        time.sleep(600)
    """
    arn = _create(service, source, Timeout=1)
    _, status, steps = _ended(service, _lambda(arn))
    assert status == "Failed"
    assert steps["Ask"]["FailureReason"].endswith("Sandbox.Timedout: Task timed out after 1.00 seconds")
    until(lambda: not processes("left-by-a-function"), "nothing of it runs")


def test_a_function_that_cannot_run_here_is_named_when_it_is_reached(service) -> None:
    unknown = "arn:aws:lambda:us-east-1:123456789012:function:elsewhere"
    node = _create(service, "exports.handle = 1", name="node", runtime="nodejs20.x")
    first = step("First", "Training", training())
    ask = _lambda(unknown, {}, DependsOn=["First"])
    _, status, steps = _ended(service, first, ask, _lambda(node, {}, name="Node"))
    assert status == "Failed"
    assert steps["First"]["StepStatus"] == "Succeeded"
    assert steps["Ask"]["FailureReason"] == (
        "ClientError: smssh local does not interpret this step of type 'Lambda': "
        f"the function {unknown} is not known here; create it against smssh local."
    )
    assert "the function node (nodejs20.x) is not Python in a zip archive." in steps["Node"]["FailureReason"]


def test_an_output_of_another_type_fails_the_step(service) -> None:
    arn = _create(service, "def handle(event, context):\n    return {'count': 'three'}\n")
    _, status, steps = _ended(service, _lambda(arn, {}, ("count", "Integer")))
    assert status == "Failed"
    assert (
        "The output 'count' must be of type Integer; the function returned 'three'."
        in steps["Ask"]["FailureReason"]
    )


def test_a_cached_function_is_not_invoked_again(service) -> None:
    arn = _create(service, "import time\ndef handle(event, context):\n    return {'now': time.time()}\n")
    ask = _lambda(arn, {"a": "1"}, ("now", "Float"), CacheConfig={"Enabled": True})
    first, _, steps = _ended(service, ask)
    _, status, again = _ended(service, ask)
    assert status == "Succeeded"
    assert again["Ask"]["CacheHitResult"] == {"SourcePipelineExecutionArn": first}
    assert again["Ask"]["Metadata"] == steps["Ask"]["Metadata"]


def test_a_throttled_invocation_is_repeated(service) -> None:
    arn = _create(service, "def handle(event, context):\n    return {}\n")
    service.sessions.faults.add(Fault("lambda:Invoke", "TooManyRequestsException", status=429, times=1))
    _, status, _ = _ended(service, _lambda(arn))
    assert status == "Succeeded"
