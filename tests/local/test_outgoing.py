"""Nothing for AWS leaves the machine: real SDKs with endpoints of their own, and every packet that would leave."""

from __future__ import annotations

import base64
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from smssh_plugin.local.environment import Access, network
from smssh_plugin.local.outgoing import is_aws, is_metadata
from smssh_plugin.local.proxying import Upstream, proxy_variables
from tests import needs
from tests.submit.sdks.environments import NEWEST, python_of
from tests.waiting import LIMIT

from .jobs_support import image_environment
from .service_harness import KEY, PROXY, Service

if TYPE_CHECKING:
    from collections.abc import Iterator

WATCHED = Path(__file__).with_name("watched.py")
PLAIN = """
import boto3, urllib.error, urllib.request
from botocore.config import Config
for host in ("sts.us-east-1", "sts", "sts.eu-west-1"):
    found = boto3.client("sts", endpoint_url=f"https://{host}.amazonaws.com").get_caller_identity()
    assert found["Account"] == "123456789012", found
for style in ("virtual", "path"):
    s3 = boto3.client("s3", endpoint_url="https://s3.us-east-1.amazonaws.com",
                      config=Config(s3={"addressing_style": style}))
    s3.create_bucket(Bucket="bucket-" + style)
    s3.put_object(Bucket="bucket-" + style, Key="v1/data-channel/a b", Body=b"content" * 10000)
    assert s3.get_object(Bucket="bucket-" + style, Key="v1/data-channel/a b")["Body"].read() == b"content" * 10000
assert len(boto3.client("s3").list_buckets()["Buckets"]) >= 2
sagemaker = boto3.client("sagemaker", endpoint_url="https://api.sagemaker.us-east-1.amazonaws.com")
assert sagemaker.list_pipelines()["PipelineSummaries"] == []
for url in ("http://169.254.169.254/latest/meta-data/", "http://169.254.170.2/v2/credentials", "http://[fd00:ec2::254]/",
            "https://sm-pysdk-t-us-east-1.s3.us-east-1.amazonaws.com/telemetry", "http://sts.us-east-1.amazonaws.com/"):
    try:
        raise AssertionError(urllib.request.urlopen(url, timeout=10).status)
    except urllib.error.URLError as error:
        assert getattr(error, "code", 403) == 403, error
print("well")
"""
SDK_V2 = """
import boto3, sagemaker
session = sagemaker.Session(boto3.Session(region_name="us-east-1"))
assert session.account_id() == "123456789012"
assert session.default_bucket().startswith("sagemaker-us-east-1-")
print(sagemaker.image_uris.retrieve("pytorch", "us-east-1", version="2.3", instance_type="ml.m5.large",
                                    image_scope="training", py_version="py311"))
assert session.upload_string_as_file_body("x", session.default_bucket(), "key").startswith("s3://")
print("well")
"""
SDK_V3 = """
import boto3
from sagemaker.core import image_uris
from sagemaker.core.helper.session_helper import Session
session = Session(boto3.Session(region_name="us-east-1"))
assert session.account_id() == "123456789012"
assert session.default_bucket().startswith("sagemaker-us-east-1-")
print(image_uris.retrieve("pytorch", "us-east-1", version="2.3", instance_type="ml.m5.large",
                          image_scope="training", py_version="py311"))
print("well")
"""
JOB = """
import sys, time, boto3
sagemaker, logs, s3 = boto3.client("sagemaker"), boto3.client("logs"), boto3.client("s3")
s3.create_bucket(Bucket="scripts")
s3.upload_file(sys.argv[1], "scripts", "inside.py")
code = {"S3Uri": "s3://scripts/inside.py", "LocalPath": "/opt/ml/processing/input/code",
        "S3DataType": "S3Prefix", "S3InputMode": "File"}
sagemaker.create_processing_job(
    ProcessingInputs=[{"InputName": "code", "S3Input": code}],
    ProcessingJobName="inside", RoleArn="arn:aws:iam::123456789012:role/x",
    AppSpecification={"ImageUri": "image:1", "ContainerEntrypoint": ["python", code["LocalPath"] + "/inside.py"]},
    ProcessingResources={"ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}})
while (found := sagemaker.describe_processing_job(ProcessingJobName="inside"))["ProcessingJobStatus"] == "InProgress":
    time.sleep(0.1)
group = "/aws/sagemaker/ProcessingJobs"
print("\\n".join(one["message"] for one in logs.filter_log_events(logGroupName=group)["events"]))
print(found["ProcessingJobStatus"])
"""


