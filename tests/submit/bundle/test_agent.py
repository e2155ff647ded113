"""The agent that jobs get: a version and its digests in options.json, or the package in the bundle."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Any

import pytest

from smssh_plugin import SSHOptions, agent_package
from smssh_plugin.errors import SmsshError
from smssh_plugin.key_sources import read_source
from smssh_plugin.local.certificate import Certificate
from smssh_plugin.settings import load
from smssh_plugin.submit.bundle import agent as agents
from smssh_plugin.submit.bundle import build as bundles
from smssh_plugin.submit.bundle.agent import VERSION, Agent, agent_for
from smssh_plugin.submit.bundle.build import build
from smssh_plugin.submit.bundle.publish import publish
from tests.container.agents import Mirror, silence
from tests.submit.conftest import BUCKET, KEY, REGION

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import boto3

AWS = "https://s3.eu-west-1.amazonaws.com"


@pytest.fixture(autouse=True)
def nothing_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "_given_up", set())
    monkeypatch.setattr(agent_package.random, "uniform", lambda _low, _high: 0.01)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    made = Mirror()
    made.serve(b"for intel", VERSION, "amd64")
    made.serve(b"for graviton", VERSION, "arm64")
    monkeypatch.setenv("SMSSH_AGENT_URL", made.url + "/")
    yield made
    made.close()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_by_default_a_version_and_a_digest_are_pinned(mirror: Mirror, home: Path) -> None:
    found = agent_for(SSHOptions(), AWS, "eu-west-1")
    assert found == Agent({"agent_version": VERSION, "agent_sha256": {"x86_64": sha256(b"for intel")}})
    # The second time, nobody is asked: not even by another process, for it stands in the cache.
    assert agent_for(SSHOptions(), AWS, "eu-west-1") == found
    assert len(mirror.asked) == 1
    # A container understands it.
    document = json.loads(build(SSHOptions(), [KEY], found).files["options.json"])
    read = load({}, document)
    assert (read.agent, read.agent_version) == ("auto", VERSION)
    assert dict(read.agent_sha256) == {"x86_64": sha256(b"for intel")}


def test_machines(mirror: Mirror) -> None:
    both = agent_for(SSHOptions(machines="x86_64,aarch64"), AWS, "eu-west-1")  # type: ignore[arg-type]
    assert both.options["agent_sha256"] == {
        "x86_64": sha256(b"for intel"),
        "aarch64": sha256(b"for graviton"),
    }
    assert not both.files
    with pytest.raises(SmsshError, match="'riscv64' is not one of x86_64, aarch64"):
        SSHOptions(machines=("riscv64",))
    with pytest.raises(SmsshError, match="machines is empty"):
        SSHOptions(machines=())


def test_in_the_bundle(mirror: Mirror, tmp_path: Path) -> None:
    options = SSHOptions(agent="bundle", machines=("aarch64",))
    bundle = build(options, [KEY], agent_for(options, AWS, "eu-west-1"))
    bundle.write(tmp_path)
    assert (tmp_path / "agent" / "aarch64" / "amazon-ssm-agent.deb").read_bytes() == b"for graviton"
    document = json.loads(bundle.files["options.json"])
    assert document["agent"] == "bundle"
    assert document["agent_sha256"] == {"aarch64": sha256(b"for graviton")}
    assert json.loads(bundle.files["smssh-manifest.json"])["files"]["agent/aarch64/amazon-ssm-agent.deb"]


def test_offline_brings_wheels_and_agent(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that a job needs, for what was stated, and nothing else."""
    monkeypatch.setattr(bundles, "wheels_for", lambda version: {f"asyncssh-for-{version}.whl": b"wheel"})
    options = SSHOptions(offline=True, wheels=("3.11", "3.12-aarch64"), machines=("x86_64", "aarch64"))
    bundle = build(options, [KEY], agent_for(options, AWS, "eu-west-1"))
    assert {name for name in bundle.files if "/" in name and not name.startswith("chain/")} == {
        "wheels/3.11-x86_64/asyncssh-for-3.11.whl",
        "wheels/3.12-aarch64/asyncssh-for-3.12-aarch64.whl",
        "agent/x86_64/amazon-ssm-agent.deb",
        "agent/aarch64/amazon-ssm-agent.deb",
    }
    document = json.loads(bundle.files["options.json"])
    assert document["agent"] == "bundle"
    assert set(document["agent_sha256"]) == {"x86_64", "aarch64"}


