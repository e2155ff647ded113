"""docs/requests.md: what with_ssh adds to a request, found by letting it, and why, as it is said here.

What is added and has no reason here, or has a reason and is not added, is an error. A call of AWS in the code that no
statement of smssh_plugin/setup/policies.py stands for is an error, too.
"""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Mapping, NamedTuple

import option_fields
from iam_docs import EVERYTHING

from smssh_plugin import settings
from smssh_plugin.setup import policies
from smssh_plugin.submit.bundle import build as bundles
from smssh_plugin.submit.bundle.agent import VERSION
from smssh_plugin.submit.options import SSHOptions
from smssh_plugin.submit.request.add_ssh import Injection, add_ssh
from smssh_plugin.submit.request.wrapper import WORDS

if TYPE_CHECKING:
    from smssh_plugin.setup.model import Policy

ROOT = Path(__file__).resolve().parents[1]
PLACE = "s3://BUCKET/PREFIX/DIGEST/"
# As the pattern of a bundle's address has it; shown as PLACE.
BUNDLE = f"s3://bucket/prefix/{'0' * 64}/"
ROLE = "arn:aws:iam::123456789012:role/Job"


BAKED = {
    "hold": "failure",
    "authorized_keys": ["ssh-ed25519 AAAA... smssh you@laptop"],
    "agent_version": VERSION,
    "agent_sha256": {"x86_64": "0" * 64},
}
"""The options that an image with our package gets as variables."""


class Sample(NamedTuple):
    """A request of the usual shape."""

    title: str
    kind: str
    request: dict[str, Any]
    asked: Mapping[str, Any] = MappingProxyType({})
    """What else is asked for: fields of `Injection`."""


def _training(**algorithm: Any) -> dict[str, Any]:
    return {
        "AlgorithmSpecification": {"TrainingImage": "IMAGE", **algorithm},
        "InputDataConfig": [{"ChannelName": "train"}],
        "RoleArn": ROLE,
        "StoppingCondition": {"MaxRuntimeInSeconds": 86400},
    }


SAMPLES = (
    Sample(
        "Training, with an entry point in the request (`ModelTrainer` with `source_code`, `@step`, your own)",
        "training",
        _training(ContainerEntrypoint=["/bin/bash"]),
    ),
    Sample("Training, with the image's own entry point (SDK v2's estimators)", "training", _training()),
    Sample(
        'Training, reached by SageMaker\'s remote debugging (`transport="native"`)',
        "training",
        _training(ContainerEntrypoint=["/bin/bash"]),
        {"transport": "native"},
    ),
    Sample(
        'Training, started by the training toolkit (`launcher="chain"`)',
        "training",
        _training(),
        {"launcher": "chain"},
    ),
    Sample(
        'Training, started by bash (`launcher="bash_env"`; the same for processing)',
        "training",
        _training(),
        {"launcher": "bash_env"},
    ),
    Sample(
        'An image that has smssh-plugin (`launcher="baked"`, here with `hold="failure"`; the same for each kind)',
        "training",
        _training(ContainerEntrypoint=["/bin/bash"]),
        {"launcher": "baked", "environment": settings.variables(BAKED)},
    ),
    Sample(
        "Processing, with an entry point in the request (Script-, Framework-, PySparkProcessor)",
        "processing",
        {"AppSpecification": {"ImageUri": "IMAGE", "ContainerEntrypoint": ["python3"]}, "RoleArn": ROLE},
    ),
    Sample(
        "Processing, with the image's own entry point (a bare `Processor`)",
        "processing",
        {"AppSpecification": {"ImageUri": "IMAGE"}, "RoleArn": ROLE},
    ),
    Sample("Batch transform: the job", "transform", {"ModelName": "MODEL"}),
    Sample(
        "Batch transform: its model, where that or the transform step was named",
        "model",
        {"PrimaryContainer": {"Image": "IMAGE"}, "ExecutionRoleArn": ROLE},
    ),
    Sample(
        "A model whose endpoints are entered, too (`endpoints=True`)",
        "model",
        {"PrimaryContainer": {"Image": "IMAGE"}, "ExecutionRoleArn": ROLE},
        {"endpoints": True},
    ),
    Sample(
        "A model that is repacked, by the SDK or with `repack=True`, with the bundle in its `code/` folder",
        "model",
        {"PrimaryContainer": {"Image": "IMAGE"}, "ExecutionRoleArn": ROLE},
        {"repacked": True},
    ),
    Sample("Tuning", "tuning", {"TrainingJobDefinition": _training()}),
)

