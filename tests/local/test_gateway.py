"""The gateway: what is answered here, and what reaches moto byte by byte."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import io
import json
import logging
import os
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError
from moto.iam.models import AWSManagedPolicy
from moto.moto_api._internal import moto_api_backend

from tests.waiting import LIMIT

from .service_harness import ROLE, running, signed

ODD_KEYS = [
    "plain",
    "a b/c+d",
    "double//slash",
    "dots/../up/./here",
    "percent%2Fencoded%20twice",
    "uml\u00e4ut/\u65e5\u672c",
    "query?and#hash&amp=;",
    "quote'\"<>|*~",
]

STATEMENT = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
POLICY = json.dumps({"Version": "2012-10-17", "Statement": [STATEMENT]})


@pytest.fixture
def service():
    with running() as one:
        yield one


def _signed(service, body: bytes, target: str):
    """The answer to a JSON call."""
    headers = {"X-Amz-Target": target, "Content-Type": "application/x-amz-json-1.1"}
    url = f"{service.endpoint}/"
    return _raw(service, "POST", "/", body, signed("POST", url, body, headers, service="sagemaker"))


def _raw(service, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None):
    place = urlsplit(service.endpoint)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=LIMIT)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def test_large_objects_come_back_as_they_went(service, tmp_path) -> None:
    content = os.urandom(20 * 1024 * 1024)
    source = tmp_path / "in.bin"
    source.write_bytes(content)
    service.s3.create_bucket(Bucket="bucket")
    service.s3.upload_file(str(source), "bucket", "large")
    head = service.s3.head_object(Bucket="bucket", Key="large")
    assert head["ContentLength"] == len(content)
    assert head["ETag"].endswith('-3"'), "it was to be a multipart upload"
    service.s3.download_file("bucket", "large", str(tmp_path / "out.bin"))
    assert (tmp_path / "out.bin").read_bytes() == content
    part = service.s3.get_object(Bucket="bucket", Key="large", Range="bytes=5-14")
    assert part["Body"].read() == content[5:15]


@pytest.mark.parametrize("key", ODD_KEYS)
def test_keys_are_left_alone(service, key) -> None:
    service.s3.create_bucket(Bucket="bucket")
    service.s3.put_object(Bucket="bucket", Key=key, Body=key.encode())
    assert [found["Key"] for found in service.s3.list_objects_v2(Bucket="bucket")["Contents"]] == [key]
    assert service.s3.get_object(Bucket="bucket", Key=key)["Body"].read() == key.encode()
    service.s3.delete_object(Bucket="bucket", Key=key)
    assert "Contents" not in service.s3.list_objects_v2(Bucket="bucket", Prefix=key)


def test_content_encodings_are_the_object_s_own(service) -> None:
    packed = gzip.compress(b"data" * 1000)
    service.s3.create_bucket(Bucket="bucket")
    service.s3.put_object(
        Bucket="bucket", Key="x.gz", Body=packed, ContentEncoding="gzip", ContentType="text/csv"
    )
    found = service.s3.get_object(Bucket="bucket", Key="x.gz")
    assert (found["ContentEncoding"], found["ContentType"]) == ("gzip", "text/csv")
    assert found["Body"].read() == packed


def test_chunked_uploads_with_trailing_checksums(service) -> None:
    content = os.urandom(300_000)
    place = urlsplit(service.endpoint)
    service.s3.create_bucket(Bucket="bucket")

    def chunks():
        stream = io.BytesIO(content)
        while piece := stream.read(65536):
            yield f"{len(piece):x}\r\n".encode() + piece + b"\r\n"
        yield b"0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n"

    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=LIMIT)
    headers = {
        "Content-Encoding": "aws-chunked",
        "X-Amz-Content-SHA256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "x-amz-decoded-content-length": str(len(content)),
        "x-amz-trailer": "x-amz-checksum-crc32",
    }
    headers = signed("PUT", f"{service.endpoint}/bucket/chunked", b"", headers, service="s3")
    connection.request("PUT", "/bucket/chunked", chunks(), headers, encode_chunked=True)
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    connection.close()
    assert service.s3.get_object(Bucket="bucket", Key="chunked")["Body"].read() == content


def test_presigned_urls_and_their_queries(service) -> None:
    service.s3.create_bucket(Bucket="bucket")
    service.s3.put_object(Bucket="bucket", Key="a b", Body=b"signed")
    url = service.s3.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "a b"})
    place = urlsplit(url)
    assert _raw(service, "GET", f"{place.path}?{place.query}")[2] == b"signed"


def test_errors_of_moto_are_its_own(service) -> None:
    with pytest.raises(ClientError, match="NoSuchBucket"):
        service.s3.list_objects_v2(Bucket="absent")
    service.s3.create_bucket(Bucket="bucket")
    with pytest.raises(ClientError) as error:
        service.s3.head_object(Bucket="bucket", Key="absent")
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404


def test_policies_of_aws_are_there_by_name(service) -> None:
    iam = service.client("iam")
    iam.create_role(RoleName="role", AssumeRolePolicyDocument="{}")
    for name in ("AmazonSageMakerFullAccess", "AmazonSSMManagedInstanceCore"):
        iam.attach_role_policy(RoleName="role", PolicyArn=f"arn:aws:iam::aws:policy/{name}")
    assert len(iam.list_attached_role_policies(RoleName="role")["AttachedPolicies"]) == 2
    with pytest.raises(ClientError, match="NoSuchEntity"):
        iam.attach_role_policy(RoleName="role", PolicyArn="arn:aws:iam::aws:policy/NoSuchPolicy")


def test_policies_of_aws_are_made_when_they_are_looked_at(service, monkeypatch) -> None:
    made = []
    ours = AWSManagedPolicy.from_data
    monkeypatch.setattr(
        AWSManagedPolicy, "from_data", lambda name, *more: made.append(name) or ours(name, *more)
    )
    service.s3.create_bucket(Bucket="bucket")
    service.client("sts").get_caller_identity()
    assert not made
    iam = service.client("iam")
    own = iam.create_policy(PolicyName="own", PolicyDocument=POLICY)["Policy"]["Arn"]
    page = iam.list_policies(Scope="AWS", MaxItems=1000)
    assert (len(page["Policies"]), page["IsTruncated"]) == (1000, True)
    assert [each["Arn"] for each in iam.list_policies(Scope="Local")["Policies"]] == [own]
    assert len(made) == len(set(made)) > 1000
    moto_api_backend.reset()
    assert iam.list_policies(Scope="Local")["Policies"] == []
    assert (
        iam.get_policy(PolicyArn="arn:aws:iam::aws:policy/ReadOnlyAccess")["Policy"]["AttachmentCount"] == 0
    )


def test_the_rest_of_aws_is_moto_s(service) -> None:
    assert service.client("sts").get_caller_identity()["Account"] == "123456789012"
    iam = service.client("iam")
    iam.create_role(RoleName="role", AssumeRolePolicyDocument="{}")
    assert iam.get_role(RoleName="role")["Role"]["Arn"].endswith(":role/role")
    logs = service.client("logs")
    logs.create_log_group(logGroupName="/aws/sagemaker/TrainingJobs")
    logs.create_log_stream(logGroupName="/aws/sagemaker/TrainingJobs", logStreamName="x/algo-1")
    events = [{"timestamp": 1_800_000_000_000, "message": "line"}]
    logs.put_log_events(
        logGroupName="/aws/sagemaker/TrainingJobs", logStreamName="x/algo-1", logEvents=events
    )
    ssm = service.client("ssm")
    ssm.put_parameter(Name="p", Value="v", Type="String")
    assert ssm.get_parameter(Name="p")["Parameter"]["Value"] == "v"


def test_tags_of_managed_nodes_are_ours_and_of_parameters_moto_s(service) -> None:
    ssm = service.client("ssm")
    ssm.put_parameter(Name="p", Value="v", Type="String")
    ssm.add_tags_to_resource(ResourceType="Parameter", ResourceId="p", Tags=[{"Key": "k", "Value": "v"}])
    found = ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId="p")
    assert found["TagList"] == [{"Key": "k", "Value": "v"}]
    with pytest.raises(ClientError, match="InvalidResourceId"):
        ssm.list_tags_for_resource(ResourceType="ManagedInstance", ResourceId="mi-0123456789abcdef0")


def test_session_manager_is_ours(service) -> None:
    ssm = service.client("ssm")
    made = ssm.create_activation(IamRole="role", RegistrationLimit=1)
    found = ssm.describe_activations()["ActivationList"]
    assert [activation["ActivationId"] for activation in found] == [made["ActivationId"]]
    with pytest.raises(ClientError, match="TargetNotConnected"):
        ssm.start_session(Target="mi-0123456789abcdef0", DocumentName="AWS-StartSSHSession")


def test_an_unknown_operation_of_sagemaker_is_named(service) -> None:
    with pytest.raises(ClientError, match=r"UnknownOperationException.*DescribeEndpoint"):
        service.sagemaker.describe_endpoint(EndpointName="x")
    status, headers, body = _signed(service, b"{}", "SageMaker.MakeCoffee")
    assert status == 400
    assert headers["x-amzn-ErrorType"] == "UnknownOperationException"
    assert "MakeCoffee is not an operation of SageMaker" in json.loads(body)["message"]


def test_agents_that_ask_for_documents_are_told_that_there_are_none(service) -> None:
    target = "EC2WindowsMessageDeliveryService.GetMessages"
    status, _, answer = _signed(service, b"{}", target)
    assert (status, json.loads(answer)["__type"]) == (400, "UnknownOperationException")
    assert "Run Command" in json.loads(answer)["message"]


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b'"x"'])
def test_what_is_not_json_is_refused(service, body) -> None:
    status, _, answer = _signed(service, body, "SageMaker.ListModels")
    assert (status, json.loads(answer)["__type"]) == (400, "SerializationException")


def test_what_moto_does_not_have_is_said_once(service) -> None:
    iam, sent = service.client("iam"), []
    iam.meta.events.register("before-send.iam.*", lambda **_: sent.append(1))
    with pytest.raises(ClientError, match=r"NotImplemented.*moto does not implement"):
        iam.simulate_principal_policy(PolicySourceArn=ROLE, ActionNames=["s3:GetObject"])
    assert len(sent) == 1, "no SDK is to repeat it"
    with pytest.raises(ClientError, match="NotImplemented"):
        service.client("ssm").describe_ops_items(OpsItemFilters=[])


def test_moto_gone_is_an_error_and_not_a_hang(service) -> None:
    service.moto.stop()
    with pytest.raises(ClientError, match=r"503|ServiceUnavailable"):
        service.s3.list_buckets()


def test_a_client_that_hangs_up_is_not_taken_for_moto(service, caplog) -> None:
    service.s3.create_bucket(Bucket="bucket")
    service.s3.put_object(Bucket="bucket", Key="large", Body=bytes(20 * 1024 * 1024))
    url = urlsplit(
        service.s3.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "large"})
    )
    with caplog.at_level(logging.INFO, logger="smssh_plugin.local.gateway"):
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=LIMIT)
        connection.request("GET", f"{url.path}?{url.query}")
        assert connection.getresponse().read(1) == b"\0"
        answering = service.do(_answering())
        connection.close()
        ended, _ = service.do(asyncio.wait(answering, timeout=LIMIT, return_when=asyncio.FIRST_COMPLETED))
    assert ended
    assert not caplog.text


async def _answering() -> set[asyncio.Task[None]]:
    """The tasks of connections, as aiohttp names them."""
    return {task for task in asyncio.all_tasks() if "RequestHandler.start" in repr(task.get_coro())}
