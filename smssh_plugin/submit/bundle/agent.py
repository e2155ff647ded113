"""What the submitting side says of Amazon's agent: the version and digests of a package, or the package itself.

The version is fixed here, so that the same options give the same bundle on every machine and every day. Its digests
are taken from the package when it is needed for the first time, over TLS from AWS's own bucket, and kept in
`~/.smssh/agent`: from then on every job gets exactly that package, or none.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Mapping
from urllib.parse import urlsplit

from ... import settings
from ...agent_package import PACKAGE, bucket_url, download, package_url
from ...errors import ExitStatus, SmsshError
from ...files import write_atomically
from ...terminal import put
from ..options import AGENT_LATEST, SSHOptions

__all__ = ["VERSION", "Agent", "agent_for"]

VERSION = "3.3.4624.0"
"""Released in June 2026 (it is what Alpine Linux 3.24 packages)."""
AWS_DOMAINS = (".amazonaws.com", ".amazonaws.com.cn")
VERSION_SECONDS = 30.0
_ANSWERS_FOR_ITSELF = re.compile(r"https://|http://(127\.0\.0\.1|localhost|\[::1\])[:/]")
HINT = (
    "check that s3.REGION.amazonaws.com can be reached from here, name a mirror in SMSSH_AGENT_URL, another version "
    "in SSHOptions(agent_version=...), or use images that have the agent: SSHOptions(agent='found')"
)


@dataclass(frozen=True)
class Agent:
    """What goes into the bundle.

    Attributes:
        options: keys of `options.json`.
        files: files of the bundle by name.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


_given_up: set[tuple[str, str]] = set()
"""Versions and places that were asked in vain: a pipeline of many steps says it once, and waits for it once."""


def agent_for(options: SSHOptions, endpoint: str, region: str | None) -> Agent:
    """The agent of the jobs that get these options.

    With `agent="auto"`, what cannot be downloaded is said and left out: the image may have an agent.

    Args:
        options: what was asked for.
        endpoint: of S3, for the region's own bucket of packages.
        region: the jobs' region.

    Raises:
        SmsshError: it was asked for, and cannot be downloaded.
    """
    if options.transport != "ssm" or options.agent_source == "found":
        return Agent()
    required = options.agent_source != "auto"
    base = _mirror(options)
    if not base:
        named = urlsplit(endpoint).hostname or ""
        if not required and not (region and named.endswith(AWS_DOMAINS)):
            return Agent()  # an S3 of somebody's own, which has no packages: the local emulator's, for one
        base = bucket_url(endpoint, region or "")
    version = options.agent_version or VERSION
    try:
        if (version, base) in _given_up and not required:
            return Agent()
        return _pinned(options, base, version)
    except SmsshError as error:
        if required:
            raise SmsshError(
                f"the agent for the jobs is not there: {error.message}",
                hint=HINT,
                reference="agent-not-downloaded",
                status=ExitStatus.UNREACHABLE,
            ) from None
        _given_up.add((version, base))
        put(
            f"smssh: only images that have {PACKAGE[:-4]} can be entered: {error.message}\n  hint: {HINT}",
            error=True,
        )
        return Agent()


def _mirror(options: SSHOptions) -> str:
    """The mirror that the options or the submitting process name; "" for none."""
    named = options.extra.get("agent_url") or os.environ.get("SMSSH_AGENT_URL", "")
    return settings.load({"SMSSH_AGENT_URL": str(named)}).agent_url


def _pinned(options: SSHOptions, base: str, version: str) -> Agent:
    # The client owns the place of its files; it imports nothing but the standard library.
    from ...home import home

    if version == AGENT_LATEST:
        version = _newest(base)
    digests: dict[str, str] = {}
    files: dict[str, bytes] = {}
    for machine in options.machines:
        package = home() / "agent" / version / machine / PACKAGE
        digests[machine] = _fetch(package_url(base, version, machine), package, f"{version} for {machine}")
        if options.agent_source == "bundle":
            files[f"agent/{machine}/{PACKAGE}"] = package.read_bytes()
    return Agent({"agent_version": version, "agent_sha256": digests}, files)


def _newest(base: str) -> str:
    """The newest version that is there now."""
    with tempfile.TemporaryDirectory(prefix="smssh-") as scratch:
        answer = Path(scratch, "VERSION")
        download(f"{base}/latest/VERSION", answer, seconds=VERSION_SECONDS)
        text = answer.read_text(encoding="ascii", errors="replace").strip()
    version = settings.load({"SMSSH_AGENT_VERSION": text}).agent_version
    if not version:
        raise SmsshError(f"{base}/latest/VERSION is empty", reference="not-downloaded")
    return version


def _noted(note: Path) -> str:
    """The digest that was noted when a package was downloaded; "" for none.

    Raises:
        SmsshError: somebody else has noted one there.
    """
    from ...home import own_text

    try:
        return own_text(note).strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return ""
    except OSError as error:
        raise SmsshError(
            f"{note}: {error.strerror}", reference="home-not-yours", status=ExitStatus.USAGE
        ) from None


def _fetch(url: str, package: Path, what: str) -> str:
    """The digest of a package; downloaded where it is not in the cache, or damaged there."""
    noted = package.with_name(package.name + ".sha256")
    pinned = _noted(noted)
    if pinned and package.is_file():
        digest = pinned
        if hashlib.sha256(package.read_bytes()).hexdigest() == digest:
            return digest
    if not pinned and not _ANSWERS_FOR_ITSELF.match(url):
        # Somebody on the way could give another package, which all jobs would get from then on.
        raise SmsshError(
            f"{url} is not https, and what comes from there would be pinned",
            reference="not-downloaded",
            status=ExitStatus.REFUSED,
        )
    put(f"smssh: downloading amazon-ssm-agent {what}, about 30 MB, once", error=True)
    try:
        package.parent.mkdir(parents=True, exist_ok=True)
        # Downloaded beside and moved in: another process may be filling the same cache.
        with tempfile.TemporaryDirectory(prefix=".download-", dir=package.parent) as scratch:
            new = Path(scratch, package.name)
            download(url, new)
            digest = hashlib.sha256(new.read_bytes()).hexdigest()
            if pinned and pinned != digest:
                raise SmsshError(
                    f"{url} is not what it was: SHA-256 {digest}; remove {package.parent} if that is right",
                    reference="wrong-agent-digest",
                    status=ExitStatus.REFUSED,
                )
            os.replace(str(new), str(package))
            write_atomically(noted, digest + "\n")
    except OSError as error:
        raise SmsshError(f"{package.parent}: {error.strerror or error}", reference="not-written") from None
    return digest
