"""A bundle that somebody named: there, whole, and made for what is asked, or it is not used."""

from __future__ import annotations

import hashlib
import json
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from smssh_plugin import SmsshError, SSHOptions
from smssh_plugin.errors import ExitStatus
from smssh_plugin.manifest import MANIFEST, Manifest
from smssh_plugin.submit.bundle import check
from smssh_plugin.submit.bundle.build import build
from smssh_plugin.submit.bundle.model import sealed
from smssh_plugin.submit.bundle.publish import publish
from smssh_plugin.submit.bundle.store import Destination, Finding, Prefix, examine
from smssh_plugin.submit.bundle.upload import upload
from smssh_plugin.submit.options import SmsshWarning
from tests.submit.conftest import BUCKET, KEY

if TYPE_CHECKING:
    import boto3

    from smssh_plugin.submit.bundle.model import Bundle

OTHER_KEY = KEY.replace("tests", "other").replace("AAAAIO7", "AAAAIO8")
MADE_FOR = SSHOptions(hold="failure", hold_seconds="20m", owner="ann", extra={"mine": [1]})


@pytest.fixture(autouse=True)
def _nothing_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "_checked", {})


def stored(boto_session: boto3.Session, bundle: Bundle, prefix: str = "given") -> str:
    return upload(bundle, Destination(boto_session.client("s3"), BUCKET, prefix))


@pytest.fixture
def address(boto_session: boto3.Session) -> str:
    return stored(boto_session, build(MADE_FOR, [KEY, OTHER_KEY]))


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"hold": ("failure",)},
        {"hold_seconds": 1200, "owner": "ann"},
        {"authorized_keys": OTHER_KEY},
        {"extra": {"mine": [1]}},
    ],
)
def test_it_is_used_as_it_is(boto_session: boto3.Session, address: str, asked: dict[str, Any]) -> None:
    puts: list[Any] = []
    boto_session.events.register("before-call.s3.PutObject", lambda **_: puts.append(1), unique_id="puts")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert publish(SSHOptions(bundle=address.rstrip("/"), **asked), boto_session) == address
    finally:
        boto_session.events.unregister("before-call.s3.PutObject", unique_id="puts")
    assert not puts


def test_it_is_asked_once(boto_session: boto3.Session, address: str) -> None:
    options = SSHOptions(bundle=address)
    publish(options, boto_session)
    gets: list[Any] = []
    boto_session.events.register("before-call.s3", lambda **_: gets.append(1), unique_id="gets")
    try:
        publish(options, boto_session)
    finally:
        boto_session.events.unregister("before-call.s3", unique_id="gets")
    assert not gets


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"hold": ("failure", "end")}, "hold is 'failure' there and 'failure,end' here"),
        ({"hold_seconds": 60}, "hold_seconds is 1200 there and 60 here"),
        ({"transport": "none"}, "transport is 'ssm' there and 'none' here"),
        ({"owner": "bob"}, "owner is 'ann' there and 'bob' here"),
        ({"extra": {"mine": [2]}}, r"mine is \[1\] there and \[2\] here"),
        ({"authorized_keys": KEY.replace("AAAAIO7", "AAAAIO9")}, "1 of the authorized_keys may not log in"),
        ({"wheels": "3.11"}, "it has no wheels for Python 3.11"),
        ({"agent": "bundle"}, "agent is 'auto' there and 'bundle' here; it has no agent for x86_64"),
        ({"plugins": "mine"}, r"plugins is None there and \['mine'\] here"),
        ({"notify": "https://hooks.example.com/secret"}, "notify is another there"),
        ({"agent_version": "3.3.1.0"}, "agent_version is '' there and '3.3.1.0' here"),
    ],
)
def test_made_for_something_else(
    boto_session: boto3.Session, address: str, asked: dict[str, Any], problem: str
) -> None:
    with pytest.raises(
        SmsshError, match=f"can't be used: it was made for other options: {problem}"
    ) as caught:
        publish(SSHOptions(bundle=address, **asked), boto_session)
    assert caught.value.reference == "bundle-not-usable"
    assert caught.value.status is ExitStatus.USAGE
    assert "secret" not in str(caught.value)
    publish(SSHOptions(bundle=address), boto_session)
    with pytest.raises(SmsshError):  # what was found for other options says nothing for these
        publish(SSHOptions(bundle=address, **asked), boto_session)


