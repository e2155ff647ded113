"""Where the agent comes from: the image, the bundle, a download; and every way in which that goes wrong."""

import contextlib
import json
import os
import platform
import threading
import time

import boto3
import pytest

from smssh_plugin import agent_package
from smssh_plugin.agent_package import bucket_url, package_url
from smssh_plugin.container import ssm_agent
from smssh_plugin.errors import SmsshError
from smssh_plugin.hooks import ssm
from smssh_plugin.local.agent.installed import install
from tests.waiting import LIMIT

from .agents import Mirror, context, deb, fake_agent_package, pinned, silence

MACHINE = platform.machine()


@pytest.fixture
def mirror():
    made = Mirror()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def no_agent_of_this_machine(monkeypatch):
    """This machine may have one; the image that the tests stand in for has what they give it."""
    monkeypatch.setattr(ssm_agent, "FOLDERS", ())
    monkeypatch.setenv("PATH", "/nowhere")
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def quick(monkeypatch):
    """The pauses between attempts are for networks, not for tests."""
    monkeypatch.setattr(agent_package.random, "uniform", lambda _low, _high: 0.01)


@pytest.fixture
def package(tmp_path):
    return fake_agent_package(tmp_path)


def settled(made):
    """The agent that is installed, by what it is."""
    return ssm_agent.install(made, "us-east-1")


def test_the_images_own_is_taken_without_a_copy(tmp_path, package, mirror) -> None:
    install(tmp_path / "image")
    for name in (*ssm_agent.WORKERS, "ssm-document-worker"):
        (tmp_path / "image" / name).write_text("#!/bin/sh\n")
        (tmp_path / "image" / name).chmod(0o755)
    mirror.serve(package)
    image = context(tmp_path, PATH=str(tmp_path / "image"), SMSSH_AGENT_URL=mirror.url, **pinned(package))
    found = settled(image)
    assert found.origin == str(tmp_path / "image" / "amazon-ssm-agent")
    assert not mirror.asked
    # 100 MB stay where they are; but the agent runs only workers that nobody but root could have written.
    if os.geteuid() == 0:
        assert (found.folder / "ssm-agent-worker").resolve() == tmp_path / "image" / "ssm-agent-worker"
        (tmp_path / "image" / "ssm-agent-worker").chmod(0o777)
        found = settled(image)
    assert not (found.folder / "ssm-agent-worker").is_symlink()
    assert (found.folder / "ssm-agent-worker").stat().st_mode & 0o777 == 0o755


def test_documents_of_the_account_do_not_run_in_a_job(tmp_path) -> None:
    """An association with all managed nodes (patching, agent update) would run beside the user's training."""
    install(tmp_path / "image")
    (tmp_path / "image" / "ssm-document-worker").write_text("#!/bin/sh\ntouch ran\n")
    found = settled(context(tmp_path, PATH=str(tmp_path / "image")))
    assert (found.folder / "ssm-document-worker").resolve().name in ("false", "busybox", "coreutils")


def test_the_bundles_is_taken_when_the_image_has_none(tmp_path, package, mirror) -> None:
    folder = tmp_path / "bundle" / "agent" / MACHINE
    folder.mkdir(parents=True)
    (folder / "amazon-ssm-agent.deb").write_bytes(package)
    mirror.serve(package)
    made = context(tmp_path, bundle=tmp_path / "bundle", SMSSH_AGENT_URL=mirror.url, **pinned(package))
    found = settled(made)
    assert found.origin == str(folder / "amazon-ssm-agent.deb")
    assert os.access(found.program, os.X_OK)
    assert not mirror.asked
    # Somebody who may write to the bundle's bucket may not bring in another program.
    (folder / "amazon-ssm-agent.deb").write_bytes(package + b"!")
    with pytest.raises(SmsshError, match="not the agent that was pinned"):
        settled(made)


def test_else_it_is_downloaded(tmp_path, package, mirror) -> None:
    mirror.serve(package)
    found = settled(context(tmp_path, SMSSH_AGENT_URL=mirror.url, **pinned(package)))
    assert found.origin == mirror.url + mirror.asked[0]
    assert sorted(path.name for path in found.folder.iterdir()) == [
        "amazon-ssm-agent",
        "configuration",
        "log",
        "ssm-agent-worker",
        "ssm-document-worker",
        "ssm-session-worker",
    ]


