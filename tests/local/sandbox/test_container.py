"""The containers of the local emulator."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from smssh_plugin.errors import SmsshError
from smssh_plugin.local.removal import remove_tree
from smssh_plugin.local.sandbox.container import (
    HOME,
    Hub,
    Program,
    Sandbox,
    SandboxSpec,
    SandboxStartError,
    check_support,
    mode,
    visible_folders,
)
from tests import needs
from tests.local.jobs_support import REPOSITORY, image_for, mounts, somebody
from tests.waiting import LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(60)

PATH = "/usr/local/bin:/usr/bin:/bin"


own_network = pytest.mark.needs("network namespaces")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    try:
        check_support()
    except SmsshError as error:
        needs.missing("namespaces", error.message)
    (tmp_path / "box" / "ml").mkdir(parents=True)
    before = mounts()
    yield tmp_path / "box"
    assert mounts() == before


def _spec(folder: Path, *argv: str, **changes: Any) -> SandboxSpec:
    arguments: dict[str, Any] = {
        "environment": {"PATH": PATH},
        "folder": folder,
        "ml": folder / "ml",
        "visible": visible_folders([Path(sys.executable)], []),
        **changes,
    }
    return SandboxSpec(argv=list(argv), **arguments)


def _run(spec: SandboxSpec) -> tuple[int, str]:
    async def main() -> tuple[int, str]:
        sandbox = await Sandbox.start(spec)
        output = await asyncio.wait_for(sandbox.output.read(), LIMIT)
        return await sandbox.wait(), output.decode()

    return asyncio.run(main())


def _python(folder: Path, code: str, **changes: Any) -> str:
    code_, output = _run(_spec(folder, sys.executable, "-c", code, **changes))
    assert code_ == 0, output
    return output


def test_mode_is_ours() -> None:
    try:
        assert mode() in (("root", "user") if os.geteuid() == 0 else ("user",))
    except SmsshError as error:
        needs.missing("namespaces", error.message)


def test_processes_of_its_own(folder: Path) -> None:
    code = "import os; print([n for n in os.listdir('/proc') if n.isdigit()], os.getpid(), os.getuid())"
    assert _python(folder, code) == "['1'] 1 0\n"


def test_environment_is_what_was_given(folder: Path) -> None:
    output = _run(_spec(folder, "env", environment={"PATH": PATH, "A": "1"}))[1]
    assert sorted(output.split()) == ["A=1", f"PATH={PATH}"]


def test_opt_ml_is_the_folder(folder: Path) -> None:
    (folder / "ml" / "in").write_text("hello")
    assert _run(_spec(folder, "sh", "-c", "cat /opt/ml/in; echo out > /opt/ml/out")) == (0, "hello")
    assert (folder / "ml" / "out").read_text() == "out\n"


@pytest.mark.parametrize("name", ["/", "/etc", "/opt", "/var", "/var/lib", "/var/log"])
def test_folders_keep_what_they_hold_and_new_things_stay_inside(folder: Path, name: str) -> None:
    outside = {entry for entry in os.listdir(name) if entry not in ("ml", "amazon", "lost+found")}
    new = f"{name}/smssh-test-{os.getpid()}"
    code = f"import os, json; print(json.dumps(os.listdir({name!r}))); os.mkdir({new!r})"
    inside = set(json.loads(_python(folder, code)))
    assert outside <= inside
    assert inside - outside <= {"ml", "opt"}
    assert not os.path.exists(new)


def test_folders_of_its_own(folder: Path) -> None:
    """They begin empty though others hold something, and what is written there is gone with the container."""
    script = (
        'for d in /tmp /var/tmp /run/lock /dev/shm "$HOME"; do touch $d/smssh-test-new; ls -A $d; done;'
        " ls -A /run; pwd"
    )
    spec = _spec(folder, "sh", "-c", script, environment={"PATH": PATH, "HOME": HOME})
    names = ["job", "lock", *(["sshd"] if os.path.isdir("/run/sshd") else [])]
    # The job's folder, and an ordinary user's Python, are in /tmp here and are shown under their names.
    shown = {
        Path(path).parts[2] for path in (str(folder), *map(str, spec.visible)) if path.startswith("/tmp/")
    }
    seen = [line for line in _run(spec)[1].splitlines() if line not in shown]
    assert seen == ["smssh-test-new"] * 5 + names + ["/"]
    for place in ("/tmp", "/var/tmp", "/run/lock", "/dev/shm"):
        assert not os.path.exists(place + "/smssh-test-new")


def test_nothing_of_two_containers_collides(folder: Path, tmp_path: Path) -> None:
    """What a bootstrap does with no thought of another one: fixed names and ports, relative to `/`."""
    code = """
