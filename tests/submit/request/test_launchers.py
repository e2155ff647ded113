"""What each launcher changes in each kind of request, and where it can't work."""

from __future__ import annotations

from typing import Any

import pytest

from smssh_plugin.errors import SmsshError
from smssh_plugin.submit.bundle.build import LAUNCHER_FILES
from smssh_plugin.submit.request.add_ssh import Injection, add_ssh
from smssh_plugin.submit.request.launchers import FOLDERS, MOVED
from smssh_plugin.submit.request.limits import LIMITS
from smssh_plugin.submit.request.wrapper import WORDS

DIGEST = "a" * 64
BUNDLE = f"s3://bucket/smssh/bundles/{DIGEST}/"
KINDS = ("training", "processing", "tuning", "model", "transform")
TRAINING = FOLDERS["training"]


def request(kind: str, entry_point: list[str] | None = None, **environment: Any) -> dict[str, Any]:
    specification = {"ImageUri" if kind == "processing" else "TrainingImage": "image"}
    named: dict[str, Any] = {**specification, **({"ContainerEntrypoint": entry_point} if entry_point else {})}
    variables = {"Environment": environment} if environment else {}
    if kind == "training":
        return {"AlgorithmSpecification": named, "RoleArn": "role", **variables}
    if kind == "processing":
        return {"AppSpecification": named, "RoleArn": "role", **variables}
    if kind == "tuning":
        return {"TrainingJobDefinition": {"AlgorithmSpecification": named, "RoleArn": "role", **variables}}
    if kind == "model":
        return {"PrimaryContainer": {"Image": "image", **variables}, "ExecutionRoleArn": "role"}
    return {"ModelName": "model", **variables}


def holder(kind: str, changed: Any) -> Any:
    """What has the environment and the inputs."""
    member = {"tuning": "TrainingJobDefinition", "model": "PrimaryContainer"}.get(kind)
    return changed if member is None else changed[member]


def entry_point(kind: str, changed: Any) -> Any:
    specification = {"training": "AlgorithmSpecification", "processing": "AppSpecification"}[kind]
    return changed[specification].get("ContainerEntrypoint")


def changed(kind: str, before: Any, launcher: str, **more: Any) -> Any:
    injection = Injection(BUNDLE, step="Step", launcher=launcher, **more)
    once = add_ssh(kind, before, injection)
    assert add_ssh(kind, once, injection) is once  # decorating twice is decorating once
    return once


def refused(kind: str, before: Any, launcher: str) -> SmsshError:
    with pytest.raises(SmsshError) as caught:
        add_ssh(kind, before, Injection(BUNDLE, step="Step", launcher=launcher))
    assert caught.value.message.startswith("step 'Step': ")
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("launcher", ["auto", "wrap"])
@pytest.mark.parametrize("kind", ["training", "processing"])
def test_wrap(kind: str, launcher: str) -> None:
    found = changed(kind, request(kind, ["python3", "a.py"]), launcher)
    assert entry_point(kind, found) == [*WORDS, FOLDERS[kind], DIGEST, "python3", "a.py"]
    assert set(found["Environment"]) == {"SMSSH_ENABLE", "SMSSH_ROLE", "SMSSH_STEP"}


@pytest.mark.parametrize("kind", KINDS[:4])
def test_there_is_nothing_to_wrap(kind: str) -> None:
    error = refused(kind, request(kind), "wrap")
    assert error.reference == "no-entry-point"
    named = {"training": "AlgorithmSpecification", "processing": "AppSpecification"}.get(kind)
    expected = (
        f"{named}.ContainerEntrypoint is not set" if named else f"no {LIMITS[kind].call} names an entry point"
    )
    assert expected in error.message


@pytest.mark.parametrize("kind", KINDS[:4])
def test_sitecustomize(kind: str) -> None:
    found = holder(kind, changed(kind, request(kind, ["python3", "a.py"]), "sitecustomize"))
    if kind in ("training", "processing"):
        assert entry_point(kind, found) == ["python3", "a.py"]
    assert found["Environment"]["PYTHONPATH"] == f"{MOVED}:{FOLDERS[kind]}"
    assert found["Environment"]["SMSSH_BUNDLE"] == FOLDERS[kind]


@pytest.mark.parametrize("kind", ["training", "tuning"])
def test_chain(kind: str) -> None:
    found = holder(kind, changed(kind, request(kind, PYTHONPATH="/mine"), "chain"))["Environment"]
    assert found["SAGEMAKER_TRAINING_MODULE"] == "smssh_chain:main"
    assert found["PYTHONPATH"] == f"{MOVED}/chain:{TRAINING}/chain:/mine"
    assert "SMSSH_TRAINING_MODULE" not in found
    assert "chain/smssh_chain.py" in LAUNCHER_FILES


