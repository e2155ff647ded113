"""Who may log in: the public keys that the settings name."""

from __future__ import annotations

import re

from ..hookspecs import Context, hookimpl

_KEY = re.compile(
    r"""(?:(?:[^\s"#]|"(?:[^"\\]|\\.)*")+\s+)?"""  # options
    r"""(?:ssh|ecdsa|sk-ssh|sk-ecdsa)-[\w@.\-]+\s+"""  # type
    r"""[A-Za-z0-9+/]{32,}={0,3}(?:\s.*)?\Z"""  # key and comment
)


@hookimpl
def smssh_authorized_keys(context: Context) -> list[str]:
    """The keys of `SMSSH_AUTHORIZED_KEYS`, without lines that are none."""
    keys = []
    for line in context.settings.authorized_keys:
        if _KEY.match(line):
            keys.append(line)
        else:
            context.log.warning(
                "a line of SMSSH_AUTHORIZED_KEYS is not a public key (%d characters)", len(line)
            )
    return keys