def test_what_is_asked_for_is_taken_and_nothing_else(tmp_path, package, mirror) -> None:
    install(tmp_path / "image")
    mirror.serve(package)
    both = {"PATH": str(tmp_path / "image"), "SMSSH_AGENT_URL": mirror.url, **pinned(package)}
    assert settled(context(tmp_path, SMSSH_AGENT="download", **both)).origin.startswith("http")
    assert settled(context(tmp_path, SMSSH_AGENT="found", **both)).origin.startswith(str(tmp_path))
    with pytest.raises(SmsshError, match="bundle has none"):
        settled(context(tmp_path, SMSSH_AGENT="bundle", **both))
    with pytest.raises(SmsshError, match="image has no amazon-ssm-agent"):
        settled(context(tmp_path, **{**both, "SMSSH_AGENT": "found", "PATH": "/nowhere"}))


def test_nothing_is_downloaded_that_was_not_pinned(tmp_path, package, mirror) -> None:
    mirror.serve(package)
    for environ in (
        {},
        {"SMSSH_AGENT_VERSION": "3.3.987.0"},
        {**pinned(package), "SMSSH_AGENT_SHA256": "riscv64=" + "a" * 64},
    ):
        with pytest.raises(SmsshError, match=f"none was pinned for {MACHINE}"):
            settled(context(tmp_path, SMSSH_AGENT_URL=mirror.url, **environ))
    assert not mirror.asked


def test_another_file_than_the_pinned_one_is_refused(tmp_path, package, mirror) -> None:
    mirror.serve(package + b"x")
    with pytest.raises(SmsshError, match=r"SHA-256 [0-9a-f]{64}, not [0-9a-f]{64}") as caught:
        settled(context(tmp_path, SMSSH_AGENT_URL=mirror.url, **pinned(package)))
    assert caught.value.reference == "wrong-agent-digest"
    assert len(mirror.asked) == 1  # another attempt would bring the same
    folder = tmp_path / "run" / "agent"
    assert not (folder / "amazon-ssm-agent").exists()
    assert not (folder / "amazon-ssm-agent.deb").exists()


def test_a_package_without_the_agent_is_refused(tmp_path, mirror) -> None:
    other = deb({"./usr/bin/something": b"else"})
    mirror.serve(other)
    with pytest.raises(SmsshError, match="has no amazon-ssm-agent"):
        settled(context(tmp_path, SMSSH_AGENT_URL=mirror.url, **pinned(other)))


def test_what_passes_is_tried_again(tmp_path, package, mirror, quick) -> None:
    mirror.serve(package)
    mirror.failures = [503, 429]
    mirror.cuts, mirror.cut = 1, 200
    assert settled(context(tmp_path, SMSSH_AGENT_URL=mirror.url, **pinned(package))).origin
    assert len(mirror.asked) == 4


def test_a_file_that_always_ends_early_is_said_so(tmp_path, package, mirror, quick) -> None:
    mirror.serve(package)
    mirror.cuts, mirror.cut = 99, 200
    with pytest.raises(SmsshError, match=f"only 200 of {len(package)} bytes came") as caught:
        settled(context(tmp_path, SMSSH_AGENT_URL=mirror.url, **pinned(package)))
    assert "SSHOptions(agent='bundle')" in str(caught.value)


@pytest.mark.parametrize("status", [403, 404])
def test_a_refusal_is_final(tmp_path, package, mirror, status) -> None:
    mirror.failures = [status] * 9
    with pytest.raises(SmsshError, match=f"HTTP status {status}"):
        settled(context(tmp_path, SMSSH_AGENT_URL=mirror.url, **pinned(package)))
    assert len(mirror.asked) == 1


def test_nobody_listens(tmp_path, package, quick) -> None:
    with pytest.raises(SmsshError, match="refused"):
        settled(context(tmp_path, SMSSH_AGENT_URL="http://127.0.0.1:9", **pinned(package)))


def test_no_name(tmp_path, package, quick) -> None:
    with pytest.raises(SmsshError, match="cannot be downloaded"):
        settled(context(tmp_path, SMSSH_AGENT_URL="https://no-such-host.invalid", **pinned(package)))


def test_nobody_answers(tmp_path, package, quick, monkeypatch) -> None:
    monkeypatch.setattr(agent_package, "ANSWER_SECONDS", 0.2)
    began = time.monotonic()
    with silence() as url, pytest.raises(SmsshError, match="timed out"):
        settled(context(tmp_path, SMSSH_AGENT_URL=url, **pinned(package)))
    assert time.monotonic() - began < agent_package.DOWNLOAD_ATTEMPTS * agent_package.ANSWER_SECONDS + 20


