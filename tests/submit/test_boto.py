"""`enable`: any boto3 session or client."""

from __future__ import annotations

import gc
import json
import re
import warnings
import weakref
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.exceptions import ParamValidationError

from smssh_plugin import SmsshError, SSHOptions, enable
from smssh_plugin.submit import boto as clients
from smssh_plugin.submit.bundle import check
from smssh_plugin.submit.bundle import publish as publishing
from smssh_plugin.submit.bundle.build import build
from smssh_plugin.submit.bundle.store import Destination
from smssh_plugin.submit.bundle.upload import upload
from smssh_plugin.submit.options import SmsshWarning
from smssh_plugin.submit.request.wrapper import WORDS

from .conftest import BUCKET, IMAGE, KEY, REGION, ROLE, SDK

if TYPE_CHECKING:
    from collections.abc import Iterator

OPTIONS = SSHOptions(bundle_prefix=f"s3://{BUCKET}/bundles")
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


NAMED = ("*", "model")
"""Models, too: a client leaves them alone where nobody names them."""


@pytest.fixture(autouse=True)
def no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """What models were made is known to a process."""
    monkeypatch.setattr(clients, "_models", {})


@pytest.mark.parametrize("operation", REQUESTS)
def test_each_operation_of_a_client(boto_session: boto3.Session, operation: str) -> None:
    client = boto_session.client("sagemaker")
    before = sent(client, operation, REQUESTS[operation])
    assert enable(client, OPTIONS, boto_session=boto_session, steps=NAMED) is client
    after = sent(client, operation, REQUESTS[operation])
    assert after != before
    text = json.dumps(after)
    assert "SMSSH_STEP" not in text
    assert ("SMSSH_ENABLE" in text) is (operation != "create_model")
    assert (f"s3://{BUCKET}/bundles/" in text) is (operation != "create_transform_job")
    assert before == REQUESTS[operation]


def test_more_variables_go_to_jobs_and_not_to_models(boto_session: boto3.Session) -> None:
    client = enable(
        boto_session.client("sagemaker"),
        OPTIONS,
        boto_session=boto_session,
        steps=NAMED,
        environment={"MORE": "x"},
    )
    for operation, request in REQUESTS.items():
        assert ('"MORE": "x"' in json.dumps(sent(client, operation, request))) is (
            operation != "create_model"
        )


def test_a_native_job_says_where_it_announces_itself_where_its_bundle_does_not(
    boto_session: boto3.Session,
) -> None:
    def announced(**asked: Any) -> tuple[str, str | None]:
        """The bundle of the job, and what a variable says."""
        client = enable(boto_session.client("sagemaker"), SSHOptions(transport="native", **asked))
        body = sent(client, "create_training_job", REQUESTS["create_training_job"])
        source = body["InputDataConfig"][0]["DataSource"]["S3DataSource"]
        return source["S3Uri"], body["Environment"].get("SMSSH_ANNOUNCE")

    place, other = f"s3://{BUCKET}/bundles", f"s3://{BUCKET}/hosts-of-ours"
    usual, said = announced(bundle_prefix=place)
    assert said is None
    assert announced(bundle=usual) == (usual, None)
    assert announced(bundle_prefix=place, extra={"announce": f"{place}/"})[1] is None
    named, said = announced(bundle_prefix=place, extra={"announce": other})
    assert said == other
    assert announced(bundle=named) == (named, other)
    assert announced(bundle=usual, environment={"SMSSH_ANNOUNCE": other}) == (usual, other)
    # Copied elsewhere, it announces where its options.json says; and one that says nothing, beside itself.
    s3 = boto_session.client("s3")
    key = usual[len(f"s3://{BUCKET}/") :]
    for found in s3.list_objects_v2(Bucket=BUCKET, Prefix=key)["Contents"]:
        s3.copy_object(
            Bucket=BUCKET,
            Key=found["Key"].replace("bundles/", "copies/", 1),
            CopySource=f"{BUCKET}/{found['Key']}",
        )
    copy = usual.replace("/bundles/", "/copies/")
    assert announced(bundle=copy) == (copy, place)
    made = build(SSHOptions(transport="native"), [KEY])
    silent = upload(made, Destination(s3, BUCKET, "built/by-hand"))
    assert announced(bundle=silent) == (silent, f"s3://{BUCKET}/built/by-hand")


