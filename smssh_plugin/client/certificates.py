"""Short-lived user certificates, with this machine as the authority: no person's key in any job.

A job that carries the authority's line (`authority`) in its authorized keys lets in everybody with a certificate of it
that is still valid. Both SSH servers understand the line: sshd(8), "AUTHORIZED_KEYS FILE FORMAT", `cert-authority`.
ssh takes a certificate by itself where it lies beside the key, as `id_ed25519-cert.pub`.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..durations import format_duration
from ..errors import ExitStatus, SmsshError
from ..home import home, private_folder
from ..keys import ensure_key, keygen, make_key

if TYPE_CHECKING:
    from ..keys import KeyPair

__all__ = ["PRINCIPAL", "authority", "authority_file", "beside", "certify", "own_key"]

NAME = "certificate_authority"
PRINCIPAL = "smssh"
"""The principal of the certificates: any account of a job that trusts the authority, and nothing else."""
OWN_SECONDS = 8 * 3600
"""How long the certificate of this machine's own key is good."""
LONGEST_SECONDS = 30 * 24 * 3600
_BEFORE_SECONDS = 300
"""Certificates are good from so long before they were made: clocks differ."""


def authority_file() -> Path:
    """Where the authority's private key is; this machine is not the authority if the file does not exist."""
    return home() / NAME


def authority() -> str:
    """The line for a job's authorized keys. The authority's key pair is made when it is first asked for."""
    private = authority_file()
    if not private.exists():
        folder = private_folder(home())
        with tempfile.TemporaryDirectory(prefix=".ca-", dir=folder) as scratch:
            fresh = Path(scratch) / NAME
            make_key(fresh, "smssh certificate authority")
            public = fresh.with_name(f"{NAME}.pub")
            public.replace(private.with_name(f"{NAME}.pub"))
            fresh.replace(private)
    kind, blob = keygen("-y", "-f", str(private)).split()[:2]
    return f'cert-authority,principals="{PRINCIPAL}" {kind} {blob} smssh certificate authority'


def certify(public: Path, seconds: float, name: str) -> Path:
    """Make a certificate for a public key, and answer its file, beside the key's.

    Args:
        public: the file of the public key, `KEY.pub`.
        seconds: how long it is good, 60 to `LONGEST_SECONDS`.
        name: who it is for, as the server's log shows it.

    Raises:
        SmsshError: there is no authority here, no such key, or a time out of bounds.
    """
    if not 60 <= seconds <= LONGEST_SECONDS:
        raise SmsshError(
            f"a certificate is valid for 1 min to {format_duration(LONGEST_SECONDS)}, not {format_duration(seconds)}",
            reference="bad-lifetime",
            status=ExitStatus.USAGE,
        )
    private = authority_file()
    if not private.exists():
        raise SmsshError(
            "this machine is not a certificate authority",
            hint="make it one with `smssh certify --authority`, which shows the line that its jobs have to carry",
            reference="no-authority",
            status=ExitStatus.USAGE,
        )
    if not public.is_file() or public.suffix != ".pub":
        raise SmsshError(
            f"{public} is not a public key: its file ends in .pub",
            reference="no-key",
            status=ExitStatus.USAGE,
        )
    made = beside(public)
    with tempfile.TemporaryDirectory(prefix=".certificate-", dir=public.parent) as scratch:
        copy = Path(scratch) / public.name
        copy.write_bytes(public.read_bytes())
        span = f"-{_BEFORE_SECONDS}s:+{seconds:.0f}s"
        # The serial number is of no use but to be told apart in logs.
        serial = str(time.time_ns() // 1_000_000)
        keygen(*("-q", "-s", str(private), "-I", name, "-n", PRINCIPAL, "-V", span, "-z", serial, str(copy)))
        beside(copy).replace(made)
    return made


def beside(key: Path) -> Path:
    """The file of a key's certificate, where ssh looks for it; for the private or the public half."""
    stem = key.name.removesuffix(".pub")
    return key.with_name(f"{stem}-cert.pub")


def own_key() -> KeyPair:
    """Our own key pair, with a certificate that is good for a while where this machine is an authority.

    Raises:
        SmsshError: see `ensure_key`; or the certificate cannot be made.
    """
    key = ensure_key()
    if authority_file().exists():
        made = beside(key.private)
        try:
            age = time.time() - made.stat().st_mtime
        except OSError:
            age = OWN_SECONDS
        if not 0 <= age < OWN_SECONDS / 2:
            certify(key.private.with_name(f"{key.private.name}.pub"), OWN_SECONDS, f"uid{os.getuid()}")
    return key
