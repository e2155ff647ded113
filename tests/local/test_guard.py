"""Who gets in: tried as an attacker would, and with everything that current SDKs sign."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import io
import json
import os
import socket
import ssl
import subprocess
import time
import urllib.request
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from smssh_plugin.local import guard
from smssh_plugin.local.keyring import Key, Keyring
from tests.waiting import LIMIT

from .jobs_support import somebody
from .service_harness import KEY, Service, running, signed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

JOB = {
    "ProcessingJobName": "theirs",
    "RoleArn": "arn:aws:iam::123456789012:role/x",
    "AppSpecification": {"ImageUri": "image", "ContainerEntrypoint": ["/bin/sh", "-c", "touch /tmp/owned"]},
    "ProcessingResources": {
        "ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 1}
    },
}
CREATE = {"X-Amz-Target": "SageMaker.CreateProcessingJob", "Content-Type": "application/x-amz-json-1.1"}


def listening() -> set[int]:
    """The TCP ports on which this process listens."""
    tables = "".join(Path("/proc/net", name).read_text() for name in ("tcp", "tcp6"))
    ours = {os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if _is_there(name)}
    return {
        int(line.split()[1].rpartition(":")[2], 16)
        for line in tables.splitlines()
        if line.split()[3] == "0A" and f"socket:[{line.split()[9]}]" in ours
    }


@pytest.fixture(scope="module")
def listened_before() -> set[int]:
    """Other tests have servers of their own in this process."""
    return listening()


@pytest.fixture(scope="module")
def service(listened_before: set[int]) -> Iterator[Service]:
    with running() as made:
        yield made


@pytest.fixture
def shared(service: Service) -> Service:
    """One service for all, with a bucket: what moto holds is the process', and other services begin anew."""
    service.s3.create_bucket(Bucket="bucket")
    service.s3.put_object(Bucket="bucket", Key="a b", Body=b"secret")
    return service


