"""Executions of pipelines, through a real client."""

from __future__ import annotations

import json
import re

import pytest
from botocore.exceptions import ClientError

from smssh_plugin.local.pipelines.definition import parse
from smssh_plugin.local.sagemaker.shapes import Shapes
from smssh_plugin.local.service_error import ServiceError
from tests.local.service_harness import (
    IMAGE,
    ROLE,
    definition,
    processing,
    running,
    step,
    training,
    transform,
)
from tests.waiting import until


@pytest.fixture
def service():
    with running() as one:
        yield one


def _get(path: str) -> dict[str, str]:
    return {"Get": path}


def _join(*values, on: str = "") -> dict[str, object]:
    return {"Std:Join": {"On": on, "Values": list(values)}}


def _condition(name: str, conditions, if_steps=(), else_steps=(), **more):
    arguments = {"Conditions": conditions, "IfSteps": list(if_steps), "ElseSteps": list(else_steps)}
    return step(name, "Condition", arguments, **more)


def _train(name: str, outcome: str = "succeed", seconds: float = 0.02, **more):
    return step(name, "Training", training(Environment={"OUTCOME": outcome, "SECONDS": str(seconds)}), **more)


def _job(service, name: str) -> dict:
    """The request of the job of a step."""
    for job in service.runner.jobs:
        tags = {tag["Key"]: tag["Value"] for tag in job.request["Tags"]}
        if tags["sagemaker:pipeline-step-name"] == name:
            return job.request
    raise AssertionError(f"step {name} made no job")


def test_values_go_from_step_to_step(service) -> None:
    container = {"Image": IMAGE, "ModelDataUrl": _get("Steps.Train.ModelArtifacts.S3ModelArtifacts")}
    arguments = transform(ModelName=_get("Steps.Model.ModelName"))
    prepared = _get("Steps.Prepare.ProcessingOutputConfig.Outputs['out'].S3Output.S3Uri")
    channel = {
        "ChannelName": "train",
        "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": prepared}},
    }
    environment = {
        "ID": _join(_get("Execution.PipelineExecutionId"), _get("Execution.PipelineName"), on="/"),
        "RATE": _join(_get("Parameters.Rate")),
        "ME": _get("Execution.TrainingJobName"),
        "FIRST": _get("Steps.Prepare.AppSpecification.ContainerEntrypoint[0]"),
    }
    service.pipeline(
        definition(
            step("Score", "Transform", arguments),
            step("Model", "Model", {"PrimaryContainer": container, "ExecutionRoleArn": ROLE}),
            step("Train", "Training", training(InputDataConfig=[channel], Environment=environment)),
            step("Prepare", "Processing", processing(), DisplayName="Prepare it", Description="first"),
            Parameters=[{"Name": "Rate", "Type": "Float", "DefaultValue": 0.5}],
            PipelineExperimentConfig={
                "ExperimentName": _get("Execution.PipelineName"),
                "TrialName": _get("Execution.PipelineExecutionId"),
            },
        )
    )
    arn = service.start_pipeline()
    identity = arn.rpartition("/")[2]
    assert re.fullmatch(r"arn:aws:sagemaker:us-east-1:123456789012:pipeline/pipe/execution/[a-z0-9]{12}", arn)
    found = service.execution(arn, "Succeeded", "Failed")
    steps = service.steps(arn)
    assert found["PipelineExecutionStatus"] == "Succeeded", steps
    assert found["PipelineExperimentConfig"] == {"ExperimentName": "pipe", "TrialName": identity}
    assert [job.kind for job in service.runner.jobs] == ["processing", "training", "transform"]

    train = _job(service, "Train")
    assert train["InputDataConfig"][0]["DataSource"]["S3DataSource"]["S3Uri"] == "s3://bucket/out"
    name = train["TrainingJobName"]
    assert train["Environment"] == {"ID": f"{identity}/pipe", "RATE": "0.5", "ME": name, "FIRST": "python3"}
    assert re.fullmatch(f"pipelines-{identity}-Train-[A-Za-z0-9]{{10}}", name)
    assert {"Key": "sagemaker:pipeline-execution-arn", "Value": arn} in train["Tags"]

    score = _job(service, "Score")
    model = service.sagemaker.describe_model(ModelName=score["ModelName"])
    assert model["PrimaryContainer"]["ModelDataUrl"] == f"s3://bucket/models/{name}/output/model.tar.gz"
    assert steps["Train"]["Metadata"] == {
        "TrainingJob": {"Arn": f"arn:aws:sagemaker:us-east-1:123456789012:training-job/{name}"}
    }
    assert steps["Model"]["Metadata"]["Model"]["Arn"] == model["ModelArn"]
    assert steps["Prepare"]["StepDisplayName"] == "Prepare it"
    assert steps["Prepare"]["StepDescription"] == "first"
    assert all(entry["StepStatus"] == "Succeeded" and entry["AttemptCount"] == 1 for entry in steps.values())
    order = [
        entry["StepName"]
        for entry in service.sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=arn)[
            "PipelineExecutionSteps"
        ]
    ]
    assert order == ["Score", "Model", "Train", "Prepare"], "the newest first, as the service lists them"
    pages = service.sagemaker.get_paginator("list_pipeline_execution_steps").paginate(
        PipelineExecutionArn=arn, SortOrder="Ascending", PaginationConfig={"PageSize": 1}
    )
    assert [entry["StepName"] for page in pages for entry in page["PipelineExecutionSteps"]] == order[::-1]


