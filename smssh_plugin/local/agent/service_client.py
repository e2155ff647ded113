"""The fake agent's calls: the SSM API, KMS and the channels, signed as by the real agent."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import uuid
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from websockets.protocol import OPEN

from ...errors import SmsshError
from ...session.wire.websocket import WebSocket, WebSocketRefusedError

if TYPE_CHECKING:
    from botocore.credentials import ReadOnlyCredentials

    from .setup import Configuration

__all__ = ["SESSION_ENDED", "Api", "CallFailed", "Socket", "Source", "json_call"]

SESSION_ENDED = "Session is already terminated"
"""The service's words for which no data channel is asked for again (`SessionAlreadyTerminatedError`)."""

_SECONDS = 10.0
_BODY_MAX = 1 << 20
_REASON_MAX = 123


class CallFailed(Exception):  # noqa: N818 - a refusal, or no answer
    """A call was answered with an error (`code`), or not at all (`code` is "")."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}" if code else message)
        self.code = code


class Source(Protocol):
    """Where credentials come from."""

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """Credentials that are good now.

        Raises:
            CallFailed: there are no credentials.
        """


class Socket(WebSocket):
    """A channel's websocket."""

    def refuse(self, code: int, reason: str) -> None:
        """Close it, and say why.

        Args:
            code: the close code.
            reason: for the other end's log; cut to what a close frame holds.
        """
        if self._protocol.state is OPEN:
            self._protocol.send_close(code, reason.encode("ascii", "replace").decode()[:_REASON_MAX])
            self._collect()
        self.close()


class Api:
    """The calls of one agent.

    Args:
        configuration: the endpoints.
        region: the region in signatures.
        source: the credentials of everything.
    """

    def __init__(self, configuration: Configuration, region: str, source: Source) -> None:
        self._region = region
        self._ssm = configuration.ssm
        self._mgs = configuration.mgs
        self._kms = configuration.kms
        self._authority = configuration.authority
        self._source = source

    def call(self, operation: str, body: dict[str, Any]) -> dict[str, Any]:
        """Call the SSM API.

        Raises:
            CallFailed: no answer, or an error.
        """
        return json_call(self._ssm, f"AmazonSSM.{operation}", body, self._auth("ssm"))

    def decrypt(self, blob: bytes, context: dict[str, str], key_id: str) -> bytes:
        """Call kms:Decrypt.

        Raises:
            SmsshError: no, or it cannot be obtained.
        """
        if not self._kms:
            raise SmsshError("Fetching data key failed: amazon-ssm-agent.json names no Kms.Endpoint")
        body = {
            "CiphertextBlob": base64.b64encode(blob).decode(),
            "EncryptionContext": context,
            "KeyId": key_id,
        }
        try:
            answer = json_call(self._kms, "TrentService.Decrypt", body, self._auth("kms"))
            return base64.b64decode(answer["Plaintext"])
        except (CallFailed, KeyError, ValueError) as error:
            raise SmsshError(f"Fetching data key failed: Unable to retrieve data key, {error}") from error

    def open_channel(self, path: str, body: dict[str, str], query: str, hello: dict[str, str]) -> Socket:
        """Create a control or data channel and connect to it.

        Args:
            path: `control-channel/<node>` or `data-channel/<session>`.
            body: what the request carries besides the schema version and a request id.
            query: the websocket address' query.
            hello: what the first message carries besides those and the token.

        Raises:
            CallFailed: anything but 201 and an upgrade.
        """
        url = f"{self._mgs}/v1/{path}"
        request = {"MessageSchemaVersion": "1.0", "RequestId": str(uuid.uuid4()), **body}
        headers = {"Content-Type": "application/json"}
        status, answer = _post(url, json.dumps(request), headers, self._auth("ssmmessages"), self._authority)
        text = answer.decode("utf-8", "replace")
        if status != 201:
            raise CallFailed(str(status), text[:300])
        try:
            token = ET.fromstring(text).findtext("TokenValue")  # noqa: S314 - of the endpoint that we trust with a shell
        except ET.ParseError as error:
            raise CallFailed("", f"the answer is not XML: {error}") from None
        if not token:
            raise CallFailed("", "the answer carries no TokenValue")
        signed = AWSRequest("GET", f"{url}?{query}")
        self._auth("ssmmessages").add_auth(signed)
        try:
            opened = Socket(
                f"ws{url.removeprefix('http')}?{query}",
                dict(signed.headers.items()),
                ca_bundle=self._authority,
            )
        except WebSocketRefusedError as error:
            raise CallFailed(str(error.status or ""), str(error)) from error
        first = {"MessageSchemaVersion": "1.0", "RequestId": str(uuid.uuid4()), "TokenValue": token, **hello}
        opened.send_text(json.dumps(first))
        return opened

    def _auth(self, service: str) -> SigV4Auth:
        # The class asks for no more than this of its credentials.
        return SigV4Auth(self._source.get_frozen_credentials(), service, self._region)


def json_call(url: str, target: str, body: dict[str, Any], auth: SigV4Auth | None) -> dict[str, Any]:
    """One call of an API that speaks JSON.

    Args:
        url: the endpoint.
        target: X-Amz-Target.
        body: the request.
        auth: signs it; None for a call without a signature.

    Raises:
        CallFailed: no answer, or an error.
    """
    headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": target}
    status, answer = _post(f"{url}/", json.dumps(body), headers, auth)
    try:
        parsed = json.loads(answer or b"{}")
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise CallFailed("", f"{target}: HTTP {status}, and no JSON")
    if status != 200:
        code = str(parsed.get("__type", status)).rpartition("#")[2]
        raise CallFailed(code, str(parsed.get("message") or parsed.get("Message") or ""))
    return parsed


def _post(
    url: str, body: str, headers: dict[str, str], auth: SigV4Auth | None, authority: str | None = None
) -> tuple[int, bytes]:
    request = AWSRequest("POST", url, headers=headers, data=body)
    if auth is not None:
        auth.add_auth(request)
    parts = urlsplit(url)
    if parts.hostname is None:
        raise SmsshError(f"not an endpoint: {url!r}")
    connection = (
        http.client.HTTPSConnection(
            parts.hostname,
            parts.port,
            timeout=_SECONDS,
            context=ssl.create_default_context(cafile=authority),
        )
        if parts.scheme == "https"
        else http.client.HTTPConnection(parts.hostname, parts.port, timeout=_SECONDS)
    )
    try:
        connection.request("POST", parts.path or "/", body.encode(), dict(request.headers.items()))
        response = connection.getresponse()
        return response.status, response.read(_BODY_MAX)
    except (OSError, http.client.HTTPException) as error:
        raise CallFailed("", f"cannot reach {parts.netloc}: {error}") from error
    finally:
        connection.close()