def ask(
    service: Service, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Send a request as it is; `Host` can be any."""
    connection = http.client.HTTPConnection(urlsplit(service.endpoint).netloc, timeout=LIMIT)
    try:
        connection.putrequest(method, path, skip_host="Host" in (headers or {}))
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def refused(service: Service, method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    """See that a request is refused, and that no page may read why; answers the body."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    status, shown, answer = ask(service, method, path, body, named)
    assert status == HTTPStatus.FORBIDDEN, (status, answer)
    assert not [name for name in shown if name.lower().startswith("access-control")]
    return answer


# As somebody else.


def test_another_user_who_signs_nothing_gets_nothing(shared: Service, common: Path) -> None:
    script = f"""
import json, urllib.request, urllib.error
for method, path, headers, body in (
    ("POST", "/", {CREATE!r}, {json.dumps(JOB)!r}),
    ("GET", "/bucket/a%20b", {{}}, None),
    ("PUT", "/bucket/theirs", {{}}, "x"),
    ("GET", "/_smssh/sessions", {{}}, None),
    ("POST", "/_smssh/faults", {{}}, "{{}}"),
    ("POST", "/v1/control-channel/sagemaker-training-job:job_algo-1", {{}}, "{{}}"),
    ("POST", "/moto-api/reset", {{}}, None),
    ("POST", "/", {{"Content-Type": "application/x-www-form-urlencoded"}}, "Action=GetCallerIdentity"),
):
    request = urllib.request.Request({shared.endpoint!r} + path, body and body.encode(), headers, method=method)
    try:
        print(method, path, urllib.request.urlopen(request).status)
    except urllib.error.HTTPError as error:
        print(error.code)
"""
    who = somebody(common)
    done = who.run("-c", script, folder=common, timeout=LIMIT)
    assert done.stdout.split() == ["403"] * 8
    assert shared.runner.jobs == []


def test_moto_is_this_process_own(shared: Service, listened_before: set[int]) -> None:
    ports = listening() - listened_before
    assert urlsplit(shared.endpoint).port in ports
    # Whatever else the emulator listens on, none of it is moto.
    for port in ports - {urlsplit(shared.endpoint).port}:
        with socket.create_connection(("127.0.0.1", port), 5) as peer:
            peer.settimeout(LIMIT)
            peer.sendall(b"GET /moto-api/data.json HTTP/1.0\r\n\r\n")
            try:
                assert b"200 OK" not in peer.recv(4096)
            except (TimeoutError, ConnectionError):
                continue
    path = os.path.realpath(os.path.dirname(shared.moto.path)) + "/moto.sock"
    assert os.stat(path).st_mode & 0o077 == 0
    # Another process of the same user, root even, is refused.
    script = (
        "import socket; s = socket.socket(socket.AF_UNIX); s.connect({!r});"
        " s.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n'); print(s.recv(100))"
    )
    done = subprocess.run(
        ["python3", "-c", script.format(path)], capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert "200" not in done.stdout


def _is_there(name: str) -> bool:
    return os.path.islink(f"/proc/self/fd/{name}")


# As a web page.


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:{port}"])
def test_a_page_is_refused_even_with_a_signature(shared: Service, origin: str) -> None:
    url, body = f"{shared.endpoint}/", json.dumps(JOB).encode()
    headers = signed("POST", url, body, dict(CREATE), service="sagemaker")
    origin = origin.format(port=urlsplit(url).port)
    assert b"web pages" in refused(shared, "POST", "/", body, **{**headers, "Origin": origin})
    assert shared.runner.jobs == []


def test_a_page_cannot_even_ask_what_it_may(shared: Service) -> None:
    refused(
        shared,
        "OPTIONS",
        "/",
        Origin="https://evil.example",
        Access_Control_Request_Method="POST",
        Access_Control_Request_Headers="x-amz-target",
    )
    refused(shared, "OPTIONS", "/bucket/a%20b")


def test_no_answer_lets_a_page_read_it(shared: Service) -> None:
    url = f"{shared.endpoint}/bucket/a%20b"
    status, shown, body = ask(shared, "GET", "/bucket/a%20b", b"", signed("GET", url, service="s3"))
    assert (status, body) == (200, b"secret")
    assert not [name for name in shown if name.lower().startswith("access-control")]


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:{port}",
        "127.0.0.1",
        "127.0.0.1:1",
        "localhost.evil.example:{port}",
        "[::1]:{port}",
        "0:{port}",
    ],
)
def test_a_name_that_was_made_to_lead_here_is_refused(shared: Service, host: str) -> None:
    # The signature is good for that host: only its name tells.
    host = host.format(port=urlsplit(shared.endpoint).port)
    headers = signed("GET", f"http://{host}/bucket/a%20b", service="s3")
    assert b"host" in refused(shared, "GET", "/bucket/a%20b", b"", **{**headers, "Host": host})


def test_localhost_by_name_is_this_machine(shared: Service) -> None:
    endpoint = shared.endpoint.replace("127.0.0.1", "localhost")
    session = boto3.session.Session(KEY.access_key, KEY.secret_key, region_name="us-east-1")
    config = Config(proxies={}, s3={"addressing_style": "path"})
    client = session.client("s3", endpoint_url=endpoint, config=config)
    assert client.get_object(Bucket="bucket", Key="a b")["Body"].read() == b"secret"


def test_a_request_line_with_an_address_in_it_is_refused(shared: Service) -> None:
    place = urlsplit(shared.endpoint).netloc
    headers = signed("GET", f"{shared.endpoint}/bucket/a%20b", service="s3")
    refused(shared, "GET", f"http://{place}/bucket/a%20b", b"", **headers)


# Signatures.


def test_no_key_that_anybody_could_know_gets_in(shared: Service) -> None:
    for key in (
        Key("AKIASMSSHLOCAL000000", "smssh-local-is-no-secret"),
        Key("smssh-local", "smssh-local"),
        Key("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYzEXAMPLEKEY"),
        Key(KEY.access_key, "guessed"),
    ):
        headers = signed("GET", f"{shared.endpoint}/bucket/a%20b", service="s3", key=key)
        refused(shared, "GET", "/bucket/a%20b", b"", **headers)
    assert Keyring().caller != Keyring().caller