REASONS = {
    "InputDataConfig[]": "The bundle, as one more channel. It is `File` in every job, because a pipe is not a "
    "folder.",
    "ProcessingInputs[]": "The bundle, as one more input.",
    "AdditionalModelDataSources[]": "The bundle; a model has no channels.",
    "ContainerEntrypoint": "Starts smssh, and is the parent of your entry point, which it can hold and retry. The "
    "shell line first checks that the bundle in the container is the one with that digest; if it is not, only your "
    "entry point runs.",
    "SMSSH_ENABLE": "The switch: without it smssh does nothing. It is in the request because it is read first.",
    "SMSSH_ROLE": "The role that the managed node is registered with: that of the request. It may be a pipeline "
    "variable, which a file in S3 cannot contain.",
    "SMSSH_STEP": "The step's name, for addresses and reports. It is not in the bundle, which all steps share.",
    "SMSSH_MAX_RUNTIME": "`StoppingCondition.MaxRuntimeInSeconds`, if it is a number: a hold ends before it. "
    "SageMaker does not tell a container its limit, and all jobs share the bundle.",
    "SMSSH_BUNDLE": "The folder of the bundle, for interpreters that start in another folder. The bundle "
    "is moved to the container's private folder before your code runs, so that your code does not see the input.",
    "PYTHONPATH": "The folders in which Python finds smssh's `sitecustomize.py`, or the module that "
    "SAGEMAKER_TRAINING_MODULE names: in the second folder, until it is moved to the first before your code runs. "
    "Folders that the request already has there follow.",
    "SAGEMAKER_TRAINING_MODULE": "The module that the toolkits' `train` calls; it calls the image's own module.",
    "BASH_ENV": "The file that bash reads before a script or a command line.",
    "SMSSH_HOLD": "An option: without a bundle, each that is set is a variable.",
    "SMSSH_AUTHORIZED_KEYS": "Who may log in: your own smssh key, and those of `authorized_keys`. Without it "
    "nobody can.",
    "SMSSH_AGENT_VERSION": "The version of Amazon's agent that an image without it downloads. Not with "
    "`agent='found'`.",
    "SMSSH_AGENT_SHA256": "The SHA-256 that its package must have.",
    "RemoteDebugConfig": "Switches SageMaker's remote debugging on, which is the transport. A value of the request "
    "is not changed.",
}
"""The end of a path -> why it is added."""

CACHE_KEYS = {
    "training": (
        "AlgorithmSpecification",
        "CheckpointConfig",
        "DebugHookConfig",
        "DebugRuleConfigurations",
        "Environment",
        "HyperParameters",
        "InputDataConfig",
    ),
    "processing": ("AppSpecification", "Environment", "ProcessingInputs"),
    "transform": ("DataProcessing", "Environment", "ModelName", "TransformInput"),
    "model": (),
    "tuning": (
        "HyperParameterTuningJobConfig",
        "TrainingJobDefinition.AlgorithmSpecification",
        "TrainingJobDefinition.HyperParameterRanges",
        "TrainingJobDefinition.InputDataConfig",
        "TrainingJobDefinition.StaticHyperParameters",
        "TrainingJobDefinition.TuningObjective",
    ),
}
"""What SageMaker compares (developer guide, "Default cache key attributes by pipeline step type")."""

CACHING = {
    "transform": "Turning SSH on or off runs a cached step once. So do options that its model's bundle does not "
    "have, and a model with another name: the model's step makes one when its bundle changes.",
    "model": "Steps that make models are not cached.",
    "tuning": "Turning SSH on or off and another bundle each run a cached step once; SageMaker does not compare the "
    "variables.",
}

