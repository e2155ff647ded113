"""Whose keys a job accepts: your own, and those that the options name, in their own words or by where they are kept."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ..errors import SmsshError
from ..key_sources import is_source, read_source
from ..terminal import put
from .account import account_of
from .options import check_public_keys, public_keys

if TYPE_CHECKING:
    from .options import SSHOptions
    from .sessions import SdkSession

__all__ = ["authorized_keys", "named_keys", "own_key"]

FRESH_SECONDS = 60.0
"""For so long, what was read from a source is not read again: all steps of a pipeline get the same keys."""

_read: dict[tuple[str, Any, Any], tuple[float, list[str]]] = {}


def authorized_keys(options: SSHOptions, session: SdkSession = None) -> tuple[str, ...]:
    """The public keys that may log in: your own smssh key (made if there is no key), then the options' keys.

    Args:
        options: what was asked for.
        session: see `named_keys`.

    Raises:
        SmsshError: there is no key at all and none can be made, or a source cannot be read.
    """
    named = named_keys(options, session)
    try:
        own = [own_key()]
    except SmsshError as error:
        # A build machine without ssh-keygen submits for others.
        if not named:
            raise
        put(f"smssh: only the keys in SSHOptions can log in: {error.message}", error=True)
        own = []
    return tuple(dict.fromkeys(own + named))


def own_key() -> str:
    """The public half of your own smssh key, one line.

    Raises:
        SmsshError: there is no key, and none can be made.
    """
    from ..keys import ensure_key

    return ensure_key().public


def named_keys(options: SSHOptions, session: SdkSession = None) -> list[str]:
    """The public keys of the options.

    Sources of keys are read here, except if a job has no bundle (`options.baked`): a key of RSA would not fit into
    one of its variables, so it gets the source's name and reads it itself.

    Args:
        options: what was asked for.
        session: reads sources in AWS; of the SageMaker SDK or of boto3, None for boto3's default one.

    Raises:
        SmsshError: a source cannot be read, or has something else in it.
    """
    named: list[str] = []
    for entry in options.authorized_keys:
        if not is_source(entry):
            named += public_keys(entry)
        elif options.baked:
            named.append(entry)
        else:
            named += _keys_of(entry, getattr(session, "boto_session", session))
    return named


def _keys_of(source: str, boto_session: Any) -> list[str]:
    """The keys that a source has, or had less than FRESH_SECONDS ago."""
    # Sources have names that mean something else in another account.
    credentials = boto_session.get_credentials() if boto_session is not None else None
    who = getattr(credentials, "access_key", None)
    known = (source, getattr(boto_session, "region_name", None), who)
    when, lines = _read.get(known, (0.0, []))
    if not lines or time.monotonic() - when > FRESH_SECONDS:
        lines = read_source(
            source, lambda service: _client(boto_session, service), lambda: account_of(boto_session, source)
        )
        check_public_keys(source, lines)
        _read[known] = (time.monotonic(), lines)
    return lines


def _client(boto_session: Any, service: str) -> Any:
    import boto3

    maker: Any = boto_session or boto3.Session()
    return maker.client(service)