def test_another_version_and_the_newest(mirror: Mirror) -> None:
    mirror.serve(b"newer", "3.4.1.0", "amd64")
    mirror.files["/latest/VERSION"] = b"3.4.1.0\n"
    for options in (
        SSHOptions(agent_version="3.4.1.0"),
        SSHOptions(agent="download", agent_version="latest"),
    ):
        found = agent_for(options, AWS, "eu-west-1")
        assert found.options == {"agent_version": "3.4.1.0", "agent_sha256": {"x86_64": sha256(b"newer")}}
    with pytest.raises(SmsshError, match="agent_version"):
        SSHOptions(agent_version="newest")
    mirror.files["/latest/VERSION"] = b"<html>no such thing</html>"
    with pytest.raises(SmsshError):
        agent_for(SSHOptions(agent="download", agent_version="latest"), AWS, "eu-west-1")


def test_a_damaged_cache_is_replaced(mirror: Mirror, home: Path) -> None:
    first = agent_for(SSHOptions(), AWS, "eu-west-1")
    package = home / "agent" / VERSION / "x86_64" / "amazon-ssm-agent.deb"
    package.write_bytes(b"half")
    assert agent_for(SSHOptions(), AWS, "eu-west-1") == first
    package.unlink()
    assert agent_for(SSHOptions(), AWS, "eu-west-1") == first
    assert package.read_bytes() == b"for intel"


def test_a_version_that_changes_its_contents_is_refused(mirror: Mirror, home: Path) -> None:
    agent_for(SSHOptions(), AWS, "eu-west-1")
    (home / "agent" / VERSION / "x86_64" / "amazon-ssm-agent.deb").unlink()
    mirror.serve(b"swapped", VERSION, "amd64")
    with pytest.raises(SmsshError, match="is not what it was"):
        agent_for(SSHOptions(agent="download"), AWS, "eu-west-1")


@pytest.mark.parametrize(
    "options", [SSHOptions(agent="found"), SSHOptions(transport="none"), SSHOptions(transport="native")]
)
def test_nobody_is_asked_when_no_agent_is_needed(mirror: Mirror, options: SSHOptions) -> None:
    assert agent_for(options, AWS, "eu-west-1") == Agent()
    assert not mirror.asked


@pytest.fixture(params=["refused", "no name", "404", "silence"])
def nowhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A place that gives nothing, in the ways of networks."""
    monkeypatch.setattr(agent_package, "ANSWER_SECONDS", 0.2)
    if request.param == "refused":
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        monkeypatch.setenv("SMSSH_AGENT_URL", f"http://127.0.0.1:{port}")
        yield
    elif request.param == "no name":
        monkeypatch.setenv("SMSSH_AGENT_URL", "https://no-such-host.invalid")
        yield
    elif request.param == "404":
        made = Mirror()
        monkeypatch.setenv("SMSSH_AGENT_URL", made.url)
        yield
        made.close()
    else:
        with silence() as url:
            monkeypatch.setenv("SMSSH_AGENT_URL", url)
            yield


@pytest.mark.parametrize("agent", ["download", "bundle"])
def test_what_was_asked_for_and_cannot_be_had_is_an_error(nowhere: None, agent: str) -> None:
    with pytest.raises(SmsshError, match="cannot be downloaded") as caught:
        agent_for(SSHOptions(agent=agent), AWS, "eu-west-1")
    assert "SMSSH_AGENT_URL" in str(caught.value)


def test_what_was_not_asked_for_is_said_once(nowhere: None, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        assert agent_for(SSHOptions(), AWS, "eu-west-1") == Agent()
    assert capsys.readouterr().err.count("only images that have amazon-ssm-agent can be entered") == 1


def test_an_s3_of_ones_own_has_no_packages(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The local emulator's, for one: its images have the fake agent."""
    monkeypatch.delenv("SMSSH_AGENT_URL", raising=False)
    monkeypatch.setattr(agents, "download", None)
    for endpoint, region in (
        ("http://127.0.0.1:4580", REGION),
        ("https://s3.amazonaws.com.evil.example", REGION),
        (AWS, None),
    ):
        assert agent_for(SSHOptions(), endpoint, region) == Agent()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("address", "region"),
    [
        (AWS, "eu-west-1"),
        ("https://s3.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("https://s3.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
    ],
)
def test_the_regions_own_bucket_is_asked(monkeypatch: pytest.MonkeyPatch, address: str, region: str) -> None:
    asked: list[str] = []

    def fetch(url: str, target: Path, **_: Any) -> None:
        asked.append(url)
        target.write_bytes(b"package")

    monkeypatch.delenv("SMSSH_AGENT_URL", raising=False)
    monkeypatch.setattr(agents, "download", fetch)
    assert agent_for(SSHOptions(), address, region).options["agent_version"] == VERSION
    assert asked == [f"{address}/amazon-ssm-{region}/{VERSION}/debian_amd64/amazon-ssm-agent.deb"]


