"""Requests as IAM sees them: actions, resources and condition keys."""

from __future__ import annotations

from typing import Any

import pytest

from smssh_plugin.local.iam import other_requests, s3_requests
from smssh_plugin.local.iam.sagemaker_requests import SageMakerRequests
from smssh_plugin.local.iam.session_requests import Sessions, channel_action

SSM = "arn:aws:ssm:us-east-1:123456789012"
MAKER = "arn:aws:sagemaker:us-east-1:123456789012"
TAGS = {"mi-0": {"SSHOwner": "me"}}
SESSIONS = Sessions(TAGS.get, {"smssh-1": ("AROA1:smssh", "mi-0")}.get)
MAKER_REQUESTS = SageMakerRequests(lambda arn: {"team": "a"} if arn.endswith("/tagged") else {})


def s3(
    method: str, target: str, host: str = "127.0.0.1:4580", copied: str | None = None, body: bytes = b""
) -> Any:
    return [
        (action, arn.removeprefix("arn:aws:s3:::"))
        for action, arn, _ in s3_requests.of_request(method, host, target, copied, body)
    ]


@pytest.mark.parametrize(
    ("method", "target", "action", "resource"),
    [
        ("GET", "/b/k", "GetObject", "b/k"),
        ("HEAD", "/b/k/", "GetObject", "b/k/"),
        ("GET", "/b/k%20x/%2A", "GetObject", "b/k x/*"),
        ("GET", "/b//k", "GetObject", "b//k"),
        ("GET", "/b/k?versionId=1", "GetObjectVersion", "b/k"),
        ("GET", "/b/k?X-Amz-Signature=1&X-Amz-Expires=60&x-id=GetObject", "GetObject", "b/k"),
        ("GET", "/b/k?AWSAccessKeyId=1&Signature=2&Expires=3", "GetObject", "b/k"),
        ("GET", "/b/k?tagging", "GetObjectTagging", "b/k"),
        ("PUT", "/b/k?acl", "PutObjectAcl", "b/k"),
        ("GET", "/b/k?uploadId=1", "ListMultipartUploadParts", "b/k"),
        ("PUT", "/b/k", "PutObject", "b/k"),
        ("PUT", "/b/k?partNumber=1&uploadId=1", "PutObject", "b/k"),
        ("POST", "/b/k?uploads", "PutObject", "b/k"),
        ("POST", "/b/k?uploadId=1", "PutObject", "b/k"),
        ("POST", "/b/k?select&select-type=2", "GetObject", "b/k"),
        ("DELETE", "/b/k", "DeleteObject", "b/k"),
        ("DELETE", "/b/k?versionId=1", "DeleteObjectVersion", "b/k"),
        ("DELETE", "/b/k?uploadId=1", "AbortMultipartUpload", "b/k"),
        ("GET", "/b?list-type=2&prefix=p", "ListBucket", "b"),
        ("GET", "/b/", "ListBucket", "b"),
        ("HEAD", "/b", "ListBucket", "b"),
        ("GET", "/b?versions", "ListBucketVersions", "b"),
        ("GET", "/b?uploads", "ListBucketMultipartUploads", "b"),
        ("GET", "/b?location", "GetBucketLocation", "b"),
        ("GET", "/b?encryption", "GetEncryptionConfiguration", "b"),
        ("PUT", "/b?policy", "PutBucketPolicy", "b"),
        ("DELETE", "/b?policy", "DeleteBucketPolicy", "b"),
        ("PUT", "/b", "CreateBucket", "b"),
        ("PUT", "/b?x-id=CreateBucket", "CreateBucket", "b"),
        ("DELETE", "/b", "DeleteBucket", "b"),
        ("GET", "/", "ListAllMyBuckets", "*"),
    ],
)
def test_requests_of_s3(method: str, target: str, action: str, resource: str) -> None:
    assert s3(method, target) == [(f"s3:{action}", resource)]


@pytest.mark.parametrize(
    "host", ["b.s3.us-east-1.amazonaws.com", "b.s3.amazonaws.com:443", "b.s3-eu-west-1.amazonaws.com"]
)
def test_a_bucket_in_the_name_of_the_host(host: str) -> None:
    assert s3("GET", "/k/x", host) == [("s3:GetObject", "b/k/x")]
    assert s3("GET", "/?list-type=2", host) == [("s3:ListBucket", "b")]


