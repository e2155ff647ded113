"""The policies, as data: the only place that says which principal may do what, and why.

What `smssh setup` prints and writes, docs/iam.md, and the tables in docs/requests.md come from here; tests compare the
actions with the calls in the code. Resource types and condition keys are those of AWS's service authorization
reference.

Two rules hold for every statement. A condition on tags of nodes never stands in a statement with documents, which have
no such tags: it would deny them all. A condition `ForAllValues` is true for a request without the key, so a condition
`Null` on the same key stands beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .model import Grant, Policy, Role, Statement, both
from .owners import TAG

if TYPE_CHECKING:
    from .plan import Plan

__all__ = [
    "ACTIVATION_KEYS",
    "IDENTITY_KEYS",
    "STATE_KEYS",
    "boundary",
    "ci",
    "cleanup",
    "costs",
    "guardrails",
    "job",
    "node",
    "people",
    "submit",
]

STATE_KEYS = ("SMSSHState", "SMSSHHold", "SMSSHPhase", "SMSSHCourse", "SMSSHFirst")
"""The tags of its own node that a job changes."""
IDENTITY_KEYS = (
    "SMSSH",
    "SMSSHJob",
    "SMSSHKind",
    "SMSSHHost",
    "SMSSHStep",
    TAG,
    "SMSSHHostKey",
    "SMSSHPort",
    "SMSSHControlPort",
    "SMSSHUser",
    "SMSSHCreated",
)
"""The tags that say whose host a node is: set by its activation, and changed by nobody."""
ACTIVATION_KEYS = (*IDENTITY_KEYS, "SMSSHPhase", "SMSSHCourse")
"""All tags that an activation can have."""

MANAGED = ("a managed policy", 6_144)
INLINE = ("the inline policies of a role", 10_240)
ORGANIZATION = ("a service control policy", 5_120)
"""What a policy is, and the most characters without white space that it may have (IAM's and Organizations' quotas)."""

NODES = "arn:{partition}:ssm:*:{account}:managed-instance/mi-*"
"""Hybrid nodes; instances of EC2 are not."""
SSH_DOCUMENT = "AWS-StartSSHSession"
FORWARD_DOCUMENTS = ("AWS-StartPortForwardingSession", "AWS-StartPortForwardingSessionToRemoteHost")
CHANNELS = (
    "ssmmessages:CreateControlChannel",
    "ssmmessages:CreateDataChannel",
    "ssmmessages:OpenControlChannel",
    "ssmmessages:OpenDataChannel",
)


def session_document(plan: Plan) -> str:
    """The name of a session document of one's own."""
    return f"{plan.name}-ssh"


# Long: a list of statements, one after another.
def node(plan: Plan) -> Role:
    """The role of managed nodes: it can be online, be logged in to, and nothing else."""
    statements = [
        Statement(
            "Agent",
            (
                Grant(
                    ("ssm:UpdateInstanceInformation", *CHANNELS),
                    "the agent: that the host is online, and its sessions",
                ),
            ),
            ("*",),
            "`*`",
        )
    ]
    if plan.session_keys:
        statements.append(
            Statement(
                "SessionKey",
                (Grant(("kms:Decrypt",), "`smssh shell`, if the account encrypts sessions"),),
                plan.session_keys,
                "the account's key for sessions",
            )
        )
    buckets = [each for each in plan.session_logs if ":s3:" in each]
    if buckets:
        why = "`smssh shell`, if the account keeps logs of sessions in S3"
        statements += [
            Statement(
                "LogsToS3",
                (Grant(("s3:PutObject",), why),),
                tuple(f"{each.rstrip('/*')}/*" for each in buckets),
                "the prefix of session logs",
            ),
            Statement(
                "EncryptionOfLogs",
                (Grant(("s3:GetEncryptionConfiguration",), why),),
                tuple(dict.fromkeys(each.partition("/")[0] for each in buckets)),
                "the bucket of session logs",
            ),
        ]
    groups = [each for each in plan.session_logs if ":logs:" in each]
    if groups:
        why = "`smssh shell`, if the account keeps logs of sessions in CloudWatch"
        bare = [each.removesuffix(":*") for each in groups]
        statements += [
            Statement(
                "LogsToCloudWatch",
                (Grant(("logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"), why),),
                tuple(text for each in bare for text in (each, f"{each}:log-stream:*")),
                "the log group of session logs",
            ),
            Statement(
                "LogGroups",
                (Grant(("logs:DescribeLogGroups",), why),),
                ("*",),
                "every log group: it takes no narrower resource",
            ),
        ]
    return Role(
        plan.node_role.name,
        plan.node_role.path,
        "The managed nodes that smssh makes of the containers of SageMaker jobs.",
        "ssm.amazonaws.com",
        {
            "StringEquals": {"aws:SourceAccount": "{account}"},
            "ArnLike": {"aws:SourceArn": "arn:{partition}:ssm:*:{account}:*"},
        },
        Policy("session-manager", "Session Manager only.", tuple(statements), *INLINE),
    )


