from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.waiting import until

from .support import Agent, EchoServer, Sshd, Stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def stack() -> Iterator[Stack]:
    """A session service of the test's own."""
    made = Stack()
    yield made
    made.close()


@pytest.fixture
def new_agent(stack: Stack, tmp_path: Path) -> Iterator[Callable[..., Agent]]:
    """Makes agents that end with the test."""
    made: list[Agent] = []

    def make(**profile: object) -> Agent:
        made.append(Agent(stack, tmp_path / f"agent-{len(made)}", **profile))
        return made[-1]

    yield make
    for agent in made:
        agent.kill()


@pytest.fixture
def agent(new_agent: Callable[..., Agent]) -> Agent:
    """A registered and connected agent of the test's own."""
    made = new_agent()
    made.register()
    made.start()
    made.wait_connected()
    return made


class World:
    """A service, an agent and an echo server that tests may share as long as they leave them as they are."""

    def __init__(self, folder: Path) -> None:
        self.stack = Stack()
        self.agent = Agent(self.stack, folder / "agent")
        self.agent.register()
        self.agent.start()
        self.agent.wait_connected()
        self.node = self.agent.node
        self.echo = EchoServer()

    def close(self) -> None:
        self.agent.kill()
        self.echo.close()
        self.stack.close()


@pytest.fixture(scope="session")
def shared_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("world"))
    yield made
    made.close()


@pytest.fixture
def world(shared_world: World) -> Iterator[World]:
    """The shared world, with no session in it, whatever the test before has left."""
    yield shared_world
    stack = shared_world.stack
    for session in stack.service.active_sessions:
        stack.call("TerminateSession", SessionId=session.id)
    until(lambda: not shared_world.echo.open, what="the end of all connections")


@pytest.fixture
def echo() -> Iterator[EchoServer]:
    made = EchoServer()
    yield made
    made.close()


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    made = Sshd(tmp_path_factory.mktemp("sshd"))
    yield made
    made.close()
