"""`smssh setup`: the policies and settings that an AWS account needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..errors import ExitStatus, SmsshError
from ..setup.files import FORMATS, text, write
from ..setup.owners import DEFAULT_TEAM, SCHEMES, owner_scheme
from ..setup.parts import PARTS, Setup
from ..setup.plan import FEATURES, PARTITIONS, PLACE, Plan, partition_of
from ..terminal import block, line, put
from .app import aws_options

__all__ = ["setup"]

USUAL = tuple(name for name, part in PARTS.items() if part.usual)


@click.command("setup")
@click.option(
    "--part",
    "parts",
    multiple=True,
    type=click.Choice(list(PARTS)),
    help=f"What to make. [default: {', '.join(USUAL)}]",
)
@click.option(
    "--format", "form", type=click.Choice(FORMATS), help="Format. [default: json; with --write all of them]"
)
@click.option(
    "--write",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write files there.",
)
@click.option(
    "--apply", is_flag=True, help="Show what is missing in the account of your credentials, ask, and make it."
)
@click.option(
    "--undo",
    is_flag=True,
    help="Show what --apply made under this --name, ask, and remove it. [default: every part]",
)
@click.option(
    "--yes",
    metavar="ACCOUNT_ID",
    help="With --apply or --undo: do not ask; the credentials must be of this account.",
)
@click.option(
    "--replace",
    is_flag=True,
    help="With --write: write over files that have other content. With --apply: over what others have changed.",
)
@click.option("--account", metavar="ID", help="The account id. [default: that of your credentials]")
@click.option(
    "--partition",
    type=click.Choice(list(PARTITIONS)),
    help="The partition of AWS. [default: that of the region, else aws]",
)
@click.option("--name", default="smssh", show_default=True, help="What the names of policies begin with.")
@click.option(
    "--node-role", metavar="ROLE", default="", help="The role of managed nodes. [default: NAME-node]"
)
@click.option(
    "--job-role",
    "job_roles",
    multiple=True,
    metavar="ROLE",
    help="A role of jobs or pipelines, with its path: it gets the policy for jobs, and CI may pass it.",
)
@click.option(
    "--owner",
    type=click.Choice(list(SCHEMES)),
    default="team",
    show_default=True,
    help="Who owns a job's node.",
)
@click.option(
    "--team",
    metavar="NAME",
    help=f"With --owner team: the owner that all jobs and people share. [default: {DEFAULT_TEAM}]",
)
@click.option(
    "--bundle-prefix",
    metavar="S3_ADDRESS",
    help="Where bundles are stored. [default: smssh/bundles in SageMaker's default buckets]",
)
@click.option(
    "--with",
    "features",
    multiple=True,
    type=click.Choice(list(FEATURES)),
    help="Allow more: smssh forward, smssh shell, the transport native, models that are repacked, or the removal of"
    " what sagemaker-ssh-helper left.",
)
@click.option(
    "--bucket-key", "bucket_keys", multiple=True, metavar="ARN", help="A key of KMS that encrypts bundles."
)
@click.option(
    "--session-key", "session_keys", multiple=True, metavar="ARN", help="A key of KMS that encrypts sessions."
)
@click.option(
    "--session-log",
    "session_logs",
    multiple=True,
    metavar="ARN",
    help="Where sessions are logged: a prefix in S3, or a log group.",
)
@click.option("--topic", "topics", multiple=True, metavar="ARN", help="A topic of SNS that jobs notify.")
@click.option(
    "--keys",
    "key_sources",
    multiple=True,
    metavar="ARN",
    help="An object of S3 or a parameter that has authorized keys.",
)
@aws_options
# Long: a parameter for each option, and its help.
def setup(
    parts: tuple[str, ...],
    form: str | None,
    folder: Path | None,
    apply: bool,
    undo: bool,
    yes: str | None,
    replace: bool,
    account: str | None,
    partition: str | None,
    owner: str,
    team: str | None,
    bundle_prefix: str | None,
    region: str | None,
    profile: str | None,
    **answers: Any,
) -> int:
    """Print the IAM policies and account settings that smssh needs, write them as files, or make them in the account.

    Only --apply and --undo change the account. Without --format it prints JSON: one document as it is, several by their
    names. What is left to do is printed to stderr.

    \b
    smssh setup --job-role service-role/MyJobs --write smssh-setup
    smssh setup --part people --owner source-identity
    smssh setup --part tier --part document --format cloudformation --region eu-west-1
    smssh setup --job-role service-role/MyJobs --team vision --apply
    """  # noqa: D301 - the backspace is click's sign for text that is shown as it stands
    from ..aws.session import AwsSession
    from ..setup.notes import billable, notes

    _check(apply, undo, yes, replace, form, folder)
    if team is not None and owner != "team":
        raise click.UsageError(f"--team is for --owner team, not {owner}")
    answers.update(
        owner=owner_scheme(owner, DEFAULT_TEAM if team is None else team),
        bundle_prefix=bundle_prefix or PLACE,
    )
    if apply or undo:
        from . import setup_changes

        named = setup_changes.Named(account, partition, yes)
        aws = AwsSession(region, profile)
        if undo:
            return setup_changes.undo(aws, named, answers, parts)
        return setup_changes.apply(aws, named, answers, parts or USUAL, replace=replace)
    forms = (form,) if form else FORMATS if folder is not None else FORMATS[:1]
    plan = Plan.make(
        partition=partition or _partition(region, profile),
        # Templates know the account by themselves.
        account=account or (_account(region, profile) if "json" in forms else ""),
        **answers,
    )
    made = Setup(plan, parts or USUAL)
    if made.tier:
        _say([billable(AwsSession(region, profile))])
    if folder is None:
        click.echo(block(text(made, forms[0])), nl=False)
    else:
        for path in write(made, forms, folder, replace=replace):
            click.echo(line(str(path)))
    _say(notes(made, forms))
    return 0


def _check(
    apply: bool, undo: bool, yes: str | None, replace: bool, form: str | None, folder: Path | None
) -> None:
    """Refuse options that do not go together."""
    if replace and folder is None and not apply:
        raise click.UsageError("--replace is for --write and --apply")
    if apply and undo:
        raise click.UsageError("--apply and --undo do not go together")
    if (apply or undo) and (folder is not None or form):
        raise click.UsageError(f"{'--apply' if apply else '--undo'} does not go with --write and --format")
    if yes is not None and not (apply or undo):
        raise click.UsageError("--yes is for --apply and --undo")


def _say(sentences: list[str]) -> None:
    """Say something on stderr."""
    for each in sentences:
        put(f"smssh: {line(each)}", error=True)


def _partition(region: str | None, profile: str | None) -> str:
    """The partition of the region, if one is configured."""
    from ..aws.session import AwsSession

    try:
        found = AwsSession(region, profile).region
    except SmsshError as error:
        if error.reference != "no-region":
            raise
        return "aws"
    return partition_of(found)


def _account(region: str | None, profile: str | None) -> str:
    """The account of the caller's credentials."""
    import boto3
    from botocore.exceptions import BotoCoreError

    from ..submit.account import account_of

    try:
        return account_of(boto3.Session(profile_name=profile, region_name=region))
    except (BotoCoreError, SmsshError) as error:
        raise SmsshError(
            f"the account is not known: {error.__context__ or error}",
            hint="pass --account with twelve digits, or use --format cloudformation or terraform, which need none",
            reference="no-account",
            status=ExitStatus.USAGE,
        ) from error
