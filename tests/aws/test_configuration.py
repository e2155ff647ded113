"""Profiles, regions, endpoints and credentials are what botocore makes of the same files and variables."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from botocore.loaders import create_loader
from botocore.session import Session

from smssh_plugin.aws.session import AwsSession
from smssh_plugin.errors import ExitStatus, SmsshError

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = """
[default]
region = eu-west-1
[profile work]
region = ap-south-1
services = mine
endpoint_url = https://profile.example
ca_bundle = /etc/proxy/ca.pem
[services mine]
ssm =
  endpoint_url = https://ssm.example/x
[profile "with space"]
region = sa-east-1
[profile static]
region = us-east-1
aws_access_key_id = AKIACONFIG
aws_secret_access_key = config
[profile both]
region = us-east-1
aws_access_key_id = AKIACONFIG
aws_secret_access_key = config
[profile process]
region = us-east-1
credential_process = echo '{"Version": 1, "AccessKeyId": "AKIAPROCESS", "SecretAccessKey": "process"}'
[profile sso]
region = us-east-1
sso_session = corp
sso_account_id = 123456789012
sso_role_name = Engineer
[sso-session corp]
sso_start_url = https://corp.awsapps.com/start
sso_region = us-east-1
[profile old-sso]
region = us-east-1
sso_start_url = https://corp.awsapps.com/start
sso_region = us-east-1
sso_account_id = 123456789012
sso_role_name = Engineer
[profile role]
region = us-east-1
role_arn = arn:aws:iam::123456789012:role/Debug
source_profile = static
external_id = x
duration_seconds = 3600
"""
CREDENTIALS = """
[default]
aws_access_key_id = AKIADEFAULT
aws_secret_access_key = default
[both]
aws_access_key_id = AKIASTORED
aws_secret_access_key = stored
aws_session_token = token
"""


LOADER = create_loader()
"""Keeps what it has read of botocore's models, which is what a client costs."""


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> Path:
    folder = tmp_path / ".aws"
    folder.mkdir()
    (folder / "config").write_text(CONFIG)
    (folder / "credentials").write_text(CREDENTIALS)
    return folder


