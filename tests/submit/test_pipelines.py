"""Real pipelines of SageMaker SDK v3, compiled offline: with and without SSH."""

from __future__ import annotations

import copy
import functools
import json
import re
from pathlib import Path
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


def entered(pipeline: Any) -> set[str]:
    """The names of the steps with SSH."""
    return {name for name, step in steps_of(pipeline).items() if additions(json.dumps(step))}


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


def test_a_notebook_job_finds_its_session_by_itself(sdk: SDK, tmp_path: Path) -> None:
    from sagemaker.mlops.workflow.notebook_job_step import NotebookJobStep

    (tmp_path / "a.ipynb").write_text("{}")
    step = NotebookJobStep(
        name="Notebook",
        input_notebook=str(tmp_path / "a.ipynb"),
        image_uri=IMAGE,
        kernel_name="python3",
        role=ROLE,
        s3_root_uri=f"s3://{BUCKET}/notebooks",
    )
    found = steps_of(sdk.pipeline(with_ssh(step), session=sdk.session()))["Notebook"]
    assert uri_in(found).startswith(f"s3://{BUCKET}/smssh/bundles/")
    assert (
        found["Arguments"]["AlgorithmSpecification"]["ContainerEntrypoint"][-1]
        == "amazon_sagemaker_scheduler"
    )


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
    with pytest.raises(SmsshError, match="'Prepares' chooses no step") as caught:
        pipeline.definition()
    assert caught.value.hint == "the steps are Later, Prepare"


def test_some_steps_of_a_list(sdk: SDK) -> None:
    session = sdk.session()
    steps = with_ssh([sdk.processing(session, "A"), sdk.processing(session, "B")], steps="B")
    assert entered(sdk.pipeline(*steps, session=session)) == {"B"}
    with pytest.raises(SmsshError, match="'C' chooses no step"):
        with_ssh(steps, steps="C")


def test_several_pipelines(sdk: SDK) -> None:
    session = sdk.session()
    pipelines = [sdk.pipeline(sdk.processing(session, name), session=session) for name in "AB"]
    with_ssh(pipelines)
    assert [entered(pipeline) for pipeline in pipelines] == [{"A"}, {"B"}]


def test_steps_that_users_subclass(sdk: SDK) -> None:
    from sagemaker.mlops.workflow.steps import ProcessingStep

    class Tagged(ProcessingStep):
        """Adds a tag, and counts."""

        made = 0

        @property
        def arguments(self) -> Any:
            Tagged.made += 1
            return {**super().arguments, "Tags": [{"Key": "team", "Value": "a"}]}

        def to_request(self) -> Any:
            return {**super().to_request(), "Description": f"by {type(self).__name__}"}

    session = sdk.session()
    step = Tagged(name="Mine", step_args=sdk.processing(session).step_args)
    pipeline = sdk.pipeline(step, session=session)
    before = pipeline.definition()
    assert with_ssh(with_ssh(step)) is step
    assert isinstance(step, Tagged)
    found = steps_of(pipeline)["Mine"]
    assert found["Arguments"]["Tags"] == [{"Key": "team", "Value": "a"}]
    assert found["Description"] == "by Tagged"
    assert without_ssh(found) == plain(json.loads(before)["Steps"][0])
    assert Tagged.made == 2


def test_beside_other_decorators(sdk: SDK) -> None:
    session = sdk.session()
    calls = []

    def logged(function: Any) -> Any:
        @functools.wraps(function)
        def logging(*args: Any, **kwargs: Any) -> Any:
            calls.append(function.__name__)
            return function(*args, **kwargs)

        return logging

    class Factory:
        @logged
        @with_ssh(hold="failure")
        @logged
        @functools.cache  # noqa: B019 - one of the decorators that people use
        def make(self, name: str) -> Any:
            return sdk.processing(session, name)

        @staticmethod
        @with_ssh
        def other(name: str) -> Any:
            return sdk.processing(session, name)

    factory = Factory()
    step = factory.make("A")
    assert factory.make("A") is step
    assert entered(sdk.pipeline(step, Factory.other("B"), session=session)) == {"A", "B"}
    assert calls == ["make"] * 4


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


