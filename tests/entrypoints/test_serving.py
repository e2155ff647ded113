"""`serve`: real model servers as process 1, with us and without us: answers, worker restarts, ends, logins, holds.

Each runs in a process namespace of its own, where it is process 1 as in a container: the model servers' toolkits
look for their server among all processes there are.
"""

import functools
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from smssh_plugin.supervisor import job
from tests import needs
from tests.waiting import LIMIT, until

from .container import IMAGE, ROOT
from .model_handlers import HANDLERS
from .venvs import venv

CODE = (
    """\
import json, os, pathlib
base = pathlib.Path(os.environ["SAGEMAKER_BASE_DIR"])
(base / "started").write_text(str(os.path.exists(os.environ.get("SMSSH_RUN_DIR", "") + "/lock")))
print("user code", flush=True)
"""
    + HANDLERS
)
MMS_SERVE = """\
#!{python}
import os
from sagemaker_inference import model_server
model_server.MMS_CONFIG_FILE = os.path.join(os.environ["SAGEMAKER_BASE_DIR"], "mms.properties")  # /etc is root's
model_server.start_model_server()
"""
TORCHSERVE_SERVE = """\
#!{python}
import os
from sagemaker_pytorch_serving_container import serving, torchserve
torchserve.TS_CONFIG_FILE = os.path.join(os.environ["SAGEMAKER_BASE_DIR"], "ts.properties")  # /etc is root's
serving.main()
"""
BAD_REQUIREMENTS = "--no-index\nno-such-package-anywhere==1\n"
FRONTENDS = ("com.amazonaws.ml.mms.ModelServer", "org.pytorch.serve.ModelServer")


pytestmark = pytest.mark.timeout(400)


