"""SageMaker's own remote debugging on the local emulator: a running training job becomes a target."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config as ClientConfig
from botocore.exceptions import ClientError

from smssh_plugin.errors import SmsshError
from smssh_plugin.local.native_agent import target_of
from smssh_plugin.local.sandbox.container import check_support
from smssh_plugin.local.server import Config, _start
from smssh_plugin.local.state import State, StateFolder
from tests import needs
from tests.waiting import LIMIT, until

from .jobs_support import image_environment, processes
from .root_folders import make_root
from .service_harness import Service, running, training
from .session_client import Client

if TYPE_CHECKING:
    from collections.abc import Iterator


class Emulator:
    """The whole local emulator in a thread, as `smssh local` wires it."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self.folder = StateFolder(folder)
        self.folder.make()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._stack = contextlib.AsyncExitStack()
        config = Config(folder, 0, image_environment(), **more)
        self.state: State = self._do(_start(config, self.folder, self._stack))

    def _do(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(LIMIT)

    def client(self, service: str) -> Any:
        key = self.state.key
        return boto3.session.Session(key.access_key, key.secret_key, region_name="us-east-1").client(
            service,
            endpoint_url=self.state.endpoint,
            config=ClientConfig(proxies={}, retries={"max_attempts": 1}),
        )

    def close(self) -> None:
        self._do(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(LIMIT)
        self._loop.close()


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    try:
        check_support()
    except SmsshError as error:
        needs.missing("namespaces", str(error))
    with tempfile.TemporaryDirectory(prefix="smssh-native-") as folder:
        root = make_root(Path(folder) / "root folder", "a root")
        made = Emulator(Path(folder) / "state", images={"root": root})
        made.client("s3").create_bucket(Bucket="bucket")
        yield made
        made.close()
        assert not processes(folder)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running() as made:
        yield made


SERVER = (
    "import signal, socket, sys; signal.signal(15, lambda *_: sys.exit());"
    ' server = socket.create_server(("127.0.0.1", 22));'
    ' [(made.send(b"SSH-2.0-x\\r\\n"), made.close()) for made, _ in iter(server.accept, None)]'
)
"""Something on the port of SSH; an argument of a container takes 256 characters, in one line."""


def begin(
    emulator: Emulator, name: str, hosts: int = 1, *, server: bool = False, image: str = "image", **more: Any
) -> Any:
    """A training job that goes on until it is stopped.

    Args:
        emulator: where.
        name: its name.
        hosts: how many.
        server: whether it listens on its port 22.
        image: what it is made of.
        more: members of the request.
    """
    sagemaker = emulator.client("sagemaker")
    request = training(**more)
    # PID 1 of a container ignores SIGTERM without a handler.
    script = "trap 'exit 0' TERM; sleep 1000 & wait"
    command = ["python", "-c", SERVER] if server else ["sh", "-c", script]
    request["AlgorithmSpecification"] |= {"ContainerEntrypoint": command, "TrainingImage": image}
    request["ResourceConfig"]["InstanceCount"] = hosts
    sagemaker.create_training_job(TrainingJobName=name, **request)
    until(lambda: sagemaker.describe_training_job(TrainingJobName=name)["SecondaryStatus"] == "Training")
    return sagemaker


def connected(emulator: Emulator, target: str) -> bool:
    found: str = emulator.client("ssm").get_connection_status(Target=target)["Status"]
    return found == "connected"


def program_of(name: str) -> str:
    """The agent's path."""
    return f"/{name}/algo-1/native/amazon-ssm-agent"


def end(sagemaker: Any, name: str) -> None:
    sagemaker.stop_training_job(TrainingJobName=name)
    until(lambda: sagemaker.describe_training_job(TrainingJobName=name)["TrainingJobStatus"] == "Stopped")


def test_a_job_that_is_submitted_so_can_be_entered(emulator: Emulator) -> None:
    name = "native-1"
    sagemaker = begin(emulator, name, 2, RemoteDebugConfig={"EnableRemoteDebug": True})
    ssm = emulator.client("ssm")
    for host in ("algo-1", "algo-2"):
        target = target_of(name, host)
        assert target == f"sagemaker-training-job:{name}_{host}"
        until(lambda target=target: connected(emulator, target))
        shell = Client(ssm.start_session(Target=target), key=emulator.state.key)
        # It is in the container: its files, and its processes.
        files = "/opt/ml/input/config/resourceconfig.json /proc/1/cmdline"
        shell.send(f"cat {files}; echo TLS=$SSL_CERT_FILE.\n".encode())
        shell.wait_output(b"sleep 1000")
        output = shell.wait_output(b"TLS=.").decode()
        assert f'"current_host": "{host}"' in output
        shell.close()
    assert not ssm.describe_instance_information()["InstanceInformationList"]  # no managed node
    end(sagemaker, name)
    until(lambda: not connected(emulator, target_of(name, "algo-1")))
    assert not processes(f"/{name}/")


def test_a_job_in_a_root_folder_without_python_can_be_entered(emulator: Emulator) -> None:
    """The agent is this machine's, with its Python and libraries; what it starts is the image's."""
    name = "native-root"
    sagemaker = begin(emulator, name, image="root", RemoteDebugConfig={"EnableRemoteDebug": True})
    target = target_of(name, "algo-1")
    until(lambda: connected(emulator, target))
    shell = Client(emulator.client("ssm").start_session(Target=target), key=emulator.state.key)
    shell.send(b"cat /etc/image; command -v python3 || echo no python; readlink /proc/self/exe\n")
    output = shell.wait_output(b"/bin/readlink").decode()
    assert "a root" in output
    assert "no python" in output.replace("echo no python", "")
    shell.close()
    end(sagemaker, name)


def test_a_running_job_is_opened_and_closed_by_an_update(emulator: Emulator) -> None:
    name = "native-2"
    sagemaker = begin(emulator, name)
    target = target_of(name, "algo-1")
    assert "RemoteDebugConfig" not in sagemaker.describe_training_job(TrainingJobName=name)
    assert not connected(emulator, target)
    with pytest.raises(ClientError, match="TargetNotConnected"):
        emulator.client("ssm").start_session(Target=target)
    for enabled in (True, True, False, True):
        answer = sagemaker.update_training_job(
            TrainingJobName=name, RemoteDebugConfig={"EnableRemoteDebug": enabled}
        )
        assert answer["TrainingJobArn"].endswith(name)
        until(lambda enabled=enabled: connected(emulator, target) is enabled)
        shown = sagemaker.describe_training_job(TrainingJobName=name)["RemoteDebugConfig"]
        assert shown == {"EnableRemoteDebug": enabled}
    end(sagemaker, name)
    with pytest.raises(ClientError, match="it is Stopped"):
        sagemaker.update_training_job(TrainingJobName=name, RemoteDebugConfig={"EnableRemoteDebug": True})


def test_a_native_target_takes_ssh_and_its_agent_is_restarted_by_the_next_update(emulator: Emulator) -> None:
    name = "native-3"
    sagemaker = begin(emulator, name, server=True, RemoteDebugConfig={"EnableRemoteDebug": True})
    target = target_of(name, "algo-1")
    until(lambda: connected(emulator, target))
    opening = emulator.client("ssm").start_session(
        Target=target, DocumentName="AWS-StartSSHSession", Parameters={"portNumber": ["22"]}
    )
    client = Client(opening, key=emulator.state.key)
    client.wait_complete()
    client.wait_output(b"SSH-2.0-x\r\n")
    client.wait_closed()
    (pid,) = processes(program_of(name))
    os.kill(pid, signal.SIGKILL)
    until(lambda: not connected(emulator, target))
    debug = {"RemoteDebugConfig": {"EnableRemoteDebug": True}}
    # Its end may be noticed a moment later than that of its connection.
    until(
        lambda: sagemaker.update_training_job(TrainingJobName=name, **debug) and connected(emulator, target)
    )
    end(sagemaker, name)


def test_updates_at_the_same_time_start_one_agent(emulator: Emulator) -> None:
    name = "native-4"
    sagemaker = begin(emulator, name)
    debug = {"RemoteDebugConfig": {"EnableRemoteDebug": True}}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: sagemaker.update_training_job(TrainingJobName=name, **debug), range(8)))
    until(lambda: connected(emulator, target_of(name, "algo-1")))
    assert len(processes(program_of(name))) == 1
    end(sagemaker, name)
    until(lambda: not processes(program_of(name)))


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({}, "RemoteDebugConfig is missing"),
        ({"ProfilerConfig": {"DisableProfiler": True}}, "not ProfilerConfig"),
    ],
)
def test_other_updates_are_refused_by_name(service: Service, request_: dict[str, Any], words: str) -> None:
    name = f"refused-{len(request_)}"
    service.sagemaker.create_training_job(TrainingJobName=name, **training(Environment={"OUTCOME": "hold"}))
    with pytest.raises(ClientError, match=words):
        service.sagemaker.update_training_job(TrainingJobName=name, **request_)
    until(lambda: name in service.runner.released, "the job")
    service.release(name)


def test_an_update_is_for_jobs_that_download_or_train(service: Service) -> None:
    sagemaker = service.sagemaker
    debug = {"RemoteDebugConfig": {"EnableRemoteDebug": True}}
    with pytest.raises(ClientError, match="Requested resource not found"):
        sagemaker.update_training_job(TrainingJobName="nobody", **debug)
    sagemaker.create_training_job(TrainingJobName="early", **training(Environment={"OUTCOME": "hold"}))
    with pytest.raises(ClientError, match="Downloading or Training; it is Starting"):
        sagemaker.update_training_job(TrainingJobName="early", **debug)
    (job,) = [one for one in until(lambda: service.runner.jobs) if one.name == "early"]
    service._loop.call_soon_threadsafe(service.sagemaker_service.jobs.progress, job, "Downloading", "")
    until(
        lambda: sagemaker.describe_training_job(TrainingJobName="early")["SecondaryStatus"] == "Downloading",
        "the download",
    )
    sagemaker.update_training_job(TrainingJobName="early", **debug)
    assert ("early", True) in service.runner.debugged
    service.release("early")