def test_a_switch_in_the_environment(sdk: SDK, monkeypatch: pytest.MonkeyPatch) -> None:
    session = sdk.session()
    pipeline = sdk.pipeline(
        sdk.bare_processing(session, "A"), sdk.bare_processing(session, "B"), session=session
    )
    before = pipeline.definition()
    with_ssh(pipeline.steps[0], enabled="DEBUG_A")
    with_ssh(pipeline, enabled="DEBUG_ALL")
    assert pipeline.definition() == before
    monkeypatch.setenv("DEBUG_ALL", "1")
    assert entered(pipeline) == {"B"}
    monkeypatch.setenv("DEBUG_A", "1")
    assert entered(pipeline) == {"A", "B"}
    monkeypatch.setenv("DEBUG_ALL", "0")
    assert entered(pipeline) == {"A"}
    monkeypatch.delenv("DEBUG_A")
    assert pipeline.definition() == before


def test_a_switch_for_each_execution(sdk: SDK) -> None:
    from sagemaker.core.workflow.parameters import ParameterString

    session = sdk.session()
    debug = ParameterString("Debug", default_value="0", enum_values=["0", "1"])
    steps = every_step(sdk, session)
    pipeline = with_ssh(sdk.pipeline(*steps, session=session, parameters=[debug]), enabled=debug)
    with pytest.warns(SmsshWarning) as record:
        found = steps_of(pipeline)
    (said,) = [str(each.message) for each in record if "enabled is a pipeline parameter" in str(each.message)]
    assert "still has the bundle and what starts it" in said
    for name, step in found.items():
        environment = step["Arguments"].get("PrimaryContainer", step["Arguments"])["Environment"]
        if name == "Model":
            assert "SMSSH_ENABLE" not in environment
        else:
            assert environment["SMSSH_ENABLE"] == {"Get": "Parameters.Debug"}


def test_a_switch_that_the_pipeline_does_not_know(sdk: SDK) -> None:
    from sagemaker.core.workflow.parameters import ParameterString

    session = sdk.session()
    pipeline = with_ssh(
        sdk.pipeline(sdk.processing(session), session=session), enabled=ParameterString("Debug")
    )
    with pytest.raises(SmsshError, match="enabled is the parameter 'Debug', which is none of the pipeline's"):
        pipeline.definition()


def test_variables_reach_steps_that_only_the_definition_shows(sdk: SDK) -> None:
    from sagemaker.core.workflow.parameters import ParameterInteger, ParameterString

    session = sdk.session()

    @function_step(sdk, session, name="First")
    def first() -> str:
        return "x"

    debug, role = ParameterInteger("Debug", default_value=0), ParameterString("Role", default_value=ROLE)
    step = sdk.bare_processing(session, env={"FROM": first()})
    pipeline = sdk.pipeline(step, session=session, parameters=[debug, role])
    for arguments in (
        each["Arguments"] for each in steps_of(with_ssh(pipeline, enabled=debug, role=role)).values()
    ):
        assert arguments["Environment"]["SMSSH_ENABLE"] == {
            "Std:Join": {"On": "", "Values": [{"Get": "Parameters.Debug"}]}
        }
        assert arguments["Environment"]["SMSSH_ROLE"] == {"Get": "Parameters.Role"}


def test_one_step_of_a_pipeline_can_be_left_out(sdk: SDK) -> None:
    session = sdk.session()
    steps = [with_ssh(sdk.processing(session, "A"), enabled=False), sdk.processing(session, "B")]
    found = steps_of(with_ssh(sdk.pipeline(*steps, session=session)))
    assert additions(json.dumps(found["A"])) == []
    assert uri_in(found["B"])


# -------------------------------------------------------------------------------- options


def cached(sdk: SDK, session: Any, name: str = "Cached") -> Any:
    from sagemaker.mlops.workflow.steps import CacheConfig, ProcessingStep

    return ProcessingStep(
        name=name,
        step_args=sdk.bare_processing(session).step_args,
        cache_config=CacheConfig(enable_caching=True, expire_after="P1D"),
    )


CACHING = {"Enabled": True, "ExpireAfter": "P1D"}


def test_caching_is_warned_of(sdk: SDK) -> None:
    session = sdk.session()
    pipeline = with_ssh(sdk.pipeline(cached(sdk, session, "A"), cached(sdk, session, "B"), session=session))
    with pytest.warns(
        SmsshWarning, match=r"^steps 'A' and 'B': step caching is on, and a cache hit starts no"
    ):
        found = steps_of(pipeline)
    assert found["A"]["CacheConfig"] == CACHING


def test_caching_can_be_kept_in_silence(sdk: SDK, recwarn: pytest.WarningsRecorder) -> None:
    session = sdk.session()
    step = steps_of(sdk.pipeline(with_ssh(cached(sdk, session), cache="keep"), session=session))["Cached"]
    assert step["CacheConfig"] == CACHING
    assert not [each for each in recwarn if "caching" in str(each.message)]


