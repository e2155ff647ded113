"""sshd's configuration, and when it is not used."""

import json
import os
import subprocess
import sys

import pytest

from smssh_plugin.container import login_shell, openssh
from smssh_plugin.errors import SmsshError
from smssh_plugin.hookspecs import Context, Job
from smssh_plugin.settings import load
from tests import needs
from tests.entrypoints.container import let_others_in
from tests.waiting import LIMIT, until

STUB = """#!/bin/sh
# An sshd that knows little: it refuses two keywords, and wants a folder first.
[ -d {folder} ] || {{ echo "Missing privilege separation directory: {folder}" >&2; exit 255; }}
grep -nE '^({refused})' "$3" | sed "s,^\\([0-9]*\\):.*,$3 line \\1: Bad configuration option," >&2
! grep -qE '^({refused})' "$3"
"""


@pytest.fixture
def stub(tmp_path):
    def make(refused, folder=tmp_path / "empty"):
        path = tmp_path / "sshd"
        path.write_text(STUB.format(folder=folder, refused=refused))
        path.chmod(0o755)
        return str(path)

    return make


def test_what_an_sshd_does_not_know_is_left_out(tmp_path, stub) -> None:
    config = tmp_path / "config"
    config.write_text("Port 1\nSetEnv A=b\nListenAddress 127.0.0.1\nPerSourcePenalties no\n")
    openssh.accept(stub("SetEnv|PerSourcePenalties"), config)
    assert config.read_text() == "Port 1\nListenAddress 127.0.0.1\n"
    assert (tmp_path / "empty").stat().st_mode & 0o777 == 0o755


def test_what_an_sshd_must_know(tmp_path, stub) -> None:
    """It must rather not run than listen to the world."""
    config = tmp_path / "config"
    config.write_text("Port 1\nListenAddress 127.0.0.1\n")
    with pytest.raises(SmsshError, match="line 2: Bad configuration option"):
        openssh.accept(stub("ListenAddress"), config)
    assert "ListenAddress" in config.read_text()


def test_a_folder_that_cannot_be_made(tmp_path, stub) -> None:
    config = tmp_path / "config"
    config.write_text("Port 1\n")
    (tmp_path / "file").touch()
    with pytest.raises(SmsshError, match="Missing privilege separation directory"):
        openssh.accept(stub("Nothing", tmp_path / "file" / "in"), config)


def test_folders_with_odd_names(tmp_path, key) -> None:
    """TMPDIR may have spaces and percent signs in it."""
    program = needs.program("sshd")
    run = tmp_path / "a b%h'c"
    run.mkdir()
    context = Context(load({}), Job("job", "training", "algo-1"), run, dict(os.environ), "/", "")
    folder = login_shell.ssh_dir(context)
    login_shell.host_key(folder)
    config = folder / "sshd_config"
    config.write_text(openssh.configuration(context, 2222, "root", "/usr/lib/openssh/sftp-server"))
    openssh.accept(program, config)
    shown = subprocess.run(
        [program, "-T", "-f", str(config)], capture_output=True, text=True, check=True
    ).stdout
    assert f"hostkey {folder}/host_ed25519\n" in shown
    assert f"authorizedkeysfile {folder}/authorized_keys\n".replace("%", "%%") in shown
    login_shell.write_files(context, [])
    command = login_shell.session_command(context)
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        env={"SSH_ORIGINAL_COMMAND": "echo ran", "SHELL": "/bin/sh"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "ran\n"


def test_user_namespaces(tmp_path) -> None:
    """The id that sshd drops its privileges to has to exist where it runs."""
    mapping = tmp_path / "uid_map"
    mapping.write_text("         0       1000          1\n")
    assert openssh._mapped(mapping, 0)
    assert not openssh._mapped(mapping, 101)
    mapping.write_text("         0          0 4294967295\n")
    assert openssh._mapped(mapping, 101)
    assert openssh._mapped(tmp_path / "none", 101)


def test_in_a_user_namespace_asyncssh_takes_over(container) -> None:
    """As `unshare --map-root-user` makes them: root by name, but with one id mapped and no setgroups."""
    unshare = ["unshare", "--user", "--map-root-user"]
    if subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode != 0:
        needs.missing("namespaces", "no user namespaces")
    process = container.start(
        *unshare,
        "/bin/sh",
        container.bundle / "run.sh",
        "sh",
        "-c",
        "while [ ! -e go ]; do sleep 0.05; done; exit 3",
    )
    status = container.wait_for("running")
    assert status["ssh"]["server"] == "asyncssh"
    assert container.ssh(status, "id -u").stdout == "0\n"
    container.script("", name="go")
    assert process.wait(LIMIT) == 3
    container.assert_quiet()


@pytest.mark.needs("image environment")
def test_a_server_that_was_asked_for_and_is_not_there_is_named(container) -> None:
    process = container.wrap(
        "sh",
        "-c",
        "while [ ! -e go ]; do sleep 0.05; done",
        SMSSH_SSH_SERVER="sshd",
        SMSSH_DISABLE_HOOKS="sshd",
    )
    status = container.wait_for("running")
    assert "no SSH server works here" in status["error"]
    assert "no login is possible" in container.output()
    container.script("", name="go")
    assert process.wait(LIMIT) == 0


@pytest.mark.needs("sshd", "setpriv")
@pytest.mark.applies(os.geteuid() == 0, "only root can become a user without an account")
def test_without_an_account_asyncssh_takes_over(container) -> None:
    """Images may be run with any user id: no account, no home, and an ssh-keygen that refuses to work."""
    system = "/usr/bin/python3"
    version = subprocess.run([system, "-V"], capture_output=True, text=True, check=False).stdout
    if not version.startswith(f"Python {sys.version_info[0]}.{sys.version_info[1]}."):
        needs.does_not_apply("the system's Python is another version than the wheels")
    for folder in (container.folder, container.bundle):
        let_others_in(folder)
    container.run_dir.mkdir(mode=0o700)
    os.chown(container.run_dir, 54321, 54321)
    os.chown(container.folder, 54321, 54321)
    process = container.start(
        *("setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"),
        *(
            "/bin/sh",
            container.bundle / "run.sh",
            "sh",
            "-c",
            "while [ ! -e go ]; do sleep 0.05; done; exit 3",
        ),
        PATH="/usr/bin:/bin:/usr/sbin",
        HOME="",
    )
    log = until(
        lambda: "ready: " in container.log() and container.log(), what=lambda: f"a login; {container.log()}"
    )
    assert "user id 54321 has no account" in log
    answer = json.loads((container.run_dir / "ssh" / "asyncssh.json").read_text())
    assert container.ssh({"ssh": answer}, "id -u").stdout == "54321\n"
    container.script("", name="go")
    assert process.wait(LIMIT) == 3
    container.assert_quiet()
