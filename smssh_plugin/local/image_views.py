"""What a container needs to be made of an image: folders to mount, a PATH, and the local emulator's own programs.

The emulator adds two programs to every image: the fake agent, and a `serve` where the image has none. The agent
runs in the emulator's own Python. A container with this machine's system finds that where it is; one with a root
folder of its own gets what it is made of below MACHINE, read-only, and starts it by this machine's loader with this
machine's libraries: what the image has of either is never mixed with it.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ExitStatus, SmsshError
from ..files import write_atomically
from .agent.installed import Interpreter, install
from .jobs import serve
from .removal import remove_tree
from .sandbox.container import MACHINE, check_root, visible_folders

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .images import Image, Images

__all__ = ["View", "Views"]

_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PACKAGES = Path(__file__).parents[2]
"""The folder that this package is imported from."""
_LOADER = re.compile(r"/ld(-linux[\w.-]*|-musl[\w.-]*|64|-[\d.]+)?\.so(\.\d+)?$")


@dataclass(frozen=True)
class View:
    """How containers of one image are made; the arguments of SandboxSpec, except for `path` and `agent`.

    Args:
        path: the PATH.
        agent: what runs the fake agent.
    """

    path: str
    agent: Interpreter
    root: Path | None
    copy_on_write: tuple[Path, ...]
    visible: tuple[Path, ...]
    machine: tuple[Path, ...]


class Views:
    """Those of all images of an emulator. Blocking code.

    Args:
        images: the images.
        folder: the emulator's state folder, of which `bin` and `images` are used.
        environment: variables that every container gets.
        pace: see `install`.

    Raises:
        SmsshError: a root folder cannot be mounted here, or no job could have the state folder on its PATH.
    """

    def __init__(self, images: Images, folder: Path, environment: Mapping[str, str], pace: float) -> None:
        if os.pathsep in str(folder):
            raise SmsshError(
                f"the emulator's folder {folder} has a {os.pathsep!r} in its path, which no PATH of a job can hold",
                hint="set SMSSH_HOME to another folder",
                reference="home-not-usable",
                status=ExitStatus.USAGE,
            )
        self._folder = folder
        self._shared = [Path(environment["AWS_CA_BUNDLE"])] if environment.get("AWS_CA_BUNDLE") else []
        self._pace = pace
        self._machine = _Machine.ours()
        remove_tree(folder / "images")
        for image in images.all:
            if image.kind == "root":
                check_root(image.folder, folder / "images")
            self._fill(image)

    def of(self, image: Image) -> View:
        """How containers of an image are made."""
        programs = self._bin(image)
        if image.kind == "root":
            return View(
                path=f"{programs}:{_SYSTEM_PATH}",
                agent=self._machine.interpreter,
                root=image.folder,
                copy_on_write=(),
                visible=(programs, *self._shared),
                machine=self._machine.folders,
            )
        folders = [
            image.folder,
            programs,
            *self._shared,
            *(Path(path) for path in sys.path if os.path.isabs(path)),
            _PACKAGES,  # an editable installation has a finder for it, and no entry on sys.path
        ]
        return View(
            path=f"{programs}:{image.folder}/bin:{_SYSTEM_PATH}",
            agent=Interpreter.ours(),
            root=None,
            copy_on_write=(image.folder,),
            visible=visible_folders([image.folder / "bin" / "python", Path(sys.executable)], folders),
            machine=(),
        )

    def _bin(self, image: Image) -> Path:
        """The folder that stands first on the PATH of an image's containers."""
        return self._folder / "images" / str(image.number) / "bin" if image.number else self._folder / "bin"

    def _fill(self, image: Image) -> None:
        """Write what the emulator adds to an image."""
        folder = self._bin(image)
        folder.mkdir(parents=True, exist_ok=True)
        install(folder, self._pace, self.of(image).agent)
        program = folder / "serve"
        if _has_serve(image):
            program.unlink(missing_ok=True)
            return
        python = "python3" if image.kind == "root" else str(image.folder / "bin" / "python")
        # A shebang holds neither a blank nor, everywhere, more than 127 characters: have sh find Python. The
        # program keeps the name `serve`, which is how it is known in a process list.
        head = f"#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\n"
        text = head + Path(serve.__file__).read_text(encoding="utf-8")
        write_atomically(program, text, mode=0o755)


def _has_serve(image: Image) -> bool:
    if image.kind == "environment":
        return os.access(image.folder / "bin" / "serve", os.X_OK)
    # A link in it is meant for its own root: that it is there is all that can be said from here.
    return any(os.path.lexists(f"{image.folder}{folder}/serve") for folder in _SYSTEM_PATH.split(":"))


@dataclass(frozen=True)
class _Machine:
    """The emulator's Python, for containers of another system.

    Args:
        interpreter: how it is started there.
        folders: what it needs of this machine.
    """

    interpreter: Interpreter
    folders: tuple[Path, ...]

    @classmethod
    def ours(cls) -> _Machine:
        """Read it off this process, which has loaded what the agent will load, and more."""
        python = Path(os.path.realpath(sys.executable))
        modules = [
            str(_PACKAGES),
            *(path for path in sys.path if os.path.isabs(path) and os.path.exists(path)),
        ]
        libraries = _libraries()
        loader = next((path for path in libraries if _LOADER.search(path)), None)
        home = f"{python.parent.parent}/"
        # Its own first: this machine's folders may hold the library of another Python of that version.
        own = [path for path in libraries if path.startswith(home)]
        places = list(dict.fromkeys(os.path.dirname(path) for path in (*own, *libraries)))
        command: tuple[str, ...] = (MACHINE + str(python),)
        if loader is not None:
            command = (
                MACHINE + loader,
                "--library-path",
                ":".join(MACHINE + place for place in places),
                *command,
            )
        interpreter = Interpreter(
            (*command, "-I", "-S"), tuple(MACHINE + path for path in dict.fromkeys(modules))
        )
        needed = {str(python.parent.parent), *modules, *places}
        outermost = sorted(
            path for path in needed if not any(path.startswith(other + "/") for other in needed)
        )
        return cls(interpreter, tuple(Path(path) for path in outermost))


def _libraries() -> list[str]:
    """The shared libraries of this process that are not of a Python package, by the path they were loaded from."""
    paths = []
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields = line.rstrip("\n").split(maxsplit=5)
            if len(fields) == 6 and re.search(r"\.so(\.[\d.]+)?$", fields[5]):
                paths.append(fields[5])
    packages = tuple(f"{os.path.realpath(path)}/" for path in sys.path if os.path.isabs(path))
    return [path for path in dict.fromkeys(paths) if not path.startswith(packages)]
