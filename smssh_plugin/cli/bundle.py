"""`smssh bundle build|show|verify|renew`: what goes into a job's container, made, looked at and kept by hand."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import io
import json
import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ExitStatus, SmsshError
from ..terminal import line, put
from .app import aws_options, json_option

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..submit.bundle.store import Examination, Folder, Prefix
    from ..submit.options import SSHOptions

__all__ = ["bundle"]


@click.group()
def bundle() -> None:
    """Build, show, verify and renew the bundle that goes into a job's container.

    with_ssh and enable build bundles themselves. Build one by hand for a bucket that only some people may
    write to, or for pipelines that use the same bundle for a long time: SSHOptions(bundle="s3://bucket/prefix/DIGEST/").
    """


@bundle.command(short_help="Build a bundle, store it and print its address.")
@click.option(
    "-o",
    "--option",
    "pairs",
    multiple=True,
    metavar="NAME=VALUE",
    help="An option of SSHOptions. Give a list as a comma list or one by one, and `extra` as extra.NAME=VALUE.",
)
@click.option(
    "--to",
    metavar="PLACE",
    help="s3://bucket/prefix or a folder, in which the bundle is named after its digest. [default: where with_ssh "
    "puts it]",
)
@json_option
@aws_options
def build(
    pairs: tuple[str, ...], to: str | None, as_json: bool, region: str | None, profile: str | None
) -> int:
    """Build a bundle, store it unless it exists already, and print its address.

    For instance: smssh bundle build -o hold=failure -o wheels=3.11 --to s3://bucket/smssh
    """
    from ..aws.s3_address import with_owner
    from ..submit.bundle.publish import bundle_for
    from ..submit.bundle.store import destination
    from ..submit.bundle.upload import upload

    in_s3 = to is None or to.startswith("s3://")
    options = _options(pairs, to if in_s3 else None)
    with _aws(region, profile) as boto_session:
        if in_s3:
            place = destination(options, boto_session)
            announce = with_owner(place.address, options.bucket_owner)
            made = bundle_for(options, boto_session, place.client, announce)
            address = upload(made, place)
        else:
            if options.transport == "native" and "announce" not in options.extra:
                raise SmsshError(
                    "the transport native announces itself in S3, and a folder does not say where",
                    hint="name it: -o extra.announce=s3://bucket/prefix",
                    reference="no-announce-place",
                    status=ExitStatus.USAGE,
                )
            made = bundle_for(options, boto_session, boto_session.client("s3"))
            folder = Path(str(to), made.digest)
            try:
                made.write(folder)
            except OSError as error:
                raise SmsshError(
                    f"cannot write the bundle to {folder}: {error.strerror}", reference="bundle-not-writable"
                ) from None
            address = str(folder)
    if as_json:
        click.echo(
            json.dumps({"version": 1, "bundle": address, "digest": made.digest, "bytes": made.size}, indent=2)
        )
    else:
        put(address)
    return 0


@bundle.command(short_help="Show its options, who may log in, and its files.")
@click.argument("where")
@click.option(
    "--bucket-owner", metavar="ACCOUNT", help="The account that the bucket belongs to. [default: your own]"
)
@json_option
@aws_options
def show(where: str, bucket_owner: str | None, as_json: bool, region: str | None, profile: str | None) -> int:
    """Show what is in the bundle at WHERE, an s3:// prefix or a folder: its options, who may log in, its files."""
    from ..manifest import MANIFEST, PLUGINS, Manifest
    from ..submit.bundle.store import OPTIONS, read

    with _place(where, region, profile, bucket_owner) as place:
        text = b"".join(place.chunks(MANIFEST))
        manifest = Manifest.parse(text)
        options = _document(read(place, manifest, OPTIONS))
        sizes = place.files() or {}
        plugins = _members(read(place, manifest, PLUGINS)) if PLUGINS in manifest.files else {}
    keys = [_fingerprint(each) for each in options.pop("authorized_keys", ())]
    digest = hashlib.sha256(text).hexdigest()
    if as_json:
        document = {
            "version": 1,
            "bundle": place.address,
            "digest": digest,
            "plugin_version": manifest.version,
            "options": options,
            "keys": keys,
            "files": {
                name: {"sha256": each, "bytes": sizes.get(name)} for name, each in manifest.files.items()
            },
        }
        if plugins:
            document["plugin_files"] = plugins
        click.echo(json.dumps(document, indent=2))
        return 0
    put(f"{place.address}\ndigest   {digest}\nversion  smssh-plugin {manifest.version}\n\noptions")
    for name, value in sorted(options.items()):
        put(f"  {line(name)} = {line(value if isinstance(value, str) else json.dumps(value))}")
    click.echo("\nwho may log in")
    for key in keys:
        put(f"  {line(key)}")
    click.echo("\nfiles")
    width = max(len(f"{size:,}") for size in (*sizes.values(), 0))
    for name in sorted(manifest.files):
        put(f"  {line(manifest.files[name][:12])}  {_size(sizes.get(name)).rjust(width)}  {line(name)}")
    if plugins:
        click.echo("\nfiles of plugins")
    for name, size in plugins.items():
        put(f"  {size:>10,}  {line(name)}")
    return 0


