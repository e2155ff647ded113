"""sshd's configuration, and when it is not used."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from smssh_plugin.hooks import sshd

from tests.entrypoints.container import IMAGE, poll

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin")


def test_set_env_is_one_line_and_escaped():
    line = sshd.set_env([("A", 'x "y" \\z'), ("B", "two\nlines"), ("BAD-NAME", "x"), ("C", "d e'f")])
    assert line == 'SetEnv "A=x \\"y\\" \\\\z" "C=d e\'f"\n'
    assert sshd.set_env([]) == ""


@pytest.mark.skipif(SSHD is None, reason="sshd is not installed")
def test_version():
    assert sshd.version(SSHD) >= (7, 0)
    assert sshd.version("/bin/true") == (0, 0)


def test_user_namespaces(tmp_path):
    """The id that sshd drops its privileges to has to exist where it runs."""
    mapping = tmp_path / "uid_map"
    mapping.write_text("         0       1000          1\n")
    assert sshd._mapped(mapping, 0)
    assert not sshd._mapped(mapping, 101)
    mapping.write_text("         0          0 4294967295\n")
    assert sshd._mapped(mapping, 101)
    assert sshd._mapped(tmp_path / "none", 101)


def test_in_a_user_namespace_asyncssh_takes_over(container):
    """As `unshare --map-root-user` makes them: root by name, but with one id mapped and no setgroups."""
    unshare = ["unshare", "--user", "--map-root-user"]
    if subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("no user namespaces here")
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
    assert process.wait(40) == 3
    container.assert_quiet()


@pytest.mark.skipif(not IMAGE.exists(), reason="no image environment")
def test_a_server_that_was_asked_for_and_is_not_there_is_named(container):
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
    assert process.wait(40) == 0


@pytest.mark.skipif(SSHD is None, reason="sshd is not installed")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user without an account")
def test_without_an_account_asyncssh_takes_over(container):
    """Images may be run with any user id: no account, no home, and an ssh-keygen that refuses to work."""
    system = "/usr/bin/python3"
    version = subprocess.run([system, "-V"], capture_output=True, text=True, check=False).stdout
    if not version.startswith(f"Python {sys.version_info[0]}.{sys.version_info[1]}."):
        pytest.skip("the system's Python is another version than the wheels")
    for folder in [container.folder, *container.folder.parents[:2], container.bundle]:
        folder.chmod(0o755)
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
    log = poll(lambda: "ready: " in container.log() and container.log(), what=f"a login; {container.log()}")
    assert "user id 54321 has no account" in log
    answer = json.loads((container.run_dir / "ssh" / "asyncssh.json").read_text())
    assert container.ssh({"ssh": answer}, "id -u").stdout == "54321\n"
    container.script("", name="go")
    assert process.wait(40) == 3
    container.assert_quiet()
