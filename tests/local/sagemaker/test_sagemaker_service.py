"""Jobs, models and tags, through a real client."""

from __future__ import annotations

import json

import pytest
from botocore.exceptions import ClientError
from botocore.validate import ParamValidator

from smssh_plugin.local.sagemaker.shapes import Shapes
from smssh_plugin.local.service_error import ServiceError
from tests.local.service_harness import IMAGE, ROLE, processing, running, training, transform
from tests.waiting import until

MODEL = {
    "PrimaryContainer": {"Image": IMAGE, "ModelDataUrl": "s3://bucket/m.tar.gz"},
    "ExecutionRoleArn": ROLE,
}


@pytest.fixture
def service():
    with running() as one:
        yield one


def _refused(code: str, call, **request) -> str:
    with pytest.raises(ClientError) as caught:
        call(**request)
    assert caught.value.response["Error"]["Code"] == code, caught.value
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    return caught.value.response["Error"]["Message"]


def test_a_training_job_from_create_to_end(service) -> None:
    request = training(
        Environment={"OUTCOME": "hold", "A": "b"},
        HyperParameters={"epochs": "3"},
        RemoteDebugConfig={"EnableRemoteDebug": True},
        Tags=[{"Key": "team", "Value": "ml/\u00fc"}],
    )
    made = service.sagemaker.create_training_job(TrainingJobName="job-1", **request)
    assert made["TrainingJobArn"] == "arn:aws:sagemaker:us-east-1:123456789012:training-job/job-1"
    found = service.sagemaker.describe_training_job(TrainingJobName="job-1")
    for member, given in request.items():
        if member != "Tags":
            assert found[member] == given
    assert found["TrainingJobStatus"] == "InProgress"
    assert "TrainingEndTime" not in found
    assert "ModelArtifacts" not in found  # an empty one is not read by SDK v3
    assert service.sagemaker.list_tags(ResourceArn=made["TrainingJobArn"])["Tags"] == request["Tags"]
    until(lambda: "job-1" in service.runner.released, "the job runs")
    service.release("job-1")
    found = service.job_status("Training", "job-1", "Completed")
    assert found["SecondaryStatus"] == "Completed"
    assert [entry["Status"] for entry in found["SecondaryStatusTransitions"]] == ["Starting", "Completed"]
    assert "EndTime" in found["SecondaryStatusTransitions"][0]
    assert found["ModelArtifacts"]["S3ModelArtifacts"] == "s3://bucket/models/job-1/output/model.tar.gz"
    assert found["TrainingStartTime"] <= found["TrainingEndTime"]
    assert service.runner.jobs[0].request["Environment"] == request["Environment"]


def test_progress_becomes_secondary_statuses(service) -> None:
    service.sagemaker.create_training_job(TrainingJobName="j", **training(Environment={"OUTCOME": "hold"}))
    until(lambda: service.runner.jobs, "the job runs")
    job = service.runner.jobs[0]
    for status in ("Starting", "Downloading", "Training", "Training"):
        service._loop.call_soon_threadsafe(
            service.sagemaker_service.jobs.progress, job, status, f"{status} now"
        )
    until(
        lambda: service.sagemaker.describe_training_job(TrainingJobName="j")["SecondaryStatus"] == "Training",
        "Training",
    )
    service.release("j")
    found = service.job_status("Training", "j", "Completed")
    statuses = [entry["Status"] for entry in found["SecondaryStatusTransitions"]]
    assert statuses == ["Starting", "Downloading", "Training", "Completed"]


def test_failure_has_a_reason(service) -> None:
    service.sagemaker.create_training_job(TrainingJobName="j", **training(Environment={"OUTCOME": "fail"}))
    found = service.job_status("Training", "j", "Failed")
    assert found["FailureReason"].startswith("AlgorithmError: ExecuteUserScriptError:")
    assert found["SecondaryStatus"] == "Failed"


def test_a_runner_that_breaks_fails_the_job(service) -> None:
    service.sagemaker.create_training_job(TrainingJobName="j", **training(Environment={"SECONDS": "soon"}))
    assert service.job_status("Training", "j", "Failed")["FailureReason"].startswith("InternalServerError")


def test_processing_and_transform(service) -> None:
    given = processing(Environment={"A": "b"})
    arn = service.sagemaker.create_processing_job(ProcessingJobName="p", **given)["ProcessingJobArn"]
    assert arn.endswith(":processing-job/p")
    found = service.job_status("Processing", "p", "Completed")
    assert found["Environment"] == {"A": "b"}
    assert found["AppSpecification"] == given["AppSpecification"]
    service.sagemaker.create_model(ModelName="model", **MODEL)
    service.sagemaker.create_transform_job(TransformJobName="t", **transform())
    service.job_status("Transform", "t", "Completed")
    job = service.runner.jobs[-1]
    assert (job.kind, job.model["PrimaryContainer"]["Image"]) == ("transform", IMAGE)


