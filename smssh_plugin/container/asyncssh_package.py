"""asyncssh for the SSH server: the image's own, or unpacked from the bundle's wheels."""

from __future__ import annotations

import importlib.util
import io
import platform
import sys
import zipfile
from typing import TYPE_CHECKING

from ..manifest import Manifest

if TYPE_CHECKING:
    from pathlib import Path

    from ..hookspecs import Context

__all__ = ["available", "unpacked"]


def available(context: Context) -> bool:
    """Whether asyncssh is in the image or in the bundle."""
    return importlib.util.find_spec("asyncssh") is not None or bool(_wheel_files(context))


def _wheel_files(context: Context) -> list[Path]:
    """The bundle's wheels for this Python and machine."""
    if context.bundle is None:
        return []
    own = f"{sys.version_info[0]}.{sys.version_info[1]}-{platform.machine()}"
    return sorted((context.bundle / "wheels" / own).glob("*.whl"))


def unpacked(context: Context) -> str:
    """A private folder with the bundle's wheels unpacked; '' when the image has asyncssh itself.

    Raises:
        SmsshError: a wheel is not the one that the bundle was built with.
    """
    bundle = context.bundle
    if bundle is None or importlib.util.find_spec("asyncssh") is not None:
        return ""
    manifest = Manifest.of_folder(bundle)
    folder = context.run_dir / "site"
    folder.mkdir(mode=0o700, exist_ok=True)
    for wheel in _wheel_files(context):
        data = wheel.read_bytes()
        manifest.check(wheel.relative_to(bundle).as_posix(), data)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            archive.extractall(str(folder))
    return str(folder)
