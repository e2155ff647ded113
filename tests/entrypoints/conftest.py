import importlib.util
import io
import marshal
import platform
import subprocess
import sys
import zipfile
from importlib import metadata

import pytest

from smssh_plugin.manifest import MANIFEST
from smssh_plugin.submit.bundle import build as bundles
from smssh_plugin.submit.bundle import model
from smssh_plugin.submit.options import SSHOptions
from tests import needs
from tests.session.conftest import stack
from tests.waiting import LIMIT

from .container import Container

__all__ = ["stack"]


@pytest.fixture(scope="session")
def key(tmp_path_factory):
    needs.program("ssh-keygen")
    path = tmp_path_factory.mktemp("key") / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)], check=True)
    return path


@pytest.fixture(scope="session")
def bundle(tmp_path_factory, key):
    folder = tmp_path_factory.mktemp("bundle")
    # No keys in options.json: the tests set SMSSH_AUTHORIZED_KEYS, or leave it out.
    built = bundles.build(SSHOptions(transport="none"), [])
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in ("asyncssh", "cryptography", "cffi", "pycparser", "typing-extensions"):
            for file in metadata.distribution(name).files or ():
                if file.suffix != ".pyc" and ".." not in file.parts:
                    archive.write(file.locate(), str(file))
                if file.suffix == ".py" and name in ("asyncssh", "cryptography"):
                    # With byte code, unlike PyPI's: each container would compile all of it anew. The small ones stay.
                    compiled = byte_code(file.locate().read_bytes(), str(file))
                    archive.writestr(importlib.util.cache_from_source(str(file)), compiled)
    place = f"wheels/{sys.version_info[0]}.{sys.version_info[1]}-{platform.machine()}"
    files = {name: data for name, data in built.files.items() if name != MANIFEST}
    files["smssh.zip"] = with_byte_code(files["smssh.zip"], str(folder / "smssh.zip"))
    model.sealed({**files, f"{place}/asyncssh-0-py3-none-any.whl": wheel.getvalue()}).write(folder)
    return folder


def with_byte_code(archive, place):
    """A bundle's smssh.zip with byte code for this Python, which each process of a container would make anew.

    Other Pythons take the sources beside it, as all do with the bundles of tests/local and tests/e2e.

    Args:
        archive: its content.
        place: where it is going to be, for tracebacks.
    """
    made = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(archive)) as given,
        zipfile.ZipFile(made, "w") as new,
    ):
        for name in given.namelist():
            source = given.read(name)
            new.writestr(name, source)
            if name.endswith(".py"):
                new.writestr(f"{name}c", byte_code(source, f"{place}/{name}"))
    return made.getvalue()


def byte_code(source, name):
    """A .pyc that is taken whatever the time of its source (PEP 552), as the import system writes it."""
    flags = 0b01.to_bytes(4, "little")
    digest = importlib.util.source_hash(source)
    return importlib.util.MAGIC_NUMBER + flags + digest + marshal.dumps(compile(source, name, "exec"))


@pytest.fixture
def container(tmp_path, bundle, key):
    needs.program("image environment")
    made = Container(tmp_path, bundle, key)
    yield made
    made.close()


@pytest.fixture
def first():
    """The start of a command line whose program is process 1 of a container."""
    command = [needs.program("unshare"), "--pid", "--fork", "--mount-proc", "--kill-child"]
    done = subprocess.run([*command, "true"], capture_output=True, text=True, check=False, timeout=LIMIT)
    if done.returncode != 0:
        needs.missing("namespaces", done.stderr.strip())
    return command


@pytest.fixture(params=["sshd", "asyncssh"])
def server(request):
    """Each SSH server that works here."""
    needs.program(request.param)
    return request.param
