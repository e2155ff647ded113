"""Certificates of our own authority, with real servers."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from smssh_plugin.cli import main
from smssh_plugin.client import certificates, ssh_config
from smssh_plugin.client.connection import Connection
from smssh_plugin.client.tunnels import Tunnel
from smssh_plugin.errors import ExitStatus, SmsshError
from smssh_plugin.home import home
from smssh_plugin.keys import ensure_key
from tests.waiting import LIMIT

from .conftest import make_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import SshServer


@pytest.fixture
def trusting(ssh_server: SshServer) -> Iterator[SshServer]:
    """A server that trusts our authority, and no key of ours."""
    accepted = ssh_server.folder / "authorized"
    before = accepted.read_text()
    accepted.write_text(certificates.authority() + "\n")
    yield ssh_server
    accepted.write_text(before)


def test_a_certificate_opens_what_the_key_alone_does_not(trusting: SshServer, tmp_path: Path) -> None:
    make_key(tmp_path / "mine")
    endpoint = replace(trusting.endpoint, key=tmp_path / "mine")
    with pytest.raises(SmsshError, match="does not accept your SSH key"):
        Connection(endpoint)
    made = certificates.certify(tmp_path / "mine.pub", 600, "me")
    assert made == tmp_path / "mine-cert.pub"
    with Connection(endpoint) as connection:
        assert connection.run("echo in").text == "in\n"
    with Tunnel(endpoint, trusting.port) as tunnel:
        assert tunnel.alive


@pytest.mark.parametrize("flaw", ["expired", "another authority's", "for another principal"])
def test_a_certificate_that_is_no_good_opens_nothing(trusting: SshServer, tmp_path: Path, flaw: str) -> None:
    make_key(tmp_path / "mine")
    authority = home() / certificates.NAME
    if flaw == "another authority's":
        authority = tmp_path / "other"
        make_key(authority)
    span = "-2m:-1m" if flaw == "expired" else "-1m:+9m"
    principal = "root" if flaw == "for another principal" else certificates.PRINCIPAL
    words = [
        "ssh-keygen",
        "-q",
        "-s",
        authority,
        "-I",
        "x",
        "-n",
        principal,
        "-V",
        span,
        tmp_path / "mine.pub",
    ]
    subprocess.run(words, check=True)
    with pytest.raises(SmsshError, match="does not accept your SSH key"):
        Connection(replace(trusting.endpoint, key=tmp_path / "mine"))


def test_our_own_key_is_certified_anew_in_time() -> None:
    key = ensure_key()
    assert certificates.own_key() == key
    made = certificates.beside(key.private)
    assert not made.exists()  # no authority, no certificates
    line = certificates.authority()
    assert line == certificates.authority()
    assert line.startswith('cert-authority,principals="smssh" ssh-ed25519 AAAA')
    assert (home() / certificates.NAME).stat().st_mode & 0o777 == 0o600
    certificates.own_key()
    first = made.read_text()
    certificates.own_key()
    assert made.read_text() == first
    old = time.time() - certificates.OWN_SECONDS / 2 - 1
    os.utime(made, (old, old))
    certificates.own_key()
    assert made.read_text() != first
    shown = subprocess.run(
        ["ssh-keygen", "-L", "-f", made], capture_output=True, text=True, check=True
    ).stdout
    assert "user certificate" in shown
    assert shown.split("Principals:")[1].split()[0] == "smssh"


def test_plain_ssh_has_a_certificate_that_is_good(trusting: SshServer, tmp_path: Path) -> None:
    """By the lines of `smssh ssh-config`, of which only the way to the container is another here."""
    (tmp_path / "config").write_text(ssh_config.block())
    (tmp_path / "known").write_text(f"job.training.sagemaker {trusting.endpoint.host_key}\n")
    options = {
        "ProxyCommand": shlex.join(trusting.endpoint.proxy),
        "UserKnownHostsFile": tmp_path / "known",
        "BatchMode": "yes",
        "User": trusting.endpoint.user,
    }
    words = ["ssh", "-F", tmp_path / "config", *(f"-o{name}={value}" for name, value in options.items())]
    words += ["job.training.sagemaker", "echo in"]

    def log_in() -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, capture_output=True, text=True, timeout=LIMIT, check=False)

    made = certificates.beside(ensure_key().private)
    made.unlink()
    assert log_in().stdout == "in\n"
    certificates.certify(made.with_name("id_ed25519.pub"), 60, "me")
    old = time.time() - certificates.OWN_SECONDS
    before = made.read_text()
    os.utime(made, (old, old))
    done = log_in()
    assert (done.returncode, done.stdout, done.stderr) == (0, "in\n", "")
    assert made.read_text() != before
    # Without an authority no certificate is made, and no word said about it.
    certificates.authority_file().unlink()
    made.unlink()
    done = log_in()
    assert done.returncode == 255
    assert done.stderr.count("\n") == 1
    assert "Permission denied" in done.stderr
    assert not made.exists()


@pytest.mark.parametrize(
    "words", [["certify", "--authority"], ["ssh-config", "--write"], ["certify", "--own"]]
)
def test_the_commands_make_the_first_certificate(words: list[str]) -> None:
    certificates.authority()
    assert main(words) == 0
    assert certificates.beside(ensure_key().private).exists()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_key(tmp_path / "alice")
    assert main(["certify", str(tmp_path / "alice.pub")]) == ExitStatus.USAGE
    assert "this machine is not a certificate authority" in capsys.readouterr().err
    assert main(["certify", "--authority"]) == 0
    assert capsys.readouterr().out == certificates.authority() + "\n"
    assert main(["certify", str(tmp_path / "alice.pub"), "--for", "2h"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'alice-cert.pub'}: valid for 2 h\n"
    for words, error in (
        ([str(tmp_path / "alice.pub"), "--for", "60d"], "valid for 1 min to 30 d, not 60 d"),
        ([str(tmp_path / "alice")], "is not a public key"),
        ([], "missing argument 'KEY'"),
    ):
        assert main(["certify", *words]) == ExitStatus.USAGE
        assert error in capsys.readouterr().err