S3_READ = "The job's role reads the bundle: `s3:GetObject` on `BUCKET/PREFIX/*`, `s3:ListBucket` on `BUCKET`."
NODE = "The container is registered as a managed node: the rows for `ssm` below."
ACCESS = {
    ("training", "ssm"): f"{S3_READ} {NODE}",
    (
        "training",
        "native",
    ): f"{S3_READ} It announces its host key: the rows for `native` below. No node, no activation.",
    ("processing", "ssm"): f"{S3_READ} {NODE}",
    ("transform", "ssm"): "The job runs with the role of its model.",
    ("model", "ssm"): f"{S3_READ} {NODE}",
    ("tuning", "ssm"): f"{S3_READ} {NODE} Each trial is a job of its own.",
}


class Permission(NamedTuple):
    """What IAM must allow, and the calls of boto3 that need it."""

    action: str
    resource: str
    reason: str
    calls: tuple[str, ...] = ()


def permissions(policy: Policy) -> tuple[Permission, ...]:
    """The rows of a policy, one for each thing that it is needed for."""
    return tuple(
        Permission(", ".join(grant.actions), statement.place, grant.why, grant.calls)
        for statement in policy.statements
        for grant in statement.grants
    )


JOB = permissions(policies.job(EVERYTHING))
"""What the job's role needs."""
NODE_ROLE = permissions(policies.node(EVERYTHING).policy)
"""What the role of the managed node needs: that in SMSSH_ROLE."""
SUBMITTER = permissions(policies.submit(EVERYTHING))
"""What the submitting principal needs; in SageMaker, nothing but what the request needs without SSH."""
CLIENT = permissions(policies.people(EVERYTHING))
"""What a person needs to log in or to debug. The first seven are for every login."""

