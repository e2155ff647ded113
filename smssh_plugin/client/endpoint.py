"""Everything one login needs: the user to log in as, over which proxy, with which key, to which host key."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..aws.session import AwsSession
from ..errors import ExitStatus, SmsshError
from . import certificates, known_hosts
from .addresses import parse
from .lookup import resolve

if TYPE_CHECKING:
    from collections.abc import Callable

    from .managed_nodes import Node

__all__ = ["Endpoint", "own_command", "reach"]

_USER = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.@+=-]{0,254}\$?\Z")
"""The name of an account: no word of a command line or of ssh's configuration besides."""


@dataclass(frozen=True)
class Endpoint:
    """The end of one SSH login.

    Attributes:
        address: the address as text; names it in messages.
        user: the user to log in as.
        host_key: the only host key that is accepted, `TYPE BASE64`.
        proxy: the command whose standard input and output are the connection; a fresh one for each.
        key: the file of our own private key; `identities` has which others are offered.
        owner: the SSHOwner of the host, for messages; "" where it has none.
    """

    address: str
    user: str
    host_key: str
    proxy: tuple[str, ...]
    key: Path
    owner: str = ""


def own_command() -> tuple[str, ...]:
    """The words that run this very `smssh` again, whatever PATH and the current folder hold."""
    script = Path(sys.executable).with_name("smssh")
    # `-m` would put the current folder in front of sys.path, where a user's own click.py or random.py may
    # lie.
    if script.exists():
        return (sys.executable, str(script))
    return (sys.executable, "-m", "smssh_plugin.cli")


def reach(
    address: str,
    aws: AwsSession | None = None,
    *,
    wait: float = 0.0,
    on_wait: Callable[[str], None] | None = None,
    node: Node | None = None,
    control: bool = False,
) -> Endpoint:
    """Find the host behind `address` and what a login there needs. Parameters and errors as `lookup.resolve`.

    Args:
        address: the address of the host.
        aws: the AWS session.
        wait: seconds to wait for a host that is not there yet.
        on_wait: is told what is waited for.
        node: the node, where the caller has found it already; no call is made then.
        control: whether the login is not a person's: it keeps no hold from ending, and `connected` does not
            count it. A container of an older smssh counts every login.

    Raises:
        SmsshError: also REFUSED where the host announced no host key, or no user that there can be.
    """
    text = str(parse(address))
    aws = aws or AwsSession()
    found = node or resolve(address, aws, wait=wait, on_wait=on_wait)
    proxy = [*own_command(), "proxy", text, "--region", aws.region]
    if aws.profile.explicit:
        # The proxy starts the session with the credentials of who found the host; AWS_PROFILE it inherits.
        proxy += ["--profile", aws.profile.name]
    port = found.control_port if control and found.control_port else found.port
    proxy += ["--port", str(port), "--target", found.target]
    return Endpoint(
        address=text,
        user=_checked_user(found.user, text),
        host_key=known_hosts.checked(found.host_key, text),
        proxy=tuple(proxy),
        key=certificates.own_key().private,
        owner=found.owner,
    )


def _checked_user(user: str, address: str) -> str:
    """The user that a container announced.

    Raises:
        SmsshError: it is not the name of an account: ssh would read more than a name in it.
    """
    if not _USER.match(user):
        raise SmsshError(
            f"{address} announced the user {user[:80]!r}, which is not the name of an account: refusing to log in",
            hint="check who may write what the job announces: only the job's role should",
            reference="bad-user",
            status=ExitStatus.REFUSED,
        )
    return user
