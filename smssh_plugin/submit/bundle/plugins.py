"""Plugins of others in the bundle: the sources of packages that are installed where the request is made.

They are found there by the name of a distribution or of a module, and go into `plugins.zip` with the entry points that
the supervisor looks for. Pure Python only: what is compiled fits one image, and belongs into that.

Sent are code and declared package data, and nothing else that happens to lie in a package's folder (`.env`, `.git`,
keys): of an installed distribution what its RECORD names, of an editable one or a folder on sys.path `*.py` and what
setuptools' `package-data` names (pyproject.toml or setup.cfg). Nothing whose name begins with a dot, ever.
"""

from __future__ import annotations

import importlib.util
import os
import re
import warnings
from importlib import metadata
from pathlib import Path
from typing import Iterable, Mapping, Sequence

from ...errors import ExitStatus, SmsshError
from ...plugins import GROUP
from ..options import SmsshWarning
from .package_data import declared

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
            # Packages that are namespaces only: zipimport finds them by an entry of their own.
            for above in _namespaces(inner, files):
                found[above] = b""
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


def _namespaces(inner: str, files: Mapping[str, Path]) -> list[str]:
    """The folders above a module that are packages without an `__init__.py`, as the archive names folders."""
    if not inner.endswith(".py"):
        return []
    parts = inner.split("/")[:-1]
    above = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
    return [f"{each}/" for each in above if f"{each}/__init__.py" not in files]


def _distribution(name: str) -> metadata.Distribution | None:
    try:
        return metadata.distribution(name)
    except (metadata.PackageNotFoundError, ValueError):
        return None


def _of_distribution(
    name: str, distribution: metadata.Distribution, values: Iterable[str]
) -> Mapping[str, Path]:
    """The files of a distribution; where it is installed editable, those of its modules."""
    files = _recorded(distribution)
    if any(inner.endswith(".py") for inner in files):
        return _all_within(name, files, Path(str(distribution.locate_file(""))))
    values = list(values)
    modules = {value.partition(":")[0] for value in values}
    modules.update((distribution.read_text("top_level.txt") or "").split())
    if not modules:
        raise _refusal(
            f"plugins has {name!r}, which does not say what its modules are", "name a module instead"
        )
    found: dict[str, Path] = {}
    for module in sorted(modules):
        if module.partition(".")[0] == module and _is_namespace(module):
            continue  # what an entry point names in it is here, too; the rest may be others'
        found.update(_of_folder(name, module))
    return found


def _recorded(distribution: metadata.Distribution) -> dict[str, Path]:
    """What an installer has put into the folder of packages for a distribution, except for what is about it."""
    return {
        file.as_posix(): Path(str(file.locate()))
        for file in distribution.files or ()
        if not file.parts[0].endswith((".dist-info", ".egg-info", ".data"))
        and not {"..", "__pycache__"} & set(file.parts)
        and not any(part.startswith(".") for part in file.parts)
        and not (len(file.parts) == 1 and (file.suffix == ".pth" or file.stem.startswith("__editable__")))
    }


def _of_module(name: str, module: str) -> Mapping[str, Path]:
    """The files of the package or module of one file that a module belongs to."""
    root, place = _package_of(name, module)
    first = f"{root}/__init__.py" if place.is_dir() else root
    for distribution in metadata.distributions():
        recorded = _recorded(distribution)
        known = recorded.get(first)
        if known is not None and known.exists() and place.exists() and _is_within(known, place):
            files = {
                inner: path
                for inner, path in recorded.items()
                if inner == root or inner.startswith(f"{root}/")
            }
            return _all_within(name, files, place if place.is_dir() else place.parent)
    return _of_folder(name, module)


def _package_of(name: str, module: str) -> tuple[str, Path]:
    """The package that a module belongs to, below those that only are namespaces: its name as a path, and its folder.

    A module of one file that is in no package is its own.
    """
    try:
        if importlib.util.find_spec(module) is None:
            raise ImportError
        parts = module.split(".")
        for count in range(1, len(parts) + 1):
            spec = importlib.util.find_spec(".".join(parts[:count]))
            if spec is None or spec.origin in (None, "namespace"):
                continue
            if spec.submodule_search_locations:
                return "/".join(parts[:count]), Path(next(iter(spec.submodule_search_locations)))
            if _is_source(spec.origin):
                return "/".join(parts[:count]) + ".py", Path(str(spec.origin))
            break
    except (ImportError, ValueError, AttributeError):
        pass
    raise _refusal(
        f"plugins has {name!r}, and there is no such distribution or module in this Python",
        f"install it here: pip install {name}",
    )


def _is_namespace(module: str) -> bool:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin in (None, "namespace") and bool(spec.submodule_search_locations)


def _of_folder(name: str, module: str) -> Mapping[str, Path]:
    """Code and declared package data of a package that no installer has recorded; a warning names the rest."""
    root, place = _package_of(name, module)
    if not place.is_dir():
        return _all_within(name, {root: place}, place.parent)
    data = declared(place, root.replace("/", "."))
    files: dict[str, Path] = {}
    left: list[str] = []
    for folder, folders, names in os.walk(place, followlinks=True):
        inside = Path(folder)
        folders[:] = sorted(
            each
            for each in folders
            if each != "__pycache__" and not each.startswith(".") and _no_loop(inside / each)
        )
        for each in sorted(names):
            file = inside / each
            inner = f"{root}/{file.relative_to(place).as_posix()}"
            if each.startswith(".") or file.suffix == ".pyc":
                continue
            if file.suffix == ".py" or file.suffix in COMPILED or file in data:
                files[inner] = file
            else:
                left.append(inner)
    if left:
        shown = ", ".join(left[:5]) + (f" and {len(left) - 5} more" if len(left) > 5 else "")
        warnings.warn(
            f"of the plugin {name}, {shown} is not sent: it is neither code nor declared package data; if the plugin "
            "needs it, install it (pip install, not editable) or name it in [tool.setuptools.package-data]",
            SmsshWarning,
            stacklevel=2,
        )
    return _all_within(name, files, place)


def _no_loop(folder: Path) -> bool:
    """Whether a folder is not one of those around it, by a symlink."""
    return not (folder.is_symlink() and _is_within(folder.parent, folder))


def _is_within(path: Path, folder: Path) -> bool:
    """Whether a path is a folder's, or the folder itself, when no symlink is left in either."""
    return folder.resolve() in (path.resolve(), *path.resolve().parents)


def _all_within(name: str, files: Mapping[str, Path], root: Path) -> Mapping[str, Path]:
    """Refuse files that a symlink takes from outside of the package: nobody has said that they are to be sent."""
    real = root.resolve()
    for inner, path in files.items():
        found = path.resolve()
        if not _is_within(found, real):
            raise _refusal(
                f"plugins has {name!r}, whose {inner} is a symlink that leads out of the package, to {found}",
                "put a file in its place",
            )
    return files


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