def test_a_failed_step_stops_what_needs_it_and_nothing_else(service) -> None:
    service.pipeline(
        definition(
            _train("Bad", "fail"),
            _train("AfterBad", DependsOn=["Bad"]),
            _train("Slow", seconds=0.3),
            _train("AfterSlow", DependsOn=["Slow"]),
            _train("Both", DependsOn=["Slow", "Bad"]),
        )
    )
    arn = service.start_pipeline()
    found = service.execution(arn, "Failed", "Succeeded")
    assert found["PipelineExecutionStatus"] == "Failed"
    assert found["FailureReason"] == "Step failure: One or multiple steps failed."
    steps = service.steps(arn)
    assert {name: entry["StepStatus"] for name, entry in steps.items()} == {
        "Bad": "Failed",
        "Slow": "Succeeded",
        "AfterSlow": "Succeeded",
    }
    job = steps["Bad"]["Metadata"]["TrainingJob"]["Arn"].rpartition("/")[2]
    reason = service.sagemaker.describe_training_job(TrainingJobName=job)["FailureReason"]
    assert steps["Bad"]["FailureReason"] == reason
    summary = service.sagemaker.list_pipeline_executions(PipelineName="pipe")["PipelineExecutionSummaries"][0]
    assert summary["PipelineExecutionFailureReason"] == found["FailureReason"]


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ({"Type": "Equals", "LeftValue": _get("Parameters.N"), "RightValue": 3}, True),
        ({"Type": "Equals", "LeftValue": _get("Parameters.N"), "RightValue": 3.0}, True),
        ({"Type": "Equals", "LeftValue": _get("Parameters.N"), "RightValue": "3"}, False),
        ({"Type": "Equals", "LeftValue": _get("Parameters.B"), "RightValue": True}, True),
        ({"Type": "Equals", "LeftValue": _get("Parameters.B"), "RightValue": 1}, False),
        ({"Type": "GreaterThan", "LeftValue": _get("Parameters.N"), "RightValue": 3}, False),
        ({"Type": "GreaterThanOrEqualTo", "LeftValue": _get("Parameters.N"), "RightValue": 3}, True),
        ({"Type": "LessThan", "LeftValue": _get("Parameters.N"), "RightValue": 3.5}, True),
        ({"Type": "LessThanOrEqualTo", "LeftValue": "a", "RightValue": _get("Parameters.S")}, True),
        ({"Type": "In", "QueryValue": _get("Parameters.S"), "Values": ["a", _join("b", "c")]}, True),
        ({"Type": "In", "QueryValue": "z", "Values": ["a"]}, False),
        ({"Type": "Not", "Condition": {"Type": "Equals", "LeftValue": 1, "RightValue": 1}}, False),
        (
            {
                "Type": "Or",
                "Conditions": [
                    {"Type": "Equals", "LeftValue": 1, "RightValue": 2},
                    {"Type": "Equals", "LeftValue": 1, "RightValue": 1},
                ],
            },
            True,
        ),
        (
            {
                "Type": "And",
                "Conditions": [
                    {"Type": "Equals", "LeftValue": 1, "RightValue": 2},
                    {"Type": "Equals", "LeftValue": 1, "RightValue": 1},
                ],
            },
            False,
        ),
        (
            {
                "Type": "Equals",
                "LeftValue": {"Std:JsonGet": {"S3Uri": "s3://bbb/r.json", "Path": "a[1]['b c']"}},
                "RightValue": 7,
            },
            True,
        ),
    ],
)
def test_conditions(service, condition, holds) -> None:
    service.s3.create_bucket(Bucket="bbb")
    service.s3.put_object(Bucket="bbb", Key="r.json", Body=json.dumps({"a": [0, {"b c": 7}]}))
    parameters = [
        {"Name": "N", "Type": "Integer", "DefaultValue": 3},
        {"Name": "S", "Type": "String", "DefaultValue": "bc"},
        {"Name": "B", "Type": "Boolean", "DefaultValue": True},
    ]
    right = [{"Type": "Equals", "LeftValue": 1, "RightValue": 1}]
    branches = {"if_steps": [_train("Yes")], "else_steps": [_condition("Nested", right, [_train("No")])]}
    after = _train("After", DependsOn=["Ask"])
    service.pipeline(
        definition(_condition("Ask", [*right, condition], **branches), after, Parameters=parameters)
    )
    arn = service.start_pipeline()
    assert service.execution(arn, "Succeeded", "Failed")["PipelineExecutionStatus"] == "Succeeded"
    steps = service.steps(arn)
    assert steps["Ask"]["Metadata"] == {"Condition": {"Outcome": str(holds)}}
    assert set(steps) == ({"Ask", "After", "Yes"} if holds else {"Ask", "After", "Nested", "No"})


