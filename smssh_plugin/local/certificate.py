"""A certificate authority and a server's certificate for the loopback: agents speak TLS and nothing else."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Certificate"]

_DAYS = 30
_ADDRESSES = ("127.0.0.1", "::1")


@dataclass(frozen=True)
class Certificate:
    """Files in PEM."""

    authority: Path
    """Of the authority: what clients have to trust."""
    server: Path
    """The server's certificate and its key; its owner's alone."""

    @classmethod
    def make(cls, folder: Path, names: tuple[str, ...] = ("localhost",)) -> Certificate:
        """Make both, anew: a certificate that another start of the stand-in left may be over.

        Args:
            folder: where; it exists.
            names: the server's names, besides the loopback's addresses.
        """
        now = dt.datetime.now(dt.timezone.utc)
        authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        issuer = _name("smssh local")

        def builder(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
            made = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
            return (
                made.serial_number(x509.random_serial_number())
                .not_valid_before(now - dt.timedelta(days=1))
                .not_valid_after(now + dt.timedelta(days=_DAYS))
            )

        authority = (
            builder(issuer, authority_key.public_key())
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
        server = (
            builder(_name("smssh local server"), key.public_key())
            .add_extension(x509.SubjectAlternativeName(entries), critical=False)
            .add_extension(
                # Python asks for it from 3.13 on.
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
                critical=False,
            )
            .sign(authority_key, hashes.SHA256())
        )
        made = cls(folder / "authority.pem", folder / "server.pem")
        made.authority.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        with open(os.open(made.server, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(server.public_bytes(serialization.Encoding.PEM) + private)
        return made

    def context(self) -> ssl.SSLContext:
        """For a server."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(self.server)
        return made


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def _signs_certificates() -> x509.KeyUsage:
    names = "digital_signature content_commitment key_encipherment data_encipherment key_agreement"
    others = dict.fromkeys((*names.split(), "crl_sign", "encipher_only", "decipher_only"), False)
    return x509.KeyUsage(key_cert_sign=True, **others)