@pytest.mark.parametrize("kind", ["Training", "Processing", "Transform"])
def test_stop(service, kind) -> None:
    service.sagemaker.create_model(ModelName="model", **MODEL)
    requests = {"Training": training, "Processing": processing, "Transform": transform}
    create = getattr(service.sagemaker, f"create_{kind.lower()}_job")
    stop = getattr(service.sagemaker, f"stop_{kind.lower()}_job")
    create(**{f"{kind}JobName": "j"}, **requests[kind](Environment={"OUTCOME": "hold"}))
    until(lambda: "j" in service.runner.released, "the job runs")
    stop(**{f"{kind}JobName": "j"})
    service.job_status(kind, "j", "Stopped")
    message = _refused("ValidationException", stop, **{f"{kind}JobName": "j"})
    assert message == f"The request was rejected because the {kind.lower()} job is in status Stopped."


def test_names_are_taken_once(service) -> None:
    service.sagemaker.create_training_job(TrainingJobName="j", **training())
    message = _refused(
        "ResourceInUse", service.sagemaker.create_training_job, TrainingJobName="J", **training()
    )
    assert "must be unique within an AWS account and region" in message
    service.sagemaker.create_processing_job(ProcessingJobName="j", **processing())
    service.sagemaker.create_model(ModelName="m", **MODEL)
    message = _refused("ValidationException", service.sagemaker.create_model, ModelName="m", **MODEL)
    assert (
        message == 'Cannot create already existing model "arn:aws:sagemaker:us-east-1:123456789012:model/m".'
    )


def test_what_is_not_there(service) -> None:
    client = service.sagemaker
    missing = "Could not find requested job with name: x"
    assert _refused("ValidationException", client.describe_training_job, TrainingJobName="x") == (
        "Requested resource not found."
    )
    assert _refused("ValidationException", client.describe_processing_job, ProcessingJobName="x") == missing
    assert _refused("ValidationException", client.stop_transform_job, TransformJobName="x") == missing
    assert "Could not find model" in _refused("ValidationException", client.describe_model, ModelName="x")
    message = _refused(
        "ValidationException", client.create_transform_job, TransformJobName="t", **transform()
    )
    assert message == 'Could not find model "arn:aws:sagemaker:us-east-1:123456789012:model/model".'
    arn = "arn:aws:sagemaker:us-east-1:123456789012:training-job/x"
    assert arn in _refused("ValidationException", client.list_tags, ResourceArn=arn)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"TrainingJobName": "under_score"},
            (
                "1 validation error detected: Value 'under_score' at 'trainingJobName' failed to satisfy "
                "constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}"
            ),
        ),
        ({"TrainingJobName": "x" * 64}, "Member must have length less than or equal to 63"),
        ({"RoleArn": "no role, twenty characters"}, "at 'roleArn' failed to satisfy constraint"),
        (
            {"ResourceConfig": {"InstanceType": "ml.none", "InstanceCount": 0, "VolumeSizeInGB": 1}},
            "'resourceConfig.instanceType' failed to satisfy constraint: Member must satisfy enum value",
        ),
        (
            {"Environment": {"1": "x"}},
            "Map keys must satisfy constraint: [Member must satisfy regular expression",
        ),
        (
            {"Environment": {"A": "x" * 513}},
            "Map value must satisfy constraint: [Member must have length less",
        ),
        (
            {"Environment": {f"A{n}": "" for n in range(101)}},
            "Member must have length less than or equal to 100",
        ),
        ({"Tags": [{"Key": "!", "Value": "v"}]}, "at 'tags.1.member.key' failed to satisfy constraint"),
        (
            {"StoppingCondition": {"MaxRuntimeInSeconds": 0}},
            "Member must have value greater than or equal to 1",
        ),
        ({"HyperParameters": {"k": "v" * 2501}}, "Map value must satisfy"),
        (
            {
                "InputDataConfig": [
                    {
                        "ChannelName": "c",
                        "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://b"}},
                    }
                ]
                * 2
            },
            "Channel names must be unique.",
        ),
    ],
)
def test_limits_of_the_service(service, change, expected) -> None:
    request = {"TrainingJobName": "j", **training(), **change}
    client = service.client("sagemaker", parameter_validation=False)
    assert expected in _refused("ValidationException", client.create_training_job, **request)
    assert service.runner.jobs == []


def test_two_faults_are_both_named(service) -> None:
    client = service.client("sagemaker", parameter_validation=False)
    request = training(RoleArn=None)
    message = _refused("ValidationException", client.create_training_job, TrainingJobName="_", **request)
    assert message.startswith("2 validation errors detected: ")
    assert "Value null at 'roleArn' failed to satisfy constraint: Member must not be null" in message


