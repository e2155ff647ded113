"""The model registry, and the steps at the end of most pipelines, through a real client."""

from __future__ import annotations

import json

import pytest
from botocore.exceptions import ClientError

from tests.local.service_harness import IMAGE, definition, running, step, training
from tests.waiting import until

SPECIFICATION = {
    "Containers": [{"Image": IMAGE, "ModelDataUrl": "s3://bucket/model.tar.gz"}],
    "SupportedContentTypes": ["text/csv"],
    "SupportedResponseMIMETypes": ["text/csv"],
}


@pytest.fixture
def service():
    with running() as one:
        yield one


def _train(name, outcome="succeed", **more):
    return step(name, "Training", training(Environment={"OUTCOME": outcome, "SECONDS": "0.02"}), **more)


def _run(service, *steps):
    """Start the pipeline, made or changed to have these steps."""
    document = definition(*steps)
    if service.sagemaker.list_pipelines()["PipelineSummaries"]:
        service.sagemaker.update_pipeline(PipelineName="pipe", PipelineDefinition=json.dumps(document))
    else:
        service.pipeline(document)
    return service.start_pipeline()


def _ended(service, execution):
    return service.execution(execution, "Succeeded", "Failed", "Stopped")


def test_a_model_is_registered_after_a_condition_and_approved(service) -> None:
    specification = json.loads(json.dumps(SPECIFICATION))
    specification["Containers"][0]["ModelDataUrl"] = {"Get": "Steps.Train.ModelArtifacts.S3ModelArtifacts"}
    arguments = {"ModelPackageGroupName": "abalone", "InferenceSpecification": specification}
    register = step("Register", "RegisterModel", arguments)
    one = {"Type": "Equals", "LeftValue": 1, "RightValue": 1}
    condition = step("Good", "Condition", {"Conditions": [one], "IfSteps": [register], "ElseSteps": []})
    for version in (1, 2):
        execution = _run(service, _train("Train"), condition)
        assert _ended(service, execution)["PipelineExecutionStatus"] == "Succeeded"
        package = service.steps(execution)["Register"]["Metadata"]["RegisterModel"]["Arn"]
        assert package == f"arn:aws:sagemaker:us-east-1:123456789012:model-package/abalone/{version}"
    client = service.sagemaker
    found = client.list_model_packages(
        ModelPackageGroupName="abalone", ModelApprovalStatus="PendingManualApproval", SortOrder="Descending"
    )
    assert [one["ModelPackageVersion"] for one in found["ModelPackageSummaryList"]] == [2, 1]
    client.update_model_package(
        ModelPackageArn=package, ModelApprovalStatus="Approved", ApprovalDescription="fine"
    )
    shown = client.describe_model_package(ModelPackageName=package)
    assert (shown["ModelApprovalStatus"], shown["ModelPackageStatus"]) == ("Approved", "Completed")
    url = shown["InferenceSpecification"]["Containers"][0]["ModelDataUrl"]
    assert url.startswith("s3://")
    assert url.endswith("/output/model.tar.gz")
    assert (
        client.describe_model_package_group(ModelPackageGroupName="abalone")["ModelPackageGroupStatus"]
        == "Completed"
    )


def test_the_life_of_groups_and_packages(service) -> None:
    client = service.sagemaker
    with pytest.raises(ClientError, match="does not exist"):
        client.describe_model_package_group(ModelPackageGroupName="g")
    with pytest.raises(ClientError, match="does not exist"):
        client.create_model_package(ModelPackageGroupName="g", InferenceSpecification=SPECIFICATION)
    tags = [{"Key": "team", "Value": "a"}]
    group = client.create_model_package_group(ModelPackageGroupName="g", Tags=tags)["ModelPackageGroupArn"]
    assert client.list_tags(ResourceArn=group)["Tags"] == tags
    with pytest.raises(ClientError, match="already exists"):
        client.create_model_package_group(ModelPackageGroupName="g")
    with pytest.raises(ClientError, match="Exactly one"):
        client.create_model_package(InferenceSpecification=SPECIFICATION)
    made = [
        client.create_model_package(
            ModelPackageGroupName=name,
            InferenceSpecification=SPECIFICATION,
            CustomerMetadataProperties={"a": "1", "b": "2"},
        )["ModelPackageArn"]
        for name in ("g", group)
    ]
    named = client.create_model_package(ModelPackageName="alone", InferenceSpecification=SPECIFICATION)[
        "ModelPackageArn"
    ]
    unversioned = client.list_model_packages()["ModelPackageSummaryList"]
    assert [one["ModelPackageArn"] for one in unversioned] == [named]
    assert "ModelApprovalStatus" not in client.describe_model_package(ModelPackageName="alone")
    client.update_model_package(
        ModelPackageArn=made[0],
        CustomerMetadataProperties={"b": "3"},
        CustomerMetadataPropertiesToRemove=["a"],
    )
    assert client.describe_model_package(ModelPackageName=made[0])["CustomerMetadataProperties"] == {"b": "3"}
    with pytest.raises(ClientError, match="still contains"):
        client.delete_model_package_group(ModelPackageGroupName="g")
    for package in made:
        client.delete_model_package(ModelPackageName=package)
    client.delete_model_package_group(ModelPackageGroupName="g")
    assert client.list_model_package_groups()["ModelPackageGroupSummaryList"] == []
    with pytest.raises(ClientError, match="does not exist"):
        client.describe_model_package(ModelPackageName=made[0])


