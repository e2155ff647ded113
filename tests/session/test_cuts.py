"""Transfers by real ssh while the connections of client and agent are cut at random bytes.

`make test-cuts` runs 200 sessions of 20 MB each way; by default it is 20, and less data. SMSSH_TEST_SEED repeats a
run's choices.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psutil
import pytest

from tests import needs
from tests.client.conftest import UnusableError, running_server
from tests.waiting import until

from .cutting import Scissors
from .support import Agent, Stack, proxy_command

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.client.conftest import SshServer

SESSIONS = int(os.environ.get("SMSSH_TEST_CUTS", "20"))
BYTES = int(os.environ.get("SMSSH_TEST_CUT_BYTES", "400000"))
AT_ONCE = 4
CUTS_A_SESSION = 4.0
"""Of each side, on average."""

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120 + SESSIONS * (10 + BYTES // 200_000))]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    """sshd where it lets this user in, else asyncssh."""
    with contextlib.ExitStack() as stack:
        for kind in ("sshd", "asyncssh") if needs.find("sshd") else ("asyncssh",):
            with contextlib.suppress(UnusableError):
                yield stack.enter_context(running_server(kind, tmp_path_factory.mktemp("server")))
                return


def children(process: psutil.Process) -> int:
    return len(process.children(recursive=True))


def family() -> set[int]:
    """All processes that this one has started, directly or not."""
    return {one.pid for one in psutil.Process().children(recursive=True)}


def test_every_byte_arrives_once_and_nothing_is_left(server: SshServer, tmp_path: Path) -> None:
    seed = int(os.environ.get("SMSSH_TEST_SEED", random.SystemRandom().randrange(2**32)))
    print(f"SMSSH_TEST_SEED={seed}")
    chance = random.Random(seed)
    stack = Stack(latency=0.0)  # many bytes, many times
    port = int(stack.url.rpartition(":")[2])
    mean = 2.5 * BYTES / CUTS_A_SESSION  # frames and acknowledgements take their share
    clients = Scissors(port, random.Random(chance.random()), mean)
    agents = Scissors(port, random.Random(chance.random()), mean)
    stack.service.base_url = clients.url
    agent = Agent(stack, tmp_path / "agent")
    configuration = tmp_path / "agent" / "configuration" / "amazon-ssm-agent.json"
    chosen = json.loads(configuration.read_text())
    chosen["Mgs"]["Endpoint"] = agents.url
    configuration.write_text(json.dumps(chosen))
    agent.register()
    agent.start()
    try:
        agent.wait_connected()
        assert agent.process is not None
        process = psutil.Process(agent.process.pid)
        before = (process.num_fds(), children(process))
        mine = family()
        took = transfers(stack, agent, server, chance, tmp_path)
        assert clients.cuts > SESSIONS / 2
        assert agents.cuts > SESSIONS / 2
        until(lambda: not stack.service.active_sessions, what="the end of all sessions")
        until(lambda: clients.open == 0, what="the end of the clients' connections")
        until(
            lambda: agents.open == 2,
            what="the end of the agent's connections, except for its control channel",
        )
        until(lambda: children(process) == before[1], what="the end of the agent's processes")
        until(lambda: process.num_fds() <= before[0], what="the end of the agent's descriptors")
        until(lambda: family() == mine, what="the end of ssh and its proxies")
        print(
            f"{SESSIONS} sessions of {BYTES / 1e6:g} MB each way in {took:.0f} s, "
            f"{clients.cuts} cuts of clients and {agents.cuts} of agents"
        )
    finally:
        agent.kill()
        clients.close()
        agents.close()
        stack.close()


def transfers(stack: Stack, agent: Agent, server: SshServer, chance: random.Random, folder: Path) -> float:
    """Run all sessions; each sends random bytes to a remote `cat`, and gets them back."""
    data = folder / "data"
    data.write_bytes(chance.randbytes(BYTES))
    digest = hashlib.sha256(data.read_bytes()).hexdigest()
    known = folder / "known"
    known.write_text(f"job {server.endpoint.host_key}\n")
    command = proxy_command(agent.node, server.port)
    quoted = " ".join("'" + part.replace("'", "'\\''").replace("%", "%%") + "'" for part in command)
    words = ["ssh", "-F", "none", "-T", "-i", str(server.endpoint.key)]
    for option in (
        f"ProxyCommand={quoted}",
        f"UserKnownHostsFile={known}",
        "HostKeyAlias=job",
        "IdentitiesOnly=yes",
        "BatchMode=yes",
        "Compression=no",
        f"User={server.endpoint.user}",
    ):
        words += ["-o", option]

    def one(number: int) -> None:
        back = folder / f"back-{number}"
        with data.open("rb") as source, back.open("wb") as sink:
            done = subprocess.run(
                [*words, "job", "cat"],
                stdin=source,
                stdout=sink,
                stderr=subprocess.PIPE,
                env=stack.environment,
                timeout=60 + BYTES // 20_000,
                check=False,
            )
        assert done.returncode == 0, done.stderr.decode()
        assert hashlib.sha256(back.read_bytes()).hexdigest() == digest, f"session {number}"
        back.unlink()

    began = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for result in [pool.submit(one, number) for number in range(SESSIONS)]:
            result.result()
    return time.monotonic() - began
