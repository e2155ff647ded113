"""Through a proxy that is itself reached by TLS: calls, trust, and what the relay in between must not lose."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from smssh_plugin.aws import transport
from smssh_plugin.aws.session import AwsSession
from smssh_plugin.errors import SmsshError
from tests.waiting import LIMIT, until

from .peers import Api, TlsProxy, certificate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NAMES = ("ssm.eu-west-1.amazonaws.com", "localhost")


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """The TLS of a server that this process trusts, as AWS and as the proxy."""
    path, tls = certificate(tmp_path, *NAMES)
    for name, value in {
        "AWS_CA_BUNDLE": str(path),
        "AWS_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
    }.items():
        monkeypatch.setenv(name, value)
    return tls


@contextlib.contextmanager
def proxied(port: int, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> Iterator[TlsProxy]:
    proxy = TlsProxy(port, tls)
    try:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("//", "//me:p%40ss@"))
        yield proxy
    finally:
        proxy.close()


@contextlib.contextmanager
def serving(tls: ssl.SSLContext, serve: Callable[[ssl.SSLSocket], None]) -> Iterator[int]:
    """The port of a TLS server that treats one connection after another."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with contextlib.suppress(OSError), tls.wrap_socket(connection, server_side=True) as secure:
                    serve(secure)

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(LIMIT)


def relays() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "tls-proxy"]


def connected() -> ssl.SSLSocket:
    """A connection to AWS through the proxy."""
    return transport.wrap(
        transport.open_socket(NAMES[0], 443, 20, secure=True, ca_bundle=None), NAMES[0], None
    )


def gone() -> None:
    until(lambda: not relays(), "the end of the relays")


def test_calls_go_through_it(trusted: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Api(trusted)
    try:
        with proxied(service.port, trusted, monkeypatch) as proxy:
            session = AwsSession()
            for _ in range(3):
                assert session.call("ssm", "start_session", Target="mi-1") == {}
            assert service.connections == 1  # it is kept
            assert proxy.heads[0].startswith("CONNECT ssm.eu-west-1.amazonaws.com:443 HTTP/1.1\r\n")
            assert "Proxy-Authorization: Basic bWU6cEBzcw==" in proxy.heads[0]
            del session
    finally:
        service.close()


def test_botocores_calls_go_through_it(trusted: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """It trusts a proxy as Python does by itself, not as AWS_CA_BUNDLE says: docs/connecting.md tells."""
    service = Api(trusted)
    code = "import boto3; print(boto3.client('ssm', region_name='eu-west-1').describe_instance_information())"
    try:
        with proxied(service.port, trusted, monkeypatch):
            done = subprocess.run(
                [sys.executable, "-c", code],
                env={**os.environ, "SSL_CERT_FILE": os.environ["AWS_CA_BUNDLE"]},
                capture_output=True,
                text=True,
                timeout=LIMIT,
                check=False,
            )
            assert done.returncode == 0, done.stderr
    finally:
        service.close()


def test_a_proxy_that_is_not_trusted_is_said(
    trusted: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    with proxied(1, certificate(tmp_path / "other", "localhost")[1], monkeypatch) as proxy:
        with pytest.raises(SmsshError, match=r"its certificate is not trusted: .*AWS_CA_BUNDLE") as caught:
            AwsSession().call("ssm", "start_session", Target="mi-1")
        assert f"the proxy localhost:{proxy.port} does not connect" in str(caught.value)
        assert "p%40ss" not in str(caught.value)
        assert proxy.heads == []  # nobody else hears the password


def test_much_is_moved_in_both_directions_at_once(
    trusted: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 24 << 20
    block = os.urandom(1 << 20)

    def echo(connection: ssl.SSLSocket) -> None:
        left = size
        while left:
            data = connection.recv(1 << 16)
            connection.sendall(data)
            left -= len(data)

    with serving(trusted, echo) as port, proxied(port, trusted, monkeypatch):
        with connected() as near:
            near.setblocking(False)
            sent, received = 0, bytearray()
            import select

            while len(received) < size:
                readable, writable, _ = select.select([near], [near] if sent < size else [], [], 20)
                assert readable or writable
                with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    if writable:
                        sent += near.send(block[sent % len(block) :])
                with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    while data := near.recv(1 << 18):
                        received += data
            assert bytes(received) == block * (size // len(block))
        gone()


def test_what_was_written_before_an_end_still_arrives(
    trusted: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = bytearray()
    over = threading.Event()

    def talk(connection: ssl.SSLSocket) -> None:
        connection.sendall(b"x" * 3_000_000)
        while data := connection.recv(1 << 16):
            heard.extend(data)
        over.set()

    with serving(trusted, talk) as port, proxied(port, trusted, monkeypatch):
        near = connected()
        left = 3_000_000
        while left:
            left -= len(near.recv(1 << 16))
        near.sendall(b"y" * 200_000)
        near.close()
        assert over.wait(LIMIT)
        assert bytes(heard) == b"y" * 200_000
        gone()


def test_the_end_of_the_far_side_is_an_end_here(
    trusted: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(connection: ssl.SSLSocket) -> None:
        connection.sendall(b"z" * 2_000_000)

    with serving(trusted, leave) as port, proxied(port, trusted, monkeypatch) as proxy:
        with connected() as near:
            got = 0
            while data := near.recv(1 << 16):
                got += len(data)
            assert got == 2_000_000
        gone()
        until(lambda: not proxy.open)


def test_no_proxy_of_that_kind_costs_nothing() -> None:
    code = (
        "import sys, socket; from smssh_plugin.aws import transport\n"
        "listener = socket.create_server(('127.0.0.1', 0))\n"
        "transport.open_socket('127.0.0.1', listener.getsockname()[1], 5, secure=True, ca_bundle=None).close()\n"
        "sys.exit('smssh_plugin.aws.tls_proxy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=LIMIT).returncode == 0
