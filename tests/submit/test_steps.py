"""Real steps of SageMaker SDK v3, compiled offline: with and without SSH."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

import pytest

from smssh_plugin import SmsshError, SSHOptions, with_ssh
from smssh_plugin.submit.bundle.build import LAUNCHER_FILES
from smssh_plugin.submit.options import SmsshWarning
from smssh_plugin.submit.request.wrapper import WORDS, wrap

from .conftest import BUCKET, IMAGE, ROLE, SDK, steps_of
from .support import (
    additions,
    entered,
    every_step,
    function_step,
    isolated,
    normalised,
    plain,
    uri_in,
    without_ssh,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import boto3

pytestmark = [
    pytest.mark.timeout(300),  # the SDK takes seconds to import, a minute on a busy machine
    pytest.mark.filterwarnings("ignore:Running within a PipelineSession"),
]


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
    entry_point = found["Train"]["AlgorithmSpecification"]["ContainerEntrypoint"]
    digest = found["Train"]["InputDataConfig"][-1]["DataSource"]["S3DataSource"]["S3Uri"].split("/")[-2]
    assert entry_point == wrap(["/bin/bash"], "/opt/ml/input/data/smssh", digest)
    entry_point = found["Prepare"]["AppSpecification"]["ContainerEntrypoint"]
    assert entry_point[: len(WORDS) + 1] == [*WORDS, "/opt/ml/processing/smssh"]
    assert "ContainerEntrypoint" not in found["Script"]["AlgorithmSpecification"]
    assert found["Script"]["Environment"]["PYTHONPATH"] == "/run/smssh/bundle:/opt/ml/input/data/smssh"
    assert found["Bare"]["Environment"]["PYTHONPATH"] == "/run/smssh/bundle:/opt/ml/processing/smssh"
    assert found["Score"]["Environment"] == {"SMSSH_ENABLE": "1", "SMSSH_STEP": "Score"}
    assert found["Model"]["PrimaryContainer"]["Environment"]["SMSSH_ROLE"] == ROLE
    assert {found[name]["Environment"]["SMSSH_STEP"] for name in found if name != "Model"} == set(found) - {
        "Model"
    }


def test_the_bundle_is_where_the_request_says(sdk: SDK, boto_session: boto3.Session) -> None:
    session = sdk.session()
    pipeline = sdk.pipeline(with_ssh(sdk.processing(session)), session=session)
    bucket, _, key = uri_in(steps_of(pipeline)["Prepare"])[len("s3://") :].partition("/")
    assert bucket == BUCKET
    assert key.startswith("smssh/bundles/")
    listed = boto_session.client("s3").list_objects_v2(Bucket=bucket, Prefix=key)["Contents"]
    names = {each["Key"][len(key) :] for each in listed}
    assert names == {*LAUNCHER_FILES, "options.json", "smssh-manifest.json", "smssh.zip"}


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
        assert json.dumps(step).count(WORDS[0]) <= 1


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
        "SMSSH_BUNDLE": "/opt/ml/processing/smssh",
        "PYTHONPATH": "/run/smssh/bundle:/opt/ml/processing/smssh",
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
    pipeline = sdk.pipeline(
        with_ssh(step), session=session, parameters=[step.step_args.func_args[0].model_name]
    )
    with pytest.warns(SmsshWarning, match="step 'Score': its model was not seen to get SSH"):
        assert entered(pipeline) == {"Score"}


def test_a_model_that_is_left_out_has_no_ssh(sdk: SDK) -> None:
    session = sdk.session()
    model = with_ssh(sdk.model(session), enabled=False)
    pipeline = sdk.pipeline(
        model, with_ssh(sdk.transform(session, model.properties.ModelName)), session=session
    )
    with pytest.warns(
        SmsshWarning, match="no SSH for step 'Score': its model, which would bring our files, is"
    ):
        assert entered(pipeline) == set()


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


def test_a_function_that_is_a_step(sdk: SDK) -> None:
    session = sdk.session()

    @with_ssh
    @function_step(sdk, session, name="Function")
    def double(number: int) -> int:
        return 2 * number

    found = steps_of(sdk.pipeline(double(2), session=session))
    arguments = found["Function"]["Arguments"]
    assert arguments["AlgorithmSpecification"]["ContainerEntrypoint"][: len(WORDS) + 1] == [
        *WORDS,
        "/opt/ml/input/data/smssh",
    ]
    assert "/bin/bash" in arguments["AlgorithmSpecification"]["ContainerEntrypoint"]
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


def test_some_steps_of_a_list(sdk: SDK) -> None:
    session = sdk.session()
    steps = with_ssh([sdk.processing(session, "A"), sdk.processing(session, "B")], steps="B")
    assert entered(sdk.pipeline(*steps, session=session)) == {"B"}
    with pytest.raises(SmsshError, match="'C' matches no step"):
        with_ssh(steps, steps="C")


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


def test_a_bucket_prefix_of_the_session_is_honoured(sdk: SDK) -> None:
    session = sdk.new_session(default_bucket_prefix="team/one")
    step = steps_of(sdk.pipeline(with_ssh(sdk.processing(session)), session=session))["Prepare"]
    assert uri_in(step).startswith(f"s3://{BUCKET}/team/one/smssh/bundles/")


# -------------------------------------------------------------------------------- trouble


def test_a_named_step_that_cannot_be_entered_is_an_error(sdk: SDK) -> None:
    session = sdk.session()
    pipeline = sdk.pipeline(with_ssh(isolated(sdk, session)), session=session)
    with pytest.raises(SmsshError, match=r"^step 'Isolated': NetworkConfig\.EnableNetworkIsolation is on"):
        pipeline.definition()


def test_a_bucket_that_is_not_there(sdk: SDK) -> None:
    session = sdk.session()
    step = with_ssh(sdk.processing(session), bundle_prefix="s3://nobody-has-this/deep/prefix")
    with pytest.raises(SmsshError) as caught:
        sdk.pipeline(step, session=session).definition()
    assert caught.value.message == "there is no bucket nobody-has-this to store the bundle in"
    assert caught.value.hint


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


def test_several_steps_without_a_container(sdk: SDK) -> None:
    """Beside others they are passed over; alone, nothing would be left to enter, and nobody told."""
    from sagemaker.mlops.workflow.fail_step import FailStep

    session = sdk.session()
    stops = [FailStep(name=name, error_message="stop") for name in ("Stop", "Halt")]
    with pytest.raises(SmsshError, match="step 'Stop' is of type Fail") as caught:
        with_ssh(stops)
    assert caught.value.reference == "step-type"
    steps = with_ssh([*stops, sdk.processing(session)])
    assert entered(sdk.pipeline(*steps, session=session)) == {"Prepare"}


def test_a_person_who_submits_at_once_is_told_of_enable(sdk: SDK) -> None:
    with pytest.raises(SmsshError, match=r"with_ssh can't decorate a sagemaker\.") as caught:
        with_ssh(sdk.trainer(sdk.session()))
    assert "smssh_plugin.enable(session)" in (caught.value.hint or "")


def test_a_list_with_something_else_in_it(sdk: SDK) -> None:
    with pytest.raises(SmsshError, match=r"with_ssh can't decorate a builtins\.list"):
        with_ssh([sdk.processing(sdk.session()), 1])


def test_an_unknown_option() -> None:
    with pytest.raises(SmsshError, match="there is no SSH option 'holds'"):
        with_ssh(holds="failure")
    with pytest.raises(SmsshError, match="there is no SSH option 'strict'") as caught:
        with_ssh(strict=True)
    assert caught.value.hint == "set it with SSHOptions(extra={'strict': ...})"
    with_ssh(extra={"strict": True})
