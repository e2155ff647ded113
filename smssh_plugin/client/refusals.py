"""The errors of a login that was refused, the same for `ssh` and for sshtunnel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ExitStatus, SmsshError

if TYPE_CHECKING:
    from .endpoint import Endpoint

__all__ = ["key_refused", "login_failed", "other_host_key"]


def other_host_key(address: str) -> SmsshError:
    """The server has another host key than the one that was announced."""
    return SmsshError(
        f"{address} shows another host key than its container announced: refusing to log in",
        hint="look at the job first: somebody may be in between, or the container was replaced",
        reference="host-key-mismatch",
        status=ExitStatus.REFUSED,
        check=f"--job {address}",
    )


def key_refused(endpoint: Endpoint, hint: str, more: str = "") -> SmsshError:
    """The server takes none of the keys.

    Args:
        endpoint: where the login was refused.
        hint: what to do.
        more: what else was offered than the endpoint's key.
    """
    return SmsshError(
        f"{endpoint.address} does not accept your SSH key {endpoint.key}{more} (user {endpoint.user})",
        hint=hint,
        reference="key-refused",
        status=ExitStatus.REFUSED,
        check="laptop.keys",
    )


def login_failed(message: str, address: str) -> SmsshError:
    """There was no login, for another reason."""
    return SmsshError(
        message,
        hint="see whether the job still runs: `smssh list`",
        reference="login-failed",
        status=ExitStatus.UNREACHABLE,
        check=f"--job {address}",
    )
