"""The agent double's HTTP calls: the SSM API and the creation of channels, signed as by the real agent."""

from __future__ import annotations

import base64
import http.client
import json
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials, ReadOnlyCredentials

from ...errors import SmsshError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

__all__ = ["Api", "CallFailed"]

_SECONDS = 10.0


class CallFailed(Exception):  # noqa: N818 - a refusal, or no answer
    """A call was answered with an error (`code`), or not at all (`code` is "")."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}" if code else message)
        self.code = code


class _RsaAuth(SigV4Auth):
    """SigV4 that ends in an RSA-PSS signature by the node's key: how the role's token is asked for."""

    def __init__(self, key: RSAPrivateKey, node: str, region: str) -> None:
        super().__init__(Credentials(node, "not used"), "ssm", region)
        self._key = key

    def signature(self, string_to_sign: str, _request: AWSRequest) -> str:
        """The signature in base64, instead of an HMAC in hex."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import padding

        scheme = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.MAX_LENGTH)
        return base64.b64encode(self._key.sign(string_to_sign.encode(), scheme, hashes.SHA256())).decode()


class Api:
    """The calls of one agent.

    Args:
        ssm: the endpoint of the SSM API.
        mgs: the endpoint of the channels.
        region: the region in signatures.
    """

    def __init__(self, ssm: str, mgs: str, region: str) -> None:
        self.credentials: ReadOnlyCredentials | None = None
        """The role's, once there are some."""
        self.region = region
        self._ssm = ssm
        self._mgs = mgs

    def call(self, operation: str, body: dict[str, Any], *, auth: SigV4Auth | None = None) -> dict[str, Any]:
        """Call the SSM API; signed by `auth`, else by the role's credentials if there are some.

        Raises:
            CallFailed: no answer, or an error.
        """
        if auth is None and self.credentials is not None:
            auth = SigV4Auth(self.credentials, "ssm", self.region)
        headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": f"AmazonSSM.{operation}"}
        status, answer = _post(f"{self._ssm}/", json.dumps(body), headers, auth)
        try:
            parsed: dict[str, Any] = json.loads(answer or b"{}")
        except ValueError:
            raise CallFailed("", f"{operation}: HTTP {status}, and no JSON") from None
        if status != 200:
            code = str(parsed.get("__type", status)).rpartition("#")[2]
            raise CallFailed(code, str(parsed.get("message") or parsed.get("Message") or ""))
        return parsed

    def role_token(self, key: RSAPrivateKey, node: str, fingerprint: str) -> dict[str, Any]:
        """Ask for the role's credentials, and use them from now on.

        Raises:
            CallFailed: refused.
        """
        auth = _RsaAuth(key, node, self.region)
        answer = self.call("RequestManagedInstanceRoleToken", {"Fingerprint": fingerprint}, auth=auth)
        self.credentials = ReadOnlyCredentials(
            answer["AccessKeyId"], answer["SecretAccessKey"], answer["SessionToken"]
        )
        return answer

    def create_channel(self, path: str, body: dict[str, str]) -> tuple[str, str]:
        """Create a control or data channel.

        Args:
            path: `control-channel/<node>` or `data-channel/<session>`.
            body: what the request carries besides the schema version and a request id.

        Returns:
            The token of the channel's first message, and the websocket address without a query.

        Raises:
            CallFailed: anything but 201.
        """
        url = f"{self._mgs}/v1/{path}"
        request = {"MessageSchemaVersion": "1.0", "RequestId": str(uuid.uuid4()), **body}
        assert self.credentials is not None
        auth = SigV4Auth(self.credentials, "ssmmessages", self.region)
        status, answer = _post(url, json.dumps(request), {"Content-Type": "application/json"}, auth)
        text = answer.decode("utf-8", "replace")
        if status != 201:
            raise CallFailed(str(status), text[:200])
        try:
            token = ET.fromstring(text).findtext("TokenValue")  # noqa: S314 - of the endpoint that we trust with a shell
        except ET.ParseError as error:
            raise CallFailed("", f"the answer is no XML: {error}") from None
        if not token:
            raise CallFailed("", "the answer carries no TokenValue")
        return token, "ws" + url.removeprefix("http")


def _post(url: str, body: str, headers: dict[str, str], auth: SigV4Auth | None) -> tuple[int, bytes]:
    request = AWSRequest("POST", url, headers=headers, data=body)
    if auth is not None:
        auth.add_auth(request)
    parts = urlsplit(url)
    if parts.hostname is None:
        raise SmsshError(f"not an endpoint: {url!r}")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=_SECONDS)
    try:
        connection.request("POST", parts.path or "/", body.encode(), dict(request.headers.items()))
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        raise CallFailed("", f"cannot reach {parts.netloc}: {error}") from error
    finally:
        connection.close()
