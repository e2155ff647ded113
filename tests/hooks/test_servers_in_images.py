"""The SSH servers in images of other kinds: other releases of OpenSSH, other shells, much that is missing."""

import contextlib
import os
import pty
import select
import subprocess
import sys
import time

import pytest

from tests import needs
from tests.hooks.roots import Root
from tests.waiting import LIMIT, until

PTYS = "mount -t devpts -o newinstance,gid=5,mode=620,ptmxmode=666 devpts dev/pts; "
"""Terminals as Docker has them; without a group of their own, sshd cannot hand them over unless it is root."""
ACCOUNT = "echo worker:x:1234:1234::/home/worker:/bin/bash >> etc/passwd; mkdir -m 755 home/worker; "
ACCOUNT += "chown 1234:1234 home/worker; "
NOISE = "echo noise from {0}; echo noise from {0} >&2; PATH=/usr/bin:/bin; export PATH; cd /tmp\n"
"""A start file that resets PATH, goes elsewhere and prints."""


@pytest.fixture
def image(tmp_path, bundle, key):
    """Makes a container of a root."""
    made = []

    def make(name):
        made.append(Root(tmp_path, bundle, key, name))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def wheels():
    """For asyncssh from the bundle: its wheels are for the Python of the tests."""
    if sys.version_info[:2] != (3, 11):
        needs.does_not_apply("the bundle's wheels are for another Python than bookworm's")


def typed(container, status, text):
    """What a person sees who types something into a login; the login ends with `exit`."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        ["ssh", "-tt", *container.ssh_options(status), "127.0.0.1"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        env={"PATH": os.environ["PATH"], "TERM": "vt100"},
    )
    os.close(slave)
    seen = b""
    deadline = time.monotonic() + LIMIT
    try:
        os.write(master, text.encode())
        while time.monotonic() < deadline:
            if select.select([master], [], [], 0.1)[0]:
                try:
                    seen += os.read(master, 65536)
                except OSError:
                    break
            elif process.poll() is not None:
                break
        assert process.wait(max(0.1, deadline - time.monotonic())) is not None, seen
    finally:
        process.kill()
        process.wait()
        os.close(master)
    return seen.decode(errors="replace")


def check_copies(container, status, tmp_path):
    options = container.ssh_options(status)
    source, there, back = tmp_path / "source", tmp_path / "there", tmp_path / "back"
    source.write_bytes(os.urandom(100_000))
    for extra in ([], ["-O"]):
        for pair in ([str(source), f"127.0.0.1:{there}"], [f"127.0.0.1:{there}", str(back)]):
            subprocess.run(["scp", *extra, *options, *pair], check=True, timeout=LIMIT)
        assert back.read_bytes() == source.read_bytes()
        there.unlink()
        back.unlink()


def check_login(container, status, python="python3", path=""):
    """A person logs in, is where the code is, and runs it."""
    # The words that are looked for are not in what is typed, which the terminal shows too.
    text = f"{python} train.py\n"
    text += "printf 'here=%s\\n' \"$SMSSH_CODE_DIR\"\npwd\nsmssh-hook status --json | cut -c1-3\nexit\n"
    seen = typed(container, status, text)
    assert "trained /opt/ml/model" in seen, seen
    assert f"here={container.code}" in seen, seen
    if path:
        assert path in seen
    return seen


@pytest.mark.parametrize("name", ["bullseye", "bookworm", "trixie"])
def test_sshd_of_other_releases(image, tmp_path, name) -> None:
    container = image(name)
    container.prepare = "find etc/ssh -type f | xargs sha256sum > $folder/before; "
    odd = "two\nlines 'q' \"d\" \\ $x"
    status = container.run(SMSSH_SSH_SERVER="sshd", ODD=odd, SM_MODEL_DIR="/opt/ml/model")
    done = container.ssh(status, 'printf %s "$ODD"; echo err >&2; exit 7')
    assert (done.returncode, done.stdout, done.stderr) == (7, odd, "err\n")
    check_copies(container, status, tmp_path)
    check_login(container, status)
    # What sshd itself says that it does with the configuration.
    config = container.run_dir / "ssh" / "sshd_config"
    root = ["chroot", f"/proc/{supervisor(container)}/root"]
    shown = subprocess.run(
        [*root, "/usr/sbin/sshd", "-T", "-f", str(config)], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    port = status["ssh"]["port"]
    for line in (
        *(f"listenaddress 127.0.0.1:{port}", "passwordauthentication no", "kbdinteractiveauthentication no"),
        *(
            "allowtcpforwarding yes",
            "allowstreamlocalforwarding yes",
            "allowagentforwarding yes",
            "usepam no",
        ),
        *("x11forwarding no", "gatewayports no", "permituserenvironment no", "allowusers root"),
    ):
        assert line in shown, (line, shown)
    assert [line for line in shown if line.startswith("hostkey ")] == [
        f"hostkey {config.parent}/host_ed25519"
    ]
    if name == "trixie":
        assert "persourcepenalties no" in shown
    after = subprocess.run(
        [*root, "sh", "-c", "cd /; find etc/ssh -type f | xargs sha256sum; ls -A root/.ssh 2>/dev/null"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    assert after == (tmp_path / "before").read_text()
    container.end()


def supervisor(container):
    return next(pid for pid, command in container.strays() if "supervisor.main" in command)


def test_openssh_10_does_not_lock_out_who_failed(image, key, tmp_path) -> None:
    """Through a session everybody comes from 127.0.0.1, and one bad key would be everybody's penalty."""
    container = image("trixie")
    status = container.run(SMSSH_SSH_SERVER="sshd")
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)], check=True)
    for _ in range(8):
        assert container.ssh(status, "true", key=other).returncode == 255
    assert container.ssh(status, "echo in").stdout == "in\n"
    container.end()


