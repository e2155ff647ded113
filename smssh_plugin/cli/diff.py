"""`smssh diff`."""

from __future__ import annotations

import base64
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..terminal import block, line, put
from .app import aws_options, json_option

if TYPE_CHECKING:
    from ..client.managed_nodes import Node
    from ..debug.branch import Repository
    from ..debug.diff import Diff

__all__ = ["diff"]


# Long: a parameter for each option, and its help.
@click.command("diff")
@click.argument("address")
@click.option(
    "--source",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DIR",
    help="The folder here that the code was submitted from: paths are those of its git repository.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the patch to FILE.",
)
@click.option("--stat", is_flag=True, help="Show which files were changed, and no patch.")
@click.option(
    "--branch", metavar="NAME", help="Commit the patch on a new branch of the repository of --source."
)
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Take in what changed while the entry point ran and somebody was logged in.",
)
@json_option
@aws_options
def diff(
    address: str,
    source: Path | None,
    output: Path | None,
    stat: bool,
    branch: str | None,
    everything: bool,
    as_json: bool,
    region: str | None,
    profile: str | None,
) -> int:
    """Show what people have changed in a job's code, as a patch for `git apply`.

    The patch is relative to the folder of the code: `git apply --directory=DIR` puts it into a repository where the
    code is in DIR. With --source its paths are those of the repository that DIR is in.

    It compares the folder with a copy from before the first login, or from the moment when the job was held. What the
    entry point itself has written is not in it.

    The exit status is 0 if there is a patch, and 1 if nothing was changed.
    """
    from ..aws.session import AwsSession
    from ..client.connection import control
    from ..client.lookup import resolve
    from ..debug import branch as branches
    from ..debug import diff as diffs

    if stat and (output is not None or branch is not None):
        raise click.UsageError("--stat goes with neither --output nor --branch")
    if branch is not None and source is None:
        raise click.UsageError("--branch needs --source: the folder that the code was submitted from")
    repository = _repository(source, branch)
    aws = AwsSession(region, profile)
    node = resolve(address, aws)
    with control(address, aws, node=node) as connection:
        found = diffs.make(
            connection,
            source,
            b"" if repository is None else repository.prefix,
            everything=everything,
            object_format="sha1" if repository is None else repository.object_format,
        )
    _warn(found, source)
    commit = None
    if found.patch and output is not None:
        output.write_bytes(found.patch)
    if found.patch and branch is not None and repository is not None:
        subject = f"Change the code of {node.step or node.job} as it was changed in its job"
        commit = branches.commit(repository, branch, found.patch, subject, _trailers(address, node))
    if as_json:
        click.echo(json.dumps(_as_json(found, address, branch, commit), indent=1))
    if not found.patch:
        raise diffs.nothing(found, address)
    if stat and not as_json:
        put(found.stat.rstrip("\n"))
    if output is not None or branch is not None:
        _say_what_next(output, branch, repository, found)
    elif not as_json and not stat:
        _show(found.patch)
    return 0


def _repository(source: Path | None, branch: str | None) -> Repository | None:
    """The repository that the source is in; None if it is in none, or no source is named."""
    from ..debug import branch as branches

    repository = None if source is None else branches.Repository.of(source)
    if branch is not None:
        if repository is None:
            raise click.UsageError(f"{source} is in no git repository")
        branches.check_name(repository, branch)
    return repository


def _warn(found: Diff, source: Path | None) -> None:
    """Say on stderr what is left out, and what differs from the folder here."""
    from ..debug.diff import NAMES_SHOWN

    for note in found.notes:
        put(f"warning: {line(note)}", error=True)
    if found.differing:
        names = ", ".join(found.differing[:NAMES_SHOWN])
        more = f" and {len(found.differing) - NAMES_SHOWN} more" if len(found.differing) > NAMES_SHOWN else ""
        put(
            f"warning: the job did not run what is in {source}; these files differ: {line(names)}{more}",
            error=True,
        )


def _show(patch: bytes) -> None:
    """Write the patch, byte for byte; made safe where a terminal shows it."""
    if sys.stdout.isatty():
        sys.stdout.write(block(patch.decode("utf-8", "replace")))
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(patch)
    sys.stdout.buffer.flush()


def _say_what_next(
    output: Path | None, branch: str | None, repository: Repository | None, found: Diff
) -> None:
    """Say what was made, and how it is used."""
    put(found.stat.rstrip("\n"), error=True)
    if output is not None:
        where = "" if repository is not None else " --directory=DIR"
        put(
            f"smssh: wrote {line(output)}; apply it with: git apply{where} {shlex.quote(str(output))}",
            error=True,
        )
    if branch is not None:
        assert repository is not None
        put(f"smssh: committed on branch {line(branch)} of {line(repository.top)}", error=True)


def _trailers(address: str, node: Node) -> dict[str, str]:
    """Where a commit comes from."""
    from ..client.addresses import parse
    from ..client.job_names import execution_part

    execution = execution_part(node.job).removeprefix("pipelines-").rstrip("-") or getattr(
        parse(address), "execution", ""
    )
    return {
        **({"Smssh-Execution": execution} if execution else {}),
        **({"Smssh-Step": node.step} if node.step else {}),
        "Smssh-Job": node.job,
        "Smssh-Host": node.host,
        "Smssh-Address": address,
    }


def _as_json(found: Diff, address: str, branch: str | None, commit: str | None) -> dict[str, Any]:
    """What --json prints."""
    try:
        patch: dict[str, str] = {"patch": found.patch.decode()}
    except UnicodeDecodeError:
        patch = {"patch_base64": base64.b64encode(found.patch).decode()}
    return {
        "version": 1,
        "address": address,
        "code_dir": found.code_dir,
        "base_taken": found.taken,
        "changes": [
            {
                "path": one.name,
                "what": "added" if one.before is None else "deleted" if one.after is None else "modified",
            }
            for one in found.changes
        ],
        **patch,
        "notes": found.notes,
        "differing": found.differing,
        "branch": branch,
        "commit": commit,
    }
