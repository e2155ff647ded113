"""The services that the client calls, and where they are."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ExitStatus, SmsshError
from .json_client import COMMERCIAL

if TYPE_CHECKING:
    from .profile import Profile

__all__ = ["SERVICES", "Service", "checked", "endpoint", "named_endpoint", "no_region"]


@dataclass(frozen=True)
class Service:
    """A service that speaks JSON 1.1, as botocore's model of it says.

    Attributes:
        host: what stands before `.<region>.<suffix>` in its address.
        target: the prefix in X-Amz-Target; "" for S3, which has no JSON.
        signing: its name in signatures.
        setting: its name in AWS_ENDPOINT_URL_<NAME> and in `services` sections.
    """

    host: str
    target: str
    signing: str
    setting: str


SERVICES = {
    "ssm": Service("ssm", "AmazonSSM", "ssm", "ssm"),
    "sagemaker": Service("api.sagemaker", "SageMaker", "sagemaker", "sagemaker"),
    "kms": Service("kms", "TrentService", "kms", "kms"),
    "logs": Service("logs", "Logs_20140328", "logs", "cloudwatch_logs"),
    "pricing": Service("api.pricing", "AWSPriceListService", "pricing", "pricing"),
    "service-quotas": Service("servicequotas", "ServiceQuotasV20190624", "servicequotas", "service_quotas"),
    "s3": Service("s3", "", "s3", "s3"),
}


def endpoint(service: str, region: str, profile: Profile) -> str:
    """The address of a service in a region: configured, or as botocore's rules have it.

    Raises:
        SmsshError: what is configured is not a URL, or the region is not a name.
    """
    configured = profile.endpoint(SERVICES[service].setting)
    if configured:
        return checked(configured)
    if not re.fullmatch(r"[a-z0-9]{1,63}(-[a-z0-9]{1,63}){1,8}", region):
        raise no_region(region)
    if _variant(profile, "use_fips_endpoint") or _variant(profile, "use_dualstack_endpoint"):
        return _by_botocore(service, region, profile)
    return f"https://{SERVICES[service].host}.{region}.{_suffix(region)}"


def no_region(region: str) -> SmsshError:
    """What to say of a region that is not the name of one."""
    return SmsshError(
        f"{region!r} is not an AWS region",
        hint="use a region such as us-east-1 or eu-west-1",
        reference="no-region",
        status=ExitStatus.USAGE,
        check="laptop.region",
    )


def named_endpoint(service: str, profile: Profile) -> str | None:
    """The address that is configured for this service by its own name; None if no address is.

    Raises:
        SmsshError: what is configured is not an address.
    """
    found = profile.own_endpoint(service)
    return checked(found) if found else None


def checked(configured: str) -> str:
    """An address that is configured, without a slash at its end.

    Raises:
        SmsshError: it is not one.
    """
    if not re.match(r"https?://[^/]", configured):
        raise SmsshError(
            f"invalid endpoint {configured!r}: it starts with neither https:// nor http://",
            hint="see AWS_ENDPOINT_URL and `endpoint_url` in the AWS configuration",
            reference="aws-unusable",
            status=ExitStatus.USAGE,
        )
    return configured.rstrip("/")


def _variant(profile: Profile, name: str) -> bool:
    value = os.environ.get(f"AWS_{name.upper()}") or profile.get(name) or ""
    return value.strip().lower() == "true"


def _by_botocore(service: str, region: str, profile: Profile) -> str:
    """The address of a FIPS or dual-stack endpoint, whose rules have exceptions; botocore carries them."""
    from botocore.config import Config
    from botocore.session import Session

    botocore_session = Session(profile=profile.name if profile.explicit else None)
    config = Config(
        use_fips_endpoint=_variant(profile, "use_fips_endpoint"),
        use_dualstack_endpoint=_variant(profile, "use_dualstack_endpoint"),
    )
    # Keys of nobody: without any, botocore would look for some, as far as to the instance's metadata.
    client = botocore_session.create_client(
        service,
        region_name=region,
        config=config,
        aws_access_key_id="none",
        aws_secret_access_key="none",  # noqa: S106 - not a secret
    )
    return str(client.meta.endpoint_url)


@cache
def _suffix(region: str) -> str:
    """The domain of a region's partition, from the list that botocore carries, without importing it."""
    if COMMERCIAL.fullmatch(region):
        return "amazonaws.com"  # nearly everybody; the rest is worth a look into the list
    from importlib.util import find_spec

    found = find_spec("botocore")
    assert found is not None
    assert found.origin is not None
    listed = json.loads(Path(found.origin).with_name("data").joinpath("partitions.json").read_text("utf-8"))
    partitions = listed["partitions"]
    for partition in partitions:
        if region in partition["regions"] or re.match(partition["regionRegex"], region):
            return str(partition["outputs"]["dnsSuffix"])
    return str(partitions[0]["outputs"]["dnsSuffix"])
