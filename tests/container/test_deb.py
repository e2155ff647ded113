"""Debian packages without dpkg: what is taken out of one, and what no package can do."""

import subprocess
import sys
import tarfile

import pytest

from smssh_plugin import files
from smssh_plugin.container.deb import unpack
from smssh_plugin.errors import SmsshError
from tests import needs

from .agents import deb, member

WANTED = ("amazon-ssm-agent", "ssm-agent-worker")
FILES = {"./usr/bin/amazon-ssm-agent": b"agent" * 1000, "./usr/bin/ssm-agent-worker": b"worker"}


def taken(tmp_path, data):
    package, folder = tmp_path / "a.deb", tmp_path / "out"
    package.write_bytes(data)
    folder.mkdir(exist_ok=True)
    found = unpack(package, WANTED, folder)
    return found, {path.name: path for path in folder.iterdir()}


@pytest.mark.parametrize("compression", ["", "gz", "xz"])
def test_programs_come_out_executable_and_nothing_else_comes_out(tmp_path, compression) -> None:
    more = {
        "./usr/bin/ssm-cli": b"no",
        "./etc/amazon-ssm-agent": b"no",
        "./usr/bin/sub/ssm-agent-worker": b"no",
    }
    found, files = taken(tmp_path, deb({**FILES, **more}, compression))
    assert found == list(WANTED)
    assert files["amazon-ssm-agent"].read_bytes() == b"agent" * 1000
    assert set(files) == set(WANTED)
    # What the agent asks of its workers: for all to run, for nobody but root to write.
    assert {path.stat().st_mode & 0o777 for path in files.values()} == {0o755}


@pytest.mark.needs("dpkg-deb")
@pytest.mark.parametrize("compression", ["none", "gzip", "xz", "zstd"])
def test_what_dpkg_makes(tmp_path, compression) -> None:
    if compression == "zstd" and sys.version_info < (3, 14):
        needs.does_not_apply("the standard library reads zstd from Python 3.14 on")
    root = tmp_path / "root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN" / "control").write_text(
        "Package: amazon-ssm-agent\nVersion: 3.3.987.0-1\nArchitecture: all\nMaintainer: test <test@example.com>\n"
        "Description: test\n"
    )
    (root / "usr" / "bin").mkdir(parents=True)
    for name, data in FILES.items():
        (root / name).write_bytes(data)
    made = tmp_path / "made.deb"
    command = ["dpkg-deb", f"-Z{compression}", "--root-owner-group", "--build", root, made]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert taken(tmp_path, made.read_bytes())[1]["ssm-agent-worker"].read_bytes() == b"worker"


@pytest.mark.applies(sys.version_info < (3, 14), "this Python reads zstd")
def test_zstd_is_named_where_it_cannot_be_read(tmp_path) -> None:
    data = b"!<arch>\n" + member("debian-binary", b"2.0\n") + member("data.tar.zst", b"\x28\xb5\x2f\xfd")
    with pytest.raises(SmsshError, match=r"cannot read data\.tar\.zst"):
        taken(tmp_path, data)


@pytest.mark.parametrize(
    "name",
    [
        "../../usr/bin/amazon-ssm-agent",
        "/usr/bin/amazon-ssm-agent",
        "./usr/bin/../../../../tmp/amazon-ssm-agent",
        "usr/bin/x/../../bin/../../amazon-ssm-agent",
    ],
)
def test_paths_that_lead_elsewhere_are_passed_over(tmp_path, name) -> None:
    inner = tmp_path / "deep" / "deep"
    inner.mkdir(parents=True)
    found, files = taken(inner, deb({name: b"evil"}))
    assert (found, files) == ([], {})
    assert not list(tmp_path.glob("**/amazon-ssm-agent"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_only_regular_files_are_programs(tmp_path, kind) -> None:
    entry = tarfile.TarInfo("./usr/bin/amazon-ssm-agent")
    entry.type, entry.linkname = kind, "/etc/shadow"
    with pytest.raises(SmsshError, match="is not a program"):
        taken(tmp_path, deb({"it": entry}))


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"<html>not found</html>",
        lambda data: data[:20],
        lambda data: data[:-300],
        lambda data: data[: len(data) // 2],
        lambda data: data.replace(b"data.tar.gz", b"data.tar.br"),
        lambda data: data.replace(b"data.tar.gz", b"none.tar.gz"),
    ],
)
def test_damaged_packages_are_refused_and_leave_no_program(tmp_path, damage) -> None:
    data = deb({"./usr/bin/amazon-ssm-agent": bytes(range(256)) * 4000})
    with pytest.raises(SmsshError) as caught:
        taken(tmp_path, damage(data))
    assert caught.value.reference == "bad-agent-package"
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".new-")]


def test_a_full_disk_is_named(tmp_path, monkeypatch) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (tmp_path / "a.deb").write_bytes(deb(FILES))
    monkeypatch.setattr(files, "open", lambda _, mode: open("/dev/full", mode), raising=False)  # noqa: SIM115
    with pytest.raises(SmsshError, match="No space left") as caught:
        unpack(tmp_path / "a.deb", WANTED, folder)
    assert "SMSSH_RUN_DIR" in str(caught.value)
    assert not list(folder.iterdir())