import os, socket, sys
os.mkdir("sagemaker_remote_function_workspace")
os.mkfifo("/tmp/rendezvous")
open("/dev/shm/smssh-test-segment", "x").close()
open("/etc/smssh-test", "x").close()
ports = [socket.create_server(("", port)) for port in (22, 8080)]
hidden = socket.socket(socket.AF_UNIX)
hidden.bind("\\0smssh-test")
print("ready", flush=True)
sys.stdin = open("/opt/ml/go")
sys.stdin.read()
"""

    async def main() -> list[int]:
        boxes = []
        for name in ("one", "two"):
            place = tmp_path / name
            (place / "ml").mkdir(parents=True)
            os.mkfifo(place / "ml" / "go")
            boxes.append(await Sandbox.start(_spec(place, sys.executable, "-c", code)))
        for box in boxes:
            line = await asyncio.wait_for(box.output.readline(), LIMIT)
            assert line == b"ready\n", line + await box.output.read()
        for name in ("one", "two"):
            (tmp_path / name / "ml" / "go").write_text("")
        return [await asyncio.wait_for(box.wait(), LIMIT) for box in boxes]

    assert asyncio.run(main()) == [0, 0]
    assert not os.path.exists("/sagemaker_remote_function_workspace")
    assert not os.path.exists("/etc/smssh-test")


@pytest.mark.applies(os.geteuid() == 0, "an ordinary user may write to few folders of a machine")
@pytest.mark.parametrize("name", ["/usr/local/bin", "/root", "/home", "/etc/ssh", "/var/lib/dpkg"])
def test_what_root_writes_stays_inside(folder: Path, name: str) -> None:
    if not os.path.isdir(name):
        needs.does_not_apply(f"no {name}")
    before = sorted(os.listdir(name))
    script = (
        'cd "$0" && for f in *; do [ ! -f "$f" ] || rm "$f"; done && echo new > smssh-test && cat smssh-test'
    )
    assert _run(_spec(folder, "sh", "-c", script, name)) == (0, "new\n")
    assert sorted(os.listdir(name)) == before


def test_files_in_etc_can_be_replaced(folder: Path) -> None:
    """As MPI's bootstrap appends to /etc/environment, and `sed -i` puts a new file into the place of the old."""
    before = Path("/etc/passwd").read_bytes()
    script = "echo A=1 >> /etc/environment && sed -i s/root/toor/ /etc/passwd && grep -c toor /etc/passwd"
    code, output = _run(_spec(folder, "sh", "-c", script))
    assert (code, int(output) > 0) == (0, True)
    assert Path("/etc/passwd").read_bytes() == before


def test_what_is_asked_for_is_seen_in_folders_of_its_own(folder: Path, common: Path) -> None:
    """An environment below /tmp, behind a symbolic link; and nothing else of /tmp."""
    (common / "real" / "bin").mkdir(parents=True)
    (common / "real" / "here").write_text("hello\n")
    (common / "link").symlink_to(common / "real")
    (common / "real" / "bin" / "python").symlink_to(sys.executable)
    visible = visible_folders([common / "link" / "bin" / "python"], [])
    script = 'cat "$0/link/here" "$0/real/here"; ls "$0"; ls /tmp | wc -l'
    code, output = _run(_spec(folder, "sh", "-c", script, str(common), visible=visible))
    assert code == 0, output
    assert output.splitlines()[:4] == ["hello", "hello", "link", "real"]
    assert int(output.splitlines()[4]) <= 3


