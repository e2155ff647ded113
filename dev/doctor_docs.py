"""docs/doctor.md: every check of `smssh doctor`, from the checks themselves."""

from __future__ import annotations

import live_docs

from smssh_plugin.doctor.catalogue import NAMED, SUBJECTS
from smssh_plugin.doctor.run import LIMIT_SECONDS

HEAD = """\
# Find out what is wrong

<!-- Written by dev/docs.py from smssh_plugin/doctor/. -->

`smssh doctor` looks at this machine, your AWS credentials and permissions, the settings of the account, and at a job,
a pipeline or subnets that you name. It changes nothing, and starts no session. With
[`--live`](#what-only-aws-can-settle) it tries in an account what only AWS can settle.

```console
$ smssh doctor --job Train.churn.pipeline.sagemaker
account
  problem      account.tier: the tier of hybrid nodes in eu-west-1 is 'standard': Session Manager enters none of them
               fix (an administrator of the account): run `aws ssm update-service-setting ...`
               statement: {{"Effect": "Allow", "Action": "ssm:UpdateServiceSetting", "Resource": "arn:aws:ssm:..."}}
```

| outcome | meaning |
| --- | --- |
| ok | all is well |
| problem | it keeps people from logging in, or will; `fix` says what to do, and who has to do it |
| hint | it works, and is worth knowing |
| cannot tell | the check needs a permission or an answer that it did not get |
| crash | the check failed: a mistake in smssh. The other checks go on |

`statement` is the IAM statement to add. A check is not run if one that it depends on found a problem: only the cause is
reported. `-v` shows those checks, details and times.

- `smssh doctor laptop.clock account` runs single checks, or the checks of a subject, and those that they depend on.
- `smssh doctor --list` lists the checks. Their ids stay the same over versions.
- `--json` prints an object with `schema` (1), `smssh` (the version), `status` (the exit status) and `checks`, in the
  order of the table below. Each check has `id`, `subject`, `outcome`, `message`, `fix`, `who`, `statement`, `details`,
  `waits_for` (the checks whose problem comes first) and `seconds`. All members are always there; `fix`, `who` and
  `statement` may be null. Texts of AWS and of job logs are in it as they are: escape them before a terminal shows them.
- The exit status is 1 with a problem or a crash. Without them it is 8 if a check cannot tell, else 0.
- Checks run side by side. Each has {limit:g} seconds; one that takes longer "cannot tell".

`smssh doctor --subnet subnet-1 --security-group sg-1` looks at the network of a [VPC](vpc.md) before a job is
submitted: the default route, endpoints for `ssm`, `ssmmessages` and `s3`, private DNS, and the security groups of job
and endpoints.
With `--job` and `--pipeline` it looks at the subnets that these name. Network ACLs, firewalls, peered VPCs, policies of
endpoints and IPv6 are not looked at. If an endpoint is missing, and a route leads to another network or another account
owns the VPC, it is "cannot tell".

Plugins add checks of their own by the hook [`smssh_checks`](hooks.md).

## How permissions are looked at

If you may call `iam:SimulatePrincipalPolicy` on yourself, IAM's own simulation answers. It does not know session
policies, policies of VPC endpoints and the tags of hosts: what depends on tags is "cannot tell". A denial by a policy
of the organization is "cannot tell", too, because the simulation does not know all its conditions.

Otherwise, doctor makes calls that change nothing: it lists nodes, and asks for a node, a session, a job and a pipeline
that do not exist. A denial there is a problem only for an action that cannot be narrowed to resources, or if AWS names
an explicit denial. The message "allowed (by a call that changes nothing)" means only that the call was not denied: AWS
does not document for every call whether it checks the permission before the name.

Those calls are in CloudTrail, failed or denied, with the user agent `smssh-plugin/VERSION`.

[The permissions](requests.md#who-runs-smssh-doctor) that doctor itself uses are optional.

## Checks

| check | looks at | runs after |
| --- | --- | --- |
"""


def page() -> str:
    """docs/doctor.md."""
    rows = []
    for subject, checks in SUBJECTS.items():
        for check in checks:
            how = f" (with `{NAMED[subject]}`)" if subject in NAMED else ""
            after = ", ".join(f"`{each}`" for each in check.after) or "-"
            rows.append(f"| `{check.id}` | {check.summary}{how} | {after} |")
    return HEAD.format(limit=LIMIT_SECONDS) + "\n".join(rows) + "\n" + live_docs.section()
