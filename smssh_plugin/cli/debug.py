"""`smssh debug`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from ..terminal import put
from .app import aws_options, json_option
from .parameters import Seconds

__all__ = ["debug"]


@click.command("debug")
@click.argument("pipeline")
@click.option("--execution", metavar="ID", help="The execution: its id, its ARN, or `latest` (the default).")
@click.option("--start", is_flag=True, help="Start a new execution, and debug that.")
@click.option(
    "--fixes",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of fixes: STEP.patch (a unified diff of its code) and STEP.sh (run in its container).",
)
@click.option(
    "--report",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for report.json, report.html and patches.  [default: smssh-reports/PIPELINE-EXECUTION]",
)
@click.option(
    "--release/--keep",
    help="Release a step that cannot be fixed, so that the pipeline ends, or keep it held.  [default: keep]",
)
@click.option("--timeout", type=Seconds(), help="Stop watching after this time, for instance 30m.")
@json_option
@aws_options
def debug(
    pipeline: str,
    execution: str | None,
    start: bool,
    fixes: Path | None,
    folder: Path | None,
    release: bool,
    timeout: float | None,
    as_json: bool,
    region: str | None,
    profile: str | None,
) -> int:
    """Watch a PIPELINE, fix the step that fails while it is held, and report.

    The steps must have been submitted with a hold: with_ssh(step, hold="failure"). When a step fails, smssh
    collects its container's report, applies the fix for the step, and runs its entry point again. If that
    succeeds, the pipeline goes on.

    What was changed is in the report for each attempt, and beside it as STEP.patch, which --fixes takes.

    The exit status is 0 if the pipeline succeeded, 7 if it did not (nor with CompletedWithFailures), 6 after
    --timeout, 130 after Ctrl-C, and 1 if AWS does not answer for 12 hours. Steps that are held then stay held.
    Started again, smssh takes the execution up where it was, and tries nothing twice.
    """
    from ..aws.session import AwsSession
    from ..debug import report as reports
    from ..debug import run
    from ..debug.view import PlainView, view_for
    from ..errors import SmsshError
    from .fast_path import say

    if start and execution is not None:
        raise click.UsageError("--start and --execution exclude each other")
    target = folder or Path("smssh-reports")
    reports.check(target)
    aws = AwsSession(region, profile)
    options = run.Options(pipeline, execution, start=start, fixes=fixes, release=release, timeout=timeout)
    with PlainView(sys.stderr) if as_json else view_for() as view:
        report = run.debug(options, aws, view)
    if as_json:
        click.echo(json.dumps(reports.as_json(report), indent=2))
    status = run.exit_status(report)
    try:
        _, html = reports.write(report, folder or target / f"{pipeline}-{report.execution}")
    except SmsshError as error:
        # What was watched for hours is said all the same.
        say(error)
        return int(status or error.status)
    put(f"report: {html}", error=as_json)
    return int(status)
