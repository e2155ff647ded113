"""Sockets to AWS, for API calls and websockets alike: proxies, trusted certificates, time-outs.

The trusted authorities are those of AWS_CA_BUNDLE, REQUESTS_CA_BUNDLE or the profile's `ca_bundle`; else the system's,
or botocore's list where the system names nobody (Python from python.org on macOS). HTTPS_PROXY, HTTP_PROXY
and NO_PROXY hold, and on macOS and Windows the system's settings. A proxy at https:// is reached by TLS itself.
"""

from __future__ import annotations

import base64
import os
import socket
import ssl
import sys
import time
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit

if TYPE_CHECKING:
    from http.client import HTTPConnection

__all__ = [
    "ConnectError",
    "SetupError",
    "connect",
    "context",
    "open_socket",
    "proxy_of",
    "proxy_parts",
    "wrap",
]

_NOT_THE_LAST = 3.0
"""Seconds for each address of a host but the last: IPv6 that leads nowhere must not cost a login."""
_ANSWER_MAX = 65536


class ConnectError(OSError):
    """What is in the way, in words for a person, with no secret in them."""


class SetupError(ConnectError):
    """The same, where only another setting helps: it is not worth trying again."""


def connect(url: str, connect_seconds: float, read_seconds: float, ca_bundle: str | None) -> HTTPConnection:
    """A connection for HTTP requests to the host of a URL, which is not opened again by itself.

    Args:
        url: http:// or https://, with a host.
        connect_seconds: for the connection.
        read_seconds: for each read of an answer.
        ca_bundle: see `wrap`.

    Raises:
        OSError: no connection, or no TLS; a ConnectError where more is known than that nobody answers.
    """
    from http.client import HTTPConnection

    parts = urlsplit(url)
    assert parts.hostname is not None
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    sock = open_socket(parts.hostname, port, connect_seconds, secure=secure, ca_bundle=ca_bundle)
    if secure:
        sock = wrap(sock, parts.hostname, ca_bundle)
    sock.settimeout(read_seconds)
    connection = HTTPConnection(parts.hostname, port)
    connection.auto_open = 0
    connection.sock = sock
    return connection


def open_socket(
    host: str, port: int, timeout: float, *, secure: bool, ca_bundle: str | None
) -> socket.socket:
    """A connection to `host`, through the proxy if there is one; with TLS it is `wrap`ped after that.

    Args:
        host: where to.
        port: its port.
        timeout: seconds, for all of it.
        secure: whether it is going to be `wrap`ped.
        ca_bundle: the authorities to trust for a proxy that is itself reached by TLS (`https://`); see `wrap`.

    Raises:
        OSError: no connection, with the proxy named if that is at fault.
    """
    proxy = proxy_of(host, port, secure=secure)
    if proxy is None:
        return _dial(host, port, timeout)
    parts, proxy_host, proxy_port = proxy_parts(proxy)
    where = f"{proxy_host}:{proxy_port}"
    deadline = time.monotonic() + timeout
    try:
        connection = _dial(proxy_host, proxy_port, timeout)
    except OSError as error:
        raise ConnectError(f"the proxy {where} cannot be reached: {error}") from error
    try:
        if parts.scheme == "https":
            connection.settimeout(max(0.1, deadline - time.monotonic()))
            connection = _wrap_proxy(connection, proxy_host, ca_bundle)
        _tunnel(connection, f"[{host}]:{port}" if ":" in host else f"{host}:{port}", parts, deadline)
        if secure and isinstance(connection, ssl.SSLSocket):
            from .tls_proxy import relayed  # here, not above: few have such a proxy

            connection = relayed(connection)
    except OSError as error:
        connection.close()
        kind = SetupError if isinstance(error, SetupError) else ConnectError
        raise kind(f"the proxy {where} does not connect: {error}") from error
    connection.settimeout(timeout)
    return connection


def proxy_parts(proxy: str) -> tuple[SplitResult, str, int]:
    """The URL of a proxy, as variables have it, in its parts; its host, and its port.

    Raises:
        SetupError: it is not the URL of a proxy that can be used.
    """
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        if "@" in parts.path + parts.query + parts.fragment:
            raise ValueError("a password with one of /?# in it")
    except ValueError:
        # What it took for host and port may be user and password.
        raise SetupError("invalid proxy URL: percent-encode the user name and password") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SetupError(
            f"smssh cannot use the proxy {parts.scheme}://{parts.hostname or ''}: "
            "only http:// and https:// proxies work"
        )
    return parts, parts.hostname, port


