"""What an administrator answers before there are policies: partition, names, roles, buckets, keys; checked here.

The limits are those of IAM's quotas ("IAM and AWS STS quotas") and of CreateActivation in botocore's model of SSM.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..aws.s3_address import split_owner
from ..errors import ExitStatus, SmsshError
from .owners import Scheme, owner_scheme

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["FEATURES", "PARTITIONS", "Plan", "RoleName", "partition_of"]

PARTITIONS = {"aws": "us-east-1", "aws-cn": "cn-north-1", "aws-us-gov": "us-gov-west-1"}
"""The partitions that policies can be made for, with a region of each."""
FEATURES = {
    "helper": "what sagemaker-ssh-helper left (`smssh cleanup --include-helper`)",
    "forward": "`smssh forward`: its session documents",
    "native": "SageMaker's remote debugging as the transport (`transport='native'`)",
    "repack": "models that are repacked (`repack=True`): the step's artefact",
    "shell": "`smssh shell`: its session documents",
}
"""What is left out unless it is asked for, because not everybody uses it."""
ACTIVATION_ROLE = 64
"""Characters of a role's name, with its path, in CreateActivation."""
PLACE = "s3://sagemaker-*-{account}/smssh/bundles"
"""Where bundles are stored by default: SageMaker's default bucket of each region."""

_ACCOUNT = re.compile(r"\d{12}", re.ASCII)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,31}")
_RESERVED = ("amazon", "amzn", "aws")
"""What the name of a document must not begin with (CreateDocument)."""
_ROLE = re.compile(r"(?:[A-Za-z0-9_+=,.@-]+/)*[A-Za-z0-9_+=,.@-]{1,64}")
_AWS_PATHS = ("aws-service-role/", "aws-reserved/")
"""Paths of roles that only AWS changes: those of services, and of IAM Identity Center."""
_ROLE_ARN = re.compile(r"arn:([a-z-]+):iam::(\d{12}):role/(.+)", re.ASCII)
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9!_.'()/=@,+-]+")
_ARN = re.compile(r"arn:([a-z-]+):(\w+):([a-z0-9-]*):(\d{12}|):([A-Za-z0-9!_.'()/:=@,+*-]+)", re.ASCII)
_KEYS = {"kms": ("key/[A-Za-z0-9-]+", "key/KEY-ID")}
_TOPICS = {"sns": ("[A-Za-z0-9_.-]+", "TOPIC")}
_LOGS = {"s3": ("[a-z0-9.-]+/.+", "BUCKET/PREFIX"), "logs": ("log-group:(?!\\*).+", "log-group:NAME")}
_SOURCES = {"s3": ("[a-z0-9.-]+/.+", "BUCKET/KEY"), "ssm": ("parameter/(?!\\*).+", "parameter/NAME")}
"""Service -> the pattern of a resource in it, and an example."""


@dataclass(frozen=True)
class RoleName:
    """The name of a role, and its path: `/` or such as `/service-role/`."""

    name: str
    path: str = "/"

    @property
    def arn(self) -> str:
        """Its ARN, with the names that a form fills in."""
        return f"arn:{{partition}}:iam::{{account}}:role{self.path}{self.name}"

    @property
    def short(self) -> str:
        """As CreateActivation takes it."""
        return f"{self.path}{self.name}"[1:]


@dataclass(frozen=True)
class Plan:
    """The answers, checked. `make` makes one of what was typed.

    Attributes:
        partition: `aws`, `aws-cn` or `aws-us-gov`.
        account: twelve digits; "" where the form needs none.
        name: what the names of all policies begin with.
        node_role: the role of nodes.
        job_roles: the roles of jobs that get the policy.
        owner: who owns a job's node.
        bucket: of bundles; `*` in it only in the default.
        prefix: of bundles in it, without slashes around.
        features: some of FEATURES.
        bucket_keys: keys of KMS that the bucket is encrypted with.
        session_keys: keys of KMS that the account encrypts sessions with.
        session_logs: the S3 prefixes and log groups of the account's session logs.
        topics: of SNS, for notifications.
        key_sources: objects of S3 and parameters of SSM from which jobs without a bundle read `authorized_keys`.
    """

    partition: str
    account: str
    name: str
    node_role: RoleName
    job_roles: tuple[RoleName, ...]
    owner: Scheme
    bucket: str
    prefix: str
    features: frozenset[str]
    bucket_keys: tuple[str, ...] = ()
    session_keys: tuple[str, ...] = ()
    session_logs: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()
    key_sources: tuple[str, ...] = ()

    @property
    def own_bucket(self) -> bool:
        """Whether the bucket is the default, whose name is not known whole: it must belong to the account."""
        return "*" in self.bucket

    @classmethod
    # Long: an argument, a line of its meaning and a check for each answer.
    def make(
        cls,
        *,
        partition: str = "aws",
        account: str = "",
        name: str = "smssh",
        node_role: str = "",
        job_roles: Iterable[str] = (),
        owner: Scheme | None = None,
        bundle_prefix: str = PLACE,
        features: Iterable[str] = (),
        bucket_keys: Iterable[str] = (),
        session_keys: Iterable[str] = (),
        session_logs: Iterable[str] = (),
        topics: Iterable[str] = (),
        key_sources: Iterable[str] = (),
    ) -> Plan:
        """Check what was typed.

        Args:
            partition: see the attributes.
            account: see the attributes.
            name: at most 32 letters, digits and hyphens.
            node_role: a name, with its path if it has one; by default `NAME-node`.
            job_roles: names with their paths, or ARNs.
            owner: by default the scheme `team`.
            bundle_prefix: `s3://bucket/prefix`, as the option of that name.
            features: some of FEATURES.
            bucket_keys: ARNs of keys.
            session_keys: ARNs of keys.
            session_logs: ARNs of S3 or of CloudWatch Logs.
            topics: ARNs of topics.
            key_sources: ARNs of objects and parameters.

        Raises:
            SmsshError: one of them is not what it should be.
        """
        if partition not in PARTITIONS:
            raise _bad(f"there are no policies for the partition {partition!r}", f"use {_listed(PARTITIONS)}")
        if account and not _ACCOUNT.fullmatch(account):
            raise _bad(f"{account!r} is not an account id", "pass --account with twelve digits")
        if not _NAME.fullmatch(name) or name.lower().startswith(_RESERVED):
            raise _bad(
                f"{name!r} cannot be the beginning of names",
                "use at most 32 letters, digits and hyphens, a letter first, and not aws, amazon or amzn",
            )
        for feature in features:
            if feature not in FEATURES:
                raise _bad(f"{feature!r} is not a feature", f"use {_listed(FEATURES)}")
        bucket, prefix = _place(bundle_prefix)
        where = (partition, account)
        return cls(
            partition,
            account,
            name,
            _node_role(node_role or f"{name}-node", where),
            tuple(dict.fromkeys(_role(each, where) for each in job_roles)),
            owner or owner_scheme("team"),
            bucket,
            prefix,
            frozenset(features),
            tuple(_arn(each, "a key of KMS", _KEYS, where) for each in bucket_keys),
            tuple(_arn(each, "a key of KMS", _KEYS, where) for each in session_keys),
            tuple(_arn(each, "a place of session logs", _LOGS, where) for each in session_logs),
            tuple(_arn(each, "a topic", _TOPICS, where) for each in topics),
            tuple(_arn(each, "a source of keys", _SOURCES, where) for each in key_sources),
        )