def test_caching_can_be_dropped(sdk: SDK, monkeypatch: pytest.MonkeyPatch) -> None:
    session = sdk.session()
    pipeline = sdk.pipeline(cached(sdk, session), session=session)
    before = pipeline.definition()
    with_ssh(pipeline, cache="drop")
    assert "CacheConfig" not in steps_of(pipeline)["Cached"]
    monkeypatch.setenv("SMSSH_ENABLE", "0")
    assert pipeline.definition() == before


def test_caching_of_a_step_that_cannot_be_entered_stays(sdk: SDK) -> None:
    from sagemaker.core.network import NetworkConfig

    session = sdk.session()
    step = cached(sdk, session)
    step.step_args.func_args[0].network_config = NetworkConfig(enable_network_isolation=True)
    pipeline = with_ssh(sdk.pipeline(step, session=session), cache="drop")
    with pytest.warns(SmsshWarning, match="no SSH for step 'Cached'"):
        assert steps_of(pipeline)["Cached"]["CacheConfig"] == CACHING


def test_an_image_with_the_package_gets_no_bundle(sdk: SDK) -> None:
    session = sdk.session()
    step = with_ssh(sdk.bare_processing(session), carrier="baked", hold="failure", owner="ann", hosts=2)
    arguments = steps_of(sdk.pipeline(step, session=session))["Bare"]["Arguments"]
    assert "ProcessingInputs" not in arguments
    keys = arguments["Environment"].pop("SMSSH_AUTHORIZED_KEYS")
    assert keys.startswith("ssh-ed25519 ")
    assert arguments["Environment"] == {
        "SMSSH_ENABLE": "1",
        "SMSSH_ROLE": ROLE,
        "SMSSH_STEP": "Bare",
        "SMSSH_HOLD": "failure",
        "SMSSH_HOSTS": "2",
        "SMSSH_OWNER": "ann",
    }


def test_what_only_a_bundle_can_carry(sdk: SDK) -> None:
    session = sdk.session()
    step = with_ssh(sdk.bare_processing(session), carrier="baked", extra={"mine": 1})
    with pytest.raises(SmsshError, match="'mine' is no setting") as caught:
        sdk.pipeline(step, session=session).definition()
    assert "options.json" in (caught.value.hint or "")
    with pytest.raises(SmsshError, match="carrier is 'baked', without a bundle"):
        SSHOptions(carrier="baked", wheels=("3.11",))


@pytest.mark.parametrize(("name", "wrong"), [("carrier", "pth"), ("cache", "off"), ("hosts", -1)])
def test_options_of_requests_have_limits(name: str, wrong: Any) -> None:
    with pytest.raises(SmsshError, match=f"SSHOptions: {name}"):
        SSHOptions(**{name: wrong})


def test_further_variables(sdk: SDK) -> None:
    from sagemaker.core.workflow.parameters import ParameterString

    session = sdk.session()
    region = ParameterString("Region", default_value="eu-west-1")
    steps = every_step(sdk, session)
    steps[1].step_args.func_args[0].env = {"THEIRS": "kept"}
    pipeline = sdk.pipeline(*steps, session=session, parameters=[region])
    asked = {"REGION": region, "SMSSH_LOG_TO_STDOUT": "1", "THEIRS": "changed"}
    found = steps_of(with_ssh(pipeline, environment=asked))
    for name in ("Prepare", "Train", "Score"):
        environment = found[name]["Arguments"]["Environment"]
        assert environment["REGION"] == {"Get": "Parameters.Region"}
        assert environment["SMSSH_LOG_TO_STDOUT"] == "1"
    assert found["Bare"]["Arguments"]["Environment"]["THEIRS"] == "kept"
    assert "REGION" not in found["Model"]["Arguments"]["PrimaryContainer"]["Environment"]


@pytest.mark.parametrize("wrong", [{"A B": "x"}, {"": "x"}, {1: "x"}, {"A": 1}, {"A": None}])
def test_what_is_no_variable(wrong: Any) -> None:
    with pytest.raises(SmsshError, match="SSHOptions: environment has"):
        SSHOptions(environment=wrong)


def test_the_first_hosts(sdk: SDK, boto_session: boto3.Session) -> None:
    session = sdk.session()
    step = with_ssh(sdk.processing(session), hosts=2)
    bucket, _, key = uri_in(steps_of(sdk.pipeline(step, session=session)))[len("s3://") :].partition("/")
    body = boto_session.client("s3").get_object(Bucket=bucket, Key=key + "options.json")["Body"].read()
    assert json.loads(body)["hosts"] == 2