@own_network
def test_network_of_its_own(folder: Path) -> None:
    """Loopback and eth0; what is on this machine's loopback is not there, and nothing leads out."""
    code = """
import errno, json, os, socket, sys, time
def reach(address):
    with socket.socket() as item:
        item.settimeout(10)
        return errno.errorcode.get(item.connect_ex(address), "connected")
began = time.monotonic()
try:
    socket.gethostbyname("sts.us-east-1.amazonaws.com")
    name = "resolved"
except OSError:
    name = "unknown"
print(json.dumps({
    "machine": reach(("127.0.0.1", int(sys.argv[1]))),
    "metadata": reach(("169.254.169.254", 80)),
    "internet": reach(("1.1.1.1", 443)),
    "name": name,
    "seconds": time.monotonic() - began,
    "interfaces": sorted(os.listdir("/sys/class/net")),
    "self": socket.gethostbyname(socket.gethostname()),
    "algo-1": socket.gethostbyname("algo-1"),
}))
"""
    with socket.create_server(("127.0.0.1", 0)) as outside:
        port = str(outside.getsockname()[1])
        seen = json.loads(_run(_spec(folder, sys.executable, "-c", code, port))[1])
    assert seen.pop("seconds") < 5
    assert {"eth0", "lo"} <= set(seen.pop("interfaces")) <= {"eth0", "eth0-peer", "lo"}
    assert seen == {
        "machine": "ECONNREFUSED",
        "metadata": "ENETUNREACH",
        "internet": "ENETUNREACH",
        "name": "unknown",
        "self": "198.18.0.1",
        "algo-1": "198.18.0.1",
    }


@own_network
def test_hosts_of_a_job_reach_each_other(folder: Path, tmp_path: Path) -> None:
    """By name, on every port; both have port 22, and the other's is reached by its name."""
    code = """
import socket, sys
other = {"algo-1": "algo-2", "algo-2": "algo-1"}[sys.argv[1]]
server = socket.create_server((sys.argv[1], 22))
local = socket.create_server(("127.0.0.1", 22))
print("ready", flush=True)
open("/opt/ml/go").read()
with socket.create_connection((other, 22), timeout=20) as to, server.accept()[0] as conn:
    to.sendall(sys.argv[1].encode())
    to.shutdown(socket.SHUT_WR)
    print(conn.makefile().read(), "reached", sys.argv[1], flush=True)
open("/opt/ml/end").read()
"""

    async def main() -> list[str]:
        hub = await Hub.start("job")
        boxes = []
        for index, name in enumerate(("algo-1", "algo-2")):
            place = tmp_path / name
            (place / "ml").mkdir(parents=True)
            for pipe in ("go", "end"):
                os.mkfifo(place / "ml" / pipe)
            spec = _spec(
                place, sys.executable, "-c", code, name, hosts=["algo-1", "algo-2"], index=index, hub=hub
            )
            boxes.append((place, await Sandbox.start(spec)))
        lines = []
        for pipe in ("go", "end"):
            for _, box in boxes:
                line = (await asyncio.wait_for(box.output.readline(), LIMIT)).decode()
                lines.append(line.strip())
            for place, box in boxes:
                assert box.running, await box.output.read()
                (place / "ml" / pipe).write_text("")
        for _, box in boxes:
            assert await asyncio.wait_for(box.wait(), LIMIT) == 0
        await hub.close()
        return lines

    assert asyncio.run(main()) == ["ready"] * 2 + ["algo-2 reached algo-1", "algo-1 reached algo-2"]


