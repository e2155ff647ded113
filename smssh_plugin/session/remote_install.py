"""Start an SSH server through a shell in a container that has none of ours, and ask for its host key.

What is put there is the bundle that jobs get; what is started is `smssh-hook placeholder`, which ends by itself when
nobody was logged in for a while. The job's own processes do not notice; its log does not, either. The host key comes
back through the session, whose other end IAM vouches for.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import ExitStatus, SmsshError
from .converse import converse

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..aws.session import AwsSession
    from .converse import Shell

__all__ = ["Container", "install"]

ANSWER_SECONDS = 30.0
UPLOAD_SECONDS = 600.0
START_SECONDS = 120.0
IDLE = "30m"
_LINE = 4096

# Each answer begins like this. What is typed spells it differently, so that its echo is not taken for an answer.
_MARK = b"smssh:\x02"
_TYPED_MARK = r"smssh:\002"

_PROBE = """\
exec sh -c 'stty raw -echo 2>/dev/null; for each in python3 python /opt/conda/bin/python3 /usr/local/bin/python3; do
$each -c "import sys; sys.exit(sys.version_info < (3, 8))" 2>/dev/null && break; done;
PATH=$PATH:/usr/sbin:/sbin;
printf "{mark}%s|%s|%s|\\003" "$($each -c "import platform as p; print(*p.python_version_tuple()[:2], sep=chr(46))")" \
"$(uname -m)" "$(command -v sshd)";
while read -r line; do eval "$line"; done' smssh-control
"""
# The last argument tells entrypoints/workers.py that nobody works in this shell.
_TAKE = """\
f=$(mktemp -d "${{TMPDIR:-/tmp}}/smssh-XXXXXX"); printf "{mark}folder \\003";
head -c {size} | base64 -d | tar -xzf - -C "$f";
printf "{mark}$? $f\\003"
"""
_START = """\
$each -I -c "import sys; sys.path.insert(0, sys.argv[1] + '/smssh.zip'); \
from smssh_plugin.entrypoints.remote_start import main; main()" "$f" {idle}; printf "{mark}end \\003"
"""


@dataclass(frozen=True)
class Container:
    """What the container is, as far as it matters for what is put there.

    Attributes:
        python: its Python, `3.11`.
        machine: `x86_64`, `aarch64`.
        sshd: whether it has an sshd.
    """

    python: str
    machine: str
    sshd: bool


def install(
    aws: AwsSession,
    find: Callable[[bool], str],
    archive: Callable[[Container], bytes],
    *,
    idle: str = IDLE,
    progress: Callable[[str], None] = lambda _what: None,
) -> dict[str, Any]:
    """Start an SSH server in the container, or find the one that is there; only in the main thread.

    Args:
        aws: the AWS session.
        find: answers the target of the session; see `lifetime.started`.
        archive: answers the bundle for such a container as a `.tar.gz`.
        idle: how long nobody may be logged in before it ends, `30m`.
        progress: is told what is being done.

    Returns:
        `port`, `control_port`, `host_key`, `user` of the server.

    Raises:
        SmsshError: the container cannot be made to, with the reason.
    """

    def talk(shell: Shell) -> dict[str, Any]:
        shell.send(_typed(_PROBE))
        python, machine, sshd = _marked(shell, ANSWER_SECONDS).split("|")[:3]
        if not re.fullmatch(r"3\.\d+", python):
            raise _unfit("the container has no Python 3.8 or newer, which the SSH server's supervisor needs")
        container = Container(python, machine, bool(sshd))
        data = archive(container)
        progress(f"sending {len(data) / 1e6:.1f} MB (Python {python}, {'sshd' if sshd else 'no sshd'})")
        text = base64.encodebytes(data)
        shell.send(_typed(_TAKE, size=str(len(text))))
        _marked(shell, ANSWER_SECONDS)
        shell.send(text)
        status, _, folder = _marked(shell, UPLOAD_SECONDS).partition(" ")
        if status != "0":
            raise _unfit(f"the files could not be unpacked ({folder}): mktemp, base64 and tar are required")
        progress("starting the server")
        shell.send(_typed(_START, idle=idle))
        return _server(_marked(shell, START_SECONDS))

    return converse(aws, find, talk)


def _server(answer: str) -> dict[str, Any]:
    """What the start program says of the server.

    Raises:
        SmsshError: it says that there is no server, or nothing that is understood.
    """
    try:
        found = json.loads(answer)
        if not found.get("port") or not found.get("host_key"):
            raise _unfit(str(found.get("error") or "the SSH server did not start"))
        return {
            "port": int(found["port"]),
            "control_port": int(found.get("control_port") or 0),
            "host_key": str(found["host_key"]),
            "user": str(found["user"]),
        }
    except (ValueError, AttributeError, KeyError, TypeError, OverflowError, RecursionError):
        raise _unfit("the answer of the start program is not understood") from None


def _typed(script: str, **values: str) -> bytes:
    """A script as it is typed: one line, ended as the Enter key does."""
    return script.format(mark=_TYPED_MARK, **values).strip().replace("\n", " ").encode() + b"\n"


def _marked(shell: Shell, seconds: float) -> str:
    shell.expect(_MARK, seconds)
    return shell.expect(b"\x03", seconds).decode("utf-8", "replace")


def _unfit(why: str) -> SmsshError:
    return SmsshError(
        f"no SSH server could be started: {why}",
        hint="use `smssh shell`, which needs none",
        reference="not-installed",
        status=ExitStatus.UNREACHABLE,
    )