# Long: a list of statements, one after another.
def job(plan: Plan) -> Policy:
    """What the role of a job needs besides what it has."""
    statements = [
        *_read_bundles(plan, "SageMaker mounts the bundle with the job's role"),
        Statement(
            "Activate",
            (
                Grant(
                    ("ssm:CreateActivation",), "`ssm`: a managed node for each host", ("create_activation",)
                ),
            ),
            ("*",),
            "`*`",
            both(
                plan.owner.of_request(),
                {"Null": {"aws:RequestTag/SMSSHJob": "false", "aws:TagKeys": "false"}},
                {"ForAllValues:StringEquals": {"aws:TagKeys": ACTIVATION_KEYS}},
            ),
        ),
        Statement(
            "TagNew",
            (
                Grant(
                    ("ssm:AddTagsToResource",),
                    f"`ssm`: the tags of an activation ({TAG}, the job, its host key), which its nodes get. IAM's "
                    "reference does not list this resource; policies by AWS for jobs that are managed nodes allow it",
                ),
            ),
            (plan.node_role.arn,),
            "the role in SMSSH_ROLE",
        ),
        Statement(
            "TagState",
            (
                Grant(
                    ("ssm:AddTagsToResource",),
                    f"`ssm`: the state tags of a registered node: {', '.join(STATE_KEYS)}",
                    ("add_tags_to_resource",),
                ),
            ),
            (NODES,),
            "managed instances",
            both(
                plan.owner.of_job("aws:ResourceTag"),
                {"Null": {"aws:TagKeys": "false"}},
                {"ForAllValues:StringEquals": {"aws:TagKeys": STATE_KEYS}},
            ),
        ),
        Statement(
            "Pass",
            (Grant(("iam:PassRole",), "`ssm`: the node gets that role"),),
            (plan.node_role.arn,),
            "the role in SMSSH_ROLE",
            {"StringEquals": {"iam:PassedToService": "ssm.amazonaws.com"}},
        ),
        Statement(
            "Activations",
            (
                Grant(("ssm:DeleteActivation",), "`ssm`: once it is used", ("delete_activation",)),
                Grant(
                    ("ssm:DescribeInstanceInformation",),
                    "`ssm`: hosts with `SMSSH_HOLD_HOSTS=all`, and interrupted registrations",
                    ("describe_instance_information",),
                ),
            ),
            ("*",),
            "`*`",
        ),
        Statement(
            "End",
            (
                Grant(
                    ("ssm:DeregisterManagedInstance",),
                    "`ssm`: at the job's end",
                    ("deregister_managed_instance",),
                ),
            ),
            (NODES,),
            "managed instances",
            plan.owner.of_job("ssm:resourceTag"),
        ),
        Statement(
            "Hosts",
            (
                Grant(
                    ("ssm:ListTagsForResource",),
                    "`ssm`: hosts with `SMSSH_HOLD_HOSTS=all`",
                    ("list_tags_for_resource",),
                ),
            ),
            (NODES,),
            "managed instances",
        ),
        *_job_extras(plan),
    ]
    return Policy(
        f"{plan.name}-job",
        "For the roles of SageMaker jobs that can be logged in to by smssh.",
        tuple(statements),
        *MANAGED,
    )