CLEANUP = permissions(policies.cleanup(EVERYTHING))
"""What `smssh cleanup` needs."""
DOCTOR = (
    Permission(
        "iam:SimulatePrincipalPolicy",
        "the caller, and job roles",
        "what they may do",
        ("simulate_principal_policy",),
    ),
    Permission(
        "iam:GetRole",
        "the caller's role, and the roles of nodes",
        "the caller's ARN for the simulation; trust policies",
        ("get_role",),
    ),
    Permission(
        "ssm:GetServiceSetting",
        "`servicesetting/ssm/managed-instance/activation-tier`",
        "the tier of hybrid nodes",
        ("get_service_setting",),
    ),
    Permission(
        "ssm:GetDocument",
        "the document `SSM-SessionManagerRunShell`",
        "Session Manager's preferences",
        ("get_document",),
    ),
    Permission(
        "ec2:DescribeSubnets, ec2:DescribeRouteTables, ec2:DescribeVpcEndpoints, ec2:DescribeSecurityGroups",
        "`*`",
        "the network of jobs in a VPC",
        ("describe_subnets", "describe_route_tables", "describe_vpc_endpoints", "describe_security_groups"),
    ),
    Permission(
        "ec2:DescribeVpcAttribute",
        "the VPC",
        "whether private DNS has an effect in it",
        ("describe_vpc_attribute",),
    ),
    Permission(
        "servicequotas:ListServiceQuotas", "`*`", "the quota of managed nodes", ("list_service_quotas",)
    ),
)
"""What `smssh doctor` asks beside what its user does anyway; all of it is optional."""
_POLICIES = "the policies `NAME-*`"
_ROLE_OF_NODES = "the node role"
_JOB_ROLES = "the roles of jobs"
_DOCUMENT = "the document `NAME-ssh`"
_SETTING = "`servicesetting/ssm/managed-instance/activation-tier`"
_PARAMETER = "the parameter `/smssh/setup/NAME/tier`"
ADMIN = (
    Permission(
        "iam:ListAccountAliases", "`*`", "the alias of the account; optional", ("list_account_aliases",)
    ),
    Permission(
        "iam:GetPolicy, iam:GetPolicyVersion", _POLICIES, "both", ("get_policy", "get_policy_version")
    ),
    Permission(
        "iam:CreatePolicy, iam:CreatePolicyVersion, iam:TagPolicy",
        _POLICIES,
        "`--apply`",
        ("create_policy", "create_policy_version", "tag_policy"),
    ),
    Permission(
        "iam:ListPolicyVersions, iam:DeletePolicyVersion",
        _POLICIES,
        "`--undo`; `--apply`, if a policy has five versions",
        ("list_policy_versions", "delete_policy_version"),
    ),
    Permission(
        "iam:ListEntitiesForPolicy, iam:DeletePolicy, iam:UntagPolicy",
        _POLICIES,
        "`--undo`",
        ("list_entities_for_policy", "delete_policy", "untag_policy"),
    ),
    Permission("iam:GetRole", f"{_ROLE_OF_NODES}, {_JOB_ROLES}", "both", ("get_role",)),
    Permission("iam:GetRolePolicy", _ROLE_OF_NODES, "both", ("get_role_policy",)),
    Permission(
        "iam:CreateRole, iam:PutRolePolicy, iam:TagRole",
        _ROLE_OF_NODES,
        "`--apply`",
        ("create_role", "put_role_policy", "tag_role"),
    ),
    Permission(
        "iam:ListRoles", "`*`", "`--undo`: node roles by their description; its tags decide", ("list_roles",)
    ),
    Permission(
        "iam:ListRolePolicies, iam:ListInstanceProfilesForRole, iam:DeleteRolePolicy, iam:DeleteRole",
        _ROLE_OF_NODES,
        "`--undo`",
        ("list_role_policies", "list_instance_profiles_for_role", "delete_role_policy", "delete_role"),
    ),
    Permission(
        "iam:ListAttachedRolePolicies",
        f"{_JOB_ROLES}, {_ROLE_OF_NODES}",
        "both: what is attached already, and what others have attached",
        ("list_attached_role_policies",),
    ),
    Permission(
        "iam:AttachRolePolicy, iam:DetachRolePolicy",
        f"{_JOB_ROLES}, where `iam:PolicyARN` is that of `NAME-job`",
        "`--job-role`: `--apply`, `--undo`",
        ("attach_role_policy", "detach_role_policy"),
    ),
    Permission(
        "iam:GetAccountSummary",
        "`*`",
        "`--job-role` with a role that has ten policies or more: the account's quota",
        ("get_account_summary",),
    ),
    Permission(
        "ssm:GetDocument, ssm:ListTagsForResource",
        _DOCUMENT,
        "`--part document`, `--undo`",
        ("get_document", "list_tags_for_resource"),
    ),
    Permission(
        "ssm:CreateDocument, ssm:AddTagsToResource, ssm:UpdateDocument, ssm:DescribeDocument, "
        "ssm:UpdateDocumentDefaultVersion",
        _DOCUMENT,
        "`--part document`",
        (
            "create_document",
            "add_tags_to_resource",
            "update_document",
            "describe_document",
            "update_document_default_version",
        ),
    ),
    Permission("ssm:DeleteDocument", _DOCUMENT, "`--undo`", ("delete_document",)),
    Permission(
        "ssm:GetServiceSetting", _SETTING, "`--part tier`, `--undo`: the tier", ("get_service_setting",)
    ),
    Permission(
        "ssm:UpdateServiceSetting, ssm:ResetServiceSetting",
        _SETTING,
        "`--part tier`, `--undo`",
        ("update_service_setting", "reset_service_setting"),
    ),
    Permission(
        "ssm:GetParameter, ssm:PutParameter, ssm:AddTagsToResource, ssm:DeleteParameter",
        _PARAMETER,
        "`--part tier`, `--undo`: what the tier was before",
        ("get_parameter", "put_parameter", "delete_parameter"),
    ),
    Permission(
        "ssm:GetParametersByPath",
        "the parameter `/smssh/setup`",
        "`--part tier`, `--undo`: the other setups that use the tier",
        ("get_parameters_by_path",),
    ),
    Permission(
        "ssm:DescribeInstanceInformation",
        "`*`",
        "`--part tier`, `--undo`: the hybrid nodes that the tier is for; optional",
        ("describe_instance_information",),
    ),
)
"""What `smssh setup --apply` and `--undo` need. NAME is the value of `--name`."""
_LIVE_ROLES = "roles `smssh-live-*`, with and without a path"
LIVE = (
    Permission(
        "iam:ListRoles", "`*`", "what runs have left; needed for the plan, too, to show it", ("list_roles",)
    ),
    Permission("iam:GetRole", _LIVE_ROLES, "whether a run made them: their tags", ("get_role",)),
    Permission(
        "iam:CreateRole, iam:TagRole, iam:PutRolePolicy",
        _LIVE_ROLES,
        "a role for nodes, one with a path, one for trials; with `--jobs` one for the job",
        ("create_role", "put_role_policy"),
    ),
    Permission(
        "iam:DeleteRolePolicy, iam:DeleteRole",
        _LIVE_ROLES,
        "their removal",
        ("delete_role_policy", "delete_role"),
    ),
    Permission(
        "iam:PassRole",
        f"{_LIVE_ROLES}, where `iam:PassedToService` is `ssm.amazonaws.com`, with `--jobs` or "
        "`sagemaker.amazonaws.com`",
        "activations; with `--jobs` the job",
    ),
    Permission(
        "sts:AssumeRole",
        _LIVE_ROLES,
        "trials; the trust policy of the role names you, so that a policy of yours need not allow it",
        ("assume_role",),
    ),
    Permission(
        "ssm:CreateActivation, ssm:DeleteActivation, ssm:DescribeActivations",
        "`*`",
        "activations, and their removal",
        ("create_activation", "delete_activation", "describe_activations"),
    ),
    Permission(
        "ssm:DescribeInstanceInformation",
        "`*`",
        "whether the node is found, and its removal",
        ("describe_instance_information",),
    ),
    Permission(
        "ssm:ListTagsForResource", "managed instances", "the tags of the node", ("list_tags_for_resource",)
    ),
    Permission(
        "ssm:DeregisterManagedInstance",
        "managed instances, where `ssm:resourceTag/SMSSHJob` is like `smssh-live-*`",
        "the removal of nodes",
        ("deregister_managed_instance",),
    ),
    Permission(
        "ssm:TerminateSession",
        "`*`",
        "a session that comes about although the node is offline; with `--jobs` those with the host",
        ("terminate_session",),
    ),
    Permission(
        "ssm:GetServiceSetting, ssm:GetDocument",
        f"{_SETTING}, the document `SSM-SessionManagerRunShell`",
        "`live.tier`",
        ("get_service_setting", "get_document"),
    ),
    Permission("pricing:GetProducts", "`*`", "`live.prices`, and the prices in the plan; optional"),
    Permission(
        "s3:CreateBucket, s3:ListBucket, s3:GetObject, s3:PutObject, s3:DeleteObject, s3:DeleteBucket",
        "buckets `smssh-live-*`, and their objects",
        "`--jobs`: the job's bundle, and its removal",
        ("create_bucket", "list_objects_v2", "delete_objects", "delete_bucket"),
    ),
    Permission(
        "sagemaker:CreateProcessingJob, sagemaker:AddTags, sagemaker:DescribeProcessingJob, "
        "sagemaker:StopProcessingJob",
        "processing jobs `smssh-live-*`",
        "`--jobs`: the job, and its end",
        ("create_processing_job", "describe_processing_job", "stop_processing_job"),
    ),
    Permission(
        "logs:DescribeLogStreams, logs:GetLogEvents",
        "the log group `/aws/sagemaker/ProcessingJobs`, and its streams",
        "`--jobs`: what smssh says in the job's log, if its host does not come online; optional",
        ("describe_log_streams", "get_log_events"),
    ),
)
"""What `smssh doctor --live` needs of who runs it."""
LIVE_TRIALS = ("add_tags_to_resource", "start_session")
"""What it calls besides, with the role for trials alone."""
COSTS = permissions(policies.costs(EVERYTHING))
"""What `smssh costs` needs."""

