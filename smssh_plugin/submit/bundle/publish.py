"""The bundle for what was asked for: built, and stored where it is not stored yet."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from ...aws.s3_address import split_owner, with_owner
from ...errors import ExitStatus, SmsshError
from ..authorized import authorized_keys
from ..owners import owned
from .agent import agent_for
from .build import build
from .check import check_bundle
from .store import destination
from .upload import upload

if TYPE_CHECKING:
    from ..options import SSHOptions
    from ..sessions import SdkSession
    from .model import Bundle

__all__ = ["announce_variable", "bundle_for", "publish"]


FRESH_SECONDS = 600.0
"""For so long, what was found at a prefix is not looked at again: all steps of a pipeline have the same bundle, and a
notebook that is open for weeks does not rely on what it saw on the first day."""


_published: dict[tuple[str, str, str], tuple[float, str]] = {}


_publishing = threading.Lock()


def publish(options: SSHOptions, session: SdkSession) -> str:
    """The S3 prefix of the bundle for these options: the one that they name, or one that is built and stored.

    Args:
        options: what was asked for.
        session: see `destination`.

    Returns:
        `s3://bucket/prefix/<digest>/`.

    Raises:
        SmsshError: see `build`, `destination`, `upload` and `check_bundle`.
    """
    if options.baked:
        raise SmsshError(
            "an image with smssh-plugin (launcher='baked') gets no bundle",
            reference="no-bundle",
            status=ExitStatus.USAGE,
        )
    with _publishing:
        place = destination(options, session)
        if options.bundle_uri is not None:
            check_bundle(options, session, place)
            return options.bundle_uri
        bundle = bundle_for(options, session, place.client, with_owner(place.address, options.bucket_owner))
        known = (place.client.meta.endpoint_url, place.bucket, place.key(bundle.digest))
        when, address = _published.get(known, (0.0, ""))
        if not address or time.monotonic() - when > FRESH_SECONDS:
            address = upload(bundle, place)
            _published[known] = (time.monotonic(), address)
        return address


def announce_variable(options: SSHOptions, session: SdkSession, address: str) -> dict[str, str]:
    """The variable by which a job says where its hosts announce themselves, where its bundle's address does not.

    Clients look below the place of the bundle, and read no `options.json`: see `hooks/native.py`.

    Args:
        options: what was asked for.
        session: see `destination`.
        address: what `publish` answered for them.
    """
    if options.transport != "native":
        return {}
    beside = address.rstrip("/").rpartition("/")[0]
    if options.bundle_uri is not None:
        said = check_bundle(options, session, destination(options, session)).announce
    else:
        said = str(options.document(()).get("announce", beside))
    said, owner = split_owner(said)
    place = said or beside
    # Neither the host nor a client can see in the bundle's address that its bucket is another account's.
    owner = owner or (options.bucket_owner if place.rstrip("/") == beside else "")
    return {} if said.rstrip("/") == beside and not owner else {"SMSSH_ANNOUNCE": with_owner(place, owner)}


def bundle_for(options: SSHOptions, session: SdkSession, client: Any, announce: str = "") -> Bundle:
    """The bundle for these options, with the keys and the agent that they name.

    Args:
        options: what was asked for.
        session: see `destination`.
        client: a boto3 client of S3; its region has the agent.
        announce: see `build`.

    Raises:
        SmsshError: see `owned`, `authorized_keys`, `agent_for` and `build`.
    """
    options = owned(options, lambda: session)
    keys = authorized_keys(options, session)
    return build(
        options, keys, agent_for(options, client.meta.endpoint_url, client.meta.region_name), announce
    )