def partition_of(region: str) -> str:
    """The partition of a region.

    Raises:
        SmsshError: there are no policies for it.
    """
    from botocore.exceptions import UnknownRegionError
    from botocore.session import Session

    try:
        found = str(Session().get_partition_for_region(region))
    except UnknownRegionError:
        raise _bad(
            f"{region!r} is not an AWS region", "use a region such as us-east-1 or eu-west-1"
        ) from None
    if found not in PARTITIONS:
        raise _bad(
            f"there are no policies for {region}: its partition is {found}", f"use {_listed(PARTITIONS)}"
        )
    return found


def _role(text: str, where: tuple[str, str]) -> RoleName:
    """A role by its name, with its path, or by its ARN."""
    found = _ROLE_ARN.fullmatch(text)
    if text.startswith("arn:"):
        if found is None:
            raise _bad(f"{text!r} is not the ARN of a role", "use arn:aws:iam::123456789012:role/NAME")
        _same_place(text, found[1], found[2], where)
    inner = found[3] if found else text.removeprefix("/")
    if not _ROLE.fullmatch(inner):
        raise _bad(
            f"{text!r} is not the name of a role",
            "use up to 64 letters, digits and +=,.@_-, with its path in front, such as service-role/NAME",
        )
    if inner.startswith(_AWS_PATHS):
        raise _bad(
            f"{text!r} is a role of AWS's own, to which no policy can be attached",
            "name the role that jobs run with",
        )
    path, slash, name = f"/{inner}".rpartition("/")
    return RoleName(name, path + slash)


def _node_role(text: str, where: tuple[str, str]) -> RoleName:
    role = _role(text, where)
    if len(role.short) > ACTIVATION_ROLE:
        raise _bad(
            f"the node role {role.short!r} has {len(role.short)} characters with its path, and CreateActivation takes "
            f"{ACTIVATION_ROLE}",
            "choose a shorter --node-role",
        )
    return role


def _place(text: str) -> tuple[str, str]:
    """Bucket and prefix of `s3://bucket/prefix`; an owner behind it is of no matter to IAM."""
    text, _ = split_owner(text)
    bucket, _, prefix = text.removeprefix("s3://").partition("/")
    prefix = prefix.strip("/")
    good = text == PLACE or _BUCKET.fullmatch(bucket)
    if not text.startswith("s3://") or not good or not _PREFIX.fullmatch(prefix):
        raise _bad(
            f"{text!r} is not a place for bundles",
            "use s3://BUCKET/PREFIX, the same as in SSHOptions(bundle_prefix=...)",
        )
    return bucket, prefix


def _arn(text: str, what: str, kinds: dict[str, tuple[str, str]], where: tuple[str, str]) -> str:
    """An ARN of one of some services, whose resource has a certain pattern."""
    found = _ARN.fullmatch(text)
    if found is None or found[2] not in kinds or not re.fullmatch(kinds[found[2]][0], found[5]):
        forms = " or ".join(
            f"arn:{where[0]}:{service}:...:{example}" for service, (_, example) in kinds.items()
        )
        raise _bad(f"{text!r} is not the ARN of {what}", f"use {forms}")
    _same_place(text, found[1], "", where)
    return text


def _same_place(text: str, partition: str, account: str, where: tuple[str, str]) -> None:
    """Refuse an ARN of another partition or, where both are known, of another account."""
    if partition != where[0]:
        raise _bad(
            f"{text!r} is of the partition {partition}, and the policies are for {where[0]}",
            "pass --region with a region of that partition, or another ARN",
        )
    if account and where[1] and account != where[1]:
        raise _bad(
            f"{text!r} is of account {account}, and the policies are for {where[1]}",
            "pass --account with that account, or a role of this one",
        )


def _listed(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}"


def _bad(message: str, hint: str) -> SmsshError:
    return SmsshError(message, hint=hint, reference="bad-setup", status=ExitStatus.USAGE)
