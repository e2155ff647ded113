"""The network of a container, made from within: loopback, an interface `eth0`, and nothing that leads elsewhere.

The hosts of one job are ports of a bridge in a network namespace that has nothing else (the job's *hub*). An
interface is made by rtnetlink, so that neither root nor the program `ip` is needed; in a user namespace of
its own, an ordinary user may do all of this.

Standard library only. Facts: rtnetlink(7), veth(4), network_namespaces(7), <linux/if_link.h>.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Any

__all__ = ["BRIDGE", "INTERFACE", "PREFIX_LENGTH", "Interfaces", "address_of"]

INTERFACE = "eth0"
"""As on AWS; what resourceconfig.json names."""
BRIDGE = "br0"
_SPARE = "eth0-peer"
PREFIX_LENGTH = 16

_NEWLINK, _SETLINK, _NEWADDR = 16, 19, 20
_REQUEST, _ACK, _EXCL, _CREATE = 0x1, 0x4, 0x200, 0x400
_ERROR = 2
_IFNAME, _MASTER, _LINKINFO, _NET_NS_FD = 3, 10, 18, 28
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_ADDRESS, _LOCAL = 1, 2
_UP = 0x1
_HEADER, _LINK, _ADDR = "=IHHII", "=BxHiII", "=BBBBI"


def address_of(index: int) -> str:
    """The address of a job's host, counted from 0.

    198.18.0.0/15 is kept for benchmarks (RFC 2544): no name server or proxy of a machine's configuration is in
    it, so that what looks for one fails at once instead of waiting for an answer.
    """
    number = index + 1
    return f"198.18.{number >> 8}.{number & 255}"


class Interfaces:
    """The interfaces of the network namespace that the calling thread is in when this is made."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._number = 0

    def close(self) -> None:
        """Close its socket."""
        self._socket.close()

    def up(self, name: str, master: int = 0) -> None:
        """Turn an interface on.

        Args:
            name: the interface.
            master: the index of the bridge that it becomes a port of; 0 for none.

        Raises:
            OSError: the kernel says no.
        """
        more = _attribute(_MASTER, struct.pack("=I", master)) if master else b""
        self._ask(_SETLINK, 0, struct.pack(_LINK, 0, 0, 0, _UP, _UP) + _text(_IFNAME, name) + more)

    def bridge(self, name: str) -> int:
        """Make a bridge.

        Returns:
            Its index.

        Raises:
            OSError: the kernel says no, or has no bridges.
        """
        kind = _attribute(_LINKINFO, _text(_INFO_KIND, "bridge"))
        self._ask(
            _NEWLINK, _CREATE | _EXCL, struct.pack(_LINK, 0, 0, 0, _UP, _UP) + _text(_IFNAME, name) + kind
        )
        return socket.if_nametoindex(name)

    def pair(self, name: str, peer: str, namespace: int | None = None) -> None:
        """Make a virtual cable.

        Args:
            name: its end here.
            peer: its other end.
            namespace: a descriptor of the network namespace of the other end; None for this one.

        Raises:
            OSError: the kernel says no, or has no such cables.
        """
        other = struct.pack(_LINK, 0, 0, 0, 0, 0) + _text(_IFNAME, peer)
        if namespace is not None:
            other += _attribute(_NET_NS_FD, struct.pack("=I", namespace))
        data = _attribute(_INFO_DATA, _attribute(_VETH_PEER, other))
        kind = _attribute(_LINKINFO, _text(_INFO_KIND, "veth") + data)
        self._ask(_NEWLINK, _CREATE | _EXCL, struct.pack(_LINK, 0, 0, 0, 0, 0) + _text(_IFNAME, name) + kind)

    def address(self, name: str, address: str) -> None:
        """Give an interface an address.

        Raises:
            OSError: the kernel says no.
        """
        packed = socket.inet_aton(address)
        head = struct.pack(_ADDR, socket.AF_INET, PREFIX_LENGTH, 0, 0, socket.if_nametoindex(name))
        self._ask(_NEWADDR, _CREATE | _EXCL, head + _attribute(_LOCAL, packed) + _attribute(_ADDRESS, packed))

    def _ask(self, kind: int, flags: int, body: bytes) -> None:
        """Send one request and read what comes of it.

        Raises:
            OSError: the kernel's error.
        """
        self._number += 1
        size = struct.calcsize(_HEADER) + len(body)
        head = struct.pack(_HEADER, size, kind, flags | _REQUEST | _ACK, self._number, 0)
        self._socket.send(head + body)
        answer = self._socket.recv(65536)
        _, kind, _, _, _ = struct.unpack_from(_HEADER, answer)
        (code,) = struct.unpack_from("=i", answer, struct.calcsize(_HEADER))
        if kind == _ERROR and code:
            raise OSError(-code, f"rtnetlink: {os.strerror(-code)}")


def connect(spec: dict[str, Any], hub: tuple[Interfaces, int] | None) -> None:
    """Set up the network namespace that the caller has just entered.

    Args:
        spec: `address`, `name` (of the host) and `hostname`.
        hub: the hub's interfaces and a descriptor of its namespace; None for a job of one host.

    Raises:
        OSError: the kernel says no.
    """
    links = Interfaces()
    try:
        links.up("lo")
        if hub is None:
            links.pair(INTERFACE, _SPARE)
            links.up(_SPARE)
        else:
            there, namespace = hub
            links.pair(INTERFACE, spec["name"], namespace)
            there.up(spec["name"], spec["bridge"])
        links.address(INTERFACE, spec["address"])
        links.up(INTERFACE)
        socket.sethostname(spec["hostname"])
    finally:
        links.close()


def listeners(ports: list[int]) -> list[socket.socket]:
    """Sockets of this namespace's loopback, listening, for who serves them from outside.

    Raises:
        OSError: a port is taken.
    """
    made = []
    for port in ports:
        item = socket.socket()
        item.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        item.bind(("127.0.0.1", port))
        item.listen(128)
        made.append(item)
    return made


def give_socket(control: socket.socket) -> bool:
    """Answer a byte with a new socket of this network namespace, not yet connected; False at the end of `control`."""
    try:
        if not control.recv(1):
            return False
        with socket.socket() as made:
            socket.send_fds(control, [b"."], [made.fileno()])
    except OSError:
        return False
    return True


def _attribute(kind: int, value: bytes) -> bytes:
    """One attribute of rtnetlink: its length, without the padding, its kind, its value."""
    return struct.pack("=HH", len(value) + 4, kind) + value + b"\0" * (-len(value) % 4)


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")