SHELLS = {
    "bash": ["root/.bashrc", "root/.profile", "etc/bash.bashrc", "etc/profile"],
    "dash": ["root/.profile", "etc/profile"],
    "zsh": ["root/.zshrc", "root/.zprofile", "root/.zlogin"],
    "fish": [],
    "tcsh": [],
}
"""Shells, and their start files that a person's login reads."""


@pytest.mark.parametrize("server", ["sshd", "asyncssh"])
@pytest.mark.parametrize("shell", sorted(SHELLS))
def test_shells(image, tmp_path, wheels, server, shell) -> None:
    """Whatever the start files do, commands and copies are clean, and the login has the job's environment."""
    container = image("bookworm")
    container.prepare = f"sed -i '1s,/bin/bash$,/usr/bin/{shell},' etc/passwd; "
    for path in SHELLS[shell]:
        container.prepare += f"cat >> {path} <<'E'\n{NOISE.format(path)}E\n"
    if shell == "fish":
        container.prepare += "mkdir -p root/.config/fish; cat > root/.config/fish/config.fish <<'E'\n"
        container.prepare += (
            "if status is-interactive; set -gx PATH /usr/bin /bin; cd /tmp; echo noise; end\nE\n"
        )
    # The right Python is one that the start files do not know of.
    container.prepare += "mkdir -p opt/own/bin; ln -s /usr/bin/python3 opt/own/bin/python; "
    path = "/opt/own/bin:" + container.environ["PATH"]
    status = container.run(
        SMSSH_SSH_SERVER=server,
        PATH=path,
        SM_MODEL_DIR="/opt/ml/model",
        SM_HPS='{"a": "it\'s"}',
        status="x",
        path="y",
    )
    done = container.ssh(
        status, "command -v python; printenv SM_HPS" if shell != "tcsh" else "which python; printenv SM_HPS"
    )
    assert (done.stdout, done.stderr) == ('/opt/own/bin/python\n{"a": "it\'s"}\n', "")
    check_copies(container, status, tmp_path)
    seen = check_login(container, status, python="python", path="/opt/own/bin" if shell == "" else "")
    if SHELLS[shell] or shell == "fish":
        assert "noise" in seen  # the start files were read
    container.end()


def test_without_bash(image, wheels, tmp_path) -> None:
    container = image("bookworm")
    container.finish = "rm bin/bash; "
    status = container.run(SM_MODEL_DIR="/opt/ml/model")
    assert status["ssh"]["server"] == "asyncssh"
    assert "is not there" in container.log()
    assert container.ssh(status, "echo $SM_MODEL_DIR").stdout == "/opt/ml/model\n"
    check_copies(container, status, tmp_path)
    check_login(container, status)
    container.end()


