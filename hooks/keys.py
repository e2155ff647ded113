"""Who may log in: the public keys that the settings name, or say where they are kept."""

from __future__ import annotations

import re
from typing import Any

from ..errors import SmsshError
from ..hookspecs import Context, hookimpl
from ..key_sources import is_source, read_source
from . import _aws

_KEY = re.compile(
    r"""(?:(?:[^\s"#]|"(?:[^"\\]|\\.)*")+\s+)?"""  # options
    r"""(?:ssh|ecdsa|sk-ssh|sk-ecdsa)-[\w@.\-]+\s+"""  # type
    r"""[A-Za-z0-9+/]{32,}={0,3}(?:\s.*)?\Z"""  # key and comment
)


@hookimpl
def smssh_authorized_keys(context: Context) -> list[str]:
    """The keys of `SMSSH_AUTHORIZED_KEYS` and of the sources that it names, without lines that are none."""
    keys = []
    for entry in context.settings.authorized_keys:
        for line in _lines(context, entry):
            if _KEY.match(line):
                keys.append(line)
            else:
                context.log.warning(
                    "a line of SMSSH_AUTHORIZED_KEYS is not a public key (%d characters)", len(line)
                )
    return keys


def _lines(context: Context, entry: str) -> list[str]:
    """The entry itself, or the lines of the source that it is; none where that cannot be read."""

    def client(service: str) -> Any:
        return _aws.client(service, _aws.region(context))

    try:
        return read_source(entry, client) if is_source(entry) else [entry]
    except SmsshError as error:
        context.log.warning("%s", error)
        context.say("smssh: {}".format(str(error).replace("\n", " ")))
        return []
