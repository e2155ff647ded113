"""moto's server, on a loopback port of its own in this process: S3, STS, IAM, Logs, the rest of SSM.

Only the gateway and the stand-in's own clients speak to it. Everything is in memory and ends with the
process.
"""

from __future__ import annotations

import logging
from typing import Any

import boto3
from botocore.config import Config
from moto.server import ThreadedMotoServer

from .sagemaker_store import REGION

__all__ = ["MotoBackend"]

KEY = "smssh-local"


class MotoBackend:
    """Start it, use `endpoint`, stop it."""

    def __init__(self) -> None:
        # werkzeug logs a line for every request otherwise.
        logging.getLogger("werkzeug").setLevel(logging.WARNING)
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self.endpoint = ""

    def start(self) -> None:
        """Listen on a free port; blocks for some tenths of a second."""
        self._server.start()
        _, port = self._server.get_host_and_port()
        self.endpoint = f"http://127.0.0.1:{port}"

    def client(self, service: str) -> Any:
        """A boto3 client of it that takes nothing from the environment's profiles, keys or endpoints."""
        # Any: the stubs know services by literal names only.
        session: Any = boto3.session.Session(
            aws_access_key_id=KEY, aws_secret_access_key=KEY, region_name=REGION
        )
        settings = Config(proxies={}, retries={"max_attempts": 1}, s3={"addressing_style": "path"})
        return session.client(service, endpoint_url=self.endpoint, config=settings)

    def stop(self) -> None:
        """Stop listening."""
        self._server.stop()
