"""Inference: `serve` of plain sagemaker-inference and of Multi Model Server, asked, stopped, failing and fixed.

TorchServe is in tests/entrypoints/test_serving.py only: a torch without CUDA is not on PyPI.
"""

import json
from pathlib import Path

from tests.entrypoints.model_handlers import HANDLERS

from .daemon import ROOT
from .harness import WAIT_PYTHON, Row
from .rows_training import BAD_REQUIREMENTS, SSHD

CODE = "/opt/ml/model/code"
NO_ENTRY_POINT = "CreateModel takes no entry point"
NO_TOOLKIT = "no training toolkit in a container that serves"
NO_BASH = "no bash among the container's processes"

SOURCES = {
    "good": WAIT_PYTHON + HANDLERS,
    "exception": WAIT_PYTHON + "raise ValueError('user bug')\n",
    "exit7": WAIT_PYTHON + "import os\nos._exit(7)\n",
    "sigterm": WAIT_PYTHON + HANDLERS,
    "requirements": WAIT_PYTHON + HANDLERS,
}

MMS_SERVE = """\
#!/usr/bin/python3
from sagemaker_inference import model_server
model_server.start_model_server()
"""
PLAIN = SSHD.pip(
    "sagemaker-inference 1.10",
    *("sagemaker-inference==1.10.1", "setuptools<81"),
    more="install -m 755 /files/serve /usr/local/bin/serve\n",
    files=(
        (
            "serve",
            b"#!/usr/bin/python3\n" + (ROOT / "smssh_plugin" / "local" / "jobs" / "serve.py").read_bytes(),
        ),
    ),
)
MMS = SSHD.layer(
    "Java 17",
    "apt-get update -qq\n"
    "apt-get install -qq --yes --no-install-recommends openjdk-17-jre-headless >/dev/null\n"
    "rm -rf /var/lib/apt/lists/*\n",
).pip(
    "multi-model-server 1.1",
    *("multi-model-server==1.1.11", "sagemaker-inference==1.10.1", "setuptools<81"),
    more="install -m 755 /files/serve /usr/local/bin/serve\n",
    files=(("serve", MMS_SERVE.encode()),),
)

ASK = """
import sys, urllib.error, urllib.request
def ask(path, body=None):
    request = urllib.request.Request("http://127.0.0.1:8080" + path, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode() if body else ""
    except urllib.error.HTTPError as error:
        return error.code, ""
    except OSError:
        return 0, ""
good = ask("/invocations", b'{"x": 14}') if ask("/ping")[0] == 200 else (0, "")
print(good, ask("/invocations", b"no json") if good[0] == 200 else "")
sys.exit(good[0] != 200)
"""

HANDLES_SIGTERM = r"""
import pathlib, re, sys
for status in pathlib.Path("/proc").glob("[0-9]*/status"):
    try:
        words = status.with_name("cmdline").read_bytes().split(b"\0")
        caught = re.search(r"^SigCgt:\s*(\w+)", status.read_text(), flags=re.MULTILINE)
    except OSError:
        continue
    if b"/usr/local/bin/serve" in words and caught and int(caught.group(1), 16) & 1 << 14:
        sys.exit(0)
sys.exit(1)
"""


def layout(folder: Path, scenario: str, source: str) -> None:
    """What SageMaker unpacks of model.tar.gz."""
    code = folder / "model" / "code"
    code.mkdir(parents=True)
    (folder / "additional-model-data-sources" / "smssh").mkdir(parents=True)
    (folder / "output").mkdir()
    (folder / "model" / "weights").write_text("3")
    (code / "inference.py").write_text(source)
    if scenario == "requirements":
        (code / "requirements.txt").write_text(BAD_REQUIREMENTS)


def mms_layout(folder: Path, scenario: str, source: str) -> None:
    """The server outlives a worker that fails, and ends by itself only where pip does."""
    layout(
        folder,
        "requirements" if scenario == "hold" else scenario,
        SOURCES["good"] if scenario == "hold" else source,
    )


def answers(run):
    """What a client sees, once there is an answer."""
    seen = run.poll(
        lambda: (done := run.exec("python3", "-I", "-c", ASK)).returncode == 0 and done.stdout, "an answer"
    )
    assert "42" in seen, seen
    return {"answers": seen}


def asked_and_stopped(run):
    """Ask it, then stop it."""
    seen = answers(run)
    # A server answers a moment before it handles SIGTERM, and process 1 gets none that it does not handle.
    run.poll(lambda: run.exec("python3", "-I", "-c", HANDLES_SIGTERM).returncode == 0, "a handler of SIGTERM")
    run.stop(grace=30)
    return seen


def stopped_with_a_failing_worker(run):
    """The workers fail, one after another; the server goes on until it is stopped."""
    run.wait_for("user bug")
    run.stop(grace=30)
    return {}


def fixed(command: str, data: str):
    """A `held` that fixes something over SSH, retries, and sees the server come up."""

    def held(run):
        done = run.ssh(run.status(), f"{command} && smssh-hook retry --no-wait --json", data)
        assert done.returncode == 0, f"ssh: {done.returncode} {done.stdout}{done.stderr}\n{run.evidence()}"
        assert json.loads(done.stdout)["attempt"] == 2
        return asked_and_stopped(run)

    return held


ROWS = [
    Row(
        name="serve, sagemaker-inference 1.10",
        image=PLAIN,
        command=["serve"],
        sources=SOURCES,
        lay_out=layout,
        code=f"{CODE}/inference.py",
        bundle="/opt/ml/additional-model-data-sources/smssh",
        during={"good": asked_and_stopped, "sigterm": asked_and_stopped},
        held=fixed(f"cat > {CODE}/inference.py", SOURCES["good"]),
        not_here={"wrapped": NO_ENTRY_POINT, "chain": NO_TOOLKIT, "bash_env": NO_BASH},
    ),
    Row(
        name="serve, multi-model-server 1.1",
        image=MMS,
        command=["serve"],
        sources=SOURCES,
        lay_out=mms_layout,
        code=f"{CODE}/inference.py",
        bundle="/opt/ml/additional-model-data-sources/smssh",
        environment={"SAGEMAKER_PROGRAM": "inference.py", "SAGEMAKER_MODEL_SERVER_WORKERS": "1"},
        during={
            "good": asked_and_stopped,
            "sigterm": asked_and_stopped,
            "exception": stopped_with_a_failing_worker,
        },
        held=fixed(f"rm {CODE}/requirements.txt", ""),
        not_here={
            "wrapped": NO_ENTRY_POINT,
            "chain": NO_TOOLKIT,
            "bash_env": NO_BASH,
            "exit7": "a worker's exit status is nobody's but the server's",
        },
    ),
]
