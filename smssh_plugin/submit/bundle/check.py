"""A bundle that somebody named: used as it is, once it was found to be complete and made for what is asked."""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from typing import TYPE_CHECKING, Any, Mapping

from ... import settings
from ...agent_package import PACKAGE
from ...errors import ExitStatus, SmsshError
from ...manifest import MANIFEST, Manifest
from ..authorized import named_keys, own_key
from ..options import AGENT_LATEST, SmsshWarning
from .expiry import remember
from .store import OPTIONS, Prefix, read
from .wheels import platform_of

if TYPE_CHECKING:
    from ..options import SSHOptions
    from ..sessions import SdkSession
    from .store import Destination

__all__ = ["check_bundle"]

SECRET = frozenset({"notify"})
"""What is not repeated in messages: the address of a webhook."""
FRESH_SECONDS = 600.0
"""For so long, what was found is not looked at again."""

_checked: dict[tuple[str, str, str], tuple[float, settings.Settings]] = {}


def check_bundle(options: SSHOptions, session: SdkSession, store: Destination) -> settings.Settings:
    """See that the bundle in the options can do what the other options ask for; not again for FRESH_SECONDS.

    What the options leave open is as the bundle says: it may hold where they say nothing of holds. A warning says
    that your own key may not log in.

    Args:
        options: what was asked for; `bundle` is set.
        session: see `named_keys`.
        store: where the bundle is; its client and the bucket's owner count.

    Returns:
        What the bundle's `options.json` says.

    Raises:
        SmsshError: it is not there, not complete, or was made for something else.
    """
    assert options.bundle_uri is not None
    asked = _asked(options, tuple(named_keys(options, session)))
    expected = json.dumps(
        [asked, options.wheels, options.agent_source, options.machines], sort_keys=True, default=repr
    )
    known = (str(store.client.meta.endpoint_url), options.bundle_uri, expected)
    when, found = _checked.get(known, (0.0, None))
    if found is not None and time.monotonic() - when < FRESH_SECONDS:
        return found
    place = Prefix(options.bundle_uri, store.client, store.owner)
    text = b"".join(place.chunks(MANIFEST))
    if hashlib.sha256(text).hexdigest() != place.name:
        raise _not_usable(options, f"its {MANIFEST} is not the one that it is named after")
    manifest = Manifest.parse(text)
    try:
        document = json.loads(read(place, manifest, OPTIONS))
        read_there = settings.load({}, document)
    except ValueError as error:
        raise _not_usable(options, f"its {OPTIONS} cannot be read: {error}") from None
    except SmsshError as error:
        raise _not_usable(options, error.message) from None
    _check_files(options, place, manifest)
    differences = [*_differences(asked, document, read_there), *_absent(options, manifest)]
    if differences:
        raise _not_usable(options, f"it was made for other options: {'; '.join(differences)}")
    _warn_of_own_key(options, read_there.authorized_keys)
    remember(options.bundle_uri, place.expiry)
    _checked[known] = (time.monotonic(), read_there)
    return read_there


def _check_files(options: SSHOptions, place: Prefix, manifest: Manifest) -> None:
    """See that all files are there, whole and right, by what S3 says of them or else by reading them."""
    states = place.states(manifest)
    for state, problem in (
        ("missing", "missing there"),
        ("changed", f"not what its {MANIFEST} says"),
        ("unknown", f"there and not in its {MANIFEST}"),
    ):
        names = sorted(name for name, found in states.items() if found == state)
        if names:
            raise _not_usable(options, f"{', '.join(names)} is {problem}")


def _asked(options: SSHOptions, keys: tuple[str, ...]) -> dict[str, Any]:
    """The keys of `options.json` that somebody asked for."""
    asked = options.document(keys)
    if options.owner is None:  # then it is this process's default
        asked.pop("owner", None)
    if options.agent_version not in (None, AGENT_LATEST):
        asked["agent_version"] = options.agent_version
    return asked


def _differences(
    asked: Mapping[str, Any], document: Mapping[str, Any], there: settings.Settings
) -> list[str]:
    here = settings.load({}, asked)
    known = {each.field for each in settings.SETTINGS}
    found = []
    for name, value in asked.items():
        if name == "authorized_keys":
            lacking = set(here.authorized_keys) - set(there.authorized_keys)
            if lacking:
                found.append(f"{len(lacking)} of the authorized_keys may not log in there")
            continue
        pair = (getattr(there, name), getattr(here, name)) if name in known else (document.get(name), value)
        if pair[0] != pair[1] and name in SECRET:
            found.append(f"{name} is another there")
        elif pair[0] != pair[1]:
            found.append(f"{name} is {_shown(pair[0])} there and {_shown(pair[1])} here")
    return found


def _shown(value: Any) -> str:
    return "'{}'".format(",".join(map(str, value))) if isinstance(value, tuple) else repr(value)


def _absent(options: SSHOptions, manifest: Manifest) -> list[str]:
    """What the bundle should bring and does not."""
    prefixes = {f"wheels for Python {each}": f"wheels/{platform_of(each)}/" for each in options.wheels}
    if options.agent_source == "bundle":
        prefixes.update({f"agent for {each}": f"agent/{each}/{PACKAGE}" for each in options.machines})
    return [
        f"it has no {what}"
        for what, prefix in prefixes.items()
        if not any(name.startswith(prefix) for name in manifest.files)
    ]


def _warn_of_own_key(options: SSHOptions, keys: tuple[str, ...]) -> None:
    try:
        own = own_key().split()[1]
    except SmsshError:
        return
    if not any(own in line.split() for line in keys):
        warnings.warn(
            f"your own key is not among those of {options.bundle_uri}: others can log in, you can't",
            SmsshWarning,
            stacklevel=2,
        )


def _not_usable(options: SSHOptions, problem: str) -> SmsshError:
    return SmsshError(
        f"the bundle {options.bundle_uri} can't be used: {problem}",
        hint="see what it is with `smssh bundle show` and `smssh bundle verify`, or make one with `smssh bundle "
        "build`; without SSHOptions(bundle=...) one is built for each set of options",
        reference="bundle-not-usable",
        status=ExitStatus.USAGE,
    )
