"""Who the agent is, and with whose rights it calls: a registered node, or a custom identity."""

from __future__ import annotations

import base64
import configparser
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from botocore.auth import SigV4Auth
from botocore.credentials import Credentials, ReadOnlyCredentials

from ...errors import SmsshError
from .service_client import CallFailed, json_call
from .setup import Registration

if TYPE_CHECKING:
    from botocore.awsrequest import AWSRequest
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    from .setup import Configuration

__all__ = ["CustomNode", "Node", "RegisteredNode", "key_pair", "node_of"]

_LOG = logging.getLogger("amazon-ssm-agent")
_REFRESH_LEAST = 1.0
_SHARED = "AWS_SHARED_CREDENTIALS_FILE"


class Node(Protocol):
    """An identity."""

    id: str
    region: str

    @property
    def refresh_at(self) -> float:
        """When `refresh` is due, on the monotonic clock."""

    def refresh(self) -> None:
        """Get new credentials.

        Raises:
            CallFailed: refused, or no answer.
        """

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """Credentials that are good now.

        Raises:
            CallFailed: there are no credentials.
        """


class _RsaAuth(SigV4Auth):
    """SigV4 that ends in an RSA-PSS signature by the node's key: how a node proves what it is."""

    def __init__(self, key: RSAPrivateKey, node: str, region: str) -> None:
        super().__init__(Credentials(node, "not used"), "ssm", region)
        self._key = key

    def signature(self, string_to_sign: str, _request: AWSRequest) -> str:
        """The signature in base64, instead of an HMAC in hex."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import padding

        scheme = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.MAX_LENGTH)
        return base64.b64encode(self._key.sign(string_to_sign.encode(), scheme, hashes.SHA256())).decode()


class RegisteredNode:
    """A managed node of a hybrid activation: its key buys credentials of the activation's role.

    Args:
        configuration: endpoint, sharing, age of the key.
        state: the folder of the registration.
        rotates: whether this process replaces the key; only one does.

    Raises:
        SmsshError: nobody registered here.
    """

    def __init__(self, configuration: Configuration, state: Path, *, rotates: bool = True) -> None:
        self._configuration = configuration
        self._state = state
        self.rotates = rotates
        registration = self._registration()
        self.id = registration.node
        self.region = registration.region
        self.refresh_at = 0.0
        self._credentials: ReadOnlyCredentials | None = None

    def _registration(self) -> Registration:
        # Read each time: another process may have replaced the key.
        found = Registration.load(self._state)
        if found is None:
            raise SmsshError("this machine is not registered", hint="run -register -id ID -code CODE first")
        return found

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """The role's credentials, new ones when half of their time is over."""
        if self._credentials is None or time.monotonic() >= self.refresh_at:
            self.refresh()
        assert self._credentials is not None
        return self._credentials

    def refresh(self) -> None:
        """Ask for the role's credentials, share them, and replace the key if it is time."""
        registration = self._registration()
        body = {"Fingerprint": registration.fingerprint}
        answer = self._call("RequestManagedInstanceRoleToken", body, registration.private_key)
        try:
            self._credentials = ReadOnlyCredentials(
                str(answer["AccessKeyId"]), str(answer["SecretAccessKey"]), str(answer["SessionToken"])
            )
            life = float(answer["TokenExpirationDate"]) - time.time()
            wanted = bool(answer["UpdateKeyPair"])
        except (KeyError, TypeError, ValueError) as error:
            raise CallFailed("", f"the role token is incomplete: {error!r}") from error
        self.refresh_at = time.monotonic() + max(_REFRESH_LEAST, life / 2)
        if not self.rotates:
            return
        if self._configuration.share_credentials:
            _share(self._credentials, self._configuration.share_profile)
        days = self._configuration.rotate_days
        if wanted or 0 < days <= registration.key_age_days:
            self._rotate(registration)

    def _rotate(self, registration: Registration) -> None:
        """Have the service take a new key, then keep it; the old one goes on where it does not."""
        private, public = key_pair()
        body = {"NewPublicKey": public, "NewPublicKeyType": "Rsa"}
        try:
            self._call("UpdateManagedInstancePublicKey", body, registration.private_key)
        except CallFailed as error:
            _LOG.error("Failed to rotate private key with error: %s", error)
            return
        Registration(
            registration.node, registration.region, registration.fingerprint, private, time.time()
        ).save(self._state)
        _LOG.info("rotated the private key")

    def _call(self, operation: str, body: dict[str, Any], private_key: str) -> dict[str, Any]:
        auth = _RsaAuth(_private_key(private_key), self.id, self.region)
        return json_call(self._configuration.ssm, f"AmazonSSM.{operation}", body, auth)


class CustomNode:
    """An identity that is nowhere registered, with the credentials of its surroundings.

    Args:
        configuration: with `custom`.
    """

    refresh_at = float("inf")

    def __init__(self, configuration: Configuration) -> None:
        assert configuration.custom is not None
        self.id = configuration.custom.id
        self.region = configuration.custom.region
        self._source: Credentials | None = None

    def refresh(self) -> None:
        """Nothing to do: botocore looks after what it has found."""

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """What the default chain finds, as the real agent's CredentialsProvider DEFAULT."""
        if self._source is None:
            import botocore.session

            self._source = botocore.session.Session().get_credentials()
        if self._source is None:
            raise CallFailed("", "the environment has no AWS credentials")
        return self._source.get_frozen_credentials()


def node_of(configuration: Configuration, state: Path) -> Node:
    """The agent's identity.

    Raises:
        SmsshError: there is no identity.
    """
    return CustomNode(configuration) if configuration.custom else RegisteredNode(configuration, state)


def key_pair() -> tuple[str, str]:
    """A new RSA key: the private part in PEM, the public part in base64, as the service takes it."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    return private.decode(), base64.b64encode(public).decode()


def _private_key(pem: str) -> RSAPrivateKey:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem.encode(), None)
    except ValueError as error:
        raise SmsshError(f"the registration's key cannot be read: {error}") from error
    assert isinstance(key, RSAPrivateKey)
    return key


def _share(credentials: ReadOnlyCredentials, profile: str) -> None:
    """Write the role's credentials where the real agent does: over the user's, unless told otherwise."""
    named = os.environ.get(_SHARED)
    path = Path(named) if named else Path.home() / ".aws" / "credentials"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    parser = configparser.RawConfigParser()
    parser.read(path)
    parser[profile] = {
        "aws_access_key_id": credentials.access_key or "",
        "aws_secret_access_key": credentials.secret_key or "",
        "aws_session_token": credentials.token or "",
    }
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        parser.write(file)
