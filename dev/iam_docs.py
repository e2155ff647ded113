"""docs/iam.md: every policy of smssh_plugin/setup/policies.py, with who gets it and why."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import iam_uses

from smssh_plugin.setup import owners, policies
from smssh_plugin.setup.parts import PARTS, SETTING
from smssh_plugin.setup.plan import FEATURES, Plan

if TYPE_CHECKING:
    from smssh_plugin.setup.model import Policy, Statement

EVERYTHING = Plan.make(
    account="123456789012",
    job_roles=["service-role/JOB"],
    bundle_prefix="s3://bucket/prefix",
    features=FEATURES,
    bucket_keys=["arn:aws:kms:us-east-1:123456789012:key/BUCKET-KEY"],
    session_keys=["arn:aws:kms:us-east-1:123456789012:key/SESSION-KEY"],
    session_logs=["arn:aws:s3:::logs/prefix", "arn:aws:logs:us-east-1:123456789012:log-group:LOGS"],
    topics=["arn:aws:sns:us-east-1:123456789012:TOPIC"],
    key_sources=["arn:aws:s3:::keys/keys", "arn:aws:ssm:us-east-1:123456789012:parameter/KEYS"],
)
"""A plan in which every statement is there."""

PAGE = """\
# IAM

<!-- Written by dev/docs.py from smssh_plugin/setup/. -->

