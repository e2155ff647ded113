import importlib.util
import io
import platform
import py_compile
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
                    compiled = folder / "compiled.pyc"
                    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
                    py_compile.compile(
                        str(file.locate()), str(compiled), doraise=True, invalidation_mode=mode
                    )
                    archive.write(compiled, importlib.util.cache_from_source(str(file)))
                    compiled.unlink()
    place = f"wheels/{sys.version_info[0]}.{sys.version_info[1]}-{platform.machine()}"
    files = {name: data for name, data in built.files.items() if name != MANIFEST}
    model.sealed({**files, f"{place}/asyncssh-0-py3-none-any.whl": wheel.getvalue()}).write(folder)
    return folder


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
