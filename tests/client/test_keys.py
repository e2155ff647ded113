"""The key pair, host keys, and ssh's configuration: files that must be right and private."""

from __future__ import annotations

import multiprocessing
import os
import pwd
import stat
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from smssh_plugin.client import identities, known_hosts, ssh, ssh_config
from smssh_plugin.errors import ExitStatus, SmsshError
from smssh_plugin.home import home
from smssh_plugin.keys import KeyPair, ensure_key
from tests import needs

from .nodes import HOST_KEY

if TYPE_CHECKING:
    from pathlib import Path


def test_a_key_is_made_once_and_privately(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first = ensure_key()
    assert first.private == tmp_path / "smssh" / "id_ed25519"
    assert "made a key pair" in capfd.readouterr().err
    assert first.public.startswith("ssh-ed25519 ")
    assert stat.S_IMODE(first.private.stat().st_mode) == 0o600
    assert stat.S_IMODE(first.private.parent.stat().st_mode) == 0o700
    assert ensure_key() == first
    assert capfd.readouterr().err == ""
    assert not list(first.private.parent.glob(".*"))


def test_the_public_half_is_found_again() -> None:
    first = ensure_key()
    first.private.with_name("id_ed25519.pub").unlink()
    assert ensure_key().public.split()[:2] == first.public.split()[:2]


def _ensure(_: int) -> KeyPair:
    return ensure_key()


def test_processes_at_once_get_the_same_key() -> None:
    with multiprocessing.get_context("fork").Pool(6) as pool:
        keys = pool.map(_ensure, range(12), chunksize=1)
    assert len({key.public.split()[1] for key in keys}) == 1


def test_an_open_folder_is_closed(tmp_path: Path) -> None:
    (tmp_path / "smssh").mkdir(mode=0o755)
    ensure_key()
    assert stat.S_IMODE((tmp_path / "smssh").stat().st_mode) == 0o700


@pytest.fixture
def fips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ssh-keygen that has no ed25519."""
    real = needs.program("ssh-keygen")
    (tmp_path / "bin").mkdir()
    wrapper = tmp_path / "bin" / "ssh-keygen"
    wrapper.write_text(
        '#!/bin/sh\ncase " $* " in *" ed25519 "*) echo "ED25519 keys are not allowed in FIPS mode" >&2; exit 1;;'
        f' esac\nexec {real} "$@"\n'
    )
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")


@pytest.mark.usefixtures("fips")
def test_a_machine_without_ed25519_has_keys_of_ecdsa(tmp_path: Path) -> None:
    made = ensure_key()
    assert made.public.startswith("ecdsa-sha2-nistp256 ")
    assert ensure_key() == made
    from smssh_plugin.client import certificates
    from smssh_plugin.container import login_shell

    assert 'principals="smssh" ecdsa-sha2-nistp256 ' in certificates.authority()
    assert certificates.own_key().public == made.public
    host_key = login_shell.host_key(tmp_path)
    assert host_key.startswith("ecdsa-sha2-nistp256 ")
    assert known_hosts.checked(host_key, "algo-1.job.training.sagemaker") == host_key
    assert len(host_key) <= 256  # of a tag


def test_a_key_that_came_into_fips_mode_is_left_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    first = ensure_key()
    flag = tmp_path / "fips_enabled"
    monkeypatch.setattr("smssh_plugin.keys.FIPS_FLAG", flag)
    flag.write_text("1\n")
    assert ensure_key() == first  # an OpenSSH that has ed25519 all the same
    request.getfixturevalue("fips")
    flag.write_text("0\n")
    assert ensure_key() == first
    flag.write_text("1\n")
    second = ensure_key()
    assert second.private == first.private.with_name("id_ecdsa")
    assert second.public.startswith("ecdsa-sha2-nistp256 ")
    assert ensure_key() == second
    assert first.private.exists()


STRANGER = 65533


@pytest.fixture
def strange(tmp_path: Path) -> Path:
    """A home with a key in it, which looks as it should."""
    ensure_key()
    if os.getuid():
        needs.does_not_apply("only root can give files to another user")
    return tmp_path / "smssh"


def test_the_home_of_another_user_is_not_used(strange: Path) -> None:
    """Whose key lies there would go into every job."""
    os.chown(strange, STRANGER, -1)
    for use in (ensure_key, known_hosts.folder):
        with pytest.raises(SmsshError, match="smssh belongs to another user") as caught:
            use()
        assert caught.value.reference == "home-not-yours"


def test_a_symlink_of_another_user_is_not_followed(
    strange: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path / "link"
    link.symlink_to(strange)
    monkeypatch.setenv("SMSSH_HOME", str(link))
    ensure_key()  # one's own is
    os.chown(link, STRANGER, -1, follow_symlinks=False)
    with pytest.raises(SmsshError, match="link belongs to another user"):
        ensure_key()


@pytest.mark.parametrize("name", ["id_ed25519", "id_ed25519.pub"])
def test_a_key_of_another_user_is_not_used(strange: Path, name: str) -> None:
    """It was put there while the folder was open."""
    os.chown(strange / name, STRANGER, -1)
    with pytest.raises(SmsshError, match=f"{name} belongs to another user"):
        ensure_key()


@pytest.mark.parametrize("made", ["owner", "symlink", "fifo"])
def test_a_host_key_that_another_user_wrote_is_not_known(strange: Path, made: str) -> None:
    path = known_hosts.remember("algo-1.job.training.sagemaker", HOST_KEY)
    assert path is not None
    assert known_hosts.recall("algo-1.job.training.sagemaker") == HOST_KEY
    if made == "owner":
        os.chown(path, STRANGER, -1)
    elif made == "symlink":
        path.rename(strange / "elsewhere")
        path.symlink_to(strange / "elsewhere")
    else:
        path.unlink()
        os.mkfifo(path)
    assert known_hosts.recall("algo-1.job.training.sagemaker") is None


def test_without_ssh_keygen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SmsshError, match="ssh-keygen is not installed") as caught:
        ensure_key()
    assert "openssh-client" in (caught.value.hint or "")


def test_a_home_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SMSSH_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(SmsshError, match="cannot use the folder") as caught:
        ensure_key()
    assert caught.value.status is ExitStatus.USAGE


def test_without_a_home_folder_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user id without an account, and no HOME."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("SMSSH_HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    with pytest.raises(SmsshError, match="there is no home folder") as caught:
        home()
    assert "SMSSH_HOME" in (caught.value.hint or "")
    monkeypatch.setenv("SMSSH_HOME", "~nobody-of-that-name/x")
    with pytest.raises(SmsshError, match="there is no home folder"):
        home()
    monkeypatch.setenv("SMSSH_HOME", str(tmp_path / "own"))
    monkeypatch.chdir(tmp_path)
    assert identities.offered(ensure_key().private) == [home() / "id_ed25519"]
    assert "Host *.sagemaker" in ssh_config.block()


@pytest.mark.parametrize(
    "text",
    ["", "ssh-ed25519", "ssh-ed25519 !!", "ssh-rsa " + HOST_KEY.split()[1], "* ssh-ed25519 AAAA", "x\ny z"],
)
def test_what_is_no_host_key_is_refused(text: str) -> None:
    with pytest.raises(SmsshError, match="refusing to log in") as caught:
        known_hosts.checked(text, "address")
    assert caught.value.status is ExitStatus.REFUSED
    path = known_hosts.remember("address", HOST_KEY)
    assert path is not None
    assert known_hosts.remember("address", text) is None
    assert not path.exists()


def test_host_keys_are_recalled_for_a_while(tmp_path: Path) -> None:
    path = known_hosts.remember("Algo-1.Job.training.sagemaker", HOST_KEY + " comment")
    assert path is not None
    assert path.read_text() == f"algo-1.job.training.sagemaker {HOST_KEY}\n"
    assert known_hosts.recall("algo-1.JOB.training.sagemaker") == HOST_KEY
    past = time.time() - 300
    os.utime(path, (past, past))
    assert known_hosts.recall("algo-1.job.training.sagemaker") is None
    past -= 30 * 24 * 3600
    os.utime(path, (past, past))
    known_hosts.remember("another", HOST_KEY)
    assert not path.exists()
    assert known_hosts.remember("x" * 400, HOST_KEY) is not None


def test_the_configuration_is_included_once_and_at_the_top(tmp_path: Path) -> None:
    own = tmp_path / ".ssh" / "config"
    own.parent.mkdir()
    own.write_text("Host *\n  User somebody\n  StrictHostKeyChecking no\n")
    own.chmod(0o644)
    path, changed = ssh_config.install()
    assert changed
    assert not ssh_config.install()[1]
    assert own.read_text().startswith(f"Include {path}\n\nHost *\n")
    assert stat.S_IMODE(own.stat().st_mode) == 0o644
    shown = subprocess.run(
        ["ssh", "-F", str(own), "-G", "My-Job.training.sagemaker"], capture_output=True, text=True, check=True
    ).stdout
    assert "user root\n" in shown
    assert "stricthostkeychecking true\n" in shown
    assert f"userknownhostsfile {tmp_path}/smssh/known/my-job.training.sagemaker\n" in shown
    assert " proxy My-Job.training.sagemaker --user %r\n" in shown.replace("%n", "My-Job.training.sagemaker")


def test_what_else_is_in_the_configuration_stays_to_the_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    config = tmp_path / ".ssh" / "config"
    config.parent.mkdir(mode=0o700)
    theirs = "# Server für Jürgen\r\nIgnoreUnknown UseKeychain\r\nHost j\r\n  UseKeychain yes\r\n".encode(
        "latin-1"
    )
    config.write_bytes(theirs)
    path, changed = ssh_config.install()
    assert changed
    assert ",UseKeychain\n" in path.read_text()
    first, _, rest = config.read_bytes().partition(b"\n\n")
    assert first.startswith(b"Include ")
    assert rest == theirs
    assert ssh_config.install()[1] is False


def test_paths_with_odd_characters_are_quoted() -> None:
    assert ssh.quoted("/a b/%h") == '"/a b/%%h"'
    with pytest.raises(SmsshError, match="quote"):
        ssh.quoted('/a"b')
