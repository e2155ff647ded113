"""The one address of the local emulator: SageMaker and Session Manager are answered here, everything else goes to moto.

What the guard lets in and goes to moto goes through byte by byte: no body of S3 is read whole, decoded, or logged.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import uuid
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from .faults import HangUpError
from .guard import BODY_MAX, Guard, checked, request_of
from .outgoing import Front, is_aws, is_metadata
from .service_error import ServiceError
from .sessions.channels import access_key_of, refusal
from .sessions.control_routes import add_control_routes
from .sessions.node_signatures import SignedRequest

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable

    from .iam.enforcement import Enforcement
    from .keyring import Key, Keyring
    from .moto_backend import MotoBackend
    from .outgoing import Outgoing
    from .sagemaker.sagemaker_service import SageMaker
    from .sessions.session_service import SessionService

__all__ = ["Gateway", "listen"]

log = logging.getLogger(__name__)

_JSON = "application/x-amz-json-1.1"
_CHUNK = 256 * 1024
_LINE = 64 * 1024
"""Longest request line and header, in bytes: a presigned URL with a session token is several kilobytes."""
_HOP = {
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    # Answered by aiohttp's server before we see the request.
    "expect",
}
_MOTOS_OWN = ("/moto-api", "/latest/meta-data/", "/latest/api/")
"""Paths of moto's that no service of AWS has: its dashboard, which resets everything, and a metadata service."""
_MESSAGE_DELIVERY = "EC2WindowsMessageDeliveryService"
"""How Amazon's agent asks ec2messages for documents to run, every few seconds (on Linux, too)."""
_FORM = "application/x-www-form-urlencoded"
_STS = "https://sts.amazonaws.com/doc/2011-06-15/"
_KEY: Any = web.RequestKey("key", object) if hasattr(web, "RequestKey") else "smssh.key"
"""The credentials of a request. aiohttp before 3.14 has texts only."""
_SCOPE = re.compile(r"[^/,\s]+/[0-9]{8}/[^/,\s]+/([^/,\s]+)/aws4_request")


def listen(port: int) -> socket.socket:
    """A listening socket on 127.0.0.1.

    Args:
        port: 0 takes a free one.

    Raises:
        OSError: the port is in use.
    """
    return socket.create_server(("127.0.0.1", port), backlog=128)