_where = click.argument("where", required=False)
_pipeline = click.option(
    "--pipeline",
    metavar="NAME",
    help="The bundles that this pipeline uses, as it was upserted, instead of WHERE.",
)
_owner = click.option(
    "--bucket-owner",
    metavar="ACCOUNT",
    help="The account that the bucket belongs to. [default: your own, or the one in s3://...?owner=ACCOUNT]",
)


@bundle.command(short_help="Compare every file with the manifest.")
@_where
@_pipeline
@_owner
@json_option
@aws_options
def verify(
    where: str | None,
    pipeline: str | None,
    bucket_owner: str | None,
    as_json: bool,
    region: str | None,
    profile: str | None,
) -> int:
    """Read every file of the bundle at WHERE, an s3:// prefix or a folder, and compare it with the manifest.

    With --pipeline, do so for each bundle that a pipeline uses, and say which lifecycle rule deletes it when.

    The exit status is 0 if all are complete, 1 if one is not, 3 if one does not exist, 4 if S3 cannot be
    reached, and 5 if access to one is denied.
    """
    from ..submit.bundle.store import examine

    documents, damaged = [], []
    with _places(where, pipeline, bucket_owner, region, profile) as places:
        for place in places:
            found = examine(place)
            documents.append(_verified(place, found, as_json=as_json))
            if found.wrong:
                damaged.append((place.address, len(found.wrong), len(found.findings)))
    if as_json:
        click.echo(
            json.dumps(documents[0] if pipeline is None else {"version": 1, "bundles": documents}, indent=2)
        )
    if damaged:
        address, wrong, count = damaged[0]
        raise SmsshError(
            f"{address} is damaged: {wrong} of {count} files are not as they should be",
            hint="run `smssh bundle build`, or compile again, to restore what is missing or different; remove "
            "what does not belong there",
            reference="bundle-damaged",
            status=ExitStatus.FAILED,
        )
    return 0


def _verified(place: Folder | Prefix, found: Examination, *, as_json: bool) -> dict[str, Any]:
    """Say what was found of a bundle; the same as JSON."""
    size = sum(finding.size or 0 for finding in found.findings)
    expiry = getattr(place, "expiry", None)
    if not as_json:
        for finding in found.wrong:
            put(f"{finding.state.ljust(7)}  {line(finding.name)}")
        if not found.wrong:
            count = f"{len(found.findings)} files, {size:,} bytes"
            put(f"{place.address}: whole, {count}, built by smssh-plugin {found.manifest.version}")
        if expiry is not None:
            put(f"note: {line(expiry)}; jobs that start after that fail", error=True)
        if not found.named:
            click.echo(
                "note: it is not named after its digest, so its manifest itself was not checked", err=True
            )
        if not found.listed:
            click.echo(
                "note: it may not be listed, so files that do not belong there were not looked for", err=True
            )
    document: dict[str, Any] = {
        "version": 1,
        "bundle": place.address,
        "plugin_version": found.manifest.version,
        "whole": not found.wrong,
        "named_after_its_digest": found.named,
        "listed": found.listed,
        "files": [{"name": each.name, "state": each.state, "bytes": each.size} for each in found.findings],
    }
    if expiry is not None:
        document["expires"] = {"date": f"{expiry.when:%Y-%m-%dT%H:%M:%SZ}", "rule": expiry.rule}
    return document


@bundle.command(short_help="Store it again, so that lifecycle rules count from now.")
@_where
@_pipeline
@_owner
@click.option(
    "--s3-encryption",
    metavar="HOW",
    help="AES256, aws:kms or a key of KMS: id, ARN or alias. [default: the key that the bundle is encrypted with]",
)
@aws_options
def renew(
    where: str | None,
    pipeline: str | None,
    bucket_owner: str | None,
    s3_encryption: str | None,
    region: str | None,
    profile: str | None,
) -> int:
    """Store the bundle at WHERE, an s3:// prefix, again: lifecycle rules of its bucket then count from now.

    With --pipeline, do so for each bundle that a pipeline uses. Every upsert does it as well; the command is
    for pipelines that a schedule starts for longer than the rule keeps their bundles.
    """
    from ..submit.bundle.store import Folder
    from ..submit.bundle.store import renew as store_again
    from ..submit.options import SSHOptions

    encryption = SSHOptions(s3_encryption=s3_encryption).s3_encryption or ""
    with _places(where, pipeline, bucket_owner, region, profile) as places:
        for place in places:
            if isinstance(place, Folder):
                raise click.UsageError(f"{where} is not s3://bucket/prefix")
            expiry = store_again(place, encryption)
            put(place.address)
            if expiry is not None:
                put(f"note: {line(expiry)}; jobs that start after that fail", error=True)
    return 0


# -------------------------------------------------------------------------------- what the commands share