def test_a_mirror_in_the_options_travels(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SMSSH_AGENT_URL")
    options = SSHOptions(agent="download", extra={"agent_url": mirror.url})
    bundle = build(options, [KEY], agent_for(options, AWS, "eu-west-1"))
    assert json.loads(bundle.files["options.json"])["agent_url"] == mirror.url
    assert len(mirror.asked) == 1


def test_publish_puts_it_in(mirror: Mirror, boto_session: boto3.Session, s3: Any) -> None:
    address = publish(SSHOptions(agent="bundle", bundle_prefix=f"s3://{BUCKET}/agents"), boto_session)
    key = address[len(f"s3://{BUCKET}/") :]
    options = json.loads(s3.get_object(Bucket=BUCKET, Key=key + "options.json")["Body"].read())
    assert options["agent_sha256"] == {"x86_64": sha256(b"for intel")}
    package = s3.get_object(Bucket=BUCKET, Key=key + "agent/x86_64/amazon-ssm-agent.deb")["Body"].read()
    assert package == b"for intel"


@pytest.mark.parametrize("value", ["latest", "AUTO!", ""])
def test_unknown_ways_are_refused(value: str) -> None:
    with pytest.raises(SmsshError, match="agent"):
        SSHOptions(agent=value)


@pytest.fixture
def downgraded(mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server that speaks https, and leads to the mirror, which does not."""

    class Redirect(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            where = self.path if self.path.startswith("/onward") else mirror.url + self.path
            if self.path.startswith("/secure"):
                where = f"/onward{self.path}"
            if self.path.startswith("/onward"):
                self.send_response(200)
                self.send_header("Content-Length", "4")
                self.end_headers()
                self.wfile.write(b"safe")
                return
            self.send_response(302)
            self.send_header("Location", where)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    made = Certificate.make(tmp_path)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Redirect)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.server)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    monkeypatch.setenv("AWS_CA_BUNDLE", str(made.authority))
    yield f"https://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_no_redirect_leaves_https(downgraded: str, mirror: Mirror, tmp_path: Path) -> None:
    """What comes then, anybody on the way could have written: keys that get in, an agent that is pinned."""
    mirror.files["/ann.keys"] = KEY.encode()
    with pytest.raises(SmsshError, match=r"it is redirected to http://127\.0\.0\.1.*, which is not https"):
        agent_package.download(f"{downgraded}/ann.keys", tmp_path / "keys")
    assert mirror.asked == []
    with pytest.raises(SmsshError, match="which is not https"):
        read_source(f"{downgraded}/ann.keys", lambda _: None)
    agent_package.download(f"{downgraded}/secure", tmp_path / "keys")
    assert (tmp_path / "keys").read_bytes() == b"safe"


def test_the_first_agent_comes_by_https(monkeypatch: pytest.MonkeyPatch, mirror: Mirror, home: Path) -> None:
    asked = SSHOptions(agent="download", extra={"agent_url": "http://mirror.example.com/agents"})
    monkeypatch.setattr(agents, "download", lambda *_, **__: pytest.fail("it was downloaded"))
    with pytest.raises(SmsshError, match="is not https, and what comes from there would be pinned"):
        agent_for(asked, AWS, "eu-west-1")


@pytest.mark.applies(os.getuid() == 0, "only root can give files to another user")
def test_a_digest_that_another_user_noted_is_not_believed(mirror: Mirror, home: Path) -> None:
    agent_for(SSHOptions(agent="download"), AWS, "eu-west-1")
    (note,) = home.rglob("*.sha256")
    os.chown(note, 65533, -1)
    with pytest.raises(SmsshError, match="is not a regular file of this user"):
        agent_for(SSHOptions(agent="download"), AWS, "eu-west-1")
