"""What has to be put right before an entry point is run again in the same container.

A FrameworkProcessor's runproc.sh begins with `tar -xzf sourcedir.tar.gz` in the folder of the code
(sagemaker.processing of SDK v2, sagemaker.core.processing of v3), in every attempt, over what a person has mended
there: so the archive is made to hold what lies in the folder. And a failure file is written only where there is none
(SDK v3's sm_train.sh, sagemaker_training 4.x and 5.x): so the last attempt's is removed.

CPython 3.7 and later, standard library only: init imports it.
"""

from __future__ import annotations

import os
import tarfile

from . import boot

TYPE_CHECKING = False  # typing itself is not imported in the job's interpreters
if TYPE_CHECKING:
    from typing import Mapping

ARCHIVE = "sourcedir.tar.gz"


def prepare(environ: Mapping[str, str], started: float) -> None:
    """Make the container what the next attempt expects; never raises.

    Args:
        environ: the job's environment.
        started: when the last attempt started, in seconds since the epoch.
    """
    base = environ.get("SAGEMAKER_BASE_DIR") or "/opt/ml"
    keep_edits(os.path.join(base, "processing", "input", "code"))
    forget_failure(os.path.join(base, "output", "failure"), started)


def forget_failure(path: str, started: float) -> None:
    """Remove the failure file of the last attempt; one from before it stays, as it would without us.

    Args:
        path: the failure file.
        started: when the last attempt started, in seconds since the epoch.
    """
    try:
        # A file's time is that of the kernel's last tick, a little earlier than the clock's.
        if os.stat(path).st_mtime > started - 0.05:
            os.unlink(path)
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
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
    new = archive + ".smssh"
    with tarfile.open(archive, "r:gz") as old:
        members = [(member, os.path.join(folder, member.name)) for member in old.getmembers()]
        if not any(os.path.lexists(path) for _, path in members):
            return  # nothing has been unpacked yet
        try:
            # The least compression: a person waits for it, and it is read once.
            with tarfile.open(new, "w:gz", compresslevel=1) as out:
                for member, path in members:
                    if os.path.lexists(path):
                        out.add(path, member.name, recursive=False)
            os.rename(new, archive)
        finally:
            if os.path.exists(new):
                os.unlink(new)
