"""Settings of the account and region."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from ..aws.session import ServiceRefused
from ..aws.tier import ADVANCED, TIER
from ..errors import SmsshError
from .checks import Check, Finding, hint, ok, problem, unknown

if TYPE_CHECKING:
    from .case import Case

__all__ = ["CHECKS"]

PREFERENCES = "SSM-SessionManagerRunShell"
"""The session document that has the account's preferences; it is absent until they are saved for the first time."""
SAFE_NODES = 2400
"""Managed nodes of a region; with more, some may drop ("Systems Manager endpoints and quotas")."""
NEAR = 0.8
"""The part of a limit from which on it is worth knowing."""
_NODE_QUOTA = re.compile(
    r"(?:(?:total|maximum) )?(?:number of )?(?:registered |hybrid |hybrid-activated |on-premises )*"
    r"managed (?:nodes|instances)(?: (?:per|in an?) .*)?",
    re.IGNORECASE,
)
ADMINISTRATOR = "an administrator of the account"


def tier(case: Case) -> Finding:
    """The tier of hybrid nodes, which Session Manager needs at `advanced`."""
    setting = case.aws.call("ssm", "get_service_setting", SettingId=TIER)["ServiceSetting"]
    value, status = str(setting.get("SettingValue")), str(setting.get("Status"))
    region = case.aws.region
    if value != ADVANCED and _native(case):
        return hint(
            f"the tier of hybrid nodes in {region} is {value!r}, which this job, with SageMaker's remote debugging, "
            "does not need to be changed"
        )
    if value != ADVANCED:
        return problem(
            f"the tier of hybrid nodes in {region} is {value!r}: Session Manager enters none of them",
            "the tier makes every hybrid node of the account and region billable, those of others too",
            "training jobs with SageMaker's remote debugging (transport='native') are entered without it",
            fix=f"run `aws ssm update-service-setting --region {region} --setting-id {TIER} "
            f"--setting-value {ADVANCED}`",
            who=ADMINISTRATOR,
            statement={
                "Effect": "Allow",
                "Action": "ssm:UpdateServiceSetting",
                "Resource": str(setting.get("ARN") or "*"),
            },
        )
    if status == "PendingUpdate":
        return hint(
            f"the tier of hybrid nodes in {region} is being changed to 'advanced'", fix="wait some minutes"
        )
    return ok(f"the tier of hybrid nodes in {region} is 'advanced'")


def _native(case: Case) -> bool:
    """Whether a job was named that has no hybrid node."""
    try:
        return case.job_name is not None and case.job().native
    except SmsshError:  # another check's to say
        return False


def nodes(case: Case) -> Finding:
    """How many hybrid nodes are registered, against the quota and what AWS recommends."""
    if _native(case):
        return ok("this job, with SageMaker's remote debugging, registers no hybrid node")
    limit, origin, unread = _quota(case)
    most = SAFE_NODES if limit is None else limit
    count = 0
    for page in case.aws.pages(
        "ssm",
        "describe_instance_information",
        Filters=[{"Key": "ResourceType", "Values": ["ManagedInstance"]}],
        MaxResults=50,
    ):
        count += len(page.get("InstanceInformationList") or ())
        if count > most:
            break
    some = (
        f"{count} hybrid nodes are registered in {case.aws.region}"
        if count <= most
        else (f"more than {most} hybrid nodes are registered in {case.aws.region}")
    )
    if limit is not None and count >= limit:
        return problem(
            f"{some}, and {origin} is {limit}: no host can register",
            fix="remove what ended jobs left behind (`smssh cleanup`), or ask for a higher quota",
            who=ADMINISTRATOR,
            statement={
                "Effect": "Allow",
                "Action": "servicequotas:RequestServiceQuotaIncrease",
                "Resource": "*",
            },
        )
    if count >= most * NEAR:
        what = f"{origin} is {limit}" if limit is not None else f"AWS calls up to {SAFE_NODES} safe"
        return hint(
            f"{some}, and {what}",
            *unread,
            fix="remove what ended jobs left behind (`smssh cleanup`)",
            who=ADMINISTRATOR,
        )
    return ok(some, *unread)


def _quota(case: Case) -> tuple[int | None, str, tuple[str, ...]]:
    """The account's quota of managed nodes and its name, if there is one; and why it could not be read."""
    try:
        for page in case.aws.pages(
            "service-quotas", "list_service_quotas", ServiceCode="ssm", MaxResults=100
        ):
            for each in page.get("Quotas") or ():
                name = str(each.get("QuotaName") or "")
                if _NODE_QUOTA.fullmatch(name) and float(each.get("Value") or 0.0) >= 1.0:
                    return int(float(each["Value"])), f"the quota {name!r} ({each.get('QuotaCode')})", ()
    except SmsshError as error:
        # It is an extra: without it, what AWS recommends counts.
        if error.reference == "access-denied":
            return None, "", ("the quotas are not known: needs servicequotas:ListServiceQuotas",)
        return None, "", (f"the quotas are not known: {error.message}",)
    return None, "", ()


def preferences(case: Case) -> Finding:
    """Session Manager's preferences: what they mean for `smssh shell`, and for SSH."""
    try:
        document = case.aws.call("ssm", "get_document", Name=PREFERENCES)
    except ServiceRefused as error:
        if error.code not in ("InvalidDocument", "InvalidDocumentContent"):
            raise
        return ok("Session Manager's preferences were never saved: there are the defaults")
    try:
        inputs = json.loads(document["Content"]).get("inputs") or {}
    except (ValueError, KeyError, AttributeError):
        return unknown(
            f"the document {PREFERENCES} is not JSON", fix="save Session Manager's preferences again"
        )
    details = tuple(
        f"{name}: {value}" for name, value in sorted(inputs.items()) if value not in ("", None, False)
    )
    found = _for_shells(case, inputs)
    if found is not None:
        return hint(found[0], *details, fix=found[1], who=ADMINISTRATOR, statement=found[2])
    return ok("Session Manager's preferences leave shells and SSH alone", *details)


def _for_shells(case: Case, inputs: dict[str, Any]) -> tuple[str, str, dict[str, Any] | None] | None:
    """What the preferences ask of shells: the sentence, what to do, and the statement that it takes."""
    key = inputs.get("kmsKeyId")
    if key:
        resource = str(key)
        if not resource.startswith("arn:"):
            caller = case.caller()
            resource = f"arn:{caller.partition}:kms:{case.aws.region}:{caller.account}:key/{resource}"
        return (
            f"`smssh shell` is encrypted with the KMS key {key}; SSH is not asked for that",
            "allow kms:GenerateDataKey on it to people, and kms:Decrypt to the node's role",
            {"Effect": "Allow", "Action": "kms:GenerateDataKey", "Resource": resource},
        )
    if inputs.get("runAsEnabled"):
        user = inputs.get("runAsDefaultUser") or "the one of the caller's tag SSMSessionRunAs"
        return (
            f"`smssh shell` runs as another user ({user}), and fails where the image has none of that name",
            "use `smssh connect`, or switch run-as off",
            None,
        )
    return None


CHECKS = (
    Check("account.tier", "the tier of hybrid nodes", tier, ("identity.credentials",)),
    Check(
        "account.nodes",
        "the number of hybrid nodes, and the quota",
        nodes,
        ("identity.credentials", "account.tier"),
    ),
    Check(
        "account.preferences",
        "Session Manager's preferences: KMS, run-as, time-outs",
        preferences,
        ("identity.credentials",),
    ),
)
