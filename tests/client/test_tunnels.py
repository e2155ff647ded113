"""Tunnels over a real SSH server, to a real HTTP server."""

from __future__ import annotations

import http.server
import socket
import subprocess
import sys
import threading
import urllib.request
from dataclasses import replace
from typing import TYPE_CHECKING

import psutil
import pytest

from smssh_plugin.client.connection import Connection
from smssh_plugin.client.tunnels import Tunnel
from smssh_plugin.errors import ExitStatus, SmsshError
from tests.waiting import LIMIT

from .conftest import SshServer, make_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BODY = bytes(range(256)) * 2000


@pytest.fixture(scope="module")
def web() -> Iterator[int]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.write(BODY)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def fetch(port: int) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=LIMIT) as answer:
        return answer.read()


def test_http_through_a_tunnel_and_nothing_left(ssh_server: SshServer, web: int) -> None:
    with Tunnel(ssh_server.endpoint, web) as tunnel:
        assert tunnel.alive
        assert fetch(tunnel.local_port) == BODY
        port, proxy = tunnel.local_port, tunnel._proxy.process
        listening = [
            one for one in psutil.Process().net_connections() if one.laddr and one.laddr.port == port
        ]
        assert {one.laddr.ip for one in listening if one.status == "LISTEN"} == {"127.0.0.1"}
    assert proxy.returncode is not None
    assert not tunnel.alive
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 2):
        pass


def test_a_tunnel_can_be_started_again(ssh_server: SshServer, web: int) -> None:
    tunnel = Tunnel(ssh_server.endpoint, web)
    for _ in range(2):
        tunnel.start()
        with pytest.raises(SmsshError, match="started already"):
            tunnel.start()
        assert fetch(tunnel.local_port) == BODY
        tunnel.stop()
        tunnel.stop()
    with pytest.raises(SmsshError, match="not started"):
        _ = tunnel.local_port


def test_a_chosen_port(ssh_server: SshServer, web: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with Tunnel(ssh_server.endpoint, web, local_port=port) as tunnel:
        assert tunnel.local_port == port
        with pytest.raises(SmsshError, match=f"port {port} of this machine is taken"):
            Tunnel(ssh_server.endpoint, web, local_port=port).start()


def test_forward_ends_with_its_connection(ssh_server: SshServer, web: int) -> None:
    with Connection(ssh_server.endpoint) as connection:
        tunnel = connection.forward(web)
        assert fetch(tunnel.local_port) == BODY
    assert not tunnel.alive


def test_a_key_of_a_machine_in_fips_mode(ssh_server: SshServer, web: int, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", str(tmp_path / "ec")], check=True)
    accepted = ssh_server.folder / "authorized"
    before = accepted.read_text()
    accepted.write_text((tmp_path / "ec.pub").read_text())
    try:
        with Tunnel(ssh_server.with_key(tmp_path / "ec"), web) as tunnel:
            assert fetch(tunnel.local_port) == BODY
    finally:
        accepted.write_text(before)


def test_wrong_keys_are_refused(
    ssh_server: SshServer, web: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = make_key(tmp_path / "other")
    with pytest.raises(SmsshError, match="another host key") as caught:
        Tunnel(ssh_server.with_host_key(other), web).start()
    assert caught.value.status is ExitStatus.REFUSED
    with pytest.raises(SmsshError, match="does not accept your SSH key") as caught:
        Tunnel(ssh_server.with_key(tmp_path / "other"), web).start()
    assert caught.value.status is ExitStatus.REFUSED
    assert capfd.readouterr() == ("", "")


def test_a_proxy_that_fails(ssh_server: SshServer) -> None:
    says = (sys.executable, "-c", "import sys; sys.exit('error: no such thing as that job')")
    before = set(psutil.Process().children())
    with pytest.raises(SmsshError, match="no such thing as that job") as caught:
        Tunnel(replace(ssh_server.endpoint, proxy=says), 80).start()
    assert caught.value.status is ExitStatus.UNREACHABLE
    assert set(psutil.Process().children()) <= before


def test_a_tunnel_notices_that_its_login_is_gone(ssh_server: SshServer, web: int) -> None:
    with Tunnel(ssh_server.endpoint, web) as tunnel:
        tunnel._proxy.process.kill()
        tunnel._forwarder._transport.join(LIMIT)
        assert not tunnel.alive
