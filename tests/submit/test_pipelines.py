"""Real pipelines of SageMaker SDK v3, compiled offline: with and without SSH."""

from __future__ import annotations

import copy
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from smssh_plugin import SmsshError, SSHOptions, with_ssh
from smssh_plugin.submit.bundle import DOORS
from smssh_plugin.submit.options import SmsshWarning
from smssh_plugin.submit.pipelines import transform_definition

from .conftest import BUCKET, IMAGE, ROLE, SDK, steps_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import boto3

OURS = ("SMSSH_ENABLE", "SMSSH_ROLE", "SMSSH_STEP", "SMSSH_BUNDLE")
pytestmark = [
    pytest.mark.timeout(300),  # the SDK takes seconds to import, a minute on a busy machine
    pytest.mark.filterwarnings("ignore:Running within a PipelineSession"),
]


def normalised(definition: str) -> Any:
    """The definition without the time that SDK v3 puts into the keys of its uploads."""
    return json.loads(re.sub(r"-\d{14}\b", "-TIME", definition))


def without_ssh(step: Any) -> Any:
    """A compiled step with all that we add taken out."""
    step = copy.deepcopy(step)
    arguments = step["Arguments"]
    container = arguments.get("PrimaryContainer", arguments)
    for holder, field, name in (
        (arguments, "InputDataConfig", "ChannelName"),
        (arguments, "ProcessingInputs", "InputName"),
        (container, "AdditionalModelDataSources", "ChannelName"),
    ):
        if field in holder:
            holder[field] = [each for each in holder[field] if each[name] != "smssh"]
            if not holder[field]:
                del holder[field]
    environment = container.get("Environment", {})
    for name in OURS:
        environment.pop(name, None)
    if environment.get("PYTHONPATH", "").endswith("/smssh"):
        del environment["PYTHONPATH"]
    if not environment:
        container.pop("Environment", None)
    for field in ("AlgorithmSpecification", "AppSpecification"):
        entry_point = arguments.get(field, {}).get("ContainerEntrypoint", [])
        if entry_point[1:2] and entry_point[1].endswith("/smssh/run.sh"):
            del entry_point[:2]
    return step


def plain(step: Any) -> Any:
    """A compiled step with no empty environment, as `without_ssh` leaves it."""
    step = copy.deepcopy(step)
    if step["Arguments"].get("Environment") == {}:
        del step["Arguments"]["Environment"]
    return step


def additions(definition: str) -> list[str]:
    """All texts in the definition that name us, in order."""
    return re.findall(r'"[^"]*(?:smssh|SMSSH)[^"]*"', definition)


def every_step(sdk: SDK, session: Any) -> list[Any]:
    model = sdk.model(session)
    return [
        sdk.processing(session),
        sdk.bare_processing(session),
        sdk.training(session),
        sdk.script_mode(session),
        model,
        sdk.transform(session, model.properties.ModelName),
    ]


def uri_in(step: Any) -> str:
    """The bundle that a compiled step carries."""
    (found,) = set(re.findall(r's3://[^"]*/[0-9a-f]{64}/(?=")', json.dumps(step)))
    return str(found)


# -------------------------------------------------------------------------------- all kinds