@functools.lru_cache(maxsize=1)
def namespace():
    """The command that makes a process namespace; empty where none can be made."""
    command = [needs.program("unshare"), "--pid", "--fork", "--mount-proc", "--kill-child"]
    command += [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return [] if subprocess.run([*command, "true"], capture_output=True, check=False).returncode else command


def free_port():
    """Below 32768: MMS takes no other."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as found:
            try:
                found.bind(("0.0.0.0", port))
            except OSError:
                continue
            return port


def parent_of(pid):
    """The parent process, or None when the process is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rsplit(b")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[1])


def tree(pid):
    """The living descendants of a process: {pid: command line}."""
    parents = {
        int(path.name): parent_of(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()
    }
    found, new = {}, [pid]
    while new:
        above = new.pop()
        for child, parent in parents.items():
            if parent == above:
                try:
                    found[child] = Path(f"/proc/{child}/cmdline").read_bytes().decode().split("\0")[:-1]
                except OSError:
                    continue
                new.append(child)
    return found


def handles(pid, number):
    """Whether a process has a handler for a signal."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    found = re.search(r"^SigCgt:\s*(\w+)", status, flags=re.MULTILINE)
    return bool(int(found.group(1), 16) & 1 << (number - 1))


class Server:
    """One container that serves a model.

    Args:
        container: its surroundings.
        kind: `plain`, `mms` or `torchserve`.
    """

    def __init__(self, container, kind):
        if not namespace():
            needs.missing("namespaces", "no process namespace can be made")
        self.container = container
        self.kind = kind
        self.base = container.base
        self.bin = container.folder / "bin"
        self.bin.mkdir()
        self.image = IMAGE
        serve = (ROOT / "smssh_plugin" / "local" / "jobs" / "serve.py").read_text()
        if kind != "plain":
            needs.program("java")
            self.image, serve = {"mms": mms, "torchserve": torchserve}[kind]()
        program = self.bin / "serve"
        program.write_text(serve.format(python=self.image / "bin" / "python") if kind != "plain" else serve)
        if kind == "plain":
            program.write_text(f"#!{self.image}/bin/python\n{serve}")
        program.chmod(0o755)
        self.process = None
        self.port = 0

    @property
    def code(self):
        """The folder of the user's code."""
        return self.base / "model" / "code"

    def lay_out(self, source=CODE, requirements=None):
        """What SageMaker unpacks of model.tar.gz."""
        shutil.rmtree(self.base, ignore_errors=True)
        # The model servers' own lock; a new container has none.
        for name in (".model_server.pid", ".model_server.pid.lock"):
            (self.container.folder / name).unlink(missing_ok=True)
        self.code.mkdir(parents=True)
        (self.base / "model" / "weights").write_text("3")
        (self.code / "inference.py").write_text(source)
        if requirements is not None:
            (self.code / "requirements.txt").write_text(requirements)

    def start(self, launcher="", **environ):
        """Start `serve`: without us, or with PYTHONPATH at the bundle (`bundle`) or at a repacked code/ (`code`)."""
        self.port = free_port()
        environ = {
            "PATH": f"{self.bin}:{self.image}/bin:{self.container.environ['PATH']}",
            "SAGEMAKER_BIND_TO_PORT": self.port,
            "SAGEMAKER_MODEL_SERVER_WORKERS": 1,
            "SAGEMAKER_PROGRAM": "inference.py",
            "SAGEMAKER_SUBMIT_DIRECTORY": self.code,
            "TRANSFORM_JOB_NAME": "transform-1",
            "TS_DISABLE_TOKEN_AUTHORIZATION": "true",
            "TEMP": self.container.folder,
            "LC_ALL": "C.UTF-8",
            **environ,
        }
        if launcher == "bundle":
            environ["PYTHONPATH"] = self.container.bundle
        elif launcher == "code":
            # With the manifest: MMS ends where it finds one below the model that has the name of its own.
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(self.container.bundle, self.code, ignore=ignore, dirs_exist_ok=True)
            environ["PYTHONPATH"] = self.code
        self.process = self.container.start(*namespace(), "serve", on=bool(launcher), **environ)
        return self

    @property
    def pid(self):
        """The process that is number 1 in the container."""
        return until(lambda: [pid for pid in tree(self.process.pid) if parent_of(pid) == self.process.pid])[0]

    def request(self, path, body=None):
        """(status, body) of a request; (0, '') when nobody answers."""
        url = f"http://127.0.0.1:{self.port}{path}"
        data = None if body is None else body.encode()
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        try:
            with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=LIMIT) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, ""
        except OSError:
            return 0, ""

    def answers(self):
        """What a client sees, once the server is healthy."""

        def healthy():
            assert self.process.poll() is None, self.container.output() + self.container.log()
            # A model server is healthy before its workers are.
            return self.request("/ping")[0] == 200 and self.request("/invocations", '{"x": 1}')[0] == 200

        until(healthy, seconds=90, what="an answer")
        return self.request("/invocations", '{"x": 14}'), self.request("/invocations", "no json")[0]

    def children(self):
        """The names of what `serve` has for children, ours left out."""
        run = str(self.container.run_dir)
        found = [line for pid, line in tree(self.pid).items() if parent_of(pid) == self.pid]
        return sorted(
            os.path.basename(line[0]) for line in found if line and not any(run in part for part in line)
        )

    def ended(self):
        """The exit status as a container reports it."""
        status = self.process.wait(LIMIT)
        return 128 - status if status < 0 else status

    def terminate(self):
        """SIGTERM to process 1; its exit status."""
        # The model servers' `serve` sets its handler up to a second after they answer; until then it gets no signal.
        # After a retry it is another process, and process 1 passes the signal on.
        program = str(self.bin / "serve")
        until(
            lambda: any(
                program in line and handles(pid, signal.SIGTERM)
                for pid, line in tree(self.process.pid).items()
            )
        )
        os.kill(self.pid, signal.SIGTERM)
        return self.ended()

    def starts(self):
        """How often a supervisor was started; waits for the first, which may be late."""
        log = self.container.run_dir / "supervisor.log"
        return until(lambda: log.exists() and log.read_text().count(" started by "), what="the first start")


def mms():
    """Multi Model Server under sagemaker-inference: the environment and its `serve`."""
    made = venv("mms", "multi-model-server==1.1.11", "sagemaker-inference==1.10.1", "setuptools<81")
    return made, MMS_SERVE


def torchserve():
    """TorchServe under sagemaker-pytorch-inference. Only with a torch without CUDA, which PyPI does not have."""
    needs.program("TorchServe")
    made = venv(
        "torchserve",
        *("torch==2.13.0+cpu", "torchserve==0.12.0", "torch-model-archiver", "numpy<2", "pyyaml"),
        *("sagemaker-pytorch-inference==2.0.25", "setuptools<81"),
        installer="pip",
        missing="torch without CUDA",
    )
    return made, TORCHSERVE_SERVE


@pytest.fixture(scope="module")
def alone():
    """What each server does without us, as far as that is known."""
    return {}


def without_us(server, alone):
    if server.kind not in alone:
        server.lay_out()
        server.start()
        answers = server.answers()
        assert answers[0] == (200, '{"y": 42}')
        assert answers[1] >= 400
        alone[server.kind] = answers, server.children(), server.terminate()
    return alone[server.kind]


@pytest.mark.parametrize("launcher", ["bundle", "code"])
@pytest.mark.parametrize("kind", ["plain", "mms", "torchserve"])
def test_the_same_with_us_and_without_us(container, alone, kind, launcher) -> None:
    server = Server(container, kind)
    expected = without_us(server, alone)
    server.lay_out()
    server.start(launcher)
    answers = server.answers()
    assert (server.base / "started").read_text() == "True"
    status = container.wait_for("ready")
    assert (status["kind"], status["job"]) == ("transform", "transform-1")
    assert status["code_dir"] == str(server.code)
    shown = container.ssh(
        status, "echo $SMSSH_CODE_DIR; python -c 'import sagemaker_inference, sys; print(sys.prefix)'"
    )
    assert shown.stdout.splitlines() == [str(server.code), str(server.image)], shown.stderr
    assert (answers, server.children(), server.terminate()) == expected, container.output() + container.log()
    assert server.starts() == 1
    assert "stopped" in container.log()
    container.assert_quiet()


@pytest.mark.parametrize("kind", ["mms", "torchserve"])
def test_workers_that_are_started_again_start_nothing_of_ours(container, kind) -> None:
    server = Server(container, kind)
    server.lay_out()
    server.start("bundle")
    server.answers()
    container.wait_for("ready")

    def workers():
        found = tree(server.pid)
        parents = {parent_of(pid) for pid in found}
        # MMS starts one interpreter for a model and forks the workers from it.
        return {
            pid
            for pid, line in found.items()
            if pid not in parents and any(part.endswith("_service_worker.py") for part in line)
        }

    before = workers()
    assert before
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    until(lambda: workers() - before, seconds=90, what=lambda: "a new worker: " + container.output())
    assert server.answers()[0] == (200, '{"y": 42}')
    assert server.starts() == 1
    assert server.terminate() == 0


@pytest.mark.parametrize("kind", ["plain", "mms"])
def test_a_killed_supervisor_changes_nothing(container, alone, kind) -> None:
    """MMS waits for every child that process 1 has, and the supervisor becomes one."""
    server = Server(container, kind)
    expected = without_us(server, alone)
    server.lay_out()
    server.start("bundle")
    server.answers()
    container.wait_for("ready")
    for pid, command in container.strays():
        if "supervisor.main" in command:
            os.kill(pid, signal.SIGKILL)
    until(lambda: not any("supervisor.main" in command for _, command in container.strays()))
    assert (server.answers(), server.children(), server.terminate()) == expected


@pytest.mark.parametrize("kind", ["plain", "mms"])
def test_requirements_that_fail(container, kind) -> None:
    """Without a hold the same end; with one the list is fixed over SSH, and the server comes up."""
    server = Server(container, kind)
    server.lay_out(requirements=BAD_REQUIREMENTS)
    without = server.start().ended()
    assert without != 0
    server.lay_out(requirements=BAD_REQUIREMENTS)
    assert server.start("bundle").ended() == without
    assert server.starts() == 1  # before pip
    server.lay_out(requirements=BAD_REQUIREMENTS)
    server.start("bundle", SMSSH_HOLD="failure")
    status = container.wait_for("held")
    assert status["exit_code"] == without
    fixed = container.ssh(
        status, 'echo --no-index > "$SMSSH_CODE_DIR/requirements.txt"; smssh-hook retry --no-wait'
    )
    assert fixed.returncode == 0, fixed.stderr + container.log()
    assert server.answers()[0] == (200, '{"y": 42}')
    assert server.terminate() == 0


ENDINGS = {"exception": "raise ValueError('user bug')\n", "exit 7": "os._exit(7)\n"}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_server_that_ends_by_itself(container, ending) -> None:
    server = Server(container, "plain")
    server.lay_out(CODE + ENDINGS[ending])
    without = server.start().ended()
    assert without == (7 if ending == "exit 7" else 1)
    server.lay_out(CODE + ENDINGS[ending])
    assert server.start("bundle").ended() == without
    assert (server.base / "started").read_text() == "True"


def test_ping_does_not_wait_for_a_login(container) -> None:
    """No transport and no server can be had: the health check of an endpoint must not notice."""
    server = Server(container, "plain")
    server.lay_out()
    server.start("bundle", SMSSH_TRANSPORT="ssm", SMSSH_AUTHORIZED_KEYS="nonsense", AWS_REGION="")
    assert server.answers()[0] == (200, '{"y": 42}')
    assert server.terminate() == 0


def test_an_endpoint_is_no_training_job(tmp_path) -> None:
    """Nothing in an endpoint's container tells its name; that it serves tells its kind."""
    environ = {"SAGEMAKER_BASE_DIR": str(tmp_path)}
    found = job.identify(environ, command=["/usr/bin/python3", "/usr/local/bin/serve"])
    assert (found.kind, found.name) == ("inference", socket.gethostname())
    assert job.identify(environ, command=["serve"]).kind == "inference"
    assert job.identify({**environ, "TRANSFORM_JOB_NAME": "t"}, command=["serve"]).kind == "transform"
    assert job.identify(environ, command=["train"]).kind == "training"
    (tmp_path / "model" / "code").mkdir(parents=True)
    (tmp_path / "model" / "code" / "inference.py").touch()
    assert job.code_dir(environ, "inference") == str(tmp_path / "model" / "code")
