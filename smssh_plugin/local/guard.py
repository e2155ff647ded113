"""Who may ask the local emulator anything: every request passes here before it is answered.

* Its Host is this machine's loopback by number or as `localhost`, with our port: a page whose name was made to lead
  here (DNS rebinding) says another. Through the proxy (outgoing.py) it is the name of AWS that was asked for.
* It comes from no page: no Origin, no OPTIONS; and no answer allows a page to read it.
* It is signed with credentials of this start. Two are not: an agent's registration, which its activation code lets
  in, and a client's data channel where `signed_clients` is off, which its token lets in.
"""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from aiohttp import web

from .keyring import CALLER
from .service_error import ServiceError
from .sessions.control_routes import ROOT
from .sessions.session_service import NODE_SIGNED
from .signatures import Claim, Digest, Request, check_time, find_key, payload_of, verify

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .keyring import Key, Keyring
    from .outgoing import Outgoing
    from .sessions.session_service import SessionService

__all__ = ["BODY_MAX", "Guard", "checked", "request_of"]

BODY_MAX = 16 * 1024 * 1024
"""Largest body that is read whole, in bytes: a pipeline definition is at most 1 MiB, a call of Logs too."""
_CHECK: Any = web.RequestKey("payload", Digest) if hasattr(web, "RequestKey") else "smssh.payload"
"""aiohttp before 3.14 has texts only."""
_REGISTRATION = "AmazonSSM.RegisterManagedInstance"
_DATA_CHANNEL = "/v1/data-channel/"


class Guard:
    """Lets requests in.

    Args:
        keyring: the credentials that are good.
        sessions: says whether clients of data channels have to sign.
        outgoing: knows the connections that came through the proxy.
    """

    def __init__(self, keyring: Keyring, sessions: SessionService, outgoing: Outgoing) -> None:
        self._outgoing = outgoing
        self._keyring = keyring
        self._sessions = sessions
        self._hosts: set[str] = set()

    def add_port(self, port: int, *, secure: bool) -> None:
        """Answer on a port of the loopback.

        Args:
            port: which.
            secure: whether it speaks TLS.
        """
        for name in ("127.0.0.1", "localhost"):
            self._hosts.add(f"{name}:{port}")
            if port == (443 if secure else 80):
                self._hosts.add(name)

    async def let_in(self, request: web.Request) -> Key | None:
        """See that a request may be answered.

        Returns:
            The credentials that it is signed with; None for one without any of this start.

        Raises:
            ServiceError: it may not.
        """
        self._check_sender(request)
        asked = request_of(request)
        claim = Claim.of(asked)
        if claim is None:
            if not self._is_open(request):
                raise ServiceError(
                    "MissingAuthenticationTokenException"
                    if "X-Amz-Target" in request.headers
                    else "AccessDenied",
                    "Missing Authentication Token: smssh local answers requests that are signed with its credentials.",
                    403,
                )
            return None
        check_time(claim, time.time())
        if claim.access_key.startswith("mi-") and request.headers.get("X-Amz-Target") in NODE_SIGNED:
            return None  # with the node's RSA key, which the service knows and verifies
        key = find_key(claim, self._keyring)
        await self._verify(request, asked, claim, key)
        if asked.path.startswith(ROOT) and key.owner != CALLER:
            raise ServiceError("AccessDenied", f"{ROOT} is for who started smssh local.", 403)
        return key

    def served(self, request: web.Request) -> str | None:
        """The name of AWS that a request is for; None for one to the emulator's own address.

        Raises:
            ServiceError: it is for a proxy, and does not know its password.
        """
        if request.raw_path.startswith("/"):
            return self._outgoing.served(request.transport)
        if self._outgoing.is_known(request.headers.get("Proxy-Authorization", "")) is None:
            raise ServiceError("AccessDenied", "smssh local is a proxy for its own clients only.", 403)
        return (urlsplit(request.raw_path).hostname or "").lower()

    def _check_sender(self, request: web.Request) -> None:
        """See that it comes from a program of this machine, not from a page.

        Raises:
            ServiceError: it may come from one.
        """
        host = request.headers.getall("Host", [])
        name = self.served(request)
        right = self._hosts if name is None else {name, f"{name}:443", f"{name}:80"}
        if len(host) != 1 or host[0].lower() not in right:
            raise ServiceError(
                "AccessDenied", f"smssh local does not answer for the host {', '.join(host)[:200]!r}.", 403
            )
        if request.method == "OPTIONS" or "Origin" in request.headers:
            raise ServiceError("AccessDenied", "smssh local does not answer web pages.", 403)

    def _is_open(self, request: web.Request) -> bool:
        """Whether a request needs no signature."""
        if request.method == "POST":
            return request.path == "/" and request.headers.get("X-Amz-Target") == _REGISTRATION
        return (
            request.method == "GET"
            and request.raw_path.startswith(_DATA_CHANNEL)
            and not self._sessions.channels.signed_clients
        )

    @staticmethod
    async def _verify(request: web.Request, asked: Request, claim: Claim, key: Key) -> None:
        payload, check = payload_of(asked, claim, key)
        if claim.service != "s3" or payload is None:
            # Their bodies are small, and some clients say nothing of them: they are read first.
            try:
                body = await request.read()
            except web.HTTPRequestEntityTooLarge:
                text = f"The request is larger than {BODY_MAX} bytes."
                raise ServiceError("RequestEntityTooLarge", text, 413) from None
            check.feed(body)
            check.finish()
            payload = payload or hashlib.sha256(body).hexdigest()
        else:
            request[_CHECK] = check
        verify(asked, claim, key, payload)


async def checked(request: web.Request, size: int) -> AsyncIterator[bytes]:
    """The body of a request that was let in, as it comes; its last part only if it is what was signed.

    Args:
        request: the request.
        size: bytes of a part, at most.

    Raises:
        ServiceError: it is not.
    """
    check: Digest | None = request.get(_CHECK)
    if check is None:
        yield await request.read()
        return
    held = b""
    async for part in request.content.iter_chunked(size):
        check.feed(part)
        if held:
            yield held
        held = part
    check.finish()
    if held:
        yield held


def request_of(request: web.Request) -> Request:
    """A request as its signature sees it."""
    target = request.raw_path
    if not target.startswith("/"):  # as proxies are asked (RFC 9112, 3.2.2)
        parts = urlsplit(target)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Request(request.method, target, request.headers)