def test_whatever_botocore_refuses_is_refused_here() -> None:
    shapes = Shapes()
    shape = shapes.model.operation_model("CreateTrainingJob").input_shape
    requests = [
        {},
        {"TrainingJobName": 1, **training()},
        {"TrainingJobName": "j", **training(Environment=[])},
        {"TrainingJobName": "j", **training(Environment={"A": 1})},
        {"TrainingJobName": "j", **training(InputDataConfig={})},
        {"TrainingJobName": "j", **training(InputDataConfig=[])},
        {"TrainingJobName": "j", **training(EnableNetworkIsolation="true")},
        {"TrainingJobName": "j", **training(ResourceConfig={"InstanceCount": "1"})},
        {"TrainingJobName": "j", **training(OutputDataConfig={})},
    ]
    for request in requests:
        assert ParamValidator().validate(request, shape).has_errors(), request
        with pytest.raises(ServiceError) as caught:
            shapes.check("CreateTrainingJob", json.loads(json.dumps(request)))
        assert caught.value.code in ("ValidationException", "SerializationException")
    shapes.check("CreateTrainingJob", {"TrainingJobName": "j", **training()})


def test_lists_page_sort_and_filter(service) -> None:
    for number in range(12):
        outcome = "fail" if number % 3 == 0 else "succeed"
        service.sagemaker.create_processing_job(
            ProcessingJobName=f"job-{number:02}", **processing(Environment={"OUTCOME": outcome})
        )
    for number in range(12):
        service.job_status("Processing", f"job-{number:02}", "Failed" if number % 3 == 0 else "Completed")
    lists = service.sagemaker.list_processing_jobs

    def names(**request):
        return [found["ProcessingJobName"] for found in lists(**request)["ProcessingJobSummaries"]]

    first = lists(MaxResults=5)
    assert [found["ProcessingJobName"] for found in first["ProcessingJobSummaries"]] == [
        f"job-{number:02}" for number in (11, 10, 9, 8, 7)
    ]
    # A job that comes in between moves nothing.
    service.sagemaker.create_processing_job(ProcessingJobName="later", **processing())
    assert names(MaxResults=2, NextToken=first["NextToken"]) == ["job-06", "job-05"]
    pages = service.sagemaker.get_paginator("list_processing_jobs").paginate(
        NameContains="JOB-", SortOrder="Ascending"
    )
    found = [job["ProcessingJobName"] for page in pages for job in page["ProcessingJobSummaries"]]
    assert found == [f"job-{number:02}" for number in range(12)]
    assert names(StatusEquals="Failed", SortBy="Name", SortOrder="Ascending") == [
        "job-00",
        "job-03",
        "job-06",
        "job-09",
    ]
    assert names(NameContains="nothing") == []
    for token in ("x", "bnVsbA=="):
        assert "NextToken" in _refused("ValidationException", lists, NextToken=token)


def test_models(service) -> None:
    client = service.sagemaker
    made = client.create_model(ModelName="m", Tags=[{"Key": "a", "Value": "b"}], **MODEL)
    found = client.describe_model(ModelName="m")
    assert found["PrimaryContainer"] == MODEL["PrimaryContainer"]
    assert [model["ModelName"] for model in client.list_models()["Models"]] == ["m"]
    client.add_tags(ResourceArn=made["ModelArn"], Tags=[{"Key": "c", "Value": "d"}])
    client.delete_tags(ResourceArn=made["ModelArn"], TagKeys=["a"])
    assert client.list_tags(ResourceArn=made["ModelArn"])["Tags"] == [{"Key": "c", "Value": "d"}]
    client.delete_model(ModelName="m")
    assert client.list_models()["Models"] == []
    assert "Exactly one" in _refused(
        "ValidationException", client.create_model, ModelName="n", ExecutionRoleArn=ROLE
    )


def test_a_resource_takes_fifty_tags(service) -> None:
    arn = service.sagemaker.create_model(ModelName="m", **MODEL)["ModelArn"]
    service.sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": f"k{n}", "Value": ""} for n in range(50)])
    more = [{"Key": "one more", "Value": ""}]
    assert "50" in _refused("ValidationException", service.sagemaker.add_tags, ResourceArn=arn, Tags=more)


def test_stopping_the_service_stops_jobs(service) -> None:
    service.sagemaker.create_training_job(TrainingJobName="j", **training(Environment={"OUTCOME": "hold"}))
    until(lambda: "j" in service.runner.released, "the job runs")
    service.do(service.sagemaker_service.close())
    assert service.sagemaker.describe_training_job(TrainingJobName="j")["TrainingJobStatus"] == "Stopped"
