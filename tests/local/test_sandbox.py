"""The containers of the stand-in."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest

from smssh_plugin.errors import SmsshError
from smssh_plugin.local.job_run import remove_tree
from smssh_plugin.local.sandbox import (
    Program,
    Sandbox,
    SandboxSpec,
    SandboxStartError,
    check_support,
    hosts_file,
    mode,
)

from .jobs_support import mounts, somebody

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(60)

PATH = "/usr/local/bin:/usr/bin:/bin"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    try:
        check_support()
    except SmsshError as error:
        pytest.skip(error.message)
    (tmp_path / "box" / "ml").mkdir(parents=True)
    before = mounts()
    yield tmp_path / "box"
    assert mounts() == before


def _spec(folder: Path, *argv: str, **changes: Any) -> SandboxSpec:
    arguments: dict[str, Any] = {
        "environment": {"PATH": PATH},
        "folder": folder,
        "ml": folder / "ml",
        **changes,
    }
    return SandboxSpec(argv=list(argv), **arguments)


def _run(spec: SandboxSpec) -> tuple[int, str]:
    async def main() -> tuple[int, str]:
        sandbox = await Sandbox.start(spec)
        output = await asyncio.wait_for(sandbox.output.read(), 30)
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
        pytest.skip(error.message)


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


@pytest.mark.parametrize("name", ["/opt", "/run", "/var/lib", "/var/log"])
def test_folders_keep_what_they_hold_and_new_things_stay_inside(folder: Path, name: str) -> None:
    outside = {entry for entry in os.listdir(name) if entry not in ("ml", "smssh", "amazon")}
    new = f"{name}/smssh-test-{os.getpid()}"
    code = f"import os, json; print(json.dumps(os.listdir({name!r}))); os.mkdir({new!r})"
    inside = set(json.loads(_python(folder, code)))
    assert outside <= inside
    assert inside - outside <= {"ml", "job"}
    assert not os.path.exists(new)


def test_home_temporary_folder_and_shared_memory(folder: Path) -> None:
    script = "touch /run/job/home/a /run/job/tmp/b /dev/shm/smssh-test && ls /dev/shm"
    assert _run(_spec(folder, "sh", "-c", script)) == (0, "smssh-test\n")
    assert os.listdir(folder / "home") == ["a"]
    assert os.listdir(folder / "tmp") == ["b"]
    assert not os.path.exists("/dev/shm/smssh-test")


def test_terminals(folder: Path) -> None:
    code = (
        "import os, pty; a, b = pty.openpty(); print(os.ttyname(b)); os.write(b, b'x'); print(os.read(a, 1))"
    )
    assert _python(folder, code) == "/dev/pts/0\nb'x'\n"


def test_hosts_resolve(folder: Path) -> None:
    code = "import socket; print([socket.gethostbyname(n) for n in ('localhost', 'algo-1', 'algo-2')])"
    assert _python(folder, code, hosts=["algo-1", "algo-2"]) == f"{['127.0.0.1'] * 3}\n"
    assert socket.gethostname() in hosts_file(["algo-1"])


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
        assert await asyncio.wait_for(sandbox.output.readline(), 30) == b"ready\n"
        (folder / "ml" / "in").write_text("hello\n")

        async def run(*argv: str) -> Program:
            return await sandbox.run(list(argv), {"PATH": PATH, "A": "1"}, log)

        script = "cat /opt/ml/in; env | grep A=; tr '\\0' ' ' < /proc/1/cmdline; cat; exit 7"
        assert await asyncio.wait_for((await run("sh", "-c", script)).wait(), 30) == 7
        assert log.read_text() == "hello\nA=1\nsh -c echo ready; sleep 1000 & wait "
        asleep = await run("sleep", "1000")
        assert asleep.running
        asleep.terminate()
        assert await asyncio.wait_for(asleep.wait(), 30) == 128 + signal.SIGTERM
        with pytest.raises(SandboxStartError) as caught:
            await run("/nowhere/program")
        assert (caught.value.stage, caught.value.number) == ("exec", errno.ENOENT)
        stubborn = [await run("sh", "-c", "trap '' TERM; sleep 1000 & wait; wait") for _ in range(2)]
        stubborn[0].kill()
        assert await asyncio.wait_for(stubborn[0].wait(), 30) == 128 + signal.SIGKILL
        sandbox.kill()
        await asyncio.wait_for(sandbox.wait(), 30)
        assert await asyncio.wait_for(stubborn[1].wait(), 30) == 128 + signal.SIGKILL
        with pytest.raises(SandboxStartError) as caught:
            await run("true")
        assert caught.value.stage == "namespaces"

    asyncio.run(main())


def test_it_is_not_this_machine_that_is_entered(folder: Path, tmp_path: Path) -> None:
    """Where the PID of a container that has ended is another process' by now."""

    async def main() -> None:
        sandbox = await Sandbox.start(_spec(folder, "true"))
        await asyncio.wait_for(sandbox.output.read(), 30)
        await asyncio.wait_for(sandbox.wait(), 30)
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


def test_no_namespaces_is_said_early(common: Path) -> None:
    """Really none: in a user namespace that allows no other, without capabilities."""
    if shutil.which("unshare") is None or shutil.which("setpriv") is None:
        pytest.skip("no unshare or no setpriv")
    who = somebody(common)
    code = (
        "from smssh_plugin.local.sandbox import check_support\n"
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
    done = who.run("-c", probe, *command, folder=common, timeout=30)
    if "unshare" in done.stdout.split(":")[0]:
        pytest.skip(done.stdout.strip())
    assert done.stdout.startswith("no-namespaces | no user namespaces and not root: unshare: "), done.stdout
    assert "hint: allow user namespaces: sudo sysctl -w user.max_user_namespaces=15000" in done.stdout
