"""`enable`: any boto3 session or client."""

from __future__ import annotations

import json
import warnings
from typing import Any

import boto3
import pytest

from smssh_plugin import SmsshError, SSHOptions, enable
from smssh_plugin.submit.options import SmsshWarning

from .conftest import BUCKET, IMAGE, REGION, ROLE, SDK

OPTIONS = SSHOptions(bundle=f"s3://{BUCKET}/bundles")
RESOURCES = {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 10}
REQUESTS: dict[str, dict[str, Any]] = {
    "create_training_job": {
        "TrainingJobName": "t",
        "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"},
        "RoleArn": ROLE,
        "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/out"},
        "ResourceConfig": RESOURCES,
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    },
    "create_processing_job": {
        "ProcessingJobName": "p",
        "ProcessingResources": {"ClusterConfig": RESOURCES},
        "AppSpecification": {"ImageUri": IMAGE, "ContainerEntrypoint": ["python3", "-c", "1"]},
        "RoleArn": ROLE,
    },
    "create_transform_job": {
        "TransformJobName": "b",
        "ModelName": "m",
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/in"}}
        },
        "TransformOutput": {"S3OutputPath": f"s3://{BUCKET}/out"},
        "TransformResources": {"InstanceCount": 1, "InstanceType": "ml.m5.large"},
    },
    "create_model": {"ModelName": "m", "ExecutionRoleArn": ROLE, "PrimaryContainer": {"Image": IMAGE}},
    "create_hyper_parameter_tuning_job": {
        "HyperParameterTuningJobName": "h",
        "HyperParameterTuningJobConfig": {
            "Strategy": "Random",
            "ResourceLimits": {"MaxParallelTrainingJobs": 1},
        },
        "TrainingJobDefinition": {
            "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"},
            "RoleArn": ROLE,
            "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/out"},
            "ResourceConfig": RESOURCES,
            "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        },
    },
}


class Sent(Exception):  # noqa: N818 - no error
    """Carries the request instead of sending it."""


def sent(client: Any, operation: str, request: dict[str, Any]) -> dict[str, Any]:
    """What botocore would send, after its own validation of the parameters."""

    def stop(params: Any, **_: Any) -> None:
        raise Sent(json.loads(params["body"]))

    client.meta.events.register_last("before-call.sagemaker", stop, unique_id="tests-stop")
    with pytest.raises(Sent) as caught:
        getattr(client, operation)(**request)
    body: dict[str, Any] = caught.value.args[0]
    return body


@pytest.mark.parametrize("operation", REQUESTS)
def test_each_operation_of_a_client(boto_session: boto3.Session, operation: str) -> None:
    client = boto_session.client("sagemaker")
    before = sent(client, operation, REQUESTS[operation])
    assert enable(client, OPTIONS, boto_session=boto_session) is client
    after = sent(client, operation, REQUESTS[operation])
    assert after != before
    text = json.dumps(after)
    assert "SMSSH_STEP" not in text
    assert ("SMSSH_ENABLE" in text) is (operation != "create_model")
    assert (f"s3://{BUCKET}/bundles/" in text) is (operation != "create_transform_job")
    assert before == REQUESTS[operation]


def test_more_variables_go_to_jobs_and_not_to_models(boto_session: boto3.Session) -> None:
    client = enable(
        boto_session.client("sagemaker"), OPTIONS, boto_session=boto_session, environment={"MORE": "x"}
    )
    for operation, request in REQUESTS.items():
        assert ('"MORE": "x"' in json.dumps(sent(client, operation, request))) is (
            operation != "create_model"
        )


def test_the_bundle_of_a_client_goes_to_its_region(boto_session: boto3.Session) -> None:
    client = enable(boto_session.client("sagemaker"), OPTIONS)
    assert "/bundles/" in json.dumps(sent(client, "create_model", REQUESTS["create_model"]))


def test_all_clients_of_a_session(boto_session: boto3.Session) -> None:
    session = boto3.Session(region_name=REGION)
    early = session.client("sagemaker")
    enable(session, OPTIONS)
    request = REQUESTS["create_training_job"]
    assert "Environment" in sent(session.client("sagemaker"), "create_training_job", request)
    assert "Environment" not in sent(early, "create_training_job", request)


def test_the_second_call_replaces_the_first(boto_session: boto3.Session) -> None:
    client = boto_session.client("sagemaker")
    enable(client, OPTIONS, boto_session=boto_session)
    enable(client, OPTIONS, boto_session=boto_session, enabled=False)
    request = REQUESTS["create_training_job"]
    assert sent(client, "create_training_job", request) == request


def test_off_is_off(boto_session: boto3.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    client = enable(boto_session.client("sagemaker"), OPTIONS)
    monkeypatch.setenv("SMSSH_ENABLE", "0")
    for operation, request in REQUESTS.items():
        assert sent(client, operation, request) == request


def test_what_cannot_be_entered_is_sent_as_it_is(boto_session: boto3.Session) -> None:
    client = enable(boto_session.client("sagemaker"), OPTIONS, boto_session=boto_session)
    request = {**REQUESTS["create_training_job"], "EnableNetworkIsolation": True}
    with pytest.warns(SmsshWarning, match="no SSH for the training job: EnableNetworkIsolation is on"):
        assert sent(client, "create_training_job", request) == request


def test_other_operations_are_left_alone(boto_session: boto3.Session) -> None:
    client = enable(boto_session.client("sagemaker"), OPTIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert client.list_training_jobs()["TrainingJobSummaries"] is not None


@pytest.mark.timeout(300)
def test_a_processor_without_a_pipeline(sdk: SDK) -> None:
    """The SDK goes through a boto3 client, too."""
    from sagemaker.core.helper.session_helper import Session

    client = enable(sdk.boto_session.client("sagemaker"), OPTIONS, boto_session=sdk.boto_session)
    session = Session(boto_session=sdk.boto_session, sagemaker_client=client, default_bucket=BUCKET)
    seen: list[Any] = []
    client.meta.events.register_last(
        "before-call.sagemaker.CreateProcessingJob",
        lambda params, **_: seen.append(json.loads(params["body"])),
    )
    from sagemaker.core.processing import ScriptProcessor

    processor = ScriptProcessor(
        role=ROLE,
        image_uri=IMAGE,
        command=["python3"],
        instance_count=1,
        instance_type="ml.m5.large",
        sagemaker_session=session,
    )
    processor.run(code=str(sdk.code / "prepare.py"), wait=False, logs=False)
    (request,) = seen
    assert request["AppSpecification"]["ContainerEntrypoint"][:2] == [
        "/bin/sh",
        "/opt/ml/processing/input/smssh/run.sh",
    ]


@pytest.mark.parametrize("target", [None, 1, "sagemaker", object()])
def test_what_is_no_client(target: Any) -> None:
    with pytest.raises(SmsshError, match="enable takes a boto3 session or a SageMaker client"):
        enable(target)
