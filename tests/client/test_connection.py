"""Logins, commands, copies and forwards against a real SSH server, through a real ProxyCommand."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import psutil
import pytest

from smssh_plugin.client.connection import Connection
from smssh_plugin.errors import ExitStatus, SmsshError
from tests.waiting import LIMIT

from .conftest import SshServer, make_key

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def shared(ssh_server: SshServer):
    with Connection(ssh_server.endpoint) as connection:
        yield connection


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """The "remote" folder: the server runs on this machine."""
    folder = tmp_path / "there"
    folder.mkdir()
    return folder


def test_run_gives_status_and_both_streams(shared: Connection) -> None:
    result = shared.run("echo out; echo err >&2; exit 7")
    assert (result.status, result.stdout, result.error_text) == (7, b"out\n", "err\n")


def test_run_keeps_the_end_of_too_much_output(shared: Connection) -> None:
    result = shared.run("seq 1 200000; seq 1 9 >&2", limit=1000)
    assert len(result.stdout) == 1000
    assert result.text.endswith("199999\n200000\n")
    assert result.error_text.splitlines() == list("123456789")


def test_run_takes_words_literally(shared: Connection) -> None:
    words = ["printf", "%s|", "a b", "$HOME", "quote'quote", "*"]
    assert shared.run(words).text == "a b|$HOME|quote'quote|*|"


def test_run_passes_input_and_output_unchanged(shared: Connection) -> None:
    data = os.urandom(3_000_000)
    assert shared.run("cat", input=data).stdout == data


def test_run_without_input_gives_end_of_file(shared: Connection) -> None:
    assert shared.run("cat; echo done", timeout=20).text == "done\n"


def test_a_command_that_does_not_read_its_input_is_no_error(shared: Connection) -> None:
    assert shared.run("exec true", input=b"x" * 5_000_000).status == 0


def test_output_streams_while_the_command_runs(shared: Connection, there: Path) -> None:
    """The command waits for a file that is only made once its first line was seen."""
    seen: list[tuple[str, bytes]] = []

    def on_output(stream: str, piece: bytes) -> None:
        seen.append((stream, piece))
        (there / "go").touch()

    result = shared.run(
        f"echo first; until test -e {there}/go; do sleep 0.02; done; echo second",
        on_output=on_output,
        timeout=20,
    )
    assert result.text == "first\nsecond\n"
    assert seen[0] == ("stdout", b"first\n")


def test_run_in_parallel(shared: Connection) -> None:
    results: list[str] = []
    threads = [
        threading.Thread(target=lambda n=n: results.append(shared.run(f"echo {n}").text)) for n in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert sorted(results) == [f"{n}\n" for n in range(5)]


def test_a_command_that_takes_too_long(shared: Connection) -> None:
    with pytest.raises(SmsshError, match=r"longer than 0\.2 s") as caught:
        shared.run("exec sleep 30", timeout=0.2)
    assert caught.value.status is ExitStatus.TIMEOUT
    assert shared.run("true").status == 0


def test_a_remote_255_is_a_result(shared: Connection) -> None:
    assert shared.run("exit 255").status == 255


@pytest.mark.parametrize(
    "name", ["plain", "two words", 'quo"te', "sta*r[x]?", "back\\slash", "ünï", "-dash", "#hash"]
)
def test_copies_are_exact(shared: Connection, tmp_path: Path, there: Path, name: str) -> None:
    data = bytes(range(256)) * 4097
    source = tmp_path / name
    source.write_bytes(data)
    source.chmod(0o751)
    shared.put(source, str(there / name))
    copied = there / name
    assert copied.read_bytes() == data
    assert stat.S_IMODE(copied.stat().st_mode) == 0o751
    back = tmp_path / "back"
    back.mkdir()
    shared.get(str(there / name), back / name)
    assert (back / name).read_bytes() == data
    assert stat.S_IMODE((back / name).stat().st_mode) == 0o751


def test_folders_are_copied_whole(shared: Connection, tmp_path: Path, there: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / ".hidden").write_text("h")
    (tree / "a").write_text("a")
    shared.put(tree, str(there / "new"))
    assert (there / "new" / "sub" / ".hidden").read_text() == "h"
    shared.get(str(there / "new"), tmp_path / "again")
    assert (tmp_path / "again" / "a").read_text() == "a"


def test_copies_that_cannot_be(shared: Connection, tmp_path: Path, there: Path) -> None:
    with pytest.raises(SmsshError, match="no such file or folder here"):
        shared.put(tmp_path / "absent", "x")
    with pytest.raises(SmsshError, match="could not copy"):
        shared.get(str(there / "absent"), tmp_path / "x")
    (tmp_path / "f").write_text("f")
    with pytest.raises(SmsshError, match="could not copy"):
        shared.put(tmp_path / "f", str(there / "no" / "such" / "folder"))
    with pytest.raises(SmsshError, match="line break"):
        shared.get("a\nb", tmp_path / "x")


def test_a_wrong_key_is_refused(ssh_server: SshServer, tmp_path: Path) -> None:
    make_key(tmp_path / "other")
    with pytest.raises(SmsshError, match="does not accept your SSH key") as caught:
        Connection(ssh_server.with_key(tmp_path / "other"))
    assert caught.value.status is ExitStatus.REFUSED


def test_a_wrong_host_key_is_refused(ssh_server: SshServer, tmp_path: Path) -> None:
    with pytest.raises(SmsshError, match="another host key") as caught:
        Connection(ssh_server.with_host_key(make_key(tmp_path / "other")))
    assert caught.value.status is ExitStatus.REFUSED


def test_a_host_key_of_another_kind_is_refused(ssh_server: SshServer, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", str(tmp_path / "ec")], check=True)
    public = (tmp_path / "ec.pub").read_text().split()
    with pytest.raises(SmsshError, match="host key") as caught:
        Connection(ssh_server.with_host_key(" ".join(public[:2])))
    assert caught.value.status is ExitStatus.REFUSED


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_user_that_a_job_announces_is_no_line_of_sshs_configuration(
    ssh_server: SshServer, tmp_path: Path, end: str
) -> None:
    """It would be run here, as the person who logs in."""
    ran = tmp_path / "ran"
    user = f'root{end}Match exec "touch {ran}"'
    with pytest.raises(SmsshError, match=r"ssh cannot use .* as User"):
        Connection(replace(ssh_server.endpoint, user=user))
    assert not ran.exists()


def test_what_the_proxy_says_reaches_the_person(ssh_server: SshServer) -> None:
    says = (sys.executable, "-c", "import sys; sys.exit('error: no such thing as that job')")
    with pytest.raises(SmsshError, match="no such thing as that job") as caught:
        Connection(replace(ssh_server.endpoint, proxy=says))
    assert caught.value.status is ExitStatus.UNREACHABLE


def test_a_login_that_hangs_ends_in_time(ssh_server: SshServer) -> None:
    hangs = (sys.executable, "-c", "import time; time.sleep(60)")
    began = time.monotonic()
    with pytest.raises(SmsshError, match="longer than 1 s") as caught:
        Connection(replace(ssh_server.endpoint, proxy=hangs), timeout=1)
    assert caught.value.status is ExitStatus.TIMEOUT
    assert time.monotonic() - began < 10


def test_without_ssh_it_says_how_to_get_it(ssh_server: SshServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SmsshError, match="ssh is not installed") as caught:
        Connection(ssh_server.endpoint)
    assert "apt-get install openssh-client" in str(caught.value)


def test_close_leaves_nothing(ssh_server: SshServer) -> None:
    connection = Connection(ssh_server.endpoint)
    assert connection.run("true").status == 0
    folder = connection._login.folder
    children = psutil.Process().children(recursive=True)
    master = next(child for child in children if child.pid == connection._login.master.pid)
    family = [master, *master.children(recursive=True)]
    connection.close()
    connection.close()
    assert not psutil.wait_procs(family, timeout=LIMIT)[1]
    assert not folder.exists()
    with pytest.raises(SmsshError, match="is gone"):
        connection.run("true")


def test_a_lost_connection_says_so(ssh_server: SshServer) -> None:
    with Connection(ssh_server.endpoint) as connection:
        proxy = psutil.Process(connection._login.master.pid).children()
        threading.Timer(0.5, lambda: [one.kill() for one in proxy]).start()
        with pytest.raises(SmsshError, match="is gone") as caught:
            connection.run("exec sleep 30")
        assert caught.value.status is ExitStatus.UNREACHABLE


def test_the_login_ends_when_its_process_is_killed(ssh_server: SshServer) -> None:
    """No orphans: a CI runner that kills us must not leave sessions open."""
    program = (
        "import sys, time; from pathlib import Path; from smssh_plugin.client.connection import Connection;"
        "from smssh_plugin.client.endpoint import Endpoint;"
        f"c = Connection({ssh_server.endpoint!r}".replace("PosixPath", "Path")
        + "); print(c._login.master.pid, c._login.folder, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        pid, _, folder = process.stdout.readline().decode().strip().partition(" ")
        master = psutil.Process(int(pid))
        family = [master, *master.children(recursive=True)]
        process.send_signal(signal.SIGKILL)
        process.wait(LIMIT)
        assert not psutil.wait_procs(family, timeout=LIMIT)[1]
    finally:
        process.kill()
        process.communicate()
        shutil.rmtree(folder)  # SIGKILL leaves it; there is no secret in it


def test_the_users_own_ssh_configuration_does_not_matter(ssh_server: SshServer, tmp_path: Path) -> None:
    folder = tmp_path / ".ssh"
    folder.mkdir(mode=0o700)
    (folder / "config").write_text(
        "Host *\n  ProxyJump nowhere.invalid\n  RemoteCommand false\n  ControlPath /nowhere/x\n"
    )
    with Connection(ssh_server.endpoint) as connection:
        assert connection.run("echo fine").text == "fine\n"


def test_a_long_temporary_folder(
    ssh_server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A control socket's path is limited to some 100 bytes."""
    long = tmp_path / ("d" * 100)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", None)
    with Connection(ssh_server.endpoint) as connection:
        assert connection.run("echo fine").text == "fine\n"