@pytest.mark.parametrize(
    "kind", ["QualityCheck", "ClarifyCheck", "EMR", "AutoML", "Endpoint", "Lineage", "Cleanup"]
)
def test_a_step_that_is_not_interpreted_fails_when_it_is_reached(service, kind) -> None:
    """Other branches go on; what a condition does not choose is never reached."""
    strange = step(
        "Strange", kind, {"X": {"Std:Join": {"On": "", "Values": [{"Get": "Steps.First.TrainingJobName"}]}}}
    )
    execution = _run(
        service, _train("First"), strange, _train("After", DependsOn=["Strange"]), _train("Other")
    )
    assert _ended(service, execution)["PipelineExecutionStatus"] == "Failed"
    steps = service.steps(execution)
    assert {name: one["StepStatus"] for name, one in steps.items()} == {
        "First": "Succeeded",
        "Strange": "Failed",
        "Other": "Succeeded",
    }
    assert (
        steps["Strange"]["FailureReason"]
        == f"ClientError: smssh local does not interpret steps of type '{kind}'."
    )
    one = {"Type": "Equals", "LeftValue": 1, "RightValue": 2}
    unchosen = step(
        "C", "Condition", {"Conditions": [one], "IfSteps": [step("S", kind, {})], "ElseSteps": []}
    )
    assert _ended(service, _run(service, unchosen))["PipelineExecutionStatus"] == "Succeeded"


def _callback(service):
    queue = "https://sqs.us-east-1.amazonaws.com/123456789012/q"
    outputs = [{"OutputName": "colour", "OutputType": "String"}]
    waits = {**step("Wait", "Callback", {"a": "1"}), "SqsQueueUrl": queue, "OutputParameters": outputs}
    colour = {"Get": "Steps.Wait.OutputParameters['colour']"}
    uses = step("Use", "Training", training(Environment={"COLOUR": colour}))
    execution = _run(service, waits, uses)
    metadata = until(lambda: service.steps(execution).get("Wait", {}).get("Metadata"), "the step waits")[
        "Callback"
    ]
    assert metadata["SqsQueueUrl"] == queue
    return execution, metadata["CallbackToken"]


def test_a_callback_step_waits_for_its_token(service) -> None:
    client = service.sagemaker
    execution, token = _callback(service)
    with pytest.raises(ClientError, match="No step waits"):
        client.send_pipeline_execution_step_success(CallbackToken="0" * 10)
    answer = client.send_pipeline_execution_step_success(
        CallbackToken=token, OutputParameters=[{"Name": "colour", "Value": "green"}]
    )
    assert answer["PipelineExecutionArn"] == execution
    assert _ended(service, execution)["PipelineExecutionStatus"] == "Succeeded"
    assert service.runner.jobs[-1].request["Environment"]["COLOUR"] == "green"
    with pytest.raises(ClientError, match="No step waits"):
        client.send_pipeline_execution_step_failure(CallbackToken=token)


def test_a_callback_step_that_is_failed_or_stopped(service) -> None:
    client = service.sagemaker
    execution, token = _callback(service)
    client.send_pipeline_execution_step_failure(CallbackToken=token, FailureReason="not today")
    assert _ended(service, execution)["PipelineExecutionStatus"] == "Failed"
    assert service.steps(execution)["Wait"]["FailureReason"] == "not today"
    client.update_pipeline(PipelineName="pipe", PipelineDescription="again")
    execution = client.start_pipeline_execution(PipelineName="pipe")["PipelineExecutionArn"]
    until(lambda: service.steps(execution).get("Wait", {}).get("Metadata"), "the step waits")
    client.stop_pipeline_execution(PipelineExecutionArn=execution)
    assert _ended(service, execution)["PipelineExecutionStatus"] == "Stopped"
    assert service.steps(execution)["Wait"]["StepStatus"] == "Stopped"


def test_a_cached_step_starts_no_job(service) -> None:
    cached = _train("Train", CacheConfig={"Enabled": True, "ExpireAfter": "PT1H"})
    first = _run(service, cached)
    assert _ended(service, first)["PipelineExecutionStatus"] == "Succeeded"
    second = _run(service, cached)
    assert _ended(service, second)["PipelineExecutionStatus"] == "Succeeded"
    found = service.steps(second)["Train"]
    assert found["CacheHitResult"] == {"SourcePipelineExecutionArn": first}
    assert found["Metadata"] == service.steps(first)["Train"]["Metadata"]
    assert len(service.runner.jobs) == 1
    other = _train("Train", CacheConfig={"Enabled": True, "ExpireAfter": "PT1H"})
    other["Arguments"]["Environment"]["MORE"] = "1"
    assert _ended(service, _run(service, other))["PipelineExecutionStatus"] == "Succeeded"
    assert len(service.runner.jobs) == 2


def test_a_selective_execution_takes_over_what_it_does_not_run(service) -> None:
    prepare, train = _train("Prepare"), _train("Train", DependsOn=["Prepare"])
    first = _run(service, prepare, train, _train("Other"))
    assert _ended(service, first)["PipelineExecutionStatus"] == "Succeeded"
    config = {"SourcePipelineExecutionArn": first, "SelectedSteps": [{"StepName": "Train"}]}
    second = service.sagemaker.start_pipeline_execution(PipelineName="pipe", SelectiveExecutionConfig=config)
    arn = second["PipelineExecutionArn"]
    assert _ended(service, arn)["SelectiveExecutionConfig"] == config
    steps = service.steps(arn)
    assert len(service.runner.jobs) == 4
    assert steps["Prepare"]["SelectiveExecutionResult"] == {"SourcePipelineExecutionArn": first}
    assert "SelectiveExecutionResult" not in steps["Train"]
    with pytest.raises(ClientError, match="Step 'No' is not a step"):
        service.sagemaker.start_pipeline_execution(
            PipelineName="pipe", SelectiveExecutionConfig={"SelectedSteps": [{"StepName": "No"}]}
        )