@own_network
def test_endpoints_are_reached_at_their_addresses(folder: Path) -> None:
    """Both ways, with more than fits into buffers, half-closed; the container's end cuts what is open."""
    code = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as item:
    item.sendall(b"x" * 8_000_000)
    item.shutdown(socket.SHUT_WR)
    size = 0
    while part := item.recv(65536):
        size += len(part)
print(size, flush=True)
idle = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
idle.sendall(b"hello")
print("idle", flush=True)
open("/opt/ml/end").read()
"""
    os.mkfifo(folder / "ml" / "end")

    async def main() -> tuple[bytes, bytes, bytes]:
        ends: asyncio.Queue[bytes] = asyncio.Queue()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            got = await reader.read()
            if got.startswith(b"x"):
                writer.write(got)
                await writer.drain()
            else:
                ends.put_nowait(got)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        spec = _spec(folder, sys.executable, "-c", code, str(port), endpoints=(("127.0.0.1", port),))
        box = await Sandbox.start(spec)
        first = await asyncio.wait_for(box.output.readline(), LIMIT)
        second = await asyncio.wait_for(box.output.readline(), LIMIT)
        (folder / "ml" / "end").write_text("")
        assert await asyncio.wait_for(box.wait(), LIMIT) == 0
        third = await asyncio.wait_for(ends.get(), LIMIT)
        server.close()
        return first, second, third

    assert asyncio.run(main()) == (b"8000000\n", b"idle\n", b"hello")


@own_network
def test_its_ports_are_reached_from_outside(folder: Path) -> None:
    code = """
import socket
server = socket.create_server(("127.0.0.1", 8080))
print("ready", flush=True)
for _ in range(4):
    with server.accept()[0] as item:
        item.sendall(b"hello")
