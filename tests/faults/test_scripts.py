"""User scripts that do as they please: in the toolkit and under a wrapped entry point they end as without us."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import textwrap
from pathlib import Path

import pytest

from tests import needs
from tests.waiting import LIMIT, until

SCRIPTS = {
    "daemonises": """
        import os, sys, time
        if os.fork():
            os._exit(7)
        os.setsid()
        if os.fork():
            os._exit(0)
        null = os.open("/dev/null", os.O_RDWR)
        for handle in range(3):
            os.dup2(null, handle)
        with open("{folder}/daemon", "w") as file:
            file.write(str(os.getpid()))
        time.sleep(600)
    """,
    "changes directory": """
        import os, sys
        os.makedirs("{folder}/gone"); os.chdir("{folder}/gone"); os.rmdir("{folder}/gone")
        raise ValueError("user bug")
    """,
    "closes descriptors": """
        import os, sys
        os.closerange(3, 4096)
        os.write(1, b"user: still here\\n")
        os.close(0); os.close(1); os.close(2)
        os._exit(7)
    """,
    "execs": """
        import os, sys
        os.execv("/bin/sh", ["sh", "-c", "echo user: another program; exit 7"])
    """,
    "execs itself": """
        import os, sys
        if "AGAIN" not in os.environ:
            os.environ["AGAIN"] = "1"
            os.execv(sys.executable, [sys.executable, *sys.argv])
        os.write(1, b"user: again\\n")
        sys.exit(7)
    """,
    "has its own sitecustomize": """
        import os, sys, subprocess
        import sitecustomize
        os.write(1, f"user: {{sitecustomize.WHOSE}}\\n".encode())
        child = "import sitecustomize; print('user: child', sitecustomize.WHOSE, flush=True); exit(7)"
        sys.exit(subprocess.call([sys.executable, "-c", child]))
    """,
    "clears its environment": """
        import os, subprocess, sys
        os.environ.clear()
        sys.exit(subprocess.call([sys.executable, "-c", "import os; os.write(1, b'user: bare\\\\n'); exit(7)"]))
    """,
    "handles every signal": """
        import os, signal, sys, time
        for number in set(signal.Signals) - {{signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}}:
            signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
        time.sleep(0.5)
        sys.exit(7)
    """,
    "has a waitpid loop of its own": """
        import os, sys, subprocess
        child = subprocess.Popen(["sh", "-c", "exit 5"])
        seen = []
        while True:
            try:
                seen.append(os.waitpid(-1, 0)[1] >> 8)
            except ChildProcessError:
                break
        os.write(1, f"user: {{seen}}\\n".encode())
        sys.exit(7)
    """,
    "ends its process group": """
        import contextlib, os, signal, time
        with contextlib.suppress(PermissionError):  # it leads its session already
            os.setpgid(0, 0)
        os.killpg(0, signal.SIGTERM)
        time.sleep(60)
    """,
}


def user_lines(container):
    return [line for line in container.output().splitlines() if line.startswith("user: ")]


@pytest.fixture
def daemons(container):
    """Ends what a script has left behind on purpose."""
    yield
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        os.kill(int((container.folder / "daemon").read_text()), signal.SIGKILL)


@pytest.mark.usefixtures("daemons")
@pytest.mark.parametrize("way", ["toolkit", "wrapped"])
@pytest.mark.parametrize("what", SCRIPTS)
def test_a_script_that_does_as_it_pleases(container, what, way) -> None:
    source = textwrap.dedent(SCRIPTS[what]).format(folder=container.folder)
    ends = []
    for on in (False, True):
        container.toolkit_job(source)
        (container.base / "source" / "sitecustomize.py").write_text("WHOSE = 'the job'\n")
        if way == "toolkit":
            process = container.train(on=on, SMSSH_HOLD="failure", SMSSH_HOLD_SECONDS=1)
        else:
            # The parent tells a script that is there by its folder on PYTHONPATH, as an image would have it.
            process = container.start(
                *("/bin/sh", container.bundle / "run.sh", "python", container.base / "source" / "train.py"),
                on=on,
                PYTHONPATH=container.base / "source",
                SMSSH_HOLD="failure",
                SMSSH_HOLD_SECONDS=1,
            )
        code = process.wait(LIMIT)
        ends.append((shell_status(code), container.failure_file(), user_lines(container)))
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int((container.folder / "daemon").read_text()), signal.SIGKILL)
            (container.folder / "daemon").unlink()
    assert ends[1] == ends[0]
    assert ends[0][0] != 0
    container.assert_quiet()


def shell_status(code):
    """A container's exit status: 128 + N, whether the process or its init says that signal N ended it."""
    return 128 - code if code < 0 else code


LOUD = """
import os, sys
block = b"~" * 1022 + b"\\n"
for number in range(8 * 1024):
    os.write(1 + number % 2, block)
sys.stderr.write("the last words\\n")
raise ValueError("user bug")
"""


