"""The variables that lead clients and jobs through the local emulator's own proxy; see outgoing.py.

This module imports the standard library only.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import urllib.request
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["AWS_DOMAINS", "METADATA", "USER", "Upstream", "proxy_variables"]

AWS_DOMAINS = (
    "amazonaws.com",
    "amazonaws.com.cn",
    "amazonaws.eu",
    "api.aws",
    "api.amazonwebservices.com.cn",
    "api.amazonwebservices.eu",
    "on.aws",
    "c2s.ic.gov",
    "sc2s.sgov.gov",
    "csp.hci.ic.gov",
    "cloud.adc-e.uk",
)
"""Where endpoints of AWS are: the DNS suffixes of its partitions (`partitions.json` of botocore), and of functions."""
METADATA = ("metadata", "metadata.google.internal", "instance-data", "instance-data.ec2.internal")
"""Names of metadata services; their addresses are link-local."""
USER = "smssh-local"
"""The proxy's user, by which its address is known again."""
_DIRECT = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Upstream:
    """The way on for what is not AWS: the proxies that the environment named before ours; "" for none."""

    https: str = ""
    http: str = ""
    no: str = ""

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Upstream:
        """What an environment says; where it leads through a proxy of ours already, what it said before that."""

        def named(name: str) -> str:
            return environ.get(name.lower()) or environ.get(name.upper()) or ""

        https = named("https_proxy") or named("all_proxy")
        if urlsplit(https).username == USER:
            return cls.decode(unquote(urlsplit(https).password or "").partition(".")[2])
        no = named("no_proxy")
        http = named("http_proxy") or named("all_proxy")
        return cls() if no.strip() == "*" else cls(https, http, no)

    def proxy(self, scheme: str, host: str) -> str:
        """The proxy for a host; "" for none.

        Args:
            scheme: http or https.
            host: without its port.
        """
        bypass: Any = urllib.request.proxy_bypass_environment  # type: ignore[attr-defined]
        named = self.https if scheme == "https" else self.http
        return "" if named and bypass(host, {"no": self.no}) else named

    def encode(self) -> str:
        """As a text without special characters."""
        return base64.urlsafe_b64encode(json.dumps(asdict(self)).encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> Upstream:
        """Read it again; no proxy if it is not a proxy's address."""
        try:
            found = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
            return cls(**{name: str(value) for name, value in found.items()})
        except (ValueError, binascii.Error, TypeError, AttributeError):
            return cls()


def proxy_variables(
    port: int, password: str, environ: Mapping[str, str] = os.environ, direct: Iterable[str] = ()
) -> dict[str, str]:
    """The variables, in both spellings.

    Args:
        port: the emulator's.
        password: what its proxy wants to know.
        environ: the environment that they are to be added to.
        direct: more hosts that are not to be reached through it.
    """
    upstream = Upstream.of(environ)
    words = quote(f"{password}.{upstream.encode()}", safe="")
    proxy = f"http://{USER}:{words}@127.0.0.1:{port}"
    kept = [entry.strip() for entry in upstream.no.split(",") if _may_stay(entry.strip())]
    no_proxy = ",".join(dict.fromkeys([*kept, *_DIRECT, *direct]))
    found = {"HTTPS_PROXY": proxy, "HTTP_PROXY": proxy, "NO_PROXY": no_proxy}
    return {**found, **{name.lower(): value for name, value in found.items()}}


def _may_stay(entry: str) -> bool:
    """Whether an entry of NO_PROXY lets nothing of AWS past us."""
    name = entry.lower().removeprefix("*").removeprefix(".").partition(":")[0]
    if not name or entry.startswith("169.254") or entry.lower().startswith("fd00:ec2"):
        return False
    return not any(
        f".{domain}".endswith(f".{name}") or f".{name}".endswith(f".{domain}") for domain in AWS_DOMAINS
    )