"""

    async def main() -> None:
        box = await Sandbox.start(_spec(folder, sys.executable, "-c", code))
        assert await asyncio.wait_for(box.output.readline(), LIMIT) == b"ready\n"
        loop = asyncio.get_running_loop()
        for made in await asyncio.gather(*(box.connect(8080) for _ in range(3))):
            with made:
                assert await asyncio.wait_for(loop.sock_recv(made, 100), LIMIT) == b"hello"
        with pytest.raises(ConnectionRefusedError):
            await box.connect(8081)
        (await box.connect(8080)).close()  # its last
        assert await asyncio.wait_for(box.wait(), LIMIT) == 0
        with pytest.raises(OSError, match=r"ended|Bad file"):
            await box.connect(8080)

    asyncio.run(main())


NO_NETWORKS = (
    "echo 0 > /proc/sys/user/max_net_namespaces &&"
    ' exec "$0" -m pytest -q -p no:cacheprovider --basetemp "$3" "$1" -k "$2"'
)


def test_without_networks_of_their_own_jobs_run_and_one_line_says_so(common: Path) -> None:
    """Really without: in a user namespace that allows no network namespace."""
    if os.environ.get("SMSSH_TEST_SHARED"):
        needs.does_not_apply("this is the inner run")
    who = somebody(common)
    image = image_for(who, common)
    probe = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))"
    transform = str(REPOSITORY / "tests/local/jobs/test_batch_transform.py")
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", NO_NETWORKS, who.python, transform]
    done = who.run(
        *("-c", probe, *command, "several_hosts or whole_objects", str(common / "inner")),
        folder=common,
        timeout=LIMIT,
        SMSSH_TEST_SHARED="1",
        SMSSH_TEST_MISSING="fail",
        SMSSH_TEST_IMAGE_ENV=str(image),
        TMPDIR=str(common),
        PYTHONDONTWRITEBYTECODE="1",
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "2 passed" in done.stdout
    code = "from smssh_plugin.local.sandbox.container import shared_network; print(shared_network())"
    script = 'echo 0 > /proc/sys/user/max_net_namespaces && exec "$0" -c "$1"'
    said = who.run(
        *("-c", probe, "unshare", "--user", "--map-root-user", "sh", "-c", script, who.python, code),
        folder=common,
        timeout=LIMIT,
    )
    assert said.stdout.startswith("jobs share this machine's network (no network of their own: unshare: "), (
        said.stdout
    )
    assert said.stdout.count("\n") == 1


def test_terminals(folder: Path) -> None:
    code = (
        "import os, pty; a, b = pty.openpty(); print(os.ttyname(b)); os.write(b, b'x'); print(os.read(a, 1))"
    )
    assert _python(folder, code) == "/dev/pts/0\nb'x'\n"


def test_copy_on_write(folder: Path) -> None:
    image = folder.parent / "an: image, with\\ odd name"
    image.mkdir()
    (image / "kept").write_text("1")
    (image / "changed").write_text("1")
    script = 'cd "$0" && echo 2 > changed && echo 3 > new && rm kept && cat changed new && ls'
    result = _run(_spec(folder, "sh", "-c", script, str(image), copy_on_write=(image,)))
    assert result == (0, "2\n3\nchanged\nnew\n")
    assert {path.name: path.read_text() for path in image.iterdir()} == {"kept": "1", "changed": "1"}
    remove_tree(folder)
    assert not folder.exists()


def test_signals_are_as_in_a_fresh_process(folder: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in a shell's background
    try:
        output = _run(_spec(folder, "grep", "-E", "SigBlk|SigIgn", "/proc/self/status"))[1]
    finally:
        signal.signal(signal.SIGINT, before)
    # Signals 32 and 33 are the C library's own (signal(7)): it lets nobody change what it inherited.
    changeable = ~(1 << 31 | 1 << 32)
    assert [int(line.split()[1], 16) & changeable for line in output.splitlines()] == [0, 0]


def test_no_descriptors_are_inherited(folder: Path) -> None:
    code = "import os; print([n for n in range(3, 100) if os.path.exists(f'/proc/self/fd/{n}')])"
    with open(folder / "hosts", "w") as file:
        os.set_inheritable(file.fileno(), True)
        assert _python(folder, code) == "[]\n"


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 200", 200), ("exec sh -c 'exit 3'", 3)])
def test_exit_status(folder: Path, script: str, code: int) -> None:
    assert _run(_spec(folder, "sh", "-c", script))[0] == code


def test_kill_and_terminate(folder: Path) -> None:
    async def main() -> tuple[int, int, bool]:
        killed = await Sandbox.start(_spec(folder, "sleep", "60"))
        killed.terminate()
        await asyncio.sleep(0.3)
        # Without a handler, PID 1 does not see SIGTERM.
        alive = killed.running
        killed.kill()
        other = await Sandbox.start(
            _spec(folder, "sh", "-c", "trap 'exit 4' TERM; echo; while :; do sleep 0.02; done")
        )
        await other.output.read(1)
        other.terminate()
        return await killed.wait(), await other.wait(), alive

    assert asyncio.run(main()) == (128 + signal.SIGKILL, 4, True)


def test_another_program_in_it(folder: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"

    async def main() -> None:
        sandbox = await Sandbox.start(_spec(folder, "sh", "-c", "echo ready; sleep 1000 & wait"))
        assert await asyncio.wait_for(sandbox.output.readline(), LIMIT) == b"ready\n"
        (folder / "ml" / "in").write_text("hello\n")

        async def run(*argv: str) -> Program:
            return await sandbox.run(list(argv), {"PATH": PATH, "A": "1"}, log)

        script = "cat /opt/ml/in; env | grep A=; tr '\\0' ' ' < /proc/1/cmdline; cat; exit 7"
        assert await asyncio.wait_for((await run("sh", "-c", script)).wait(), LIMIT) == 7
        assert log.read_text() == "hello\nA=1\nsh -c echo ready; sleep 1000 & wait "
        asleep = await run("sleep", "1000")
        assert asleep.running
        asleep.terminate()
        assert await asyncio.wait_for(asleep.wait(), LIMIT) == 128 + signal.SIGTERM
        with pytest.raises(SandboxStartError) as caught:
            await run("/nowhere/program")
        assert (caught.value.stage, caught.value.number) == ("exec", errno.ENOENT)
        stubborn = [await run("sh", "-c", "trap '' TERM; sleep 1000 & wait; wait") for _ in range(2)]
        stubborn[0].kill()
        assert await asyncio.wait_for(stubborn[0].wait(), LIMIT) == 128 + signal.SIGKILL
        sandbox.kill()
        await asyncio.wait_for(sandbox.wait(), LIMIT)
        assert await asyncio.wait_for(stubborn[1].wait(), LIMIT) == 128 + signal.SIGKILL
        with pytest.raises(SandboxStartError) as caught:
            await run("true")
        assert caught.value.stage == "namespaces"

    asyncio.run(main())


def test_it_is_not_this_machine_that_is_entered(folder: Path, tmp_path: Path) -> None:
    """Where the PID of a container that has ended is another process' by now."""

    async def main() -> None:
        sandbox = await Sandbox.start(_spec(folder, "true"))
        await asyncio.wait_for(sandbox.output.read(), LIMIT)
        await asyncio.wait_for(sandbox.wait(), LIMIT)
        sandbox.pid = os.getpid()
        with pytest.raises(SandboxStartError) as caught:
            await sandbox.run(["true"], {"PATH": PATH}, tmp_path / "log")
        assert caught.value.number == errno.ESRCH

    asyncio.run(main())


