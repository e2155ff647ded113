"""API calls over HTTP: retries, kept connections, proxies, certificates, and what is said when they fail."""

from __future__ import annotations

import email.utils
import random
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from smssh_plugin.aws import session as sessions
from smssh_plugin.aws.session import AwsSession, ServiceRefused
from smssh_plugin.aws.transport import proxy_of
from smssh_plugin.errors import ExitStatus, SmsshError
from tests.waiting import LIMIT

from .peers import Api, Proxy, certificate, hang_up

if TYPE_CHECKING:
    from http.server import BaseHTTPRequestHandler
    from pathlib import Path

THROTTLED = (400, {"__type": "ThrottlingException", "message": "Rate exceeded"})


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts, which take no time here."""
    made: list[float] = []
    monkeypatch.setattr(sessions.time, "sleep", made.append)
    return made


def test_a_call_is_json_signed_and_answered_as_it_came(api: Api) -> None:
    api.answers = [(200, {"InstanceInformationList": [{"RegistrationDate": 1.5}]})]
    answer = AwsSession().call("ssm", "describe_instance_information", MaxResults=5)
    assert answer == {"InstanceInformationList": [{"RegistrationDate": 1.5}]}
    assert api.asked == [("AmazonSSM.DescribeInstanceInformation", {"MaxResults": 5})]
    assert "Credential=AKIATEST/" in api.headers[0]["Authorization"]
    assert "/eu-west-1/ssm/aws4_request" in api.headers[0]["Authorization"]
    assert api.headers[0]["User-Agent"].startswith("smssh-plugin/")


def test_one_connection_serves_one_call_after_another(api: Api) -> None:
    session = AwsSession()
    for _ in range(3):
        session.call("ssm", "list_tags_for_resource")
    assert api.connections == 1


def test_a_kept_connection_that_was_closed_meanwhile_is_replaced(api: Api, pauses: list[float]) -> None:
    session = AwsSession()
    api.answers = [(200, {}), hang_up]
    session.call("ssm", "list_tags_for_resource")
    assert session.call("ssm", "list_tags_for_resource") == {}
    assert (api.connections, len(api.asked), pauses) == (2, 3, [])


def test_a_connection_that_was_idle_for_long_is_not_trusted(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a laptop's sleep nobody answers on it, and nobody says so."""
    session = AwsSession()
    session.call("ssm", "list_tags_for_resource")
    monkeypatch.setattr(sessions, "IDLE_SECONDS", -1.0)
    session.call("ssm", "list_tags_for_resource")
    assert api.connections == 2