def test_only_what_we_add_is_different(sdk: SDK) -> None:
    session = sdk.session()
    steps = every_step(sdk, session)
    pipeline = sdk.pipeline(*steps, session=session)
    before = normalised(pipeline.definition())
    with_ssh(steps)
    after = normalised(pipeline.definition())
    assert [without_ssh(step) for step in after["Steps"]] == [plain(step) for step in before["Steps"]]
    assert {**after, "Steps": 0} == {**before, "Steps": 0}
    found = {step["Name"]: step["Arguments"] for step in after["Steps"]}
    run = "/opt/ml/input/data/smssh/run.sh"
    assert found["Train"]["AlgorithmSpecification"]["ContainerEntrypoint"] == ["/bin/sh", run, "/bin/bash"]
    assert found["Prepare"]["AppSpecification"]["ContainerEntrypoint"][:2] == [
        "/bin/sh",
        "/opt/ml/processing/input/smssh/run.sh",
    ]
    assert "ContainerEntrypoint" not in found["Script"]["AlgorithmSpecification"]
    assert found["Script"]["Environment"]["PYTHONPATH"] == "/opt/ml/input/data/smssh"
    assert found["Bare"]["Environment"]["PYTHONPATH"] == "/opt/ml/processing/input/smssh"
    assert found["Score"]["Environment"] == {"SMSSH_ENABLE": "1", "SMSSH_STEP": "Score"}
    assert found["Model"]["PrimaryContainer"]["Environment"]["SMSSH_ROLE"] == ROLE
    assert {found[name]["Environment"]["SMSSH_STEP"] for name in found if name != "Model"} == set(found) - {
        "Model"
    }


def test_the_whole_pipeline_is_the_same_as_all_its_steps(sdk: SDK) -> None:
    session = sdk.session()
    by_steps = sdk.pipeline(*with_ssh(every_step(sdk, session)), session=session)
    whole = with_ssh(sdk.pipeline(*every_step(sdk, session), session=session))
    assert normalised(whole.definition()) == normalised(by_steps.definition())


def test_the_bundle_is_where_the_request_says(sdk: SDK, boto_session: boto3.Session) -> None:
    session = sdk.session()
    pipeline = sdk.pipeline(with_ssh(sdk.processing(session)), session=session)
    bucket, _, key = uri_in(steps_of(pipeline)["Prepare"])[len("s3://") :].partition("/")
    assert bucket == BUCKET
    assert key.startswith("smssh/bundles/")
    listed = boto_session.client("s3").list_objects_v2(Bucket=bucket, Prefix=key)["Contents"]
    names = {each["Key"][len(key) :] for each in listed}
    assert names == {*DOORS, "options.json", "smssh-manifest.json", "smssh.zip"}


def test_two_compiles_add_the_same(sdk: SDK) -> None:
    session = sdk.session()
    pipeline = with_ssh(sdk.pipeline(*every_step(sdk, session), session=session))
    first, second = additions(pipeline.definition()), additions(pipeline.definition())
    assert first == second
    assert len(first) > 20


@pytest.mark.parametrize("form", ["steps", "pipeline", "both", "twice"])
def test_twice_is_once(sdk: SDK, form: str) -> None:
    session = sdk.session()
    steps = every_step(sdk, session)
    if form != "pipeline":
        with_ssh(steps)
    if form == "twice":
        with_ssh(with_ssh(steps), hold="end")
    pipeline = sdk.pipeline(*steps, session=session)
    if form in ("pipeline", "both"):
        with_ssh(with_ssh(pipeline), hold="start")
    for step in steps_of(pipeline).values():
        inputs = step["Arguments"].get("ProcessingInputs") or step["Arguments"].get("InputDataConfig") or ()
        names = [each.get("ChannelName") or each.get("InputName") for each in inputs]
        assert names.count("smssh") == (1 if inputs else 0)
        assert json.dumps(step).count("run.sh") <= 1


def test_steps_stay_what_they_are(sdk: SDK) -> None:
    from sagemaker.mlops.workflow.steps import ProcessingStep

    session = sdk.session()
    step = sdk.processing(session)
    before = step.properties
    assert with_ssh(step) is step
    assert isinstance(step, ProcessingStep)
    assert type(step).__name__ == "ProcessingStep"
    assert step.properties is before
    assert step.name == "Prepare"


