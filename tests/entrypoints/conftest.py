import io
import platform
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata

import pytest

from smssh_plugin.manifest import MANIFEST
from smssh_plugin.submit import bundle as bundles
from smssh_plugin.submit.options import SSHOptions
from tests.session.conftest import stack

from .container import IMAGE, Container

__all__ = ["stack"]


@pytest.fixture(scope="session")
def key(tmp_path_factory):
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen is not installed")
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
    place = f"wheels/{sys.version_info[0]}.{sys.version_info[1]}-{platform.machine()}"
    files = {name: data for name, data in built.files.items() if name != MANIFEST}
    bundles.sealed({**files, f"{place}/asyncssh-0-py3-none-any.whl": wheel.getvalue()}).write(folder)
    return folder


@pytest.fixture
def container(tmp_path, bundle, key):
    if not (IMAGE / "bin" / "python").exists():
        pytest.skip(f"no image environment at {IMAGE}")
    made = Container(tmp_path, bundle, key)
    yield made
    made.close()


@pytest.fixture
def first():
    """The start of a command line whose program is process 1 of a container."""
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    try:
        done = subprocess.run([*command, "true"], capture_output=True, check=False, timeout=30)
    except OSError:
        pytest.skip("unshare is not installed")
    if done.returncode != 0:
        pytest.skip("no process namespace can be made here")
    return command


@pytest.fixture(params=["sshd", "asyncssh"])
def server(request):
    """Each SSH server that works here."""
    if request.param == "sshd" and shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin") is None:
        pytest.skip("sshd is not installed")
    return request.param
