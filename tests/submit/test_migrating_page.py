"""docs/migrating.md: what is left of the samples runs with the real SDK, and its tables agree with the code."""

from __future__ import annotations

import ast
import re
from typing import Any

import pytest

from smssh_plugin import settings
from tests.submit.sdks.environments import NEWEST, PATIENCE, python_of

from .samples import DOCS, samples
from .test_sdks import run

PAGE = (DOCS / "migrating.md").read_text(encoding="utf-8")
V2 = NEWEST[0]

pytestmark = pytest.mark.timeout(2 * PATIENCE)


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each sample sends to SageMaker."""
    found: Any = run("migrating.py", python_of(V2), tmp_path_factory.mktemp("machine"), {})
    return list(found)


def has_ssh(request: dict[str, Any]) -> bool:
    """Whether it is on; a model of a transform job has the files, and the job turns it on."""
    holder = request.get("PrimaryContainer") or request.get("TrainingJobDefinition") or request
    environment = holder.get("Environment", {})
    return environment.get("SMSSH_ENABLE") == "1" or "SMSSH_BUNDLE" in environment


def test_what_each_sample_submits_has_ssh(sent: list[dict[str, Any]]) -> None:
    submitted = {}
    for sample in sent:
        operations = [each["Operation"] for each in sample["sent"] if has_ssh(each["Request"])]
        submitted.setdefault(sample["title"], []).append(operations)
    assert submitted == {
        "Training jobs": [["CreateTrainingJob"]],
        "In an image of your own": [["CreateTrainingJob"]],
        "Tuning jobs": [["CreateHyperParameterTuningJob"]],
        "Another region, boto3": [["CreateProcessingJob"], ["CreateTrainingJob"]],
        "Processing jobs": [["CreateProcessingJob"], ["CreateProcessingJob"]],
        "Batch transform": [["CreateModel", "CreateTransformJob"]],
        "Endpoints": [["CreateModel"], ["CreateModel"], ["CreateModel"]],
    }


def test_nothing_of_the_helper_is_left() -> None:
    changes = samples("migrating.md")
    assert len(changes) > 12
    for sample in changes:
        ast.parse(sample.before)
        ast.parse(sample.after)
        assert "sagemaker_ssh_helper" in sample.before
        assert not re.search(r"sagemaker_ssh_helper|SSH\w+Wrapper|ssh_wrapper", sample.after)


def test_every_variable_of_the_helper_that_is_understood_has_its_row() -> None:
    rows = re.findall(r"^\|[^|]*\| `(SSH?\w*|START_SSH)` \|[^|]*\| `(SMSSH_\w+)` \|$", PAGE, re.MULTILINE)
    known = {name: setting.variable for setting in settings.SETTINGS for name in setting.deprecated}
    assert dict(rows) == {**known, "SSH_AUTHORIZED_KEYS_PATH": "SMSSH_AUTHORIZED_KEYS"}