@pytest.mark.parametrize(
    ("argv", "number"),
    [(["no-such-program"], 2), (["/etc"], 13), (["/opt/ml/script"], 8), (["/opt/ml/bad"], 2)],
)
def test_commands_that_do_not_start(folder: Path, argv: list[str], number: int) -> None:
    for name, text in (("script", "no interpreter\n"), ("bad", "#!/no/such/interpreter\n")):
        (folder / "ml" / name).write_text(text)
        (folder / "ml" / name).chmod(0o755)
    with pytest.raises(SandboxStartError) as caught:
        _run(_spec(folder, *argv))
    assert (caught.value.stage, caught.value.number) == ("exec", number)
    assert argv[0] in caught.value.message


def test_mount_that_fails(folder: Path) -> None:
    with pytest.raises(SandboxStartError) as caught:
        _run(_spec(folder, "true", ml=folder / "nothing"))
    assert caught.value.stage == "mounts"
    assert "nothing" in caught.value.message


NO_NAMESPACES = (
    "echo 0 > /proc/sys/user/max_user_namespaces &&"
    ' exec setpriv --ambient-caps=-all --inh-caps=-all --bounding-set=-all "$0" -c "$1"'
)


@pytest.mark.needs("unshare", "setpriv")
def test_no_namespaces_is_said_early(common: Path) -> None:
    """Really none: in a user namespace that allows no other, without capabilities."""
    who = somebody(common)
    code = (
        "from smssh_plugin.local.sandbox.container import check_support\n"
        "from smssh_plugin.errors import SmsshError\n"
        "try:\n    check_support()\n"
        "except SmsshError as error:\n    print(error.reference, '|', error)\n"
    )
    probe = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))"
    command = [
        "unshare",
        "--user",
        "--map-current-user",
        "--keep-caps",
        "sh",
        "-c",
        NO_NAMESPACES,
        who.python,
        code,
    ]
    done = who.run("-c", probe, *command, folder=common, timeout=LIMIT)
    if "unshare" in done.stdout.split(":")[0]:
        needs.missing("namespaces", done.stdout.strip())
    assert done.stdout.startswith("no-namespaces | no user namespaces and not root: unshare: "), done.stdout
    assert "hint: allow user namespaces: sudo sysctl -w user.max_user_namespaces=15000" in done.stdout
