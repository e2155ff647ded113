"""Systems Manager without boto3: when that suffices, the same calls as boto3's, and the container's credentials."""

import contextlib
import http.server
import json
import pwd
import sys
import threading
import time

import pytest

from smssh_plugin.container import aws_calls, ssm_calls
from smssh_plugin.container.ssm_calls import Refused, Ssm, suffices
from smssh_plugin.errors import SmsshError

VARIABLES = {"AWS_ACCESS_KEY_ID": "ASIAJOBJOBJOBJOBJOBJ", "AWS_SECRET_ACCESS_KEY": "secret"}
SAGEMAKER = {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/credentials/1"}


@pytest.fixture(autouse=True)
def own_environment(monkeypatch, tmp_path):
    for name in (*ssm_calls._NEEDS_MORE, *VARIABLES, *SAGEMAKER, "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_SSM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, _ in ssm_calls._FILES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.mark.parametrize(
    ("enough", "region", "environ"),
    [
        (True, "eu-west-1", SAGEMAKER),
        (True, "ap-southeast-4", VARIABLES),
        (True, "eu-west-1", {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1/credentials"}),
        (True, "cn-north-1", {**VARIABLES, "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}),
        # Its domain is in botocore's list.
        (False, "cn-north-1", VARIABLES),
        (False, "us-gov-west-1", VARIABLES),
        (False, "eu-west-1", {}),
        (False, "eu-west-1", {**VARIABLES, "AWS_ENDPOINT_URL": "127.0.0.1:4580"}),
        (False, "eu-west-1", {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://somebody.example/credentials"}),
        (False, "eu-west-1", {**VARIABLES, "AWS_PROFILE": "other"}),
        (False, "eu-west-1", {**VARIABLES, "AWS_USE_FIPS_ENDPOINT": "true"}),
        (False, "eu-west-1", {**SAGEMAKER, "AWS_WEB_IDENTITY_TOKEN_FILE": "/token"}),
    ],
)
def test_where_boto3_is_needed(enough, region, environ) -> None:
    assert suffices(region, environ) is enough


def test_a_configuration_file_is_boto3s(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert suffices("eu-west-1", VARIABLES)
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "config").write_text("[default]\n")
    assert not suffices("eu-west-1", VARIABLES)
    other = tmp_path / "other"
    assert suffices("eu-west-1", {**VARIABLES, "AWS_CONFIG_FILE": str(other)})
    other.write_text("")
    assert not suffices("eu-west-1", {**VARIABLES, "AWS_CONFIG_FILE": str(other)})


def test_without_a_home_folder_there_is_no_file_of_boto3s(monkeypatch) -> None:
    """A user id without an account, and no HOME."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    assert suffices("eu-west-1", VARIABLES)


def test_without_boto3(stack, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.setenv("AWS_ENDPOINT_URL", stack.url)
    with pytest.raises(SmsshError, match="boto3"):
        aws_calls.client("ssm", "us-east-1")
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    client = aws_calls.client("ssm", "us-east-1")
    assert isinstance(client, Ssm)
    assert client.describe_instance_information()["InstanceInformationList"] == []
    with pytest.raises(SmsshError, match="boto3"):
        aws_calls.client("s3", "us-east-1")


def lives(client, stack):
    """A node's life, by each call that we make; what was answered, without what differs each time."""
    made = client.create_activation(
        IamRole="role",
        RegistrationLimit=1,
        ExpirationDate=int(time.time()) + 60,
        Tags=[{"Key": "A", "Value": "1"}],
    )
    stack.call("RegisterManagedInstance", **made, PublicKey="key", Fingerprint="print")
    filters = [{"Key": "ActivationIds", "Values": [made["ActivationId"]]}]
    found = client.describe_instance_information(Filters=filters, MaxResults=50)["InstanceInformationList"]
    (node,) = [each["InstanceId"] for each in found]
    resource = {"ResourceType": "ManagedInstance", "ResourceId": node}
    client.add_tags_to_resource(**resource, Tags=[{"Key": "Zwei", "Value": "Größe 学"}])
    tags = client.list_tags_for_resource(**resource)["TagList"]
    client.deregister_managed_instance(InstanceId=node)
    client.delete_activation(ActivationId=made["ActivationId"])
    return tags, client.describe_instance_information(Filters=filters)["InstanceInformationList"]


def test_it_calls_as_boto3_does(stack, monkeypatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", stack.url)
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    ours = aws_calls.client("ssm", "us-east-1")
    monkeypatch.setattr(aws_calls, "suffices", lambda *_: False)
    theirs = aws_calls.client("ssm", "us-east-1")
    assert not isinstance(theirs, Ssm)
    assert lives(ours, stack) == lives(theirs, stack) != ([], [])
    errors = []
    for client in (ours, theirs):
        with pytest.raises(SmsshError) as caught:
            aws_calls.call(client.delete_activation, threading.Event(), ActivationId="none of ours")
        errors.append((str(caught.value), caught.value.reference, caught.value.status))
    assert errors[0] == errors[1]


class Credentials(http.server.BaseHTTPRequestHandler):
    """The container's endpoint: answers what the server has, once each, then its last."""

    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        answers = self.server.answers
        status, body = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def endpoint(*answers):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Credentials)
    server.answers, server.asked = list(answers), []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def keys(name, seconds):
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))
    return 200, {"AccessKeyId": name, "SecretAccessKey": "s", "Token": "t", "Expiration": until}


def test_credentials_of_the_container(stack, monkeypatch, tmp_path) -> None:
    """Fetched once, fetched anew before they end, kept while the endpoint is away, asked for again after trouble."""
    token = tmp_path / "token"
    token.write_text("let me in\n")
    monkeypatch.setenv("AWS_ENDPOINT_URL", stack.url)
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(token))
    # A proxy cannot reach what only this host can.
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with endpoint((500, {}), keys("FIRST", 60), keys("SECOND", 3600), (500, {})) as (server, url):
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{url}/role?name=x")
        client = aws_calls.client("ssm", "us-east-1")
        assert client._keys().access_key == "FIRST"
        assert server.asked == [("/role?name=x", "let me in")] * 2
        assert client.describe_instance_information() is not None
        assert client._keys() == ("SECOND", "s", "t")
        assert len(server.asked) == 3
        client._fetched = (client._fetched[0], time.time() + 60)
        assert client._keys().access_key == "SECOND"
        client._fetched = (client._fetched[0], time.time() - 1)
        with pytest.raises(SmsshError, match="no AWS credentials in this container") as caught:
            client._keys()
        assert caught.value.reference == "no-credentials"


def test_what_is_no_answer(monkeypatch) -> None:
    with endpoint((503, ["none", "of", "ours"])) as (server, url):
        server.RequestHandlerClass.do_POST = Credentials.do_GET
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        for name, value in VARIABLES.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(Refused) as caught:
            aws_calls.client("ssm", "us-east-1").delete_activation(ActivationId="a")
        assert (caught.value.code, caught.value.status) == ("HTTP 503", 503)