# Long: a list of statements, one after another.
def _job_extras(plan: Plan) -> list[Statement]:
    """What only some jobs need."""
    found = []
    native = "native" in plan.features
    if native:
        found += [
            Statement(
                "Native",
                (
                    Grant(
                        ("s3:PutObject",),
                        "`transport='native'`: the host key and the state",
                        ("put_object",),
                    ),
                ),
                (_objects(plan, "hosts/*"),),
                "`BUCKET/PREFIX/hosts/*`",
                _own_bucket(plan),
            ),
            Statement(
                "NativeAgent",
                (Grant(CHANNELS, "`transport='native'`: SageMaker's agent has the job's role"),),
                ("*",),
                "`*`",
            ),
        ]
    if plan.bucket_keys:
        grants = [
            Grant(("kms:Decrypt",), "if the bundle is encrypted with a key of KMS, such as `s3_encryption`")
        ]
        if native:
            grants.append(Grant(("kms:GenerateDataKey",), "the same, for what `native` writes"))
        found.append(Statement("BucketKey", tuple(grants), plan.bucket_keys, "the bucket's key"))
    if "repack" in plan.features:
        found.append(
            Statement(
                "Repack",
                (
                    Grant(
                        ("s3:PutObject",),
                        "`repack=True`, if a step is added: its output artefact, with the model's role",
                    ),
                ),
                (_objects(plan, "repacked/*"),),
                "`BUCKET/PREFIX/repacked/*`",
                _own_bucket(plan),
            )
        )
    if plan.topics:
        found.append(
            Statement(
                "Notify", (Grant(("sns:Publish",), "`notify`", ("publish",)),), plan.topics, "the topics"
            )
        )
    found += _key_sources(plan, ", without a bundle only", ("get_object",))
    found.append(
        Statement(
            "Account",
            (
                Grant(
                    ("sts:GetCallerIdentity",),
                    "the owner of the bucket, in transform jobs and endpoints, whose containers know no ARN; for "
                    "`authorized_keys` in S3 only",
                    ("get_caller_identity",),
                ),
            ),
            (),
            "`*` (needs no policy)",
        )
    )
    return found


# Long: a list of statements, one after another.
def submit(plan: Plan) -> Policy:
    """What submitting a job with SSH needs besides what submitting it needs."""
    statements = [
        Statement(
            "Bundles",
            (
                Grant(
                    ("s3:GetObject",),
                    "comparing the stored bundle; `authorized_keys` in S3",
                    ("head_object", "get_object"),
                ),
                Grant(
                    ("s3:PutObject",), "storing the bundle, and renewing it when it is old", ("put_object",)
                ),
            ),
            (_objects(plan, "*"),),
            "`BUCKET/PREFIX/*`",
            _own_bucket(plan),
        ),
        Statement(
            "ListBundles",
            (Grant(("s3:ListBucket",), "whether the bundle is complete, and how old", ("get_paginator",)),),
            (_bucket(plan),),
            "`BUCKET`",
            both(_own_bucket(plan), _below_prefix(plan)),
        ),
    ]
    if plan.bucket_keys:
        statements.append(
            Statement(
                "BucketKey",
                (
                    Grant(
                        ("kms:GenerateDataKey", "kms:Decrypt"),
                        "if bundles are encrypted with a key of KMS, such as `s3_encryption`",
                    ),
                ),
                plan.bucket_keys,
                "the bucket's key",
            )
        )
    statements += [
        Statement(
            "Account",
            (
                Grant(
                    ("sts:GetCallerIdentity",),
                    "the account that the bucket must belong to, if its address names none",
                    ("get_caller_identity",),
                ),
            ),
            (),
            "`*` (needs no policy)",
        ),
        Statement(
            "Pipelines",
            (
                Grant(
                    ("sagemaker:DescribePipeline",),
                    "`enable`, when an execution is started, and `smssh bundle ... --pipeline`: which bundles it uses",
                    ("describe_pipeline",),
                ),
            ),
            ("arn:{partition}:sagemaker:*:{account}:pipeline/*",),
            "the pipeline",
        ),
        *_key_sources(plan, "", ()),
    ]
    return Policy(
        f"{plan.name}-submit",
        "For people and pipelines that submit SageMaker jobs with smssh.",
        tuple(statements),
        *MANAGED,
    )


