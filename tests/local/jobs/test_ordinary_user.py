"""The tests of the job runner once more, with the rights of an ordinary user."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.local.jobs_support import REPOSITORY, image_for, mounts, somebody

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(240)

FILES = [
    f"tests/local/{name}.py"
    for name in (
        "jobs/test_training",
        "jobs/test_processing",
        "jobs/test_ending",
        "jobs/test_batch_transform",
        "sandbox/test_container",
    )
]
NATIVE = ["tests/local/test_native_agent.py"]
IMAGES = ["tests/local/test_images.py"]


@pytest.mark.applies(os.geteuid() == 0, "the other tests run as an ordinary user already")
@pytest.mark.parametrize("files", [FILES, NATIVE, IMAGES], ids=["jobs", "native", "images"])
def test_everything_as_an_ordinary_user(common: Path, files: list[str]) -> None:
    who = somebody(common)
    image = image_for(who, common)
    before = mounts()
    done = who.run(
        *("-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", str(REPOSITORY / "pyproject.toml")),
        *("--rootdir", str(REPOSITORY), "--basetemp", str(common / "inner")),
        *(str(REPOSITORY / file) for file in files),
        folder=common,
        timeout=220,
        SMSSH_TEST_IMAGE_ENV=str(image),
        SMSSH_TEST_MISSING="fail",
        TMPDIR=str(common),
    )
    assert done.returncode == 0, done.stdout[-8000:]
    assert " passed" in done.stdout
    assert mounts() == before
