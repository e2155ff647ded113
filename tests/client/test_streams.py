"""What asks for credentials never sees ssh's stream, nor what a person or a script feeds to a command."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import subprocess
import sys
import termios
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import pytest

from smssh_plugin.aws import credentials
from smssh_plugin.aws.session import AwsSession
from smssh_plugin.errors import SmsshError
from tests.session.support import KEYS
from tests.waiting import LIMIT

from .test_login import ADDRESS, World, world  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.e2e

ROLE = "arn:aws:iam::123456789012:role/Debug"
SERIAL = "arn:aws:iam::123456789012:mfa/ann"
GREEDY = """
import json, sys
sys.stdin.read()
print("on the wrong stream?", file=sys.stderr)
print(json.dumps({"Version": 1, "AccessKeyId": "AKIAPROCESS", "SecretAccessKey": "secret"}))
"""
ANSWER = """<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>
<AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>secret</SecretAccessKey><SessionToken>token</SessionToken>
<Expiration>{expires}</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"""


class Sts:
    """AssumeRole, for every caller that brings a code; `codes` is what was brought."""

    def __init__(self) -> None:
        self.codes: list[str] = []
        self.expires = "2099-01-01T00:00:00Z"
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                outer.codes.append(asked["TokenCode"][0])
                self.send_response(200)
                self.end_headers()
                self.wfile.write(ANSWER.format(expires=outer.expires).encode())

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def sts() -> Iterator[Sts]:
    with contextlib.closing(Sts()) as made:
        yield made


@pytest.fixture
def asking(world: World, sts: Sts, tmp_path: Path) -> World:  # noqa: F811
    """A world whose default profile takes an MFA code, and whose profile `greedy` a process that reads its stdin."""
    for name in KEYS:
        del world.environment[name]
    program = tmp_path / "greedy.py"
    program.write_text(GREEDY)
    config = tmp_path / "aws-config"
    config.write_text(
        f"[profile base]\naws_access_key_id = AKIABASE\naws_secret_access_key = secret\n"
        f"[profile mfa]\nrole_arn = {ROLE}\nsource_profile = base\nmfa_serial = {SERIAL}\n"
        f"[profile greedy]\ncredential_process = {sys.executable} {program}\n"
    )
    world.environment.update(AWS_CONFIG_FILE=str(config), AWS_PROFILE="greedy", AWS_ENDPOINT_URL_STS=sts.url)
    return world


def words(world: World, way: str) -> list[str]:  # noqa: F811
    """A command line that runs `cat` in the container."""
    user = world.server.endpoint.user
    if way == "ssh":
        return [
            "ssh",
            "-F",
            str(world.home / "ssh_config"),
            "-o",
            "BatchMode=yes",
            "-l",
            user,
            ADDRESS,
            "cat",
        ]
    return [sys.executable, "-m", "smssh_plugin.cli", "connect", ADDRESS, "--", "cat"]


def run(world: World, command: list[str], data: bytes) -> subprocess.CompletedProcess[bytes]:  # noqa: F811
    """Run it with no terminal at all."""
    return subprocess.run(
        command,
        input=data,
        env=world.environment,
        capture_output=True,
        timeout=LIMIT,
        check=False,
        start_new_session=True,
    )


@pytest.mark.parametrize("way", ["ssh", "connect"])
def test_a_credential_process_that_reads_its_stdin_gets_nothing(asking: World, way: str) -> None:
    done = run(asking, words(asking, way), b"for the container\n")
    assert (done.returncode, done.stdout) == (0, b"for the container\n"), done.stderr


def test_neither_do_the_credentials_of_a_host_keys_lookup(asking: World) -> None:
    command = [sys.executable, "-m", "smssh_plugin.cli", "known-hosts", ADDRESS]
    loop = f"read first; {shlex.join(command)} >/dev/null; cat"
    done = run(asking, ["sh", "-c", loop], b"first\nsecond\n")
    assert (done.returncode, done.stdout) == (0, b"second\n"), done.stderr


@pytest.mark.parametrize("command", ["list", "status", "shell"])
def test_a_loop_over_a_file_keeps_its_lines(asking: World, command: str) -> None:
    """`while read -r job; do smssh status $job; done < jobs`."""
    arguments = [] if command == "list" else [f"nonesuch.{ADDRESS.split('.', 2)[2]}"]
    ours = [sys.executable, "-m", "smssh_plugin.cli", command, *arguments]
    done = run(asking, ["sh", "-c", f"read first; {shlex.join(ours)} >/dev/null; cat"], b"first\nsecond\n")
    assert done.stdout == b"second\n", done.stderr


@pytest.mark.parametrize("way", ["ssh", "connect"])
def test_without_a_terminal_an_mfa_code_is_not_read_from_the_stream(
    asking: World, sts: Sts, way: str
) -> None:
    asking.environment["AWS_PROFILE"] = "mfa"
    done = run(asking, words(asking, way), b"765432\n")
    assert done.returncode == (255 if way == "ssh" else 5)
    assert b"profile 'mfa' take an MFA code, and nobody entered one" in done.stderr
    assert b"log in first: `smssh list`" in done.stderr
    assert b"Traceback" not in done.stderr
    assert b"GetPassWarning" not in done.stderr
    assert sts.codes == []


@pytest.mark.parametrize("way", ["ssh", "connect"])
def test_a_prompt_goes_to_the_terminal_and_the_stream_to_the_container(
    asking: World, sts: Sts, way: str
) -> None:
    asking.environment["AWS_PROFILE"] = "mfa"
    shown, code, output, error = at_a_terminal(
        asking, words(asking, way), b"for the container\n", b"765432\n"
    )
    assert b"MFA code" in shown
    assert b"765432" not in shown
    assert (code, output) == (0, b"for the container\n"), error
    assert sts.codes == ["765432"]
    # What was entered is good for the logins after it, with a terminal or without.
    done = run(asking, words(asking, way), b"again\n")
    assert (done.returncode, done.stdout) == (0, b"again\n"), done.stderr
    assert sts.codes == ["765432"]


def at_a_terminal(
    world: World,  # noqa: F811
    command: list[str],
    data: bytes,
    typed: bytes,
) -> tuple[bytes, int, bytes, bytes]:
    """Run it at a terminal of its own, with pipes as its streams; what is typed is typed once it is asked for."""
    ours, theirs = os.openpty()
    name = os.ttyname(theirs)

    def own() -> None:
        os.setsid()
        fcntl.ioctl(os.open(name, os.O_RDWR), termios.TIOCSCTTY, 0)

    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=world.environment,
        preexec_fn=own,  # noqa: PLW1509 - it is what a terminal does
    ) as process:
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        try:
            shown = b""
            while not shown.endswith(b": "):
                shown += os.read(ours, 1024)
            os.write(ours, typed)
            output, error = process.communicate(data)
            with contextlib.suppress(OSError):
                os.set_blocking(ours, False)
                shown += os.read(ours, 1024)
        finally:
            watchdog.cancel()
            os.close(theirs)
            os.close(ours)
    return shown, process.returncode, output, error


def test_nobody_is_asked_again_in_a_session_that_goes_on(
    asking: World, sts: Sts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The terminal is the remote shell's by then, or shows what `smssh debug` watches all night."""
    monkeypatch.setattr(credentials, "_typed", lambda _prompt: "765432")
    for name in (*KEYS, "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in asking.environment.items():
        monkeypatch.setenv(name, value)
    sts.expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 60))
    session = AwsSession(profile="mfa")
    assert session.credentials() is not None
    with pytest.raises(SmsshError, match="have ended, and new ones take an MFA code") as caught:
        session.credentials()
    assert "smssh list --profile mfa" in str(caught.value.hint)
    assert sts.codes == ["765432"]