# Long: a list of statements, one after another.
def people(plan: Plan, *, own_document: bool = False) -> Policy:
    """What logging in and debugging need.

    Args:
        plan: the answers.
        own_document: whether the account has a session document of ours.
    """
    documents = [SSH_DOCUMENT]
    where = f"the document `{SSH_DOCUMENT}`"
    if "forward" in plan.features:
        documents += FORWARD_DOCUMENTS
    if "shell" in plan.features:
        documents.append("AWS-StartInteractiveCommand")
    arns = [f"arn:{{partition}}:ssm:*::document/{each}" for each in documents]
    mine = ["SSM-SessionManagerRunShell"] if "shell" in plan.features else []
    mine += [session_document(plan)] if own_document else []
    arns += [f"arn:{{partition}}:ssm:*:{{account}}:document/{each}" for each in mine]
    statements = [
        Statement(
            "Nodes",
            (Grant(("ssm:StartSession",), "logging in", ("start_session",)),),
            (NODES,),
            f"managed instances; a condition on `ssm:resourceTag/{TAG}` can narrow it",
            both(
                plan.owner.of_node(),
                {"BoolIfExists": {"ssm:SessionDocumentAccessCheck": "true"}},
            ),
        ),
        Statement(
            "Documents",
            (
                Grant(
                    ("ssm:StartSession",),
                    "logging in; documents have no tags of yours, so a condition on tags would deny them all",
                ),
            ),
            tuple(arns),
            f"{where}, in a statement of its own",
        ),
        Statement(
            "Channel",
            (Grant(("ssmmessages:OpenDataChannel",), "each session: its data channel"),),
            ("*",),
            "`*`",
        ),
        Statement(
            "OwnSessions",
            (
                Grant(("ssm:TerminateSession",), "the end of each session", ("terminate_session",)),
                Grant(("ssm:ResumeSession",), "after a cut of the network", ("resume_session",)),
            ),
            ("*",),
            # Their ids begin with the name of the user or of the role session, not with ${aws:userid}.
            "`*`, where `ssm:resourceTag/aws:ssmmessages:session-id` equals `${aws:userid}`",
            {"StringEquals": {"ssm:resourceTag/aws:ssmmessages:session-id": "${aws:userid}"}},
        ),
        Statement(
            "Find",
            (
                Grant(
                    ("ssm:DescribeInstanceInformation",),
                    "finding the host",
                    ("describe_instance_information",),
                ),
            ),
            ("*",),
            "`*`",
        ),
        Statement(
            "HostKeys",
            (Grant(("ssm:ListTagsForResource",), "its port and host key", ("list_tags_for_resource",)),),
            (NODES,),
            "managed instances",
        ),
        *_debugging(),
        *_people_extras(plan),
    ]
    return Policy(
        f"{plan.name}-people",
        "For people and programs that log in to SageMaker jobs by smssh, or debug pipelines with it.",
        tuple(statements),
        *MANAGED,
    )


