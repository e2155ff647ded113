"""The machine that this runs on: OpenSSH, its configuration and keys, the network, the clock, Python."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import stat
import subprocess
import sys
from http.client import HTTPException
from importlib import metadata
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..aws import transport
from ..aws.json_client import SKEW_SECONDS, skew
from ..client import ssh_config
from ..client.identities import offered
from ..durations import format_duration
from ..errors import SmsshError
from ..home import home
from ..keys import FIPS_NAME, NAME, keygen
from .checks import Check, Finding, hint, ok, problem, unknown

if TYPE_CHECKING:
    from pathlib import Path

    from .case import Case

__all__ = ["CHECKS"]

CONNECT_SECONDS = 5.0
READ_SECONDS = 8.0
SMALL_SKEW_SECONDS = 60.0
OLDEST_PYTHON = (3, 10)
DISTRIBUTION = "smssh-plugin"
SAMPLE = "algo-1.smssh-doctor.training.sagemaker"
WRITE = "run `smssh ssh-config --write`"


class UnreachableError(Exception):
    """A service that does not answer.

    Args:
        host: its host, and port.
        why: what was in the way.
    """

    def __init__(self, host: str, why: str) -> None:
        super().__init__(f"{host}: {why}")
        self.host = host
        self.why = why


def python(case: Case) -> Finding:
    """Python and the packages of the commands."""
    del case
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < OLDEST_PYTHON:
        return problem(
            f"this is Python {version}: the commands need 3.10 or newer",
            fix="install smssh-plugin[cli] into a newer Python",
        )
    try:
        wanted = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return unknown(f"Python {version} runs smssh from a folder: what it needs is not written down there")
    names = [re.split(r"[^\w.-]", each, maxsplit=1)[0] for each in wanted if _of_cli(each)]
    missing = [name for name in names if not _installed(name)]
    if missing:
        return problem(
            f"Python {version} at {sys.executable} has no {', '.join(missing)}, which some commands need",
            fix='run `pip install "smssh-plugin[cli]"` with that Python',
        )
    return ok(f"Python {version} has all packages of the commands", sys.executable)


def _of_cli(requirement: str) -> bool:
    """Whether a requirement, as metadata has it, is one of every installation or of the extra `cli`."""
    extra = re.search(r"extra == ['\"]([\w-]+)", requirement)
    return extra is None or extra.group(1) == "cli"


def _installed(name: str) -> bool:
    try:
        return bool(metadata.version(name))
    except metadata.PackageNotFoundError:
        return False


def openssh(case: Case) -> Finding:
    """OpenSSH's client."""
    del case
    program = shutil.which("ssh")
    if program is None or shutil.which("ssh-keygen") is None:
        missing = "ssh" if program is None else "ssh-keygen"
        return problem(f"{missing} is not on PATH", fix="install the OpenSSH client")
    version = ssh_config.openssh_version()
    if version is None:
        return unknown(
            f"{program} does not say its version", fix="check that `ssh -V` shows OpenSSH 7.3 or newer"
        )
    text = ".".join(map(str, version))
    if version < ssh_config.INCLUDE:
        return problem(f"OpenSSH {text} has no Include", fix="update OpenSSH to 7.3 or newer")
    if version < ssh_config.TOKENS:
        return hint(
            f"OpenSSH {text} starts smssh twice for each login; 8.5 and newer do not",
            program,
            fix="update OpenSSH",
        )
    return ok(f"OpenSSH {text}", program)


