"""The bundle: the same bytes everywhere, importable as it is, stored once."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import smssh_plugin
import smssh_plugin.entrypoints
import smssh_plugin.hooks
from smssh_plugin import SSHOptions, __version__
from smssh_plugin.errors import ExitStatus, SmsshError
from smssh_plugin.submit.authorized import authorized_keys
from smssh_plugin.submit.bundle import build as bundles
from smssh_plugin.submit.bundle.build import build
from smssh_plugin.submit.bundle.publish import publish
from smssh_plugin.submit.bundle.store import Destination, destination
from smssh_plugin.submit.bundle.upload import upload
from tests import needs
from tests.submit.conftest import BUCKET, KEY, REGION, SDK
from tests.waiting import LIMIT

if TYPE_CHECKING:
    import boto3

OTHER_KEY = KEY.replace("tests", "other").replace("AAAAIO7", "AAAAIO8")


def place(boto_session: boto3.Session, prefix: str = "bundles") -> Destination:
    return Destination(boto_session.client("s3"), BUCKET, prefix)


# -------------------------------------------------------------------------------- what is in it


def test_the_manifest_names_everything_and_the_digest_names_the_manifest() -> None:
    bundle = build(SSHOptions(hold=("failure",)), [KEY])
    manifest = json.loads(bundle.files["smssh-manifest.json"])
    assert bundle.digest == hashlib.sha256(bundle.files["smssh-manifest.json"]).hexdigest()
    assert manifest["version"] == __version__
    assert manifest["files"] == {
        name: hashlib.sha256(data).hexdigest()
        for name, data in bundle.files.items()
        if name != "smssh-manifest.json"
    }
    assert set(manifest["files"]) == {*bundles.LAUNCHER_FILES, "options.json", "smssh.zip"}
    options = json.loads(bundle.files["options.json"])
    assert options == {"hold": "failure", "transport": "ssm", "authorized_keys": [KEY]}


def test_it_is_small() -> None:
    """The budget of what is neither a wheel nor the agent."""
    assert build(SSHOptions(), [KEY]).size < 750_000


def test_containers_get_their_part_only() -> None:
    names = zipfile.ZipFile(io.BytesIO(build(SSHOptions(), [KEY]).files["smssh.zip"])).namelist()
    assert names == sorted(names)
    tops = {"/".join(name.split("/")[:2]) for name in names if name.startswith("smssh_plugin/")}
    modules = (
        "__init__",
        "_version",
        "agent_package",
        "durations",
        "errors",
        "files",
        "hookspecs",
        "key_sources",
        "manifest",
        "plugins",
        "processes",
        "setting_values",
        "settings",
        "terminal",
    )
    assert tops == {f"smssh_plugin/{name}.py" for name in modules} | {
        "smssh_plugin/aws",
        "smssh_plugin/container",
        "smssh_plugin/entrypoints",
        "smssh_plugin/hooks",
        "smssh_plugin/supervisor",
    }
    assert "pluggy/__init__.py" in names
    assert any(name.endswith("LICENSE") for name in names)
    assert not any("__pycache__" in name for name in names)
    assert all(name.endswith((".py", "LICENSE")) for name in names)
    # The launchers are files beside the archive.
    assert not {f"smssh_plugin/entrypoints/{file}" for file in bundles.LAUNCHER_FILES.values()} & set(names)


def test_nothing_is_left_to_a_compressor() -> None:
    """zlib, zlib-ng and their versions write different bytes."""
    archive = zipfile.ZipFile(io.BytesIO(build(SSHOptions(), [KEY]).files["smssh.zip"]))
    assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
    assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_sources_are_those_of_the_package() -> None:
    """Byte for byte: who reviews what runs in a job compares it with the package, and a traceback shows its lines."""
    archive = zipfile.ZipFile(io.BytesIO(build(SSHOptions(), [KEY]).files["smssh.zip"]))
    package = Path(bundles.__file__).parents[2]
    names = [name for name in archive.namelist() if name.startswith("smssh_plugin/")]
    assert len(names) > 40
    for name in names:
        assert archive.read(name) == (package / name.partition("/")[2]).read_bytes(), name


def test_the_same_options_give_the_same_bytes(tmp_path: Path) -> None:
    """In another process, with another hash seed, time zone, umask and folder."""
    program = (
        "from smssh_plugin import SSHOptions; from smssh_plugin.submit.bundle.build import build; import sys;"
        "print(build(SSHOptions(hold='end', extra={'b': 1, 'a': {'y': 2, 'x': 3}}), sys.argv[1:]).digest)"
    )
    digests = set()
    for seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo")):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "TZ": zone}
        done = subprocess.run(
            [sys.executable, "-c", program, KEY],
            env=environment,
            cwd=tmp_path,
            check=True,
            capture_output=True,
            text=True,
        )
        digests.add(done.stdout.strip())
    here = build(SSHOptions(hold="end", extra={"a": {"x": 3, "y": 2}, "b": 1}), [KEY])  # type: ignore[arg-type]
    assert digests == {here.digest}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder from which any Python can import the package as it is installed; with the line ends of Windows."""
    folder = tmp_path_factory.mktemp("installed")
    packages = (smssh_plugin, smssh_plugin.entrypoints, smssh_plugin.hooks)
    for package in packages:
        source = Path(str(package.__file__)).parent
        target = folder.joinpath(*package.__name__.split("."))
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    for file in [*folder.rglob("*.py"), *folder.rglob("*.sh")]:
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    return folder


