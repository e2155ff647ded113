"""AWS's service models, read once a process: botocore reads them anew for each session, and a test has its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import botocore
from botocore import client, loaders

if TYPE_CHECKING:
    from collections.abc import Callable

    from botocore.model import ServiceModel

__all__ = ["read_once"]

OWN = os.path.join(str(Path(botocore.__file__).parent), "data", "")
"""Where those are that botocore brings along. Others, in AWS_DATA_PATH or the user's home, may change."""
PACKAGES = (OWN, os.path.join(str(Path(boto3.__file__).parent), "data", ""))
"""Where sessions look for models besides; nothing in there changes either."""

_read = loaders.JSONFileLoader.load_file
_list = loaders.Loader.list_available_services
_make = client.ClientCreator._create_methods
_models: dict[str, Any] = {}
_services: dict[tuple[str, ...], list[str]] = {}
_methods: dict[int, dict[str, Callable[..., Any]]] = {}
"""By the id of a model in `_models`, which is there for good."""


def read_once() -> None:
    """Have sessions of this process share what is in botocore's own files, and what is made of nothing else.

    Clients of one session do so without us: nothing that is read from a model is changed afterwards.
    """
    loaders.JSONFileLoader.load_file = _load_file
    loaders.Loader.list_available_services = _list_available_services
    client.ClientCreator._create_methods = _create_methods


def _load_file(loader: loaders.JSONFileLoader, file_path: str) -> Any:
    if not file_path.startswith(OWN):
        return _read(loader, file_path)
    if file_path not in _models:
        _models[file_path] = _read(loader, file_path)
    return _models[file_path]


def _list_available_services(loader: loaders.Loader, type_name: str) -> list[str]:
    """Without a look into each of 400 folders."""
    folders = [os.path.join(path, "") for path in loader.search_paths if os.path.isdir(path)]
    if not all(folder.startswith(PACKAGES) for folder in folders):
        return _list(loader, type_name)
    key = (type_name, *folders)
    if key not in _services:
        _services[key] = _list(loader, type_name)
    return list(_services[key])


def _create_methods(
    creator: client.ClientCreator, service_model: ServiceModel
) -> dict[str, Callable[..., Any]]:
    """The methods of a client's class: a function for each operation that knows its name, and nothing of a session."""
    model = service_model._service_description
    if not any(model is each for each in _models.values()):
        return _make(creator, service_model)
    if id(model) not in _methods:
        _methods[id(model)] = _make(creator, service_model)
    return dict(_methods[id(model)])