def test_chain_hands_over_to_the_requests_own_module() -> None:
    variable = object()
    for own in ("mine.training:main", variable):
        found = changed("training", request("training", SAGEMAKER_TRAINING_MODULE=own), "chain")[
            "Environment"
        ]
        assert found["SAGEMAKER_TRAINING_MODULE"] == "smssh_chain:main"
        assert found["SMSSH_TRAINING_MODULE"] is own


def test_chain_does_not_hand_over_to_itself() -> None:
    before = request("training", SAGEMAKER_TRAINING_MODULE="smssh_chain:main")
    assert "SMSSH_TRAINING_MODULE" not in changed("training", before, "chain")["Environment"]


@pytest.mark.parametrize(
    ("kind", "entry", "problem"),
    [
        ("training", ["python3"], "AlgorithmSpecification.ContainerEntrypoint runs something else"),
        ("processing", None, "it runs in no processing job"),
        ("model", None, "it runs in no model"),
    ],
)
def test_chain_is_for_the_toolkits(kind: str, entry: list[str] | None, problem: str) -> None:
    error = refused(kind, request(kind, entry), "chain")
    assert error.reference == "no-toolkit"
    assert problem in error.message


@pytest.mark.parametrize("kind", KINDS[:4])
def test_bash_env(kind: str) -> None:
    found = holder(kind, changed(kind, request(kind, ["/bin/bash", "a.sh"]), "bash_env"))
    if kind in ("training", "processing"):
        assert entry_point(kind, found) == ["/bin/bash", "a.sh"]
    assert found["Environment"]["BASH_ENV"] == f"{FOLDERS[kind]}/env.sh"
    assert "PYTHONPATH" not in found["Environment"]
    assert "env.sh" in LAUNCHER_FILES


@pytest.mark.parametrize("value", ["/mine", object()])
def test_bash_env_of_the_request_is_not_hidden(value: Any) -> None:
    error = refused("training", request("training", BASH_ENV=value), "bash_env")
    assert error.reference == "name-taken"
    assert "Environment.BASH_ENV" in error.message


@pytest.mark.parametrize("kind", KINDS)
def test_baked_is_variables_and_nothing_else(kind: str) -> None:
    before = request(kind, ["python3", "a.py"])
    settings = {"SMSSH_HOLD": "failure", "SMSSH_AUTHORIZED_KEYS": "ssh-ed25519 AAAA"}
    found = changed(kind, before, "baked", environment=settings)
    own = holder(kind, before)
    assert {**holder(kind, found), "Environment": None} == {**own, "Environment": None}
    expected = {"SMSSH_ROLE": "role"}
    if kind != "model":
        expected = {"SMSSH_ENABLE": "1", "SMSSH_ROLE": "role", "SMSSH_STEP": "Step", **settings}
    if kind == "transform":
        del expected["SMSSH_ROLE"]  # its model has it
    assert holder(kind, found)["Environment"] == expected


def test_baked_endpoints_have_it_in_the_model() -> None:
    found = changed("model", request("model"), "baked", endpoints=True, environment={"SMSSH_HOLD": "end"})
    assert found["PrimaryContainer"]["Environment"] == {
        "SMSSH_ENABLE": "1",
        "SMSSH_ROLE": "role",
        "SMSSH_HOLD": "end",
    }


def test_too_many_keys_for_a_variable() -> None:
    keys = {"SMSSH_AUTHORIZED_KEYS": "k" * 300}
    injection = Injection(BUNDLE, step="Step", launcher="baked", environment=keys)
    add_ssh("training", request("training"), injection)
    with pytest.raises(SmsshError, match=r"SMSSH_AUTHORIZED_KEYS would have 300 .* takes 256") as caught:
        add_ssh("processing", request("processing"), injection)
    assert caught.value.reference == "value-too-long"
    assert "let fewer keys in" in (caught.value.hint or "")
    assert "authorized_keys=('ssm:PARAMETER',)" in (caught.value.hint or "")


def test_transform_jobs_take_16_variables() -> None:
    many = {f"SMSSH_{number}": "x" for number in range(15)}
    with pytest.raises(SmsshError, match=r"SSH adds 17; SageMaker takes 16"):
        add_ssh(
            "transform",
            request("transform"),
            Injection(BUNDLE, step="Step", launcher="baked", environment=many),
        )


@pytest.mark.parametrize("launcher", ["auto", "wrap", "sitecustomize", "chain", "bash_env"])
def test_every_launcher_works_somewhere(launcher: str) -> None:
    entry = ["python3"] if launcher == "wrap" else None
    assert changed("training", request("training", entry), launcher) != request("training", entry)