def test_a_condition_reads_a_property_file(service) -> None:
    service.s3.create_bucket(Bucket="bucket")
    files = [{"PropertyFileName": "Report", "OutputName": "out", "FilePath": "report.json"}]
    evaluate = step(
        "Evaluate",
        "Processing",
        processing(Environment={"REPORT": json.dumps({"metrics": {"auc": 0.9}})}),
        PropertyFiles=files,
    )
    value = {
        "Std:JsonGet": {"PropertyFile": _get("Steps.Evaluate.PropertyFiles.Report"), "Path": "metrics.auc"}
    }
    ask = _condition("Ask", [{"Type": "GreaterThan", "LeftValue": value, "RightValue": 0.8}], [_train("Yes")])
    service.pipeline(definition(ask, evaluate))
    arn = service.start_pipeline()
    service.execution(arn, "Succeeded")
    assert service.steps(arn)["Ask"]["Metadata"] == {"Condition": {"Outcome": "True"}}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"S3Uri": "s3://bbb/none.json", "Path": "a"}, "s3://bbb/none.json can not be read"),
        ({"S3Uri": "s3://bbb/broken.json", "Path": "a"}, "s3://bbb/broken.json is not JSON"),
        ({"S3Uri": "s3://bbb/ok.json", "Path": "$.a.b"}, "'$.a.b in s3://bbb/ok.json' has no value"),
        ({"S3Uri": "s3://bbb/ok.json", "Path": "a"}, "GreaterThan can not compare 'x' with '1'"),
    ],
)
def test_a_condition_that_cannot_be_decided_fails(service, value, expected) -> None:
    service.s3.create_bucket(Bucket="bbb")
    service.s3.put_object(Bucket="bbb", Key="broken.json", Body=b"{")
    service.s3.put_object(Bucket="bbb", Key="ok.json", Body=b'{"a": "x"}')
    condition = {"Type": "GreaterThan", "LeftValue": {"Std:JsonGet": value}, "RightValue": 1}
    service.pipeline(definition(_condition("Ask", [condition], [_train("Yes")])))
    arn = service.start_pipeline()
    service.execution(arn, "Failed")
    steps = service.steps(arn)
    assert set(steps) == {"Ask"}
    assert expected in steps["Ask"]["FailureReason"]
    assert steps["Ask"]["FailureReason"].startswith("ClientError: ")


def test_fail_steps(service) -> None:
    # As the SDK's integration tests of the service have it
    # (tests/integ/sagemaker/workflow/test_fail_steps.py).
    ask = _condition("Ask", [{"Type": "Equals", "LeftValue": 1, "RightValue": 2}])
    message = _join("Failed due to xxx == yyy returns", _get("Steps.Ask.Outcome"), on=": ")
    service.pipeline(
        definition(
            ask, step("Stop", "Fail", {"ErrorMessage": message}), step("Mute", "Fail", {"ErrorMessage": ""})
        )
    )
    arn = service.start_pipeline()
    assert service.execution(arn, "Failed")["FailureReason"].startswith(
        "Step failure: One or multiple steps failed"
    )
    steps = service.steps(arn)
    assert steps["Stop"]["FailureReason"] == "Failed due to xxx == yyy returns: false"
    assert steps["Stop"]["Metadata"] == {"Fail": {"ErrorMessage": "Failed due to xxx == yyy returns: false"}}
    assert "FailureReason" not in steps["Mute"]
    assert steps["Mute"]["Metadata"] == {"Fail": {"ErrorMessage": ""}}