def test_variables_stay_variables(sdk: SDK) -> None:
    from sagemaker.core.workflow.functions import Join
    from sagemaker.core.workflow.parameters import ParameterString

    session = sdk.session()
    role, secret = ParameterString("Role", default_value=ROLE), ParameterString("Other", default_value="x")
    environment = {"SMSSH_ENABLE": secret, "JOINED": Join(on="/", values=["a", secret])}
    step = sdk.bare_processing(session, env=environment)
    step.step_args.func_args[0].role = role
    pipeline = sdk.pipeline(with_ssh(step), session=session, parameters=[role, secret])
    arguments = steps_of(pipeline)["Bare"]["Arguments"]
    assert arguments["Environment"] == {
        "SMSSH_ENABLE": {"Get": "Parameters.Other"},  # a switch from outside: the user's own stays
        "JOINED": {"Std:Join": {"On": "/", "Values": ["a", {"Get": "Parameters.Other"}]}},
        "SMSSH_ROLE": arguments["RoleArn"],
        "SMSSH_STEP": "Bare",
        "SMSSH_BUNDLE": "/opt/ml/processing/input/smssh",
        "PYTHONPATH": "/opt/ml/processing/input/smssh",
    }
    assert arguments["RoleArn"] == {"Get": "Parameters.Role"}


# -------------------------------------------------------------------------------- forms


@pytest.mark.parametrize(
    "decorate",
    [
        with_ssh,
        with_ssh(),
        with_ssh(hold="failure"),
        with_ssh(SSHOptions(hold=("failure",))),
        with_ssh(options=SSHOptions()),
        lambda function: with_ssh(function, SSHOptions()),
    ],
)
def test_a_function_that_returns_a_step(sdk: SDK, decorate: Callable[[Any], Any]) -> None:
    session = sdk.session()

    @decorate
    def make(name: str) -> Any:
        """Makes it."""
        return sdk.processing(session, name)

    assert make.__name__ == "make"
    assert make.__doc__ == "Makes it."
    step = steps_of(sdk.pipeline(make("A"), session=session))["A"]
    assert step["Arguments"]["Environment"]["SMSSH_STEP"] == "A"


def test_a_function_that_returns_several(sdk: SDK) -> None:
    session = sdk.session()

    @with_ssh
    def make() -> Any:
        return sdk.processing(session, "A"), [sdk.processing(session, "B")]

    first, (second,) = make()
    found = steps_of(sdk.pipeline(first, second, session=session))
    assert [step["Arguments"]["Environment"]["SMSSH_STEP"] for step in found.values()] == ["A", "B"]


def test_options_travel_in_the_bundle(sdk: SDK, boto_session: boto3.Session) -> None:
    session = sdk.session()
    step = with_ssh(sdk.processing(session), SSHOptions(hold=("failure",), owner="ann"), hold_seconds="20m")
    bucket, _, key = uri_in(steps_of(sdk.pipeline(step, session=session)))[len("s3://") :].partition("/")
    body = boto_session.client("s3").get_object(Bucket=bucket, Key=key + "options.json")["Body"].read()
    found = json.loads(body)
    assert found.pop("authorized_keys")[0].startswith("ssh-ed25519 ")
    assert found == {"hold": "failure", "hold_seconds": "20m", "owner": "ann", "transport": "ssm"}


def test_a_transform_step_takes_its_model_with_it(sdk: SDK) -> None:
    session = sdk.session()
    model = sdk.model(session)
    score = with_ssh(sdk.transform(session, model.properties.ModelName))
    found = steps_of(sdk.pipeline(model, score, session=session))
    assert uri_in(found["Model"])
    assert found["Score"]["Arguments"]["Environment"]["SMSSH_ENABLE"] == "1"


def test_a_transform_step_with_a_model_from_elsewhere_warns(sdk: SDK) -> None:
    from sagemaker.core.workflow.parameters import ParameterString

    session = sdk.session()
    step = sdk.transform(session, ParameterString("ModelName", default_value="m"))
    with pytest.warns(SmsshWarning, match="step 'Score': its model is not made by a step"):
        with_ssh(step)


