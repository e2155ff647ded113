"""Which images are AWS's own, against what the SageMaker SDK knows of them."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from smssh_plugin.submit.request import image_addresses
from tests import needs

if TYPE_CHECKING:
    from collections.abc import Iterator

AWS = "811284229777"
SOMEBODY = "210987654321"


def address(account: str, name: str) -> str:
    return f"{account}.dkr.ecr.us-east-1.amazonaws.com/{name}:1"


def known(account: str, name: str) -> bool:
    image = address(account, name)
    return image_addresses.is_algorithm(image, {}) or image_addresses.keeps_python_path(image)


def registries(part: Any) -> Iterator[tuple[str, str]]:
    """Each account that a description of the SDK's names, with a repository that it has."""
    if isinstance(part, dict):
        names, accounts = part.get("repository"), part.get("registries")
        if names and accounts:
            for name in [names] if isinstance(names, str) else names:
                yield from ((account, name) for account in accounts.values())
        part = list(part.values())
    for inner in part if isinstance(part, list) else ():
        yield from registries(inner)


def test_the_accounts_are_those_of_the_sdk() -> None:
    try:
        folder = Path(str(distribution("sagemaker-core").locate_file("sagemaker/core/image_uri_config")))
    except PackageNotFoundError:
        needs.missing("SageMaker SDK v3")
    found = {pair for file in folder.glob("*.json") for pair in registries(json.loads(file.read_text()))}
    by_name = [(account, name) for account, name in found if known(AWS, name)]
    assert {account for account, name in by_name} == image_addresses.ACCOUNTS
    assert all(known(account, name) for account, name in by_name)


@pytest.mark.parametrize("name", ["object-detection", "image-classification", "xgboost", "lda"])
def test_anybody_may_call_a_repository_like_one_of_awss(name: str) -> None:
    assert image_addresses.is_algorithm(address(AWS, name), {})
    assert not known(SOMEBODY, name)
    assert not known(SOMEBODY, "pytorch-training")
