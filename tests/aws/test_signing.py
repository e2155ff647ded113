"""Our signatures are botocore's."""

from __future__ import annotations

import datetime as dt
import time

import pytest
from botocore import auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from hypothesis import given
from hypothesis import strategies as st

from smssh_plugin.aws.signing import host_of, signed

NOW = 1_790_000_000
TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)


def botocores(
    url: str, method: str, headers: dict[str, str], body: bytes, keys: ReadOnlyCredentials, service: str
) -> str:
    kind = auth.S3SigV4Auth if service == "s3" else auth.SigV4Auth
    made = kind(keys, service, "eu-west-1")
    request = AWSRequest(method, url, headers=headers, data=body)
    # As `add_auth` does it, at a time of ours.
    request.context["timestamp"] = dt.datetime.fromtimestamp(NOW, dt.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    made._modify_request_before_signing(request)
    canonical = made.canonical_request(request)
    signature = made.signature(made.string_to_sign(request, canonical), request)
    made._inject_signature_to_request(request, signature)
    return str(request.headers["Authorization"])


def parts(authorization: str) -> list[str]:
    return [part.strip() for part in authorization.replace(",", " ").split()]


@given(
    service=st.sampled_from(["ssm", "sagemaker", "s3"]),
    method=st.sampled_from(["GET", "POST"]),
    path=st.sampled_from(["/", "/v1/data-channel/s-1", "/bucket/a%20key/~x", "/a/b%3Dc"]),
    body=st.binary(max_size=40),
    target=TEXT,
    token=st.none() | st.text("abcDEF/+=", min_size=1),
    host=st.sampled_from(
        ["https://ssm.eu-west-1.amazonaws.com", "http://127.0.0.1:8000", "https://x:443", "http://[::1]:80"]
    ),
)
def test_a_request_is_signed_as_botocore_does_it(
    service: str, method: str, path: str, body: bytes, target: str, token: str | None, host: str
) -> None:
    keys = ReadOnlyCredentials("AKIAEXAMPLE", "wJalrXUtnFEMI/K7MDENG", token)
    headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": f"x{target}x"}
    if service == "s3":
        headers = {
            "X-Amz-Content-SHA256": signed("GET", "http://x", {}, body, keys, "r", "s3")[
                "X-Amz-Content-SHA256"
            ]
        }
    ours = signed(method, host + path, headers, body, keys, "eu-west-1", service, now=NOW)
    assert parts(ours["Authorization"]) == parts(botocores(host + path, method, headers, body, keys, service))
    assert ours.get("X-Amz-Security-Token") == token


def test_a_query_is_signed_in_canonical_form() -> None:
    """`cell-number` ends in `==`, which is sent as it is and signed as %3D%3D."""
    keys = ReadOnlyCredentials("AKIAEXAMPLE", "secret", "token")
    url = "https://ssmmessages.eu-west-1.amazonaws.com/v1/data-channel/s-1?role=publish_subscribe&cell-number=AAE=="
    canonical = url.replace("==", "%3D%3D").replace("role=publish_subscribe&", "") + "&role=publish_subscribe"
    ours = signed("GET", url, {}, b"", keys, "eu-west-1", "ssmmessages", now=NOW)
    assert parts(ours["Authorization"]) == parts(botocores(canonical, "GET", {}, b"", keys, "ssmmessages"))


def test_the_time_is_the_clocks_unless_given() -> None:
    keys = ReadOnlyCredentials("AKIAEXAMPLE", "secret", None)
    stamp = signed("GET", "https://x", {}, b"", keys, "r", "ssm")["X-Amz-Date"]
    assert abs(time.mktime(time.strptime(stamp, "%Y%m%dT%H%M%SZ")) - time.mktime(time.gmtime())) < 60


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://user:pass@Host.example:443/x", "host.example"),
        ("ws://host:80/x", "host"),
        ("wss://[::1]:8443/x", "[::1]:8443"),
        ("http://host:443", "host:443"),
    ],
)
def test_the_host_has_no_user_and_no_port_that_goes_without_saying(url: str, host: str) -> None:
    assert host_of(url) == host