def test_the_owner_of_this_process_is_only_a_default(
    boto_session: boto3.Session, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMSSH_OWNER", "somebody")
    assert publish(SSHOptions(bundle=address), boto_session) == address


def test_a_bundle_that_does_not_let_you_in(boto_session: boto3.Session) -> None:
    address = stored(boto_session, build(MADE_FOR, [OTHER_KEY]))
    with pytest.warns(SmsshWarning, match="your own key is not among those of s3://"):
        publish(SSHOptions(bundle=address), boto_session)


def test_one_that_is_not_there(boto_session: boto3.Session) -> None:
    with pytest.raises(SmsshError, match=r"smssh-manifest\.json cannot be read: .*NoSuchKey") as caught:
        publish(SSHOptions(bundle=f"s3://{BUCKET}/given/{'0' * 64}"), boto_session)
    assert caught.value.status is ExitStatus.NOT_FOUND


def test_one_that_is_not_complete(boto_session: boto3.Session, s3: Any) -> None:
    bundle = build(MADE_FOR, [KEY])
    address = stored(boto_session, bundle, "cut")
    s3.delete_object(Bucket=BUCKET, Key=f"cut/{bundle.digest}/run.sh")
    with pytest.raises(SmsshError, match=r"can't be used: run\.sh is missing there"):
        publish(SSHOptions(bundle=address), boto_session)


def test_one_with_something_else_in_it(boto_session: boto3.Session, s3: Any) -> None:
    """It would be mounted, and its folder is on PYTHONPATH."""
    bundle = build(MADE_FOR, [KEY])
    address = stored(boto_session, bundle, "more")
    s3.put_object(Bucket=BUCKET, Key=f"more/{bundle.digest}/json.py", Body=b"")
    with pytest.raises(SmsshError, match=r"can't be used: json\.py is there and not in its smssh-manifest"):
        publish(SSHOptions(bundle=address), boto_session)


def test_one_that_may_not_be_listed(boto_session: boto3.Session, address: str) -> None:
    def refuse(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "AccessDenied"}}, "ListObjectsV2")

    boto_session.events.register("before-call.s3.ListObjectsV2", refuse, unique_id="no-list")
    try:
        found = examine(Prefix(address, boto_session.client("s3")))
        assert (found.listed, found.wrong) == (False, [])
        assert publish(SSHOptions(bundle=address), boto_session) == address
    finally:
        boto_session.events.unregister("before-call.s3.ListObjectsV2", unique_id="no-list")


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        (MANIFEST, b"{}", "is not the one that it is named after"),
        ("options.json", b"{}", r"can't be used: the bundle is damaged: options\.json is not what"),
    ],
)
def test_one_that_was_changed(
    boto_session: boto3.Session, s3: Any, name: str, data: bytes, problem: str
) -> None:
    bundle = build(MADE_FOR, [KEY])
    address = stored(boto_session, bundle, "changed")
    s3.put_object(Bucket=BUCKET, Key=f"changed/{bundle.digest}/{name}", Body=data)
    try:
        with pytest.raises(SmsshError, match=problem):
            publish(SSHOptions(bundle=address), boto_session)
    finally:
        s3.put_object(Bucket=BUCKET, Key=f"changed/{bundle.digest}/{name}", Body=bundle.files[name])


@pytest.mark.parametrize("document", [b"no json", json.dumps({"hold": "never"}).encode()])
def test_one_whose_options_cannot_be_read(boto_session: boto3.Session, document: bytes) -> None:
    files = {name: data for name, data in build(MADE_FOR, [KEY]).files.items() if name != MANIFEST}
    address = stored(boto_session, sealed({**files, "options.json": document}))
    with pytest.raises(
        SmsshError, match=r"can't be used: .*(options\.json cannot be read|hold is not usable)"
    ):
        publish(SSHOptions(bundle=address), boto_session)


# -------------------------------------------------------------------------------- looking at what is stored


def test_what_is_found_at_a_prefix(boto_session: boto3.Session, s3: Any) -> None:
    bundle = build(MADE_FOR, [OTHER_KEY])
    place = Prefix(stored(boto_session, bundle, "look"), s3)
    found = examine(place)
    assert (found.wrong, found.named, found.listed) == ([], True, True)
    assert found.manifest == Manifest.parse(bundle.files[MANIFEST])
    sizes = {name: len(data) for name, data in bundle.files.items()}
    assert {finding.name: finding.size for finding in found.findings} == sizes == place.files()
    key = f"look/{bundle.digest}/"
    s3.put_object(Bucket=BUCKET, Key=key + "run.sh", Body=b"other")
    s3.put_object(Bucket=BUCKET, Key=key + "more/x.py", Body=b"")
    s3.delete_object(Bucket=BUCKET, Key=key + "env.sh")
    assert {finding.name: finding for finding in examine(place).wrong} == {
        "run.sh": Finding("run.sh", "changed", 5),
        "env.sh": Finding("env.sh", "missing"),
        "more/x.py": Finding("more/x.py", "unknown", 0),
    }


def test_what_s3_is_asked_to_compare(boto_session: boto3.Session) -> None:
    from base64 import b64encode

    bundle = build(MADE_FOR, [KEY, OTHER_KEY, KEY.replace("tests", "more")])
    sums: list[str] = []
    client = boto_session.client("s3")
    client.meta.events.register(
        "before-call.s3.PutObject",
        lambda params, **_: sums.append(params["headers"]["x-amz-checksum-sha256"]),
    )
    upload(bundle, Destination(client, BUCKET, "sums"))
    expected = [b64encode(hashlib.sha256(data).digest()).decode() for data in bundle.files.values()]
    assert sorted(sums) == sorted(expected)
