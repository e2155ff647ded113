"""Whether the program at the other end of a loopback connection has closed it, or only said that it sends no more.

TCP tells the two apart by nothing: either is a FIN. But the other end is a socket of this machine, and Linux says of
each whether a process still holds it: the inode of one that was closed is 0 (`inet_diag`, as `ss` asks it).
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct

__all__ = ["LocalPeers"]

_SOCK_DIAG_BY_FAMILY = 20
_NLMSG_ERROR = 2
_NLM_F_REQUEST = 1
_NETLINK_SOCK_DIAG = 4
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBxI")
_SOCKET_ID = struct.Struct("!HH16s16s12s")
_NO_COOKIE = b"\0" * 4 + b"\xff" * 8
_LISTEN = 10
_INODE_AT = _HEADER.size + 4 + _SOCKET_ID.size + 16


class LocalPeers:
    """Asks the kernel about the other ends of TCP connections of this machine. Nothing blocks."""

    def __init__(self) -> None:
        self._netlink: socket.socket | None = None
        self._usable = hasattr(socket, "AF_NETLINK")

    def closed(self, connection: socket.socket) -> bool | None:
        """Whether no process holds the other end any more; None where that is not known."""
        if not self._usable:
            return None
        try:
            (address, port), (own, own_port) = connection.getpeername(), connection.getsockname()
            name = _SOCKET_ID.pack(
                port, own_port, socket.inet_aton(address), socket.inet_aton(own), _NO_COOKIE
            )
            return self._ask(name)
        except OSError as error:
            if error.errno == errno.ENOTCONN:
                return True
            if error.errno in (errno.EMFILE, errno.ENFILE):  # of the netlink socket: later, perhaps
                return None
            self.close()
            self._usable = False  # a kernel or a sandbox without it
            return None
        except (ValueError, struct.error):  # another family
            return None

    def close(self) -> None:
        """Give back the descriptor."""
        if self._netlink is not None:
            self._netlink.close()
            self._netlink = None

    def _ask(self, name: bytes) -> bool:
        if self._netlink is None:
            self._netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)
            self._netlink.settimeout(1.0)
        body = _REQUEST.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, 0xFFFFFFFF) + name
        header = _HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 0, 0)
        self._netlink.send(header + body)
        answer = self._netlink.recv(4096)
        _, kind, _, _, _ = _HEADER.unpack_from(answer)
        if kind == _NLMSG_ERROR:
            (code,) = struct.unpack_from("=i", answer, _HEADER.size)
            if -code == errno.ENOENT:
                return True
            raise OSError(-code, "sock_diag")
        (inode,) = struct.unpack_from("=I", answer, _INODE_AT)
        # A listener on the same port is what the kernel finds where the connection is over.
        return inode == 0 or answer[_HEADER.size + 1] == _LISTEN

    def __enter__(self) -> LocalPeers:  # noqa: PYI034 - Self is of 3.11
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self.close()