def test_what_a_service_call_refuses_fails_the_step(service) -> None:
    broken = training(Environment={"A": _get("Parameters.Long")})
    service.pipeline(
        definition(
            step("Train", "Training", broken),
            step("Score", "Transform", transform(ModelName="absent")),
            Parameters=[{"Name": "Long", "Type": "String", "DefaultValue": "x" * 513}],
        )
    )
    arn = service.start_pipeline()
    service.execution(arn, "Failed")
    steps = service.steps(arn)
    assert steps["Train"]["FailureReason"].startswith(
        "ClientError: Failed to invoke sagemaker:CreateTrainingJob. Error Details: 1 validation error"
    )
    assert "Error Details: Could not find model" in steps["Score"]["FailureReason"]
    assert "Metadata" not in steps["Train"] or steps["Train"]["Metadata"] == {}


def test_parallel_steps_are_limited(service) -> None:
    steps = [_train(f"S{n}", seconds=0.1) for n in range(6)]
    service.pipeline(definition(*steps), ParallelismConfiguration={"MaxParallelExecutionSteps": 2})
    service.execution(service.start_pipeline(), "Succeeded")
    assert service.runner.most == 2
    arn = service.start_pipeline(ParallelismConfiguration={"MaxParallelExecutionSteps": 3})
    assert service.execution(arn, "Succeeded")["ParallelismConfiguration"] == {"MaxParallelExecutionSteps": 3}
    assert service.runner.most == 3


def test_stop(service) -> None:
    service.pipeline(
        definition(_train("Long", "hold"), _train("After", DependsOn=["Long"]), _train("Sturdy", "stubborn"))
    )
    arn = service.start_pipeline()
    until(lambda: len(service.runner.running) == 2 and len(service.steps(arn)) == 2, "two steps run")
    with pytest.raises(ClientError, match=r"ConflictException"):
        service.sagemaker.delete_pipeline(PipelineName="pipe", ClientRequestToken="x" * 32)
    service.sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn, ClientRequestToken="s" * 32)
    found = service.execution(arn, "Stopped", "Failed", "Succeeded")
    assert found["PipelineExecutionStatus"] == "Stopped"
    states = {name: entry["StepStatus"] for name, entry in service.steps(arn).items()}
    assert states == {"Long": "Stopped", "Sturdy": "Succeeded"}
    with pytest.raises(ClientError, match=r"ConflictException.*in status Stopped"):
        service.sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn, ClientRequestToken="u" * 32)


def test_a_job_stopped_by_somebody_fails_its_step(service) -> None:
    service.pipeline(definition(_train("Long", "hold")))
    arn = service.start_pipeline()
    name = until(lambda: next(iter(service.runner.running), None), "the job runs")
    service.sagemaker.stop_training_job(TrainingJobName=name)
    service.execution(arn, "Failed")
    assert "was stopped" in service.steps(arn)["Long"]["FailureReason"]


def test_retry_runs_what_did_not_succeed(service) -> None:
    service.pipeline(
        definition(
            _train("Good"), _train("Bad", "fail", DependsOn=["Good"]), _train("End", DependsOn=["Bad"])
        )
    )
    arn = service.start_pipeline()
    service.execution(arn, "Failed")
    for job in service.runner.jobs:
        job.request["Environment"]["OUTCOME"] = "succeed"  # the definition's own dictionary is not this one
    service.sagemaker.retry_pipeline_execution(PipelineExecutionArn=arn, ClientRequestToken="r" * 32)
    service.execution(arn, "Failed")
    steps = service.steps(arn)
    assert (steps["Good"]["AttemptCount"], steps["Bad"]["AttemptCount"]) == (1, 2)
    assert [job.request["Tags"][-1]["Value"] for job in service.runner.jobs] == ["Good", "Bad", "Bad"]
    service.sagemaker.update_pipeline(
        PipelineName="pipe", PipelineDefinition=json.dumps(definition(_train("Good")))
    )
    done = service.start_pipeline()
    service.execution(done, "Succeeded")
    with pytest.raises(ClientError, match=r"ConflictException.*Succeeded"):
        service.sagemaker.retry_pipeline_execution(PipelineExecutionArn=done, ClientRequestToken="q" * 32)