@pytest.mark.parametrize("hold", ["", "failure"])
def test_huge_output_with_capture_error(container, hold) -> None:
    """8 MB through the pipe that the toolkit reads: all of it arrives, and the failure file is the same."""
    module = container.folder / "framework"
    module.mkdir()
    (module / "framework.py").write_text(
        "from sagemaker_training import entry_point, environment\n"
        "def main():\n"
        "    env = environment.Environment()\n"
        "    entry_point.run(env.module_dir, env.user_entry_point, env.to_cmd_args(), env.to_env_vars(),\n"
        "                    capture_error=True)\n"
    )
    ends = []
    for on in (False, True):
        container.toolkit_job(LOUD)
        path = f"{container.bundle}:{module}" if on else str(module)
        process = container.train(
            on=on,
            PYTHONPATH=path,
            SAGEMAKER_TRAINING_MODULE="framework:main",
            SMSSH_HOLD=hold,
            SMSSH_HOLD_SECONDS=1,
        )
        code = process.wait(LIMIT)
        ends.append((code, container.failure_file(), container.output().count("~")))
    assert ends[1] == ends[0]
    assert b"ValueError: user bug" in ends[0][1]
    container.assert_quiet()


# -------------------------------------------------------------------------------- the MPI runner's own SSH server


@pytest.fixture
def port_22(container):
    """Namespaces in which port 22, /run and /etc/ssh are the test's own; the toolkit's sshd wants them."""
    if os.geteuid() != 0:
        needs.does_not_apply("the toolkit's MPI runner starts /usr/sbin/sshd as root")
    needs.program("sshd")
    needs.program("ip")
    keys = container.folder / "etc-ssh"
    keys.mkdir()
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", keys / "ssh_host_ed25519_key"], check=True
    )
    (keys / "sshd_config").write_text("UsePAM no\n")
    root = container.folder / "root-ssh"
    root.mkdir(mode=0o700)
    script = (
        "set -e; PATH=$PATH:/usr/sbin:/sbin; ip link set lo up; "
        f"mount --bind {keys} /etc/ssh; mount -t tmpfs -o mode=755 smssh-test /run; mkdir /run/sshd; "
        'exec "$@"'
    )
    command = ["unshare", "--mount", "--propagation", "private", "--net", "/bin/sh", "-c", script, "sh"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        needs.missing("namespaces")
    return command, keys


# As sagemaker_training/mpi.py has it: `/usr/sbin/sshd -D`, then the workers are waited for through port 22.
MPI = """
import socket, subprocess, sys, time
server = subprocess.Popen(["/usr/sbin/sshd", "-D"])
end = time.monotonic() + {patience}
while time.monotonic() < end and server.poll() is None and {unfinished}:
    time.sleep(0.05)
print("user: sshd", server.poll())
with socket.create_connection(("127.0.0.1", 22), 5) as connection:
    print("user:", connection.recv(4).decode())
server.poll() is None and server.kill()
sys.exit(0 if server.returncode is None else server.wait())
"""


def test_an_ssh_server_of_ours_on_port_22_would_be_in_its_way(container, port_22) -> None:
    command, _ = port_22
    script = container.script(MPI.format(patience=10, unfinished="True"))
    careless = f"/usr/sbin/sshd && exec python -u {script}"
    process = container.start(*command, "sh", "-c", careless, on=False)
    try:
        assert process.wait(LIMIT) == 255
        assert "user: sshd 255\n" in container.output()
    finally:
        subprocess.run(["pkill", "-KILL", "-s", str(process.pid)], check=False)
        for pid in sessions_with(container, "etc-ssh"):
            os.kill(pid, signal.SIGKILL)


def sessions_with(container, name):
    """Processes in a mount namespace of the test's own: those whose /etc/ssh is the test's folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if f"{container.folder}/{name}" in (entry / "mountinfo").read_text():
                    found.append(int(entry.name))
    return found


def test_ours_leaves_port_22_alone(container, port_22) -> None:
    command, keys = port_22
    before = {path.name: path.read_bytes() for path in keys.iterdir()}
    script = container.script(MPI.format(patience=60, unfinished="not __import__('os').path.exists('go')"))
    process = container.start(
        *command, "/bin/sh", container.bundle / "run.sh", "python", "-u", script, SMSSH_SSH_SERVER="sshd"
    )
    until(
        lambda: "ready: " in container.output(),
        what=lambda: f"a login; {container.output()} {container.log()}",
    )
    ports = [line.split()[-1] for line in container.log().splitlines() if "SSH server sshd on port" in line]
    assert ports
    assert "22" not in ports
    container.script("", name="go")
    assert process.wait(LIMIT) == 0, container.output()
    assert user_lines(container) == ["user: sshd None", "user: SSH-"]
    assert {path.name: path.read_bytes() for path in keys.iterdir()} == before
    assert not (container.home / ".ssh").exists()
    container.assert_quiet()
