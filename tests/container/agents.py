"""Packages with the fake agent in them, a server that serves them, and containers' contexts, for tests."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.server
import io
import lzma
import platform
import socket
import tarfile
import threading
from typing import TYPE_CHECKING, Any

from smssh_plugin import settings
from smssh_plugin.hookspecs import Context, Job, Server
from smssh_plugin.local.agent.installed import install

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAMS = ("amazon-ssm-agent", "ssm-agent-worker", "ssm-session-worker")
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO7tHAuphTTyE5a9CYRfcOTPNUOEeZ0zJlOA+XjiM8Wo"


def member(name: str, data: bytes) -> bytes:
    """A member of an ar archive."""
    header = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode()
    return header + data + b"\n" * (len(data) % 2)


def deb(files: dict[str, bytes | tarfile.TarInfo], compression: str = "gz") -> bytes:
    """A Debian package of these files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            if isinstance(data, tarfile.TarInfo):
                archive.addfile(data)
                continue
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            entry.mode = 0o755
            archive.addfile(entry, io.BytesIO(data))
    compress = {"": bytes, "gz": gzip.compress, "xz": lzma.compress}[compression]
    suffix = f".{compression}" if compression else ""
    return (
        b"!<arch>\n"
        + member("debian-binary", b"2.0\n")
        + member("control.tar.gz", gzip.compress(b"odd"))
        + member(f"data.tar{suffix}", compress(out.getvalue()))
    )


def fake_agent_package(folder: Path) -> bytes:
    """A package with the fake agent where Amazon's has the agent."""
    program = install(folder / "agent").read_bytes()
    worker = b"#!/bin/sh\nexit 0\n"
    files = {f"./usr/bin/{name}": worker for name in PROGRAMS}
    files["./usr/bin/amazon-ssm-agent"] = program
    files["./usr/bin/ssm-document-worker"] = worker
    files["./etc/amazon/ssm/seelog.xml.template"] = b"<seelog/>"
    return deb(files)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def pinned(data: bytes) -> dict[str, str]:
    """The variables that pin a package for this machine."""
    return {
        "SMSSH_AGENT_VERSION": "3.3.987.0",
        "SMSSH_AGENT_SHA256": f"{platform.machine()}={sha256(data)}",
    }


class Mirror:
    """An HTTP server with files, and with what goes wrong."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.failures: list[int] = []
        """Statuses of the next answers."""
        self.cut = 0
        """Bytes after which the next answers end, by how many answers."""
        self.cuts = 0
        mirror = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                mirror.asked.append(self.path)
                # Through a proxy the whole address stands in the first line.
                path = "/" + self.path.split("//", 1)[1].split("/", 1)[1] if "//" in self.path else self.path
                data = mirror.files.get(path)
                if mirror.failures:
                    self.send_error(mirror.failures.pop(0))
                elif data is None:
                    self.send_error(404)
                else:
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    if mirror.cuts:
                        mirror.cuts -= 1
                        data = data[: mirror.cut]
                    self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def serve(self, package: bytes, version: str = "3.3.987.0", architecture: str = "") -> None:
        architecture = architecture or {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
        self.files[f"/{version}/debian_{architecture}/amazon-ssm-agent.deb"] = package

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def silence() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    listener = socket.create_server(("127.0.0.1", 0))
    taken: list[socket.socket] = []

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                taken.append(listener.accept()[0])

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in taken:
            connection.close()


def context(folder: Path, *, bundle: Path | None = None, job: Any = None, **environ: str) -> Context:
    """The supervisor's context as hooks see it; what is said goes into `said`."""
    run = folder / "run"
    run.mkdir(mode=0o700, exist_ok=True)
    made = Context(
        settings=settings.load({"SMSSH_ROLE": "role", **environ}),
        job=job or Job("job-1", "training", "algo-1"),
        run_dir=run,
        environment={"PATH": "/nowhere", "AWS_REGION": "us-east-1", "HOME": str(folder), **environ},
        code_dir="/",
        python_path="",
        bundle=bundle,
        server=Server("sshd", 40000, "root", HOST_KEY),
    )
    made.said = []  # type: ignore[attr-defined]
    made.say = made.said.append  # type: ignore[attr-defined]
    return made
