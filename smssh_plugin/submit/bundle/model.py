"""A bundle in memory, and its manifest."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Mapping

from ..._version import __version__
from ...manifest import MANIFEST, Manifest

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Bundle", "sealed"]


@dataclass(frozen=True)
class Bundle:
    """A bundle in memory.

    Attributes:
        files: name relative to the prefix -> contents, the manifest included.
        digest: SHA-256 of the manifest, in hexadecimal: of everything in it, that is.
    """

    files: Mapping[str, bytes]
    digest: str

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(len(data) for data in self.files.values())

    def write(self, folder: Path) -> None:
        """Lay the files out in a folder, as the service does in a container (without x bits)."""
        for name, data in self.files.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)


def sealed(files: Mapping[str, bytes]) -> Bundle:
    """The bundle of these files, with its manifest."""
    manifest = Manifest.of(__version__, files).text()
    return Bundle({**files, MANIFEST: manifest}, hashlib.sha256(manifest).hexdigest())