@pytest.mark.parametrize("version", ["3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14"])
def test_every_python_gives_the_same_bytes(installed: Path, version: str) -> None:
    """Each tokenizes, compresses and writes archives in its own way."""
    interpreter = needs.python(version)
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "from smssh_plugin import SSHOptions; from smssh_plugin.submit.bundle.build import build;"
        "print(build(SSHOptions(hold='end'), sys.argv[2:]).digest)"
    )
    done = subprocess.run(
        [interpreter, "-I", "-c", program, str(installed), KEY], check=False, capture_output=True, text=True
    )
    assert done.stdout.strip() == build(SSHOptions(hold=("end",)), [KEY]).digest, done.stderr


def test_other_options_or_keys_give_another_bundle() -> None:
    builds = [build(SSHOptions(), [KEY]), build(SSHOptions(wait=60), [KEY]), build(SSHOptions(), [OTHER_KEY])]
    assert len({bundle.digest for bundle in builds}) == 3
    assert len({bundle.files["smssh.zip"] for bundle in builds}) == 1


def test_it_can_be_imported_from_the_archive(tmp_path: Path) -> None:
    """With nothing installed: no site-packages, no checkout."""
    build(SSHOptions(), [KEY]).write(tmp_path)
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "import pluggy, smssh_plugin.hookspecs, smssh_plugin.plugins, smssh_plugin.settings;"
        "from smssh_plugin.entrypoints import boot;"
        "from smssh_plugin import hookimpl, __version__;"
        "assert all(m.__file__.startswith(sys.argv[1]) for m in (pluggy, boot, smssh_plugin.plugins));"
        "print(pluggy.__version__, __version__)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, str(tmp_path / "smssh.zip")],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["1.5.0", __version__]


@pytest.mark.parametrize("enable", ["0", "1"])
def test_the_wrapper_runs_the_original(tmp_path: Path, enable: str) -> None:
    """Laid out as the service does it (no x bits), with nobody to hold for."""
    build(SSHOptions(transport="none"), [KEY]).write(tmp_path / "bundle")
    done = subprocess.run(
        ["/bin/sh", str(tmp_path / "bundle" / "run.sh"), "sh", "-c", "echo ran; exit 7"],
        env={
            "PATH": os.environ["PATH"],
            "SMSSH_ENABLE": enable,
            "SMSSH_RUN_DIR": str(tmp_path / "run"),
            "TMPDIR": str(tmp_path),
            "HOME": str(tmp_path),
        },
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    assert "ran" in done.stdout.splitlines()


def test_what_json_cannot_hold() -> None:
    with pytest.raises(SmsshError, match="extra can't be written as JSON"):
        build(SSHOptions(extra={"mine": object()}), [KEY])


def test_an_installation_without_its_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "PLUGGY", "gone.whl")
    bundles._own_files.cache_clear()
    with pytest.raises(SmsshError, match=r"not complete: .*gone\.whl"):
        build(SSHOptions(), [KEY])


# -------------------------------------------------------------------------------- keys


