"""The local emulator's state folder, and the file that says whether one is running and where.

`$SMSSH_HOME/local`: `state.json` while it runs, `local.log`, the locks `lock`, `start` and `users`, `jobs/` and
`bin/` (of the job runner), `functions/` (logs of Lambda functions), and `client/` (files for clients).
This module imports nothing of aiohttp or moto.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ExitStatus, SmsshError
from ..files import write_atomically
from ..home import home, own_text, private_folder
from ..processes import process
from .environment import Access
from .keyring import Key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

__all__ = ["State", "StateFolder", "Users", "already_running", "port_in_use", "process_birth"]


_SECRETS = ("secret_key", "proxy", "clients")


@dataclass(frozen=True)
class State:
    """A running local emulator."""

    pid: int
    birth: str
    """Tells its process from a later one of the same number; see `process_birth`."""
    port: int
    endpoint: str
    started: float
    """Seconds since the epoch."""
    image_env: str
    channels: str = ""
    """Where agents open their channels: https, which Amazon's insists on."""
    authority: str = ""
    """The PEM file of the authority that the certificate there is signed by."""
    temporary: bool = False
    """Whether it ends with the last `smssh local run` that uses it."""
    access_key: str = ""
    secret_key: str = field(default="", repr=False)
    """The credentials of who started it; the file is theirs alone."""
    proxy: str = field(default="", repr=False)
    """The password of its proxy."""
    latency: float = 0.0
    """Seconds that each message of a channel is under way, each way."""
    pace: float = 0.0
    """Seconds from one message of a fake agent's output to the next."""
    signed_clients: bool = True
    """Whether clients of data channels have to sign."""
    images: dict[str, str] = field(default_factory=dict)
    """The folders of images that do not have the default, `image_env`."""
    known_images_only: bool = False
    """Whether other images than those in `images` are refused."""

    iam: str = ""
    """The folder of the policies that are enforced; "" for none."""
    clients: dict[str, tuple[str, str, str]] = field(default_factory=dict, repr=False)
    """With policies: the credentials of those who use clients, by name; see iam/account.py."""

    @property
    def key(self) -> Key:
        """The credentials of who started it."""
        return Key(self.access_key, self.secret_key)

    @property
    def access(self) -> Access:
        """What leads a client to it."""
        return Access(self.endpoint, self.key, Path(self.authority) if self.authority else None, self.proxy)

    def access_of(self, client: str) -> Access:
        """What leads one of `clients` to it."""
        return replace(self.access, key=Key(*self.clients[client], owner=f"client {client}"))

    def shown(self) -> dict[str, Any]:
        """What may be printed: everything but what is secret."""
        return {name: value for name, value in asdict(self).items() if name not in _SECRETS}

    def runs(self) -> bool:
        """Whether its process is there."""
        return process_birth(self.pid) == self.birth


class Users:
    """The lock that the commands which use a local emulator share.

    The system lets go of it when its process ends, however that ends.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def join(self) -> bool:
        """Be one of them; False while the local emulator is being stopped, because it had none any more."""
        return _lock(self._file, fcntl.LOCK_SH)

    def alone(self) -> bool:
        """Be none of them any more; True if there is no other, and then none can join."""
        return _lock(self._file, fcntl.LOCK_EX)

    def leave(self) -> None:
        """Let go of the lock."""
        fcntl.flock(self._file, fcntl.LOCK_UN)


class StateFolder:
    """The folder and its files.

    Args:
        path: by default `$SMSSH_HOME/local`.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path if path is not None else home() / "local"
        self.state_file = self.path / "state.json"
        self.log_file = self.path / "local.log"

    def make(self) -> None:
        """Make the folder, private to its owner.

        Raises:
            SmsshError: it cannot be made, or is somebody else's.
        """
        private_folder(self.path)

    def read(self) -> State | None:
        """The local emulator that runs, if one does. The file of one that was killed is removed."""
        try:
            state = State(**json.loads(own_text(self.state_file)))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            self.remove()
            return None
        if state.runs():
            return state
        self.remove()
        return None

    def write(self, state: State) -> None:
        """Write the file, whole or not at all."""
        write_atomically(self.state_file, json.dumps(asdict(state)))

    def remove(self) -> None:
        """Remove the file."""
        self.state_file.unlink(missing_ok=True)

    @contextlib.contextmanager
    def only(self) -> Iterator[bool]:
        """Hold the folder's lock; gives False where another process has it."""
        with open(self.path / "lock", "a") as file:
            yield _lock(file, fcntl.LOCK_EX)

    @contextlib.contextmanager
    def users(self) -> Iterator[Users]:
        """The lock of those who use what runs here; nothing of it is held yet."""
        with open(self.path / "users", "a") as file:
            yield Users(file)

    @contextlib.contextmanager
    def turn_to_start(self) -> Iterator[None]:
        """Wait until no other command starts one here; until the end of the block none does."""
        with open(self.path / "start", "a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _lock(file: IO[str], kind: int) -> bool:
    """Take a lock of a file, in the place of the one that is held; False where another process is in the way."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def port_in_use(port: int) -> SmsshError:
    """The error for a port that something else listens on."""
    return SmsshError(
        f"port {port} on 127.0.0.1 is in use by another program",
        hint="name another one: --port PORT (0 takes a free one)",
        reference="port-in-use",
        status=ExitStatus.USAGE,
    )


def already_running(folder: StateFolder) -> SmsshError:
    """The error for a folder in which another local emulator runs."""
    return SmsshError(
        f"another smssh local runs, or is just starting, in {folder.path}",
        hint="see: smssh local status",
        reference="already-running",
    )


def process_birth(pid: int) -> str | None:
    """When a process was started, as no other process of the same number can have it; None: it is not there.

    It is the boot's identity and when the process started. A zombie counts as gone.
    """
    found = process(pid)
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None
    return f"{boot}/{found.started}" if found is not None and found.alive else None