# Long: a list of statements, one after another.
def _debugging() -> list[Statement]:
    """Pipeline addresses, the reasons why a login is not possible yet, and `smssh debug`."""
    return [
        Statement(
            "Pipelines",
            (
                Grant(
                    ("sagemaker:ListPipelineExecutions",),
                    "pipeline addresses",
                    ("list_pipeline_executions",),
                ),
                Grant(
                    ("sagemaker:ListPipelineExecutionSteps",),
                    "the same",
                    ("list_pipeline_execution_steps",),
                ),
                Grant(
                    ("sagemaker:DescribePipelineExecution",),
                    "the reason why a login to a step is not possible yet; `smssh debug`",
                    ("describe_pipeline_execution",),
                ),
                Grant(
                    ("sagemaker:DescribePipelineDefinitionForExecution",),
                    "the same: whether there is such a step",
                    ("describe_pipeline_definition_for_execution",),
                ),
                Grant(
                    ("sagemaker:DescribePipeline",),
                    "`smssh debug --fixes`: whether there are such steps",
                    ("describe_pipeline",),
                ),
                Grant(
                    ("sagemaker:StartPipelineExecution",),
                    "`smssh debug --start`",
                    ("start_pipeline_execution",),
                ),
            ),
            (
                "arn:{partition}:sagemaker:*:{account}:pipeline/*",
                "arn:{partition}:sagemaker:*:{account}:pipeline/*/execution/*",
            ),
            "the pipeline and its executions",
        ),
        Statement(
            "Jobs",
            (
                Grant(
                    ("sagemaker:DescribeTrainingJob",),
                    "a job that is not, or not yet, a managed node; `smssh debug`: whether a held host is one of "
                    "the job, and why a job failed",
                    ("describe_training_job",),
                ),
                Grant(("sagemaker:DescribeProcessingJob",), "the same", ("describe_processing_job",)),
                Grant(("sagemaker:DescribeTransformJob",), "the same", ("describe_transform_job",)),
                Grant(
                    ("sagemaker:DescribeModel",),
                    "whether a transform job without SSH in its own request has it by its model; without this "
                    "permission, smssh waits for the job",
                    ("describe_model",),
                ),
            ),
            (
                "arn:{partition}:sagemaker:*:{account}:training-job/*",
                "arn:{partition}:sagemaker:*:{account}:processing-job/*",
                "arn:{partition}:sagemaker:*:{account}:transform-job/*",
                "arn:{partition}:sagemaker:*:{account}:model/*",
            ),
            "the job, or the model",
        ),
        Statement(
            "JobNames",
            (
                Grant(
                    ("sagemaker:ListTrainingJobs",),
                    "a step without a managed node whose ARN does not show the capitals of its job's name",
                    ("list_training_jobs",),
                ),
                Grant(("sagemaker:ListProcessingJobs",), "the same", ("list_processing_jobs",)),
                Grant(("sagemaker:ListTransformJobs",), "the same", ("list_transform_jobs",)),
            ),
            ("*",),
            "`*`",
        ),
        Statement(
            "JobLogs",
            (
                Grant(
                    ("logs:DescribeLogStreams",),
                    "`smssh debug`, `smssh doctor`: the last lines of a job's logs",
                    ("describe_log_streams",),
                ),
                Grant(("logs:GetLogEvents",), "the same", ("get_log_events",)),
                Grant(
                    ("logs:FilterLogEvents",),
                    "`smssh debug`: the last lines of all jobs of an execution in one call; optional",
                    ("filter_log_events",),
                ),
            ),
            (
                "arn:{partition}:logs:*:{account}:log-group:/aws/sagemaker/*",
                "arn:{partition}:logs:*:{account}:log-group:/aws/sagemaker/*:log-stream:*",
            ),
            "SageMaker's log groups, and their streams",
        ),
    ]


def _people_extras(plan: Plan) -> list[Statement]:
    """What only some people need."""
    found = []
    if "native" in plan.features:
        found += [
            Statement(
                "NativeHosts",
                (Grant(("ssm:StartSession",), "logging in by SageMaker's remote debugging"),),
                ("*",),
                "`*`, where `ssm:resourceTag/aws:ssmmessages:target-id` is like `sagemaker-training-job:*`",
                {
                    "StringLike": {
                        "ssm:resourceTag/aws:ssmmessages:target-id": "sagemaker-training-job:*",
                    }
                },
            ),
            Statement(
                "RemoteDebug",
                (Grant(("sagemaker:UpdateTrainingJob",), "`smssh remote-debug`", ("update_training_job",)),),
                ("arn:{partition}:sagemaker:*:{account}:training-job/*",),
                "the training job",
            ),
            Statement(
                "NativeHostKeys",
                (Grant(("s3:GetObject",), "the host keys of `native` hosts"),),
                (_objects(plan, "hosts/*"),),
                "`BUCKET/PREFIX/hosts/*`",
                _own_bucket(plan),
            ),
            Statement(
                # A condition on s3:prefix would never hold: reading an object has none.
                "NativeNotYet",
                (
                    Grant(
                        ("s3:ListBucket",),
                        "that a `native` host has not announced its key yet; without it S3 says that access is denied",
                    ),
                ),
                (_bucket(plan),),
                "`BUCKET`",
                _own_bucket(plan),
            ),
        ]
    if plan.session_keys:
        found.append(
            Statement(
                "SessionKey",
                (
                    Grant(
                        ("kms:GenerateDataKey",),
                        "sessions that the account encrypts",
                        ("generate_data_key",),
                    ),
                ),
                plan.session_keys,
                "the account's key for sessions",
            )
        )
    return found