def test_without_accounts(image, wheels, tmp_path) -> None:
    """No /etc/passwd at all, an id that nobody has, no home, nothing to write to but the run folder."""
    container = image("plain")
    container.user = "54321:54321"
    container.finish = "rm etc/passwd etc/group; mount -o remount,ro .; "
    status = container.run(HOME="/", SM_MODEL_DIR="/opt/ml/model")
    assert status["ssh"]["server"] == "asyncssh"
    done = container.ssh(status, "id -u; echo $HOME; touch ~/x && echo written")
    assert done.stdout == f"54321\n{container.run_dir}/home\nwritten\n"
    check_copies(container, status, tmp_path)
    check_login(container, status)
    container.end()


@pytest.mark.parametrize("server", ["sshd", "asyncssh"])
def test_an_ordinary_user(image, wheels, tmp_path, server) -> None:
    container = image("bookworm")
    container.prepare = PTYS + ACCOUNT
    container.user = "1234:1234"
    status = container.run(SMSSH_SSH_SERVER=server, HOME="/home/worker", SM_MODEL_DIR="/opt/ml/model")
    status["ssh"]["user"] = "worker"
    done = container.ssh(status, "id -un; pwd; kill -9 $$")
    assert (done.returncode, done.stdout) == (255, "worker\n/home/worker\n")
    check_copies(container, status, tmp_path)
    check_login(container, status)
    container.end()


@pytest.mark.parametrize("server", ["sshd", "asyncssh"])
def test_a_home_that_is_gone(image, wheels, server) -> None:
    container = image("bookworm")
    container.prepare = PTYS + ACCOUNT + "rmdir home/worker; "
    container.user = "1234:1234"
    status = container.run(SMSSH_SSH_SERVER=server, HOME="/home/worker", SM_MODEL_DIR="/opt/ml/model")
    status["ssh"]["user"] = "worker"
    done = container.ssh(status, 'touch "$HOME/x" && cd && pwd')
    assert done.stdout == f"{container.run_dir}/home\n"
    check_login(container, status)
    container.end()


def test_a_home_that_cannot_be_written_stays(image, wheels) -> None:
    """Models and settings that the image brought lie there."""
    container = image("bookworm")
    container.prepare = PTYS + ACCOUNT + "echo cached > home/worker/model; chown 0:0 home/worker; "
    container.user = "1234:1234"
    status = container.run(HOME="/home/worker", SM_MODEL_DIR="/opt/ml/model")
    status["ssh"]["user"] = "worker"
    assert container.ssh(status, "cat ~/model").stdout == "cached\n"
    check_login(container, status)
    container.end()


def test_a_read_only_root(image, wheels, tmp_path) -> None:
    """sshd wants its folder in /run; without it, the other server."""
    container = image("bookworm")
    container.prepare = "rm -rf run/sshd; "
    container.finish = "mount -o remount,ro .; "
    status = container.run(SM_MODEL_DIR="/opt/ml/model")
    assert status["ssh"]["server"] == "asyncssh"
    assert "privilege separation directory" in container.log()
    check_copies(container, status, tmp_path)
    check_login(container, status)
    container.end()


def test_without_an_sftp_server(image, wheels, tmp_path) -> None:
    container = image("bookworm")
    container.prepare = "rm usr/lib/openssh/sftp-server; "
    status = container.run()
    assert status["ssh"]["server"] == "asyncssh"
    check_copies(container, status, tmp_path)
    container.end()


def test_modules_in_the_root_folder_are_not_ours(image, wheels) -> None:
    """`COPY . /` in an image without a WORKDIR puts somebody's json.py where a server is started."""
    container = image("plain")
    container.prepare = (
        "for name in asyncssh socket struct termios; do echo 'raise SystemExit(9)' > $name.py; done; "
    )
    status = container.run()
    assert container.ssh(status, "echo in").stdout == "in\n"
    container.end()


