"""TCP connections of Port sessions: made without blocking, and not to everywhere."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import select
import socket
from typing import TYPE_CHECKING, Any

from ...errors import SmsshError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Destination", "DialError", "Dialing"]

_FAMILIES = (socket.AF_INET, socket.AF_INET6)


class DialError(Exception):
    """No connection, with the words that the real agent's Go has for it."""


class Destination:
    """Where a session connects to.

    Args:
        host: a name or address; "" for the container itself.
        port: the port, as text.
        denied: addresses that are forwarded to nobody.

    Raises:
        SmsshError: no port, or a forbidden address.
    """

    def __init__(self, host: str, port: str, denied: Sequence[str]) -> None:
        if not port:
            raise SmsshError("Port number is empty in session properties.")
        if not (re.fullmatch("0*[0-9]{1,5}", port) and 0 < int(port[-5:]) < 65536):
            raise SmsshError(f"Unable to connect to specified port: dial tcp: address {port}: invalid port")
        self.host = host
        self.port = int(port)
        self._addresses: list[tuple[int, Any]] | None = None
        if host:
            # Resolved once: what was allowed cannot lead elsewhere later.
            self._addresses = _resolve(host, self.port)
            self._check(denied)

    def addresses(self) -> list[tuple[int, Any]]:
        """Address family and address of each attempt, in order."""
        if self._addresses is not None:
            return self._addresses
        return _resolve("localhost", self.port)

    def _check(self, denied: Sequence[str]) -> None:
        forbidden = {_normal(address) for address in denied}
        for _, address in self.addresses():
            if _normal(address[0]) in forbidden:
                raise SmsshError(f"Forwarding to IP address {self.host} is forbidden.")


class Dialing:
    """A connection in the making: one address after the other. Poll `fileno()` for writing, then `step()`.

    Raises:
        DialError: no address can be tried.
    """

    def __init__(self, destination: Destination) -> None:
        self._left = list(destination.addresses())
        self._first: DialError | None = None
        self._socket: socket.socket | None = None
        self._next()

    def fileno(self) -> int:
        """The descriptor of the attempt that is under way."""
        assert self._socket is not None
        return self._socket.fileno()

    def step(self) -> socket.socket | None:
        """The connection, if there is one by now; not blocking.

        Raises:
            DialError: every address failed; what the first one said.
        """
        while True:
            assert self._socket is not None
            poll = select.poll()
            poll.register(self._socket, select.POLLOUT)
            if not poll.poll(0):
                return None
            number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if number == 0:
                connection, self._socket = self._socket, None
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return connection
            self._failed(self._socket, number)
            self._next()

    def close(self) -> None:
        """Give up."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _next(self) -> None:
        while self._left:
            family, self._address = self._left.pop(0)
            try:
                attempt = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            except OSError as error:  # no IPv6 here, or no descriptor left
                self._first = self._first or DialError(f"dial tcp: socket: {error.strerror}".lower())
                continue
            number = attempt.connect_ex(self._address)
            if number in (0, errno.EINPROGRESS):
                self._socket = attempt
                return
            self._failed(attempt, number)
        raise self._first or DialError("missing address")

    def _failed(self, attempt: socket.socket, number: int) -> None:
        attempt.close()
        self._socket = None
        host, port = self._address[:2]
        shown = f"[{host}]" if ":" in host else host
        text = f"dial tcp {shown}:{port}: connect: {os.strerror(number).lower()}"
        self._first = self._first or DialError(text)


def _resolve(host: str, port: int) -> list[tuple[int, Any]]:
    """Addresses of a name; none for a name that is not known, which the real agent notices when it dials."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [(family, address) for family, _, _, _, address in found if family in _FAMILIES]


def _normal(text: str) -> object:
    """An address that compares equal to itself however it is written, IPv4 in IPv6 included."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return text
    return getattr(address, "ipv4_mapped", None) or address