IN_CONTAINER = (
    "hooks",
    "entrypoints",
    "smssh_plugin/container",
    "smssh_plugin/supervisor",
    "smssh_plugin/key_sources.py",
)
AT_SUBMIT = ("smssh_plugin/submit", "smssh_plugin/key_sources.py")
CALLS = re.compile(
    r"client\w*(?:\([^()]*\))?\.((?:create|delete|add|deregister|describe|list|put|get|head|publish|update|send|start)\w*)\b"
)

ON_LAPTOP = ("client", "session", "debug", "setup", "cli")
"""The rooms that call AWS by the names of operations: `aws.call("ssm", "start_session", ...)`."""
OPERATION = re.compile(
    r'(?:"(?:ec2|iam|kms|logs|pricing|sagemaker|service-quotas|ssm|sts)"|call\(\s*"s3"),\s*"([a-z0-9_]+)"'
    r'|\("((?:describe|list)_[a-z]+_jobs?)"'
)

FILES = {
    "run.sh": "starts the parent of a wrapped entry point",
    "sitecustomize.py": "starts in every Python with that folder on PYTHONPATH; also runs the image's own",
    "env.sh": "for BASH_ENV, if that was chosen",
    "chain/smssh_chain.py": "for SAGEMAKER_TRAINING_MODULE, if that was chosen",
    "smssh.zip": "the container's part of the package, and pluggy",
    "options.json": "the options; everybody who may read the bundle can read them",
    "smssh-manifest.json": "the SHA-256 of each file; the prefix is named after the SHA-256 of this one",
}