def configuration(case: Case) -> Finding:
    """What `ssh ADDRESS` would do, by ssh's own words."""
    del case
    ours, theirs = home() / ssh_config.NAME, ssh_config.users_config()
    if not ours.exists():
        return hint(
            "`ssh ADDRESS`, scp, rsync and IDEs are not set up; `smssh connect` works without",
            fix=WRITE,
        )
    for path in (ours, theirs):
        if path.exists() and (loose := _writable_by_others(path)):
            return problem(f"ssh refuses {path}: {loose}", fix=f"run `chmod go-w {shlex.quote(str(path))}`")
    line = ssh_config.include_line()
    if line not in (ssh_config.users_text().splitlines() if theirs.exists() else ()):
        return problem(f"{theirs} does not include {ours}: it has no line {line!r}", fix=WRITE)
    asked = subprocess.run(
        [shutil.which("ssh") or "ssh", "-F", str(theirs), "-G", SAMPLE],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=10,
        check=False,
    )
    if asked.returncode:
        last = (asked.stderr.strip().splitlines() or ["no reason given"])[-1]
        return problem(f"ssh cannot use {theirs}: {last}", fix="correct that line")
    found = dict(each.split(" ", 1) for each in asked.stdout.splitlines() if " " in each)
    proxy = found.get("proxycommand", "none")
    words = proxy.split() if proxy.count('"') % 2 or proxy.count("'") % 2 else shlex.split(proxy)
    if "proxy" not in words or "--user" not in words:
        return problem(
            f"for an address, ssh would use ProxyCommand {proxy}, not smssh's: another line of {theirs} comes first",
            fix=f"move {line!r} to the top of {theirs}, before every Host and Match",
        )
    if shutil.which(words[0]) is None:
        return problem(f"{ours} names the program {words[0]}, which does not exist", fix=WRITE)
    if found.get("stricthostkeychecking") not in ("yes", "true"):
        return problem(
            f"for an address, ssh would not verify the host key: {theirs} has StrictHostKeyChecking before {line!r}",
            fix=f"move {line!r} to the top of {theirs}",
        )
    return ok("`ssh ADDRESS` goes through smssh", f"ProxyCommand {proxy}", str(ours))


def _writable_by_others(path: Path) -> str:
    """Why ssh would refuse a file of configuration; "" where it would not."""
    found = path.stat()
    if found.st_uid not in (0, os.getuid()):
        return "it belongs to another user"
    return "others may write it" if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) else ""


def keys(case: Case) -> Finding:
    """The key pairs, and that ssh and jobs agree on them."""
    del case
    own = [path for name in (NAME, FIPS_NAME) if (path := home() / name).exists()]
    for path in own:
        if _open_to_others(path):
            return problem(
                f"ssh ignores the private key {path}: others may use it",
                fix=f"run `chmod 600 {shlex.quote(str(path))}`",
            )
    for path in own:
        public = path.with_name(path.name + ".pub")
        if public.exists() and (wrong := _mismatch(path, public)) is not None:
            return wrong
    others = [path for path in offered(home() / NAME)[1:] if _open_to_others(path)]
    if others:
        return hint(
            f"ssh ignores {', '.join(map(str, others))}: others may use it",
            fix=f"run `chmod 600 {shlex.quote(str(others[0]))}`, if a job lets that key in",
        )
    if not own:
        return ok("no key pair yet: smssh makes one when it is first needed")
    return ok(f"the key pair {own[-1]} is usable", *map(str, offered(own[0])))


def _open_to_others(path: Path) -> bool:
    return bool(stat.S_IMODE(path.stat().st_mode) & 0o077)


def _mismatch(private: Path, public: Path) -> Finding | None:
    """What is wrong with the public half, which jobs are given; None where nothing is."""
    try:
        derived = keygen("-y", "-P", "", "-f", str(private)).split()[:2]
    except SmsshError as error:
        if "passphrase" in error.message:
            return hint(
                f"{private} has a passphrase: ssh asks for it, and commands that nobody watches cannot log in",
                fix="add the key to an ssh-agent, or let smssh make a key without one",
            )
        return problem(
            f"the private key {private} cannot be used: {error.message}",
            fix=f"move {private} and {public.name} away: smssh makes a new pair, for jobs submitted from then on",
        )
    if public.read_text(encoding="utf-8", errors="replace").split()[:2] == derived:
        return None
    return problem(
        f"{public} is not the public half of {private.name}: jobs let in one key, and ssh offers the other",
        fix=f"remove {public}: smssh writes it again; then submit the jobs again",
    )