def test_a_hold_that_the_job_would_not_live_to_see(sdk: SDK) -> None:
    """An hour is what SDK v3 gives a training job."""
    session = sdk.session()
    step = with_ssh(sdk.training(session), hold="failure")
    with pytest.warns(SmsshWarning, match="a hold of up to 14400 s in all may be cut short: .* after 3600 s"):
        sdk.pipeline(step, session=session).definition()


# -------------------------------------------------------------------------------- repacked models


def repacked(sdk: SDK, session: Any, folder: Path) -> tuple[Any, Any]:
    """A step, and the model of what it leaves with a script of its own."""
    from sagemaker.core.training.configs import SourceCode
    from sagemaker.mlops.workflow.model_step import ModelStep
    from sagemaker.serve.model_builder import ModelBuilder

    folder.mkdir()
    (folder / "inference.py").write_text("print('served')\n")
    trained = sdk.script_mode(session)
    builder = ModelBuilder(
        image_uri=IMAGE,
        role_arn=ROLE,
        sagemaker_session=session,
        s3_model_data_url=trained.properties.ModelArtifacts.S3ModelArtifacts,
        model_path=str(folder.with_name("model")),
        source_code=SourceCode(source_dir=str(folder), entry_script="inference.py"),
    )
    return trained, ModelStep(name="Model", step_args=builder.build())


def test_a_repacked_model_brings_the_bundle_in_its_code(sdk: SDK, s3: Any, tmp_path: Path) -> None:
    session = sdk.session()
    trained, model = repacked(sdk, session, tmp_path / "inference")
    score = with_ssh(sdk.transform(session, model.properties.ModelName), repack=True)
    pipeline = sdk.pipeline(trained, *model.steps, model, score, session=session)
    found = steps_of(pipeline)
    container = found["Model"]["Arguments"]["PrimaryContainer"]
    assert "AdditionalModelDataSources" not in container
    assert container["Environment"]["PYTHONPATH"] == "/opt/ml/model/code/smssh"
    (repack,) = [step for name, step in found.items() if "RepackModel" in name]
    channels = {each["ChannelName"]: each for each in repack["Arguments"]["InputDataConfig"]}
    bucket, _, prefix = channels["code"]["DataSource"]["S3DataSource"]["S3Uri"][len("s3://") :].partition("/")
    keys = [each["Key"] for each in s3.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]]
    names = {key[len(prefix) :].lstrip("/") for key in keys}
    assert {"inference.py", "smssh/sitecustomize.py", "smssh/smssh.zip", "smssh/options.json"} <= names
    assert sorted(each.name for each in (tmp_path / "inference").iterdir()) == ["inference.py"]


def test_a_model_that_nobody_repacks(sdk: SDK) -> None:
    session = sdk.session()
    pipeline = sdk.pipeline(with_ssh(sdk.model(session), repack=True), session=session)
    with pytest.raises(
        SmsshError, match="step 'Model': repack=True needs a model that the SDK repacks"
    ) as caught:
        pipeline.definition()
    assert caught.value.reference == "not-repacked"


def test_a_folder_of_the_users_is_not_written_over(sdk: SDK, tmp_path: Path) -> None:
    session = sdk.session()
    trained, model = repacked(sdk, session, tmp_path / "inference")
    staged = Path(model.steps[0]._staged_source_dir)
    (staged / "smssh").mkdir()
    pipeline = sdk.pipeline(trained, *with_ssh([*model.steps, model], repack=True), session=session)
    with pytest.raises(SmsshError, match="smssh is there already") as caught:
        pipeline.definition()
    assert caught.value.reference == "name-taken"


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


def test_whoever_submits_at_once_is_told_of_enable(sdk: SDK) -> None:
    with pytest.raises(SmsshError, match=r"with_ssh can't decorate a sagemaker\.") as caught:
        with_ssh(sdk.trainer(sdk.session()))
    assert "smssh_plugin.enable(session)" in (caught.value.hint or "")


def test_a_list_with_something_else_in_it(sdk: SDK) -> None:
    with pytest.raises(SmsshError, match=r"with_ssh can't decorate a builtins\.list"):
        with_ssh([sdk.processing(sdk.session()), 1])


def test_an_unknown_option() -> None:
    with pytest.raises(SmsshError, match="there is no SSH option 'holds'"):
        with_ssh(holds="failure")


# -------------------------------------------------------------------------------- definitions


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