PAGE = """\
# Changes to requests

<!-- Written by dev/docs.py: additions by smssh_plugin/submit/request/add_ssh.py, reasons by dev/request_docs.py. -->

`with_ssh` and `enable` change a request when it is made. This page lists everything that they add; it is generated by
calling them. They remove nothing, except the step's `CacheConfig` with `cache="drop"`. A variable, a channel or a
setting that the request already has is not changed, except that a folder of ours goes in front of `PYTHONPATH`, and
that `launcher="chain"` sets `SAGEMAKER_TRAINING_MODULE` and runs the module that was named there. Pipeline variables
are passed on. The same options, keys and version of smssh-plugin add the same bytes, on every machine and in every
compilation. `SSHOptions(enabled=False)`, and
`SMSSH_ENABLE=0` in the submitting process, add nothing.

`BUCKET/PREFIX` is the SDK's default bucket (`sagemaker-REGION-ACCOUNT`, with its default prefix, if any) and
`smssh/bundles`, or the value of `bundle_prefix`. `DIGEST` is the SHA-256 of the bundle's content, so a bundle never
changes: see [below](#the-bundle), and [how long it is stored](submitting.md#bundles-in-s3). `smssh bundle show` and
`smssh bundle verify` read one.
"""

VARIABLES = """
## Variables and options.json

A job's environment is limited: 256 characters a value in a processing job, 16 entries in a transform job. Therefore the
request contains only the variables that are needed before the bundle is read, and the other options travel in the
bundle's `options.json`. A variable that is set on the job wins over it. With `launcher="baked"` there is no bundle, so
every option travels as its variable. A transform job has the bundle of its model: options of its step that differ from
that bundle travel as variables, too.
"""

BUDGET = 750_000
BUNDLES = f"""
## The bundle

A bundle has less than {BUDGET:,} bytes, without wheels and agent. It is stored uncompressed, because versions of zlib
write different bytes. The sources in it are those of the package, byte for byte, so that you can compare what runs in a
job with what you have installed. It is uploaded once for each set of options, and a job is ready to log in to as soon
with it as with one of half the size.
"""


NODE_ROLE_TEXT = """\
This is the role in `SMSSH_ROLE`: the option `role`, or else the job's own, which then needs these rows as well. Its
trust policy must let `ssm.amazonaws.com` assume it. A separate role is better: the job's trust policy is not changed,
and the node does not have the job's permissions.
`AmazonSSMManagedInstanceCore` allows the first five and more: every value in Parameter Store can be read with it.
The other actions that the agent calls are not needed (associations, inventory): it logs each denial and goes on.
`ec2messages` is not needed either, nor is its endpoint for [jobs in a VPC](vpc.md).
"""
OWNERS = """
A node has the tag `SSHOwner` only if `owner` or `SMSSH_OWNER` was set when the request was made, or `owner_scheme`
found who makes it. With a condition on `ssm:resourceTag/SSHOwner`, nobody can log in to jobs that were submitted
without it."""


