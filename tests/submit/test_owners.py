"""The owner of a job's nodes where nobody names one: who submits, or an error before anything is sent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from smssh_plugin import SmsshError, SSHOptions, with_ssh
from smssh_plugin.cli import main
from smssh_plugin.errors import ExitStatus
from smssh_plugin.setting_values import OWNER_SCHEMES
from smssh_plugin.setup.owners import SCHEMES, owner_scheme
from smssh_plugin.submit import account

from .conftest import SDK, steps_of
from .support import uri_in

if TYPE_CHECKING:
    from pathlib import Path

    import boto3

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:Running within a PipelineSession"),
]


@pytest.fixture
def caller(boto_session: boto3.Session) -> str:
    return str(boto_session.client("sts").get_caller_identity()["UserId"])


def step_of(sdk: SDK, **asked: Any) -> Any:
    session = sdk.session()
    step = with_ssh(sdk.bare_processing(session), **asked)
    return steps_of(sdk.pipeline(step, session=session))["Bare"]


def bundled(sdk: SDK, boto_session: boto3.Session, **asked: Any) -> Any:
    """The owner in the bundle of a step."""
    bucket, _, key = uri_in(step_of(sdk, **asked)).removeprefix("s3://").partition("/")
    body = boto_session.client("s3").get_object(Bucket=bucket, Key=f"{key}options.json")["Body"].read()
    return json.loads(body).get("owner")


def test_the_schemes_are_those_of_the_policies() -> None:
    assert set(OWNER_SCHEMES) == set(SCHEMES)
    assert owner_scheme("caller").to_set == "SMSSH_OWNER_SCHEME=caller"


def test_without_a_scheme_nobody_is_asked(
    sdk: SDK, boto_session: boto3.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smssh_plugin.submit.owners.user_id_of", None)
    assert bundled(sdk, boto_session) is None


def test_the_caller_is_the_owner_of_what_it_submits(
    sdk: SDK, boto_session: boto3.Session, caller: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bundled(sdk, boto_session, owner_scheme="caller") == caller
    assert (
        step_of(sdk, owner_scheme="caller", launcher="baked")["Arguments"]["Environment"]["SMSSH_OWNER"]
        == caller
    )
    monkeypatch.setenv("SMSSH_OWNER_SCHEME", "Caller")
    assert bundled(sdk, boto_session) == caller
    # Who is named goes first.
    assert bundled(sdk, boto_session, owner="ann") == "ann"
    monkeypatch.setenv("SMSSH_OWNER", "bob")
    assert bundled(sdk, boto_session) == "bob"


def test_a_bundle_that_is_built_by_hand_has_its_owner(
    caller: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bundle", "build", "-o", "owner_scheme=caller", "--to", str(tmp_path)]) == 0
    (built,) = tmp_path.iterdir()
    assert json.loads((built / "options.json").read_text())["owner"] == caller
    assert main(["bundle", "build", "-o", "owner_scheme=team", "--to", str(tmp_path)]) == ExitStatus.USAGE
    assert "error: the owner scheme is 'team', and no owner is named" in capsys.readouterr().err


def test_a_transform_step_has_the_owner_of_its_model(
    sdk: SDK, caller: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundle is the model's, and says it; a variable is for another owner only."""
    from .test_step_options import scored

    monkeypatch.setenv("SMSSH_OWNER_SCHEME", "caller")
    assert scored(sdk, SSHOptions()) == {}
    assert scored(sdk, SSHOptions(), owner="ann") == {"SMSSH_OWNER": "ann"}
    assert scored(sdk, SSHOptions(owner="ann")) == {}
    assert scored(sdk, SSHOptions(owner="ann"), owner_scheme="caller") == {"SMSSH_OWNER": caller}


@pytest.mark.parametrize("scheme", ["team", "session-tag", "source-identity"])
@pytest.mark.parametrize("asked", [{}, {"launcher": "baked"}], ids=["bundle", "baked"])
def test_a_request_without_an_owner_is_refused_where_its_job_would_be(
    sdk: SDK, boto_session: boto3.Session, scheme: str, asked: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    message = f"the owner scheme is {scheme!r}, and no owner is named: IAM would refuse the job a node"
    for _ in range(2):
        with pytest.raises(SmsshError) as caught:
            step_of(sdk, owner_scheme=scheme, **asked)
        assert caught.value.message == message
        assert caught.value.status is ExitStatus.USAGE
        assert "SMSSH_OWNER" in (caught.value.hint or "")
    monkeypatch.setenv("SMSSH_OWNER_SCHEME", scheme)
    with pytest.raises(SmsshError, match=f"^the owner scheme is '{scheme}'"):
        step_of(sdk, **asked)
    step_of(sdk, transport="none", **asked)  # has no node
    step_of(sdk, owner="ann", **asked)


def test_what_is_not_a_scheme_is_named(sdk: SDK, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        SmsshError, match="SSHOptions: owner_scheme is not usable: 'everybody' is not one of team"
    ):
        SSHOptions(owner_scheme="everybody")
    monkeypatch.setenv("SMSSH_OWNER_SCHEME", "everybody")
    with pytest.raises(SmsshError, match="SMSSH_OWNER_SCHEME is not usable: 'everybody' is not one of team"):
        step_of(sdk)


def test_a_caller_that_is_not_known_or_no_owner_can_be(sdk: SDK, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(account, "_known", {})
        patch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:9")
        with pytest.raises(SmsshError, match="cannot find out who submits, which owns the job") as caught:
            step_of(sdk, owner_scheme="caller", bundle_prefix="s3://tests-bucket/x?owner=123456789012")
        assert caught.value.hint is not None
        assert "SMSSH_OWNER" in caught.value.hint
    monkeypatch.setattr("smssh_plugin.submit.owners.user_id_of", lambda _: "AROAX:ann,bob")
    with pytest.raises(SmsshError, match="the user id of the caller is not usable: no tag can hold ','"):
        step_of(sdk, owner_scheme="caller")


def test_a_bundle_that_was_built_before_has_its_own_owner(sdk: SDK, monkeypatch: pytest.MonkeyPatch) -> None:
    built = uri_in(step_of(sdk, owner="ann"))
    monkeypatch.setenv("SMSSH_OWNER_SCHEME", "caller")
    assert uri_in(step_of(sdk, bundle=built)) == built
