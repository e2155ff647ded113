"""What clients and jobs of the local emulator would send out of this machine: the proxy that they are told to use.

Programs name endpoints of AWS by themselves, whatever AWS_ENDPOINT_URL says: the SageMaker SDK passes
`https://sts.REGION.amazonaws.com`. HTTPS_PROXY and HTTP_PROXY lead here, in every language. For a name of AWS the
proxy is the end: it speaks TLS with a certificate of the emulator's own authority, and the emulator answers, or
refuses. Metadata services are refused. What is not AWS (a package index, a data set) goes on as it would have gone
without us, through the proxy that the environment named before.

It listens on the emulator's one port, and wants a password of its own start.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hmac
import ipaddress
import logging
import ssl
import weakref
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from .proxying import AWS_DOMAINS, METADATA, USER, Upstream

if TYPE_CHECKING:
    from collections.abc import Callable

    from .certificate import Certificate

__all__ = ["Front", "Outgoing", "is_aws", "is_metadata"]

log = logging.getLogger(__name__)

_CONNECT = b"CONNECT "
_HEAD_MAX = 64 * 1024
_SECONDS = 30.0
_PIECE = 256 * 1024


class Outgoing:
    """The proxy's rules, and the connections that go through it.

    Args:
        password: what clients have to know.
        certificate: signs certificates for names of AWS.
    """

    def __init__(self, password: str, certificate: Certificate) -> None:
        self._password = password
        self._certificate = certificate
        self._served: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
        self._tasks: set[asyncio.Task[None]] = set()

    def is_known(self, authorization: str) -> Upstream | None:
        """The way on that a client's Proxy-Authorization names; None if it does not know the password.

        Args:
            authorization: the header's value, `Basic ...`.
        """
        kind, _, words = authorization.partition(" ")
        try:
            user, _, password = base64.b64decode(words, validate=True).decode().partition(":")
        except (ValueError, binascii.Error):
            return None
        known, _, way = password.partition(".")
        right = kind.lower() == "basic" and user == USER
        return Upstream.decode(way) if right and hmac.compare_digest(known, self._password) else None

    def served(self, transport: Any) -> str | None:
        """The name of AWS that a connection is for, by CONNECT; None for one that came here by itself."""
        return self._served.get(transport)

    def start(self, front: Front, head: bytes) -> None:
        """Act on a CONNECT, in a task."""
        task = asyncio.get_running_loop().create_task(self._connect(front, head))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End every connection."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connect(self, front: Front, head: bytes) -> None:
        transport = front.transport
        assert transport is not None
        try:
            words = head.split(b"\r\n")
            host, port = _place(words[0].split(b" ")[1].decode())
            headers = {
                name.strip().lower(): value.strip()
                for name, _, value in (line.decode("latin-1").partition(":") for line in words[1:])
            }
            upstream = self.is_known(headers.get("proxy-authorization", ""))
            if upstream is None:
                _answer(
                    transport, "407 Proxy Authentication Required", 'Proxy-Authenticate: Basic realm="smssh"'
                )
            elif is_aws(host):
                await self._serve(front, host, port)
            elif is_metadata(host):
                log.info("CONNECT %s refused", host)
                _answer(transport, "403 Forbidden")
            else:
                await _go_on(front, host, port, upstream)
        except (OSError, ssl.SSLError, asyncio.TimeoutError, ValueError, IndexError, EOFError) as error:
            log.info("CONNECT: %s", error)
            if not transport.is_closing():
                _answer(transport, "502 Bad Gateway")
        except asyncio.CancelledError:
            transport.abort()
            raise

    async def _serve(self, front: Front, host: str, port: int) -> None:
        """Be a host of AWS."""
        transport = front.transport
        assert transport is not None
        if port != 443:
            _answer(transport, "403 Forbidden")
            return
        context = self._certificate.context_for(host)
        transport.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        early = _Early()
        loop = asyncio.get_running_loop()
        try:
            secure = await loop.start_tls(
                transport, early, context, server_side=True, ssl_handshake_timeout=_SECONDS
            )
        except (OSError, ssl.SSLError) as error:
            log.warning("%s: a program does not trust the authority of smssh local: %s", host, error)
            transport.abort()
            return
        if secure is None:
            return
        self._served[secure] = host
        _hand_over(secure, front.server(), bytes(early.data))


class Front(asyncio.Protocol):
    """The beginning of a connection to the emulator's port: a CONNECT is for the proxy, the rest for the server.

    Args:
        server: makes the server's protocol for a connection.
        outgoing: the proxy.
    """

    def __init__(self, server: Callable[[], asyncio.Protocol], outgoing: Outgoing) -> None:
        self.server = server
        self.transport: asyncio.Transport | None = None
        self._outgoing = outgoing
        self._data = bytearray()
        self._begun = False

    def connection_made(self, transport: Any) -> None:
        """A connection."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Its first bytes."""
        assert self.transport is not None
        self._data += data
        if self._begun:
            return
        if self._data[: len(_CONNECT)] != _CONNECT[: len(self._data)]:
            self._begun = True
            _hand_over(self.transport, self.server(), bytes(self._data))
        elif (end := self._data.find(b"\r\n\r\n")) >= 0:
            self._begun = True
            self._outgoing.start(self, bytes(self._data[:end]))
        elif len(self._data) > _HEAD_MAX:
            self.transport.abort()