def page() -> str:
    """The page."""
    used: set[str] = set()
    parts = [PAGE, "\n## By kind of request\n", *(section(sample, used) for sample in SAMPLES)]
    if used != set(REASONS):
        raise ValueError(f"these reasons are for nothing that is added: {sorted(set(REASONS) - used)}")
    parts += [variables_section(), bundle_section(), access_section()]
    return "".join(parts)


def section(sample: Sample, used: set[str]) -> str:
    """One kind of request: what is added, why, and what that means for caching and access."""
    injection = Injection(BUNDLE, step="Step", **sample.asked)
    changed = add_ssh(sample.kind, sample.request, injection)
    lines = [
        f"\n### {sample.title}\n",
        "| member | what is added | why | compared by step caching |",
        "| --- | --- | --- | --- |",
    ]
    added = {}
    for path, value in additions(sample.request, changed):
        reason = next((end for end in REASONS if path.endswith(end)), None)
        if reason is None:
            raise ValueError(f"{path} is added to {sample.kind} requests, and nothing in {__file__} says why")
        used.add(reason)
        shown = added[path] = _shown(value)
        keyed = "yes" if path.startswith(CACHE_KEYS[sample.kind]) else "no"
        lines.append(f"| `{path}` | `{shown}` | {REASONS[reason]} | {keyed} |")
    lines.append(f"\n**Caching.** {CACHING.get(sample.kind) or compared(added)}")
    access = NODE if injection.baked else ACCESS[sample.kind, injection.transport]
    lines.append(f"\n**IAM.** {access}")
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    """A value as JSON: the words before a wrapped entry point are a program, which is told of elsewhere."""
    text = json.dumps(value).replace(json.dumps(WORDS)[1:-1], '"/bin/sh", "-c", ...')
    digest = BUNDLE.split("/")[-2]
    return text.replace(BUNDLE, PLACE).replace(digest, "DIGEST")


def compared(added: dict[str, str]) -> str:
    """What makes a cached step run again, by what is added to its request, all of which is compared."""
    turns = ["turning SSH on or off"]
    if any(PLACE in value for value in added.values()):
        turns.append("another bundle")
    else:
        turns.append("another value of an option")
    if any(path.endswith("SMSSH_ROLE") for path in added):
        turns.append("another role")
    text = f"{', '.join(turns[:-1])} and {turns[-1]} each run a cached step once."
    return text[0].upper() + text[1:]


def additions(before: Any, after: Any, path: str = "") -> list[tuple[str, Any]]:
    """What is in a request that was not, by path: whole members of lists, and what an entry point begins with."""
    if isinstance(before, list):
        if path.endswith("ContainerEntrypoint"):
            added = after[: len(after) - len(before)]
            return [(path, added)] if added else []
        return [(f"{path}[]", each) for each in after[len(before) :]]
    if not isinstance(before, dict):
        if before != after:
            raise ValueError(f"{path} is changed: {before!r} is {after!r} now")
        return []
    found = []
    for name, value in after.items():
        inner = f"{path}.{name}".lstrip(".")
        if name in before:
            found += additions(before[name], value, inner)
        elif isinstance(value, list) and name != "ContainerEntrypoint":
            found += additions([], value, inner)
        elif name == "Environment":
            found += additions({}, value, inner)
        else:
            found.append((inner, value))
    return found


def variables_section() -> str:
    """Every option, the variable that it is, and where it travels."""
    places = {
        settings.REQUEST: "the request",
        settings.OPTIONS_JSON: "`options.json`",
        settings.BUNDLE: "files of the bundle",
        settings.DECIDES: "nothing: it decides what is sent",
    }
    lines = [
        VARIABLES,
        "| option | variable | travels in |",
        "| --- | --- | --- |",
    ]
    for option in settings.OPTIONS.values():
        variables = ", ".join(f"`{each}`" for each in option_fields.variables(option)) or "-"
        lines.append(f"| `{option.name}` | {variables} | {places[option.travels]} |")
    lines.append(
        "\nThe options are explained in [options.md](options.md), the variables in [settings.md](settings.md)."
    )
    return "\n".join(lines) + "\n"