@pytest.mark.parametrize(
    "change",
    [
        lambda headers: {**headers, "X-Amz-Target": "SageMaker.DeletePipeline"},
        lambda headers: {**headers, "X-Amz-Date": "20200101T000000Z"},
        lambda headers: {name: value for name, value in headers.items() if name != "X-Amz-Date"},
        lambda headers: {**headers, "X-Amz-Security-Token": "token"},
        lambda headers: {**headers, "X-Amz-Added": "later"},
        lambda headers: {**headers, "Authorization": headers["Authorization"][:-1] + "g"},
        lambda headers: {**headers, "Authorization": "AWS4-HMAC-SHA256 Credential=x"},
        lambda headers: {**headers, "Authorization": "Basic eDp5"},
        lambda headers: {**headers, "Authorization": ""},
    ],
)
def test_what_was_signed_cannot_be_changed(
    shared: Service, change: Callable[[dict[str, str]], dict[str, str]]
) -> None:
    headers = signed(
        "POST", f"{shared.endpoint}/", b"{}", {"X-Amz-Target": "SageMaker.ListModels"}, service="sagemaker"
    )
    assert ask(shared, "POST", "/", b"{}", headers)[0] == HTTPStatus.OK
    refused(shared, "POST", "/", b"{}", **change(headers))
    assert ask(shared, "POST", "/", b'{"MaxResults":1}', headers)[0] == HTTPStatus.FORBIDDEN
    refused(shared, "POST", "/?more=1", b"{}", **headers)


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_may_be_off_for_a_quarter_of_an_hour(
    shared: Service, hours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = signed("GET", f"{shared.endpoint}/bucket/a%20b", service="s3")
    at = time.time()
    monkeypatch.setattr(guard.time, "time", lambda: at + hours * 800)
    assert ask(shared, "GET", "/bucket/a%20b", b"", headers)[0] == HTTPStatus.OK
    monkeypatch.setattr(guard.time, "time", lambda: at + hours * 1000)
    assert b"RequestTimeTooSkewed" in refused(shared, "GET", "/bucket/a%20b", b"", **headers)


@pytest.mark.parametrize("version", ["s3", "s3v4", None])
@pytest.mark.parametrize("style", ["path", "auto"])
def test_presigned_addresses_are_good_for_what_they_say_and_as_long(
    shared: Service, version: str | None, style: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = shared.client("s3", signature_version=version, s3={"addressing_style": style})
    key = {"Bucket": "bucket", "Key": "a b"}
    url = client.generate_presigned_url(
        "get_object", Params={**key, "ResponseContentType": "text/x"}, ExpiresIn=1000
    )
    path = url.partition(urlsplit(url).netloc)[2]
    status, shown, body = ask(shared, "GET", path)
    assert (status, body, shown["Content-Type"]) == (200, b"secret", "text/x")
    put = client.generate_presigned_url("put_object", Params={**key, "Key": "new", "ContentType": "a/b"})
    path_to_put = put.partition(urlsplit(put).netloc)[2]
    assert ask(shared, "PUT", path_to_put, b"x", {"Content-Type": "a/b"})[0] == HTTPStatus.OK
    refused(shared, "PUT", path)
    refused(shared, "GET", path.replace("a%20b", "other"))
    refused(shared, "GET", path.replace("text%2Fx", "text%2Fhtml"))
    refused(shared, "GET", path.partition("?")[0])
    at = time.time()
    monkeypatch.setattr(guard.time, "time", lambda: at + 1100)
    assert b"expired" in refused(shared, "GET", path)


def test_an_upload_is_what_was_signed_or_is_not_there(shared: Service) -> None:
    content = os.urandom(3_000_000)
    url = f"{shared.endpoint}/bucket/upload"
    headers = signed("PUT", url, content, service="s3")
    status, _, answer = ask(shared, "PUT", "/bucket/upload", content[:-1] + b"?", headers)
    assert (status, b"XAmzContentSHA256Mismatch" in answer) == (400, True)
    with pytest.raises(ClientError, match="404"):
        shared.s3.head_object(Bucket="bucket", Key="upload")
    assert ask(shared, "PUT", "/bucket/upload", content, headers)[0] == HTTPStatus.OK
    assert shared.s3.get_object(Bucket="bucket", Key="upload")["Body"].read() == content


@pytest.mark.parametrize("algorithm", ["CRC32", "SHA256"])
@pytest.mark.parametrize("calculation", ["when_supported", "when_required"])
def test_checksums_of_current_sdks(shared: Service, algorithm: str, calculation: Any) -> None:
    client = shared.client("s3", request_checksum_calculation=calculation)
    for body in (b"text", io.BytesIO(b"text" * 100_000)):
        client.put_object(Bucket="bucket", Key="sum", Body=body, ChecksumAlgorithm=algorithm)
    assert (
        client.get_object(Bucket="bucket", Key="sum", ChecksumMode="ENABLED")["Body"].read()
        == b"text" * 100_000
    )


def test_a_payload_may_be_unsigned(shared: Service) -> None:
    client = shared.client("s3", s3={"payload_signing_enabled": False})
    client.put_object(Bucket="bucket", Key="unsigned", Body=b"x")
    url = f"{shared.endpoint}/bucket/unsigned"
    headers = signed("PUT", url, b"", {"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"}, service="s3")
    assert ask(shared, "PUT", "/bucket/unsigned", b"yz", headers)[0] == HTTPStatus.OK
    assert client.get_object(Bucket="bucket", Key="unsigned")["Body"].read() == b"yz"


def chunked(headers: dict[str, str], parts: list[bytes]) -> bytes:
    """A body of signed chunks, after the example of the S3 API reference."""
    authorization = headers["Authorization"]
    scope = authorization.partition("Credential=")[2].partition(",")[0].partition("/")[2]
    before = authorization.rpartition("=")[2]
    key = f"AWS4{KEY.secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), "sha256").digest()
    body = b""
    for part in (*parts, b""):
        empty, digest = (hashlib.sha256(data).hexdigest() for data in (b"", part))
        text = f"AWS4-HMAC-SHA256-PAYLOAD\n{headers['X-Amz-Date']}\n{scope}\n{before}\n{empty}\n{digest}"
        before = hmac.new(key, text.encode(), "sha256").hexdigest()
        body += f"{len(part):x};chunk-signature={before}\r\n".encode() + part + b"\r\n"
    return body


def test_chunks_that_are_signed_one_by_one(shared: Service) -> None:
    parts = [os.urandom(65536) for _ in range(5)] + [b"end"]
    url = f"{shared.endpoint}/bucket/chunks"
    asked = {
        "Content-Encoding": "aws-chunked",
        "X-Amz-Content-SHA256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
        "X-Amz-Decoded-Content-Length": str(sum(map(len, parts))),
    }
    headers = signed("PUT", url, b"", asked, service="s3")
    good = chunked(headers, parts)
    for wrong in (
        good.replace(b"end", b"eno"),
        good[: len(good) // 2],
        good.replace(b"chunk-signature=", b"chunk-signature=0", 1),
        chunked({**headers, "Authorization": headers["Authorization"][:-4] + "0000"}, parts),
    ):
        assert ask(shared, "PUT", "/bucket/chunks", wrong, headers)[0] == HTTPStatus.FORBIDDEN
    with pytest.raises(ClientError, match="404"):
        shared.s3.head_object(Bucket="bucket", Key="chunks")
    assert ask(shared, "PUT", "/bucket/chunks", good, headers)[0] == HTTPStatus.OK
    assert shared.s3.get_object(Bucket="bucket", Key="chunks")["Body"].read() == b"".join(parts)


def test_every_service_s_protocol_says_no_in_its_own_way(shared: Service) -> None:
    session = boto3.session.Session("AKIAWRONGWRONGWRONG1", "wrong", region_name="us-east-1")
    config = Config(proxies={}, retries={"max_attempts": 1})

    def client(name: Any) -> Any:
        return session.client(name, endpoint_url=shared.endpoint, config=config)

    calls: list[tuple[Any, str]] = [
        (client("s3").list_buckets, "InvalidAccessKeyId"),
        (client("sts").get_caller_identity, "UnrecognizedClientException"),
        (client("iam").list_roles, "UnrecognizedClientException"),
        (client("logs").describe_log_groups, "UnrecognizedClientException"),
        (client("ssm").describe_sessions, "State"),
        (client("sagemaker").list_pipelines, "UnrecognizedClientException"),
    ]
    for call, code in calls:
        with pytest.raises(Exception, match=code):
            call()


# Those who were given credentials.


def test_roles_and_users_of_iam_get_in_and_their_time_ends(shared: Service) -> None:
    sts, iam = shared.client("sts"), shared.client("iam")
    found = sts.assume_role(RoleArn="arn:aws:iam::123456789012:role/r", RoleSessionName="test")["Credentials"]

    def buckets(access: str, secret: str, token: str | None) -> Any:
        session = boto3.session.Session(access, secret, token, region_name="us-east-1")
        config = Config(proxies={}, retries={"max_attempts": 1})
        return session.client("s3", endpoint_url=shared.endpoint, config=config).list_buckets()["Buckets"]

    role = (found["AccessKeyId"], found["SecretAccessKey"])
    assert buckets(*role, found["SessionToken"])
    for token in ("other", None):
        with pytest.raises(ClientError, match="InvalidToken"):
            buckets(*role, token)
    iam.create_user(UserName="ann")
    made = iam.create_access_key(UserName="ann")["AccessKey"]
    assert buckets(made["AccessKeyId"], made["SecretAccessKey"], None)
    iam.delete_access_key(UserName="ann", AccessKeyId=made["AccessKeyId"])
    with pytest.raises(ClientError, match="InvalidAccessKeyId"):
        buckets(made["AccessKeyId"], made["SecretAccessKey"], None)


def test_a_job_may_not_use_the_control_api_and_ends_with_its_credentials(shared: Service) -> None:
    key = shared.keyring.issue("job x")
    url = f"{shared.endpoint}/_smssh/faults"
    assert ask(shared, "GET", "/_smssh/faults", b"", signed("GET", url, service="smssh"))[0] == HTTPStatus.OK
    refused(shared, "GET", "/_smssh/faults", b"", **signed("GET", url, service="smssh", key=key))
    path = "/bucket/a%20b"
    headers = signed("GET", shared.endpoint + path, service="s3", key=key)
    assert ask(shared, "GET", path, b"", headers)[0] == HTTPStatus.OK
    shared.keyring.revoke(key)
    refused(shared, "GET", path, b"", **headers)


# The websockets, and the TLS listener.


@pytest.mark.parametrize("side", ["data-channel/x", "control-channel/mi-0123456789abcdef0"])
def test_channels_are_guarded_too(shared: Service, side: str) -> None:
    url = f"ws{shared.endpoint.removeprefix('http')}/v1/{side}?role=publish_subscribe"
    claimed = {
        "Authorization": "AWS4-HMAC-SHA256 Credential=AKIATESTTESTTESTTEST/20260101/x/y/z, Signature=s"
    }
    right = signed("GET", url.replace("ws", "http", 1), service="ssmmessages")
    for headers in ({}, claimed, {**right, "Origin": "https://evil.example"}):
        with pytest.raises(InvalidStatus) as caught:
            connect(url, additional_headers=headers, compression=None).__enter__()
        assert caught.value.response.status_code == HTTPStatus.FORBIDDEN
        assert b"web pages" in (caught.value.response.body or b"") or "Origin" not in headers


def test_unsigned_clients_of_data_channels_are_let_in_where_that_is_wanted(shared: Service) -> None:
    shared.sessions.channels.signed_clients = False
    try:
        url = f"ws{shared.endpoint.removeprefix('http')}/v1/data-channel/x"
        with pytest.raises(InvalidStatus, match="403") as caught:
            connect(url, compression=None).__enter__()
        assert b"no access to x" in (caught.value.response.body or b""), "the channel's own answer"
        refused(shared, "POST", "/v1/data-channel/x")
        refused(shared, "GET", "/bucket/a%20b")
    finally:
        shared.sessions.channels.signed_clients = True


def test_the_tls_listener_is_guarded_as_well(tmp_path: Path) -> None:
    service = Service(tmp_path)
    service.start()
    try:
        trusting = ssl.create_default_context(cafile=str(service.authority))
        url = f"{service.channels}/_smssh/sessions"
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(url, context=trusting)
        request = urllib.request.Request(url, headers=signed("GET", url, service="smssh"))
        with urllib.request.urlopen(request, context=trusting) as answer:
            assert answer.status == HTTPStatus.OK
    finally:
        service.stop()