class Gateway:
    """The HTTP server.

    Args:
        sagemaker: answers SageMaker.
        sessions: answers its operations of AmazonSSM, and the websockets.
        moto: answers the rest; it has been started.
        keyring: the credentials that requests have to be signed with.
        outgoing: the proxy for what clients would send out of this machine.
        iam: decides what is answered; None where valid credentials may do everything.
    """

    def __init__(
        self,
        sagemaker: SageMaker,
        sessions: SessionService,
        moto: MotoBackend,
        keyring: Keyring,
        outgoing: Outgoing,
        iam: Enforcement | None = None,
    ) -> None:
        self._outgoing = outgoing
        self._iam = iam
        self._sagemaker = sagemaker
        self._sessions = sessions
        self._moto = moto
        self._guard = Guard(keyring, sessions, outgoing)
        keyring.add_source(sessions.nodes.key)
        keyring.add_source(moto.key)
        self._client: aiohttp.ClientSession | None = None
        self._onward: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None

    async def start(
        self, listener: socket.socket, secure: tuple[socket.socket, ssl.SSLContext] | None = None
    ) -> None:
        """Answer what comes to `listener`, a socket of `listen`; and to the one of `secure`, over TLS."""
        app = web.Application(middlewares=[self._let_in], client_max_size=BODY_MAX)
        self._sessions.add_routes(app)
        add_control_routes(app, self._sessions, self._iam)
        app.router.add_route("*", "/{path:.*}", self._dispatch)
        # A body with Content-Encoding is somebody's object: it must reach S3 as it is.
        self._runner = web.AppRunner(
            app,
            access_log=None,
            auto_decompress=False,
            max_line_size=_LINE,
            max_field_size=_LINE,
            shutdown_timeout=2.0,
        )
        await self._runner.setup()
        self._guard.add_port(listener.getsockname()[1], secure=False)
        server = self._runner.server
        assert server is not None
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Front(server, self._outgoing), sock=listener
        )
        if secure is not None:
            self._guard.add_port(secure[0].getsockname()[1], secure=True)
            await web.SockSite(self._runner, secure[0], ssl_context=secure[1]).start()
        self._client = _session(aiohttp.UnixConnector(self._moto.path, limit=0))
        self._onward = _session(aiohttp.TCPConnector(limit=0))

    async def stop(self) -> None:
        """Stop listening, and end what is under way."""
        if self._server is not None:
            self._server.close()
        await self._outgoing.close()
        if self._runner is not None:
            await self._runner.cleanup()
        for client in (self._client, self._onward):
            if client is not None:
                await client.close()

    @web.middleware
    async def _let_in(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Have a request answered that the guard lets in, and no other."""
        try:
            name = self._guard.served(request)
            if name is not None and not is_aws(name):
                return await self._go_on(request, name)
            request[_KEY] = await self._guard.let_in(request)
        except ServiceError as error:
            log.info("%s %s refused: %s", request.method, request.path, error)
            return _failure(request, error)
        if name is not None and not name.startswith("ssmmessages."):
            return await self._dispatch(request)  # a path of ours may be the key of an object there
        if self._iam is not None:
            try:
                self._iam.channel(request[_KEY], request.method, request.path)
            except ServiceError as error:
                log.info("%s %s refused: %s", request.method, request.path, error)
                return refusal(error)
        return await handler(request)

    async def _go_on(self, request: web.Request, name: str) -> web.StreamResponse:
        """Pass on a request of plain HTTP that is for another host than AWS's."""
        assert self._onward is not None
        upstream = self._outgoing.is_known(request.headers.get("Proxy-Authorization", ""))
        if upstream is None or is_metadata(name):
            raise ServiceError("AccessDenied", f"smssh local has no {name}.", 403)
        proxy = upstream.proxy("http", name) or None
        headers = CIMultiDict(
            (header, value) for header, value in request.headers.items() if header.lower() not in _HOP
        )
        data = request.content.iter_chunked(_CHUNK) if request.body_exists else None
        target = URL(request.raw_path, encoded=True)
        try:
            async with self._onward.request(
                request.method, target, headers=headers, data=data, allow_redirects=False, proxy=proxy
            ) as answer:
                return await _relay(request, answer, whole=True)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if not _is_gone(request):
                log.info("%s %s: %s", request.method, name, error)
            raise ServiceError("BadGateway", f"{name} cannot be reached: {error}", 502) from None

    async def _dispatch(self, request: web.Request) -> web.StreamResponse:
        service, _, operation = request.headers.get("X-Amz-Target", "").rpartition(".")
        body: bytes | None = None
        try:
            if service == "SageMaker":
                await self._sessions.faults.apply(f"sagemaker:{operation}")
                members = _members(await _body(request))
                if self._iam is not None:
                    self._iam.sagemaker(request[_KEY], operation, members)
                return _answer(await self._sagemaker.handle(operation, members))
            if service == "AmazonSSM" and operation in self._sessions.operations:
                body = await _body(request)
                members = _members(body)
                if self._sessions.serves(operation, members):
                    return _answer(await self._of_sessions(request, operation, members, body))
            if service.startswith(_MESSAGE_DELIVERY):
                raise ServiceError(
                    "UnknownOperationException", "smssh local delivers no documents of Run Command."
                )
            body = await self._fail_on_demand(request, operation, body)
            if self._iam is not None:
                body, known = await self._decide(self._iam, request, body)
                if known is not None:
                    return known
        except HangUpError:
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=500)
        except ServiceError as error:
            log.info("%s.%s: %s", service, operation, error.code)
            return _failure(request, error)
        except Exception:
            log.exception("%s.%s: smssh local failed", service, operation)
            internal = ServiceError("InternalFailure", "smssh local failed; see its log.", 500)
            return _answer(internal.to_json(), 500, internal.code)
        return await self._pass_on(request, body)

    async def _of_sessions(
        self, request: web.Request, operation: str, members: dict[str, Any], body: bytes
    ) -> dict[str, Any]:
        """The answer of Session Manager.

        Raises:
            ServiceError: it is an error.
        """
        if self._iam is not None:
            self._iam.ssm(request[_KEY], operation, members)
        signed = SignedRequest(request_of(request), body)
        answer = await self._sessions.handle(operation, members, access_key_of(request), signed)
        if self._iam is not None and operation == "StartSession":
            self._iam.started(request[_KEY], answer["SessionId"])
        return answer

    async def _decide(
        self, iam: Enforcement, request: web.Request, body: bytes | None
    ) -> tuple[bytes | None, web.Response | None]:
        """Decide a request that is moto's; answers its body if it was read, and the answer if moto has none.

        Raises:
            ServiceError: it is denied.
        """
        key = request[_KEY]
        asked = request_of(request)
        service = _service_of(request)
        if service == "s3":
            if request.method == "POST" and "delete" in request.query:
                body = await _body(request)
            copied = request.headers.get("x-amz-copy-source")
            iam.s3(key, request.method, request.headers.get("Host", ""), asked.target, copied, body or b"")
            return body, None
        if body is None:
            body = await _body(request)
        target = request.headers.get("X-Amz-Target", "")
        form = request.content_type == _FORM
        iam.other(key, service, target, body, form=form)
        if service == "sts" and form and b"Action=GetCallerIdentity" in body:
            return body, _identity(iam, key)
        return body, None

    async def _fail_on_demand(self, request: web.Request, operation: str, body: bytes | None) -> bytes | None:
        """Let happen to one of moto's operations what is to happen to it; answers its body if it was read.

        Raises:
            ServiceError: it fails.
        """
        if not any(self._sessions.faults):
            return body
        service = _service_of(request)
        if not operation and request.content_type == _FORM:
            body = await _body(request)
            operation = parse_qs(body.decode("utf-8", "replace")).get("Action", [""])[0]
        await self._sessions.faults.apply(f"{service}:{operation or request.method}")
        return body

    async def _pass_on(self, request: web.Request, body: bytes | None = None) -> web.StreamResponse:
        """Send the request to moto and its answer back, without touching either.

        Args:
            request: the request.
            body: its body, where that has been read already.
        """
        assert self._client is not None
        path = request_of(request).target
        if path.startswith(_MOTOS_OWN):
            return _failure(request, ServiceError("NoSuchBucket", "The specified bucket does not exist", 404))
        headers = CIMultiDict(
            (name, value) for name, value in request.headers.items() if name.lower() not in _HOP
        )
        data: bytes | AsyncIterator[bytes] | None = body
        if body is None and request.body_exists:
            data = checked(request, _CHUNK)
        # encoded=True: a key's percent signs, double slashes and dots are the client's.
        target = URL("http://localhost" + path, encoded=True)
        try:
            async with self._client.request(
                request.method, target, headers=headers, data=data, allow_redirects=False
            ) as answer:
                if answer.status == HTTPStatus.INTERNAL_SERVER_ERROR and answer.content_type == "text/html":
                    return _not_implemented(request)
                if answer.status == HTTPStatus.NOT_FOUND and not self._may_be_told(request):
                    return _failure(request, ServiceError("AccessDenied", "Access Denied", 403))
                return await _relay(request, answer)
        except aiohttp.ClientConnectionError as error:
            refused = _cause(error)
            if refused is not None:
                return _failure(request, refused)
            if not _is_gone(request):
                log.warning("%s %s: moto does not answer: %s", request.method, request.path, error)
            failure = ServiceError("ServiceUnavailable", "smssh local: moto does not answer.", 503)
            return _answer(failure.to_json(), 503, failure.code)

    def _may_be_told(self, request: web.Request) -> bool:
        """Whether S3 says of an object that it is missing; it says "Access Denied" to who may not list the bucket."""
        if self._iam is None or _service_of(request) != "s3":
            return True
        host, target = request.headers.get("Host", ""), request_of(request).target
        return self._iam.may_know_that_it_is_missing(request[_KEY], request.method, host, target)