def test_many_threads_share_a_session(api: Api) -> None:
    session, done = AwsSession(), []
    threads = [
        threading.Thread(target=lambda: done.append(session.call("ssm", "list_tags_for_resource")))
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert done == [{}] * 20


@pytest.mark.parametrize(
    "trouble",
    [
        THROTTLED,
        (400, {"__type": "com.amazonaws#TooManyRequestsException"}),
        (503, b"<html>"),
        (500, {"__type": "InternalServerError"}),
        hang_up,
    ],
)
def test_what_may_pass_is_tried_again_with_jitter(api: Api, pauses: list[float], trouble: Any) -> None:
    api.answers = [trouble, trouble, (200, {"a": 1})]
    random.seed(1)
    assert AwsSession().call("sagemaker", "describe_training_job", TrainingJobName="j") == {"a": 1}
    assert len(api.asked) == 3
    assert len(pauses) == 2
    assert len(set(pauses)) == 2
    assert all(0 <= pause <= 4 for pause in pauses)


def test_throttling_that_does_not_end_is_an_error_after_four_attempts(api: Api, pauses: list[float]) -> None:
    api.answers = [THROTTLED] * 9
    with pytest.raises(ServiceRefused, match="Rate exceeded") as caught:
        AwsSession().call("ssm", "start_session", Target="mi-1")
    assert caught.value.code == "ThrottlingException"
    assert len(api.asked) == 4
    assert len(pauses) == 3


def test_the_number_of_attempts_can_be_set(
    api: Api, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    api.answers = [THROTTLED] * 9
    with pytest.raises(ServiceRefused):
        AwsSession().call("ssm", "start_session", Target="mi-1")
    assert len(api.asked) == 2
    assert len(pauses) == 1


@pytest.mark.parametrize("odd", ["\u00b2", "\u0662", "9" * 5000, "-1", "many"])
def test_an_odd_number_of_attempts_is_the_usual_one(
    api: Api, pauses: list[float], monkeypatch: pytest.MonkeyPatch, odd: str
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", odd)
    api.answers = [THROTTLED] * 9
    with pytest.raises(ServiceRefused):
        AwsSession().call("ssm", "start_session", Target="mi-1")
    assert len(api.asked) == 4
    assert len(pauses) == 3


def test_what_will_not_pass_is_not_tried_again(api: Api) -> None:
    api.answers = [(400, {"__type": "ValidationException", "Message": "no such job"})]
    with pytest.raises(ServiceRefused, match=r"DescribeTrainingJob: no such job \(ValidationException\)"):
        AwsSession().call("sagemaker", "describe_training_job", TrainingJobName="j")
    assert len(api.asked) == 1


DENIED = (
    "User: arn:aws:sts::1:assumed-role/Dev/me is not authorized to perform: ssm:StartSession on resource: "
)
DENIED += "arn:aws:ssm:eu-west-1::document/AWS-StartSSHSession because no identity-based policy allows it"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (
            DENIED,
            "ask for the permission ssm:StartSession on arn:aws:ssm:eu-west-1::document/AWS-StartSSHSession",
        ),
        ("no", "ask for the permission ssm:StartSession"),
        (DENIED.replace("because no identity-based policy allows it", "with an explicit deny"), "SSHOwner"),
    ],
)
def test_a_refusal_names_the_permission(api: Api, text: str, hint: str) -> None:
    api.answers = [(400, {"__type": "AccessDeniedException", "Message": text})]
    with pytest.raises(SmsshError, match="access denied: StartSession") as caught:
        AwsSession().call("ssm", "start_session", Target="mi-1")
    assert hint in str(caught.value.hint)
    assert caught.value.status is ExitStatus.REFUSED


@pytest.mark.parametrize("minutes", [0, -23, 23])
def test_credentials_that_ended_are_told_from_a_wrong_clock(api: Api, minutes: int) -> None:
    def expired(handler: BaseHTTPRequestHandler) -> None:
        body = b'{"__type": "ExpiredTokenException", "message": "The security token is expired"}'
        handler.send_response_only(400)
        handler.send_header("Date", email.utils.formatdate(time.time() + 60 * minutes, usegmt=True))
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    api.answers = [expired]
    with pytest.raises(SmsshError, match="not valid") as caught:
        AwsSession().call("ssm", "start_session", Target="mi-1")
    assert caught.value.status is ExitStatus.REFUSED
    expected = {0: "aws sso login", 23: "23 min behind", -23: "23 min ahead"}
    assert expected[minutes] in str(caught.value.hint)


def test_without_credentials_nothing_is_sent(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(SmsshError, match="no AWS credentials were found"):
        AwsSession().call("ssm", "start_session", Target="mi-1")
    assert not api.asked


def test_an_endpoint_that_is_not_there_is_named(
    pauses: list[float], api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    with pytest.raises(SmsshError, match=f"cannot be reached: 127.0.0.1:{port}: .*refused") as caught:
        AwsSession().call("ssm", "start_session", Target="mi-1")
    assert "eu-west-1, from AWS_REGION" in str(caught.value.hint)
    assert caught.value.status is ExitStatus.UNREACHABLE
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://no-such-host.invalid")
    with pytest.raises(SmsshError, match=r"no-such-host\.invalid"):
        AwsSession().call("ssm", "start_session", Target="mi-1")


def test_pages_are_followed_to_the_end(api: Api) -> None:
    api.answers = [(200, {"NextToken": "2", "x": 1}), (200, {"x": 2})]
    assert [page["x"] for page in AwsSession().pages("ssm", "describe_instance_information")] == [1, 2]
    assert api.asked[1][1] == {"NextToken": "2"}


def test_certificates_are_checked_and_a_bundle_of_ones_own_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, tls = certificate(tmp_path, "localhost")
    service = Api(tls)
    try:
        for name, value in {
            "AWS_ENDPOINT_URL": service.url,
            "AWS_REGION": "eu-west-1",
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_MAX_ATTEMPTS": "1",
        }.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SmsshError, match=r"certificate of localhost is not trusted.*AWS_CA_BUNDLE"):
            AwsSession().call("ssm", "start_session", Target="mi-1")
        for name in ("REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE"):
            monkeypatch.setenv(name, str(path))
            assert AwsSession().call("ssm", "start_session", Target="mi-1") == {}
            monkeypatch.delenv(name)
        (tmp_path / ".aws").mkdir()
        (tmp_path / ".aws" / "config").write_text(f"[default]\nca_bundle = {path}\n")
        assert AwsSession().call("ssm", "start_session", Target="mi-1") == {}
        monkeypatch.setenv("AWS_CA_BUNDLE", "/nonexistent.pem")
        with pytest.raises(SmsshError, match=r"/nonexistent\.pem cannot be used"):
            AwsSession().call("ssm", "start_session", Target="mi-1")
    finally:
        service.close()


def test_the_way_through_a_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, tls = certificate(tmp_path, "ssm.eu-west-1.amazonaws.com")
    service = Api(tls)
    proxy = Proxy(service.port)
    try:
        for name, value in {
            "HTTPS_PROXY": f"http://me:p%40ss@127.0.0.1:{proxy.port}",
            "AWS_CA_BUNDLE": str(path),
            "AWS_REGION": "eu-west-1",
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
        }.items():
            monkeypatch.setenv(name, value)
        assert AwsSession().call("ssm", "start_session", Target="mi-1") == {}
        assert proxy.heads[0].startswith("CONNECT ssm.eu-west-1.amazonaws.com:443 HTTP/1.1\r\n")
        assert "Proxy-Authorization: Basic bWU6cEBzcw==" in proxy.heads[0]
    finally:
        proxy.close()
        service.close()


def test_no_proxy_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "amazonaws.com,127.0.0.1:4580")
    assert proxy_of("ssm.eu-west-1.amazonaws.com", 443, secure=True) is None
    assert proxy_of("127.0.0.1", 4580, secure=True) is None
    assert proxy_of("elsewhere.example", 443, secure=True) == "http://proxy:3128"
    assert proxy_of("elsewhere.example", 80, secure=False) is None


def test_a_proxy_that_refuses_is_named(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = Proxy(api.port, refuses=True)
    try:
        monkeypatch.delenv("AWS_ENDPOINT_URL")
        for address, words in {
            f"http://me:secret@127.0.0.1:{proxy.port}": f"proxy 127.0.0.1:{proxy.port} does not connect.*407",
            "socks5://me:secret@127.0.0.1:1": "only http:// and https:// proxies work",
            # It takes HTTP.
            f"https://me:secret@127.0.0.1:{api.port}": "does not speak TLS .*begins with http://",
            # A password with a slash, as it was typed: what is before it looks like a port.
            "http://me:secret/1@127.0.0.1:3128": "percent-encode the user name",
            "http://me:1?secret@127.0.0.1:3128": "percent-encode the user name",
        }.items():
            monkeypatch.setenv("HTTPS_PROXY", address)
            with pytest.raises(SmsshError, match=words) as caught:
                AwsSession().call("ssm", "start_session", Target="mi-1")
            assert "secret" not in str(caught.value)
            assert "me:" not in str(caught.value)
        assert len(proxy.heads) == 1  # what another attempt does not help against has none
    finally:
        proxy.close()


@pytest.mark.needs("IPv6")
def test_ipv6(monkeypatch: pytest.MonkeyPatch, api: Api) -> None:
    service = Api(address="::1")
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL", service.url)
        assert AwsSession().call("ssm", "start_session", Target="mi-1") == {}
        assert service.headers[0]["Host"] == f"[::1]:{service.port}"
    finally:
        service.close()


def test_an_object_of_s3(api: Api) -> None:
    api.answers = [
        (200, b"content"),
        (404, b"<Error><Code>NoSuchKey</Code><Message>gone</Message></Error>"),
        (403, b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"),
        (404, b"<Error><Code>NoSuchBucket</Code><Message>no bucket</Message></Error>"),
    ]
    session = AwsSession()
    assert session.get_object("bucket.x", "a b/c+d.json") == b"content"
    assert api.paths[0] == "/bucket.x/a%20b/c%2Bd.json"
    assert session.get_object("bucket", "gone", "123456789012") is None
    assert api.headers[1]["x-amz-expected-bucket-owner"] == "123456789012"
    assert "x-amz-expected-bucket-owner" in api.headers[1]["Authorization"]  # signed, too
    with pytest.raises(SmsshError, match="access denied: GetObject") as caught:
        session.get_object("bucket", "secret")
    assert caught.value.hint == "ask for the permission s3:GetObject"
    with pytest.raises(ServiceRefused, match="no bucket"):
        session.get_object("nobucket", "x")


def test_keys_of_a_file_are_read_again_when_the_service_takes_them_no_more(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    stored = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(stored))
    stored.write_text("[default]\naws_access_key_id = AKIAOLD\naws_secret_access_key = x\n")
    expired = (400, {"__type": "ExpiredTokenException", "message": "expired"})
    session = AwsSession()
    api.answers = [expired]
    with pytest.raises(SmsshError, match="not valid"):
        session.call("ssm", "start_session", Target="mi-1")
    assert len(api.asked) == 1  # the same keys are not sent again
    stored.write_text("[default]\naws_access_key_id = AKIANEW\naws_secret_access_key = x\n")
    api.answers = [expired, (200, {"SessionId": "s"})]
    assert session.call("ssm", "start_session", Target="mi-1") == {"SessionId": "s"}
    assert "Credential=AKIANEW/" in api.headers[-1]["Authorization"]