def test_the_end_of_the_job_ends_a_download(tmp_path, package) -> None:
    made = context(tmp_path, SMSSH_AGENT_URL="http://127.0.0.1:9", **pinned(package))
    threading.Timer(0.1, made.ending.set).start()
    with pytest.raises(SmsshError, match="cannot be downloaded"):
        settled(made)


def test_a_download_that_drips_has_an_end(tmp_path) -> None:
    """Each part comes within its own limit, and the whole would take hours."""
    import socket

    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def drip():
        connection, _ = listener.accept()
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        with contextlib.suppress(OSError):
            while not over.wait(0.02):
                connection.sendall(b"x")

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    try:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/x"
        with pytest.raises(SmsshError, match=r"only \d+ bytes came in time"):
            agent_package.download(url, tmp_path / "x", seconds=0.5)
    finally:
        over.set()
        listener.close()
        thread.join(LIMIT)


def test_a_full_disk_is_named(tmp_path, package, mirror) -> None:
    mirror.serve(package)
    made = context(tmp_path, SMSSH_AGENT_URL=mirror.url, **pinned(package))
    (made.run_dir / "agent").mkdir()
    (made.run_dir / "agent" / "amazon-ssm-agent.deb").symlink_to("/dev/full")
    with pytest.raises(SmsshError, match="No space left") as caught:
        settled(made)
    assert "SMSSH_RUN_DIR" in str(caught.value)


def test_a_run_folder_that_cannot_be_used_is_said_in_the_jobs_log(tmp_path) -> None:
    made = context(tmp_path)
    (made.run_dir / "agent").write_text("a file where the folder belongs")
    with pytest.raises(OSError, match="agent"):
        ssm.smssh_start_transport(made)
    assert len(made.said) == 1
    assert str(made.run_dir / "agent") in made.said[0]


def test_a_proxy_is_used(tmp_path, package, mirror, monkeypatch) -> None:
    mirror.serve(package)
    monkeypatch.setenv("http_proxy", mirror.url)
    made = context(tmp_path, SMSSH_AGENT_URL="http://mirror.invalid", **pinned(package))
    assert settled(made).origin.startswith("http://mirror.invalid/")
    assert mirror.asked[0].startswith("http://mirror.invalid/")


def test_a_proxy_for_https_is_asked_for_a_tunnel(tmp_path, package, monkeypatch, quick) -> None:
    import socket

    asked = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    asked.append(connection.recv(4096))
                    connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")

        threading.Thread(target=refuse, daemon=True).start()
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(SmsshError, match="407"):
            settled(context(tmp_path, SMSSH_AGENT_URL="https://mirror.invalid", **pinned(package)))
        listener.shutdown(socket.SHUT_RDWR)
    assert asked[0].startswith(b"CONNECT mirror.invalid:443")


