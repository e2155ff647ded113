"""moto's server in this process: S3, STS, IAM, Logs, Lambda's functions, the rest of SSM.

moto asks nobody for credentials, so that nobody but this process may reach it: it listens on a Unix socket in a
private folder, and takes connections of its own process only (unix(7), SO_PEERCRED). Everything is in memory and
ends with the process.
"""

from __future__ import annotations

import datetime as dt
import functools
import logging
import os
import socket
import struct
import tempfile
import threading
from pathlib import Path
from typing import Any

import boto3
import urllib3
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from moto.iam.models import iam_backends
from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.sts.models import sts_backends
from urllib3.connection import HTTPConnection
from werkzeug.serving import ThreadedWSGIServer

from . import aws_policies, log_filter
from .keyring import Key
from .lambda_functions import Function
from .sagemaker.resources import ACCOUNT, REGION

__all__ = ["MotoBackend"]

_NAME = "moto.sock"
_CREDENTIALS = struct.Struct("3i")
_SECONDS = 60.0
_LOOK = 0.05
"""Seconds between two looks at whether it is to stop."""
_BACKLOG = 1024


@functools.cache
def _session() -> Any:
    """What clients are made of; it holds the service models, which take longer to read than all else to start."""
    key = Key.random("smssh local", temporary=False)  # moto looks at none
    # Any: the stubs know services by literal names only.
    return boto3.session.Session(
        aws_access_key_id=key.access_key, aws_secret_access_key=key.secret_key, region_name=REGION
    )


class MotoBackend:
    """Start it, use it, stop it.

    Args:
        folder: a private folder for its socket; one of its own by default.
    """

    def __init__(self, folder: Path | None = None) -> None:
        # werkzeug logs a line for every request otherwise.
        logging.getLogger("werkzeug").setLevel(logging.WARNING)
        self._folder = folder
        self._own: tempfile.TemporaryDirectory[str] | None = None
        self._descriptor = -1
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self.path = ""
        """The socket, for this process: the folder's real path may be longer than a socket's may be."""

    def start(self) -> None:
        """Listen; blocks for some tenths of a second."""
        if self._folder is None:
            self._own = tempfile.TemporaryDirectory(prefix="smssh-moto-")
            self._folder = Path(self._own.name)
        (self._folder / _NAME).unlink(missing_ok=True)  # of one that was killed
        self._descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.path = f"/proc/self/fd/{self._descriptor}/{_NAME}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(self.path)
            os.chmod(self.path, 0o600)
            # Nobody is told to come again: a connection beyond it fails, and many jobs come at once.
            listener.listen(_BACKLOG)
            app = DomainDispatcherApplication(create_backend_app)
            self._server = _Server(f"unix://{self.path}", 0, app, MotoRequestHandler, fd=listener.fileno())
        aws_policies.provide()
        log_filter.provide()
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_LOOK,), daemon=True)
        self._thread.start()

    def client(self, service: str) -> Any:
        """A boto3 client of it that takes nothing from the environment's profiles, keys or endpoints."""
        settings = Config(proxies={}, retries={"max_attempts": 1}, s3={"addressing_style": "path"})
        made = _session().client(service, endpoint_url="http://localhost", config=settings)
        pool = _Pool(self.path)
        made.meta.events.register("before-send.*.*", lambda request, **_: _send(pool, request))
        return made

    def key(self, access_key: str) -> Key | None:
        """The credentials that moto gave out under an access key id: of an IAM user, or of a role."""
        for sts in _everywhere(sts_backends):
            role = sts.get_assumed_role_from_access_key(access_key)
            if role is not None:
                return Key(
                    role.access_key_id,
                    role.secret_access_key,
                    role.session_token,
                    f"iam {role.arn}",
                    role.expiration.replace(tzinfo=dt.timezone.utc).timestamp(),
                )
        for user in [user for iam in _everywhere(iam_backends) for user in list(iam.users.values())]:
            for one in user.access_keys:
                if one.access_key_id == access_key and one.status == "Active":
                    return Key(one.access_key_id, one.secret_access_key, None, f"iam {user.arn}")
        return None

    def function(self, name_or_arn: str) -> Function | None:
        """The Lambda function of a name or an ARN; None if it does not exist. Blocks when it is first called."""
        # It takes long to import, and most pipelines have no such step.
        from moto.awslambda.exceptions import LambdaClientError
        from moto.awslambda.models import lambda_backends

        try:
            found = lambda_backends[ACCOUNT][REGION].get_function(name_or_arn)
        except LambdaClientError:
            return None
        return Function(
            found.function_arn,
            found.function_name,
            found.package_type,
            found.run_time or "",
            found.handler or "",
            getattr(found, "code_bytes", b""),
            {name: str(value) for name, value in found.environment_vars.items()},
            float(found.timeout),
            int(found.memory_size),
        )

    def stop(self) -> None:
        """Stop listening."""
        if self._server is None or self._thread is None or self._folder is None:
            return
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        os.close(self._descriptor)
        (self._folder / _NAME).unlink(missing_ok=True)
        self._server = None
        if self._own is not None:
            self._own.cleanup()


class _Server(ThreadedWSGIServer):
    """moto's server, for this process alone."""

    daemon_threads = True

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether the other end is this process."""
        del client_address
        pid, _, _ = _CREDENTIALS.unpack(
            request.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        return bool(pid == os.getpid())


class _Connection(HTTPConnection):
    """HTTP on a Unix socket."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        self._path = settings.pop("path")
        super().__init__(*arguments, **settings)

    def _new_conn(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.settimeout(_SECONDS)
        made.connect(self._path)
        return made


class _Pool(urllib3.HTTPConnectionPool):
    """Connections to a Unix socket."""

    ConnectionCls = _Connection

    def __init__(self, path: str) -> None:
        super().__init__("localhost", maxsize=32, path=path)


def _send(pool: _Pool, request: Any) -> AWSResponse:
    """Send a request of botocore's, in the place of its own HTTP client."""
    chunked = request.headers.get("Transfer-Encoding", b"") in (b"chunked", "chunked")
    # Any: to the stubs it is requests' own kind of answer.
    answer: Any = pool.urlopen(
        request.method,
        request.url.removeprefix("http://localhost"),
        body=request.body,
        headers=request.headers,
        retries=False,
        redirect=False,
        assert_same_host=False,
        preload_content=False,
        decode_content=False,
        chunked=chunked,
    )
    made = AWSResponse(request.url, answer.status, answer.headers, answer)
    if not request.stream_output:
        made.content  # noqa: B018 - reads it, which gives the connection back
    return made


def _everywhere(backends: Any) -> list[Any]:
    """A service's backends in all accounts and regions; copied, for other threads add some."""
    return [backend for account in list(backends) for backend in list(backends[account].values())]