def _options(pairs: tuple[str, ...], to: str | None) -> SSHOptions:
    """The options that the command line names."""
    from ..settings import BUNDLE, OPTIONS, OPTIONS_JSON
    from ..submit.options import SSHOptions

    single: dict[str, Any] = {} if to is None else {"bundle_prefix": to}
    several: dict[str, list[str]] = {}
    extra: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise click.UsageError(f"{pair!r} is not NAME=VALUE")
        option = OPTIONS.get(name)
        if option is not None and option.travels not in (BUNDLE, OPTIONS_JSON):
            raise click.UsageError(
                f"the option {name!r} is not part of a bundle: with_ssh and enable take it"
            )
        if name.startswith("extra."):
            extra[name[len("extra.") :]] = _json_or_text(value)
        elif option is not None and option.kind.separator:
            several.setdefault(name, []).extend(value.split(option.kind.separator))
        else:  # `merged` says what there is if there is no such option
            single[name] = _json_or_text(value) if option is not None and option.type == "bool" else value
    return SSHOptions().merged({**single, **several, **({"extra": extra} if extra else {})})


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


@contextlib.contextmanager
def _aws(region: str | None, profile: str | None) -> Iterator[Any]:
    """A boto3 session; what botocore raises has a message for people."""
    import boto3
    from botocore.exceptions import BotoCoreError

    try:
        # boto3 itself reads AWS_DEFAULT_REGION only.
        yield boto3.Session(region_name=region or os.environ.get("AWS_REGION") or None, profile_name=profile)
    except BotoCoreError as error:
        raise SmsshError(
            f"AWS cannot be asked: {error}",
            hint="check --region, --profile and your credentials",
            reference="aws-error",
            status=ExitStatus.UNREACHABLE,
        ) from error


@contextlib.contextmanager
def _place(
    where: str, region: str | None, profile: str | None, bucket_owner: str | None = None
) -> Iterator[Folder | Prefix]:
    with _places(where, None, bucket_owner, region, profile) as places:
        yield places[0]


@contextlib.contextmanager
def _places(
    where: str | None,
    pipeline: str | None,
    bucket_owner: str | None,
    region: str | None,
    profile: str | None,
) -> Iterator[list[Folder | Prefix]]:
    """What WHERE names, or the bundles of a pipeline: at least one."""
    from ..aws.s3_address import split_owner
    from ..submit.account import account_of
    from ..submit.bundle.renew import bundles_of, definition_of
    from ..submit.bundle.store import Folder, Prefix

    if (where is None) == (pipeline is None):
        raise click.UsageError("give either WHERE or --pipeline")
    if where is not None and not where.startswith("s3://"):
        yield [Folder(Path(where))]
        return
    address, owner = split_owner(where or "")
    if where is not None and not address[len("s3://") :].strip("/").partition("/")[2]:
        raise click.UsageError(f"{where} is not s3://bucket/prefix")
    with _aws(region, profile) as boto_session:
        addresses = [address]
        if pipeline is not None:
            addresses = bundles_of(definition_of(boto_session.client("sagemaker"), pipeline))
            if not addresses:
                raise SmsshError(
                    f"pipeline {pipeline!r} uses no bundle",
                    hint="upsert it with SSH; a pipeline for images that have smssh-plugin needs no bundle",
                    reference="no-bundle",
                    status=ExitStatus.NOT_FOUND,
                )
        owner = bucket_owner or owner or account_of(boto_session, addresses[0])
        yield [Prefix(each, boto_session.client("s3"), owner) for each in addresses]


def _document(text: bytes) -> dict[str, Any]:
    """The bundle's options; the addresses of webhooks, which are secrets, without their paths."""
    try:
        options: dict[str, Any] = dict(json.loads(text))
    except (TypeError, ValueError) as error:
        raise SmsshError(
            f"the bundle's options cannot be read: {error}", reference="bundle-damaged"
        ) from None
    if "notify" in options:
        options["notify"] = [_without_path(target) for target in options["notify"]]
    return options


def _members(archive: bytes) -> dict[str, int]:
    """The files of an archive, with their sizes in bytes."""
    try:
        return {each.filename: each.file_size for each in zipfile.ZipFile(io.BytesIO(archive)).infolist()}
    except zipfile.BadZipFile as error:
        raise SmsshError(
            f"the bundle's plugins cannot be read: {error}", reference="bundle-damaged"
        ) from None


def _without_path(target: str) -> str:
    return "/".join([*target.split("/")[:3], "..."]) if "://" in target else target


def _fingerprint(key: str) -> str:
    """A public key as `ssh-keygen -l` shows it: fingerprint, comment, type."""
    words = key.split()
    for index, word in enumerate(words):
        if word.startswith("AAAA"):
            with contextlib.suppress(binascii.Error):
                digest = hashlib.sha256(base64.b64decode(word, validate=True)).digest()
                shown = base64.b64encode(digest).decode().rstrip("=")
                return f"SHA256:{shown} {' '.join(words[index + 1 :]) or 'no comment'} ({words[index - 1]})"
    return key


def _size(size: int | None) -> str:
    return "?" if size is None else f"{size:,}"
