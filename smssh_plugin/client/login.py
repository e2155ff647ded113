"""One login that commands and copies share: an `ssh` master.

It runs a remote `cat` whose input is a pipe that this process holds: when this process goes, however it goes, the pipe
closes and the master ends.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import subprocess
import threading
import time
from typing import IO, TYPE_CHECKING

from ..errors import ExitStatus, SmsshError
from . import identities, refusals, ssh
from .known_hosts import alias

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .endpoint import Endpoint

__all__ = ["Login"]

READY = b"smssh-connection-ready"
STOP_SECONDS = 5.0
CHUNK = 1 << 16


class Login:
    """A master that stands.

    Args:
        endpoint: where to log in.
        timeout: seconds the login may take.

    Raises:
        SmsshError: REFUSED, UNREACHABLE or TIMEOUT.
    """

    def __init__(self, endpoint: Endpoint, timeout: float) -> None:
        self.endpoint = endpoint
        self.alias = alias(endpoint.address)
        self.folder = ssh.socket_folder()
        self._errors = bytearray()
        try:
            self.master = self._log_in_with_any_key(timeout)
        except BaseException:  # Ctrl-C too: nothing is left behind
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    @property
    def alive(self) -> bool:
        """Whether the master runs."""
        return self.master.poll() is None

    def command(self, name: str) -> list[str]:
        """The beginning of a command line of `ssh` or `sftp` that rides on the master."""
        return [ssh.program(name), "-F", str(self.folder / "riding")]

    def stands(self) -> bool:
        """Whether the master answers."""
        if not self.alive:
            return False
        try:
            asked = subprocess.run(
                [*self.command("ssh"), "-O", "check", self.alias],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=ssh.environment(),
                timeout=STOP_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
        return asked.returncode == 0

    def lost(self) -> SmsshError:
        """What to say where the connection is gone."""
        return SmsshError(
            f"the connection to {self.endpoint.address} is gone",
            hint=_last_words(self._errors) or "connect again, unless the container has ended",
            reference="connection-lost",
            status=ExitStatus.UNREACHABLE,
        )

    def close(self) -> None:
        """End the master; what it leaves is removed."""
        _end(self.master)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _log_in_with_any_key(self, timeout: float) -> subprocess.Popen[bytes]:
        """Log in with our own key; where the job refuses that, with the keys in `~/.ssh` and of the agent.

        One after the other: ssh offers an agent's keys first, and such a key may ask a person for a touch.
        """
        deadline = time.monotonic() + timeout
        self._configure({"IdentitiesOnly": "yes", "IdentityAgent": "none"}, [self.endpoint.key])
        try:
            return self._log_in(timeout, deadline)
        except SmsshError as error:
            if error.reference != "key-refused" or not identities.others(self.endpoint.key):
                raise
        self._errors.clear()
        self._configure({}, identities.offered(self.endpoint.key))
        return self._log_in(timeout, deadline)

    def _configure(self, which: dict[str, str], keys: Sequence[Path]) -> None:
        """Write the files that ssh reads: its whole configuration, and the one host key.

        Args:
            which: options about which keys are offered.
            keys: the files of private keys.
        """
        known = self.folder / "known_hosts"
        known.write_text(f"{self.alias} {self.endpoint.host_key}\n", encoding="ascii")
        chosen = ssh.options(self.endpoint, known)
        chosen.update(
            BatchMode="yes",
            ForwardAgent="no",
            ForwardX11="no",
            ClearAllForwardings="yes",
            EscapeChar="none",
            # INFO names the reason of a failed negotiation; the commands that ride on the master add nothing
            # of their own.
            LogLevel="INFO",
            ControlPath=ssh.quoted(self.folder / "s"),
            **which,
        )
        self._config = self.folder / "config"
        self._config.write_text(ssh.render(chosen, keys), encoding="utf-8")
        # The same for the commands that ride on the master; should it be gone, they fail instead of logging
        # in anew.
        riding = {**chosen, "ProxyCommand": "false", "ControlMaster": "no", "LogLevel": "ERROR"}
        (self.folder / "riding").write_text(ssh.render(riding, keys), encoding="utf-8")

    def _log_in(self, timeout: float, deadline: float) -> subprocess.Popen[bytes]:
        """Start the master and wait until it stands, or for the deadline of the monotonic clock."""
        master = subprocess.Popen(
            [
                ssh.program("ssh"),
                "-F",
                str(self._config),
                "-M",
                "-T",
                self.alias,
                "--",
                f"echo {READY.decode()}; exec cat >/dev/null",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ssh.environment(),
            start_new_session=True,  # Ctrl-C is ours to handle, in order
        )
        assert master.stdout is not None
        assert master.stderr is not None
        try:
            self._wait_until_ready(master, timeout, deadline)
        except BaseException:  # Ctrl-C too: no ssh is left running
            _end(master)
            raise
        threading.Thread(target=self._drain, args=(master.stdout, None), daemon=True).start()
        threading.Thread(target=self._drain, args=(master.stderr, self._errors), daemon=True).start()
        return master

    def _wait_until_ready(self, master: subprocess.Popen[bytes], timeout: float, deadline: float) -> None:
        """Read what the master writes until the remote side has said that it is there."""
        assert master.stdout is not None
        assert master.stderr is not None
        seen = b""
        with selectors.DefaultSelector() as selector:
            selector.register(master.stdout, selectors.EVENT_READ)
            selector.register(master.stderr, selectors.EVENT_READ)
            while READY not in seen:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise SmsshError(
                        f"logging in to {self.endpoint.address} took longer than {timeout:g} s",
                        hint=_last_words(self._errors) or "see whether the job still runs: `smssh list`",
                        reference="login-timeout",
                        status=ExitStatus.TIMEOUT,
                    )
                pieces = {key.fileobj: os.read(key.fd, CHUNK) for key, _ in selector.select(left)}
                for stream in [stream for stream, piece in pieces.items() if not piece]:
                    selector.unregister(stream)
                # Only a tail is kept: a login shell may greet at length.
                seen = (seen + pieces.get(master.stdout, b""))[-CHUNK:]
                self._errors += pieces.get(master.stderr, b"")
                if not selector.get_map():
                    raise self._refused()

    def _drain(self, stream: IO[bytes], into: bytearray | None) -> None:
        """Read what the master still says, so that it never blocks; keep the end of it."""
        with contextlib.suppress(OSError, ValueError):
            while piece := os.read(stream.fileno(), CHUNK):
                if into is not None:
                    into += piece
                    del into[:-CHUNK]

    def _refused(self) -> SmsshError:
        """What kept the master from logging in, from what ssh and the proxy wrote."""
        text = self._errors.decode("utf-8", "replace")
        address = self.endpoint.address
        detail = _last_words(self._errors)
        if "Host key verification failed" in text or "HOST IDENTIFICATION HAS CHANGED" in text:
            return refusals.other_host_key(address)
        too_many = "Too many authentication failures" in text
        if "Permission denied (" in text or too_many:
            hint = identities.remedy(self.endpoint, too_many=too_many)
            return refusals.key_refused(self.endpoint, hint, ", nor another of yours")
        if "no mutual signature" in text or "no matching host key type" in text:
            return SmsshError(
                f"{address} does not have the host key that its container announced: refusing to log in",
                hint=detail,
                reference="host-key-mismatch",
                status=ExitStatus.REFUSED,
                check=f"--job {address}",
            )
        return refusals.login_failed(f"cannot log in to {address}: {detail or 'ssh said nothing'}", address)


def _end(master: subprocess.Popen[bytes]) -> None:
    """End a master: its input closes, which ends its remote side; then by force, in bounded time."""
    if master.stdin is not None:
        with contextlib.suppress(OSError):
            master.stdin.close()
    if master.poll() is None:
        # Asking first lets ssh end its proxy, which then ends the Session Manager session.
        master.terminate()
        try:
            master.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            master.kill()
            master.wait()
    for stream in (master.stdout, master.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def _last_words(errors: bytes | bytearray) -> str:
    """The line of what ssh and its proxy wrote that tells a person most."""
    lines = [line.strip() for line in bytes(errors).decode("utf-8", "replace").splitlines() if line.strip()]
    for mark in ("error: ", "smssh: "):  # of our own proxy: nearer to the cause than what ssh makes of it
        said = [line.removeprefix(mark) for line in lines if line.startswith(mark)]
        if said:
            return said[-1]
    telling = [line for line in lines if not line.startswith("Connection closed by UNKNOWN")]
    return telling[-1] if telling else ""
