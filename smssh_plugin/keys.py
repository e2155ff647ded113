"""The client's own SSH key pair, made when it is first needed.

One key for all jobs: it is only ever accepted by containers that were told to, and leaves the keys in
`~/.ssh` alone. Python 3.8 syntax and the standard library only: the submit side puts the public half into
requests.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .errors import ExitStatus, SmsshError
from .files import write_atomically
from .home import home, private_folder

__all__ = ["KeyPair", "ensure_key", "keygen", "make_key", "missing_openssh"]

NAME = "id_ed25519"
FIPS_NAME = "id_ecdsa"
FIPS_FLAG = Path("/proc/sys/crypto/fips_enabled")
"""Where Linux says `1` in FIPS mode."""
KEYGEN_SECONDS = 30.0


@dataclass(frozen=True)
class KeyPair:
    """An SSH key pair.

    Attributes:
        private: the file of the private key, mode 0600.
        public: the public key as one authorized_keys line (type, base64, comment), without a newline.
    """

    private: Path
    public: str


def ensure_key() -> KeyPair:
    """The client's key pair, `$SMSSH_HOME/id_ed25519`; made, and said on stderr, if there is no pair.

    It is one of ECDSA, under the same name, where there is no ed25519: see `make_key`. Where the key there is of
    ed25519 and the machine came into FIPS mode later, it is another, `$SMSSH_HOME/id_ecdsa`.

    Several processes may ask at once: all get the same key.

    Raises:
        SmsshError: there is no `ssh-keygen`, the folder cannot be used, or the key there cannot be read.
    """
    key = _ensure(home() / NAME)
    return _ensure(home() / FIPS_NAME) if _unusable(key) else key


def missing_openssh(program: str) -> SmsshError:
    """The error for an OpenSSH client program that is not on PATH."""
    return SmsshError(
        f"{program} is not installed (looked for it on PATH)",
        hint="install the OpenSSH client: `apt-get install openssh-client`, `dnf install openssh-clients` or "
        "`brew install openssh`",
        reference="openssh-missing",
        status=ExitStatus.UNREACHABLE,
        check="laptop.openssh",
    )


def keygen(*arguments: str) -> str:
    """Run ssh-keygen and answer its standard output.

    Raises:
        SmsshError: it is not installed, or did not work.
    """
    program = shutil.which("ssh-keygen")
    if program is None:
        raise missing_openssh("ssh-keygen")
    try:
        done = subprocess.run(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=KEYGEN_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SmsshError(f"ssh-keygen did not work: {error}", reference="ssh-keygen-failed") from error
    if done.returncode:
        detail = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise SmsshError(f"ssh-keygen did not work: {detail}", reference="ssh-keygen-failed")
    return done.stdout


def make_key(private: Path, comment: str) -> None:
    """Make a key pair: ed25519, or ECDSA P-256 where that is refused, as on machines in FIPS mode.

    Args:
        private: the file of the private key, which does not exist; the public one is beside it.
        comment: of the key.

    Raises:
        SmsshError: there is no `ssh-keygen`, or it refuses both.
    """
    rest = ("-N", "", "-C", comment, "-f", str(private))
    try:
        keygen("-q", "-t", "ed25519", *rest)
    except SmsshError as error:
        if error.reference != "ssh-keygen-failed":
            raise
        for left in (private, private.with_name(private.name + ".pub")):
            left.unlink(missing_ok=True)
        keygen("-q", "-t", "ecdsa", "-b", "256", *rest)


def _ensure(private: Path) -> KeyPair:
    """The key pair of this file, made if there is no file."""
    if not private.exists():
        _make(private)
    _check(private)
    return KeyPair(private, _public(private))


def _unusable(key: KeyPair) -> bool:
    """Whether it is a key of ed25519, on a machine in FIPS mode whose OpenSSH would make none; not all refuse it."""
    if not key.public.startswith("ssh-ed25519 "):
        return False
    try:
        if FIPS_FLAG.read_text(encoding="ascii").strip() != "1":
            return False
    except (OSError, ValueError):
        return False
    with tempfile.TemporaryDirectory(prefix=".key-", dir=key.private.parent) as scratch:
        try:
            keygen("-q", "-t", "ed25519", "-N", "", "-f", str(Path(scratch) / NAME))
        except SmsshError as error:
            return error.reference == "ssh-keygen-failed"
    return False


def _make(private: Path) -> None:
    """Make the pair beside its place, then link the private half in: the first one that links it has made the key."""
    folder = private_folder(private.parent)
    with tempfile.TemporaryDirectory(prefix=".key-", dir=folder) as scratch:
        fresh = Path(scratch) / NAME
        comment = f"smssh {_user()}@{socket.gethostname()}"
        make_key(fresh, comment)
        fresh.chmod(0o600)
        try:
            os.link(fresh, private)
        except FileExistsError:
            return
        except OSError:
            # A file system without hard links: O_EXCL still lets exactly one process win.
            try:
                descriptor = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                return
            with os.fdopen(descriptor, "wb") as out:
                out.write(fresh.read_bytes())
    print(f"smssh: made a key pair for you: {private}", file=sys.stderr)


def _check(private: Path) -> None:
    """Refuse a key of another user's: jobs would let that user in.

    Raises:
        SmsshError: it is one.
    """
    for path in (private, private.with_name(private.name + ".pub")):
        try:
            owner = path.stat().st_uid
        except FileNotFoundError:
            continue
        if owner != os.getuid():
            raise SmsshError(
                f"{path} belongs to another user",
                hint="remove it, and smssh makes a key of your own; or name a folder of your own in SMSSH_HOME",
                reference="home-not-yours",
                status=ExitStatus.USAGE,
            )


def _public(private: Path) -> str:
    """The public half, from `id_ed25519.pub`, which is written from the private one where it is absent."""
    beside = private.with_name(private.name + ".pub")
    try:
        line = beside.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        line = ""
    if line:
        return line
    line = keygen("-y", "-f", str(private)).strip()
    write_atomically(beside, line + "\n")
    return line


def _user() -> str:
    """The name of this user, for the comment of the key."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no such user id in this machine's list
        return f"uid{os.getuid()}"