class _Early(asyncio.Protocol):
    """Keeps what comes with the end of a handshake."""

    def __init__(self) -> None:
        self.data = bytearray()

    def data_received(self, data: bytes) -> None:
        self.data += data


def is_aws(host: str) -> bool:
    """Whether a name is AWS's."""
    name = host.lower().rstrip(".")
    return any(name == domain or name.endswith("." + domain) for domain in AWS_DOMAINS)


def is_metadata(host: str) -> bool:
    """Whether it is where a machine of a cloud is told who it is."""
    name = host.lower().strip("[]").rstrip(".")
    if name in METADATA:
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_link_local) or address in ipaddress.ip_network("fd00:ec2::/32")


def _place(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`.

    Raises:
        ValueError: it is not a host and a port.
    """
    parts = urlsplit(f"//{text}")
    if parts.hostname is None or parts.port is None:
        raise ValueError(f"not a host and a port: {text[:200]!r}")
    return parts.hostname, parts.port


def _answer(transport: asyncio.Transport, status: str, *headers: str) -> None:
    lines = [f"HTTP/1.1 {status}", "Content-Length: 0", "Connection: close", *headers]
    transport.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    transport.close()


def _hand_over(transport: asyncio.Transport, protocol: asyncio.Protocol, data: bytes) -> None:
    """Give a connection to another protocol, with what has come."""
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    if data:
        protocol.data_received(data)


async def _go_on(front: Front, host: str, port: int, upstream: Upstream) -> None:
    """Connect a client to a host that is not AWS's."""
    transport = front.transport
    assert transport is not None
    proxy = upstream.proxy("https", host)
    there, back = await asyncio.wait_for(
        _through(proxy, host, port) if proxy else asyncio.open_connection(host, port), _SECONDS
    )
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    loop = asyncio.get_running_loop()
    _hand_over(transport, protocol, b"")
    here = asyncio.StreamWriter(transport, protocol, reader, loop)
    here.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
    try:
        await asyncio.gather(_copy(reader, back), _copy(there, here))
    finally:
        for writer in (back, here):
            writer.close()


async def _through(proxy: str, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect through the proxy that the environment named.

    Raises:
        OSError: it does not let us.
    """
    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    secure = parts.scheme == "https"
    reader, writer = await asyncio.open_connection(
        parts.hostname,
        parts.port or (443 if secure else 80),
        ssl=ssl.create_default_context() if secure else None,
    )
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {place} HTTP/1.1", f"Host: {place}"]
    if parts.username is not None:
        words = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(words).decode()}")
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    head = await reader.readuntil(b"\r\n\r\n")
    if head.split(b" ", 2)[1:2] != [b"200"]:
        writer.close()
        raise OSError(f"the proxy {parts.hostname} answered {head.splitlines()[0][:200]!r}")
    return reader, writer


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy one way to its end, which the other side is told."""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(_PIECE):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
