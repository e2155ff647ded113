"""Amazon's agent in a job container: found or fetched, put into a folder of ours, configured, run, watched.

What is borrowed, and from where (the agent's public source, github.com/aws/amazon-ssm-agent, at 3.3.987.0):

* It reads its configuration from `configuration/` beside itself, instead of /etc/amazon/ssm, if its workers
  lie there too, owned by root and writable for nobody else (agent/appconfig/constants_unix.go). Its state is
  always /var/lib/amazon/ssm.
* The package's programs are in usr/bin (Tools/src/create_deb.sh).
* "Set up control channel successfully" in its log is the moment from which sessions are possible
  (agent/messageservice/interactor/mgsinteractor/mgsinteractor.go).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import platform
import re
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Mapping
from urllib.parse import urlsplit

from ..agent_package import PACKAGE, botocore_certificates, bucket_url, download, package_url
from ..errors import ExitStatus, SmsshError
from ..processes import process_ids
from .child import Child
from .deb import unpack

if TYPE_CHECKING:
    from ..hookspecs import Context

__all__ = [
    "AGENT",
    "Installed",
    "Running",
    "agent_configuration",
    "agent_environment",
    "endpoints",
    "install",
]

AGENT = "amazon-ssm-agent"
WORKERS = ("ssm-agent-worker", "ssm-session-worker", "ssm-session-logger")
"""The agent's own programs that sessions need; it starts them from its own folder."""
DOCUMENT_WORKER = "ssm-document-worker"
"""Runs what Run Command and State Manager send. Not in a job: an account's patching or agent update, aimed at
all managed nodes, must not reach into somebody's training."""
FOLDERS = ("/usr/bin", "/usr/local/bin", "/opt/amazon/ssm", "/snap/amazon-ssm-agent/current")
"""Where images have it, beside PATH."""
CHUNK = 1 << 20
HINTS = {
    "not-downloaded": "give a job without internet the gateway endpoint of S3 with access to that bucket, a mirror in "
    "SMSSH_AGENT_URL, SSHOptions(agent='bundle'), or an image with the agent in it",
    "not-written": "make 130 MB of room, or name another folder in SMSSH_RUN_DIR",
}

SESSIONS_AT_ONCE = 100
"""With the agent's default of 1, sessions that start in the same instant are refused."""
PROCESSORS = 2
"""Threads that run Go code at the same time, in each of its processes: the other cores are the job's."""
CONNECT_SECONDS = 20.0
"""How long the control channel is waited for before the job's log says that it is not there; 1.2 s is usual."""
LOOK_SECONDS = 0.05
LOG_BYTES = 1 << 20
"""Of one of the agent's own log files; it keeps three."""

_CONNECTED = re.compile(r"[Ss]et up control channel successfully|control channel of \S+ is open")
_TROUBLE = re.compile(r"^.*(?:\bERROR\b|\bWARNING?\b|hibernate|AccessDenied).*$", re.MULTILINE)
_ACTION = re.compile(r"not authorized to perform:? ([\w-]+:\w+)")
NODE_ACTIONS = (
    "ssm:UpdateInstanceInformation",
    "ssmmessages:CreateControlChannel",
    "ssmmessages:CreateDataChannel",
    "ssmmessages:OpenControlChannel",
    "ssmmessages:OpenDataChannel",
)
"""What the node's role must allow, on `*` (Systems Manager user guide, "Add Session Manager permissions to an existing
IAM role"). The agent asks for more, such as associations and ec2messages, logs each denial, and does without."""