def test_parameters(service) -> None:
    parameters = [
        {"Name": "Size", "Type": "Integer"},
        {"Name": "Kind", "Type": "String", "DefaultValue": "a", "EnumValues": ["a", "b"]},
        {"Name": "Fast", "Type": "Boolean", "DefaultValue": False},
        {"Name": "Rate", "Type": "Float", "DefaultValue": 1},
    ]
    environment = {
        "V": _join(*(_get(f"Parameters.{name}") for name in ("Size", "Kind", "Fast", "Rate")), on=",")
    }
    service.pipeline(
        definition(step("S", "Training", training(Environment=environment)), Parameters=parameters)
    )

    def start(**given: str) -> str:
        return service.start_pipeline(PipelineParameters=[{"Name": k, "Value": v} for k, v in given.items()])

    arn = start(Size="12", Fast="True")
    service.execution(arn, "Succeeded")
    assert _job(service, "S")["Environment"] == {"V": "12,a,true,1.0"}
    listed = service.sagemaker.list_pipeline_parameters_for_execution(PipelineExecutionArn=arn, MaxResults=3)
    assert listed["PipelineParameters"][0] == {"Name": "Fast", "Value": "true"}
    rest = service.sagemaker.list_pipeline_parameters_for_execution(
        PipelineExecutionArn=arn, NextToken=listed["NextToken"]
    )
    assert rest["PipelineParameters"] == [{"Name": "Size", "Value": "12"}]
    for given, expected in [
        ({}, "'Size' has no default value"),
        ({"Size": "x"}, "Invalid value 'x' for parameter 'Size': expected type Integer"),
        ({"Size": "1", "Kind": "c"}, r"Invalid value 'c' for parameter 'Kind': it must be one of \[a, b\]"),
        ({"Size": "1", "Fast": "maybe"}, "expected type Boolean"),
        ({"Size": "1", "Other": "1"}, "Unknown pipeline parameter 'Other'"),
    ]:
        with pytest.raises(ClientError, match=f"ValidationException.*{expected}"):
            start(**given)


def test_the_life_of_a_pipeline(service) -> None:
    client = service.sagemaker
    first = definition(_train("One"))
    arn = service.pipeline(first, PipelineDescription="d", Tags=[{"Key": "a", "Value": "b"}])
    found = client.describe_pipeline(PipelineName="pipe")
    assert json.loads(found["PipelineDefinition"]) == first
    assert (found["PipelineArn"], found["PipelineStatus"], found["RoleArn"]) == (arn, "Active", ROLE)
    assert client.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "a", "Value": "b"}]
    assert service.pipeline(first, PipelineDescription="d", Tags=[{"Key": "a", "Value": "b"}]) == arn, (
        "same token"
    )
    with pytest.raises(ClientError, match=r"ValidationException.*Pipeline with name \(pipe\) already exists"):
        client.create_pipeline(
            PipelineName="pipe", RoleArn=ROLE, PipelineDefinition="{}", ClientRequestToken="o" * 32
        )

    second = definition(_train("Two"))
    service.s3.create_bucket(Bucket="bbb")
    service.s3.put_object(Bucket="bbb", Key="d.json", Body=json.dumps(second).encode())
    place = {"Bucket": "bbb", "ObjectKey": "d.json"}
    assert (
        client.update_pipeline(PipelineName="pipe", PipelineDefinitionS3Location=place)["PipelineVersionId"]
        == 2
    )
    one = service.start_pipeline(PipelineVersionId=1, PipelineExecutionDisplayName="mine")
    two = service.start_pipeline(name=arn)
    assert service.execution(one, "Succeeded")["PipelineExecutionDisplayName"] == "mine"
    assert service.execution(two, "Succeeded")["PipelineVersionId"] == 2
    assert (list(service.steps(one)), list(service.steps(two))) == (["One"], ["Two"])
    text = client.describe_pipeline_definition_for_execution(PipelineExecutionArn=one)["PipelineDefinition"]
    assert json.loads(text) == first
    listed = client.list_pipeline_executions(PipelineName="pipe")["PipelineExecutionSummaries"]
    assert [summary["PipelineExecutionArn"] for summary in listed] == [two, one]
    assert [summary["PipelineName"] for summary in client.list_pipelines()["PipelineSummaries"]] == ["pipe"]

    client.delete_pipeline(PipelineName="pipe", ClientRequestToken="d" * 32)
    with pytest.raises(ClientError, match=f"ResourceNotFound.*Pipeline '{arn}' does not exist"):
        client.describe_pipeline(PipelineName="pipe")
    with pytest.raises(ClientError, match="ResourceNotFound"):
        client.describe_pipeline_execution(PipelineExecutionArn=one)
    with pytest.raises(ClientError, match="ResourceNotFound"):
        client.start_pipeline_execution(PipelineName="pipe")