def _namespace() -> list[str]:
    """Words before a command that give it a network of its own; the test is skipped if that is not possible."""
    words = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root-user"]
    for name in ("unshare", "ip", "/dev/net/tun"):
        needs.program(name)
    done = subprocess.run(
        [*words, sys.executable, str(WATCHED), "true"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        needs.missing("namespaces", f"no network of its own with a tun device: {done.stderr[-200:]}")
    return words


@pytest.fixture(scope="module")
def namespace() -> list[str]:
    return _namespace()


def watched(namespace: list[str], home: Path, *command: str, **variables: str) -> tuple[str, list[str]]:
    """Run a command against an emulator of its own; its output, and where packets were sent."""
    environ = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    environ |= {"HOME": str(home), "SMSSH_HOME": str(home / "smssh"), "AWS_MAX_ATTEMPTS": "1", **variables}
    environ |= {"SAGEMAKER_SUPPRESS_V2_WARNING": "1"}
    smssh = [
        sys.executable,
        "-m",
        "smssh_plugin.cli",
        "local",
        "run",
        "--image",
        str(image_environment()),
        "--",
    ]
    done = subprocess.run(
        [*namespace, sys.executable, str(WATCHED), *smssh, *command],
        env=environ,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    output, found, packets = done.stdout.partition("PACKETS\n")
    assert found, done.stderr
    return output + done.stderr, packets.split("\n")[:-1]


@pytest.mark.parametrize(
    ("version", "script"),
    [(None, PLAIN), (NEWEST[0], SDK_V2), (NEWEST[1], SDK_V3)],
    ids=["boto3", "v2", "v3"],
)
def test_no_packet_of_a_client_leaves(
    namespace: list[str], tmp_path: Path, version: str | None, script: str
) -> None:
    python = sys.executable if version is None else str(python_of(version))
    output, packets = watched(namespace, tmp_path, python, "-c", script, NO_PROXY="*")
    assert packets == []
    assert "well" in output.splitlines(), output


def test_no_packet_of_a_job_leaves(namespace: list[str], tmp_path: Path) -> None:
    script = tmp_path / "inside.py"
    script.write_text(PLAIN)
    output, packets = watched(
        namespace, tmp_path, sys.executable, "-c", JOB, str(script), NO_PROXY="10.0.0.1,.amazonaws.com"
    )
    assert packets == []
    assert "Completed" in output.splitlines(), output
    assert "well" in output, output


def test_without_the_proxy_they_would(namespace: list[str], tmp_path: Path) -> None:
    script = 'import boto3; boto3.client("sts", endpoint_url="https://sts.us-east-1.amazonaws.com").get_caller_identity()'
    bare = ["env", "-u", "HTTPS_PROXY", "-u", "https_proxy", "timeout", "5", sys.executable, "-c", script]
    assert watched(namespace, tmp_path, *bare)[1]


# The proxy by itself.


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path)
    made.start()
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def web() -> Iterator[int]:
    """A server of somebody else's, for one line."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                with peer:
                    data = peer.recv(65536)
                    peer.sendall(b"HTTP/1.0 200 OK\r\nAccess-Control-Allow-Origin: x\r\n\r\nread " + data)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def _port(emulator: Service) -> int:
    return int(emulator.endpoint.rpartition(":")[2])


def _say(emulator: Service, text: str) -> bytes:
    with socket.create_connection(("127.0.0.1", _port(emulator)), 10) as peer:
        peer.sendall(text.replace("\n", "\r\n").encode())
        return peer.recv(65536)


@pytest.mark.parametrize("host", ["sts.amazonaws.com:443", "127.0.0.1:22", "example.com:443"])
def test_the_proxy_is_for_those_who_were_given_its_password(emulator: Service, host: str) -> None:
    assert b" 407 " in _say(emulator, f"CONNECT {host} HTTP/1.1\nHost: {host}\n\n")
    wrong = "Proxy-Authorization: Basic c21zc2gtbG9jYWw6d3Jvbmc="
    assert b" 407 " in _say(emulator, f"CONNECT {host} HTTP/1.1\n{wrong}\n\n")
    place = host.partition(":")[0]
    assert b" 403 " in _say(emulator, f"GET http://{place}/ HTTP/1.1\nHost: {place}\n\n")


@pytest.mark.parametrize("words", ["CONNECT", "CONNECT x", "CONNECT :443 HTTP/1.1", "CONNECT [::1 HTTP/1.1"])
def test_what_is_no_request_for_a_proxy_ends(emulator: Service, words: str) -> None:
    answer = _say(emulator, f"{words}\nProxy-Authorization: Basic c21zc2gtbG9jYWw6cGFzc3dvcmQuZTMw\n\n")
    assert re.match(rb"HTTP/1\.. 4|HTTP/1\.1 50[02]|$", answer), answer


def _opener(emulator: Service, tmp_path: Path, **environ: str) -> tuple[Any, dict[str, str]]:
    variables = proxy_variables(_port(emulator), PROXY, environ)
    proxies = {"http": variables["HTTP_PROXY"], "https": variables["HTTPS_PROXY"]}
    return urllib.request.build_opener(urllib.request.ProxyHandler(proxies)), variables


def test_what_is_not_aws_goes_on(
    emulator: Service, web: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # urllib asks no proxy for loopback where NO_PROXY says so; here it does not.
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    opener, _ = _opener(emulator, tmp_path)
    with opener.open(f"http://127.0.0.1:{web}/path?query", timeout=LIMIT) as answer:
        text = answer.read()
        assert answer.headers["Access-Control-Allow-Origin"] == "x"
    assert text.startswith(b"read GET /path?query HTTP/1.1\r\n")
    assert b"Proxy-Authorization" not in text
    # By CONNECT: bytes, both ways.
    words = proxy_variables(_port(emulator), PROXY, {})["HTTPS_PROXY"]
    parts = urlsplit(words)
    basic = base64.b64encode(f"{parts.username}:{unquote(parts.password or '')}".encode()).decode()
    with socket.create_connection(("127.0.0.1", _port(emulator)), 10) as peer:
        head = f"CONNECT 127.0.0.1:{web} HTTP/1.1\r\nProxy-Authorization: Basic {basic}\r\n\r\n"
        peer.sendall(head.encode())
        assert b" 200 " in peer.recv(1000)
        peer.sendall(b"anything")
        assert b"read anything" in peer.recv(1000)


def test_the_way_on_leads_through_the_proxy_that_was_named_before(
    emulator: Service, web: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    before = f"http://ann:secret@127.0.0.1:{web}"
    opener, variables = _opener(
        emulator, tmp_path, HTTPS_PROXY=before, http_proxy=before, NO_PROXY="x.example"
    )
    with opener.open("http://pypi.example/simple", timeout=LIMIT) as answer:
        text = answer.read()
    assert b"GET http://pypi.example/simple" in text
    assert b"Proxy-Authorization: Basic YW5uOnNlY3JldA==" in text
    assert Upstream.of(variables) == Upstream(before, before, "x.example")
    # A shell that has ours already, of another start, keeps what it had before that.
    again = proxy_variables(1, "other", variables)
    assert Upstream.of(again) == Upstream(before, before, "x.example")
    assert Upstream.decode("nonsense") == Upstream()


def test_names_of_aws_and_of_metadata_services() -> None:
    for name in (
        "sts.amazonaws.com",
        "S3.CN-NORTH-1.amazonaws.com.cn",
        "x.y.api.aws",
        "sts.us-east-1.amazonaws.com.",
    ):
        assert is_aws(name)
    for name in ("notamazonaws.com", "amazonaws.com.evil.example", "aws.amazon.com", "127.0.0.1"):
        assert not is_aws(name)
    for name in (
        "169.254.169.254",
        "[fd00:ec2::254]",
        "::ffff:169.254.169.254",
        "fe80::1",
        "metadata.google.internal",
    ):
        assert is_metadata(name)
    for name in ("127.0.0.1", "10.0.0.1", "example.com", "fd00::1"):
        assert not is_metadata(name)


@pytest.mark.parametrize(
    "entry",
    [
        "*",
        ".amazonaws.com",
        "amazonaws.com",
        "*.s3.amazonaws.com",
        ".com",
        "com",
        "169.254.169.254",
        "sts.amazonaws.com:443",
    ],
)
def test_no_entry_of_no_proxy_lets_aws_past(entry: str) -> None:
    variables = proxy_variables(1, "x", {"NO_PROXY": f"corp.example,{entry}"})
    assert variables["NO_PROXY"] == "corp.example,127.0.0.1,localhost,::1"


def test_the_authority_signs_for_aws_and_loopback_alone(emulator: Service, tmp_path: Path) -> None:
    certificate = emulator.outgoing._certificate
    context = certificate.context_for("example.com")
    trusting = ssl.create_default_context(cafile=str(certificate.authority))
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            peer, _ = listener.accept()
            with peer:
                try:
                    context.wrap_socket(peer, server_side=True).close()
                except OSError:
                    return

        thread = threading.Thread(target=serve)
        thread.start()
        with (
            socket.create_connection(listener.getsockname(), 10) as peer,
            pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree violation"),
        ):
            trusting.wrap_socket(peer, server_hostname="example.com")
        thread.join(LIMIT)


def test_through_the_proxy_signatures_are_wanted_too(
    emulator: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = Access(emulator.endpoint, KEY, emulator.authority, PROXY)
    for name, value in network(access, tmp_path, {}).items():
        monkeypatch.setenv(name, value)
    config = Config(retries={"max_attempts": 1})
    endpoint = "https://sts.us-east-1.amazonaws.com"
    for key, secret, code in (
        (KEY.access_key, "wrong", "InvalidSignature"),
        ("AKIAOTHER", "x", "Unrecognized"),
    ):
        session = boto3.session.Session(key, secret, region_name="us-east-1")
        with pytest.raises(ClientError, match=code):
            session.client("sts", endpoint_url=endpoint, config=config).get_caller_identity()
