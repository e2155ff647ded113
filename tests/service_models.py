"""AWS's service models, read once a process: botocore reads them anew for each session, and a test has its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import botocore
from botocore import loaders

__all__ = ["read_once"]

OWN = os.path.join(str(Path(botocore.__file__).parent), "data", "")
"""Where those are that botocore brings along. Others, in AWS_DATA_PATH or the user's home, may change."""

_read = loaders.JSONFileLoader.load_file
_models: dict[str, Any] = {}


def read_once() -> None:
    """Have sessions of this process share what is in botocore's own files.

    Clients of one session do so without us: nothing that is read from a model is changed afterwards.
    """
    loaders.JSONFileLoader.load_file = _load_file


def _load_file(loader: loaders.JSONFileLoader, file_path: str) -> Any:
    if not file_path.startswith(OWN):
        return _read(loader, file_path)
    if file_path not in _models:
        _models[file_path] = _read(loader, file_path)
    return _models[file_path]