This page lists the policies that [`smssh setup`](commands.md#smssh-setup) makes: who gets each, what each statement is
for, and the condition that narrows it. [Set up AWS](aws.md) says how to use the command, and
[changes to requests](requests.md#who-runs-smssh-setup---apply-and---undo) which permissions `--apply` and `--undo`
need.

| part | name | who gets it | what it is |
| --- | --- | --- | --- |
{parts}

The parts that are marked as usual are made unless you name others.

A name in capitals stands for what you pass: `OWNER` for the value of the [owner scheme](#owners), `ACCOUNT` for the
account, `BUCKET/PREFIX` for `--bundle-prefix`. Without it, the bucket is `sagemaker-*-ACCOUNT`, and the statements for
it have the condition that the bucket belongs to the account (`aws:ResourceAccount`).
"""

OWNERS = """
## Owners

A node has the tag `SSHOwner` from its activation on, if `owner` or `SMSSH_OWNER` was set when the job was submitted.
The scheme (`--owner`) says what its value is. The policy for jobs lets a job make nodes of that owner only, and the
policy for people lets them log in to nodes of that owner only. **A job without an owner gets no node** with these
policies: it runs without SSH. So that nobody forgets it, set `SMSSH_OWNER_SCHEME` to the scheme where jobs are
submitted, or [`owner_scheme`](options.md): a request without an owner is then an error, or with `caller` gets the one
who submits. The owner is a part of the request from then on, and stays the same if somebody else starts its pipeline.
Training jobs with SageMaker's remote debugging have no node and no owner: see [what is left](#what-is-left).

| `--owner` | the owner is | `OWNER` in the policies | IAM holds a job to it | needs | set where jobs are submitted |
| --- | --- | --- | --- | --- | --- |
{owners}

Principals without the tag or the source identity match nothing: they are denied. With `caller`, IAM cannot compare the
owner of a new node with who submitted the job. The statements for jobs are then wider than below: there must be an
owner (`Null aws:RequestTag/SSHOwner` `false`), and the node must be one of smssh (the tag `SMSSH`).

smssh changes no trust policy, `--apply` included. With `session-tag` and `source-identity`, the part `job` has a
statement for you to add to the trust policy of the jobs' roles.
"""

TIER = f"""
## `tier`: the account

Session Manager reaches hybrid nodes only with the advanced-instances tier, a service setting of the account in one
region: `{SETTING["SettingId"]}` with the value `{SETTING["SettingValue"]}`. **It makes every hybrid node of that
account and region billable by the hour, those of others included.** `smssh setup --part tier` says how many there
are, if your credentials allow `ssm:DescribeInstanceInformation`. CloudFormation has a resource for it in the
commercial partition only; in the other partitions, `smssh setup` prints the call to make, and `--apply` makes it. The
template keeps the setting when its stack is deleted, and Terraform refuses to destroy it, because that would end
Session Manager on all hybrid nodes of the account.

The `native` transport needs neither the tier nor the part `node`.

## `document`: the account

A session document of the type Port. Set `SMSSH_SSH_DOCUMENT`, or `smssh_ssh_document` in the profile, to its name. The
part `people` allows it if both parts are made together. It has not been tried on AWS.
"""

REST = """
## What is left

Code in a job has the rights of the job's role. With these policies it can still:

- make a node that poses as another job of the same owner, because no condition key contains a job's name; clients and
  hosts refuse both of two nodes that claim one host ([security](security.md#whose-host-a-node-is));
- delete activations of others whose ids it knows, because `ssm:DeleteActivation` cannot be narrowed. It cannot list
  them;
- read the tags and the addresses of every managed node of the account;
- write the state tags of other nodes of the same owner, or with `caller` of every node of smssh;
- read every bundle of the prefix, and what `native` hosts and repacked models keep there;
- with `--with native`, announce another key for any host of the prefix, so that logins there fail, and with
  `--with repack` replace artefacts of other models: a job may write all of `hosts/` and of `repacked/`.

People and CI with these policies can do more than their owner suggests:

- **Who may submit can write every bundle of the prefix**, and jobs run what is in their bundle, with the rights of
  their own role. Give teams that must be apart a `--bundle-prefix` each.
- **No owner counts with `--with native`.** People may enter every training job of the account that has remote
  debugging on, and may switch it on for every other one (`sagemaker:UpdateTrainingJob`). IAM has no condition for the
  owner of such a target. Leave it out, or give it to few.
- People may start every pipeline of the account (`smssh debug --start`), and so let it run with its role.

Run Command needs no SSH key. smssh leaves out the part of Amazon's agent that runs its commands. The part `scp` also
denies `ssm:SendCommand` for the nodes of jobs, so that this does not depend on the agent.

A node whose role loses `ssmmessages:OpenControlChannel` can stay connected for up to an hour. To end access at once,
deregister the node.

## Limits

`smssh setup` refuses a policy with more characters than AWS takes, white space not counted:

| policy | characters |
| --- | --- |
{limits}

A trust policy may have 2,048, and the node's always has less. The name of the node role may have 64 characters with its
path (`CreateActivation`).

The tests check actions, resource types and condition keys with parliament, for every owner scheme, and the templates
with cfn-lint, for every partition. parliament does not know `ssm:SessionDocumentAccessCheck`, which AWS's service
authorization reference lists, and wants a resource for the sessions of `OwnSessions`, whose ARN AWS reports in
different forms. Whether AWS decides as documented is
[not tested](aws.md#what-has-been-tested-without-an-aws-account).
"""


def page() -> str:
    """docs/iam.md."""
    role = policies.node(EVERYTHING)
    of_parts = {
        "job": policies.job(EVERYTHING),
        "submit": policies.submit(EVERYTHING),
        "people": policies.people(EVERYTHING, own_document=True),
        "ci": policies.ci(EVERYTHING),
        "cleanup": policies.cleanup(EVERYTHING),
        "costs": policies.costs(EVERYTHING),
        "boundary": policies.boundary(EVERYTHING),
        "scp": policies.guardrails(EVERYTHING),
    }
    names = {part: policy.name for part, policy in of_parts.items()}
    names.update(node=role.name, tier="advanced-tier", document=policies.session_document(EVERYTHING))
    rows = [
        f"| `{name}`{' (usual)' if part.usual else ''} | `{names[name]}` | {part.who} | {part.what} |"
        for name, part in PARTS.items()
    ]
    parts = [
        PAGE.format(parts="\n".join(rows)),
        OWNERS.format(owners="\n".join(map(_owner, owners.SCHEMES.values()))),
    ]
    parts.append(f"\n## `node`: `{role.name}`\n\n{_trust()}\n\n{_table(role.policy)}")
    parts += [
        f"\n## `{part}`: `{policy.name}`\n\n{policy.description}\n\n{_table(policy)}"
        for part, policy in of_parts.items()
    ]
    kinds = (policies.MANAGED, policies.INLINE, policies.ORGANIZATION)
    limits = "\n".join(f"| {kind} | {limit:,} |" for kind, limit in kinds)
    return "".join([*parts, TIER, iam_uses.section(), REST.format(limits=limits)])


def _owner(scheme: owners.Scheme) -> str:
    value = "the name" if scheme.name == "team" else f"`{scheme.value}`"
    cells = [
        f"`{scheme.name}`",
        scheme.summary,
        value,
        "yes" if scheme.binds_jobs else "**no**",
        scheme.needs,
    ]
    return "| " + " | ".join([*cells, f"`{scheme.to_set}`" if "=" in scheme.to_set else scheme.to_set]) + " |"


def _trust() -> str:
    role = policies.node(EVERYTHING)
    conditions = _conditions(role.conditions)
    return (
        f"{role.description} `{role.service}` may assume it, where {conditions}. It is passed to nodes with "
        "`SSHOptions(role=...)`, so that a container has no second set of the job's rights, and the trust policy "
        "of the job's role stays as it is."
    )


def _table(policy: Policy) -> str:
    lines = ["| statement | actions | resources | condition | for |", "| --- | --- | --- | --- | --- |"]
    for statement in policy.statements:
        if not statement.resources:
            continue
        name = f"`{statement.sid}`" + (" (**deny**)" if statement.effect == "Deny" else "")
        actions = ", ".join(f"`{each}`" for each in statement.actions)
        resources = ", ".join(f"`{_shown(each)}`" for each in statement.resources)
        lines.append(
            f"| {name} | {actions} | {resources} | {_conditions(statement.conditions)} | {_why(statement)} |"
        )
    return "\n".join(lines) + "\n"


def _why(statement: Statement) -> str:
    several = len(statement.grants) > 1
    return "; ".join(
        (f"{', '.join(each.split(':')[1] for each in grant.actions)}: " if several else "") + grant.why
        for grant in statement.grants
    )


def _conditions(conditions: Any) -> str:
    return " and ".join(
        f"`{operator} {key}` {_values(value)}"
        for operator, keys in conditions.items()
        for key, value in keys.items()
    )


def _values(value: Any) -> str:
    return (
        f"`{_shown(value)}`"
        if isinstance(value, str)
        else f"`{json.dumps([_shown(each) for each in value])}`"
    )


def _shown(text: str) -> str:
    """A text of a policy with the placeholders of the page."""
    for name, shown in (("{partition}", "PARTITION"), ("{account}", "ACCOUNT"), ("123456789012", "ACCOUNT")):
        text = text.replace(name, shown)
    text = (
        text.replace("bucket/prefix", "BUCKET/PREFIX")
        .replace(":::bucket", ":::BUCKET")
        .replace("prefix/*", "PREFIX/*")
    )
    return "OWNER" if text == owners.DEFAULT_TEAM else text
