"""Which job this container is: name, kind, host, and where the user's code lies."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from pathlib import Path
from typing import Any, Mapping, Sequence

from ..entrypoints import boot
from ..hookspecs import Job
from ..settings import RUNTIME_LIMIT

__all__ = ["base_dir", "code_dir", "identify", "max_runtime", "started"]

INPUT_CONFIG = ("hyperparameters.json", "inputdataconfig.json", "resourceconfig.json")


def base_dir(environ: Mapping[str, str]) -> Path:
    """The folder that is /opt/ml in a container; SAGEMAKER_BASE_DIR is the toolkits' own name for another."""
    return Path(environ.get("SAGEMAKER_BASE_DIR") or "/opt/ml")


def identify(environ: Mapping[str, str], step: str = "", command: Sequence[str] = ()) -> Job:
    """The job and host of this container, from SageMaker's variables and configuration files.

    Args:
        environ: the job's environment.
        step: the pipeline step's name, if it is known.
        command: the command line of the container's entry point; a container that serves, and is not of a
            transform job, is of an endpoint, and does not know its name.
    """
    base = base_dir(environ)
    processing = _read(base / "config" / "processingjobconfig.json")
    if processing:
        kind, name = "processing", str(processing.get("ProcessingJobName") or "")
        arn = str(processing.get("ProcessingJobArn") or "")
    elif environ.get("TRANSFORM_JOB_ARN") or environ.get("TRANSFORM_JOB_NAME"):
        kind, name = "transform", environ.get("TRANSFORM_JOB_NAME", "")
        arn = environ.get("TRANSFORM_JOB_ARN", "")
    elif "TRAINING_JOB_NAME" not in environ and any(os.path.basename(part) == "serve" for part in command):
        kind, name, arn = "inference", "", ""
    else:
        kind, name = "training", environ.get("TRAINING_JOB_NAME", "")
        arn = environ.get("TRAINING_JOB_ARN", "")
    name = name or arn.rpartition("/")[2] or socket.gethostname()
    host = "algo-1"
    hosts: tuple[str, ...] = ()
    for folder in (base / "input" / "config", base / "config"):
        config = _read(folder / "resourceconfig.json")
        host = str(config.get("current_host") or host)
        hosts = tuple(str(each) for each in config.get("hosts") or hosts)
    return Job(name=name, kind=kind, host=host, arn=arn, step=step, hosts=hosts)


def max_runtime(environ: Mapping[str, str], told: int) -> int:
    """The job's own limit in seconds, 0 where it is not known.

    Args:
        environ: the job's environment.
        told: what the settings say of it.
    """
    if told:
        return told
    # The request of a processing job, as the service has it ("Build your own processing container", developer guide).
    request = _read(base_dir(environ) / "config" / "processingjobconfig.json")
    condition = request.get("StoppingCondition")
    limit = condition.get("MaxRuntimeInSeconds") if isinstance(condition, dict) else None
    return limit if type(limit) is int and 0 < limit <= RUNTIME_LIMIT else 0


def started(environ: Mapping[str, str]) -> float:
    """When the job started, as far as it shows in its container, in seconds since the epoch; not later than now.

    SageMaker's own clock starts before images and data are there, and nothing in a container says when. The files that
    SageMaker made for this job are the earliest trace of it; what is older than the machine came with the image.
    """
    now = time.time()
    try:
        with open("/proc/uptime", encoding="ascii") as file:
            booted = now - float(file.read().split()[0])
    except (OSError, ValueError, IndexError):
        booted = now
    base = base_dir(environ)
    folders = [
        base / "input" / "config",
        base / "config",
        base / "input" / "data",
        base / "processing" / "input",
    ]
    traces = [*folders, *(folders[0] / name for name in INPUT_CONFIG)]
    traces += [folders[1] / "processingjobconfig.json", folders[1] / "resourceconfig.json"]
    for folder in folders[2:]:
        with contextlib.suppress(OSError):
            traces += folder.iterdir()
    times = [now]
    for trace in traces:
        with contextlib.suppress(OSError):
            times.append(trace.stat().st_mtime)
    return min(each for each in times if booted <= each <= now)


def code_dir(
    environ: Mapping[str, str], kind: str, command: Sequence[str] = (), cwd: str | None = None
) -> str:
    """Where the user's code lies, as well as can be told from outside of the toolkit.

    Args:
        environ: the job's environment.
        kind: the job's kind.
        command: the entry point's command line.
        cwd: the entry point's working directory.
    """
    base = base_dir(environ)
    sourced = base / "input" / "data" / "code"
    if any("/sm_drivers/" in part for part in command) and sourced.is_dir():
        return str(sourced)  # SDK v3 ModelTrainer
    for part in command[1:]:
        path = Path(cwd or "/") / part
        if "/" in part and "\n" not in part and len(part) < 1024 and path.is_file():
            if path.name in boot.PROGRAMS and (path.name != "train" or boot.is_toolkits(str(path))):
                continue  # a toolkit's console script, not the user's
            if path.parent == base / "processing" / "input" / "entrypoint":
                break  # FrameworkProcessor: the SDK's own script, which unpacks the user's code beside it
            return str(path.parent)
    usual = {
        "training": [base / "code", sourced],
        "processing": [base / "processing" / "input" / "code"],
        "transform": [base / "model" / "code", base / "model"],
        "inference": [base / "model" / "code", base / "model"],
    }
    for folder in usual.get(kind, []):
        if folder.is_dir() and any(folder.iterdir()):
            return str(folder)
    return cwd or "/"


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def job_environment(environ: Mapping[str, str], prefix: str) -> dict[str, str]:
    """The job's own environment, put together from the supervisor's; see boot.supervisor_environment."""
    own = {
        name: value for name, value in environ.items() if not name.startswith(prefix) and name != "PYTHONPATH"
    }
    own.update((name[len(prefix) :], value) for name, value in environ.items() if name.startswith(prefix))
    return own


def login_environment(environ: Mapping[str, str], bundle: str | None) -> dict[str, str]:
    """The environment for logins: the job's, without what would start the plugin a second time.

    Args:
        environ: the environment of the entry point.
        bundle: the folder of the bundle; it is taken off PYTHONPATH.
    """
    login = dict(environ)
    for name in (
        "SMSSH_ENABLE",
        "SMSSH_ENTRY",
        "START_SSH",
        "SMSSH_AUTHORIZED_KEYS",
        "SMSSH_NOTIFY",
        "LD_PRELOAD",
        "BASH_ENV",
        "ENV",
        "_",
        "SHLVL",
        "OLDPWD",
    ):
        login.pop(name, None)
    path = [part for part in login.pop("PYTHONPATH", "").split(os.pathsep) if part]
    path = [part for part in path if bundle is None or os.path.abspath(part) != os.path.abspath(bundle)]
    path = [part for part in path if not boot.is_place(part)]
    if path:
        login["PYTHONPATH"] = os.pathsep.join(path)
    return login
