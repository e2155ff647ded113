"""Plugins of others in the bundle: the sources of packages that are installed where the request is made.

They are found there by the name of a distribution or of a module, and go into `plugins.zip` with the entry points that
the supervisor looks for. Pure Python only: what is compiled fits one image, and belongs into that.
"""

from __future__ import annotations

import importlib.util
import re
import warnings
from importlib import metadata
from pathlib import Path
from typing import Iterable, Mapping, Sequence

from ..errors import ExitStatus, SmsshError
from ..plugins import GROUP
from .options import SmsshWarning

__all__ = ["plugin_files"]

SIZE_LIMIT = 10_000_000
"""Bytes of all of them: every job mounts them."""
COMPILED = (".so", ".pyd", ".dylib", ".dll")
OWN = "smssh-plugin"
BROUGHT = frozenset({OWN, "pluggy", "boto3", "botocore"})
"""Requirements that are in the bundle or in the images."""

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")


def plugin_files(names: Sequence[str]) -> dict[str, bytes]:
    """What `plugins.zip` holds: name -> contents. A warning names what a plugin requires and no bundle has.

    Args:
        names: see `SSHOptions.plugins`.

    Raises:
        SmsshError: one is not installed here, has compiled parts, or all of them are too large.
    """
    found: dict[str, bytes] = {}
    for name in names:
        if _normal(name) == OWN or name.partition(".")[0] == "smssh_plugin":
            raise _refusal(f"plugins has {name!r}, which every bundle brings", "leave it out")
        distribution = _distribution(name)
        if distribution is None:
            files, points = _of_module(name, name), {name: name}
            label, version = f"smssh-bundled-{_normal(name)}", "0"
        else:
            points = {each.name: each.value for each in distribution.entry_points if each.group == GROUP}
            files = _of_distribution(name, distribution, points.values())
            label, version = distribution.metadata["Name"], distribution.version
            _warn_of_requirements(name, distribution, names)
        for inner, path in files.items():
            if path.suffix in COMPILED:
                raise _refusal(
                    f"plugins has {name!r}, which has compiled parts ({inner})",
                    "install it in the image instead",
                )
            found[inner] = _read(path)
        # Ours, not the installer's: that says where and how it was installed.
        info = f"{_normal(label).replace('-', '_')}-{version}.dist-info"
        found[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {label}\nVersion: {version}\n".encode()
        lines = [f"{point} = {value}\n" for point, value in sorted(points.items())]
        found[f"{info}/entry_points.txt"] = "".join([f"[{GROUP}]\n", *lines]).encode()
    size = sum(len(data) for data in found.values())
    if size > SIZE_LIMIT:
        raise _refusal(
            f"plugins have {size:,} bytes of files, more than {SIZE_LIMIT:,}",
            "install them in the image instead",
        )
    return found


def _distribution(name: str) -> metadata.Distribution | None:
    try:
        return metadata.distribution(name)
    except (metadata.PackageNotFoundError, ValueError):
        return None


def _of_distribution(
    name: str, distribution: metadata.Distribution, values: Iterable[str]
) -> Mapping[str, Path]:
    """The files of a distribution; where it is installed editable, those of its modules."""
    files = {
        file.as_posix(): Path(str(file.locate()))
        for file in distribution.files or ()
        if not file.parts[0].endswith((".dist-info", ".egg-info", ".data"))
        and not {"..", "__pycache__"} & set(file.parts)
        and not (len(file.parts) == 1 and (file.suffix == ".pth" or file.stem.startswith("__editable__")))
    }
    if any(inner.endswith(".py") for inner in files):
        return files
    modules = {value.partition(":")[0].partition(".")[0] for value in values}
    modules.update((distribution.read_text("top_level.txt") or "").split())
    if not modules:
        raise _refusal(
            f"plugins has {name!r}, which does not say what its modules are", "name a module instead"
        )
    return {inner: path for module in sorted(modules) for inner, path in _of_module(name, module).items()}


def _of_module(name: str, module: str) -> Mapping[str, Path]:
    """The files of the top-level package or module that a module belongs to."""
    top = module.partition(".")[0]
    try:
        spec = importlib.util.find_spec(module)
        whole = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = whole = None
    if spec is None or whole is None or not (whole.submodule_search_locations or _is_source(whole.origin)):
        raise _refusal(
            f"plugins has {name!r}, and there is no such distribution or module in this Python",
            f"install it here: pip install {name}",
        )
    if not whole.submodule_search_locations:
        return {f"{top}.py": Path(str(whole.origin))}
    return {
        f"{top}/{file.relative_to(location).as_posix()}": file
        for location in whole.submodule_search_locations
        for file in sorted(Path(location).rglob("*"))
        if "__pycache__" not in file.parts and not file.is_dir()
    }


def _is_source(origin: str | None) -> bool:
    return origin is not None and origin.endswith(".py")


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise _refusal(f"plugins: {file} cannot be read: {error.strerror}", None) from None


def _warn_of_requirements(name: str, distribution: metadata.Distribution, names: Sequence[str]) -> None:
    here = BROUGHT | {_normal(each) for each in names}
    for requirement in distribution.requires or ():
        match = _NAME.match(requirement)
        if match is None or "extra ==" in requirement or _normal(match.group()) in here:
            continue
        warnings.warn(
            f"the plugin {name} requires {match.group()}, which is not in the bundle: name it in `plugins`, too, or "
            "have it in the image",
            SmsshWarning,
            stacklevel=2,
        )


def _normal(name: str) -> str:
    """A name as package indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _refusal(problem: str, way_out: str | None) -> SmsshError:
    return SmsshError(f"SSHOptions: {problem}", hint=way_out, reference="bad-plugin", status=ExitStatus.USAGE)
