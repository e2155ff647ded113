"""Images from Debian and PyPI only, made once for exactly what they are made of.

A layer is a shell script that runs in a container of its parent with the host's network; `docker commit` keeps
what it did. Its tag is the digest of all that went in, so a second run finds everything in place.
"""

import hashlib
import os
import shlex
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path

from tests import needs

from .daemon import WORK, Docker, DockerError

REPOSITORY = "smssh-test"
PASSED_ON = ("PIP_", "UV_", "SSL_", "REQUESTS_", "HTTP_", "HTTPS_", "NO_PROXY", "http_", "https_", "no_proxy")
"""Prefixes of the variables by which a machine says how its packages are fetched."""
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"

_building = threading.RLock()


def find_uv() -> str:
    """The uv on PATH, else the one that `make environments` fetched."""
    found = needs.look("uv")
    if found is None:
        raise DockerError("uv is not installed: run `make environments`")
    return found


@dataclass(frozen=True)
class Image:
    """One image.

    Attributes:
        name: for people.
        script: what makes it out of its parent; `sh -eu`. `$UV` is uv, `/files` the folder of `files`.
        parent: the image below, None for a fresh Debian.
        python: the interpreter that owns `train`, `serve` or the user's script; '' if there is no interpreter.
        environment: the image's own ENV.
        files: files that the script needs, name -> contents.
        downloads: what this machine's own pip fetches into `/files` first, for packages that only its settings find.
        mounts: folders of this machine that the image cannot do without, at their own path, read only.
    """

    name: str
    script: str = ""
    parent: "Image | None" = None
    python: str = "/usr/bin/python3"
    environment: tuple[tuple[str, str], ...] = ()
    files: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)
    downloads: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The digest of all that the image is made of."""
        digest = hashlib.sha256()
        parts = [
            self.parent.key if self.parent else "debian",
            self.script,
            repr((self.environment, self.downloads, self.mounts)),
        ]
        parts += [name + hashlib.sha256(data).hexdigest() for name, data in self.files]
        for part in parts:
            digest.update(part.encode() + b"\0")
        return digest.hexdigest()[:16]

    def tag(self, docker: Docker) -> str:
        """The name that Docker knows it by; makes it where it isn't made yet."""
        with _building:
            tag = f"{REPOSITORY}:{self.key}"
            if docker.run("image", "inspect", tag, check=False).returncode != 0:
                self._make(docker, tag)
            return tag

    def _make(self, docker: Docker, tag: str) -> None:
        print(f"[images] making {self.name}", flush=True)
        if self.parent is None:
            _debian(docker, tag, self.script)
            return
        parent = self.parent.tag(docker)
        container = f"make-{self.key}"
        docker.run("rm", "--force", container, check=False)
        with tempfile.TemporaryDirectory(dir=WORK) as folder:
            for name, data in self.files:
                Path(folder, name).write_bytes(data)
            if self.downloads:
                _download(self.downloads, folder)
            # Not --env: a commit would keep it in the image.
            variables = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
            variables.update(
                UV="/usr/local/bin/uv", UV_NO_PROGRESS="1", UV_CACHE_DIR="/cache", UV_LINK_MODE="copy"
            )
            variables.update(DEBIAN_FRONTEND="noninteractive", HOME="/root")
            lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
            Path(folder, "script.sh").write_text("\n".join([*lines, self.script]))
            command = ["run", "--name", container, "--network", "host", "--user", "0"]
            mounts = [(folder, "/files"), (find_uv(), "/usr/local/bin/uv")]
            mounts += [(os.path.realpath(CERTIFICATES), CERTIFICATES)]
            mounts += [(path, path) for path in ("/etc/apt/apt.conf.d", "/etc/apt/apt.conf")]
            mounts += [(path, path) for path in self.mounts]
            (WORK / "uv").mkdir(exist_ok=True)
            command += ["--volume", f"{WORK / 'uv'}:/cache"]
            for source, target in mounts:
                if os.path.exists(source):
                    command += ["--volume", f"{source}:{target}:ro"]
            docker.run(*command, parent, "/bin/sh", "-eu", "/files/script.sh")
            changes = [f"--change=ENV {name}={value}" for name, value in self.environment]
            docker.run("commit", *changes, "--change=CMD []", container, tag)
        docker.run("rm", "--force", container)

    def layer(self, name: str, script: str, **changes: object) -> "Image":
        """An image on top of this one, with the same interpreter and variables unless `changes` says else."""
        python = str(changes.pop("python", self.python))
        environment = tuple(changes.pop("environment", self.environment))  # type: ignore[call-overload]
        changes.setdefault("mounts", self.mounts)
        return Image(name, script, self, python, environment, **changes)  # type: ignore[arg-type]

    def pip(self, name: str, *requirements: str, more: str = "", **changes: object) -> "Image":
        """A layer with packages from PyPI in the image's interpreter, then what the script `more` does."""
        quoted = " ".join(f"'{requirement}'" for requirement in requirements)
        install = "$UV pip install --quiet --compile-bytecode --break-system-packages"
        install += f' --python "{self.python}" {quoted}\n'
        return self.layer(name, install + more, **changes)


class UnavailableError(DockerError):
    """The package index of this machine has no torch without CUDA."""


def _download(requirements: tuple[str, ...], folder: str) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version", "3.11", "--dest", folder, *requirements]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UnavailableError(f"pip finds no {' '.join(requirements)} here")


def _debian(docker: Docker, tag: str, packages: str) -> None:
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        archive = Path(folder, "root.tar")
        command = ["mmdebstrap", "--quiet", "--variant=minbase", "--include", ",".join(packages.split())]
        done = subprocess.run(
            [*command, "bookworm", str(archive)], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise DockerError(f"mmdebstrap: {done.stderr[-3000:]}")
        docker.run("import", archive, tag)