@pytest.mark.parametrize("profile", [None, "default", "work", "with space", "static", "both", "process"])
@pytest.mark.parametrize("by_variable", [False, True])
@pytest.mark.parametrize("with_keys", [False, True])
def test_what_botocore_finds_is_found(
    profile: str | None, by_variable: bool, with_keys: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if with_keys:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAVARIABLE")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "variable")
    if by_variable and profile:
        monkeypatch.setenv("AWS_PROFILE", profile)
        profile = None
    theirs, ours = Session(profile=profile), AwsSession(profile=profile)
    assert ours.region == theirs.get_config_variable("region")
    found = theirs.get_credentials()
    frozen = found and found.get_frozen_credentials()
    keys = ours.credentials()
    assert (keys and (keys.access_key, keys.secret_key, keys.token)) == (frozen and tuple(frozen)[:3])
    ca = theirs.get_config_variable("ca_bundle")
    assert ours.ca_bundle == ca


@pytest.mark.parametrize("profile", ["default", "work"])
@pytest.mark.parametrize("service", ["ssm", "sagemaker", "logs"])
@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"AWS_ENDPOINT_URL": "https://all.example"},
        {"AWS_ENDPOINT_URL": "https://all.example", "AWS_ENDPOINT_URL_SSM": "http://one.example:8"},
        {"AWS_ENDPOINT_URL_CLOUDWATCH_LOGS": "https://logs.example"},
        {"AWS_ENDPOINT_URL": "https://all.example", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
        {"AWS_USE_FIPS_ENDPOINT": "true", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
        {"AWS_USE_DUALSTACK_ENDPOINT": "true", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
    ],
)
def test_endpoints_are_botocores(
    profile: str, service: str, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", profile)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    region = "us-east-1"  # where all variants exist
    session = Session()
    session.register_component("data_loader", LOADER)
    theirs = session.create_client(service, region, aws_access_key_id="x", aws_secret_access_key="x")
    assert AwsSession(region).endpoint(service) == theirs.meta.endpoint_url


def test_the_endpoint_of_every_region_is_botocores() -> None:
    session = Session()
    loader = session.get_component("data_loader")
    regions = {
        region
        for partition in loader.load_data("partitions")["partitions"]
        for region in partition["regions"]
    }
    regions = {region for region in regions if not region.endswith("-global") and region != "aws-global"}
    assert len(regions) > 30
    resolver = session._get_internal_component("endpoint_resolver")
    for region in [*sorted(regions), "us-future-9", "us-iso-future-9"]:
        for service, prefix in (("ssm", "ssm"), ("sagemaker", "api.sagemaker")):
            theirs = resolver.construct_endpoint(prefix, region)
            assert AwsSession(region).endpoint(service) == f"https://{theirs['hostname']}", region


def test_what_is_wrong_in_the_configuration_is_said(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SmsshError, match="no profile 'nonesuch'") as caught:
        _ = AwsSession(profile="nonesuch").region
    assert caught.value.status is ExitStatus.USAGE
    with pytest.raises(SmsshError, match="'us east' is not an AWS region"):
        AwsSession("us east").endpoint("ssm")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost:8000")
    with pytest.raises(SmsshError, match="invalid endpoint") as caught:
        AwsSession("us-east-1").endpoint("ssm")
    assert "AWS_ENDPOINT_URL" in str(caught.value.hint)
    (files / "config").write_text("no section = here\n")
    with pytest.raises(SmsshError, match="cannot read the AWS configuration"):
        _ = AwsSession().region


def test_the_region_says_where_it_is_from(monkeypatch: pytest.MonkeyPatch) -> None:
    assert AwsSession(profile="work").region_origin == "profile work"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    assert AwsSession().region_origin == "AWS_DEFAULT_REGION"
    monkeypatch.setenv("AWS_REGION", "eu-south-1")
    assert (AwsSession().region, AwsSession().region_origin) == ("eu-south-1", "AWS_REGION")
    assert AwsSession("x-1").region_origin == "--region"


def cache(folder: Path, key: str, expires: float) -> None:
    (folder / "cli" / "cache").mkdir(parents=True, exist_ok=True)
    text = {
        "Credentials": {
            "AccessKeyId": "ASIACACHED",
            "SecretAccessKey": "cached",
            "SessionToken": "token",
            "Expiration": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(expires)),
        }
    }
    (folder / "cli" / "cache" / f"{key}.json").write_text(json.dumps(text))


@pytest.mark.parametrize("profile", ["sso", "old-sso", "role"])
def test_a_roles_credentials_are_taken_from_the_cache_of_the_aws_cli(profile: str, files: Path) -> None:
    provider_key = botocores_key(profile)
    cache(files, provider_key, time.time() + 3600)
    keys = AwsSession(profile=profile).credentials()
    assert keys is not None
    assert (keys.access_key, keys.secret_key, keys.token) == ("ASIACACHED", "cached", "token")


def test_credentials_in_the_cache_that_are_about_to_end_are_not_taken(files: Path) -> None:
    cache(files, botocores_key("sso"), time.time() + 60)
    with pytest.raises(SmsshError, match="profile 'sso' cannot be read") as caught:
        AwsSession(profile="sso").credentials()
    assert "aws sso login" in str(caught.value.hint)
    assert caught.value.status is ExitStatus.REFUSED


def botocores_key(profile: str) -> str:
    """The name of the cache's entry, as botocore makes it."""
    from botocore.credentials import AssumeRoleCredentialFetcher, Credentials, SSOCredentialFetcher

    configured = Session(profile=profile).get_scoped_config()
    if "role_arn" in configured:
        return AssumeRoleCredentialFetcher(
            None,
            Credentials("a", "b"),
            configured["role_arn"],
            extra_args={"ExternalId": "x", "DurationSeconds": 3600},
            cache={},
        )._cache_key
    return SSOCredentialFetcher(
        configured.get("sso_start_url"),
        "us-east-1",
        "Engineer",
        "123456789012",
        None,
        cache={},
        sso_session_name=configured.get("sso_session"),
    )._cache_key


def test_simple_credentials_need_nothing_of_botocore() -> None:
    program = (
        "import sys; from smssh_plugin.aws.session import AwsSession; s = AwsSession(); s.credentials();"
        "s.endpoint('ssm');"
        "print(sorted(m for m in sys.modules if m.split('.')[0] in ('botocore', 'boto3', 'urllib3')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