def _is_gone(request: web.Request) -> bool:
    """Whether the client has hung up: aiohttp raises the same error for that and for who was asked on its behalf."""
    return request.transport is None or request.transport.is_closing()


def _cause(error: BaseException | None) -> ServiceError | None:
    """The error of the guard that a failed request to moto came from, if it did: a body that is not what was signed."""
    while error is not None:
        if isinstance(error, ServiceError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _identity(iam: Enforcement, key: Key | None) -> web.Response | None:
    """The answer of GetCallerIdentity; None where moto has it."""
    identity = iam.identity(key)
    if identity is None:
        return None
    members = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in identity.items())
    text = (
        f'<GetCallerIdentityResponse xmlns="{_STS}"><GetCallerIdentityResult>{members}</GetCallerIdentityResult>'
        f"<ResponseMetadata><RequestId>{uuid.uuid4()}</RequestId></ResponseMetadata></GetCallerIdentityResponse>"
    )
    return web.Response(text=text, content_type="text/xml")


def _not_implemented(request: web.Request) -> web.Response:
    """The answer where moto broke, which is what it does with operations that it does not have.

    Its own is a page of HTML with status 500: SDKs repeat the request, and then complain about the page.
    """
    text = "smssh local: moto does not implement this operation, or failed; see the log of smssh local."
    return _failure(request, ServiceError("NotImplemented", text, HTTPStatus.NOT_IMPLEMENTED))