def test_two_answers_for_one_token(service) -> None:
    service.pipeline(definition(_train("One")))
    token = "k" * 32
    arn = service.start_pipeline(ClientRequestToken=token)
    assert service.start_pipeline(ClientRequestToken=token) == arn
    with pytest.raises(ClientError, match="ClientRequestToken"):
        service.start_pipeline(ClientRequestToken=token, PipelineExecutionDescription="other")
    service.execution(arn, "Succeeded")


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([step("M", "Mystery", {})], "Unknown step type 'Mystery' (step 'M')"),
        ([step("C", "Callback", {})], "Step 'C': a Callback step needs SqsQueueUrl"),
        (
            [_train("S", CacheConfig={"Enabled": True, "ExpireAfter": "soon"})],
            "Step 'S': ExpireAfter 'soon' is not a duration of ISO 8601",
        ),
        ([_train("S"), _train("S")], "Two steps have the name 'S'"),
        (
            [
                _train("S"),
                _condition("C", [{"Type": "Equals", "LeftValue": 1, "RightValue": 1}], [_train("S")]),
            ],
            "Two steps have the name 'S'",
        ),
        ([_train("S", DependsOn=["Nobody"])], "Step 'S': DependsOn names the unknown step 'Nobody'"),
        ([_train("A", DependsOn=["B"]), _train("B", DependsOn=["A"])], "in a cycle: A -> B -> A"),
        ([_train("A", DependsOn=["A"])], "in a cycle: A -> A"),
        ([_train("bad name")], "The step name 'bad name' must match"),
        ([_train("S", IterateOver=[])], "does not interpret the member 'IterateOver' (step 'S')"),
        (
            [step("S", "Training", training(Environment={"A": {"Std:Mystery": {}}}))],
            "does not interpret the function 'Std:Mystery' (step 'S')",
        ),
        (
            [step("S", "Training", training(Environment={"A": _join("x", {"Std:Mystery": {}})}))],
            "does not interpret the function 'Std:Mystery' (step 'S')",
        ),
        (
            [step("S", "Training", training(Environment={"A": _get("Item.x")}))],
            "{'Get': 'Item.x'} (step 'S')",
        ),
        (
            [step("S", "Training", training(Environment={"A": _get("Parameters.No")}))],
            "'Parameters.No' names an unknown parameter (step 'S')",
        ),
        (
            [step("S", "Training", training(Environment={"A": _get("Execution.No")}))],
            "execution variable 'No'",
        ),
        (
            [step("S", "Training", training(Environment={"A": _get("Steps.No.TrainingJobName")}))],
            "'Steps.No.TrainingJobName' names the unknown step 'No' (step 'S')",
        ),
        (
            [_train("T"), step("S", "Training", training(Environment={"A": _get("Steps.T.Nonsense")}))],
            "'Steps.T.Nonsense' is not a property of a Training step (step 'S')",
        ),
        (
            [step("S", "Training", {**training(), "Nonsense": 1})],
            "Unknown Argument member 'Nonsense'. (Step 'S'.)",
        ),
        ([step("S", "Training", training(InputDataConfig={}))], "Expecting start of Json Array. (Step 'S'.)"),
        ([step("S", "Training", {"RoleArn": ROLE})], "Missing required field 'OutputDataConfig'"),
        (
            [step("S", "Training", training(ResourceConfig={"InstanceType": "ml.no", "VolumeSizeInGB": 1}))],
            "Value 'ml.no' for 'TrainingInstanceType' failed to satisfy enum value set: [",
        ),
        ([step("S", "Training", [])], "Step 'S': Expecting start of Json Object"),
        ([_condition("C", [])], "Step 'C': a Condition step needs Conditions"),
        ([_condition("C", [{"Type": "Like"}])], "conditions of type 'Like' (step 'C')"),
        (
            [_condition("C", [{"Type": "Equals", "LeftValue": 1}])],
            "condition of type 'Equals' needs RightValue",
        ),
        (
            [_condition("C", [{"Type": "Not", "Condition": {"Type": "Near"}}])],
            "conditions of type 'Near' (step 'C')",
        ),
        (
            [step("F", "Fail", {"ErrorMessage": "x"}), _train("S", DependsOn=["F"])],
            "S can not depends on F",
        ),
        (
            [_train("S", RetryPolicies=[{"ExceptionType": ["Step.MOON_PHASE"], "MaxAttempts": 1}])],
            "RetryPolicies: Value 'Step.MOON_PHASE' for 'ExceptionType'",
        ),
        (
            [
                step("P", "Processing", processing()),
                _condition(
                    "C",
                    [
                        {
                            "Type": "Equals",
                            "LeftValue": {
                                "Std:JsonGet": {"PropertyFile": _get("Steps.P.PropertyFiles.No"), "Path": "a"}
                            },
                            "RightValue": 1,
                        }
                    ],
                ),
            ],
            "Step 'P' has no property file 'No' (step 'C')",
        ),
        (
            [
                _condition(
                    "C",
                    [
                        {
                            "Type": "Equals",
                            "LeftValue": {"Std:JsonGet": {"S3Uri": "s3://bbb/k", "Path": "a[*].b"}},
                            "RightValue": 1,
                        }
                    ],
                )
            ],
            "the Path 'a[*].b' of Std:JsonGet (step 'C')",
        ),
        (
            [
                step(
                    "P",
                    "Processing",
                    processing(),
                    PropertyFiles=[{"PropertyFileName": "R", "OutputName": "no", "FilePath": "r.json"}],
                )
            ],
            "property file 'R' names the unknown output 'no'",
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_refused_at_create(service, steps, expected) -> None:
    with pytest.raises(ClientError) as caught:
        service.pipeline(definition(*steps))
    error = caught.value.response["Error"]
    assert error["Code"] == "ValidationException"
    assert error["Message"].startswith("Unable to parse pipeline definition. ")
    assert expected in error["Message"]
    assert service.sagemaker.list_pipelines()["PipelineSummaries"] == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"Version": "2019"}, "Unknown version '2019'"),
        ({"Steps": []}, "at least one step"),
        ({"Extra": 1}, "Unknown member 'Extra'"),
        ({"MlflowConfig": {"MlflowResourceArn": "x"}}, "MlflowConfig"),
        ({"Parameters": [{"Name": "A", "Type": "Date"}]}, "Parameter 'A' has the unknown type 'Date'"),
        ({"Parameters": [{"Name": "A", "Type": "String"}] * 2}, "Two parameters have the name 'A'"),
        ({"Parameters": [{"Name": "A", "Type": "Integer", "DefaultValue": "x"}]}, "expected type Integer"),
        (
            {"Parameters": [{"Name": "A", "Type": "String", "DefaultValue": "x", "EnumValues": ["y"]}]},
            "must be one of [y]",
        ),
        ({"PipelineExperimentConfig": {"TrialName": _get("Execution.No")}}, "execution variable 'No'"),
    ],
)
def test_definitions_refused_at_create(service, change, expected) -> None:
    with pytest.raises(ClientError) as caught:
        service.pipeline({**definition(_train("S")), **change})
    assert caught.value.response["Error"]["Code"] == "ValidationException"
    assert expected in caught.value.response["Error"]["Message"]


