"""Training: the toolkits of SageMaker's images, SDK v3's drivers, and images without any of them."""

import functools
import json
import shutil
import zipfile
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests import needs

from .harness import PROBE_PYTHON, PROBE_SHELL, WAIT_PYTHON, WAIT_SHELL, Lab, Row
from .images import Image

# ---------------------------------------------------------------------------------------------- images

DEBIAN = Image("Debian 12", "bash ca-certificates", python="")
"""No Python, no sshd."""
PYTHON = DEBIAN.layer(
    "Python 3.11",
    "apt-get update -qq\n"
    "apt-get install -qq --yes --no-install-recommends python3 python3-pip python3-venv >/dev/null\n"
    # pip installs where SageMaker's images let it, and `python` is there.
    "rm -f /usr/lib/python3*/EXTERNALLY-MANAGED\n"
    "ln -s python3 /usr/bin/python\n"
    "rm -rf /var/lib/apt/lists/*\n",
    python="/usr/bin/python3",
)
"""No sshd: logins are asyncssh's, from the bundle."""
SSHD = PYTHON.layer(
    "Python 3.11 and sshd",
    "apt-get update -qq\n"
    "apt-get install -qq --yes --no-install-recommends openssh-server openssh-client gcc libc6-dev python3-dev "
    ">/dev/null\n"
    "mkdir -p /run/sshd\n"
    "rm -rf /var/lib/apt/lists/*\n",
)
TRAINING_51 = SSHD.pip("sagemaker-training 5.1", "sagemaker-training>=5.1,<5.2", "setuptools<81")
TRAINING_49 = SSHD.pip("sagemaker-training 4.9.0", "sagemaker-training==4.9.0", "setuptools<81")
SITE = "/usr/local/lib/python3.11/dist-packages"
FOR_311 = (
    "sed -i 's/collections\\.Mapping/collections.abc.Mapping/; s/^import collections$/import collections.abc/' "
    f"{SITE}/{{}}\n"
)
"""Packages for Python 3.9 and older: this name was still in `collections` there (removed in 3.10)."""
TRAINING_39 = SSHD.pip(
    "sagemaker-training 3.9.2",
    "sagemaker-training==3.9.2",
    "setuptools<81",
    "protobuf<3.21",
    more=FOR_311.format("sagemaker_training/mapping.py"),
)

