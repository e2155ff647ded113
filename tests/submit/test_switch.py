"""The switch from outside: bools, environment variables, pipeline parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from smssh_plugin import SmsshError, SSHOptions
from smssh_plugin.submit.switch import as_json, as_text, is_on, is_variable

if TYPE_CHECKING:
    from .conftest import SDK


@pytest.mark.parametrize(
    ("value", "on"), [(None, False), ("", False), ("1", True), ("0", False), ("true", True), ("off", False)]
)
def test_a_variable_of_the_environment(monkeypatch: pytest.MonkeyPatch, value: str | None, on: bool) -> None:
    if value is not None:
        monkeypatch.setenv("DEBUG_TRAIN", value)
    options = SSHOptions(enabled="DEBUG_TRAIN")
    assert options.active is on
    monkeypatch.setenv("SMSSH_ENABLE", "0")
    assert not options.active


def test_a_variable_that_says_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEBUG_TRAIN", "maybe")
    with pytest.raises(SmsshError, match="DEBUG_TRAIN is 'maybe', and turns SSH on with 1 and off with 0"):
        is_on("DEBUG_TRAIN")


@pytest.mark.parametrize("wrong", ["yes", "debug train", "1", 1, [], object()])
def test_what_is_no_switch(wrong: Any) -> None:
    with pytest.raises(SmsshError, match="SSHOptions: enabled is"):
        SSHOptions(enabled=wrong)


def test_parameters(sdk: SDK) -> None:
    from sagemaker.core.workflow.parameters import ParameterInteger, ParameterString

    text, number = ParameterString("Debug", default_value="0"), ParameterInteger("Debug", default_value=1)
    for parameter in (text, number, ParameterString("Debug"), ParameterInteger("Debug")):
        assert SSHOptions(enabled=parameter).active
        assert is_variable(parameter)
    assert as_text(text) is text
    assert as_json(text) == {"Get": "Parameters.Debug"}
    assert as_json(as_text(number)) == {"Std:Join": {"On": "", "Values": [{"Get": "Parameters.Debug"}]}}
    assert as_json("role") == "role"


def test_options_with_a_parameter_are_options(sdk: SDK) -> None:
    from sagemaker.core.workflow.functions import Join
    from sagemaker.core.workflow.parameters import ParameterInteger

    parameter = ParameterInteger("Debug")
    assert SSHOptions(enabled=parameter) == SSHOptions(enabled=parameter)
    hash(SSHOptions(enabled=Join(on="", values=["1"])))  # a Join has no hash


def test_parameters_that_would_not_be_understood(sdk: SDK) -> None:
    from sagemaker.core.workflow.parameters import ParameterBoolean, ParameterFloat, ParameterString

    for wrong, said in (
        (ParameterBoolean("Debug"), "is the Boolean parameter 'Debug'"),
        (ParameterFloat("Debug"), "is the Float parameter 'Debug'"),
        (ParameterString("Debug", default_value="true"), "whose default is 'true'"),
    ):
        with pytest.raises(SmsshError, match=said):
            SSHOptions(enabled=wrong)