def region(case: Case) -> Finding:
    """The region that is asked, and whether boto3 asks the same."""
    found, origin = case.aws.region, case.aws.region_origin
    case.aws.endpoint("ssm")
    # botocore reads AWS_DEFAULT_REGION and the profile, and never AWS_REGION.
    places = (
        (os.environ.get("AWS_DEFAULT_REGION"), "AWS_DEFAULT_REGION"),
        (case.aws.profile.get("region"), f"profile {case.aws.profile.name}"),
    )
    boto, place = next((each for each in places if each[0]), (None, ""))
    if origin == "AWS_REGION" and boto != found:
        theirs = f"submit to {boto} ({place})" if boto else "know no region: they do not read that variable"
        return hint(
            f"smssh looks in {found} (AWS_REGION), boto3 and the SageMaker SDK {theirs}",
            fix="set AWS_DEFAULT_REGION to the same value as AWS_REGION",
        )
    return ok(f"the region is {found}, from {origin}")


def region_checked(case: Case) -> Finding:
    """The region; this check says if no region is named."""
    try:
        return region(case)
    except SmsshError as error:
        return problem(error.message, fix=error.hint or "set AWS_REGION")


def proxy(case: Case) -> Finding:
    """The proxy that leads to AWS, as variables and the system name it."""
    parts = urlsplit(case.aws.endpoint("ssm"))
    assert parts.hostname is not None
    secure = parts.scheme == "https"
    name = "HTTPS_PROXY" if secure else "HTTP_PROXY"
    used = transport.proxy_of(parts.hostname, parts.port or (443 if secure else 80), secure=secure)
    if used is None:
        if secure and os.environ.get("HTTP_PROXY", os.environ.get("http_proxy")):
            return hint(
                "HTTP_PROXY is set, which AWS's endpoints, being https, do not go through",
                fix="set HTTPS_PROXY if they should",
            )
        return ok("AWS is reached without a proxy")
    try:
        _, host, port = transport.proxy_parts(used)
    except transport.SetupError as error:
        return problem(f"{name}: {error}", fix=f"correct {name}, or unset it")
    try:
        socket.create_connection((host, port), CONNECT_SECONDS).close()
    except OSError as error:
        return problem(
            f"the proxy {host}:{port} cannot be reached: {error}",
            fix=f"correct {name}, or add AWS's hosts to NO_PROXY",
        )
    upper, lower = os.environ.get(name), os.environ.get(name.lower())
    if upper and lower and upper != lower:
        return hint(
            f"AWS is reached through the proxy {host}:{port}; {name} and {name.lower()} differ, and programs do "
            "not agree on which one counts",
            fix="give both the same value, or unset one",
        )
    return ok(f"AWS is reached through the proxy {host}:{port}")


def certificates(case: Case) -> Finding:
    """The certificates that are trusted."""
    # In the order in which they count; what another one replaces does no harm.
    places = (
        ("AWS_CA_BUNDLE", os.environ.get("AWS_CA_BUNDLE")),
        (f"ca_bundle of profile {case.aws.profile.name}", case.aws.profile.get("ca_bundle")),
        ("REQUESTS_CA_BUNDLE", os.environ.get("REQUESTS_CA_BUNDLE")),
        ("SSL_CERT_FILE", os.environ.get("SSL_CERT_FILE")),
    )
    name, path = next(((name, path) for name, path in places if path), ("", None))
    if path is None:
        return ok("the certificates that the system trusts are used")
    try:
        transport.context(path)
    except OSError as error:
        return problem(f"{name}: {error}", fix=f"name a PEM file of certificates in {name}, or unset it")
    return ok(f"certificates are read from {path} ({name})")