XGBOOST_MAIN = '''"""What sagemaker_xgboost_container.training does in script mode; that package is not on PyPI."""
from sagemaker_containers import _modules, training_env
def main():
    import tracker_of_the_image
    env = training_env()
    _modules.run_module(env.module_dir, env.to_cmd_args(), env.to_env_vars(), env.module_name, capture_error=False)
'''
TRACKER = f"{SITE}/xgboost/dmlc-core/tracker"
XGBOOST = SSHD.pip(
    "sagemaker-containers 2.8.6",
    "sagemaker-containers==2.8.6.post2",
    "setuptools<81",
    "wheel",
    "protobuf<3.21",
    "werkzeug<2",
    "flask<2",
    "jinja2<3",
    "markupsafe<2.1",
    "itsdangerous<2",
    more=FOR_311.format("sagemaker_containers/_mapping.py")
    + f"mkdir -p {SITE}/sagemaker_xgboost_container {TRACKER}\n"
    f"touch {SITE}/sagemaker_xgboost_container/__init__.py {TRACKER}/tracker_of_the_image.py\n"
    f"cp /files/training.py {SITE}/sagemaker_xgboost_container/training.py\n",
    files=(("training.py", XGBOOST_MAIN.encode()),),
    environment=(
        ("SAGEMAKER_TRAINING_MODULE", "sagemaker_xgboost_container.training:main"),
        ("PYTHONPATH", TRACKER),
        # run_module has pip build the user's module, and there is no network to fetch a build's own tools from.
        ("PIP_NO_BUILD_ISOLATION", "0"),
    ),
)
START_WITH_RIGHT_HOSTNAME = """#!/usr/bin/env bash
# The shape of the entry point of AWS's PyTorch images: telemetry and probes first, then train, and not by exec.
if [ "$1" = "train" ]; then
    python /usr/local/bin/deep_learning_container.py >/dev/null 2>&1 &
    python -c "import json" || exit 1
    CURRENT_HOST=$(python -c "import json, sys; print(json.load(sys.stdin)['current_host'])" \\
        </opt/ml/input/config/resourceconfig.json)
    export CURRENT_HOST
    LD_PRELOAD=/libchangehostname.so train
else
    eval "$@"
fi
"""
CHANGE_HOSTNAME = """#include <string.h>
#include <stdlib.h>
int gethostname(char *name, size_t size) {
    const char *host = getenv("CURRENT_HOST");
    strncpy(name, host ? host : "algo-1", size);
    return 0;
}
"""
PYTORCH = SSHD.layer(
    "PyTorch container",
    "$UV venv --quiet --seed --python /usr/bin/python3 /opt/venv\n"
    "$UV pip install --quiet --compile-bytecode --python /opt/venv/bin/python sagemaker-pytorch-training "
    "'sagemaker-training>=5.1,<5.2' 'setuptools<81'\n"
    "cp /files/start_with_right_hostname.sh /usr/local/bin/\n"
    "echo 'import time; time.sleep(0.1)' > /usr/local/bin/deep_learning_container.py\n"
    "gcc -shared -fPIC -o /libchangehostname.so /files/changehostname.c\n",
    python="/opt/venv/bin/python",
    environment=(
        ("PATH", "/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("SAGEMAKER_TRAINING_MODULE", "sagemaker_pytorch_container.training:main"),
    ),
    files=(
        ("start_with_right_hostname.sh", START_WITH_RIGHT_HOSTNAME.encode()),
        ("changehostname.c", CHANGE_HOSTNAME.encode()),
    ),
)
"""The real sagemaker-pytorch-training in a virtual environment, as /opt/venv is in AWS's images."""
TORCH = SSHD.pip(
    "torch", "torch==2.13.0+cpu", "numpy", "--find-links=/files", downloads=("torch==2.13.0+cpu",)
)
MPI = SSHD.layer(
    "Open MPI",
    "apt-get update -qq\n"
    "apt-get install -qq --yes --no-install-recommends openmpi-bin python3-mpi4py python3-paramiko >/dev/null\n"
    "rm -rf /var/lib/apt/lists/*\n",
)
REMOTE = SSHD.pip("sagemaker-core", f"sagemaker-core=={metadata.version('sagemaker-core')}", "cloudpickle")

# ------------------------------------------------------------------------------------------ users' code

GOOD = (
    "import os, sys\n"
    "sys.stdout.write('user: arguments %s\\n' % sys.argv[1:])\n"  # at once: torchrun's ranks write unbuffered
    "open(os.path.join(os.environ.get('SM_MODEL_DIR', '/opt/ml/model'), 'weights'), 'w').write('1')\n"
)
PYTHON_SOURCES = {
    "good": WAIT_PYTHON + GOOD,
    "exception": PROBE_PYTHON + "raise ValueError('user bug')\n",
    "exit7": PROBE_PYTHON + "import sys\nsys.stdout.write('user: leaving\\n')\nsys.exit(7)\n",
    # Whether it sees the signal is the affair of who started it.
    "sigterm": WAIT_PYTHON
    + "import signal, sys, time\n"
    + "def stopped(*_):\n    os.write(1, b'user: stopped\\n')\n    sys.exit(5)\n"
    + "signal.signal(signal.SIGTERM, stopped)\n"
    + "os.write(1, b'user: ready\\n')\n"
    + "open('/opt/ml/input/ready', 'w').close()\n"
    + "while True:\n    time.sleep(0.1)\n",
    "requirements": GOOD,
}
SHELL_SOURCES = {
    "good": WAIT_SHELL + "echo user: good\nmkdir -p /opt/ml/model\ntouch /opt/ml/model/weights\n",
    "exception": PROBE_SHELL + "echo user bug >&2\nno-such-command-of-ours\n",
    "exit7": PROBE_SHELL + "echo user: leaving\nexit 7\n",
    "sigterm": WAIT_SHELL
    + "trap 'echo user: stopped; exit 5' TERM\necho user: ready\nwhile :; do sleep 0.1; done\n",
}
BAD_REQUIREMENTS = "--no-index\nno-such-package-of-ours==1.0\n"
"""Cannot be had, and nobody has to ask the network for it."""

# ----------------------------------------------------------------------------------------- /opt/ml


def toolkit_layout(folder: Path, scenario: str, source: str, program: str = "train.py") -> None:
    """What SageMaker gives to `train`."""
    folders(folder)
    (folder / "source").mkdir()
    (folder / "source" / program).write_text(source)
    if scenario == "requirements":
        (folder / "source" / "requirements.txt").write_text(BAD_REQUIREMENTS)
    given = {"sagemaker_program": program, "sagemaker_submit_directory": "/opt/ml/source", "epochs": 3}
    write_config(folder, given)


def folders(folder: Path) -> None:
    """The folders that are there in every training job."""
    for name in ("input/config", "input/data", "output", "model"):
        (folder / name).mkdir(parents=True)


def write_config(folder: Path, hyperparameters: dict[str, object]) -> None:
    """/opt/ml/input/config of a training job on one host."""
    config = folder / "input" / "config"
    texts = {name: json.dumps(value) for name, value in hyperparameters.items()}
    (config / "hyperparameters.json").write_text(json.dumps(texts))
    resources = {"current_host": "algo-1", "hosts": ["algo-1"], "network_interface_name": "lo"}
    (config / "resourceconfig.json").write_text(
        json.dumps({**resources, "current_instance_type": "ml.m5.large"})
    )
    (config / "inputdataconfig.json").write_text("{}")


def plain_layout(folder: Path, scenario: str, source: str, program: str = "job.py") -> None:
    """An image's own entry point that runs a program of the channel `code`."""
    folders(folder)
    code = folder / "input" / "data" / "code"
    code.mkdir()
    (code / program).write_text(source)
    (code / program).chmod(0o755)
    write_config(folder, {})


def driver_layout(mode: str, folder: Path, scenario: str, source: str) -> None:
    """What ModelTrainer of SDK v3 uploads, made by the SDK itself.

    Args:
        mode: `basic`, `command`, `torchrun` or `mpi`.
        folder: becomes /opt/ml.
        scenario: which code of the user's it is.
        source: that code.
    """
    from sagemaker.core.utils import install_requirements
    from sagemaker.train.configs import SourceCode
    from sagemaker.train.constants import SM_DRIVERS_LOCAL_PATH
    from sagemaker.train.distributed import MPI as MPI_RANKS
    from sagemaker.train.distributed import Torchrun
    from sagemaker.train.model_trainer import ModelTrainer

    folders(folder)
    code = folder / "input" / "data" / "code"
    code.mkdir()
    (code / "train.py").write_text(source)
    drivers = folder / "input" / "data" / "sm_drivers"
    shutil.copytree(SM_DRIVERS_LOCAL_PATH, drivers, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(install_requirements.__file__, drivers / "scripts" / "install_requirements.py")
    asked: dict[str, Any] = {"source_dir": "code"}
    if mode == "command":
        asked["command"] = "python3 train.py --epochs 3"
    else:
        asked["entry_script"] = "train.py"
    if scenario == "requirements":
        (code / "requirements.txt").write_text(BAD_REQUIREMENTS)
        asked["requirements"] = "requirements.txt"
    ranks = {"torchrun": Torchrun, "mpi": MPI_RANKS}.get(mode)
    distributed = ranks(process_count_per_node=2) if ranks else None
    trainer: Any = SimpleNamespace(hyperparameters={}, _jumpstart_config=None)
    place: Any = SimpleNamespace(name=str(drivers))
    if distributed is not None:
        shutil.copytree(
            distributed.driver_dir,
            drivers / "distributed_drivers",
            dirs_exist_ok=True,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    wanted = SourceCode(**asked)
    ModelTrainer._prepare_train_script(trainer, tmp_dir=place, source_code=wanted, distributed=distributed)
    ModelTrainer._write_source_code_json(trainer, tmp_dir=place, source_code=wanted)
    ModelTrainer._write_distributed_json(trainer, tmp_dir=place, distributed=distributed)
    write_config(folder, {} if mode == "command" else {"epochs": 3})


def remote_layout(folder: Path, scenario: str, source: str) -> None:
    """What @remote and @step of the SDK upload: its driver, and the function in S3 (see `Remote`)."""
    from sagemaker.core.remote_function import job, runtime_environment

    folders(folder)
    write_config(folder, {})
    data = folder / "input" / "data"
    (data / "code").mkdir()
    (data / "code" / "user.py").write_text(source)
    scripts = data / job.RUNTIME_SCRIPTS_CHANNEL_NAME
    scripts.mkdir()
    (scripts / job.ENTRYPOINT_SCRIPT_NAME).write_text(job.ENTRYPOINT_SCRIPT)
    for name in (job.BOOTSTRAP_SCRIPT_NAME, job.RUNTIME_MANAGER_SCRIPT_NAME, job.MPI_UTILS_SCRIPT_NAME):
        shutil.copy(Path(runtime_environment.__file__).parent / name, scripts / name)
    if scenario == "requirements":
        workspace = data / job.REMOTE_FUNCTION_WORKSPACE
        workspace.mkdir()
        with zipfile.ZipFile(workspace / "workspace.zip", "w") as archive:
            archive.writestr(f"{job.JOB_REMOTE_FUNCTION_WORKSPACE}/requirements.txt", BAD_REQUIREMENTS)


# ------------------------------------------------------------------------------------- @step and @remote


class Remote:
    """S3 by moto on this machine's loopback, and in it a function that runs the file which the user edits."""

    server: Any = None
    variables: dict[str, str] = {}  # noqa: RUF012 - filled by `start`, once

    SAVE = """
import boto3, sys
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sagemaker.core.helper.session_helper import Session
from sagemaker.core.remote_function.core.stored_function import StoredFunction
def function():
    exec(compile(open("/opt/ml/input/data/code/user.py").read(), "user.py", "exec"), {})
boto3.client("s3").create_bucket(Bucket="functions")
key = ec.generate_private_key(ec.SECP256R1())
session = Session(boto_session=boto3.Session(region_name="us-east-1"))
StoredFunction(session, "s3://functions/one", key).save(function)
public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
sys.stdout.write("KEY" + public.decode())
"""

    @classmethod
    def start(cls, lab: Lab) -> dict[str, str]:
        """The variables of a job, once the function is stored."""
        if cls.server is None:
            from moto.server import ThreadedMotoServer

            cls.server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
            cls.server.start()
            host, port = cls.server.get_host_and_port()
            variables = {
                "AWS_ENDPOINT_URL": f"http://{host}:{port}",
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_DEFAULT_REGION": "us-east-1",
            }
            arguments = ["run", "--rm", "--interactive", "--network", "host"]
            for name, value in variables.items():
                arguments += ["--env", f"{name}={value}"]
            image = REMOTE.tag(lab.docker)
            done = lab.docker.run(*arguments, image, "python3", "-", data=cls.SAVE)
            cls.variables = {**variables, "REMOTE_FUNCTION_SECRET_KEY": done.stdout.partition("KEY")[2]}
        return cls.variables


# ---------------------------------------------------------------------------------------------- rows

NO_BASH = {"bash_env": "no bash among the job's processes"}
NO_TOOLKIT = {"chain": "no training toolkit, which would read SAGEMAKER_TRAINING_MODULE"}
NO_PARENT = dict.fromkeys(
    ("baked/hold", "pythonpath/hold"),
    "bash leads: the launcher alone has no parent to hold with; such requests name an entry point, which is wrapped",
)
NO_REQUIREMENTS = {"requirements": "nothing here installs requirements"}
ENOUGH = dict.fromkeys(("exit7", "sigterm"), "other rows have it: it differs by toolkit, not by Python")

TOOLKITS = [
    Row(
        name="sagemaker-training 5.1",
        image=TRAINING_51,
        command=["train"],
        sources=PYTHON_SOURCES,
        lay_out=toolkit_layout,
        code="/opt/ml/code/train.py",
        not_here=NO_BASH,
    ),
    Row(
        name="sagemaker-training 4.9.0",
        image=TRAINING_49,
        command=["train"],
        sources=PYTHON_SOURCES,
        lay_out=toolkit_layout,
        code="/opt/ml/code/train.py",
        not_here=NO_BASH,
    ),
    Row(
        name="sagemaker-training 3.9.2",
        image=TRAINING_39,
        command=["train"],
        sources=PYTHON_SOURCES,
        lay_out=toolkit_layout,
        code="/opt/ml/code/train.py",
        not_here=NO_BASH,
    ),
    Row(
        name="sagemaker-containers 2.8.6 (XGBoost image)",
        image=XGBOOST,
        command=["train"],
        sources=PYTHON_SOURCES,
        lay_out=toolkit_layout,
        code="/opt/ml/code/train.py",
        not_here=NO_BASH,
    ),
    Row(
        name="PyTorch image: bash first, venv, LD_PRELOAD",
        image=PYTORCH,
        command=["bash", "-m", "start_with_right_hostname.sh", "train"],
        sources=PYTHON_SOURCES,
        lay_out=toolkit_layout,
        code="/opt/ml/code/train.py",
        started_by={"bash_env": "run.sh"},
    ),
]
DRIVER = "/opt/ml/input/data/sm_drivers/sm_train.sh"
DRIVERS = [
    Row(
        name=f"SDK v3 ModelTrainer: {mode}",
        image={"torchrun": TORCH, "mpi": MPI}.get(mode, SSHD),
        command=["/bin/bash", "-c", f"chmod +x {DRIVER} && {DRIVER}"],
        sources=PYTHON_SOURCES,
        lay_out=functools.partial(driver_layout, mode),
        code="/opt/ml/input/data/code/train.py",
        started_by={"bash_env": "run.sh"},
        not_here={**NO_TOOLKIT, **NO_PARENT},
    )
    for mode in ("basic", "command", "torchrun", "mpi")
]
REMOTE_ROW = Row(
    name="SDK v3 @step and @remote",
    image=REMOTE,
    command=[
        *("/bin/bash", "/opt/ml/input/data/sagemaker_remote_function_bootstrap/job_driver.sh"),
        *("--s3_base_uri", "s3://functions/one", "--region", "us-east-1", "--client_python_version", "3.11"),
        *("--dependency_settings", '{"dependency_file": "requirements.txt"}'),
    ],
    sources=PYTHON_SOURCES,
    lay_out=remote_layout,
    code="/opt/ml/input/data/code/user.py",
    prepare=Remote.start,
    ends_well=frozenset(
        ["exit7"]
    ),  # invoke_function.py: sys.exit in a `finally` takes the place of the function's
    network="host",
    started_by={"bash_env": "run.sh"},
    not_here={**NO_TOOLKIT, **NO_PARENT},
)
JOB = "/opt/ml/input/data/code/job"
PLAIN = [
    Row(
        name="no toolkit, no sshd: smssh-hook run, python",
        image=PYTHON,
        command=["python3", f"{JOB}.py"],
        commands={name: ["smssh-hook", "run", "--", "python3", f"{JOB}.py"] for name in ("baked", "all")},
        sources=PYTHON_SOURCES,
        lay_out=plain_layout,
        code=f"{JOB}.py",
        started_by={"baked": "smssh-hook"},
        extras="[server]",
        not_here={**NO_TOOLKIT, **NO_BASH, **NO_REQUIREMENTS},
    ),
    Row(
        name="no toolkit: an entry point in bash",
        image=PYTHON,
        command=["/bin/bash", f"{JOB}.sh"],
        commands={name: ["smssh-hook", "run", "--", "/bin/bash", f"{JOB}.sh"] for name in ("baked", "all")},
        sources=SHELL_SOURCES,
        lay_out=functools.partial(plain_layout, program="job.sh"),
        code=f"{JOB}.sh",
        started_by={"baked": "smssh-hook", "bash_env": "run.sh"},
        extras="[server]",
        not_here={**NO_TOOLKIT, **NO_REQUIREMENTS, "pythonpath": "no Python among the job's processes"},
    ),
    Row(
        name="no Python in the image: sh",
        image=DEBIAN,
        command=["/bin/sh", f"{JOB}.sh"],
        sources=SHELL_SOURCES,
        lay_out=functools.partial(plain_layout, program="job.sh"),
        code=f"{JOB}.sh",
        quiet=frozenset(["wrapped", "bash_env", "all"]),
        not_here={
            **NO_TOOLKIT,
            **NO_REQUIREMENTS,
            "baked": "no Python in the image",
            "pythonpath": "no Python in the image",
            "hold": "no Python in the image: there can be no login and no hold",
        },
    ),
]


def python_row(version: str) -> Row:
    """A script under one CPython of this machine, in an image that has Debian's as well."""
    need = f"python{version}"
    found = needs.look(need)
    name = f"Python {version}: a script"
    prefix = str(Path(found).resolve().parents[1]) if found else ""
    python = f"{prefix}/bin/python{version}"
    image = SSHD.layer(f"Python {version}", "true\n", python=python, mounts=(prefix,))
    too_old = tuple(map(int, version.split("."))) < (3, 8)
    if found and not too_old:
        image = SSHD.layer(
            f"Python {version}, venv",
            f"{python} -m venv --without-pip /opt/job\n",
            python="/opt/job/bin/python",
            mounts=(prefix,),
        )
    not_here = {**NO_TOOLKIT, **NO_BASH, **NO_REQUIREMENTS, **ENOUGH}
    if too_old:
        not_here.setdefault("baked", "the package needs Python 3.8")
    quiet = frozenset(["pythonpath"] if version == "3.6" else [])
    return Row(
        name=name,
        image=image,
        command=[image.python, f"{JOB}.py"],
        sources=PYTHON_SOURCES,
        lay_out=plain_layout,
        code=f"{JOB}.py",
        quiet=quiet,
        not_here=not_here,
        needs=(need,),
    )


PYTHONS = [python_row(f"3.{minor}") for minor in range(6, 14)]

ROWS = [*TOOLKITS, *DRIVERS, REMOTE_ROW, *PLAIN, *PYTHONS]
