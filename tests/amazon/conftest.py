"""A local emulator, an sshd and Amazon's programs on a loopback of their own."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.session.support import EchoServer, Sshd, closing

from .programs import Emulator, loopback_only

if TYPE_CHECKING:
    from collections.abc import Iterator


class Place:
    """What all tests of a module share."""

    def __init__(self, emulator: Emulator, sshd: Sshd, echo: EchoServer) -> None:
        self.emulator = emulator
        self.sshd = sshd
        self.echo = echo


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with contextlib.ExitStack() as stack:
        stack.enter_context(loopback_only())
        folder = tmp_path_factory.mktemp("amazon")
        emulator = Emulator(folder)
        emulator.start()
        stack.callback(emulator.stop)
        sshd = stack.enter_context(closing(Sshd(tmp_path_factory.mktemp("sshd"))))
        yield Place(emulator, sshd, stack.enter_context(closing(EchoServer())))