@pytest.mark.parametrize(
    ("region", "expected"),
    [
        ("eu-west-1", "https://s3.eu-west-1.amazonaws.com/amazon-ssm-eu-west-1"),
        ("us-east-1", "https://s3.amazonaws.com/amazon-ssm-us-east-1"),
        ("cn-north-1", "https://s3.cn-north-1.amazonaws.com.cn/amazon-ssm-cn-north-1"),
        ("us-gov-west-1", "https://s3.us-gov-west-1.amazonaws.com/amazon-ssm-us-gov-west-1"),
    ],
)
def test_the_buckets_of_all_partitions(region, expected, monkeypatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    endpoint = boto3.session.Session(region_name=region).client("s3").meta.endpoint_url
    assert bucket_url(endpoint, region) == expected
    assert (
        package_url(expected, "3.3.987.0", "aarch64")
        == f"{expected}/3.3.987.0/debian_arm64/amazon-ssm-agent.deb"
    )
    assert (
        package_url(expected, "3.3.987.0", "x86_64")
        == f"{expected}/3.3.987.0/debian_amd64/amazon-ssm-agent.deb"
    )


def test_there_are_machines_without_an_agent() -> None:
    with pytest.raises(SmsshError, match="riscv64"):
        package_url("https://mirror", "1.2.3.4", "riscv64")


def test_the_agents_environment(tmp_path, monkeypatch) -> None:
    secret = {"HF_TOKEN": "hf", "AWS_ACCESS_KEY_ID": "ASIA", "AWS_PROFILE": "mine", "PYTHONPATH": "/x"}
    made = context(tmp_path, https_proxy="http://proxy:3128", **secret)
    found = ssm_agent.agent_environment(made, tmp_path)
    assert not secret.keys() & found.keys()
    assert found["https_proxy"] == "http://proxy:3128"
    assert found["AWS_SHARED_CREDENTIALS_FILE"] == str(tmp_path / "credentials")
    # An image without certificates: Go finds none, botocore brings its own.
    monkeypatch.setattr(ssm_agent, "CERTIFICATES", (str(tmp_path / "none"),))
    assert ssm_agent.agent_environment(made, tmp_path)["SSL_CERT_FILE"].endswith("cacert.pem")
    mine = context(tmp_path, AWS_CA_BUNDLE="/corporate.pem")
    assert ssm_agent.agent_environment(mine, tmp_path)["SSL_CERT_FILE"] == "/corporate.pem"


def test_the_agents_configuration() -> None:
    found = ssm_agent.agent_configuration("eu-west-1", {})
    assert found["Mgs"] == {"Region": "eu-west-1", "SessionWorkerBufferLimit": 100}
    assert found["Agent"]["SelfUpdate"] is False
    assert "Ssm" not in found
    both = {"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_SSMMESSAGES": "http://b"}
    assert ssm_agent.endpoints(both) == {"ssm": "http://a", "ssmmessages": "http://b", "kms": "http://a"}
    found = ssm_agent.agent_configuration("r", both)
    assert found["Mds"] == found["Kms"] == {"Endpoint": "http://a"}
    assert found["Mgs"]["Endpoint"] == "http://b"
    # The agent takes one without a scheme for none, and calls AWS: better to say AWS's own by leaving it out.
    assert ssm_agent.endpoints({"AWS_ENDPOINT_URL": "127.0.0.1:4580"}) == {}
    json.dumps(ssm_agent.agent_configuration("r", both))


@pytest.mark.parametrize(("said", "wanted"), [("true", True), ("TRUE", True), ("false", None), ("", None)])
def test_the_agent_takes_dual_stack_endpoints_where_the_job_does(said: str, wanted: bool | None) -> None:
    """In a subnet that has IPv6 alone AWS's other endpoints have no address."""
    found = ssm_agent.agent_configuration("eu-west-1", {"AWS_USE_DUALSTACK_ENDPOINT": said})
    assert found["Agent"].get("UseDualStackEndpoint") is wanted
    assert "UseDualStackEndpoint" not in ssm_agent.agent_configuration("eu-west-1", {})["Agent"]


@pytest.mark.parametrize(
    ("region", "environ", "expected"),
    [
        ("eu-west-1", {}, "https://s3.eu-west-1.amazonaws.com"),
        ("us-gov-west-1", {}, "https://s3.us-gov-west-1.amazonaws.com"),
        ("cn-north-1", {}, "https://s3.cn-north-1.amazonaws.com.cn"),
        ("us-isob-east-1", {}, "https://s3.us-isob-east-1.sc2s.sgov.gov"),
        ("eusc-de-east-1", {}, "https://s3.eusc-de-east-1.amazonaws.eu"),
        ("eu-west-1", {"AWS_ENDPOINT_URL": "http://localhost:1"}, "http://localhost:1"),
        ("eu-west-1", {"AWS_ENDPOINT_URL_S3": "http://s3", "AWS_ENDPOINT_URL": "http://x"}, "http://s3"),
    ],
)
def test_where_the_agents_bucket_is_needs_no_boto3(monkeypatch, region, environ, expected) -> None:
    import sys

    from smssh_plugin.container import ssm_agent

    for name in ("boto3", "botocore"):
        monkeypatch.setitem(sys.modules, name, None)
    assert ssm_agent._s3_endpoint(environ, region) == expected


def test_the_domains_of_regions_are_those_that_botocore_knows(monkeypatch) -> None:
    import boto3

    from smssh_plugin.container import ssm_agent

    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    session = boto3.Session()
    for partition in session.get_available_partitions():
        for region in session.get_available_regions("s3", partition):
            known = session.client("s3", region_name=region, aws_access_key_id="x", aws_secret_access_key="x")
            if region != "us-east-1":
                assert ssm_agent._s3_endpoint({}, region) == known.meta.endpoint_url