def _failure(request: web.Request, failure: ServiceError) -> web.Response:
    """An error in the protocol of the request's service."""
    if "X-Amz-Target" in request.headers:
        return _answer(failure.to_json(), failure.status, failure.code)
    kind = "Sender" if failure.status < HTTPStatus.INTERNAL_SERVER_ERROR else "Receiver"
    text = escape(failure.message)
    error = f"<Error><Type>{kind}</Type><Code>{escape(failure.code)}</Code><Message>{text}</Message></Error>"
    if _service_of(request) != "s3":
        error = f"<ErrorResponse>{error}</ErrorResponse>"
    return web.Response(body=error.encode(), status=failure.status, content_type="text/xml")


def _service_of(request: web.Request) -> str:
    """The service in a request's signature; S3 if there is no signature, since others want one."""
    found = _SCOPE.search(request.headers.get("Authorization", "")) or _SCOPE.search(
        request.query.get("X-Amz-Credential", "")
    )
    return found.group(1) if found else "s3"


def _session(connector: aiohttp.BaseConnector) -> aiohttp.ClientSession:
    """A client that adds nothing to what it passes on."""
    return aiohttp.ClientSession(
        auto_decompress=False,
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
        skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        cookie_jar=aiohttp.DummyCookieJar(),
        max_line_size=_LINE,
        max_field_size=_LINE,
        trust_env=False,
    )


async def _relay(
    request: web.Request, answer: aiohttp.ClientResponse, *, whole: bool = False
) -> web.StreamResponse:
    """Answer with another's answer; `whole` with everything in it."""
    response = web.StreamResponse(status=answer.status, reason=answer.reason)
    for name, value in answer.headers.items():
        # moto lets every web page read its answers.
        if name.lower() not in _HOP and (whole or not name.lower().startswith("access-control-")):
            response.headers.add(name, value)
    await response.prepare(request)
    if request.method != "HEAD":
        async for chunk in answer.content.iter_chunked(_CHUNK):
            await response.write(chunk)
    await response.write_eof()
    return response


async def _body(request: web.Request) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in checked(request, _CHUNK):
        size += len(part)
        if size > BODY_MAX:
            raise ServiceError("RequestEntityTooLarge", f"The request is larger than {BODY_MAX} bytes.", 413)
        parts.append(part)
    return b"".join(parts)


def _members(body: bytes) -> dict[str, Any]:
    try:
        members = json.loads(body or b"{}")
    except ValueError:
        raise ServiceError("SerializationException", "The request is not JSON.") from None
    if not isinstance(members, dict):
        raise ServiceError("SerializationException", "Start of structure or map found where not expected.")
    return members


def _answer(members: dict[str, Any], status: int = 200, error: str | None = None) -> web.Response:
    headers = {"x-amzn-RequestId": str(uuid.uuid4())}
    if error is not None:
        headers["x-amzn-ErrorType"] = error
    return web.Response(body=json.dumps(members).encode(), status=status, headers=headers, content_type=_JSON)
