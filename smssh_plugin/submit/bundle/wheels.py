"""asyncssh for images that have no sshd: which wheels go into a bundle, and how they are had.

Exact versions and digests, so that the same options give the same bundle on every machine and every day, and
nothing is taken from an index that was not reviewed. To renew the table: resolve `asyncssh` for each Python
(`uv pip compile --python-version X --python-platform x86_64-manylinux_2_28 --only-binary :all:`), download
(`pip download --no-deps`) and take the digests of the files.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Mapping

from ...errors import ExitStatus, SmsshError

__all__ = ["WHEELS", "platform_of", "wheels_for"]

DOWNLOAD_SECONDS = 300.0

WHEELS: Mapping[tuple[str, str], tuple[tuple[str, str, str], ...]] = {
    ("3.8", "x86_64"): (
        ("asyncssh", "2.21.1", "f218f9f303c78df6627d0646835e04039a156d15e174ad63c058d62de61e1968"),
        ("cffi", "1.17.1", "0e2b1fac190ae3ebfe37b979cc1ce69c81f4e4fe5746bb401dca63a9062cdaf1"),
        ("cryptography", "47.0.0", "256d07c78a04d6b276f5df935a9923275f53bd1522f214447fdf365494e2d515"),
        ("pycparser", "2.23", "e5c6e8d3fbad53479cab09ac03729e0a9faf2bee3db8208a550daf5af81a5934"),
        ("typing_extensions", "4.13.2", "a439e7c04b49fec3e5d3e2beaa21755cadbbdc391694e28ccdd36ca4a1408f8c"),
    ),
    ("3.8", "aarch64"): (
        ("asyncssh", "2.21.1", "f218f9f303c78df6627d0646835e04039a156d15e174ad63c058d62de61e1968"),
        ("cffi", "1.17.1", "e221cf152cff04059d011ee126477f0d9588303eb57e88923578ace7baad17f9"),
        ("cryptography", "47.0.0", "edd4da498015da5b9f26d38d3bfc2e90257bfa9cbed1f6767c282a0025ae649b"),
        ("pycparser", "2.23", "e5c6e8d3fbad53479cab09ac03729e0a9faf2bee3db8208a550daf5af81a5934"),
        ("typing_extensions", "4.13.2", "a439e7c04b49fec3e5d3e2beaa21755cadbbdc391694e28ccdd36ca4a1408f8c"),
    ),
    ("3.9", "x86_64"): (
        ("asyncssh", "2.21.1", "f218f9f303c78df6627d0646835e04039a156d15e174ad63c058d62de61e1968"),
        ("cffi", "2.0.0", "61d028e90346df14fedc3d1e5441df818d095f3b87d286825dfcbd6459b7ef63"),
        ("cryptography", "47.0.0", "256d07c78a04d6b276f5df935a9923275f53bd1522f214447fdf365494e2d515"),
        ("pycparser", "2.23", "e5c6e8d3fbad53479cab09ac03729e0a9faf2bee3db8208a550daf5af81a5934"),
        ("typing_extensions", "4.16.0", "481caa481374e813c1b176ada14e97f1f67a4539ce9cfeb3f350d78d6370c2e8"),
    ),
    ("3.9", "aarch64"): (
        ("asyncssh", "2.21.1", "f218f9f303c78df6627d0646835e04039a156d15e174ad63c058d62de61e1968"),
        ("cffi", "2.0.0", "3f4d46d8b35698056ec29bca21546e1551a205058ae1a181d871e278b0b28165"),
        ("cryptography", "47.0.0", "edd4da498015da5b9f26d38d3bfc2e90257bfa9cbed1f6767c282a0025ae649b"),
        ("pycparser", "2.23", "e5c6e8d3fbad53479cab09ac03729e0a9faf2bee3db8208a550daf5af81a5934"),
        ("typing_extensions", "4.16.0", "481caa481374e813c1b176ada14e97f1f67a4539ce9cfeb3f350d78d6370c2e8"),
    ),
    ("3.10", "x86_64"): (
        ("asyncssh", "2.24.1", "fc560b4f43be0f0c602d184783e5e3876f5d24d933a25359d86e5a50a5f46fe5"),
        ("cffi", "2.1.1", "194cffa889098ced9976c3fc6340305e43f6303657d298da55366907c05c22d6"),
        ("cryptography", "50.0.2", "f21e8a22c8605750c7af886bab299a363721264061b4ac0a30efb73cfd58efc5"),
        ("pycparser", "3.11", "51d5a8ba2be0bbe440b99d2112604c95bbbc3c2748a64260186c541e1729cd80"),
        ("typing_extensions", "4.16.0", "481caa481374e813c1b176ada14e97f1f67a4539ce9cfeb3f350d78d6370c2e8"),
    ),
    ("3.10", "aarch64"): (
        ("asyncssh", "2.24.1", "fc560b4f43be0f0c602d184783e5e3876f5d24d933a25359d86e5a50a5f46fe5"),
        ("cffi", "2.1.1", "5a59cc1c4442bc3d5c703bf720b51138d0bfc173618807c9ee2490a7541dd3d9"),
        ("cryptography", "50.0.2", "dfe9763530994147d9af1def057a5b9658b00e8f8fe8743d144d1e0911c2e454"),
        ("pycparser", "3.11", "51d5a8ba2be0bbe440b99d2112604c95bbbc3c2748a64260186c541e1729cd80"),
        ("typing_extensions", "4.16.0", "481caa481374e813c1b176ada14e97f1f67a4539ce9cfeb3f350d78d6370c2e8"),
    ),
    ("3.11", "x86_64"): (
        ("asyncssh", "2.24.1", "fc560b4f43be0f0c602d184783e5e3876f5d24d933a25359d86e5a50a5f46fe5"),
        ("cffi", "2.1.1", "34e261f78cb6ceaaa36f42f2613f4380d94d9c759a9c73c769ee6e0247364632"),
        ("cryptography", "50.0.2", "4061c0079120205fb760c58acab6443e217307dcf05e3702cf970e0689972856"),
        ("pycparser", "3.12", "a076f3f489b39b43ed13563a1dafe42447445bec2e294154ec5c57fcdda4c85e"),
        ("typing_extensions", "4.16.0", "481caa481374e813c1b176ada14e97f1f67a4539ce9cfeb3f350d78d6370c2e8"),
    ),
    ("3.11", "aarch64"): (
        ("asyncssh", "2.24.1", "fc560b4f43be0f0c602d184783e5e3876f5d24d933a25359d86e5a50a5f46fe5"),
        ("cffi", "2.1.1", "3311ed60d36f83378794e1009ac6258bafbf81f7888b4caa7b35a521e3f95813"),
        ("cryptography", "50.0.2", "f9f6143a8c75945eb960d9eb98905a441394abfa24afaae239d514ffb2586480"),
        ("pycparser", "3.12", "a076f3f489b39b43ed13563a1dafe42447445bec2e294154ec5c57fcdda4c85e"),
        ("typing_extensions", "4.16.0", "481caa481374e813c1b176ada14e97f1f67a4539ce9cfeb3f350d78d6370c2e8"),
    ),
    ("3.12", "x86_64"): (
        ("asyncssh", "2.24.1", "fc560b4f43be0f0c602d184783e5e3876f5d24d933a25359d86e5a50a5f46fe5"),
        ("cffi", "2.1.1", "c1453022f490d2459a11819d83ad1d586e9ff65a12ac3e705ffebd46d3685dcf"),
        ("cryptography", "50.0.2", "4061c0079120205fb760c58acab6443e217307dcf05e3702cf970e0689972856"),
        ("pycparser", "3.12", "a076f3f489b39b43ed13563a1dafe42447445bec2e294154ec5c57fcdda4c85e"),
        ("typing_extensions", "4.16.0", "481caa481374e813c1b176ada14e97f1f67a4539ce9cfeb3f350d78d6370c2e8"),
    ),
    ("3.12", "aarch64"): (
        ("asyncssh", "2.24.1", "fc560b4f43be0f0c602d184783e5e3876f5d24d933a25359d86e5a50a5f46fe5"),
        ("cffi", "2.1.1", "68e62fe11f30d5ca8289242866f0a5291402d8529ca2178ab8afc5c9694ae890"),
        ("cryptography", "50.0.2", "f9f6143a8c75945eb960d9eb98905a441394abfa24afaae239d514ffb2586480"),
        ("pycparser", "3.12", "a076f3f489b39b43ed13563a1dafe42447445bec2e294154ec5c57fcdda4c85e"),
        ("typing_extensions", "4.16.0", "481caa481374e813c1b176ada14e97f1f67a4539ce9cfeb3f350d78d6370c2e8"),
    ),
    ("3.13", "x86_64"): (
        ("asyncssh", "2.24.1", "fc560b4f43be0f0c602d184783e5e3876f5d24d933a25359d86e5a50a5f46fe5"),
        ("cffi", "2.1.1", "a931079504ecc49efed7744c476a5c343a92fabf66dec2db95edb1b2fdc770e2"),
        ("cryptography", "50.0.2", "4061c0079120205fb760c58acab6443e217307dcf05e3702cf970e0689972856"),
        ("pycparser", "3.12", "a076f3f489b39b43ed13563a1dafe42447445bec2e294154ec5c57fcdda4c85e"),
        ("typing_extensions", "4.16.0", "481caa481374e813c1b176ada14e97f1f67a4539ce9cfeb3f350d78d6370c2e8"),
    ),
    ("3.13", "aarch64"): (
        ("asyncssh", "2.24.1", "fc560b4f43be0f0c602d184783e5e3876f5d24d933a25359d86e5a50a5f46fe5"),
        ("cffi", "2.1.1", "f16c709686a78c727bbbf059f92b0bf41c6fc60deec706d2dc19f529175a6125"),
        ("cryptography", "50.0.2", "f9f6143a8c75945eb960d9eb98905a441394abfa24afaae239d514ffb2586480"),
        ("pycparser", "3.12", "a076f3f489b39b43ed13563a1dafe42447445bec2e294154ec5c57fcdda4c85e"),
        ("typing_extensions", "4.16.0", "481caa481374e813c1b176ada14e97f1f67a4539ce9cfeb3f350d78d6370c2e8"),
    ),
    ("3.14", "x86_64"): (
        ("asyncssh", "2.24.1", "fc560b4f43be0f0c602d184783e5e3876f5d24d933a25359d86e5a50a5f46fe5"),
        ("cffi", "2.1.1", "b0431303acaea1089ad4b3e9ce4e6518193def1118d4073ca848635ee4ea2e96"),
        ("cryptography", "50.0.2", "4061c0079120205fb760c58acab6443e217307dcf05e3702cf970e0689972856"),
        ("pycparser", "3.12", "a076f3f489b39b43ed13563a1dafe42447445bec2e294154ec5c57fcdda4c85e"),
        ("typing_extensions", "4.16.0", "481caa481374e813c1b176ada14e97f1f67a4539ce9cfeb3f350d78d6370c2e8"),
    ),
    ("3.14", "aarch64"): (
        ("asyncssh", "2.24.1", "fc560b4f43be0f0c602d184783e5e3876f5d24d933a25359d86e5a50a5f46fe5"),
        ("cffi", "2.1.1", "58acb8ab8e295e6c5ea12f888cbb13cf21511ef2a3303a23f4325c29d17fe5c1"),
        ("cryptography", "50.0.2", "f9f6143a8c75945eb960d9eb98905a441394abfa24afaae239d514ffb2586480"),
        ("pycparser", "3.12", "a076f3f489b39b43ed13563a1dafe42447445bec2e294154ec5c57fcdda4c85e"),
        ("typing_extensions", "4.16.0", "481caa481374e813c1b176ada14e97f1f67a4539ce9cfeb3f350d78d6370c2e8"),
    ),
}
"""Name, version and SHA-256 of each wheel, by Python version and machine (Linux with glibc 2.28 or newer)."""


def platform_of(version: str) -> str:
    """Python and machine of an entry of `SSHOptions.wheels`: `3.11` is `3.11-x86_64`."""
    return version if "-" in version else f"{version}-x86_64"


def wheels_for(version: str) -> dict[str, bytes]:
    """The wheels for one Python: file name to contents; downloaded where they are not in the cache.

    Args:
        version: as in `SSHOptions.wheels`: "3.11" (x86_64) or "3.11-aarch64".

    Raises:
        SmsshError: that Python is not in the table, or the wheels can't be downloaded.
    """
    # The client owns the place of its files; it imports nothing but the standard library.
    from ...home import home

    python, _, machine = platform_of(version).partition("-")
    locked = WHEELS.get((python, machine))
    if locked is None:
        raise SmsshError(
            f"there are no asyncssh wheels for Python {version}",
            hint="use SSHOptions(wheels=...) with "
            + ", ".join(sorted({each for each, _ in WHEELS}, key=_order)),
            reference="no-wheels",
            status=ExitStatus.USAGE,
        )
    cache = home() / "wheels" / f"{python}-{machine}"
    digests = {digest for _, _, digest in locked}
    found = _cached(cache, digests)
    if len(found) != len(digests):
        _download(python, machine, locked, cache)
        found = _cached(cache, digests)
    if len(found) != len(digests):
        raise _failed(version, "the files that came are not the expected ones")
    return found


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _cached(folder: Path, digests: set[str]) -> dict[str, bytes]:
    """The files of the folder that have one of the digests."""
    found = {}
    for file in sorted(folder.glob("*.whl")):
        data = file.read_bytes()
        if hashlib.sha256(data).hexdigest() in digests:
            found[file.name] = data
    return found


def _download(python: str, machine: str, locked: tuple[tuple[str, str, str], ...], cache: Path) -> None:
    """Let pip fetch exactly these wheels, from wherever it is configured to."""
    version = f"{python}-{machine}"
    print(
        f"smssh: downloading asyncssh for Python {python} ({machine}), about 5 MB",
        file=sys.stderr,
        flush=True,
    )
    command = [
        *_pip(version),
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
        "--no-deps",
        "--require-hashes",
        "--only-binary=:all:",
        "--implementation=cp",
        # A bare 3.9 would mean 3.9.0, which some wheels exclude.
        f"--python-version={python}.99",
        *(f"--platform={tag}_{machine}" for tag in ("manylinux_2_28", "manylinux_2_17", "manylinux2014")),
    ]
    try:
        cache.mkdir(parents=True, exist_ok=True)
        # Downloaded beside and moved in: another process may be filling the same cache.
        with tempfile.TemporaryDirectory(prefix=".download-", dir=cache) as scratch:
            requirements = Path(scratch, "requirements.txt")
            lines = [f"{name}=={release} --hash=sha256:{digest}\n" for name, release, digest in locked]
            requirements.write_text("".join(lines), encoding="utf-8")
            done = subprocess.run(
                [*command, "--dest", scratch, "--requirement", str(requirements)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=DOWNLOAD_SECONDS,
                check=False,
            )
            if done.returncode:
                errors = [line for line in done.stdout.splitlines() if line.startswith("ERROR")]
                detail = errors or done.stdout.strip().splitlines() or ["no output"]
                raise _failed(version, f"{' '.join(command[:3])}: {detail[-1]}")
            for file in Path(scratch).glob("*.whl"):
                os.replace(file, cache / file.name)
    except subprocess.TimeoutExpired:
        raise _failed(version, f"no answer within {DOWNLOAD_SECONDS:.0f} s") from None
    except OSError as error:
        raise _failed(version, f"{cache}: {error.strerror}") from error


def _pip(version: str) -> list[str]:
    """A pip to call: this interpreter's, uv's, or any on PATH: it only downloads, for another Python."""
    own = [sys.executable, "-m", "pip"]
    if not subprocess.run([*own, "--version"], capture_output=True, check=False).returncode:
        return own
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv:
        return [uv, "tool", "run", "--quiet", "pip"]
    pip = shutil.which("pip") or shutil.which("pip3")
    if pip:
        return [pip]
    raise _failed(version, "there is neither pip nor uv here")


def _failed(version: str, problem: str) -> SmsshError:
    return SmsshError(
        f"cannot get the asyncssh wheels for Python {version}: {problem}",
        hint="install pip in this environment (or uv), check that its package index can be reached, or leave "
        "SSHOptions(wheels=...) out for images that have sshd or asyncssh",
        reference="wheels-not-downloaded",
        status=ExitStatus.UNREACHABLE,
    )