def endpoints(case: Case) -> Finding:
    """Whether the services can be reached."""
    try:
        dates = _dates(case)
    except UnreachableError as error:
        return problem(
            f"{error.host} cannot be reached: {error.why}",
            fix="check the network, the region, and HTTPS_PROXY, NO_PROXY, AWS_CA_BUNDLE and AWS_ENDPOINT_URL if they "
            "are set; in a VPC without internet, its endpoints and their private DNS",
        )
    return ok(f"{', '.join(urlsplit(url).netloc for url in dates)} answer")


def _dates(case: Case) -> dict[str, str]:
    """The Date headers of the services' answers, by their addresses."""

    def ask() -> dict[str, str]:
        found: dict[str, str] = {}
        for url in _urls(case):
            try:
                connection = transport.connect(url, CONNECT_SECONDS, READ_SECONDS, case.aws.ca_bundle)
                try:
                    # No credentials, so that a wrong clock is told apart from them; any answer will do.
                    connection.request("GET", "/")
                    found[url] = connection.getresponse().getheader("Date") or ""
                finally:
                    connection.close()
            except (OSError, HTTPException) as error:  # noqa: PERF203 - few
                raise UnreachableError(urlsplit(url).netloc, str(error) or type(error).__name__) from error
        return found

    return case.once("dates", ask)


def _urls(case: Case) -> list[str]:
    """The addresses of the services that a login needs: calls, and the stream of a session."""
    urls = [case.aws.endpoint("ssm"), case.aws.endpoint("sagemaker")]
    first = urls[0]
    if urlsplit(first).netloc.startswith("ssm."):
        urls.append(
            case.aws.stream_url(first.replace("//ssm.", "//ssmmessages.", 1)).replace("wss://", "https://")
        )
    return list(dict.fromkeys(urls))


def clock(case: Case) -> Finding:
    """The clock of this machine against the service's."""
    date = next((each for each in _dates(case).values() if each), "")
    if not date:
        return unknown("the services' answers have no Date header", fix="check that the clock is right")
    ahead = skew(date)
    way = "ahead of" if ahead > 0 else "behind"
    text = f"the clock is {format_duration(round(abs(ahead)))} {way} AWS's"
    if abs(ahead) >= SKEW_SECONDS:
        return problem(f"{text}: signatures more than 5 minutes off are refused", fix="set the clock")
    if abs(ahead) >= SMALL_SKEW_SECONDS:
        return hint(text, fix="set the clock before it is 5 minutes off")
    return ok("the clock agrees with AWS's")


CHECKS = (
    Check("laptop.python", "Python's version, and the packages of the extra `cli`", python),
    Check("laptop.openssh", "OpenSSH's client and its version", openssh),
    Check(
        "laptop.ssh-config",
        "what `smssh ssh-config --write` wrote, as `ssh -G` reads it",
        configuration,
        ("laptop.openssh",),
    ),
    Check(
        "laptop.keys",
        "key pairs: their modes, and that both halves belong together",
        keys,
        ("laptop.openssh",),
    ),
    Check("laptop.region", "the region, and that boto3 takes the same", region_checked),
    Check("laptop.proxy", "HTTPS_PROXY, HTTP_PROXY and NO_PROXY, and the proxy", proxy, ("laptop.region",)),
    Check(
        "laptop.certificates",
        "AWS_CA_BUNDLE, REQUESTS_CA_BUNDLE, SSL_CERT_FILE, `ca_bundle`",
        certificates,
        ("laptop.region",),
    ),
    Check(
        "laptop.endpoints",
        "whether Systems Manager, SageMaker and Session Manager's channels answer",
        endpoints,
        ("laptop.region", "laptop.proxy", "laptop.certificates"),
    ),
    Check("laptop.clock", "the clock, against the Date header of the service", clock, ("laptop.endpoints",)),
)