def test_conditions_and_loops(sdk: SDK) -> None:
    from sagemaker.core.workflow.conditions import ConditionEquals
    from sagemaker.mlops.workflow.condition_step import ConditionStep

    session = sdk.session()
    condition = ConditionStep(
        name="If",
        conditions=[ConditionEquals(left="a", right="a")],
        if_steps=[sdk.processing(session, "Then")],
        else_steps=[sdk.processing(session, "Else")],
    )
    pipeline = sdk.pipeline(with_ssh(condition), session=session)
    found = steps_of(pipeline)
    assert found["Then"]["Arguments"]["Environment"]["SMSSH_STEP"] == "Then"
    assert found["Else"]["Arguments"]["Environment"]["SMSSH_STEP"] == "Else"


def function_step(sdk: SDK, session: Any, **more: Any) -> Callable[[Any], Any]:
    from sagemaker.mlops.workflow.function_step import step

    decorator: Callable[[Any], Any] = step(
        image_uri=IMAGE, role=ROLE, instance_type="ml.m5.large", dependencies=None, **more
    )
    return decorator


def test_a_function_that_is_a_step(sdk: SDK) -> None:
    session = sdk.session()

    @with_ssh
    @function_step(sdk, session, name="Function")
    def double(number: int) -> int:
        return 2 * number

    found = steps_of(sdk.pipeline(double(2), session=session))
    arguments = found["Function"]["Arguments"]
    assert arguments["AlgorithmSpecification"]["ContainerEntrypoint"][:3] == [
        "/bin/sh",
        "/opt/ml/input/data/smssh/run.sh",
        "/bin/bash",
    ]
    assert arguments["Environment"]["SMSSH_STEP"] == "Function"


def test_the_wrong_order_is_an_error_that_shows_the_right_one(sdk: SDK) -> None:
    session = sdk.session()

    @function_step(sdk, session, name="Function")
    @with_ssh
    def double(number: int) -> int:
        """Doubles."""
        return 2 * number

    with pytest.raises(Exception, match="write @with_ssh above @step") as caught:
        double(2)
    assert isinstance(caught.value.__cause__, SmsshError)
    assert "    @with_ssh\n    @step(...)\n    def double(...):" in caught.value.__cause__.message


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


def test_upsert_sends_it(sdk: SDK, boto_session: boto3.Session) -> None:
    session = sdk.session()
    pipeline = with_ssh(sdk.pipeline(sdk.processing(session), session=session, name="upserted"))
    pipeline.upsert(role_arn=ROLE)
    stored = boto_session.client("sagemaker").describe_pipeline(PipelineName="upserted")
    assert "SMSSH_ENABLE" in stored["PipelineDefinition"]


def test_a_bucket_prefix_of_the_session_is_honoured(sdk: SDK) -> None:
    session = sdk.new_session(default_bucket_prefix="team/one")
    step = steps_of(sdk.pipeline(with_ssh(sdk.processing(session)), session=session))["Prepare"]
    assert uri_in(step).startswith(f"s3://{BUCKET}/team/one/smssh/bundles/")


# -------------------------------------------------------------------------------- off


def test_off_is_off_byte_for_byte(sdk: SDK, monkeypatch: pytest.MonkeyPatch) -> None:
    session = sdk.session()
    model = sdk.model(session)
    steps = [sdk.processing(session), model, sdk.transform(session, model.properties.ModelName)]
    pipeline = sdk.pipeline(*steps, session=session)
    before = pipeline.definition()
    with_ssh(steps[0])
    with_ssh(pipeline, enabled=True)
    monkeypatch.setenv("SMSSH_ENABLE", "0")
    assert pipeline.definition() == before
    monkeypatch.setenv("SMSSH_ENABLE", "1")
    assert pipeline.definition() != before


def test_one_step_of_a_pipeline_can_be_left_out(sdk: SDK) -> None:
    session = sdk.session()
    steps = [with_ssh(sdk.processing(session, "A"), enabled=False), sdk.processing(session, "B")]
    found = steps_of(with_ssh(sdk.pipeline(*steps, session=session)))
    assert additions(json.dumps(found["A"])) == []
    assert uri_in(found["B"])