def test_requests_refused(service) -> None:
    client, token = service.sagemaker, "z" * 32
    for given, expected in [
        ({"PipelineDefinition": "{"}, "Not valid JSON"),
        ({"PipelineDefinition": "[]"}, "Expecting start of Json Object"),
        ({}, "Either Pipeline Definition or"),
        (
            {"PipelineDefinition": "{}", "PipelineDefinitionS3Location": {"Bucket": "bbb", "ObjectKey": "k"}},
            "Both Pipeline Definition and",
        ),
        ({"PipelineDefinitionS3Location": {"Bucket": "bbb", "ObjectKey": "k"}}, "s3://bbb/k can not be read"),
    ]:
        with pytest.raises(ClientError, match=f"ValidationException.*{expected}"):
            client.create_pipeline(PipelineName="p", RoleArn=ROLE, ClientRequestToken=token, **given)
    service.pipeline(definition(_train("S")))
    with pytest.raises(ClientError, match=r"ResourceNotFound.*no version 7"):
        service.start_pipeline(PipelineVersionId=7)


def test_policies_for_faults_that_do_not_happen_change_nothing(service) -> None:
    policies = [{"ExceptionType": ["Step.THROTTLING", "SageMaker.CAPACITY_ERROR"], "MaxAttempts": 3}]
    service.pipeline(definition(_train("S", RetryPolicies=policies)))
    for _ in range(2):
        arn = service.start_pipeline()
        service.execution(arn, "Succeeded")
        assert "CacheHitResult" not in service.steps(arn)["S"]
    assert len(service.runner.jobs) == 2


ODD = [None, 5, True, 1.5, "x", [], {}, ["x"], [None], [{}], [[]], {"x": 1}, {"Get": 5}, {"Std:Join": 5}]


