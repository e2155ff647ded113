"""What calls of AWS on a laptop and in a container have in common."""

import email.utils
import time

import pytest
from botocore.retries import standard

from smssh_plugin.aws.json_client import (
    THROTTLED,
    denied,
    error_of,
    json_request,
    keys_of,
    parsed,
    skew,
    time_of,
)


def test_what_botocore_takes_for_throttling_is_throttling_here() -> None:
    assert set(standard.ThrottledRetryableChecker._THROTTLED_ERROR_CODES) <= THROTTLED


@pytest.mark.parametrize(
    "text", ["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.678+00:00", "2026-01-02T03:04:05UTC"]
)
def test_a_time_of_aws(text: str) -> None:
    assert time_of(text) == 1767323045.0


@pytest.mark.parametrize(
    "text", ["", "soon", "2026-01-02", "2026-01-02T03:04:05", "2026-01-02T03:04:05+01:00"]
)
def test_another_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="^" + text.replace("+", "[+]")):
        time_of(text)


def test_the_keys_in_variables() -> None:
    both = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}
    assert keys_of({}) is keys_of({**both, "AWS_SECRET_ACCESS_KEY": ""}) is None
    assert keys_of(both) == ("id", "secret", None)
    assert keys_of({**both, "AWS_SECURITY_TOKEN": "old"}) == ("id", "secret", "old")
    assert keys_of({**both, "AWS_SECURITY_TOKEN": "old", "AWS_SESSION_TOKEN": "new"}) == (
        "id",
        "secret",
        "new",
    )


def test_a_request_is_json_1_1() -> None:
    headers, body = json_request("AmazonSSM", "DeleteActivation", {"ActivationId": "a"})
    assert headers == {
        "Content-Type": "application/x-amz-json-1.1",
        "X-Amz-Target": "AmazonSSM.DeleteActivation",
    }
    assert body == b'{"ActivationId":"a"}'


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b'{"__type": "com.amazon#ThrottlingException", "message": "no"}', ("ThrottlingException", "no")),
        (b'{"__type": "NotFound:http://internal/", "Message": "gone"}', ("NotFound", "gone")),
        (b'{"code": "Odd"}', ("Odd", "")),
        (b"", ("HTTP 403", "")),
        (b"<html>", ("HTTP 403", "")),
        (b"[1]", ("HTTP 403", "")),
    ],
)
def test_the_code_of_an_error(data: bytes, error: tuple[str, str]) -> None:
    assert error_of(403, parsed(data)) == error


@pytest.mark.parametrize(
    ("message", "found"),
    [
        ("User: x is not authorized to perform: ssm:StartSession", ("ssm:StartSession", "")),
        (
            "is not authorized to perform: ssm:X on resource: arn:aws:ssm:us-east-1:1:y because no policy",
            ("ssm:X", "arn:aws:ssm:us-east-1:1:y"),
        ),
        (
            'is not authorized to perform s3:PutObject on resource: "arn:aws:s3:::b/k"',
            ("s3:PutObject", "arn:aws:s3:::b/k"),
        ),
        ("Access Denied", None),
    ],
)
def test_what_a_denial_is_about(message: str, found: tuple[str, str] | None) -> None:
    assert denied(message) == found


@pytest.mark.parametrize("seconds", [-600, 0, 600])
def test_how_far_the_clock_is_ahead(seconds: int) -> None:
    date = email.utils.formatdate(time.time() - seconds, usegmt=True)
    assert skew(date) == pytest.approx(seconds, abs=5)


@pytest.mark.parametrize("date", ["", "yesterday"])
def test_a_service_that_does_not_say_the_time_tells_nothing(date: str) -> None:
    assert skew(date) == 0.0