# -------------------------------------------------------------------------------- trouble


def isolated(sdk: SDK, session: Any, name: str = "Isolated") -> Any:
    from sagemaker.core.network import NetworkConfig

    return sdk.bare_processing(session, name, network_config=NetworkConfig(enable_network_isolation=True))


def test_a_named_step_that_cannot_be_entered_is_an_error(sdk: SDK) -> None:
    session = sdk.session()
    pipeline = sdk.pipeline(with_ssh(isolated(sdk, session)), session=session)
    with pytest.raises(SmsshError, match=r"^step 'Isolated': NetworkConfig\.EnableNetworkIsolation is on"):
        pipeline.definition()


def test_in_a_pipeline_it_is_a_warning(sdk: SDK) -> None:
    session = sdk.session()
    pipeline = with_ssh(sdk.pipeline(isolated(sdk, session), sdk.processing(session), session=session))
    with pytest.warns(SmsshWarning, match="no SSH for step 'Isolated'"):
        found = steps_of(pipeline)
    assert additions(json.dumps(found["Isolated"])) == []
    assert uri_in(found["Prepare"])


def test_a_bucket_that_is_not_there(sdk: SDK) -> None:
    session = sdk.session()
    step = with_ssh(sdk.processing(session), bundle="s3://nobody-has-this/deep/prefix")
    with pytest.raises(SmsshError) as caught:
        sdk.pipeline(step, session=session).definition()
    assert caught.value.reference == "bundle-not-writable"
    assert "s3://nobody-has-this/deep/prefix" in caught.value.message
    assert "s3:PutObject" in (caught.value.hint or "")


@pytest.mark.parametrize("thing", [None, 1, "step", {}, [], [1], object(), dict])
def test_what_is_no_step(thing: Any) -> None:
    if thing is None:
        thing = ()
    with pytest.raises(SmsshError) as caught:
        with_ssh(thing)
    assert caught.value.reference == "not-a-step"


def test_a_function_that_returns_no_step() -> None:
    @with_ssh
    def prepare() -> None:
        return None

    with pytest.raises(SmsshError, match="prepare returned None") as caught:
        prepare()
    assert "    @with_ssh\n    @step(...)\n    def prepare(...):" in caught.value.message


def test_a_step_without_a_container(sdk: SDK) -> None:
    from sagemaker.mlops.workflow.fail_step import FailStep

    with pytest.raises(SmsshError, match="step 'Stop' is of type Fail"):
        with_ssh(FailStep(name="Stop", error_message="stop"))


def test_an_unknown_option() -> None:
    with pytest.raises(SmsshError, match="there is no SSH option 'holds'"):
        with_ssh(holds="failure")


# -------------------------------------------------------------------------------- definitions


def test_definitions_of_which_nothing_changes_are_left_alone() -> None:
    definition = {
        "Steps": [{"Name": "A", "Type": "Training", "Arguments": {}}, {"Name": "B", "Type": "Fail"}]
    }
    assert transform_definition(definition, lambda kind, name, request: request) is definition
    assert transform_definition({}, lambda *_: {}) == {}


def test_nested_definitions() -> None:
    def step(name: str, kind: str = "Training", **arguments: Any) -> Any:
        return {"Name": name, "Type": kind, "Arguments": arguments}

    inner = step("C", IfSteps="not a list")
    condition = step("If", "Condition", IfSteps=[step("A")], ElseSteps=[], Conditions=[])
    loop = step("Each", "ForEach", ForEachBody=[step("B", "Processing"), condition])
    seen = []

    def change(kind: str, name: str, request: Any) -> Any:
        seen.append((kind, name))
        return {**request, "Changed": True}

    changed = transform_definition({"Version": "1", "Steps": [loop, inner]}, change)
    assert seen == [("processing", "B"), ("training", "A"), ("training", "C")]
    assert json.dumps(changed).count('"Changed": true') == 3
    assert "Changed" not in json.dumps([loop, inner])
