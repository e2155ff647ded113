"""Connections through a forward, in the patterns that programs have, against session-manager-plugin's."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from tests.session.support import Agent, EchoServer, Stack
from tests.session.test_kinds import Forward

from .table import Row, interleaved

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ONE_AFTER_ANOTHER = 230
AT_ONCE = 200
BUDGET = 1.2
_STUCK_SECONDS = 20.0
_ATTEMPTS = 3
"""The plugin's reader dies where a message comes before it is ready (`muxportforwarding.go`)."""
SESSION_MANAGER_PLUGIN = "SMSSH_TEST_SESSION_MANAGER_PLUGIN"


class _World:
    """What a forward leads through."""

    def __init__(self, stack: Stack, node: str) -> None:
        self.stack = stack
        self.node = node


def connections(folder: Path, share: float) -> list[Row]:
    """Short connections one after another, and many at once."""
    # session-manager-plugin signs data channels from 1.2.764 on; an older one is as good a reference.
    stack = Stack(signed_clients=False)
    agent = Agent(stack, folder / "agent")
    agent.register()
    agent.start()
    agent.wait_connected()
    echo = EchoServer()
    world = _World(stack, agent.node)
    program = os.environ.get(SESSION_MANAGER_PLUGIN)
    patterns: dict[str, Callable[[int], None]] = {
        f"{ONE_AFTER_ANOTHER} connections, one after another": _one_after_another,
        f"{AT_ONCE} connections at once": _at_once,
    }
    rows = []
    try:
        for what, pattern in patterns.items():
            variants = {"ours": lambda pattern=pattern: _ours(world, echo.port, pattern)}
            if program:
                variants["theirs"] = lambda pattern=pattern: _theirs(program, world, echo.port, pattern)
            found = interleaved(variants, max(3, round(5 * share)))
            theirs = found.get("theirs")
            times = found["ours"].median / theirs.median if theirs else 0.0
            rows.append(
                Row(
                    f"{what}, through a forward",
                    "s",
                    found["ours"],
                    "session-manager-plugin",
                    theirs,
                    f"<= {BUDGET} x",
                    times <= BUDGET if theirs else None,
                    f"{times:.2f} x" if theirs else f"{found['ours'].median:.2f} s",
                    "" if theirs else f"{SESSION_MANAGER_PLUGIN} names the program, to measure it here",
                )
            )
    finally:
        agent.kill()
        echo.close()
        stack.close()
    return rows


def _connect(port: int) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port), 10)
    made.settimeout(_STUCK_SECONDS)
    return made


def _one_after_another(port: int) -> None:
    for _ in range(ONE_AFTER_ANOTHER):
        with _connect(port) as connection:
            connection.sendall(b"x")
            assert connection.recv(1) == b"x"


def _at_once(port: int) -> None:
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(_connect(port)) for _ in range(AT_ONCE)]
        for connection in opened:
            connection.sendall(b"y" * 100)
        for connection in opened:
            left = 100
            while left:
                got = len(connection.recv(left))
                assert got, "a connection ended"
                left -= got


def _measured(port: int, pattern: Callable[[int], None]) -> float:
    began = time.perf_counter()
    pattern(port)
    return time.perf_counter() - began


def _ours(world: _World, port: int, pattern: Callable[[int], None]) -> float:
    forward = Forward(world, port)  # type: ignore[arg-type]
    try:
        return _measured(forward.port, pattern)
    finally:
        forward.end()
        forward.process.communicate()


def _theirs(program: str, world: _World, port: int, pattern: Callable[[int], None]) -> float:
    for attempt in range(_ATTEMPTS):
        with _plugin(program, world, port) as local, contextlib.suppress(OSError, AssertionError):
            return _measured(local, pattern)
        print(f"session-manager-plugin failed (attempt {attempt + 1})", file=sys.stderr)
    return _STUCK_SECONDS * _ATTEMPTS


@contextlib.contextmanager
def _plugin(program: str, world: _World, port: int) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        local = free.getsockname()[1]
    document = {
        "DocumentName": "AWS-StartPortForwardingSession",
        "Parameters": {"portNumber": [str(port)], "localPortNumber": [str(local)]},
    }
    answer = world.stack.call("StartSession", Target=world.node, **document)
    request = json.dumps({"Target": world.node, **document})
    process = subprocess.Popen(
        [program, json.dumps(answer), "us-east-1", "StartSession", "", request, world.stack.url],
        stdout=subprocess.PIPE,
        env=world.stack.environment,
    )
    assert process.stdout is not None
    try:
        while b"Waiting for connections" not in (line := process.stdout.readline()):
            assert line, "the plugin ended"
        yield local
    finally:
        process.kill()
        process.communicate()
        world.stack.call("TerminateSession", SessionId=answer["SessionId"])
