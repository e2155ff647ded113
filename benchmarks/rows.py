"""What is measured. The real parts, as in the tests, whose containers and local emulators are used here."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from smssh_plugin.entrypoints import boot
from smssh_plugin.local.agent.installed import install
from smssh_plugin.submit.bundle import build as bundles
from smssh_plugin.submit.options import SSHOptions
from tests import needs
from tests.amazon import programs as amazon
from tests.entrypoints.container import IMAGE, Container
from tests.faults.images import image, packages
from tests.session.support import (
    KEYS,
    Agent,
    EchoServer,
    LoopbackServer,
    Stack,
    proxy,
    proxy_command,
    read_exactly,
)
from tests.waiting import until

from .forwards import connections
from .table import Row, Sample, interleaved, ratio

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from typing import Any

    from tests.client.conftest import SshServer

SESSION_MANAGER_PLUGIN = "SMSSH_TEST_SESSION_MANAGER_PLUGIN"
"""Names Amazon's session-manager-plugin, where the reference of the upload is to be measured."""


class NotHere(Exception):  # noqa: N818 - it is not an error
    """Something that a row needs is not on this machine."""


def _runs(number: int, share: float) -> int:
    return max(3, round(number * share))


def _timed(command: list[str], **environ: str) -> float:
    """Milliseconds that a command takes."""
    began = time.perf_counter()
    subprocess.run(command, env=environ, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - began) * 1000


# ------------------------------------------------------------------------------------------- interpreter start