def _places(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _places(item, (*path, key))


def _with(value, path, odd):
    if not path:
        return odd
    made = dict(value) if isinstance(value, dict) else list(value)
    made[path[0]] = _with(made[path[0]], path[1:], odd)
    return made


def test_no_definition_is_too_odd_to_be_refused_in_words() -> None:
    """Whatever stands where: it is understood, or refused as the service refuses it, and never an internal error."""
    one = {"Type": "Equals", "LeftValue": _get("Parameters.N"), "RightValue": 1}
    value = {"Std:JsonGet": {"PropertyFile": _get("Steps.P.PropertyFiles.R"), "Path": "a"}}
    conditions = [
        one,
        {"Type": "In", "QueryValue": "a", "Values": ["a", _join("b")]},
        {"Type": "Or", "Conditions": [{"Type": "Not", "Condition": one}]},
        {"Type": "GreaterThan", "LeftValue": value, "RightValue": 1},
    ]
    outputs = [{"OutputName": "o", "OutputType": "String"}]
    policies = [{"ExceptionType": ["Step.THROTTLING"], "MaxAttempts": 1}]
    document = definition(
        step(
            "P",
            "Processing",
            processing(),
            PropertyFiles=[{"PropertyFileName": "R", "OutputName": "out", "FilePath": "r.json"}],
            CacheConfig={"Enabled": True, "ExpireAfter": "PT1H"},
            DisplayName="p",
        ),
        _train("T", DependsOn=["P", {"Step": "C", "Trigger": "Failed"}], RetryPolicies=policies),
        _condition("C", conditions, [step("F", "Fail", {"ErrorMessage": "x"})]),
        {**step("K", "Callback", {"a": "1"}), "SqsQueueUrl": "q", "OutputParameters": outputs},
        {**step("L", "Lambda", {"a": "1"}), "FunctionArn": "f", "OutputParameters": outputs},
        step("Q", "QualityCheck", {"a": _join(_get("Steps.T.TrainingJobName"))}),
        Parameters=[{"Name": "N", "Type": "Integer", "DefaultValue": 1}],
        PipelineExperimentConfig={"ExperimentName": "e"},
    )
    shapes = Shapes()
    parse(json.dumps(document), shapes)
    codes = set()
    for path in _places(document):
        for odd in ODD:
            text = json.dumps(_with(document, path, odd))
            try:
                parse(text, shapes)
            except ServiceError as refused:
                codes.add(refused.code)
            except Exception as error:
                raise AssertionError(f"{odd!r} at {path}: {error!r}") from error
    assert codes == {"ValidationException"}
    for deep in ("[" * 100_000, '{"a":' * 100_000):
        with pytest.raises(ServiceError, match="Not valid JSON"):
            parse(deep, shapes)


def test_steps_for_the_failure_of_another(service) -> None:
    """As SDK v3 writes a StepDependency."""
    after = {
        name: _train(name, DependsOn=[{"Step": upstream, "Trigger": trigger}])
        for name, upstream, trigger in [
            ("Alarm", "Bad", "Failed"),
            ("Never", "Good", "Failed"),
            ("Always", "Bad", "Any"),
            ("Also", "Good", "Any"),
        ]
    }
    service.pipeline(definition(_train("Bad", "fail"), _train("Good"), *after.values()))
    arn = service.start_pipeline()
    found = service.execution(arn, "Succeeded", "Failed", "CompletedWithFailures")
    assert found["PipelineExecutionStatus"] == "CompletedWithFailures"
    assert set(service.steps(arn)) == {"Bad", "Good", "Alarm", "Always", "Also"}
    wrong = _train("X", DependsOn=[{"Step": "Good", "Trigger": "Sometimes"}])
    with pytest.raises(ClientError, match="Value 'Sometimes' for 'Trigger'"):
        service.pipeline(definition(_train("Good"), wrong), name="other")


def test_a_condition_on_what_is_no_list_fails_its_step(service) -> None:
    condition = {"Type": "In", "QueryValue": "a", "Values": _get("Parameters.S")}
    parameters = [{"Name": "S", "Type": "String", "DefaultValue": "abc"}]
    service.pipeline(definition(_condition("Ask", [condition]), _train("Other"), Parameters=parameters))
    arn = service.start_pipeline()
    service.execution(arn, "Failed")
    steps = service.steps(arn)
    assert steps["Ask"]["FailureReason"] == "ClientError: In needs a list of values, not 'abc'."
    assert steps["Other"]["StepStatus"] == "Succeeded"