def bundle_section() -> str:
    """What is in a bundle."""
    built = bundles.build(SSHOptions(), ())
    if built.size >= BUDGET:
        raise ValueError(f"the bundle has {built.size} bytes, not less than {BUDGET}")
    if set(built.files) != set(FILES):
        raise ValueError(f"FILES and the bundle differ: {sorted(set(built.files) ^ set(FILES))}")
    lines = [
        BUNDLES,
        "| file | what it is |",
        "| --- | --- |",
        *(f"| `{name}` | {meaning} |" for name, meaning in FILES.items()),
        "| `plugins.zip` | third-party plugins, if `plugins` names them |",
        "| `wheels/PYTHON-MACHINE/*.whl` | asyncssh, if `wheels` names the Python |",
        '| `agent/MACHINE/amazon-ssm-agent.deb` | Amazon\'s agent, with `agent="bundle"` |',
        "\n" + checked(),
    ]
    return "\n".join(lines) + "\n"


def checked() -> str:
    """What the container checks: the paragraph of bundle.py's docstring."""
    paragraphs = (inspect.getdoc(bundles) or "").split("\n\n")
    (found,) = [" ".join(each.split()) for each in paragraphs if each.startswith("In the container,")]
    return found


def access_section() -> str:
    """IAM, for the job and for who makes the request."""
    lines = [
        "\n## IAM\n",
        "`smssh setup` makes these policies; [IAM](iam.md) has their conditions.\n",
    ]
    for title, rows in (
        ("The job's role", JOB),
        ("The role of the managed node", NODE_ROLE),
        ("The submitting principal", SUBMITTER),
        ("Who logs in or debugs", CLIENT),
        ("Who cleans up", CLEANUP),
        ("Who runs smssh costs", COSTS),
        ("Who runs smssh doctor", DOCTOR),
        ("Who runs smssh doctor --live", LIVE),
        ("Who runs smssh setup --apply and --undo", ADMIN),
    ):
        lines += [f"### {title}\n", "| action | resource | for |", "| --- | --- | --- |"]
        for row in rows:
            action = ", ".join(f"`{each}`" for each in row.action.split(", "))
            lines.append(f"| {action} | {row.resource} | {row.reason} |")
        lines.append("")
        if rows is NODE_ROLE:
            lines += [NODE_ROLE_TEXT]
        if rows is CLEANUP:
            lines += ["[Clean up](cleanup.md#permissions) says what to leave out.\n"]
    lines.append(
        "`StartSession` is allowed for a target and a document: those of a login are above; `smssh forward` takes "
        "`AWS-StartPortForwardingSession` and, to machines that the container reaches, "
        "`AWS-StartPortForwardingSessionToRemoteHost`; `smssh shell` takes `SSM-SessionManagerRunShell`, with a "
        "command `AWS-StartInteractiveCommand`; native targets are `sagemaker-training-job:*`."
    )
    lines.append(OWNERS)
    return "\n".join(lines) + "\n"


def calls(places: tuple[str, ...]) -> set[str]:
    """The calls of boto3 clients in these folders and files."""
    files: list[Path] = []
    for place in places:
        path = ROOT / place
        files += [path] if path.is_file() else sorted(path.rglob("*.py"))
    return {name for file in files for name in CALLS.findall(file.read_text(encoding="utf-8"))}


def operations(rooms: tuple[str, ...] = ON_LAPTOP) -> set[str]:
    """The operations of AWS that rooms of the laptop's side call."""
    files = [file for room in rooms for file in sorted((ROOT / "smssh_plugin" / room).rglob("*.py"))]
    found = (OPERATION.findall(file.read_text(encoding="utf-8")) for file in files)
    return {one or other for names in found for one, other in names}