def pth(folder: Path, share: float) -> list[Row]:
    """An interpreter with our .pth and SMSSH_ENABLE unset, against one without it."""
    _need_image()
    plain, baked = folder / "plain", folder / "baked"
    plain.mkdir()
    baked.mkdir()
    interpreters = {"without": image(plain) / "bin" / "python", "with": image(baked) / "bin" / "python"}
    line = Path(boot.__file__).with_name("smssh.pth").read_text(encoding="utf-8")
    (packages(baked / "image") / "smssh.pth").write_text(line)
    environ = {"PATH": os.defpath, "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}
    commands = {name: [str(python), "-c", "pass"] for name, python in interpreters.items()}
    for command in commands.values():
        subprocess.run(command, env=environ, check=True)
    times = interleaved(
        {name: lambda command=command: _timed(command, **environ) for name, command in commands.items()},
        _runs(200, share),
    )
    what = "interpreter start with the .pth, SMSSH_ENABLE unset"
    found = ratio(f"{what}: time", "ms", times["with"], "without it", times["without"], 1.03)
    rows = [found]
    if shutil.which("valgrind"):
        counts = {name: Sample((_instructions(command, environ),)) for name, command in commands.items()}
        rows.insert(
            0,
            ratio(
                f"{what}: instructions", "instructions", counts["with"], "without it", counts["without"], 1.03
            ),
        )
        found.met, found.note = None, "the instructions decide: they are the same on a busy machine"
    return rows


def _instructions(command: list[str], environ: dict[str, str]) -> float:
    """Instructions that a command executes in user space, as valgrind's callgrind counts them."""
    done = subprocess.run(
        ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *command],
        env={**environ, "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    match = re.search(r"Collected : (\d+)", done.stderr)
    if match is None:
        raise NotHere(f"valgrind says no number: {done.stderr[-200:]}")
    return float(match.group(1))


# ------------------------------------------------------------------------------------- the user's entry point


USER = "import time; print('began', time.monotonic_ns(), flush=True)\n"


def entry_point(folder: Path, share: float) -> list[Row]:
    """From the start of the container's process to the first line of the user's script."""
    bundle, key = _bundle(folder), _key(folder)
    made = folder / "baked"
    made.mkdir()
    baked = image(made)
    _bake(baked)

    def delay(launcher: str) -> float:
        with _container(folder, bundle, key) as container:
            code = container.base / "code"
            code.mkdir(parents=True)
            (code / "train.py").write_text(USER)
            plain = IMAGE / "bin" / "python"
            command = [
                str(baked / "bin" / "python" if "baked" in launcher else plain),
                str(code / "train.py"),
            ]
            environ = {}
            if launcher == "run.sh":
                command = ["/bin/sh", str(bundle / "run.sh"), *command]
            if launcher == "sitecustomize":
                environ["PYTHONPATH"] = str(bundle)
            began = time.monotonic_ns()
            process = container.start(*command, on=not launcher.startswith("without"), **environ)
            if process.wait(60) != 0:
                raise RuntimeError(container.output())
            user = int(re.search(r"began (\d+)", container.output()).group(1))
            container.assert_quiet()
            return (user - began) / 1e6

    launchers = ["without", "without, baked image", "run.sh", "sitecustomize", "baked .pth"]
    found = interleaved({name: lambda name=name: delay(name) for name in launchers}, _runs(20, share))
    rows = []
    for launcher in ("run.sh", "sitecustomize", "baked .pth"):
        reference = "without, baked image" if launcher == "baked .pth" else "without"
        more = found[launcher].median - found[reference].median
        rows.append(
            Row(
                f"user's entry point begins, {launcher}",
                "ms",
                found[launcher],
                reference,
                found[reference],
                "<= 150 ms more",
                more <= 150,
                f"+{more:.0f} ms",
            )
        )
    return rows


# ------------------------------------------------------------------------------------------------ first login


def ready(folder: Path, share: float) -> list[Row]:
    """From a job's start to its node being connected, against the agent alone: Amazon's where it is, and the fake."""
    bundle, key = _bundle(folder), _key(folder)
    rows = [_ready(folder, bundle, key, share)]
    with contextlib.suppress(NotHere):
        rows.insert(0, _ready_amazons(folder, bundle, key, share))
        rows[1].met = None
        rows[1].note = "Amazon's agent decides: the fake agent starts in a fraction of its time"
    return rows


def _ready_amazons(folder: Path, bundle: Path, key: Path, share: float) -> Row:
    if not amazon.AGENT or os.geteuid() != 0:
        raise NotHere("SMSSH_TEST_SSM_AGENT names no folder with Amazon's agent, or this is not root")
    # As in a container, which has places of its own for what the agent knows.
    own = 'mount -t tmpfs tmpfs /var/lib && mount -t tmpfs tmpfs /var/log && exec /bin/sh "$@"'
    before = ("unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", own, "sh")

    def alone() -> float:
        made = amazon.AmazonAgent(emulator, folder / f"amazons-{time.monotonic_ns()}")
        began = time.monotonic()
        made.start()
        found = time.monotonic() - began
        made.kill()
        return found

    with amazon.loopback_only():
        emulator = amazon.Emulator(folder / "local emulator")
        (folder / "local emulator").mkdir()
        emulator.start()
        try:
            environ = {
                "AWS_ENDPOINT_URL": emulator.url,
                "AWS_ENDPOINT_URL_SSMMESSAGES": emulator.channels,
                "SSL_CERT_FILE": str(emulator.authority),
            }
            found = interleaved(
                {
                    "ours": lambda: _connects(
                        folder, bundle, key, emulator.call, before, Path(amazon.AGENT), **environ
                    ),
                    "alone": alone,
                },
                _runs(8, share),
            )
        finally:
            emulator.stop()
    return ratio(
        "enabled -> first login possible",
        "s",
        found["ours"],
        "Amazon's agent alone, registration to control channel",
        found["alone"],
        1.5,
    )


def _ready(folder: Path, bundle: Path, key: Path, share: float) -> Row:
    programs = folder / "programs"
    install(programs)
    stack = Stack()

    def alone() -> float:
        made = Agent(stack, folder / f"agent-{time.monotonic_ns()}")
        began = time.monotonic()
        made.register()
        made.start()
        made.wait_connected()
        found = time.monotonic() - began
        made.kill()
        return found

    def ours() -> float:
        return _connects(folder, bundle, key, stack.call, ("/bin/sh",), programs, AWS_ENDPOINT_URL=stack.url)

    try:
        found = interleaved({"ours": ours, "alone": alone}, _runs(8, share))
    finally:
        stack.close()
    return ratio(
        "enabled -> first login possible, fake agent",
        "s",
        found["ours"],
        "fake agent alone, registration to control channel",
        found["alone"],
        1.5,
    )


def _connects(
    folder: Path,
    bundle: Path,
    key: Path,
    call: Callable[..., dict[str, Any]],
    before: tuple[str, ...],
    programs: Path,
    **environ: str,
) -> float:
    """Seconds from the start of a wrapped job to its node's control channel."""

    def nodes() -> set[str]:
        return {node["InstanceId"] for node in call("DescribeInstanceInformation")["InstanceInformationList"]}

    # An agent that was killed leaves its node, which is connected for a while.
    others = nodes()
    with _container(folder, bundle, key) as container:
        began = time.monotonic()
        process = container.start(
            *(*before, container.bundle / "run.sh"),
            *("sh", "-c", "while [ ! -e go ]; do sleep 0.05; done"),
            PATH=f"{programs}:{container.environ['PATH']}",
            SMSSH_TRANSPORT="ssm",
            SMSSH_ROLE="arn:aws:iam::123456789012:role/Nodes",
            **KEYS,
            AWS_EC2_METADATA_DISABLED="true",
            **environ,
        )

        def connected() -> bool:
            return any(
                call("GetConnectionStatus", Target=node)["Status"] == "connected" for node in nodes() - others
            )

        until(connected, what=f"the control channel; {container.log()}")
        found = time.monotonic() - began
        container.script("", name="go")
        process.wait(60)
        container.assert_quiet()
        return found


# ------------------------------------------------------------------------------------------------- the client


NODES = 10_000
"""Managed nodes of others in the account, for the lookup among many."""
BEFORE_THE_SESSION = ("DescribeInstanceInformation", "ListTagsForResource", "StartSession")


def login(folder: Path, share: float) -> list[Row]:
    """`ssh ADDRESS true` on a ready job, and the calls that it makes: alone in the account, and among 10,000."""
    with contextlib.ExitStack() as leave:
        server = _server(folder, leave)
        stack = Stack()
        leave.callback(stack.close)
        agent = Agent(stack, folder / "agent")
        tags = {
            "": "1",
            "Job": "job-1",
            "Kind": "training",
            "Host": "algo-1",
            "HostKey": server.endpoint.host_key,
            "Port": str(server.port),
            "User": server.endpoint.user,
        }
        agent.register(Tags=[{"Key": f"SMSSH{name}", "Value": value} for name, value in tags.items()])
        agent.start()
        leave.callback(agent.kill)
        agent.wait_connected()
        command, environ = _login_command(folder, stack, server)
        known = folder / "straight"
        known.write_text(f"[127.0.0.1]:{server.port} {server.endpoint.host_key}\n")
        straight = ["ssh", "-F", "none", "-i", str(server.endpoint.key), "-p", str(server.port)]
        straight += ["-o", f"UserKnownHostsFile={known}", "-l", server.endpoint.user, "127.0.0.1", "true"]
        remembered = Path(environ["SMSSH_HOME"]) / "nodes"

        def anew() -> float:
            shutil.rmtree(remembered, ignore_errors=True)
            return _timed(command, **environ) / 1000

        def again() -> float:
            return _timed(command, **environ) / 1000

        anew()
        _, alone_calls = _counted(stack, anew)
        _, again_calls = _counted(stack, again)
        found = interleaved(
            {
                "anew": anew,
                "again": again,
                "straight": lambda: _timed(straight, **environ) / 1000,
            },
            _runs(15, share),
        )
        for number in range(NODES):
            _foreign_node(stack, number)
        _, crowd_calls = _counted(stack, anew)
        crowd = interleaved({"anew": anew}, _runs(15, share))["anew"]
        # ssh does not wait for its proxy.
        until(lambda: not stack.service.active_sessions, what="the end of all sessions")
    reference = "noted, not measured: sagemaker-ssh-helper 11.0 s; straight to the server"
    few = ", ".join(alone_calls)
    return [
        Row(
            "`ssh ADDRESS true`, ready job",
            "s",
            found["anew"],
            reference,
            found["straight"],
            "<= 0.6 s",
            found["anew"].median <= 0.6,
            f"{found['anew'].median:.2f} s",
            f"{found['anew'].median - found['straight'].median:+.2f} s to the login itself",
        ),
        Row(
            "`ssh ADDRESS true` once more within a minute",
            "s",
            found["again"],
            "straight to the server",
            found["straight"],
            "",
            None,
            f"{found['again'].median:.2f} s, {len(again_calls)} call",
        ),
        Row(
            f"`ssh ADDRESS true` among {NODES:,} managed nodes",
            "s",
            crowd,
            "as the only one",
            found["anew"],
            "as with 1",
            crowd_calls == alone_calls and crowd.median <= 1.5 * found["anew"].median,
            f"{crowd.median:.2f} s, {len(crowd_calls)} calls",
        ),
        Row(
            "`ssh ADDRESS true`: API calls before the session",
            "",
            None,
            "",
            None,
            "<= 3",
            len(alone_calls) <= 3,
            f"{len(alone_calls)}: {few}",
            details={"calls": alone_calls, "again": again_calls, "crowd": crowd_calls},
        ),
    ]


def _server(folder: Path, leave: contextlib.ExitStack) -> SshServer:
    """sshd where it lets this user in, else asyncssh."""
    from tests.client.conftest import UnusableError, running_server

    for kind in ("sshd", "asyncssh") if needs.find("sshd") else ("asyncssh",):
        made = folder / kind
        made.mkdir()
        with contextlib.suppress(UnusableError):
            return leave.enter_context(running_server(kind, made))
    raise NotHere("neither sshd nor asyncssh")


def _login_command(folder: Path, stack: Stack, server: SshServer) -> tuple[list[str], dict[str, str]]:
    """ssh through our own configuration, in a home of its own that has the server's key."""
    home = folder / "home"
    own = home / "smssh"
    own.mkdir(mode=0o700, parents=True)
    for suffix in ("", ".pub"):
        shutil.copy(f"{server.endpoint.key}{suffix}", own / f"id_ed25519{suffix}")
    environ = {**stack.environment, "HOME": str(home), "SMSSH_HOME": str(own)}
    smssh = [sys.executable, "-m", "smssh_plugin.cli"]
    subprocess.run([*smssh, "ssh-config", "--write"], env=environ, check=True, capture_output=True)
    options = ["-F", str(own / "ssh_config"), "-o", "BatchMode=yes", "-l", server.endpoint.user]
    return ["ssh", *options, "algo-1.job-1.training.sagemaker", "true"], environ


def _counted(stack: Stack, once: Callable[[], float]) -> tuple[float, list[str]]:
    """What it took, and the calls that it made up to its session."""
    before = len(stack.calls)
    took = once()
    return took, [call for call in stack.calls[before:] if call in BEFORE_THE_SESSION]


def _foreign_node(stack: Stack, number: int) -> None:
    nodes = stack.service.nodes
    tags = [{"Key": "SMSSH", "Value": "1"}, {"Key": "SMSSHJob", "Value": f"other-{number}"}]
    tags += [{"Key": "SMSSHKind", "Value": "training"}, {"Key": "SMSSHHost", "Value": "algo-1"}]
    made = nodes.create_activation({"IamRole": "role", "Tags": tags})
    node = nodes.register({**made, "PublicKey": "key", "Fingerprint": "print"})["InstanceId"]
    nodes.update_information({"InstanceId": node, "AgentVersion": "3.3.0.0"}, node)


def command_line(_: Path, share: float) -> list[Row]:
    """`smssh --help` and `--version` against an interpreter that does nothing."""
    python, environ = sys.executable, {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    script = Path(sys.executable).with_name("smssh")
    smssh = [str(script)] if script.exists() else [python, "-m", "smssh_plugin.cli"]
    commands = {
        "pass": [python, "-c", "pass"],
        "--help": [*smssh, "--help"],
        "--version": [*smssh, "--version"],
    }
    for command in commands.values():
        _timed(command, **environ)
    found = interleaved(
        {name: lambda command=command: _timed(command, **environ) for name, command in commands.items()},
        _runs(40, share),
    )
    return [
        ratio(f"`smssh {word}`", "ms", found[word], "python -c pass", found["pass"], 4)
        for word in ("--help", "--version")
    ]


# ------------------------------------------------------------------------------------------------- the session


UPLOAD_BYTES = 20 << 20
PACED_BYTES = 2 << 20
"""For session-manager-plugin, which would take half a minute for the other."""
PACED = """
import sys, time
from smssh_plugin.session.loop import Loop
sent = Loop._send
def paced(self, now):
    before = self._channel.stream._next
    sent(self, now)
    time.sleep(0.001 * (self._channel.stream._next - before))
Loop._send = paced
"""
"""The pacing of session-manager-plugin, in our client: a pause of a millisecond after each message of 1024 bytes
(`src/sessionmanagerplugin/session/portsession/standardstreamforwarding.go`)."""


def upload(folder: Path, share: float) -> list[Row]:
    """Bytes into a port behind the fake agent: through our session, through the same with the plugin's pacing, and
    through the plugin itself where it is here."""
    # session-manager-plugin signs data channels from 1.2.764 on; an older one is as good a reference.
    stack = Stack(signed_clients=False)
    agent = Agent(stack, folder / "agent")
    agent.register()
    agent.start()
    agent.wait_connected()
    sink = _Sink()
    program = os.environ.get(SESSION_MANAGER_PLUGIN)

    def ours(paced: bool = False) -> float:
        words = proxy_command(agent.node, sink.port)
        if paced:
            words[-1] = PACED + words[-1]
        process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=stack.environment, bufsize=0
        )
        try:
            read_exactly(process, 1)
            return _megabytes(process, sink, PACED_BYTES if paced else UPLOAD_BYTES)
        finally:
            process.stdin.close()
            process.wait(20)

    def theirs() -> float:
        document = {"DocumentName": "AWS-StartSSHSession", "Parameters": {"portNumber": [str(sink.port)]}}
        answer = stack.call("StartSession", Target=agent.node, **document)
        request = json.dumps({"Target": agent.node, **document})
        process = subprocess.Popen(
            [program, json.dumps(answer), "us-east-1", "StartSession", "", request, stack.url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=stack.environment,
            bufsize=0,
        )
        try:
            read_exactly(process, 1)
            return _megabytes(process, sink, PACED_BYTES)
        finally:
            process.kill()
            process.wait()
            # The plugin that is killed ends no session, and the sink takes one connection at a time.
            stack.call("TerminateSession", SessionId=answer["SessionId"])

    variants: dict[str, Callable[[], float]] = {"ours": ours, "paced": lambda: ours(paced=True)}
    if program:
        variants["theirs"] = theirs
    try:
        found = interleaved(variants, _runs(5, share))
    finally:
        agent.kill()
        sink.close()
        stack.close()
    rows = []
    for name, variant in (("session-manager-plugin's pacing", "paced"), ("session-manager-plugin", "theirs")):
        if variant in found:
            by = found["ours"].median / found[variant].median
            value = f"{by:.1f} x"
            rows.append(
                Row(
                    "upload through the session",
                    "MB/s",
                    found["ours"],
                    name,
                    found[variant],
                    ">= 10 x",
                    by >= 10,
                    value,
                )
            )
    if not program:
        rows[0].note = f"{SESSION_MANAGER_PLUGIN} names the program itself, to measure it here"
    return rows


def memory(folder: Path, share: float) -> list[Row]:
    """What one session costs on the client's machine, after two megabytes each way."""
    stack = Stack()
    agent = Agent(stack, folder / "agent")
    agent.register()
    agent.start()
    agent.wait_connected()
    echo = EchoServer()

    def once() -> float:
        process = proxy(stack, agent.node, echo.port)
        try:
            data = os.urandom(PACED_BYTES)
            writer = threading.Thread(target=process.stdin.write, args=(data,))
            writer.start()
            read_exactly(process, len(data))
            writer.join()
            return psutil.Process(process.pid).memory_full_info().uss / 1e6
        finally:
            process.stdin.close()
            process.wait(20)

    try:
        found = interleaved({"ours": once}, _runs(5, share))["ours"]
    finally:
        agent.kill()
        echo.close()
        stack.close()
    noted = "noted, not measured: session-manager-plugin 24 to 30 MB"
    return [
        Row(
            "memory of a session's client, its own alone",
            "MB",
            found,
            noted,
            None,
            "",
            None,
            f"{found.median:.0f} MB",
        )
    ]


def _megabytes(process: subprocess.Popen[bytes], sink: _Sink, size: int) -> float:
    """MB/s until the last byte has arrived."""
    data, before, began = os.urandom(1 << 16), sink.received, time.monotonic()
    for _ in range(0, size, len(data)):
        process.stdin.write(data)
    until(lambda: sink.received - before >= size, seconds=120, what="the last byte")
    return size / 1e6 / (time.monotonic() - began)


class _Sink(LoopbackServer):
    """Takes what comes, and says one byte first."""

    def __init__(self) -> None:
        self.received = 0
        super().__init__()

    def serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.sendall(b"x")
            while data := connection.recv(1 << 16):
                self.received += len(data)


# ------------------------------------------------------------------------------------------------- retry


def retry(folder: Path, share: float) -> list[Row]:
    """A step that is fixed in its hold: from `retry` to the end of the job."""
    bundle, key = _bundle(folder), _key(folder)

    def once() -> float:
        with _container(folder, bundle, key) as container:
            process = container.wrap("sh", "-c", "[ -e fixed ]", SMSSH_HOLD="failure")
            container.wait_for("held")
            container.script("", name="fixed")
            began = time.monotonic()
            container.hook("retry", "--no-wait")
            if process.wait(60) != 0:
                raise RuntimeError(container.output())
            found = time.monotonic() - began
            container.assert_quiet()
            return found

    sample = interleaved({"ours": once}, _runs(8, share))["ours"]
    return [
        Row(
            "fixed in a hold, `retry` -> the job has ended (script of no time)",
            "s",
            sample,
            "noted, not measured: a new job, minutes",
            None,
            "seconds",
            sample.median < 10,
            f"{sample.median:.2f} s",
        )
    ]


# ------------------------------------------------------------------------------------------------- parts


def _need_image() -> None:
    if not (IMAGE / "bin" / "python").exists():
        raise NotHere("there is no image environment: `make environments` makes it")


def _bundle(folder: Path) -> Path:
    _need_image()
    made = folder / "bundle"
    made.mkdir()
    bundles.build(SSHOptions(transport="none"), []).write(made)
    return made


def _key(folder: Path) -> Path:
    if shutil.which("ssh-keygen") is None:
        raise NotHere("ssh-keygen is not installed")
    key = folder / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    return key


def _bake(made: Path) -> None:
    """Install this package in an image, as its wheel would be."""
    import pluggy

    import smssh_plugin

    # The links to hooks/ and entrypoints/ become folders.
    package = Path(smssh_plugin.__file__).parent
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(package, packages(made) / package.name, ignore=ignored)
    shutil.copytree(Path(pluggy.__file__).parent, packages(made) / "pluggy", dirs_exist_ok=True)
    shutil.copy(Path(boot.__file__).with_name("smssh.pth"), packages(made))
    # As pip does it at the end of an installation.
    subprocess.run([made / "bin" / "python", "-m", "compileall", "-q", packages(made)], check=True)


@contextlib.contextmanager
def _container(folder: Path, bundle: Path, key: Path) -> Iterator[Container]:
    """A container of its own, with nothing left of it afterwards."""
    inside = folder / f"container-{time.monotonic_ns()}"
    inside.mkdir()
    made = Container(inside, bundle, key)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(inside, ignore_errors=True)


ROWS: dict[str, Callable[[Path, float], list[Row]]] = {
    "pth": pth,
    "entry-point": entry_point,
    "ready": ready,
    "login": login,
    "command-line": command_line,
    "upload": upload,
    "connections": connections,
    "memory": memory,
    "retry": retry,
}
"""The rows of the design's table of budgets, by a short name."""
