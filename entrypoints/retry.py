"""What has to be put right before an entry point is retried in the same container.

The drivers of the SDKs and toolkits prepare a container once, and the next attempt runs them once more. What a driver
always makes anew is put back to what it was before the attempt, and an archive that a driver unpacks over a
person's edits is made to hold them:

- A FrameworkProcessor's runproc.sh unpacks sourcedir.tar.gz in the folder of the code (sagemaker.processing of SDK v2,
  sagemaker.core.processing of v3); the bootstrap of `@step` and `@remote` unpacks workspace.zip in the working
  directory.
- Without a workspace.zip, that bootstrap calls os.mkdir for its workspace, and `conda env create` for its environment:
  both fail where there is one (bootstrap_runtime_environment.py and runtime_environment_manager.py, v2.232 to v3.27).
- The MPI drivers (sagemaker_training's mpi.py and smdataparallel.py, mpi_utils.py of v3, mpi_utils_remote.py) tell each
  other by files in /tmp that a host is ready and that the job is over: the last attempt's would end a worker at once.
- A failure file is written only if it does not exist (SDK v3's sm_train.sh, sagemaker_training 4.x and 5.x).

CPython 3.7 and later, standard library only: init imports it.
"""

from __future__ import annotations

import glob
import os
import shutil
import tarfile
import zipfile

from ..files import AtomicFile
from . import boot

TYPE_CHECKING = False  # typing itself is not imported in the job's interpreters
if TYPE_CHECKING:
    from typing import Mapping

ARCHIVE = "sourcedir.tar.gz"
BOOTSTRAP = "sagemaker_remote_function_bootstrap"
"""The channel with the driver of `@step` and `@remote`."""
WORKSPACE = "sagemaker_remote_function_workspace"
"""The folder in the working directory that this driver unpacks, or makes, and runs the function in."""
CONDA_ENVIRONMENT = "sagemaker-runtime-env"
"""The conda environment that it creates."""
CONDA_FILE = "remote_function_conda_env.txt"
STATUS_FILES = ("/tmp/ready.*", "/tmp/done.*")  # noqa: S108 - the drivers' own
TICK = 0.05
"""Seconds that a file's time, which is that of the kernel's last tick, may be behind the clock's."""


def prepare(environ: Mapping[str, str], started: float, ended: float) -> None:
    """Make the container what the next attempt expects; never raises.

    Args:
        environ: the job's environment.
        started: when the last attempt started, in seconds since the epoch.
        ended: when it ended.
    """
    base = environ.get("SAGEMAKER_BASE_DIR") or "/opt/ml"
    keep_edits(os.path.join(base, "processing", "input", "code"))
    if os.path.isdir(os.path.join(base, "input", "data", BOOTSTRAP)):
        undo_bootstrap(os.path.join(base, "input", "data"), os.getcwd(), environ, started)
    forget_status(started, ended)
    forget_failure(os.path.join(base, "output", "failure"), started)


def forget_status(started: float, ended: float) -> None:
    """Remove the files by which the hosts of an MPI job told each other in the last attempt how far they were.

    One that another host has written since then is of the next attempt.

    Args:
        started: when the last attempt started, in seconds since the epoch.
        ended: when it ended.
    """
    for pattern in STATUS_FILES:
        for path in glob.glob(pattern):
            try:
                if started - TICK <= os.stat(path).st_mtime <= ended and os.path.isfile(path):
                    os.unlink(path)
            except OSError as error:  # noqa: PERF203 - another one can be removed all the same
                boot.note(f"{path} stays: {error}")


def undo_bootstrap(channels: str, folder: str, environ: Mapping[str, str], started: float) -> None:
    """Put back what the bootstrap of `@step` and `@remote` made, and keep edits of what it unpacked.

    Args:
        channels: the folder of the input channels.
        folder: the entry point's working directory.
        environ: the job's environment.
        started: when the last attempt started, in seconds since the epoch.
    """
    archives = [
        path
        for path in glob.glob(os.path.join(glob.escape(channels), "*", "workspace.zip"))
        if _is_workspace(path)
    ]
    for archive in archives:
        try:
            _rezip(archive, folder)
        except Exception as error:  # noqa: BLE001, PERF203 - the next attempt then runs the code as it was submitted
            boot.note(f"{archive} is as it was: {type(error).__name__}: {error}")
    if not archives:
        _set_aside(os.path.join(folder, WORKSPACE))
    _forget_new(os.path.join(folder, CONDA_FILE), started)
    for root in _conda_roots(environ):
        environment = os.path.join(root, CONDA_ENVIRONMENT)
        if _changed_since(os.path.join(environment, "conda-meta"), started):
            _set_aside(environment)


