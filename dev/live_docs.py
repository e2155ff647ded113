"""What `smssh doctor --live` tries: a section of docs/doctor.md; and the table of what is tested, in docs/aws.md."""

from __future__ import annotations

from pathlib import Path

from smssh_plugin.durations import format_duration
from smssh_plugin.live.job import HOLD_SECONDS, MAX_SECONDS
from smssh_plugin.live.names import JOB_SECONDS, RUN_SECONDS
from smssh_plugin.live.questions import SUBJECTS
from smssh_plugin.live.show import Bill, cost
from smssh_plugin.live.steps import STEPS
from smssh_plugin.live.wanted import INSTANCE_TYPE

AWS = Path(__file__).resolve().parents[1] / "docs" / "aws.md"
BEGIN = "<!-- Written by dev/docs.py from smssh_plugin/live/questions.py. -->\n"
END = "<!-- The end of what dev/docs.py writes. -->\n"

SECTION = """
## What only AWS can settle

The project's tests have no AWS account, and rely on what AWS documents, and on public evidence where it does not.
`smssh doctor --live` tries that in an account, with the statements that [`smssh setup`](aws.md) makes, and fills in the
[table of what only AWS can show](aws.md#what-has-been-tested-without-an-aws-account), as Markdown for an issue.

```console
$ smssh doctor --live                     # shows the steps, the time, the cost and the permissions
$ smssh doctor --live --yes 123456789012  # tries it, in this account and no other
$ smssh doctor --live owner --yes 123456789012 > answers.md
$ smssh doctor --live --jobs --image URI  # the same with the steps that need a job, and what the job costs
```

The first one changes nothing, unless you type the account id: at a terminal it asks for it.

- **Cost**: {cost}. It takes some
  minutes, and tries nothing after {limit}. Choose an account for tests: service control policies may deny what
  smssh's own policies allow.
- **What it makes** is named `smssh-live-*`: three roles, an activation at a time, and one managed node without an
  agent, whose key belongs to nobody, so that it is never online and cannot get credentials. Only you can assume the
  role for trials, for {limit} at most; it reaches only nodes of the run.
- **What it removes**: all of it, at the end, after an error and after Ctrl-C or SIGTERM. What is left by a run that was
  killed, or that could not remove something, is removed by the next run with `--yes` in the same region: at once on the
  machine where it ran, elsewhere when its time is over. The plan shows it, that of other regions too.
  `smssh doctor --live tier --yes ACCOUNT_ID` removes it and makes nothing new. Roles that a run has not tagged are
  never touched.
- **An answer** is `yes` (AWS does what smssh relies on), `no` (it does not: please open an issue), `could not be tried`
  (the calls failed for another reason, or their answers do not tell), or `not tried`. A denial counts only if the
  same call with all statements was allowed, if it is for the action in question, and if no policy of the organization
  made it.
- **The exit status** is 1 if an answer is `no`; without one it is 8 if a step could not be tried, else 0. After an
  interruption it is 130, or 128 and the number of the signal, and after an error that ended the run, such as a
  removal that was denied, that of the [error](errors.md); the steps that ended are printed.
- **The report** has no account id, no credential, and no name or ARN but those of the run and of AWS: words in capitals
  stand for the others. Read it before you post it.
- **An interruption before the first step** leaves an empty list of steps in the JSON, and no table.
- `--json` prints an object with `schema` (1), `smssh`, `applied`, `status` (the exit status), `error` and `steps`,
  each with `id`, `asks`, `answer`, `message`, `evidence` and `seconds`. Without `--yes` it has the plan: `seconds`,
  `cost`, `actions`, `steps` (`job`: whether it needs one), and `left`, what runs have in the account.
- Progress is printed to stderr. `smssh doctor --live --list` lists the steps; a step brings those that it needs.

### Steps that need a job

They are tried with `--jobs` only, because a job costs something: one {instance} (`--instance-type`) for about ten
minutes. The plan has the price, if the price list can be read. All steps share one processing job, whose entry point
fails at once, and which is held then. So there is a host to log in to, for {hold} at most; SageMaker ends the job after
{most}, whatever becomes of smssh. Such a run tries nothing after {job_limit}.

- **The image** is yours to name (`--image URI`): one with Python 3.8 or later in a registry that jobs of the account
  can read, for instance SageMaker's own image of scikit-learn. If it has no sshd, `--wheels 3.9` (its Python) brings a
  server. The job runs without a VPC of yours, so that it reaches Session Manager and S3.
- **The roles** are made by the run, from what `smssh setup` would write: the job gets the policy for jobs, and what
  every job needs (to read its image, to write its log), and its node the five actions of the node role. So nothing of
  yours is changed, and a denial is about these policies.
- **What it makes besides**: a bucket `smssh-live-*` with the bundle, the job, and by the job an activation and a node.
  At the end, after Ctrl-C and by the next run, the job is stopped first; then the rest is removed. A job may take some
  minutes to stop. What stays is the job in SageMaker's list and its log, which you can delete.
- **Logins** are those of the role for trials with the policy for people alone, by your own smssh key. They leave the
  job's host key among those that smssh remembers.

[The permissions](requests.md#who-runs-smssh-doctor---live) are those of an administrator, but only for roles named
`smssh-live-*` and for nodes with the run's tag, with `--jobs` for buckets and processing jobs of such names too.

| step | asks | makes | needs |
| --- | --- | --- | --- |
{steps}

Not tried are other kinds of jobs than processing, images of AWS one by one, batch transform, SageMaker's remote
debugging, source identity, and what takes hours.
"""


def section() -> str:
    """The section of docs/doctor.md."""
    rows = []
    for step in STEPS.values():
        after = ", ".join([*["`--jobs`"] * step.needs_job, *(f"`{each}`" for each in step.after)]) or "-"
        rows.append(f"| `{step.id}` | {step.asks or '-'} | {step.makes or '-'} | {after} |")
    return SECTION.format(
        cost=cost([each for each in STEPS.values() if not each.needs_job], Bill()).replace(
            " (the price is not known)", ""
        ),
        instance=INSTANCE_TYPE,
        hold=format_duration(HOLD_SECONDS),
        most=format_duration(MAX_SECONDS),
        job_limit=format_duration(JOB_SECONDS),
        limit=format_duration(RUN_SECONDS),
        steps="\n".join(rows),
    )


def aws_page() -> str:
    """docs/aws.md, with the table in its place."""
    text = AWS.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{AWS.name} has no place for the table: {BEGIN.strip()} ... {END.strip()}")
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def table() -> str:
    """What is tested, and what only AWS can show."""
    rows = ["| | real | local emulator | only AWS can show |", "| --- | --- | --- | --- |"]
    for subject in SUBJECTS:
        shown = "; ".join(
            f"{each.text} (`{each.step}`)" if each.step else each.text for each in subject.questions
        )
        cells = (subject.text, "yes" if subject.real else "", "yes" if subject.emulated else "", shown)
        rows.append("| " + " | ".join(cells).replace("|  |", "| |").strip() + " |")
    return "\n".join(rows).replace("|  |", "| |").replace("|  |", "| |") + "\n"
