"""The manifest of a bundle: which files it has, and what each must be.

It says whether a bundle has arrived whole, and of one piece. Those who may write to the bundle's S3 prefix may write a
manifest too: against that only the prefix helps, which is named after the manifest's own SHA-256.

CPython 3.8 and later, standard library only.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Mapping

from .errors import SmsshError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["MANIFEST", "PLUGINS", "Manifest"]

MANIFEST = "smssh-manifest.json"
"""Not manifest.json: Multi Model Server takes one below its model for that of an old model archive, and ends."""
PLUGINS = "plugins.zip"
"""The plugins of others, as an archive to import from."""


@dataclass(frozen=True)
class Manifest:
    """What a bundle holds.

    Attributes:
        version: of the package that built it.
        files: name relative to the bundle -> SHA-256 in hexadecimal, without the manifest itself.
    """

    version: str
    files: Mapping[str, str]

    @classmethod
    def of(cls, version: str, files: Mapping[str, bytes]) -> Manifest:
        """The manifest for these files."""
        return cls(version, {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())})

    @classmethod
    def parse(cls, text: bytes) -> Manifest:
        """Read a manifest.

        Raises:
            SmsshError: it is not a manifest.
        """
        try:
            document = json.loads(text)
            version, files = document["version"], document["files"]
            if not isinstance(version, str) or not all(isinstance(each, str) for each in files.values()):
                raise TypeError("other types than expected")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise _damaged(f"{MANIFEST} cannot be read: {error}") from None
        return cls(version, files)

    @classmethod
    def of_folder(cls, folder: Path, digest: str = "") -> Manifest:
        """Read the manifest of a bundle that lies in a folder.

        Args:
            folder: the bundle.
            digest: the SHA-256 that the manifest must have, in hexadecimal; empty where that is not known.

        Raises:
            SmsshError: there is no manifest, or it is another one.
        """
        try:
            text = (folder / MANIFEST).read_bytes()
        except OSError as error:
            raise _damaged(f"{MANIFEST}: {error.strerror}") from None
        if digest and hashlib.sha256(text).hexdigest() != digest:
            raise _damaged(f"{MANIFEST} is not the one that the request means")
        return cls.parse(text)

    def text(self) -> bytes:
        """The manifest as it is written; its SHA-256 is the digest of the bundle."""
        return json.dumps({"version": self.version, "files": self.files}, indent=1).encode() + b"\n"

    def check(self, name: str, data: bytes) -> None:
        """See that a file is what the manifest says.

        Raises:
            SmsshError: it is not, or the manifest knows no such file.
        """
        if name not in self.files:
            raise _damaged(f"{name} is not in {MANIFEST}")
        if hashlib.sha256(data).hexdigest() != self.files[name]:
            raise _damaged(f"{name} is not what {MANIFEST} says")

    def check_file(self, folder: Path, name: str) -> None:
        """See that a file of a bundle in a folder is what the manifest says.

        Raises:
            SmsshError: it is not, or not there, or the manifest knows no such file.
        """
        try:
            self.check(name, (folder / name).read_bytes())
        except OSError as error:
            raise _damaged(f"{name}: {error.strerror}") from None


def _damaged(problem: str) -> SmsshError:
    return SmsshError(
        f"the bundle is damaged: {problem}",
        hint="see with `smssh bundle verify` what is wrong with the one in S3; remove that prefix, and "
        "submit once more",
        reference="bundle-damaged",
    )