def _conda_roots(environ: Mapping[str, str]) -> list[str]:
    """The folders in which conda or mamba may have made an environment."""
    roots = [
        path
        for name in ("CONDA_ENVS_PATH", "CONDA_ENVS_DIRS")
        for path in environ.get(name, "").split(os.pathsep)
    ]
    for name in ("mamba", "conda"):
        program = shutil.which(name, path=environ.get("PATH"))
        if program is not None:
            roots.append(os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(program))), "envs"))
    if environ.get("HOME"):
        roots.append(os.path.join(environ["HOME"], ".conda", "envs"))
    return list(dict.fromkeys(root for root in roots if root))


def _set_aside(path: str) -> None:
    """Rename what the last attempt made: it has to be made anew, and a person may have worked in it."""
    if not os.path.lexists(path):
        return
    number = 1
    while os.path.lexists(f"{path}.attempt-{number}"):
        number += 1
    try:
        os.rename(path, f"{path}.attempt-{number}")
        boot.note(f"{path} is {path}.attempt-{number} now: the next attempt makes it anew")
    except OSError as error:
        boot.note(f"{path} stays: {error}")


def _is_workspace(path: str) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.startswith(WORKSPACE + "/") for name in archive.namelist())
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


def _rezip(archive: str, folder: str) -> None:
    """Put what was edited and removed in the workspace into its archive."""
    with zipfile.ZipFile(archive) as old:
        members = [(member, os.path.join(folder, member.filename)) for member in old.infolist()]
    if not any(os.path.lexists(path) for _, path in members):
        return  # nothing has been unpacked yet
    with AtomicFile(archive, mode=None) as new, zipfile.ZipFile(new, "w", zipfile.ZIP_STORED) as out:
        for member, path in members:
            _add(out, member, path)


def _add(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: str) -> None:
    """Add a file or folder under the name of a member, if it is still there."""
    if member.is_dir() and os.path.isdir(path):
        archive.writestr(member, b"")
    elif os.path.isfile(path):
        with open(path, "rb") as file, archive.open(member.filename, "w", force_zip64=True) as written:
            shutil.copyfileobj(file, written)


def _changed_since(path: str, started: float) -> bool:
    try:
        return os.stat(path).st_mtime > started - TICK
    except OSError:
        return False


def forget_failure(path: str, started: float) -> None:
    """Remove the failure file of the last attempt; one from before it stays, as it would without us.

    Args:
        path: the failure file.
        started: when the last attempt started, in seconds since the epoch.
    """
    _forget_new(path, started)


def _forget_new(path: str, started: float) -> None:
    try:
        if _changed_since(path, started):
            os.unlink(path)
    except OSError as error:
        boot.note(f"{path} stays: {error}")


def keep_edits(folder: str) -> None:
    """Put what was edited and removed in the folder of the code into its archive, if there is one.

    Args:
        folder: the input where the SDK's processors put the user's code.
    """
    archive = os.path.join(folder, ARCHIVE)
    try:
        if os.path.isfile(archive):
            _repack(archive, folder)
    except Exception as error:  # noqa: BLE001 - the next attempt then runs the code as it was submitted
        boot.note(f"{archive} is as it was: {type(error).__name__}: {error}")


def _repack(archive: str, folder: str) -> None:
    with tarfile.open(archive, "r:gz") as old:
        names = [(member.name, os.path.join(folder, member.name)) for member in old.getmembers()]
    if not any(os.path.lexists(path) for _, path in names):
        return  # nothing has been unpacked yet
    # The least compression: a person waits for it, and it is read once.
    with AtomicFile(archive, mode=None) as new, tarfile.open(
        fileobj=new, mode="w:gz", compresslevel=1
    ) as out:
        for name, path in names:
            if os.path.lexists(path):
                out.add(path, name, recursive=False)
