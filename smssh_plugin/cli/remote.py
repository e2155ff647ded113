"""`smssh hold|extend|retry|release|status`: `smssh-hook` in the container, over SSH, its status passed on."""

from __future__ import annotations

import json
import re
import sys

import click

from .app import aws_options, json_option
from .parameters import Seconds

__all__ = ["extend", "hold", "release", "retry", "status"]


@click.command("hold")
@click.argument("address")
@aws_options
def hold(address: str, region: str | None, profile: str | None) -> int:
    """Ask a running job to hold at its next failure or its end."""
    return _hook(address, ["hold"], region, profile)


@click.command("extend")
@click.argument("address")
@click.argument("time", type=Seconds())
@aws_options
def extend(address: str, time: float, region: str | None, profile: str | None) -> int:
    """Give a held job more TIME, for instance 30m or 2h."""
    return _hook(address, ["extend", f"{time:.0f}s"], region, profile)


@click.command("retry")
@click.argument("address")
@click.option("--no-wait", is_flag=True, help="Return as soon as it has started.")
@json_option
@aws_options
def retry(address: str, no_wait: bool, as_json: bool, region: str | None, profile: str | None) -> int:
    """Run a held job's entry point again, in the same container.

    If it succeeds, the job goes on as if the first run had succeeded.
    """
    return _hook(address, ["retry"] + ["--no-wait"] * no_wait + ["--json"] * as_json, region, profile)


@click.command("release")
@click.argument("address")
@click.option(
    "--exit", "code", type=click.IntRange(0, 255), help="Exit status of the job. [default: its own]"
)
@aws_options
def release(address: str, code: int | None, region: str | None, profile: str | None) -> int:
    """Let a held job end."""
    return _hook(address, ["release"] + ([] if code is None else ["--exit", str(code)]), region, profile)


@click.command("status")
@click.argument("address")
@json_option
@aws_options
def status(address: str, as_json: bool, region: str | None, profile: str | None) -> int:
    """Show what a job's container is doing."""
    return _hook(address, ["status"] + ["--json"] * as_json, region, profile)


def _hook(address: str, words: list[str], region: str | None, profile: str | None) -> int:
    """Run `smssh-hook WORDS` there; its output is shown as it comes, or, where it is JSON, written anew."""
    from ..aws.session import AwsSession
    from ..client.addresses import parse
    from ..client.connection import control
    from ..streams import Lines

    address = str(parse(address))  # names with nothing in it that a replacement would read
    as_json = "--json" in words

    def here(text: str) -> str:
        """What a person is to type, as it is typed on this machine."""
        text = re.sub("^smssh-hook: ", "error: ", text, flags=re.MULTILINE)
        return re.sub(r"\bsmssh-hook (hold|extend|retry|release|status)\b", rf"smssh \1 {address}", text)

    shown = {name: Lines(out, here) for name, out in (("stdout", sys.stdout), ("stderr", sys.stderr))}

    def show(stream: str, piece: bytes) -> None:
        if stream == "stderr" or not as_json:
            shown[stream].feed(piece)

    with control(address, AwsSession(region, profile)) as connection:
        done = connection.run(["smssh-hook", *words], on_output=show)
    if as_json:
        try:
            click.echo(json.dumps(json.loads(done.stdout), indent=1))
        except ValueError:  # an error, which stands on stderr, or nothing of ours
            shown["stdout"].feed(done.stdout)
    for lines in shown.values():
        lines.feed(b"", end=True)
    return done.status
