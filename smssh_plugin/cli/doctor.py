"""`smssh doctor`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from .app import aws_options, json_option
from .extensions import any_plugin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..doctor.checks import Check

__all__ = ["doctor"]

SHOWN_UNDER_WAY = 3


@click.command("doctor")
@click.argument("checks", nargs=-1, metavar="[CHECK]...")
@click.option("--job", metavar="NAME", help="Look at a job as well: its name, or an address.")
@click.option("--pipeline", metavar="NAME", help="Look at a pipeline as well.")
@click.option(
    "--subnet",
    "subnets",
    multiple=True,
    metavar="ID",
    help="Look at a subnet in which jobs are to run; may be given more than once.",
)
@click.option(
    "--security-group",
    "groups",
    multiple=True,
    metavar="ID",
    help="With --subnet: a security group of the jobs; may be given more than once.",
)
@click.option("-v", "--verbose", is_flag=True, help="Show details, and what each check took.")
@click.option("--list", "list_", is_flag=True, help="List the checks, and run none.")
@click.option(
    "--live",
    is_flag=True,
    help="Show what can be tried in the account for the questions that only AWS can settle; CHECK is a step then.",
)
@click.option(
    "--jobs",
    is_flag=True,
    help="With --live: also the steps that need a job that runs, a small processing job; the plan says what it costs.",
)
@click.option(
    "--image", metavar="URI", help="With --jobs: the image of the job, in a registry that it can read."
)
@click.option(
    "--instance-type", metavar="TYPE", help="With --jobs: the job's one instance. [default: ml.t3.medium]"
)
@click.option(
    "--wheels",
    metavar="PYTHON",
    multiple=True,
    help="With --jobs: the Python of an image that has no sshd, such as 3.11; may be given more than once.",
)
@click.option("--yes", metavar="ACCOUNT_ID", help="With --live: try it, if the account is this one.")
@json_option
@aws_options
# Long: a parameter for each option, and its help.
def doctor(
    checks: tuple[str, ...],
    job: str | None,
    pipeline: str | None,
    subnets: tuple[str, ...],
    groups: tuple[str, ...],
    verbose: bool,
    list_: bool,
    live: bool,
    jobs: bool,
    image: str | None,
    instance_type: str | None,
    wheels: tuple[str, ...],
    yes: str | None,
    as_json: bool,
    region: str | None,
    profile: str | None,
) -> int:
    """Find out what keeps you from logging in, and say who has to do what.

    It looks at this machine, your AWS credentials and permissions, the account's settings, and at a job, a pipeline
    or the network of subnets if you name one. It changes nothing. A CHECK is the id of a check, such as laptop.clock,
    or a subject, such as laptop; the checks that it depends on run as well.

    A check ends as ok, problem, hint, cannot tell (something that it needs is missing) or crash (a mistake in
    smssh). The exit status is 1 with a problem or a crash; without them it is 8 if a check cannot tell, else 0.

    --live makes roles, activations and a node named smssh-live-* in the account, sees what AWS allows with them,
    removes them, and prints a Markdown table for an issue. Without --yes it shows what it would do, and at a
    terminal asks for the account id. With --jobs --image URI it starts a small processing job as well, which costs
    something, logs in to it and ends it.
    """
    if groups and not subnets:
        raise click.UsageError("--security-group goes with --subnet")
    if subnets and (job or pipeline):
        raise click.UsageError(
            "--subnet goes with neither --job nor --pipeline, which name their own subnets"
        )
    from ..aws.session import AwsSession

    if live:
        if job or pipeline or subnets or verbose:
            raise click.UsageError("--live goes with --list, --json, --yes and --jobs only")
        from . import live as live_command

        if list_:
            live_command.list_steps(as_json=as_json)
            return 0
        of_job = live_command.wanted_job(jobs=jobs, image=image, instance_type=instance_type, wheels=wheels)
        return live_command.live(AwsSession(region, profile), checks, yes, as_json=as_json, wanted=of_job)
    if yes is not None or jobs or image or instance_type or wheels:
        raise click.UsageError("--yes, --jobs and the options of the job are for --live")
    from ..doctor.case import Case
    from ..doctor.catalogue import SUBJECTS, chosen
    from ..doctor.plugin_checks import plugin_checks
    from ..doctor.run import run
    from ..doctor.show import as_json as results_as_json
    from ..doctor.show import exit_status, lines
    from ..terminal import line

    others = plugin_checks() if any_plugin() else []
    if list_:
        _list([*(check for one in SUBJECTS.values() for check in one), *others], as_json=as_json)
        return 0
    given = [name for name, value in (("job", job), ("pipeline", pipeline), ("subnet", subnets)) if value]
    wanted = chosen(checks, given, others)
    case = Case(AwsSession(region, profile), job, pipeline, subnets, groups)
    shows = sys.stderr.isatty()

    def progress(ended: int, running: Sequence[str]) -> None:
        if shows:
            names = ", ".join(running[:SHOWN_UNDER_WAY]) + (", ..." if len(running) > SHOWN_UNDER_WAY else "")
            click.echo("\r\x1b[K" + line(f"{ended} of {len(wanted)} checks; {names}"), err=True, nl=False)

    results = run(wanted, case, progress=progress)
    if shows:
        click.echo("\r\x1b[K", err=True, nl=False)
    if as_json:
        click.echo(json.dumps(results_as_json(results), indent=2))
    else:
        for text in lines(results, details=verbose):
            click.echo(line(text))
    return int(exit_status(results))


def _list(checks: Sequence[Check], *, as_json: bool) -> None:
    """Show the checks that there are."""
    if as_json:
        click.echo(json.dumps([{"id": each.id, "summary": each.summary} for each in checks], indent=2))
        return
    width = max(len(each.id) for each in checks)
    click.echo("\n".join(f"{each.id:{width}}  {each.summary}" for each in checks))
