"""A certificate authority of the local emulator's own, and certificates for what it serves over TLS.

Agents speak TLS and nothing else, and programs that name an endpoint of AWS by themselves do. The authority's key
is never written and ends with the process; it can sign for the loopback and for names of AWS alone.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ..files import write_atomically
from .proxying import AWS_DOMAINS

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Certificate"]

_DAYS = 30
_ADDRESSES = ("127.0.0.1", "::1")
_CONTEXTS_MAX = 256


@dataclass(frozen=True)
class Certificate:
    """Files in PEM, and the authority's key."""

    authority: Path
    """Of the authority: what clients have to trust."""
    server: Path
    """The server's certificate and its key; its owner's alone."""
    authority_key: ec.EllipticCurvePrivateKey = field(repr=False)
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    """Of every server."""
    contexts: dict[str, ssl.SSLContext] = field(default_factory=dict, repr=False)

    @classmethod
    def make(cls, folder: Path, names: tuple[str, ...] = ("localhost",)) -> Certificate:
        """Make both, anew: a certificate that another start of the local emulator left may be over.

        Args:
            folder: where; it exists.
            names: the server's names, besides the loopback's addresses.
        """
        authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        authority = (
            _builder(_ISSUER, authority_key.public_key())
            .add_extension(_constraints(names), critical=True)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_signs_certificates(), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False
            )
            .sign(authority_key, hashes.SHA256())
        )
        entries: list[x509.GeneralName] = [
            x509.IPAddress(ipaddress.ip_address(address)) for address in _ADDRESSES
        ]
        entries += [x509.DNSName(name) for name in names]
        made = cls(folder / "authority.pem", folder / "server.pem", authority_key, key)
        made.authority.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
        made._write(made.server, entries)
        return made

    def _write(self, path: Path, names: list[x509.GeneralName]) -> None:
        """Write a server's certificate and key to a file that is its owner's alone."""
        server = (
            _builder(_name("smssh local server"), self.key.public_key())
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(
                # Python asks for it from 3.13 on.
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.authority_key.public_key()),
                critical=False,
            )
            .sign(self.authority_key, hashes.SHA256())
        )
        private = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_atomically(path, server.public_bytes(serialization.Encoding.PEM) + private)

    def context_for(self, host: str) -> ssl.SSLContext:
        """For a server that is `host`, a name of AWS.

        Raises:
            ValueError: it is not the name of a host.
        """
        found = self.contexts.get(host)
        if found is None:
            while len(self.contexts) >= _CONTEXTS_MAX:
                del self.contexts[next(iter(self.contexts))]
            # A context reads files only.
            path = self.server.with_name("host.pem")
            self._write(path, [x509.DNSName(host)])
            found = self.contexts[host] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            found.load_cert_chain(path)
            path.unlink()
        return found

    def context(self) -> ssl.SSLContext:
        """For a server."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(self.server)
        return made


def _builder(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.timezone.utc)
    made = x509.CertificateBuilder().subject_name(subject).issuer_name(_ISSUER).public_key(public)
    return (
        made.serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=_DAYS))
    )


def _constraints(names: tuple[str, ...]) -> x509.NameConstraints:
    permitted: list[x509.GeneralName] = [x509.DNSName(name) for name in (*names, *AWS_DOMAINS)]
    permitted += [x509.IPAddress(ipaddress.ip_network(address)) for address in _ADDRESSES]
    return x509.NameConstraints(permitted, None)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


_ISSUER = _name("smssh local")


def _signs_certificates() -> x509.KeyUsage:
    names = "digital_signature content_commitment key_encipherment data_encipherment key_agreement"
    others = dict.fromkeys((*names.split(), "crl_sign", "encipher_only", "decipher_only"), False)
    return x509.KeyUsage(key_cert_sign=True, **others)
