"""Real pipelines of SageMaker SDK v3, and definitions of pipelines."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from smssh_plugin import SmsshError, with_ssh
from smssh_plugin.submit.options import SmsshWarning
from smssh_plugin.submit.pipelines import transform_definition

from .conftest import ROLE, SDK, steps_of
from .support import (
    additions,
    entered,
    every_step,
    function_step,
    isolated,
    normalised,
    uri_in,
)

if TYPE_CHECKING:
    import boto3

pytestmark = [
    pytest.mark.timeout(300),  # the SDK takes seconds to import, a minute on a busy machine
    pytest.mark.filterwarnings("ignore:Running within a PipelineSession"),
]


def test_the_whole_pipeline_is_the_same_as_all_its_steps(sdk: SDK) -> None:
    session = sdk.session()
    by_steps = sdk.pipeline(*with_ssh(every_step(sdk, session)), session=session)
    whole = sdk.pipeline(*every_step(sdk, session), session=session)
    with_ssh(whole, steps="training, processing, transform, model")
    assert normalised(whole.definition()) == normalised(by_steps.definition())


def test_functions_behind_a_delayed_return_are_in_the_pipeline_too(sdk: SDK) -> None:
    session = sdk.session()

    @function_step(sdk, session, name="First")
    def first() -> int:
        return 1

    @function_step(sdk, session, name="Second")
    def second(number: int) -> int:
        return number

    pipeline = with_ssh(sdk.pipeline(second(first()), session=session))
    found = steps_of(pipeline)
    assert set(found) == {"First", "Second"}
    assert all(uri_in(step) for step in found.values())


def test_steps_that_are_only_reached_through_arguments(sdk: SDK) -> None:
    """They are in no list: only the definition shows them."""
    session = sdk.session()

    @function_step(sdk, session, name="First")
    def first() -> str:
        return "x"

    step = sdk.bare_processing(session, env={"FROM": first()})
    found = steps_of(with_ssh(sdk.pipeline(step, session=session)))
    assert set(found) == {"First", "Bare"}
    assert uri_in(found["First"])
    assert found["First"]["Arguments"]["Environment"]["SMSSH_STEP"] == "First"


def test_steps_added_later_belong_to_the_pipeline(sdk: SDK) -> None:
    session = sdk.session()
    pipeline = with_ssh(sdk.pipeline(sdk.processing(session, "A"), session=session))
    pipeline.steps.append(sdk.processing(session, "B"))
    assert set(steps_of(pipeline)) == {"A", "B"}
    assert uri_in(steps_of(pipeline)["B"])


def test_some_steps_of_a_pipeline(sdk: SDK) -> None:
    session = sdk.session()
    names = ("Prepare-1", "Prepare-2", "Other")
    pipeline = sdk.pipeline(*[sdk.processing(session, name) for name in names], session=session)
    assert with_ssh(pipeline, steps="Prepare*") is pipeline
    assert entered(pipeline) == {"Prepare-1", "Prepare-2"}


def test_steps_of_some_kinds(sdk: SDK) -> None:
    session = sdk.session()
    pipeline = sdk.pipeline(*every_step(sdk, session), session=session)
    with_ssh(pipeline, steps=["training", "Bare"])
    assert entered(pipeline) == {"Train", "Script", "Bare"}


def test_a_chosen_transform_step_takes_its_model_with_it(sdk: SDK) -> None:
    session = sdk.session()
    pipeline = sdk.pipeline(*every_step(sdk, session), session=session)
    assert entered(with_ssh(pipeline, steps="Score")) == {"Score", "Model"}


def test_other_options_for_other_steps(sdk: SDK) -> None:
    session = sdk.session()
    pipeline = sdk.pipeline(*[sdk.processing(session, name) for name in "ABC"], session=session)
    with_ssh(pipeline, steps="A", hold="failure")
    with_ssh(pipeline, steps="*", hold="end")
    found = steps_of(pipeline)
    assert uri_in(found["B"]) == uri_in(found["C"]) != uri_in(found["A"])


def test_functions_behind_others_are_chosen_by_name_too(sdk: SDK) -> None:
    session = sdk.session()

    @function_step(sdk, session, name="First")
    def first() -> str:
        return "x"

    step = sdk.bare_processing(session, env={"FROM": first()})
    assert entered(with_ssh(sdk.pipeline(step, session=session), steps="First")) == {"First"}


def test_a_step_that_is_not_there(sdk: SDK) -> None:
    session = sdk.session()
    pipeline = with_ssh(sdk.pipeline(sdk.processing(session), session=session), steps="Prepares")
    pipeline.steps.append(sdk.processing(session, "Later"))
    with pytest.raises(SmsshError, match="'Prepares' matches no step") as caught:
        pipeline.definition()
    assert caught.value.hint == "use one of Later, Prepare"


@pytest.mark.parametrize("later", [True, False])
def test_a_choice_that_is_off_keeps_its_steps(sdk: SDK, later: bool) -> None:
    session = sdk.session()
    names = ["Open"] if later else ["Open", "Secret"]
    pipeline = sdk.pipeline(*[sdk.processing(session, name) for name in names], session=session)
    with_ssh(pipeline, steps="Secret", enabled=False)
    with_ssh(pipeline)
    if later:
        pipeline.steps.append(sdk.processing(session, "Secret"))
    assert entered(pipeline) == {"Open"}


def test_a_choice_that_is_off_keeps_functions_behind_others(sdk: SDK) -> None:
    session = sdk.session()

    @function_step(sdk, session, name="Secret")
    def secret() -> str:
        return "x"

    step = sdk.bare_processing(session, env={"FROM": secret()})
    pipeline = sdk.pipeline(step, session=session)
    with_ssh(pipeline, steps="Secret", enabled=False)
    with_ssh(pipeline)
    assert entered(pipeline) == {"Bare"}


def test_a_choice_that_was_refused_can_be_made_anew(sdk: SDK) -> None:
    session = sdk.session()
    pipeline = sdk.pipeline(sdk.processing(session, "A"), sdk.processing(session, "B"), session=session)
    with_ssh(pipeline, steps="B")
    with_ssh(pipeline, steps="Aa")
    for _ in range(2):  # as long as nothing else is asked for
        with pytest.raises(SmsshError, match="'Aa' matches no step"):
            pipeline.definition()
    with_ssh(pipeline, steps="A")
    assert entered(pipeline) == {"A", "B"}


def test_a_choice_whose_step_came_later_stays(sdk: SDK) -> None:
    session = sdk.session()
    pipeline = with_ssh(sdk.pipeline(sdk.processing(session, "A"), session=session), steps="B")
    with pytest.raises(SmsshError, match="'B' matches no step"):
        pipeline.definition()
    pipeline.steps.append(sdk.processing(session, "B"))
    assert entered(pipeline) == {"B"}
    with_ssh(pipeline, steps="A")
    pipeline.steps[-1] = sdk.processing(session, "B")
    assert entered(pipeline) == {"A", "B"}


def test_several_pipelines(sdk: SDK) -> None:
    session = sdk.session()
    pipelines = [sdk.pipeline(sdk.processing(session, name), session=session) for name in "AB"]
    with_ssh(pipelines)
    assert [entered(pipeline) for pipeline in pipelines] == [{"A"}, {"B"}]


def test_upsert_sends_it(sdk: SDK, boto_session: boto3.Session) -> None:
    session = sdk.session()
    pipeline = with_ssh(sdk.pipeline(sdk.processing(session), session=session, name="upserted"))
    pipeline.upsert(role_arn=ROLE)
    stored = boto_session.client("sagemaker").describe_pipeline(PipelineName="upserted")
    assert "SMSSH_ENABLE" in stored["PipelineDefinition"]


def test_in_a_pipeline_it_is_a_warning(sdk: SDK) -> None:
    session = sdk.session()
    pipeline = with_ssh(sdk.pipeline(isolated(sdk, session), sdk.processing(session), session=session))
    with pytest.warns(SmsshWarning, match="no SSH for step 'Isolated'"):
        found = steps_of(pipeline)
    assert additions(json.dumps(found["Isolated"])) == []
    assert uri_in(found["Prepare"])


def test_each_pipeline_has_its_warning_and_each_once(sdk: SDK) -> None:
    session = sdk.session()
    pipelines = [
        with_ssh(sdk.pipeline(isolated(sdk, session), session=session, name=name)) for name in ("q1", "q2")
    ]
    with warnings.catch_warnings(record=True) as record:
        for pipeline in (*pipelines, *pipelines):
            pipeline.definition()
    said = [str(warning.message) for warning in record if warning.category is SmsshWarning]
    assert [text.partition(": ")[0] for text in said] == [
        f"no SSH for step 'Isolated' of pipeline '{name}'" for name in ("q1", "q2")
    ]


def test_a_model_from_elsewhere_is_said_of_a_pipeline_too(sdk: SDK) -> None:
    from sagemaker.core.workflow.parameters import ParameterString

    session = sdk.session()
    name = ParameterString("ModelName", default_value="m")
    pipeline = with_ssh(sdk.pipeline(sdk.transform(session, name), session=session, parameters=[name]))
    with pytest.warns(SmsshWarning, match="step 'Score' of pipeline 'pipe': its model was not seen to get"):
        assert entered(pipeline) == {"Score"}


def test_definitions_of_which_nothing_changes_are_left_alone() -> None:
    definition = {
        "Steps": [{"Name": "A", "Type": "Training", "Arguments": {}}, {"Name": "B", "Type": "Fail"}]
    }
    assert transform_definition(definition, lambda kind, step, names: step) is definition
    assert transform_definition({}, lambda *_: {}) == {}


def test_nested_definitions() -> None:
    def step(name: str, kind: str = "Training", **arguments: Any) -> Any:
        return {"Name": name, "Type": kind, "Arguments": arguments}

    inner = step("C", IfSteps="not a list")
    condition = step("If", "Condition", IfSteps=[step("A")], ElseSteps=[], Conditions=[])
    loop = step("Each", "ForEach", ForEachBody=[step("B", "Processing"), condition])
    seen = []

    def change(kind: str, step: Any, names: Any) -> Any:
        seen.append((kind, names))
        return {**step, "Changed": True}

    changed = transform_definition({"Version": "1", "Steps": [loop, inner]}, change)
    assert seen == [("processing", ("B", "Each")), ("training", ("A", "If", "Each")), ("training", ("C",))]
    assert json.dumps(changed).count('"Changed": true') == 3
    assert "Changed" not in json.dumps([loop, inner])