def test_the_sshd_of_mpi_starts_beside_it(image) -> None:
    """The toolkits' MPI runner starts `/usr/sbin/sshd -D` on port 22, with the image's own files."""
    container = image("bookworm")
    container.namespaces = ["--net"]
    container.prepare = "mkdir -m 700 root/.ssh; cp $folder/mpi.pub root/.ssh/authorized_keys; "
    mpi = container.folder / "mpi"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(mpi)], check=True)
    status = container.run(SMSSH_SSH_SERVER="sshd")
    inside = ["nsenter", "-t", str(supervisor(container)), "-n"]
    # The job starts it later than ours.
    sshd = subprocess.Popen(
        [*inside, "chroot", f"/proc/{supervisor(container)}/root", "/usr/sbin/sshd", "-D", "-e"],
        stderr=subprocess.PIPE,
    )
    try:
        options = [
            "-F",
            "none",
            "-o",
            "BatchMode=yes",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "LogLevel=ERROR",
        ]
        options += [
            "-o",
            f"UserKnownHostsFile={container.folder}/known",
            "-i",
            str(mpi),
            "-o",
            "IdentitiesOnly=yes",
        ]

        def rank():
            assert sshd.poll() is None, sshd.stderr.read()
            return subprocess.run(
                [*inside, "ssh", *options, "root@127.0.0.1", "echo rank"],
                capture_output=True,
                text=True,
                check=False,
            )

        until(lambda: rank().stdout == "rank\n", what="MPI's login")
        ours = subprocess.run(
            [*inside, "ssh", *container.ssh_options(status), "127.0.0.1", "echo ours"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert ours.stdout == "ours\n", ours.stderr
        # Neither lets the other's people in.
        ours = container.ssh_options(status, key=mpi)
        refused = subprocess.run(
            [*inside, "ssh", *ours, "127.0.0.1", "true"], capture_output=True, check=False
        )
        assert refused.returncode == 255
    finally:
        sshd.kill()
        sshd.wait()
        sshd.stderr.close()
    container.end()


# ------------------------------------------------------------------------------------------- apt


def listening(pid):
    """The ports on which somebody listens in a network namespace."""
    ports = set()
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/net/{name}") as file:
            rows = [line.split() for line in file.readlines()[1:]]
            ports |= {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A"}
    return ports


def test_apt(image, tmp_path) -> None:
    """Without a network, from apt's cache: an archive that cannot be asked is not the end of it."""
    container = image("plain")
    container.namespaces = ["--net"]
    container.prepare = "rm -f usr/sbin/policy-rc.d; ls usr/sbin > $folder/before; "
    status = container.run(SMSSH_SSH_SERVER="apt", SM_MODEL_DIR="/opt/ml/model")
    assert status["ssh"]["server"] == "sshd", container.log()
    pid = supervisor(container)
    found = listening(pid)
    assert status["ssh"]["port"] in found
    assert len(found) == 2  # the other is the control port
    assert 22 not in found
    root = f"/proc/{pid}/root"
    assert not os.path.exists(f"{root}/usr/sbin/policy-rc.d")
    with (
        open(f"{root}/etc/ssh/sshd_config") as file,
        open(f"{root}/usr/share/openssh/sshd_config") as original,
    ):
        assert file.read() == original.read()
    assert os.stat(f"{root}/etc/ssh/sshd_config").st_mode & 0o777 == 0o644
    done = subprocess.run(
        [
            "nsenter",
            "-t",
            str(pid),
            "-n",
            "ssh",
            *container.ssh_options(status),
            "127.0.0.1",
            "printenv SM_MODEL_DIR",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "/opt/ml/model\n", done.stderr
    container.end()


def test_apt_that_cannot(image, wheels) -> None:
    """No network and no packages: one clear line, and the other server."""
    container = image("plain")
    container.namespaces = ["--net"]
    container.prepare = "rm -rf var/cache/apt/archives/*.deb; "
    status = container.run(SMSSH_SSH_SERVER="apt")
    assert status["ssh"]["server"] == "asyncssh"
    lines = [line for line in container.output().splitlines() if "openssh-server" in line]
    assert len(lines) == 1
    assert lines[0].startswith("smssh: openssh-server is not installed: apt-get install: ")
    container.end()


def test_apt_is_not_used_unasked(image, wheels) -> None:
    container = image("plain")
    status = container.run()
    assert status["ssh"]["server"] == "asyncssh"
    assert not (container.run_dir / "ssh" / "apt.log").exists()
    container.end()
