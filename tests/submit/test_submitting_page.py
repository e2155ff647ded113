"""docs/submitting.md: its examples run, and its tables have what the code can say."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from smssh_plugin import SSHOptions
from smssh_plugin.submit import boto
from smssh_plugin.submit.request.add_ssh import KINDS
from tests.submit.sdks.environments import NEWEST, REQUIREMENTS

from .conftest import IMAGE, ROLE, SDK
from .support import entered, uri_in

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "submitting.md").read_text(encoding="utf-8")
SUBMIT = ROOT / "smssh_plugin" / "submit"
REQUESTS = (
    *("request/launchers", "request/limits", "request/add_ssh", "boto", "inject", "local_mode", "models"),
    *(
        "options",
        "pipelines",
        "repack",
        "repack_step",
        "selection",
        "steps",
        "switch",
        "warnings",
        "with_ssh",
    ),
)
"""The modules that are about requests; what can go wrong with bundles is said by the others."""


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def first_column(title: str) -> list[str]:
    rows = [line for line in section(title).splitlines() if line.startswith("| ")]
    return [row.split(" | ")[0].lstrip("| ") for row in rows[2:]]


def calls(name: str) -> Iterator[ast.Call]:
    """Where a function or class of that name is called, in the modules about requests."""
    for module in REQUESTS:
        for node in ast.walk(ast.parse((SUBMIT / f"{module}.py").read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) == name:
                yield node


def texts(node: ast.AST | None) -> list[str]:
    found = ast.walk(node) if node is not None else ()
    return [each.value for each in found if isinstance(each, ast.Constant) and isinstance(each.value, str)]


# -------------------------------------------------------------------------------- tables


def test_every_refusal_has_its_row() -> None:
    found = {text for call in calls("refuse") for text in texts(call.args[3])}
    for call in calls("SmsshError"):
        found |= {text for each in call.keywords if each.arg == "reference" for text in texts(each.value)}
    counted = {text.replace(" ", "-") for call in calls("check_count") for text in texts(call.args[5])}
    found = {text for text in found if len(text) > 1 and text != "too-many-"} | {
        f"too-many-{thing}" for thing in counted
    }
    named = {name for cell in first_column("Refusals") for name in re.findall(r"`([a-z0-9-]+)`", cell)}
    assert named == found


def test_every_warning_has_its_row() -> None:
    said = " ".join(first_column("Warnings"))
    # Of one that is put together, the longest part; of a refusal that is handed on, nothing.
    headlines = [
        max(texts(call.args[0]), key=len, default="").strip(": ") for call in calls("RequestWarning")
    ]
    assert len([headline for headline in headlines if headline]) > 8
    assert [headline for headline in headlines if headline not in said] == []


def test_every_option_is_in_the_table() -> None:
    named = re.findall(
        r"`(\w+)`", "\n".join(re.findall(r"^\| [^|]+ \| (`.*) \|$", section("Options"), re.MULTILINE))
    )
    assert sorted(named) == sorted(each.name for each in dataclasses.fields(SSHOptions))
    assert all(f"`{kind}`" in section("Some steps of a pipeline") for kind in KINDS.values())


def test_the_versions_of_the_sdk_are_those_that_are_tested() -> None:
    oldest = [
        min((version for version in REQUIREMENTS if version.startswith(major)), key=_numbers)
        for major in ("2.", "3.")
    ]
    claim = f"SageMaker Python SDK v2 from {oldest[0]} and v3 from {oldest[1]}"
    assert claim in PAGE
    assert claim in (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(version in PAGE for version in NEWEST)


def _numbers(version: str) -> list[int]:
    return [int(each) for each in version.split(".")]


# -------------------------------------------------------------------------------- examples


def code(title: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", section(title), re.MULTILINE | re.DOTALL)


@pytest.fixture
def names(sdk: SDK, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the examples take for granted."""
    from sagemaker.core.workflow.parameters import ParameterString
    from sagemaker.mlops.workflow.function_step import step
    from sagemaker.mlops.workflow.pipeline import Pipeline
    from sagemaker.mlops.workflow.steps import ProcessingStep, TrainingStep

    monkeypatch.chdir(sdk.code)
    session = sdk.session()
    return {
        "ProcessingStep": ProcessingStep,
        "TrainingStep": TrainingStep,
        "Pipeline": Pipeline,
        "step": step,
        "ParameterString": ParameterString,
        "processor": sdk.processing(session).step_args.func_args[0],
        "trainer": sdk.trainer(session),
        "session": session,
        "image": IMAGE,
        "role": ROLE,
        "make": lambda name: sdk.processing(session, name),
    }


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore")
def test_the_forms(sdk: SDK, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    decorators, existing, jobs = code("Forms")
    exec(decorators, names)
    steps = [names["prepare"](), names["train"](), names["evaluate"]("a")]
    assert entered(sdk.pipeline(*steps)) == {"Prepare", "Train", "Evaluate"}
    exec(existing, names)
    assert entered(names["pipeline"]) == {"First", "Second", "Third"}
    found = {uri_in(step) for step in _compiled(names["pipeline"])}
    assert len(found) == 3  # wait for the first, nothing for the second, a hold for the third
    enabled: list[Any] = []
    monkeypatch.setattr(boto, "_register", lambda events, wanted, _: enabled.append(wanted.options))
    monkeypatch.setattr(boto, "_enable_process", lambda wanted, _: enabled.append(wanted.options))
    exec(jobs, names)
    assert [options.hold for options in enabled].count(("failure",)) == 1
    assert enabled[-1].enabled == "SMSSH_ENABLE"
    assert len(enabled) >= 4


def _compiled(pipeline: Any) -> list[Any]:
    steps: list[Any] = json.loads(pipeline.definition())["Steps"]
    return steps


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore")
def test_some_steps_and_the_switch(names: dict[str, Any]) -> None:
    (some,) = code("Some steps of a pipeline")
    (switch,) = code("The switch from outside")
    exec("from smssh_plugin import with_ssh", names)
    exec(some, names)
    found = {step["Name"]: uri_in(step) for step in _compiled(names["pipeline"])}
    assert found["Train-1"] == found["Train-2"] != found["Prepare"]
    exec(switch, names)
    (step,) = _compiled(names["pipeline"])
    assert step["Arguments"]["Environment"]["SMSSH_ENABLE"] == {"Get": "Parameters.Debug"}