def test_your_own_key_comes_first_and_each_once(tmp_path: Path) -> None:
    file = tmp_path / "team.pub"
    file.write_text(f"{OTHER_KEY}\n{KEY}\n")
    assert authorized_keys(SSHOptions(authorized_keys=(str(file),))) == (KEY, OTHER_KEY)


def test_without_a_key_of_your_own_others_will_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SMSSH_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("PATH", str(tmp_path))  # no ssh-keygen
    assert authorized_keys(SSHOptions(authorized_keys=(OTHER_KEY,))) == (OTHER_KEY,)
    assert "only the keys in SSHOptions can log in" in capsys.readouterr().err
    with pytest.raises(SmsshError, match="ssh-keygen"):
        authorized_keys(SSHOptions())


# -------------------------------------------------------------------------------- where it goes


def test_it_is_stored_once(boto_session: boto3.Session) -> None:
    bundle = build(SSHOptions(wait=61), [KEY])
    where = place(boto_session, "once")
    puts: list[str] = []
    where.client.meta.events.register(
        "before-call.s3.PutObject", lambda params, **_: puts.append(params["url_path"])
    )
    uri = upload(bundle, where)
    assert uri == f"s3://{BUCKET}/once/{bundle.digest}/"
    assert len(puts) == len(bundle.files)
    assert puts[-1].endswith("/smssh-manifest.json")
    assert upload(bundle, where) == uri
    assert len(puts) == len(bundle.files)
    body = where.client.get_object(Bucket=BUCKET, Key=f"once/{bundle.digest}/run.sh")["Body"].read()
    assert body == bundle.files["run.sh"]


def test_an_upload_that_was_cut_is_finished(boto_session: boto3.Session) -> None:
    bundle = build(SSHOptions(wait=62), [KEY])
    where = place(boto_session, "cut")
    where.client.put_object(Bucket=BUCKET, Key=f"cut/{bundle.digest}/run.sh", Body=b"half")
    upload(bundle, where)
    body = where.client.get_object(Bucket=BUCKET, Key=f"cut/{bundle.digest}/run.sh")["Body"].read()
    assert body == bundle.files["run.sh"]


def test_a_process_asks_once(boto_session: boto3.Session) -> None:
    options = SSHOptions(bundle_prefix=f"s3://{BUCKET}/asked")
    first = publish(options, boto_session)
    heads: list[Any] = []
    boto_session.events.register("before-call.s3.HeadObject", lambda **_: heads.append(1), unique_id="heads")
    try:
        assert publish(options, boto_session) == first
    finally:
        boto_session.events.unregister("before-call.s3.HeadObject", unique_id="heads")
    assert heads == []
    assert first.startswith(f"s3://{BUCKET}/asked/")


def test_the_default_place_is_that_of_the_sdk(sdk: SDK, boto_session: boto3.Session) -> None:
    assert destination(SSHOptions(), sdk.session()).bucket == BUCKET
    plain = destination(SSHOptions(), boto_session)
    assert (plain.bucket, plain.prefix) == (f"sagemaker-{REGION}-123456789012", "smssh/bundles")
    assert destination(SSHOptions(), None).bucket == plain.bucket
    named = destination(SSHOptions(bundle_prefix="s3://mine/a/b/"), boto_session)
    assert (named.bucket, named.prefix) == ("mine", "a/b")
    assert destination(SSHOptions(bundle_prefix="s3://mine"), boto_session).key("d", "f") == "d/f"


def test_without_a_region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(SmsshError, match="there is no AWS region"):
        destination(SSHOptions(), None)


def test_a_prefix_that_may_not_be_written(boto_session: boto3.Session) -> None:
    bucket = "read-only"
    client = boto_session.client("s3")
    client.create_bucket(Bucket=bucket)
    deny = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:PutObject",
        "Resource": f"arn:aws:s3:::{bucket}/*",
    }
    client.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [deny]}))
    with pytest.raises(SmsshError) as caught:
        upload(build(SSHOptions(), [KEY]), Destination(client, bucket, "deep"))
    assert caught.value.reference == "bundle-not-writable"
    assert caught.value.status is ExitStatus.REFUSED
    assert f"s3://{bucket}/deep: " in caught.value.message
    assert f"allow s3:PutObject and s3:GetObject on {bucket}/deep/*" in (caught.value.hint or "")