def test_a_copy_reads_its_source() -> None:
    assert s3("PUT", "/b/k", copied="/from/x%20y") == [("s3:PutObject", "b/k"), ("s3:GetObject", "from/x y")]
    assert s3("PUT", "/b/k", copied="from/x?versionId=1")[1] == ("s3:GetObjectVersion", "from/x")


def test_every_object_of_a_deletion() -> None:
    body = b'<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Object><Key>a</Key></Object><Object><Key>b/c</Key></Object></Delete>'
    assert s3("POST", "/b?delete", body=body) == [("s3:DeleteObject", "b/a"), ("s3:DeleteObject", "b/b/c")]
    version = b"<Delete><Object><Key>a</Key><VersionId>v1</VersionId></Object></Delete>"
    assert s3("POST", "/b?delete", body=version) == [("s3:DeleteObjectVersion", "b/a")]


def test_what_a_list_asks_for() -> None:
    ((_, _, keys),) = s3_requests.of_request(
        "GET", "h", "/b?prefix=p%2F&delimiter=/&max-keys=5&list-type=2", None, b""
    )
    assert keys == {
        "aws:ResourceAccount": "123456789012",
        "s3:prefix": "p/",
        "s3:delimiter": "/",
        "s3:max-keys": "5",
    }


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("POST", "/b/k", b""),
        ("PATCH", "/b/k", b""),
        ("GET", "/b?inventory", b""),
        ("PUT", "/b?replication", b""),
        ("POST", "/b?delete", b"<Delete/>"),
        ("POST", "/b?delete", b"no XML"),
        (
            "POST",
            "/b?delete",
            b'<!DOCTYPE x [<!ENTITY e "x">]><Delete><Object><Key>&e;</Key></Object></Delete>',
        ),
        ("POST", "/b", b""),
    ],
)
def test_a_request_that_nobody_knows_is_unknown(method: str, target: str, body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - which one does not matter
        s3(method, target, body=body)


def test_what_sagemaker_reads_and_writes_for_a_job() -> None:
    call = s3_requests.of_call
    assert call("ListObjectsV2", {"Bucket": "b", "Prefix": "p/"})[0][2]["s3:prefix"] == "p/"
    assert call("HeadObject", {"Bucket": "b", "Key": "k"})[0][:2] == ("s3:GetObject", "arn:aws:s3:::b/k")
    assert call("UploadPart", {"Bucket": "b", "Key": "k"})[0][0] == "s3:PutObject"
    with pytest.raises(ValueError, match="DeleteObject"):
        call("DeleteObject", {"Bucket": "b", "Key": "k"})


# ------------------------------------------------------------------------------------------------ Systems Manager


def test_an_activation_passes_its_role_and_tags_it() -> None:
    tags = [{"Key": "SSHOwner", "Value": "me"}, {"Key": "SMSSHJob", "Value": "j"}]
    role = "arn:aws:iam::123456789012:role/team/nodes"
    wanted = {
        "aws:RequestTag/SSHOwner": "me",
        "aws:RequestTag/SMSSHJob": "j",
        "aws:TagKeys": ["SSHOwner", "SMSSHJob"],
    }
    assert SESSIONS.asked("CreateActivation", {"IamRole": "team/nodes", "Tags": tags}) == [
        ("ssm:CreateActivation", f"{SSM}:*", wanted),
        ("ssm:AddTagsToResource", role, wanted),
        ("iam:PassRole", role, {"iam:PassedToService": "ssm.amazonaws.com"}),
    ]
    assert [each[0] for each in SESSIONS.asked("CreateActivation", {"IamRole": "n"})] == [
        "ssm:CreateActivation",
        "iam:PassRole",
    ]


def test_a_session_is_asked_for_a_target_and_a_document() -> None:
    target, document = SESSIONS.asked(
        "StartSession", {"Target": "mi-0", "DocumentName": "AWS-StartSSHSession"}
    )
    assert target == (
        "ssm:StartSession",
        f"{SSM}:managed-instance/mi-0",
        {
            "ssm:SessionDocumentAccessCheck": "true",
            "ssm:resourceTag/SSHOwner": "me",
            "aws:ResourceTag/SSHOwner": "me",
        },
    )
    # A document of AWS has no account, and none has tags of nodes.
    assert document == ("ssm:StartSession", "arn:aws:ssm:us-east-1::document/AWS-StartSSHSession", {})
    assert SESSIONS.asked("StartSession", {"Target": "mi-1"}) == [
        ("ssm:StartSession", f"{SSM}:managed-instance/mi-1", {"ssm:SessionDocumentAccessCheck": "true"}),
        ("ssm:StartSession", f"{SSM}:document/SSM-SessionManagerRunShell", {}),
    ]


def test_a_native_target_has_no_tags_of_nodes() -> None:
    native = "sagemaker-training-job:job_algo-1"
    target, _ = SESSIONS.asked("StartSession", {"Target": native, "DocumentName": "mine"})
    assert target[1] == f"{MAKER}:training-job/job"
    assert target[2]["ssm:resourceTag/aws:ssmmessages:target-id"] == native


def test_the_end_of_a_session() -> None:
    ((action, resource, keys),) = SESSIONS.asked("TerminateSession", {"SessionId": "smssh-1"})
    assert (action, resource) == ("ssm:TerminateSession", f"{SSM}:session/smssh-1")
    assert keys["ssm:resourceTag/aws:ssmmessages:session-id"] == "AROA1:smssh"
    assert SESSIONS.asked("ResumeSession", {"SessionId": "other"}) == [
        ("ssm:ResumeSession", f"{SSM}:session/other", {})
    ]


def test_only_the_keys_that_the_reference_lists() -> None:
    """A condition on another key never holds on AWS; it must not here."""
    node = {"ResourceType": "ManagedInstance", "ResourceId": "mi-0"}
    ((_, resource, keys),) = SESSIONS.asked(
        "AddTagsToResource", {**node, "Tags": [{"Key": "a", "Value": "b"}]}
    )
    assert resource == f"{SSM}:managed-instance/mi-0"
    assert keys == {"aws:ResourceTag/SSHOwner": "me", "aws:RequestTag/a": "b", "aws:TagKeys": ["a"]}
    ((_, _, keys),) = SESSIONS.asked("RemoveTagsFromResource", {**node, "TagKeys": ["a"]})
    assert keys == {"aws:ResourceTag/SSHOwner": "me", "aws:TagKeys": ["a"]}
    ((_, _, keys),) = SESSIONS.asked("DeregisterManagedInstance", {"InstanceId": "mi-0"})
    assert keys == {"ssm:resourceTag/SSHOwner": "me"}
    ((_, resource, keys),) = SESSIONS.asked("UpdateInstanceInformation", {"InstanceId": "mi-0"})
    assert (resource, keys) == (f"{SSM}:managed-instance/mi-0", {})


def test_other_calls_of_ssm() -> None:
    tier = "/ssm/managed-instance/activation-tier"
    for operation, members, resource in (
        ("DescribeInstanceInformation", {}, f"{SSM}:*"),
        ("DeleteActivation", {"ActivationId": "x"}, f"{SSM}:*"),
        ("GetServiceSetting", {"SettingId": tier}, f"{SSM}:servicesetting{tier}"),
        ("GetServiceSetting", {"SettingId": f"{SSM}:servicesetting{tier}"}, f"{SSM}:servicesetting{tier}"),
        ("GetDocument", {"Name": "SSM-SessionManagerRunShell"}, f"{SSM}:document/SSM-SessionManagerRunShell"),
        ("GetParameter", {"Name": "/team/keys"}, f"{SSM}:parameter/team/keys"),
    ):
        assert SESSIONS.asked(operation, members) == [(f"ssm:{operation}", resource, {})]
    assert len(SESSIONS.asked("GetParameters", {"Names": ["a", "b"]})) == 2


def test_channels() -> None:
    assert channel_action("POST", "/v1/control-channel/mi-0") == "ssmmessages:CreateControlChannel"
    assert channel_action("GET", "/v1/data-channel/smssh-1") == "ssmmessages:OpenDataChannel"
    assert channel_action("GET", "/v1/data-channel") is None
    assert channel_action("GET", "/v1/other/x") is None


# -------------------------------------------------------------------------------------------------------- SageMaker


def test_creating_a_job_passes_its_role_and_tags_it() -> None:
    role = "arn:aws:iam::123456789012:role/x"
    tags = [{"Key": "a", "Value": "b"}]
    asked = MAKER_REQUESTS.asked("CreateTrainingJob", {"TrainingJobName": "j", "RoleArn": role, "Tags": tags})
    assert [each[:2] for each in asked] == [
        ("sagemaker:CreateTrainingJob", f"{MAKER}:training-job/j"),
        ("sagemaker:AddTags", f"{MAKER}:training-job/j"),
        ("iam:PassRole", role),
    ]
    assert asked[0][2] == {"aws:RequestTag/a": "b", "aws:TagKeys": ["a"]}
    assert asked[2][2] == {"iam:PassedToService": "sagemaker.amazonaws.com"}


@pytest.mark.parametrize(
    ("operation", "members", "roles"),
    [
        ("CreateModel", {"ModelName": "m", "ExecutionRoleArn": "r"}, ["r"]),
        (
            "CreateHyperParameterTuningJob",
            {"HyperParameterTuningJobName": "t", "TrainingJobDefinition": {"RoleArn": "r"}},
            ["r"],
        ),
        (
            "CreateHyperParameterTuningJob",
            {
                "HyperParameterTuningJobName": "t",
                "TrainingJobDefinitions": [{"RoleArn": "r"}, {"RoleArn": "s"}],
            },
            ["r", "s"],
        ),
        ("UpdatePipeline", {"PipelineName": "p", "RoleArn": "r"}, ["r"]),
        ("CreateTransformJob", {"TransformJobName": "t", "ModelName": "m"}, []),
    ],
)
def test_every_role_that_a_request_passes(operation: str, members: dict[str, Any], roles: list[str]) -> None:
    asked = MAKER_REQUESTS.asked(operation, members)
    assert [each[1] for each in asked if each[0] == "iam:PassRole"] == roles


@pytest.mark.parametrize(
    ("operation", "members", "resource"),
    [
        ("DescribeTrainingJob", {"TrainingJobName": "J"}, "training-job/J"),
        ("CreateTransformJob", {"TransformJobName": "t", "ModelName": "m"}, "transform-job/t"),
        ("ListPipelineExecutions", {"PipelineName": "p"}, "pipeline/p"),
        ("DescribePipeline", {"PipelineName": f"{MAKER}:pipeline/p"}, "pipeline/p"),
        (
            "DescribePipelineExecution",
            {"PipelineExecutionArn": f"{MAKER}:pipeline/p/execution/e"},
            "pipeline/p/execution/e",
        ),
        ("ListTags", {"ResourceArn": f"{MAKER}:pipeline/p"}, "pipeline/p"),
        ("ListTrainingJobs", {"NameContains": "x"}, "*"),
        ("ListModelPackages", {"ModelPackageGroupName": "g"}, "*"),
    ],
)
def test_the_resource_of_a_call(operation: str, members: dict[str, Any], resource: str) -> None:
    ((action, arn, _),) = MAKER_REQUESTS.asked(operation, members)
    assert (action, arn) == (f"sagemaker:{operation}", f"{MAKER}:{resource}")


def test_the_tags_of_a_resource() -> None:
    ((_, _, keys),) = MAKER_REQUESTS.asked("DescribeModel", {"ModelName": "tagged"})
    assert keys == {"aws:ResourceTag/team": "a", "sagemaker:ResourceTag/team": "a"}


# ------------------------------------------------------------------------------------------------------- the others


def test_actions_of_other_services() -> None:
    assert (
        other_requests.action_of("logs", "Logs_20140328.GetLogEvents", b"{}", form=False)
        == "logs:GetLogEvents"
    )
    form = b"Action=AssumeRole&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fx"
    assert other_requests.action_of("sts", "", form, form=True) == "sts:AssumeRole"
    assert other_requests.action_of("lambda", "", b"", form=False) is None
    assert (
        other_requests.action_of("monitoring", "", b"Action=PutMetricData", form=True)
        == "cloudwatch:PutMetricData"
    )
    assert other_requests.asked("sts:AssumeRole", form, form=True)[0][1] == "arn:aws:iam::1:role/x"


def test_resources_of_logs() -> None:
    group = "arn:aws:logs:us-east-1:123456789012:log-group:/aws/sagemaker/TrainingJobs"
    body = b'{"logGroupName": "/aws/sagemaker/TrainingJobs", "logStreamName": "j/algo-1"}'
    assert other_requests.asked("logs:DescribeLogStreams", body, form=False)[0][1] == group
    assert other_requests.asked("logs:GetLogEvents", body, form=False)[0][1] == f"{group}:log-stream:j/algo-1"