# Go's own list of where a system keeps its certificates (crypto/x509, root_linux.go).
CERTIFICATES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
DOMAINS = (
    ("cn-", "amazonaws.com.cn"),
    ("us-iso-", "c2s.ic.gov"),
    ("us-isob-", "sc2s.sgov.gov"),
    ("eu-isoe-", "cloud.adc-e.uk"),
    ("us-isof-", "csp.hci.ic.gov"),
    ("eusc-", "amazonaws.eu"),
)
"""The domains of regions by the beginnings of their names."""
# The agent gets no more of the job's environment than this: no credentials, and none of the job's secrets.
PASSED_ON = frozenset(
    {"HOME", "LANG", "LC_ALL", "PATH", "TMPDIR", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR"}
    | {
        name
        for each in ("http_proxy", "https_proxy", "no_proxy", "all_proxy")
        for name in (each, each.upper())
    }
)

SEELOG = """\
<seelog type="sync" minlevel="info">
  <outputs formatid="line">
    <console formatid="line"/>
    <rollingfile type="size" filename="{file}" maxsize="{size}" maxrolls="2"/>
  </outputs>
  <formats><format id="line" format="%Date(2006-01-02 15:04:05) %LEVEL %Msg%n"/></formats>
</seelog>
"""

_log = logging.getLogger("smssh.agent")


class Installed:
    """The agent in its folder.

    Attributes:
        folder: the folder; private except for root.
        origin: where it came from, for the log.
    """

    def __init__(self, folder: Path, origin: str) -> None:
        self.folder = folder
        self.origin = origin

    @property
    def program(self) -> Path:
        """The agent itself."""
        return self.folder / AGENT

    @property
    def log(self) -> Path:
        """What the agent and its workers write; its own limits apply."""
        return self.folder / "log" / "agent.log"


# ------------------------------------------------------------------------------------------- where it is from


def install(context: Context, region: str) -> Installed:
    """Put the agent into the run folder: the image's, the bundle's, or one that is downloaded.

    Args:
        context: the supervisor's.
        region: where it is downloaded from, and which it serves.

    Raises:
        SmsshError: there is no agent, or it cannot be used.
    """
    folder = context.run_dir / "agent"
    for each in (folder / "configuration", folder / "log"):
        each.mkdir(mode=0o755, parents=True, exist_ok=True)
    origin = _take(context, folder, region)
    _leave_documents_out(folder)
    _configure(context, folder, region)
    return Installed(folder, origin)


def _take(context: Context, folder: Path, region: str) -> str:
    """Get the programs into the folder by the first way that is there; answers which."""
    settings = context.settings
    tried = []
    if settings.agent in ("auto", "found"):
        program = _found(context)
        if program is not None:
            _place_programs(program, folder)
            return str(program)
        tried.append(f"the image has no {AGENT}")
    if settings.agent in ("auto", "bundle"):
        package = _bundled(context)
        if package is not None:
            _check(package, _digest(context, required=False))
            _unpack(package, folder)
            return str(package)
        tried.append(f"the bundle has none for {platform.machine()}")
    if settings.agent in ("auto", "download"):
        if settings.agent_version and _digest(context, required=settings.agent == "download"):
            return _download_and_unpack(context, folder, region)
        tried.append(f"none was pinned for {platform.machine()} when the job was submitted")
    raise SmsshError(
        "there is no agent for Session Manager: {}".format(", ".join(tried)),
        hint="submit with SSHOptions(agent='download') or 'bundle' (machines=('aarch64',) on Graviton), or install "
        f"{AGENT} in the image",
        reference="no-agent",
    )


def _found(context: Context) -> Path | None:
    paths = [context.environment.get("PATH", ""), os.environ.get("PATH", ""), *FOLDERS]
    program = shutil.which(AGENT, path=os.pathsep.join(path for path in paths if path))
    return None if program is None else Path(program)


def _bundled(context: Context) -> Path | None:
    if context.bundle is None:
        return None
    package = context.bundle / "agent" / platform.machine() / PACKAGE
    return package if package.is_file() else None


def _digest(context: Context, *, required: bool) -> str:
    """The SHA-256 that the package for this machine must have; "" when none was pinned."""
    found = dict(context.settings.agent_sha256).get(platform.machine().lower(), "")
    if not found and required:
        raise SmsshError(
            f"no digest of the agent was pinned for {platform.machine()}",
            hint=f"submit with SSHOptions(machines=({platform.machine()!r},)), or set SMSSH_AGENT_SHA256",
            reference="agent-not-pinned",
        )
    return found


def _place_programs(program: Path, folder: Path) -> None:
    """The image's own programs under names in our folder, so that they read our configuration."""
    origin = program.resolve().parent
    for name, source in [(AGENT, program.resolve())] + [(name, origin / name) for name in WORKERS]:
        target = folder / name
        if target.exists() or target.is_symlink():
            target.unlink()
        if not source.exists():
            continue
        status = source.stat()
        # What the agent asks of its workers; a copy of ours has it.
        if (
            status.st_uid == status.st_gid == 0
            and status.st_mode & 0o022 == 0
            and status.st_mode & 0o511 == 0o511
        ):
            target.symlink_to(source)
        else:
            shutil.copyfile(str(source), str(target))
            target.chmod(0o755)


def _unpack(package: Path, folder: Path) -> None:
    found = unpack(package, (AGENT, *WORKERS), folder)
    missing = [name for name in (AGENT, *WORKERS[:2]) if name not in found]
    if missing:
        raise SmsshError(f"{package.name} has no {missing[0]}", reference="bad-agent-package")


def _check(package: Path, digest: str) -> None:
    """Nothing is unpacked that is not what was pinned."""
    if not digest:
        raise SmsshError(
            f"no digest was pinned for {package}",
            hint="set SMSSH_AGENT_SHA256; with_ssh does it by itself",
            reference="agent-not-pinned",
        )
    found = hashlib.sha256()
    with package.open("rb") as file:
        while True:
            data = file.read(CHUNK)
            if not data:
                break
            found.update(data)
    if found.hexdigest() != digest:
        raise SmsshError(
            f"{package} is not the agent that was pinned: SHA-256 {found.hexdigest()}, not {digest}",
            hint="find out whether it was damaged or replaced; it is not used",
            reference="wrong-agent-digest",
            status=ExitStatus.REFUSED,
        )


# ------------------------------------------------------------------------------------------------- a download


def _s3_endpoint(environ: Mapping[str, str], region: str) -> str:
    """The address of S3 in a region, without boto3, which the image may not have.

    Args:
        environ: the job's; AWS_ENDPOINT_URL_S3 and AWS_ENDPOINT_URL say another one.
        region: the region; of those outside the `aws` partition, China's and the isolated ones have domains of their
            own (botocore's partitions.json).
    """
    named = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL")
    if named:
        return named
    suffix = next((each for start, each in DOMAINS if region.startswith(start)), "amazonaws.com")
    return f"https://s3.{region}.{suffix}"


def _download_and_unpack(context: Context, folder: Path, region: str) -> str:
    settings = context.settings
    base = settings.agent_url or bucket_url(_s3_endpoint(context.environment, region), region)
    url = package_url(base, settings.agent_version, platform.machine())
    package = folder / PACKAGE
    began = time.monotonic()
    try:
        download(url, package, ending=context.ending)
        _check(package, _digest(context, required=True))
        _unpack(package, folder)
    except SmsshError as error:
        error.hint = HINTS.get(error.reference, error.hint)
        raise
    finally:
        with contextlib.suppress(OSError):
            package.unlink()
    _log.info("downloaded and unpacked in %.1f s", time.monotonic() - began)
    return url


# -------------------------------------------------------------------------------------------- its surroundings


def _leave_documents_out(folder: Path) -> None:
    """A document worker that fails at once; see DOCUMENT_WORKER."""
    target = folder / DOCUMENT_WORKER
    with contextlib.suppress(FileNotFoundError):
        target.unlink()
    refusing = shutil.which("false", path="/usr/bin:/bin")
    if refusing is not None:
        target.symlink_to(refusing)


def _configure(context: Context, folder: Path, region: str) -> None:
    text = json.dumps(agent_configuration(region, context.environment), indent=1)
    configuration = folder / "configuration"
    (configuration / "amazon-ssm-agent.json").write_text(text, encoding="utf-8")
    seelog = SEELOG.format(file=Installed(folder, "").log, size=LOG_BYTES)
    (configuration / "seelog.xml").write_text(seelog, encoding="utf-8")


def endpoints(environ: Mapping[str, str]) -> dict[str, str]:
    """Endpoints that the job's environment names: `ssm`, `ssmmessages`, `kms`; what is missing is AWS's own."""
    everything = environ.get("AWS_ENDPOINT_URL")
    found = {
        service: environ.get(f"AWS_ENDPOINT_URL_{service.upper()}") or everything
        for service in ("ssm", "ssmmessages", "kms")
    }
    # The agent passes over an endpoint without a scheme, in silence, and calls AWS's own.
    return {service: url for service, url in found.items() if url and urlsplit(url).scheme}


def agent_configuration(region: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """The agent's amazon-ssm-agent.json."""
    urls = endpoints(environ)
    configuration: dict[str, dict[str, Any]] = {
        "Mgs": {"Region": region, "SessionWorkerBufferLimit": SESSIONS_AT_ONCE},
        "Agent": {
            "Region": region,
            "SelfUpdate": False,
            "TelemetryMetricsToSSM": False,
            "GoMaxProcForAgentWorker": PROCESSORS,
        },
        "Identity": {"ConsumptionOrder": ["OnPrem"]},
        "Profile": {"ShareCreds": True},
    }
    if environ.get("AWS_USE_DUALSTACK_ENDPOINT", "").strip().lower() == "true":
        # For subnets that have IPv6 alone; agents before 3.3.3270 pass over it.
        configuration["Agent"]["UseDualStackEndpoint"] = True
    if "ssm" in urls:
        configuration["Ssm"] = {"Endpoint": urls["ssm"]}
        configuration["Mds"] = {"Endpoint": urls["ssm"]}
    if "ssmmessages" in urls:
        configuration["Mgs"]["Endpoint"] = urls["ssmmessages"]
    if "kms" in urls:
        # Of shells that the account's preferences have encrypted.
        configuration["Kms"] = {"Endpoint": urls["kms"]}
    return configuration


def agent_environment(context: Context, folder: Path) -> dict[str, str]:
    """The agent's environment: little of the job's, and a credentials file of its own.

    Where the agent writes to ~/.aws, as it does by default, boto3 in the user's code takes the node's role
    for the job's.
    """
    environ = {name: value for name, value in context.environment.items() if name in PASSED_ON}
    environ["AWS_SHARED_CREDENTIALS_FILE"] = str(folder / "credentials")
    environ["GOMAXPROCS"] = str(PROCESSORS)
    if not environ.get("SSL_CERT_FILE") and not environ.get("SSL_CERT_DIR"):
        # Go does not know AWS's variable.
        certificates = context.environment.get("AWS_CA_BUNDLE")
        if not certificates and not any(os.path.exists(path) for path in CERTIFICATES):
            certificates = botocore_certificates()
        if certificates:
            environ["SSL_CERT_FILE"] = certificates
    return environ


# ------------------------------------------------------------------------------------------------------ running


class Running:
    """The agent as a process that is started again whenever it dies.

    Its node stays the same: the registration is in the agent's state, not in the process.
    """

    def __init__(self, context: Context, installed: Installed) -> None:
        self._context = context
        self._installed = installed
        self._console = context.run_dir / "agent.log"
        self._child = Child(
            AGENT,
            [str(installed.program)],
            agent_environment(context, installed.folder),
            self._console,
            restart=True,
            expendable=True,
        )

    def start(self) -> None:
        """Start it, and wait until sessions are possible or CONNECT_SECONDS are over.

        Raises:
            SmsshError: it cannot be started, or its role may not do what it needs.
        """
        for path in (self._console, self._installed.log):
            # A run folder that is used again has the log of a life before.
            with contextlib.suppress(OSError):
                path.unlink()
        try:
            self._child.start()
        except OSError as error:
            raise SmsshError(f"{AGENT} does not start: {error}", reference="no-agent") from None
        deadline = time.monotonic() + CONNECT_SECONDS
        while not _CONNECTED.search(self._said()):
            if self._context.ending.wait(LOOK_SECONDS):
                return
            if time.monotonic() >= deadline:
                self._explain()
                return

    def stop(self, seconds: float) -> None:
        """Stop it and its workers, which outlive it otherwise: SIGTERM, and SIGKILL after `seconds`."""
        self._child.stop(seconds)
        for pid in _processes_of(self._installed.folder):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    def _said(self) -> str:
        """The ends of its logs; its workers write to the file alone, a double to the console alone."""
        texts = []
        for path in (self._console, self._installed.log):
            with contextlib.suppress(OSError), path.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - CHUNK))
                texts.append(file.read().decode("utf-8", "replace"))
        return "\n".join(texts)

    def _explain(self) -> None:
        """It runs, but does not get through: say why, as well as its log lets us."""
        said = self._said()
        actions = [action for action in _ACTION.findall(said) if action in NODE_ACTIONS]
        if actions:
            raise SmsshError(
                f"the managed node's role may not {actions[-1]}",
                hint="allow these on * in a policy of the role that SMSSH_ROLE names: {}".format(
                    ", ".join(NODE_ACTIONS)
                ),
                reference="access-denied",
                status=ExitStatus.REFUSED,
            )
        # A denial that is left now is of something that sessions do without.
        trouble = [line for line in _TROUBLE.findall(said) if not _ACTION.search(line)]
        self._context.say(
            "smssh: the agent is not connected to Session Manager after {:.0f} s; it goes on trying: {}".format(
                CONNECT_SECONDS,
                trouble[-1].strip()[:300] if trouble else f"see its log, {self._installed.log}",
            )
        )


def _processes_of(folder: Path) -> list[int]:
    """Processes that were started from the folder, under whatever parent by now."""
    paths = [os.fsencode(str(folder / name)) for name in (AGENT, *WORKERS)]
    found = []
    for pid in process_ids():
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            # A script's own path stands behind its interpreter's, and that one's options.
            if pid != os.getpid() and any(path in command[:4] for path in paths):
                found.append(pid)
    return found
