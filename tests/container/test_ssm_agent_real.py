"""Amazon's own agent, where there is one: registered, started and used through our hooks against the local emulator.

SMSSH_TEST_SSM_AGENT names a folder with its programs (amazon-ssm-agent, ssm-agent-worker, ssm-session-worker).
"""

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from smssh_plugin.local.certificate import Certificate
from smssh_plugin.local.service_error import ServiceError
from tests.amazon.programs import loopback_only
from tests.session.support import proxy_command
from tests.waiting import LIMIT, until

from .agents import PROGRAMS, deb, pinned

PLACE = os.environ.get("SMSSH_TEST_SSM_AGENT", "")
pytestmark = [
    pytest.mark.applies(os.geteuid() == 0, "Amazon's agent registers as root only"),
    pytest.mark.needs("amazon-ssm-agent", "unshare"),
]


@pytest.fixture(scope="module", autouse=True)
def alone():
    """Nothing that is wrong may reach AWS."""
    with loopback_only():
        yield


@pytest.fixture
def tls(tmp_path, stack):
    """The session service behind TLS: the agent takes nothing else for its channels."""
    certificate = Certificate.make(tmp_path)
    server = certificate.context()
    inner = int(stack.url.rpartition(":")[2])
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve():
        while True:
            try:
                raw, _ = listener.accept()
                connection = server.wrap_socket(raw, server_side=True)
            except ssl.SSLError:
                continue
            except OSError:
                return
            back = socket.create_connection(("127.0.0.1", inner))
            for pair in ((connection, back), (back, connection)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield f"https://127.0.0.1:{listener.getsockname()[1]}", certificate.authority
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.fixture
def job(container, stack, tls):
    """Starts a wrapped job that has its own /var/lib and /var/log, as a container has, and waits for its node."""
    url, authority = tls

    def entered():
        found = container.wait_for("running")
        return found["transport"]["target"] and found

    def start(condition=entered, **environ):
        hidden = 'mount -t tmpfs tmpfs /var/lib && mount -t tmpfs tmpfs /var/log && exec /bin/sh "$@"'
        work = "while [ ! -e go ]; do sleep 0.05; done"
        process = container.start(
            *("unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", hidden, "sh"),
            *(container.bundle / "run.sh", "sh", "-c", work),
            **{
                "SMSSH_TRANSPORT": "ssm",
                "SMSSH_ROLE": "role",
                "AWS_ENDPOINT_URL": stack.url,
                "AWS_ENDPOINT_URL_SSMMESSAGES": url,
                "AWS_ACCESS_KEY_ID": "ASIAJOBJOBJOBJOBJOBJ",
                "AWS_SECRET_ACCESS_KEY": "the-jobs-secret",
                "AWS_EC2_METADATA_DISABLED": "true",
                "SSL_CERT_FILE": str(authority),
                **environ,
            },
        )
        return process, until(condition, what=lambda: f"the start; {container.log()}")

    return start


def log_in(container, stack, status):
    """One login through our own proxy, the service and the agent; answers its output."""
    command = proxy_command(status["transport"]["target"], status["ssh"]["port"])
    quoted = " ".join("'" + part.replace("'", "'\\''").replace("%", "%%") + "'" for part in command)
    done = subprocess.run(
        ["ssh", *container.ssh_options(status), "-o", f"ProxyCommand={quoted}", "job", "echo in; id -u"],
        env={**stack.environment},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr + container.log()
    return done.stdout.split()


def agents(container):
    return [
        pid for pid, command in container.strays() if any(f"/agent/{name}" in command for name in PROGRAMS)
    ]


def test_register_start_log_in_die_and_leave(container, stack, job) -> None:
    process, status = job(PATH=f"{PLACE}:{container.environ['PATH']}")
    node = status["transport"]["target"]
    assert log_in(container, stack, status) == ["in", "0"]
    # The control channel stood before the job was told that a login is possible.
    assert stack.events("control-open")
    log = container.run_dir / "agent" / "log" / "agent.log"
    assert "et up control channel successfully" in log.read_text()
    assert (container.run_dir / "agent" / "credentials").exists()
    assert not (container.home / ".aws").exists()
    before = agents(container)
    assert len(before) >= 2
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    opened = len(stack.events("control-open"))
    until(lambda: len(stack.events("control-open")) > opened, what="the agent's return")
    assert log_in(container, stack, status) == ["in", "0"]
    assert [
        one["InstanceId"] for one in stack.call("DescribeInstanceInformation")["InstanceInformationList"]
    ] == [node]
    container.script("", name="go")
    began = time.monotonic()
    assert process.wait(LIMIT) == 0
    print(f"the end took {time.monotonic() - began:.2f} s", file=sys.stderr)
    assert stack.call("DescribeInstanceInformation")["InstanceInformationList"] == []
    assert stack.call("DescribeActivations")["ActivationList"] == []
    container.assert_quiet()


def test_out_of_a_package_in_the_bundle(container, stack, job, tmp_path) -> None:
    package = deb({f"./usr/bin/{name}": Path(PLACE, name).read_bytes() for name in PROGRAMS})
    bundle = tmp_path / "bundle"
    shutil.copytree(container.bundle, bundle)
    folder = bundle / "agent" / os.uname().machine
    folder.mkdir(parents=True)
    (folder / "amazon-ssm-agent.deb").write_bytes(package)
    container.bundle = bundle
    process, status = job(SMSSH_AGENT="bundle", **pinned(package))
    assert log_in(container, stack, status) == ["in", "0"]
    process.send_signal(signal.SIGTERM)
    process.wait(LIMIT)
    assert stack.call("DescribeInstanceInformation")["InstanceInformationList"] == []
    container.assert_quiet()


def test_a_role_that_may_not_is_named(container, stack, job) -> None:
    """In the words that the real agent has for it, in the log that we have it write."""
    message = (
        "User: arn:aws:sts::123456789012:assumed-role/Nodes/mi-0 is not authorized to perform: "
        "ssm:UpdateInstanceInformation on resource: *"
    )
    stack.service.faults["UpdateInstanceInformation"] = ServiceError("AccessDeniedException", message)
    process = job(
        lambda: "no login is possible" in container.output(), PATH=f"{PLACE}:{container.environ['PATH']}"
    )[0]
    assert "node's role may not ssm:UpdateInstanceInformation" in container.output(), container.output()
    assert agents(container) == []
    container.script("", name="go")
    assert process.wait(LIMIT) == 0
    assert stack.call("DescribeInstanceInformation")["InstanceInformationList"] == []


def test_documents_do_not_run(container, stack, job) -> None:
    """What stands in the document worker's place is what the agent would start."""
    process, _ = job(PATH=f"{PLACE}:{container.environ['PATH']}")
    worker = container.run_dir / "agent" / "ssm-document-worker"
    assert subprocess.run([worker], check=False).returncode == 1
    # Root's, and writable for nobody else: the agent takes it for its own, and not /usr/bin/ssm-document-worker.
    assert worker.stat().st_uid == 0
    assert worker.stat().st_mode & 0o022 == 0
    assert worker.stat().st_mode & 0o511 == 0o511
    container.script("", name="go")
    assert process.wait(LIMIT) == 0