def _wrap_proxy(connection: socket.socket, host: str, ca_bundle: str | None) -> ssl.SSLSocket:
    """TLS with the proxy itself.

    Raises:
        OSError: no trust, or no TLS.
    """
    try:
        return context(ca_bundle).wrap_socket(connection, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        raise SetupError(
            f"its certificate is not trusted: {error.verify_message}; AWS_CA_BUNDLE has to name who signed it"
        ) from error
    except ssl.SSLError as error:
        raise SetupError(
            f"it does not speak TLS ({error.reason or error}); where it takes HTTP, its address begins with http://"
        ) from error


def proxy_of(host: str, port: int, *, secure: bool) -> str | None:
    """The proxy that leads to `host`; None where none is needed."""
    if sys.platform == "linux" and not any(name.lower().endswith("_proxy") for name in os.environ):
        return None  # and no import of what reads them
    from urllib.request import getproxies, proxy_bypass

    proxy = getproxies().get("https" if secure else "http")
    if not proxy or proxy_bypass(host) or proxy_bypass(f"{host}:{port}"):
        return None
    return proxy


def wrap(connection: socket.socket, host: str, ca_bundle: str | None) -> ssl.SSLSocket:
    """TLS on top of a connection; it is closed if that fails.

    Args:
        connection: to `host`.
        host: whose certificate it has to be.
        ca_bundle: a PEM file, or a folder, that replaces the trusted certificates.

    Raises:
        OSError: no trust, or no TLS.
    """
    try:
        return context(ca_bundle).wrap_socket(connection, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        connection.close()
        raise SetupError(
            f"the certificate of {host} is not trusted: {error.verify_message}; behind a proxy that looks into TLS "
            "AWS_CA_BUNDLE has to name its certificate"
        ) from error
    except BaseException:
        connection.close()
        raise


def context(ca_bundle: str | None) -> ssl.SSLContext:
    """The TLS settings.

    Raises:
        OSError: the bundle cannot be read.
    """
    bundle = ca_bundle or os.environ.get("AWS_CA_BUNDLE") or os.environ.get("REQUESTS_CA_BUNDLE")
    if not bundle:
        paths = ssl.get_default_verify_paths()
        bundle = None if paths.cafile or paths.capath or os.name == "nt" else _botocores()
    try:
        return _context(bundle)
    except OSError as error:
        raise SetupError(f"the bundle of certificates {bundle} cannot be used: {error}") from error


@lru_cache(maxsize=None)  # noqa: UP033 - containers have Python 3.8
def _context(bundle: str | None) -> ssl.SSLContext:
    # Once: the system's list takes some milliseconds to read, and a login makes two connections.
    if bundle and Path(bundle).is_dir():
        return ssl.create_default_context(capath=bundle)
    return ssl.create_default_context(cafile=bundle)


def _botocores() -> str | None:
    from importlib.util import find_spec

    found = find_spec("botocore")  # imports nothing
    path = None if found is None or found.origin is None else Path(found.origin).with_name("cacert.pem")
    return str(path) if path is not None and path.exists() else None


def _dial(host: str, port: int, timeout: float) -> socket.socket:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    deadline = time.monotonic() + timeout
    trouble: OSError | None = None
    for number, (family, kind, protocol, _, address) in enumerate(found, 1):
        left = max(0.1, deadline - time.monotonic())
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(left if number == len(found) else min(left, _NOT_THE_LAST))
            connection.connect(address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(timeout)
        except OSError as error:
            connection.close()
            trouble = trouble or error
        else:
            return connection
    raise trouble or OSError(f"{host} has no address")


def _tunnel(connection: socket.socket, target: str, proxy: object, deadline: float) -> None:
    """HTTP CONNECT."""
    user, password = getattr(proxy, "username", None), getattr(proxy, "password", None)
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if user:
        pair = f"{unquote(user)}:{unquote(password or '')}".encode()
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(pair).decode()}")
    connection.sendall("\r\n".join([*lines, "", ""]).encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        connection.settimeout(max(0.1, deadline - time.monotonic()))
        # One byte after another at the end: what follows the head belongs to the tunnel.
        data = connection.recv(1)
        if not data or len(answer) > _ANSWER_MAX:
            raise OSError("its answer is not HTTP")
        answer += data
    status = answer.split(b"\r\n", 1)[0].decode("latin-1")
    code = status.split()[1:2]
    if code != ["200"]:
        # 407 and 403, for two: the proxy has made up its mind.
        kind = SetupError if code and code[0].startswith("4") else OSError
        raise kind(f"it answers {status.partition(' ')[2] or status!r}")