def ci(plan: Plan) -> Policy:
    """What running pipelines and jobs needs, for a role of CI that has the policies of people and of submitting."""
    kinds = ("training-job", "processing-job", "transform-job", "hyper-parameter-tuning-job", "model")
    statements = (
        Statement(
            "Pipelines",
            (
                Grant(
                    (
                        "sagemaker:CreatePipeline",
                        "sagemaker:UpdatePipeline",
                        "sagemaker:AddTags",
                        "sagemaker:ListTags",
                    ),
                    "`pipeline.upsert()`, which reads the tags of a pipeline that is there before it adds others",
                ),
                Grant(("sagemaker:StartPipelineExecution",), "`pipeline.start()`"),
            ),
            ("arn:{partition}:sagemaker:*:{account}:pipeline/*",),
            "pipelines",
        ),
        Statement(
            "Jobs",
            (
                Grant(
                    (
                        "sagemaker:CreateTrainingJob",
                        "sagemaker:CreateProcessingJob",
                        "sagemaker:CreateTransformJob",
                        "sagemaker:CreateHyperParameterTuningJob",
                        "sagemaker:CreateModel",
                        "sagemaker:AddTags",
                    ),
                    "jobs that are submitted without a pipeline",
                ),
            ),
            tuple(f"arn:{{partition}}:sagemaker:*:{{account}}:{each}/*" for each in kinds),
            "jobs and models",
        ),
        Statement(
            "PassJobRoles",
            (Grant(("iam:PassRole",), "pipelines and jobs get their roles"),),
            tuple(each.arn for each in plan.job_roles),
            "the roles of jobs and pipelines",
            {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
        ),
    )
    return Policy(
        f"{plan.name}-ci",
        "For the role of a CI that runs SageMaker pipelines; together with the policies for people and submitting.",
        statements,
        *MANAGED,
    )


# Long: a list of statements, one after another.
def cleanup(plan: Plan) -> Policy:
    """What removing stale nodes and activations needs; nodes without smssh's tags are out of its reach."""
    kinds = ("training-job", "processing-job", "transform-job")
    statements = [
        Statement(
            "Find",
            (
                Grant(
                    ("ssm:DescribeInstanceInformation",),
                    "the nodes with smssh's tags, and each again before it is removed",
                    ("describe_instance_information",),
                ),
                Grant(
                    ("ssm:DescribeActivations",),
                    "the activations of the account, in whose description their tags are",
                    ("describe_activations",),
                ),
            ),
            ("*",),
            "`*`",
        ),
        Statement(
            "Tags",
            (
                Grant(
                    ("ssm:ListTagsForResource",),
                    "the tags of those that are not online",
                    ("list_tags_for_resource",),
                ),
            ),
            (NODES,),
            "managed instances",
        ),
        Statement(
            "Jobs",
            (
                Grant(("sagemaker:DescribeTrainingJob",), "whether it has ended", ("describe_training_job",)),
                Grant(("sagemaker:DescribeProcessingJob",), "the same", ("describe_processing_job",)),
                Grant(("sagemaker:DescribeTransformJob",), "the same", ("describe_transform_job",)),
            ),
            tuple(f"arn:{{partition}}:sagemaker:*:{{account}}:{each}/*" for each in kinds),
            "jobs",
        ),
        Statement(
            "Deregister",
            (Grant(("ssm:DeregisterManagedInstance",), "`--apply`", ("deregister_managed_instance",)),),
            (NODES,),
            "managed instances, where `ssm:resourceTag/SMSSH` is present",
            _present("SMSSH", "SMSSHJob", "SMSSHKind"),
        ),
        Statement(
            "DeleteActivation",
            (
                Grant(
                    ("ssm:DeleteActivation",),
                    "`--apply`; no condition is possible",
                    ("delete_activation",),
                ),
            ),
            ("*",),
            "`*`",
        ),
    ]
    if "helper" in plan.features:
        statements.append(
            Statement(
                "DeregisterHelper",
                (Grant(("ssm:DeregisterManagedInstance",), "`--apply --include-helper`"),),
                (NODES,),
                "managed instances with the tags of sagemaker-ssh-helper",
                _present("SSHOwner", "SSHCreator", "SSHTimestamp"),
            )
        )
    return Policy(
        f"{plan.name}-cleanup",
        "For the person or role that removes what jobs left behind, by smssh cleanup.",
        tuple(statements),
        *MANAGED,
    )


# Long: a list of statements, one after another.
def costs(plan: Plan) -> Policy:
    """What summing what SSH in jobs cost needs; all of it reads."""
    kinds = ("training-job", "processing-job", "transform-job", "model")
    statements = [
        Statement(
            "Find",
            (
                Grant(
                    (
                        "sagemaker:ListTrainingJobs",
                        "sagemaker:ListProcessingJobs",
                        "sagemaker:ListTransformJobs",
                    ),
                    "the jobs that ran",
                    ("list_training_jobs", "list_processing_jobs", "list_transform_jobs"),
                ),
                Grant(("sagemaker:ListPipelines",), "the pipelines of jobs; optional", ("list_pipelines",)),
                Grant(
                    ("ssm:DescribeInstanceInformation",),
                    "hosts of endpoints, and the owners of jobs that run; optional",
                ),
            ),
            ("*",),
            "`*`",
        ),
        Statement(
            "Jobs",
            (
                Grant(
                    (
                        "sagemaker:DescribeTrainingJob",
                        "sagemaker:DescribeProcessingJob",
                        "sagemaker:DescribeTransformJob",
                    ),
                    "their times and instances, and whether they have SSH",
                    ("describe_training_job", "describe_processing_job", "describe_transform_job"),
                ),
                Grant(
                    ("sagemaker:DescribeModel",),
                    "the same for transform jobs; optional",
                    ("describe_model",),
                ),
            ),
            tuple(f"arn:{{partition}}:sagemaker:*:{{account}}:{each}/*" for each in kinds),
            "jobs, or the model",
        ),
        Statement(
            "Executions",
            (
                Grant(
                    ("sagemaker:ListPipelineExecutions",),
                    "the pipelines of jobs; optional",
                    ("list_pipeline_executions",),
                ),
            ),
            ("arn:{partition}:sagemaker:*:{account}:pipeline/*",),
            "pipelines",
        ),
        Statement(
            "Tags",
            (
                Grant(
                    ("ssm:ListTagsForResource",),
                    "hosts of endpoints, and the owners of jobs that run; optional",
                ),
            ),
            (NODES,),
            "managed instances",
        ),
        Statement(
            "JobLogs",
            (Grant(("logs:FilterLogEvents",), "hold minutes; optional", ("filter_log_events",)),),
            ("arn:{partition}:logs:*:{account}:log-group:/aws/sagemaker/*",),
            "SageMaker's log groups",
        ),
        Statement(
            "Options",
            (
                Grant(
                    ("s3:GetObject",),
                    "the owner of an ended job, which its bundle names; optional",
                    ("get_object",),
                ),
            ),
            (_objects(plan, "*/options.json"),),
            "`BUCKET/PREFIX/*/options.json`",
            _own_bucket(plan),
        ),
        Statement(
            # A condition on s3:prefix would never hold: reading an object has none.
            "OptionsGone",
            (
                Grant(
                    ("s3:ListBucket",),
                    "that a bundle has been deleted; without it S3 says that access is denied, and no further one is "
                    "read; optional",
                ),
            ),
            (_bucket(plan),),
            "`BUCKET`",
            _own_bucket(plan),
        ),
        Statement(
            "Prices",
            (Grant(("pricing:GetProducts",), "prices; optional", ("get_products",)),),
            ("*",),
            "`*`",
        ),
    ]
    if plan.bucket_keys:
        statements.append(
            Statement(
                "BucketKey",
                (Grant(("kms:Decrypt",), "the same as `s3:GetObject`, if bundles are encrypted; optional"),),
                plan.bucket_keys,
                "the bucket's key",
            )
        )
    return Policy(
        f"{plan.name}-costs",
        "For the person or role that sums what SSH in jobs took and cost, by smssh costs.",
        tuple(statements),
        *MANAGED,
    )


def _present(*tags: str) -> dict[str, dict[str, str]]:
    """The condition that a node has some tags."""
    return {"Null": {f"ssm:resourceTag/{tag}": "false" for tag in tags}}


def _protected() -> list[Statement]:
    """What nobody should do to the nodes of jobs."""
    return [
        Statement(
            "KeepIdentity",
            (
                Grant(
                    ("ssm:AddTagsToResource", "ssm:RemoveTagsFromResource"),
                    "whose host a node is, and its host key, cannot be changed once it is registered",
                ),
            ),
            (NODES,),
            "managed instances",
            {"ForAnyValue:StringEquals": {"aws:TagKeys": IDENTITY_KEYS}},
            effect="Deny",
        ),
        Statement(
            "KeepRole",
            (Grant(("ssm:UpdateManagedInstanceRole",), "a node of a job keeps its role"),),
            (NODES,),
            "managed instances of smssh",
            {"Null": {"ssm:resourceTag/SMSSH": "false"}},
            effect="Deny",
        ),
    ]


def boundary(plan: Plan) -> Policy:
    """A permissions boundary for job roles: all that their policies allow, except what other jobs must not suffer."""
    statements = (
        Statement(
            "All",
            (Grant(("*",), "a boundary allows nothing by itself; the role's policies do"),),
            ("*",),
            "`*`",
        ),
        Statement(
            "OwnerIsKnown",
            (Grant(("ssm:CreateActivation",), "a node without an owner cannot be made"),),
            ("*",),
            "`*`",
            {"Null": {f"aws:RequestTag/{TAG}": "true"}},
            effect="Deny",
        ),
        *_protected(),
    )
    return Policy(
        f"{plan.name}-boundary",
        "Permissions boundary for the roles of SageMaker jobs that can be logged in to by smssh.",
        statements,
        *MANAGED,
    )


def guardrails(plan: Plan) -> Policy:
    """A service control policy: what nobody in the organization's accounts should do to the nodes of jobs."""
    statements = (
        *_protected(),
        Statement(
            "NoRunCommand",
            (
                Grant(
                    ("ssm:SendCommand",),
                    "Run Command needs no SSH key: it is denied, although smssh's agent runs no commands",
                ),
            ),
            (NODES,),
            "managed instances of smssh",
            {"Null": {"ssm:resourceTag/SMSSH": "false"}},
            effect="Deny",
        ),
    )
    return Policy(
        f"{plan.name}-scp",
        "Service control policy that protects the containers that smssh makes managed nodes of.",
        statements,
        *ORGANIZATION,
    )


def _read_bundles(plan: Plan, why: str) -> list[Statement]:
    return [
        Statement(
            "ReadBundles",
            (Grant(("s3:GetObject",), why),),
            (_objects(plan, "*"),),
            "`BUCKET/PREFIX/*`",
            _own_bucket(plan),
        ),
        Statement(
            "ListBundles",
            (Grant(("s3:ListBucket",), "the same"),),
            (_bucket(plan),),
            "`BUCKET`",
            both(_own_bucket(plan), _below_prefix(plan)),
        ),
    ]


def _key_sources(plan: Plan, when: str, calls: tuple[str, ...]) -> list[Statement]:
    """Reading public keys from where `authorized_keys` names."""
    found = []
    objects = tuple(each for each in plan.key_sources if ":s3:" in each)
    if objects:
        found.append(
            Statement(
                "KeysInS3",
                (Grant(("s3:GetObject",), f"`authorized_keys` in S3{when}", calls),),
                objects,
                "the object",
            )
        )
    parameters = tuple(each for each in plan.key_sources if ":ssm:" in each)
    if parameters:
        found.append(
            Statement(
                "KeysInParameters",
                (
                    Grant(
                        ("ssm:GetParameter",), f"`authorized_keys` in a parameter{when}", ("get_parameter",)
                    ),
                ),
                parameters,
                "the parameter",
            )
        )
    return found


def _bucket(plan: Plan) -> str:
    return f"arn:{{partition}}:s3:::{plan.bucket}"


def _objects(plan: Plan, below: str) -> str:
    return f"{_bucket(plan)}/{plan.prefix}/{below}"


def _own_bucket(plan: Plan) -> dict[str, dict[str, str]]:
    """A bucket of a pattern could be anybody's."""
    return {"StringEquals": {"aws:ResourceAccount": "{account}"}} if plan.own_bucket else {}


def _below_prefix(plan: Plan) -> dict[str, dict[str, str]]:
    return {"StringLike": {"s3:prefix": f"{plan.prefix}/*"}}
