"""Websockets over TLS, through proxies, and over IPv6."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from websockets.sync.server import ServerConnection, serve

from smssh_plugin.session.wire.websocket import WebSocket, WebSocketRefusedError
from tests.aws.peers import Proxy, TlsProxy, certificate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
            monkeypatch.delenv(name)


@contextmanager
def echoing(listener: socket.socket | None = None, **options: Any) -> Iterator[int]:
    def connection(peer: ServerConnection) -> None:
        for message in peer:
            peer.send(message)

    listener = listener or socket.create_server(("127.0.0.1", 0))
    with serve(connection, sock=listener, compression=None, **options) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.socket.getsockname()[1]
        finally:
            server.shutdown()
            thread.join(10)


def echoed(made: WebSocket, data: bytes) -> bytes:
    made.send_binary(data)
    made.flush()
    deadline = time.monotonic() + 10
    while not (got := made.receive()):
        select.select([made], [made] if made.pending else [], [], 10)
        made.flush()
        assert time.monotonic() < deadline
    made.close()
    return b"".join(got)


def test_tls_with_a_certificate_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, tls = certificate(tmp_path, "localhost")
    with echoing(ssl=tls) as port:
        url = f"wss://localhost:{port}/x"
        with pytest.raises(WebSocketRefusedError, match="is not trusted"):
            WebSocket(url)
        assert echoed(WebSocket(url, ca_bundle=str(path)), b"by argument") == b"by argument"
        monkeypatch.setenv("AWS_CA_BUNDLE", str(path))
        assert echoed(WebSocket(url), b"by variable") == b"by variable"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_leads_to_the_data_channel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    host = "ssmmessages.eu-west-1.amazonaws.com"
    path, tls = certificate(tmp_path, host, "localhost")
    with echoing(ssl=tls, max_size=None) as port:
        proxy = Proxy(port) if scheme == "http" else TlsProxy(port, tls)
        try:
            monkeypatch.setenv("HTTPS_PROXY", f"{scheme}://localhost:{proxy.port}")
            url = f"wss://{host}/v1/data-channel/s?role=publish_subscribe"
            assert echoed(WebSocket(url, ca_bundle=str(path)), b"through") == b"through"
            large = os.urandom(8 << 20)
            assert echoed(WebSocket(url, ca_bundle=str(path)), large) == large
        finally:
            proxy.close()
    assert proxy.heads[0].startswith(f"CONNECT {host}:443 HTTP/1.1\r\n")


@pytest.mark.needs("IPv6")
def test_ipv6() -> None:
    listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    with echoing(listener) as port:
        assert echoed(WebSocket(f"ws://[::1]:{port}/x"), b"six") == b"six"
