"""`smssh shell`'s body in a real terminal, against a peer that follows a script."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import shlex
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
from typing import TYPE_CHECKING, Any

import pytest

from smssh_plugin.session.shell import Escape
from smssh_plugin.session.wire.frames import PayloadType
from tests.aws.peers import Api, hang_up
from tests.waiting import until

from .peer import Peer, scripted
from .support import KEYS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from smssh_plugin.session.wire.channel import Opening

STREAM = {
    "ActionType": "SessionType",
    "ActionParameters": {"SessionType": "Standard_Stream", "Properties": {}},
}
COMMAND = {
    "ActionType": "SessionType",
    "ActionParameters": {"SessionType": "InteractiveCommands", "Properties": {}},
}


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        ([b"ls\r"], b"ls\r"),
        ([b"~."], None),
        ([b"ls\r~."], None),
        ([b"x~.\r"], b"x~.\r"),
        ([b"\r", b"~", b"."], None),
        ([b"~~."], b"~."),
        ([b"~a"], b"~a"),
        ([b"\r~", b"\r~."], None),
    ],
)
def test_the_way_out_is_at_the_beginning_of_a_line(typed: list[bytes], sent: bytes | None) -> None:
    escape, got = Escape(), b""
    for piece in typed:
        edited = escape(piece)
        if edited is None:
            assert sent is None
            return
        got += edited
    assert got == sent


class Terminal:
    """A program in a terminal of its own."""

    def __init__(self, api: Api, *arguments: str, environ: dict[str, str] | None = None) -> None:
        self.master, slave = pty.openpty()
        self.resize(100, 40)
        self.before = termios.tcgetattr(slave)

        def own_terminal() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            program(*arguments),
            stdin=slave,
            stdout=slave,
            stderr=subprocess.PIPE,
            env=environ or environment(api),
            preexec_fn=own_terminal,  # noqa: PLW1509 - two system calls, no locks
        )
        self.slave = slave
        self.shown = b""

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: bytes) -> None:
        os.write(self.master, text)

    def until_shown(self, text: bytes) -> None:
        while text not in self.shown:
            self.shown += os.read(self.master, 4096)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()
        os.close(self.master)
        os.close(self.slave)


def program(*arguments: str) -> list[str]:
    more = ", ".join(["AwsSession()", "lambda _anew: 'mi-1'", *arguments])
    code = "import sys; from smssh_plugin.aws.session import AwsSession; from smssh_plugin.session import shell; "
    return [sys.executable, "-c", f"{code}sys.exit(shell.run({more}))"]


def environment(api: Api) -> dict[str, str]:
    return {
        **KEYS,
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "AWS_ENDPOINT_URL": api.url,
        "AWS_REGION": "us-east-1",
    }


def answer(api: Api, opening: Opening) -> None:
    api.answers = [
        (
            200,
            {"SessionId": opening.session_id, "TokenValue": opening.token, "StreamUrl": opening.url},
        )
    ]


@pytest.fixture
def api() -> Iterator[Api]:
    made = Api()
    yield made
    made.close()


def numbered(peer: Peer, typed: bytearray, sizes: list[Any], stop: bytes, expected: int = 1) -> None:
    """Take input until `stop` was typed, or the client says that it is over."""
    for message in peer.inputs(expected):
        if message.payload_type == PayloadType.FLAG:
            return
        if message.payload_type == PayloadType.SIZE:
            sizes.append(json.loads(message.payload))
        else:
            typed += message.payload
        if typed.endswith(stop):
            return


def test_a_shell_in_a_terminal(api: Api) -> None:
    typed, sizes = bytearray(), []

    def script(peer: Peer) -> None:
        peer.handshake(STREAM)
        peer.complete()
        peer.send(b"prompt# ")
        numbered(peer, typed, sizes, b"never")

    with scripted(script) as opening:
        answer(api, opening)
        terminal = Terminal(api)
        try:
            terminal.until_shown(b"prompt# ")
            terminal.type(b"ls\r\x03\x1a")  # Ctrl-C and Ctrl-Z are for the other side
            until(lambda: bytes(typed) == b"ls\r\x03\x1a", what="what was typed")
            terminal.resize(120, 50)
            until(lambda: len(sizes) == 2, what="the new size")
            assert sizes == [{"cols": 100, "rows": 40}, {"cols": 120, "rows": 50}]
            terminal.type(b"\r~.")
            assert terminal.process.wait(15) == 0
            assert terminal.process.stderr is not None
            assert terminal.process.stderr.read() == b"smssh: be kind\n"
            assert termios.tcgetattr(terminal.slave) == terminal.before
            assert b"ls" not in terminal.shown  # the echo is the other side's
        finally:
            terminal.close()
    assert api.operations == ["StartSession", "TerminateSession"]
    assert api.asked[0][1] == {"Target": "mi-1", "Reason": "smssh"}


def test_a_shell_begins_without_a_handshake(api: Api) -> None:
    """The agent has none where nothing is encrypted; until its first output, Ctrl-C is for us."""
    typed, sizes = bytearray(), []

    def script(peer: Peer) -> None:
        peer.send(b"prompt# ")
        numbered(peer, typed, sizes, b"never", expected=0)

    with scripted(script) as opening:
        answer(api, opening)
        terminal = Terminal(api)
        try:
            terminal.until_shown(b"prompt# ")
            terminal.type(b"ls\r")
            until(lambda: bytes(typed) == b"ls\r", what="what was typed")
            assert sizes == [{"cols": 100, "rows": 40}]
            terminal.type(b"~.")
            assert terminal.process.wait(15) == 0
        finally:
            terminal.close()

    there = threading.Event()

    def silent(peer: Peer) -> None:
        there.set()
        with contextlib.suppress(TimeoutError):
            peer.socket.recv(timeout=30)

    with scripted(silent) as opening:
        answer(api, opening)
        terminal = Terminal(api)
        try:
            assert there.wait(30)
            terminal.type(b"\x03")
            assert terminal.process.wait(15) == 130
        finally:
            terminal.close()
    assert api.operations[-1] == "TerminateSession"


def test_the_end_of_the_shell_is_the_end(api: Api) -> None:
    def script(peer: Peer) -> None:
        peer.handshake(STREAM)
        peer.complete()
        peer.send(b"logout\r\n")
        peer.close_channel()

    with scripted(script) as opening:
        answer(api, opening)
        terminal = Terminal(api)
        try:
            terminal.until_shown(b"logout")
            assert terminal.process.wait(15) == 0
        finally:
            terminal.close()
    assert api.operations[-1] == "TerminateSession"


def test_why_a_session_ended_is_said_and_the_status_is_not_0(api: Api) -> None:
    def script(peer: Peer) -> None:
        peer.handshake(STREAM)
        peer.complete()
        peer.close_channel("Session timed out")

    with scripted(script) as opening:
        answer(api, opening)
        done = subprocess.run(
            program(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment(api),
            timeout=60,
            check=False,
        )
    assert done.returncode != 0
    assert b"the session ended: Session timed out" in done.stderr


def test_a_command_without_a_terminal(api: Api) -> None:
    typed: bytearray = bytearray()

    def script(peer: Peer) -> None:
        peer.handshake(COMMAND)
        peer.complete()
        numbered(peer, typed, [], b"\x04")
        peer.send(b"out")
        peer.send(b"err", PayloadType.STANDARD_ERROR)
        peer.send(b"7", PayloadType.EXIT_CODE)
        peer.close_channel()

    with scripted(script) as opening:
        answer(api, opening)
        done = subprocess.run(
            program("'wc -c'"),
            input=b"counted",
            capture_output=True,
            env=environment(api),
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stdout) == (7, b"out")
    assert done.stderr == b"smssh: be kind\nerr"
    assert typed == b"counted\x04"
    assert api.asked[0][1]["DocumentName"] == "AWS-StartInteractiveCommand"
    (line,) = api.asked[0][1]["Parameters"]["command"]
    assert shlex.split(line)[:2] == ["sh", "-c"]
    assert shlex.split(line)[-1] == "wc -c"


@pytest.mark.parametrize("exit_code", [b"", b"0"])
def test_a_command_that_does_not_tell_its_status(api: Api, exit_code: bytes) -> None:
    """It was killed with its shell, or the container ended: scripts must not take that for success."""

    def script(peer: Peer) -> None:
        peer.handshake(COMMAND)
        peer.complete()
        peer.send(b"half of")
        if exit_code:
            peer.send(exit_code, PayloadType.EXIT_CODE)
        peer.close_channel()

    with scripted(script) as opening:
        answer(api, opening)
        done = subprocess.run(
            program("'make'"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment(api),
            timeout=60,
            check=False,
        )
    assert done.stdout == b"half of"
    if exit_code:
        assert done.returncode == 0
    else:
        assert done.returncode != 0
        assert b"ended without telling its exit status" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_restores_the_terminal_and_ends_the_session(api: Api, number: signal.Signals) -> None:
    def script(peer: Peer) -> None:
        peer.handshake(STREAM)
        peer.complete()
        peer.send(b"prompt# ")
        numbered(peer, bytearray(), [], b"never")

    with scripted(script) as opening:
        answer(api, opening)
        terminal = Terminal(api)
        try:
            terminal.until_shown(b"prompt# ")
            terminal.process.send_signal(number)
            assert terminal.process.wait(15) == 128 + number
            assert termios.tcgetattr(terminal.slave) == terminal.before
        finally:
            terminal.close()
    assert api.operations[-1] == "TerminateSession"


def test_a_peer_that_falls_silent_can_be_left(api: Api) -> None:
    """`~.` works although nothing is acknowledged any more."""
    silent: list[bool] = []

    def script(peer: Peer) -> None:
        peer.handshake(STREAM)
        peer.complete()
        peer.send(b"prompt# ")
        with contextlib.suppress(OSError):
            while not silent:
                peer.socket.recv(timeout=30)

    with scripted(script) as opening:
        answer(api, opening)
        terminal = Terminal(api)
        try:
            terminal.until_shown(b"prompt# ")
            terminal.type(b"lost\r~.")
            assert terminal.process.wait(20) == 0
        finally:
            silent.append(True)
            terminal.close()


def until_cut(peer: Peer) -> None:
    peer.handshake(STREAM)
    peer.complete()
    peer.send(b"prompt# ")
    numbered(peer, bytearray(), [], b"go\r")
    peer.socket.socket.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("way", ["typed", "signal"])
def test_a_network_that_is_gone_can_be_left(api: Api, way: str) -> None:
    with scripted(until_cut) as opening:
        answer(api, opening)
        api.answers += [hang_up] * 100
        terminal = Terminal(api)
        try:
            terminal.until_shown(b"prompt# ")
            terminal.type(b"go\r")
            # Before the fifth there is a pause of some seconds.
            until(lambda: api.operations.count("ResumeSession") >= 4, what="the attempts")
            terminal.type(b"\x03")  # is for the other side
            if way == "typed":
                terminal.type(b"\r~.")
            else:
                terminal.process.send_signal(signal.SIGTERM)
            assert terminal.process.wait(15) == (0 if way == "typed" else 128 + signal.SIGTERM)
            assert termios.tcgetattr(terminal.slave) == terminal.before
        finally:
            terminal.close()
    assert api.operations.count("TerminateSession") == 1


def test_what_is_typed_while_the_network_is_gone_arrives(api: Api) -> None:
    typed = bytearray()

    def back(peer: Peer) -> None:
        peer.sequence = 3
        for message in peer.inputs(3):  # after the size and `go`
            if message.payload_type == PayloadType.OUTPUT:
                typed.extend(message.payload)
            if typed.endswith(b"\r"):
                break
        peer.close_channel()

    with scripted(until_cut, back) as opening:
        answer(api, opening)
        again = api.answers[0]
        throttled = (400, {"__type": "ThrottlingException", "message": "Rate exceeded"})
        api.answers += [hang_up, throttled, hang_up, again]
        terminal = Terminal(api)
        try:
            terminal.until_shown(b"prompt# ")
            terminal.type(b"go\r")
            until(lambda: "ResumeSession" in api.operations, what="the cut")
            terminal.type(b"~~ls\x03")
            terminal.type(b"\r")
            assert terminal.process.wait(20) == 0
        finally:
            terminal.close()
    assert typed == b"~ls\x03\r"
    assert api.operations == ["StartSession", *["ResumeSession"] * 4, "TerminateSession"]


EXPIRED = (
    400,
    {"__type": "ExpiredTokenException", "message": "The security token included in the request is expired"},
)


def test_credentials_that_ended_meanwhile_are_said_at_once(api: Api) -> None:
    """Those of the environment cannot be renewed: there is nothing to wait for."""
    with scripted(until_cut) as opening:
        answer(api, opening)
        api.answers += [EXPIRED] * 2
        terminal = Terminal(api)
        try:
            terminal.until_shown(b"prompt# ")
            terminal.type(b"go\r")
            assert terminal.process.wait(15) != 0
            assert terminal.process.stderr is not None
            said = terminal.process.stderr.read()
            assert b"the AWS credentials are not valid (any more): ResumeSession" in said
            assert b"session s-1 could not be ended" in said
        finally:
            terminal.close()
    assert api.operations == ["StartSession", "ResumeSession", "TerminateSession"]


def test_a_credentials_file_that_was_renewed_meanwhile_is_read_again(api: Api, tmp_path: Path) -> None:
    stored = tmp_path / "credentials"

    def keys(number: int) -> str:
        return f"[default]\naws_access_key_id = AKIANUMBER{number}\naws_secret_access_key = x\naws_session_token = y\n"

    stored.write_text(keys(1))

    def back(peer: Peer) -> None:
        peer.sequence = 3
        peer.send(b"still here")
        peer.close_channel()

    with scripted(until_cut, back) as opening:
        answer(api, opening)
        api.answers += [EXPIRED, api.answers[0]]
        environ = {name: value for name, value in environment(api).items() if "ACCESS_KEY" not in name} | {
            "AWS_SHARED_CREDENTIALS_FILE": str(stored),
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        terminal = Terminal(api, environ=environ)
        try:
            terminal.until_shown(b"prompt# ")
            stored.write_text(keys(2))
            terminal.type(b"go\r")
            terminal.until_shown(b"still here")
            assert terminal.process.wait(15) == 0
        finally:
            terminal.close()
    assert api.operations == ["StartSession", "ResumeSession", "ResumeSession", "TerminateSession"]
    signed = [headers["Authorization"].partition("/")[0][-1] for headers in api.headers]
    assert signed == ["1", "1", "2", "2"]