def test_the_bundle_of_a_client_goes_to_its_region(boto_session: boto3.Session) -> None:
    client = enable(boto_session.client("sagemaker"), OPTIONS, steps=NAMED)
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
    with pytest.warns(SmsshWarning, match="no SSH for the training job 't': EnableNetworkIsolation is"):
        assert sent(client, "create_training_job", request) == request
    other = {**request, "TrainingJobName": "u"}
    with pytest.warns(SmsshWarning, match="no SSH for the training job 'u': EnableNetworkIsolation is"):
        sent(client, "create_training_job", other)


def test_other_operations_are_left_alone(boto_session: boto3.Session) -> None:
    client = enable(boto_session.client("sagemaker"), OPTIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert client.list_training_jobs()["TrainingJobSummaries"] is not None


@pytest.mark.parametrize("operation", sorted(set(REQUESTS) - {"create_training_job"}))
def test_what_goes_without_is_named(boto_session: boto3.Session, operation: str) -> None:
    client = enable(boto_session.client("sagemaker"), OPTIONS, transport="native", steps=NAMED)
    request = REQUESTS[operation]
    name = next(value for key, value in request.items() if key.endswith("Name"))
    with pytest.warns(SmsshWarning, match=f"no SSH for the [a-z ]+ '{name}': the native transport is"):
        assert sent(client, operation, request) == request


def unseen(record: list[warnings.WarningMessage]) -> list[str]:
    """Of what it was said that its model was not seen to get SSH."""
    found = (str(warning.message).partition(": its model was not seen to get SSH: ") for warning in record)
    return [subject for subject, headline, _ in found if headline]


def test_a_transform_job_whose_model_was_not_seen(boto_session: boto3.Session) -> None:
    client = enable(boto_session.client("sagemaker"), OPTIONS, steps=NAMED)
    request = REQUESTS["create_transform_job"]
    with pytest.warns(SmsshWarning) as record:
        assert "SMSSH_ENABLE" in sent(client, "create_transform_job", request)["Environment"]
    assert unseen(record.list) == ["the transform job 'b'"]
    sent(client, "create_model", REQUESTS["create_model"])
    with warnings.catch_warnings(record=True) as none:
        sent(client, "create_transform_job", {**request, "TransformJobName": "c"})
    assert unseen(none) == []


def said_of(client: Any, operation: str, request: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What is sent, and what is warned of."""
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        body = sent(client, operation, request)
    return body, [str(each.message) for each in record if each.category is SmsshWarning]


MODEL, JOB = REQUESTS["create_model"], REQUESTS["create_transform_job"]


def test_a_model_is_left_alone_and_with_it_its_transform_jobs(boto_session: boto3.Session) -> None:
    """It may be for a production endpoint."""
    client = enable(boto_session.client("sagemaker"), OPTIONS, boto_session=boto_session)
    assert said_of(client, "create_model", MODEL) == (MODEL, [])
    body, (text,) = said_of(client, "create_transform_job", JOB)
    assert body == JOB
    assert text.startswith(
        "no SSH for the transform job 'b': its model, which would bring our files, is made without"
    )
    assert "steps=('*', 'model')" in text
    assert "launcher='baked'" in text
    # In another region, a model of that name is another one.
    other = boto3.Session().client("sagemaker", region_name="eu-west-1")
    elsewhere = enable(other, OPTIONS, boto_session=boto_session)
    body, (text,) = said_of(elsewhere, "create_transform_job", JOB)
    assert "its model was not seen to get SSH" in text
    assert body["Environment"] == {"SMSSH_ENABLE": "1"}


@pytest.mark.parametrize("asked", [{"steps": NAMED}, {"steps": "m"}, {"endpoints": True}])
def test_a_model_that_is_named_gets_it_and_so_do_its_transform_jobs(
    boto_session: boto3.Session, asked: dict[str, Any]
) -> None:
    client = enable(boto_session.client("sagemaker"), OPTIONS, boto_session=boto_session, **asked)
    body, said = said_of(client, "create_model", MODEL)
    assert "AdditionalModelDataSources" in body["PrimaryContainer"]
    body, more = said_of(client, "create_transform_job", JOB)
    assert body["Environment"] == {"SMSSH_ENABLE": "1"}
    assert [text for text in said + more if "AWS does not document for batch transform" in text]
    assert not [text for text in said + more if "not seen" in text]


def test_a_model_that_cannot_have_it_leaves_its_transform_jobs_alone(boto_session: boto3.Session) -> None:
    client = enable(boto_session.client("sagemaker"), OPTIONS, boto_session=boto_session, steps=NAMED)
    isolated = {**MODEL, "EnableNetworkIsolation": True}
    body, (text,) = said_of(client, "create_model", isolated)
    assert body == isolated
    assert text.startswith("no SSH for the model 'm': EnableNetworkIsolation is on")
    body, (text,) = said_of(client, "create_transform_job", JOB)
    assert body == JOB
    assert text.startswith(
        "no SSH for the transform job 'b': its model can't have SSH: EnableNetworkIsolation is"
    )
    # A new one of that name is another.
    sent(client, "create_model", MODEL)
    assert "SMSSH_ENABLE" in said_of(client, "create_transform_job", JOB)[0]["Environment"]


def test_a_model_that_was_made_while_it_was_off_is_not_known(boto_session: boto3.Session) -> None:
    client = enable(boto_session.client("sagemaker"), OPTIONS, boto_session=boto_session, steps=NAMED)
    sent(client, "create_model", MODEL)
    enable(client, OPTIONS, enabled=False)
    sent(client, "create_model", MODEL)
    enable(client, OPTIONS, boto_session=boto_session)
    assert "its model was not seen" in said_of(client, "create_transform_job", JOB)[1][0]


def test_a_baked_transform_job_has_the_role_of_its_model(boto_session: boto3.Session) -> None:
    """No transform request has one, and without a role no host is registered."""
    client = enable(boto_session.client("sagemaker"), launcher="baked", boto_session=boto_session)
    body, (text,) = said_of(client, "create_transform_job", JOB)
    assert "SMSSH_ROLE" not in body["Environment"]
    assert "role" in text
    assert "(SSHOptions(role=...))" in text
    assert said_of(client, "create_model", MODEL) == (MODEL, [])
    body, said = said_of(client, "create_transform_job", {**JOB, "TransformJobName": "c"})
    assert body["Environment"]["SMSSH_ROLE"] == ROLE
    assert said == []


# -------------------------------------------------------------------------------- definitions of pipelines


def step(name: str, kind: str = "Training", **more: Any) -> dict[str, Any]:
    request = {
        "Training": "create_training_job",
        "Processing": "create_processing_job",
        "Model": "create_model",
    }
    arguments = dict(REQUESTS[request.get(kind, "create_transform_job")])
    return {"Name": name, "Type": kind, "Arguments": {**arguments, **more.pop("arguments", {})}, **more}


SCORE = step("Score", "Transform", arguments={"ModelName": {"Get": "Steps.Model.ModelName"}})
DEFINITION: dict[str, Any] = {
    "Version": "2020-12-01",
    "Parameters": [{"Name": "Role", "Type": "String", "DefaultValue": ROLE}],
    "Steps": [
        step("Train", CacheConfig={"Enabled": True, "ExpireAfter": "P1D"}, DependsOn=["Prepare"]),
        step("Prepare", "Processing", arguments={"RoleArn": {"Get": "Parameters.Role"}}),
        {
            "Name": "If",
            "Type": "Condition",
            "Arguments": {"Conditions": [], "IfSteps": [step("Model", "Model"), SCORE]},
        },
        {"Name": "Stop", "Type": "Fail", "Arguments": {"ErrorMessage": "stopped"}},
    ],
}


def steps_sent(client: Any, operation: str, definition: Any = DEFINITION) -> dict[str, Any]:
    """The steps of the definition that is sent, by name."""
    text = json.dumps(definition)
    body = sent(
        client, operation, {"PipelineName": "p", "PipelineDefinition": text, **CREATE.get(operation, {})}
    )
    found = json.loads(body["PipelineDefinition"])
    assert {**found, "Steps": 0} == {**definition, "Steps": 0}
    return {each["Name"]: each for each in flat(found["Steps"])}


def flat(steps: list[Any]) -> list[Any]:
    inner = [
        each["Arguments"].get(name, []) for each in steps for name in ("IfSteps", "ElseSteps", "ForEachBody")
    ]
    return [*steps, *(one for found in inner for one in flat(found))]


CREATE = {"create_pipeline": {"RoleArn": ROLE, "ClientRequestToken": "t" * 32}}


@pytest.mark.parametrize("operation", ["create_pipeline", "update_pipeline"])
def test_definitions_of_pipelines(boto_session: boto3.Session, operation: str) -> None:
    client = enable(
        boto_session.client("sagemaker"),
        OPTIONS,
        boto_session=boto_session,
        cache="drop",
        steps=["*", "transform"],
    )
    found = steps_sent(client, operation)
    assert found["Train"]["DependsOn"] == ["Prepare"]
    assert "CacheConfig" not in found["Train"]
    assert found["Train"]["Arguments"]["Environment"]["SMSSH_STEP"] == "Train"
    assert found["Prepare"]["Arguments"]["Environment"]["SMSSH_ROLE"] == {"Get": "Parameters.Role"}
    assert "AdditionalModelDataSources" in found["Model"]["Arguments"]["PrimaryContainer"]
    assert found["Score"]["Arguments"]["Environment"] == {"SMSSH_ENABLE": "1", "SMSSH_STEP": "Score"}
    assert found["Stop"] == DEFINITION["Steps"][-1]


def test_a_transform_job_gets_options_of_its_own_where_its_model_may_not_have_them(
    boto_session: boto3.Session,
) -> None:
    client = enable(
        boto_session.client("sagemaker"),
        OPTIONS,
        boto_session=boto_session,
        hold="failure",
        steps=["*", "transform"],
    )
    found = steps_sent(client, "update_pipeline")  # with its model, which gets the same options
    assert "SMSSH_HOLD" not in found["Score"]["Arguments"]["Environment"]
    job = sent(client, "create_transform_job", REQUESTS["create_transform_job"])
    assert job["Environment"] == {"SMSSH_ENABLE": "1", "SMSSH_HOLD": "failure"}


@pytest.mark.parametrize("operation", ["create_model", "create_transform_job"])
def test_what_is_not_a_name_is_for_botocore_to_refuse(boto_session: boto3.Session, operation: str) -> None:
    client = enable(boto_session.client("sagemaker"), OPTIONS, boto_session=boto_session)
    with pytest.raises(ParamValidationError, match="Invalid type for parameter ModelName"):
        getattr(client, operation)(**{**REQUESTS[operation], "ModelName": ["m"]})


@pytest.mark.parametrize(
    ("model", "more"),
    [
        ({"Get": "Parameters.Role"}, {}),
        ("made-before", {}),
        ({"Get": "Steps.Elsewhere.Outputs.Name"}, {}),
    ],
)
def test_a_transform_step_whose_model_was_not_seen(
    boto_session: boto3.Session, model: Any, more: dict[str, Any]
) -> None:
    client = enable(boto_session.client("sagemaker"), OPTIONS)
    steps = [
        step("Score", "Transform", arguments={"ModelName": model}),
        step("Model", "Model", arguments=more),
    ]
    with pytest.warns(SmsshWarning) as record:
        steps_sent(client, "update_pipeline", {"Steps": steps})
    assert unseen(record.list) == ["step 'Score' of pipeline 'p'"]


def test_what_goes_without_is_said_of_each_pipeline_once(boto_session: boto3.Session) -> None:
    client = enable(boto_session.client("sagemaker"), OPTIONS)
    text = json.dumps({"Steps": [step("Train", arguments={"EnableNetworkIsolation": True})]})

    def said(name: str) -> list[str]:
        with warnings.catch_warnings(record=True) as record:
            sent(client, "update_pipeline", {"PipelineName": name, "PipelineDefinition": text})
        return [str(warning.message).partition(": ")[0] for warning in record]

    assert said("q1") == ["no SSH for step 'Train' of pipeline 'q1'"]
    assert said("q2") == ["no SSH for step 'Train' of pipeline 'q2'"]
    assert said("q1") == said("q2") == []


def test_a_transform_step_whose_model_gets_it(boto_session: boto3.Session) -> None:
    client = enable(boto_session.client("sagemaker"), OPTIONS, steps="Score")
    with pytest.warns(SmsshWarning) as record:
        steps_sent(client, "update_pipeline", {"Steps": [SCORE, step("Model", "Model")]})
    assert unseen(record.list) == []


def test_once_is_enough_for_definitions(boto_session: boto3.Session) -> None:
    client = enable(
        boto_session.client("sagemaker"), OPTIONS, boto_session=boto_session, steps=["*", "transform"]
    )
    text = json.dumps(DEFINITION)
    once = sent(client, "update_pipeline", {"PipelineName": "p", "PipelineDefinition": text})[
        "PipelineDefinition"
    ]
    twice = sent(client, "update_pipeline", {"PipelineName": "p", "PipelineDefinition": once})[
        "PipelineDefinition"
    ]
    assert twice == once != text


def test_some_steps_of_a_definition(boto_session: boto3.Session) -> None:
    client = enable(
        boto_session.client("sagemaker"), OPTIONS, boto_session=boto_session, steps="Score, processing"
    )
    found = steps_sent(client, "update_pipeline")
    # The transform step takes the one that makes its model with it.
    assert {name for name, each in found.items() if "SMSSH" in json.dumps(each)} == {
        "If",
        "Prepare",
        "Model",
        "Score",
    }


def test_a_definition_is_sent_as_it_is_when_off(boto_session: boto3.Session) -> None:
    client = enable(boto_session.client("sagemaker"), OPTIONS, enabled=False)
    text = json.dumps(DEFINITION, indent=3)
    assert sent(client, "update_pipeline", {"PipelineName": "p", "PipelineDefinition": text}) == {
        "PipelineName": "p",
        "PipelineDefinition": text,
    }


@pytest.mark.parametrize(
    "text", ["not json", "[]", '{"Steps": 1}', '{"Steps": [1, {"Type": "Training"}]}', "{} "]
)
def test_the_service_judges_what_is_no_definition(boto_session: boto3.Session, text: str) -> None:
    client = enable(boto_session.client("sagemaker"), OPTIONS, boto_session=boto_session)
    body = sent(client, "update_pipeline", {"PipelineName": "p", "PipelineDefinition": text})
    assert body["PipelineDefinition"] == text


def test_a_definition_that_would_be_too_long(boto_session: boto3.Session) -> None:
    client = enable(boto_session.client("sagemaker"), OPTIONS, boto_session=boto_session)
    text = json.dumps({**DEFINITION, "Metadata": {"a": "x" * (1_048_000 - len(json.dumps(DEFINITION)))}})
    with pytest.raises(
        SmsshError, match=r"^pipeline 'p': PipelineDefinition has \d+ characters, and"
    ) as caught:
        client.update_pipeline(PipelineName="p", PipelineDefinition=text)
    assert caught.value.reference == "definition-too-long"
    assert "1048576" in caught.value.message
    assert "steps=" in (caught.value.hint or "")


def test_a_definition_in_s3(boto_session: boto3.Session, s3: Any) -> None:
    """The SDK puts there what has more than 100 KB."""
    client = enable(boto_session.client("sagemaker"), OPTIONS, boto_session=boto_session)
    s3.put_object(Bucket=BUCKET, Key="p.json", Body=json.dumps(DEFINITION).encode())
    given = {"Bucket": BUCKET, "ObjectKey": "p.json"}
    body = sent(client, "update_pipeline", {"PipelineName": "p", "PipelineDefinitionS3Location": given})
    location = body["PipelineDefinitionS3Location"]
    assert location["ObjectKey"].startswith("bundles/")
    stored = s3.get_object(Bucket=location["Bucket"], Key=location["ObjectKey"])["Body"].read()
    assert "SMSSH_ENABLE" in stored.decode()
    assert json.loads(s3.get_object(Bucket=BUCKET, Key="p.json")["Body"].read()) == DEFINITION


def test_a_definition_is_stored_beside_a_bundle_that_is_named(
    boto_session: boto3.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the bundle's own folder it would be a file that is not in the manifest, and the bundle of no use any more."""
    monkeypatch.setattr(check, "_checked", {})
    s3 = boto_session.client("s3")
    s3.put_object(Bucket=BUCKET, Key="beside.json", Body=json.dumps(DEFINITION).encode())
    options = SSHOptions(bundle=upload(build(SSHOptions(), [KEY]), Destination(s3, BUCKET, "named")))
    client = enable(boto_session.client("sagemaker"), options, boto_session=boto_session)
    given = {"Bucket": BUCKET, "ObjectKey": "beside.json"}
    body = sent(client, "update_pipeline", {"PipelineName": "p", "PipelineDefinitionS3Location": given})
    key = body["PipelineDefinitionS3Location"]["ObjectKey"]
    assert re.fullmatch(r"named/[0-9a-f]{64}/pipeline\.json", key)
    check._checked.clear()
    assert publishing.publish(options, boto_session) == options.bundle


def test_a_definition_in_s3_that_is_not_there(boto_session: boto3.Session) -> None:
    client = enable(boto_session.client("sagemaker"), OPTIONS, boto_session=boto_session)
    request = {
        "PipelineName": "p",
        "PipelineDefinitionS3Location": {"Bucket": BUCKET, "ObjectKey": "nowhere"},
    }
    with pytest.warns(SmsshWarning, match="no SSH for pipeline 'p': its definition in S3 can't be read"):
        assert sent(client, "update_pipeline", request) == request


# -------------------------------------------------------------------------------- sessions


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A process of which nothing is left afterwards."""
    import botocore

    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.setattr(clients, "_initializer", None)
    yield monkeypatch
    if clients._initializer is not None:
        botocore.unregister_initializer(clients._initializer)


@pytest.mark.parametrize("early", [True, False])
def test_a_whole_process_by_its_environment(process: pytest.MonkeyPatch, early: bool) -> None:
    if early:
        boto3.setup_default_session(region_name=REGION)
    assert enable(None, OPTIONS) is None
    request = REQUESTS["create_training_job"]
    makers = [boto3.client, boto3.Session(region_name=REGION).client]
    for make in makers:
        assert sent(make("sagemaker"), "create_training_job", request) == request
    process.setenv("SMSSH_ENABLE", "1")
    for make in makers:
        assert sent(make("sagemaker"), "create_training_job", request)["Environment"]["SMSSH_ENABLE"] == "1"
    enable(None, OPTIONS, enabled=False)
    assert sent(boto3.client("sagemaker"), "create_training_job", request) == request


def test_the_bundle_of_a_process_is_stored_with_the_sessions_credentials(process: pytest.MonkeyPatch) -> None:
    enable(None, OPTIONS, enabled=True)
    session = boto3.Session(
        aws_access_key_id="theirs", aws_secret_access_key="secret", region_name="eu-west-1"
    )
    assert "Environment" in sent(
        session.client("sagemaker"), "create_training_job", REQUESTS["create_training_job"]
    )
    like = clients._like(session._session)
    assert like.get_credentials().access_key == "theirs"
    assert like.region_name == "eu-west-1"


ASSUMED = {"aws_access_key_id": "assumed", "aws_secret_access_key": "secret", "aws_session_token": "token"}


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Region and access key of each session that was to store a bundle."""
    seen: list[tuple[str, str]] = []

    def publish(_: Any, session: Any) -> str:
        boto = getattr(session, "boto_session", session)
        seen.append((boto.client("s3").meta.region_name, boto.get_credentials().access_key))
        return f"s3://{BUCKET}/{'a' * 64}/"

    monkeypatch.setattr(publishing, "publish", publish)
    return seen


def enabled_by(form: str, **given: Any) -> Any:
    """A client that was made with these, and enabled in one of the ways."""
    if form == "process":
        enable(None, OPTIONS, enabled=True)
        return boto3.client("sagemaker", **given)
    if form == "session":
        return enable(boto3.Session(), OPTIONS).client("sagemaker", **given)
    return enable(boto3.client("sagemaker", **given), OPTIONS)


@pytest.mark.parametrize("form", ["process", "session", "client"])
def test_the_bundle_goes_where_the_client_is(
    process: pytest.MonkeyPatch, stored: list[tuple[str, str]], form: str
) -> None:
    request = REQUESTS["create_training_job"]
    elsewhere = enabled_by(form, region_name="eu-west-1")
    assert "Environment" in sent(elsewhere, "create_training_job", request)
    assert "Environment" in sent(enabled_by(form, **ASSUMED), "create_training_job", request)
    process.delenv("AWS_DEFAULT_REGION")
    alone = enabled_by(form, region_name="eu-west-1")
    assert "Environment" in sent(alone, "create_training_job", request)
    assert stored == [("eu-west-1", "test"), (REGION, "assumed"), ("eu-west-1", "test")]


@pytest.mark.parametrize("form", ["process", "session", "client"])
def test_the_definition_of_a_pipeline_is_read_and_stored_where_the_client_is(
    process: pytest.MonkeyPatch, s3: Any, form: str
) -> None:
    client = enabled_by(form, region_name="eu-west-1", **ASSUMED)
    s3.put_object(Bucket=BUCKET, Key="p.json", Body=json.dumps(DEFINITION).encode())
    made: list[tuple[str | None, str]] = []

    def spied(session: Any) -> Any:
        made.append((session.region_name, session.get_credentials().access_key))
        return session.client("s3")

    process.setattr(clients, "_s3", spied)
    given = {"Bucket": BUCKET, "ObjectKey": "p.json"}
    body = sent(client, "update_pipeline", {"PipelineName": "p", "PipelineDefinitionS3Location": given})
    assert body["PipelineDefinitionS3Location"] != given
    assert made == [("eu-west-1", "assumed")]


def test_a_boto_session_that_is_named_stores_for_all_clients(
    process: pytest.MonkeyPatch, stored: list[tuple[str, str]]
) -> None:
    mine = boto3.Session(aws_access_key_id="mine", aws_secret_access_key="secret", region_name="us-west-2")
    client = enable(boto3.client("sagemaker", region_name="eu-west-1"), OPTIONS, boto_session=mine)
    sent(client, "create_training_job", REQUESTS["create_training_job"])
    assert stored == [("us-west-2", "mine")]


def test_a_client_that_is_enabled_goes_when_nobody_has_it() -> None:
    client = enabled_by("session", region_name=REGION)
    alive = weakref.ref(client)
    handlers = client.meta.events
    gc.disable()
    try:
        del client
        assert alive() is None
    finally:
        gc.enable()
    assert handlers is not None


def test_a_session_of_the_sdk(sdk: SDK) -> None:
    from sagemaker.core.helper.session_helper import Session

    session = Session(boto_session=boto3.Session(region_name=REGION), default_bucket=BUCKET)
    assert enable(session) is session
    for client in (session.sagemaker_client, session.boto_session.client("sagemaker")):
        body = sent(client, "create_training_job", REQUESTS["create_training_job"])
        # In the SDK session's own place for files.
        assert f"s3://{BUCKET}/smssh/bundles/" in json.dumps(body)


def test_clients_of_an_sdk_session_that_are_not_like_it(sdk: SDK, stored: list[tuple[str, str]]) -> None:
    from sagemaker.core.helper.session_helper import Session

    boto = boto3.Session(region_name=REGION)
    session = enable(
        Session(boto_session=boto, sagemaker_client=boto.client("sagemaker", **ASSUMED)), OPTIONS
    )
    made = boto.client("sagemaker", **ASSUMED), boto.client("sagemaker", region_name="eu-west-1")
    for client in (session.sagemaker_client, *made):
        sent(client, "create_training_job", REQUESTS["create_training_job"])
    # The SDK stores with its boto3 session, whatever the client that it was given.
    assert stored == [(REGION, "test"), (REGION, "assumed"), ("eu-west-1", "test")]


def test_a_client_that_the_sdk_made_before(sdk: SDK) -> None:
    """SDK v3 makes one client for a boto3 session, and keeps it."""
    from sagemaker.core.utils.utils import SageMakerClient

    mine, other = boto3.Session(region_name=REGION), boto3.Session(region_name=REGION)
    kept = [SageMakerClient(session=each, region_name=REGION) for each in (mine, other)]
    enable(mine, OPTIONS)
    request = REQUESTS["create_training_job"]
    assert "Environment" in sent(kept[0].sagemaker_client, "create_training_job", request)
    assert "Environment" not in sent(kept[1].sagemaker_client, "create_training_job", request)
    SageMakerClient.reset()


def test_a_pipeline_parameter_is_for_pipelines(sdk: SDK) -> None:
    from sagemaker.core.workflow.parameters import ParameterString

    with pytest.raises(SmsshError, match="enable: enabled is a pipeline parameter") as caught:
        enable(sdk.boto_session, enabled=ParameterString("Debug"))
    assert "with_ssh(pipeline, enabled=parameter)" in (caught.value.hint or "")


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
    sdk.processor(session).run(code=str(sdk.code / "prepare.py"), wait=False, logs=False)
    (request,) = seen
    assert request["AppSpecification"]["ContainerEntrypoint"][: len(WORDS) + 1] == [
        *WORDS,
        "/opt/ml/processing/smssh",
    ]


@pytest.mark.parametrize("target", [1, "sagemaker", object(), dict])
def test_what_is_no_client(target: Any) -> None:
    with pytest.raises(SmsshError, match="enable takes a boto3 session, a SageMaker client or") as caught:
        enable(target)
    assert caught.value.reference == "not-a-client"


def test_a_client_of_another_service(boto_session: boto3.Session) -> None:
    with pytest.raises(SmsshError, match="not a client of s3"):
        enable(boto_session.client("s3"))
