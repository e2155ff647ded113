"""Which models are changed, by which way, and what becomes of the transform steps that use them."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import tarfile
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from botocore.validate import ParamValidator

from smssh_plugin import SmsshError, SSHOptions, with_ssh
from smssh_plugin.submit.options import SmsshWarning
from smssh_plugin.submit.pipelines import inject_definition
from smssh_plugin.submit.repack_step import SCRIPT
from smssh_plugin.submit.selection import Selection

from .conftest import BUCKET, ROLE, SDK, steps_of
from .support import entered, isolated, uri_in
from .test_step_options import repacked

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [
    pytest.mark.timeout(300),  # the SDK takes seconds to import, a minute on a busy machine
    pytest.mark.filterwarnings("ignore:Running within a PipelineSession"),
]

PLACE = f"s3://{BUCKET}/smssh/bundles"
UNPROVEN = "the bundle is one of the model's AdditionalModelDataSources, which AWS does not document for"


class Level:
    """Where a pipeline gets SSH: in the SDK, or as a definition that `enable` meets in CreatePipeline."""

    def __init__(self, name: str, boto_session: Any) -> None:
        self.name = name
        self._session = boto_session

    def compiled(
        self, pipeline: Any, steps: Any = None, **asked: Any
    ) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
        """The steps before and after, by name, and what was warned of."""
        before = steps_of(pipeline)
        with warnings.catch_warnings(record=True) as record:
            warnings.simplefilter("always")
            if self.name == "sdk":
                after = steps_of(with_ssh(pipeline, steps=steps, **asked))
            else:
                given = json.loads(pipeline.definition())
                kept = copy.deepcopy(given)
                options = SSHOptions(**{"bundle_prefix": PLACE, **asked})
                changed = inject_definition(given, options, Selection(steps), lambda: self._session)
                assert given == kept
                after = {each["Name"]: each for each in changed["Steps"]}
        said = [str(each.message) for each in record if issubclass(each.category, SmsshWarning)]
        return before, after, said


@pytest.fixture(params=["sdk", "definition"])
def level(request: pytest.FixtureRequest, boto_session: Any) -> Level:
    return Level(request.param, boto_session)


def scoring(
    sdk: SDK, change: Callable[[Any], None] = lambda request: None, *, model_last: bool = False
) -> Any:
    """A pipeline of a model and a transform step, with the model's request changed."""
    session = sdk.session()
    model = sdk.model(session)
    change(model.step_args.create_model_request)
    steps = [model, sdk.transform(session, model.properties.ModelName)]
    return sdk.pipeline(*(reversed(steps) if model_last else steps), session=session)


def several(request: Any) -> None:
    """As PipelineModel of SDK v2 makes it."""
    container = request.pop("PrimaryContainer")
    request["Containers"] = [container, dict(container)]


def isolate(request: Any) -> None:
    request["EnableNetworkIsolation"] = True


# -------------------------------------------------------------------------------- which models


@pytest.mark.parametrize("isolated_too", [False, True])
@pytest.mark.parametrize("steps", [None, "*", "Production, *"])
def test_a_model_that_no_transform_step_uses_is_left_alone(
    sdk: SDK, level: Level, isolated_too: bool, steps: str | None
) -> None:
    """Also where it could not have SSH: nobody asked, so nothing is said."""
    from sagemaker.core.workflow.conditions import ConditionEquals
    from sagemaker.mlops.workflow.condition_step import ConditionStep

    session = sdk.session()
    model = sdk.model(session, "Release")
    if isolated_too:
        isolate(model.step_args.create_model_request)
    condition = ConditionStep(
        name="Production", conditions=[ConditionEquals(left="a", right="a")], if_steps=[model], else_steps=[]
    )
    pipeline = sdk.pipeline(sdk.script_mode(session), condition, session=session)
    before, after, said = level.compiled(pipeline, steps)
    assert after["Production"] == before["Production"]
    assert uri_in(after["Script"])
    assert not [text for text in said if "Release" in text or "model" in text]


@pytest.mark.parametrize(
    ("steps", "asked"),
    [("Model", {}), ("Mod*", {}), ("model", {}), (["*", "model"], {}), (None, {"endpoints": True})],
)
def test_a_model_that_was_named_is_changed(sdk: SDK, level: Level, steps: Any, asked: dict[str, Any]) -> None:
    session = sdk.session()
    pipeline = sdk.pipeline(sdk.model(session), session=session)
    _, after, said = level.compiled(pipeline, steps, **asked)
    assert uri_in(after["Model"])
    # Endpoints are what the way is documented for.
    assert bool([text for text in said if text.startswith(f"step 'Model': {UNPROVEN}")]) is not bool(asked)


def test_a_model_that_was_decorated_by_itself_is_changed(sdk: SDK) -> None:
    session = sdk.session()
    with pytest.warns(SmsshWarning, match=UNPROVEN):
        assert entered(sdk.pipeline(with_ssh(sdk.model(session)), session=session)) == {"Model"}


def test_a_model_in_a_condition_that_was_decorated_is_not_named(sdk: SDK) -> None:
    from sagemaker.core.workflow.conditions import ConditionEquals
    from sagemaker.mlops.workflow.condition_step import ConditionStep

    session = sdk.session()
    inner = [sdk.model(session), sdk.script_mode(session), isolated(sdk, session)]
    condition = ConditionStep(
        name="If", conditions=[ConditionEquals(left="a", right="a")], if_steps=inner, else_steps=[]
    )
    pipeline = sdk.pipeline(with_ssh(condition), session=session)
    with pytest.warns(SmsshWarning, match="no SSH for step 'Isolated'"):
        assert entered(pipeline) == {"If", "Script"}


@pytest.mark.parametrize("later", ["Score", "transform", None])
def test_a_choice_that_is_off_keeps_its_models(sdk: SDK, later: str | None) -> None:
    pipeline = scoring(sdk)
    before = pipeline.definition()
    with_ssh(pipeline, steps="Model", enabled=False)
    with_ssh(pipeline, steps=later)
    with pytest.warns(SmsshWarning, match="no SSH for step 'Score' of pipeline 'pipe': its model, which"):
        assert pipeline.definition() == before


def test_a_model_that_was_chosen_first_keeps_its_options(sdk: SDK, s3: Any) -> None:
    pipeline = scoring(sdk, model_last=True)
    with_ssh(pipeline, steps="M*", hold="failure")
    with_ssh(pipeline, steps="Score", hold="end")
    found = steps_of(pipeline)
    assert found["Score"]["Arguments"]["Environment"]["SMSSH_HOLD"] == "end"
    bucket, _, key = uri_in(found["Model"])[len("s3://") :].partition("/")
    document = json.loads(s3.get_object(Bucket=bucket, Key=f"{key}options.json")["Body"].read())
    assert document["hold"] == "failure"


# -------------------------------------------------------------------------------- refused with the model


REFUSED: list[Any] = [
    pytest.param(several, {}, "Containers has 2 entries", "SSHOptions(endpoints=True)", id="several"),
    pytest.param(isolate, {}, "EnableNetworkIsolation is on", "turn network isolation off", id="isolated"),
]


@pytest.mark.parametrize("model_last", [False, True])
@pytest.mark.parametrize(("change", "asked", "reason", "hint"), REFUSED)
def test_a_transform_step_whose_model_cannot_have_ssh_is_left_alone(
    sdk: SDK, level: Level, model_last: bool, change: Any, asked: dict[str, Any], reason: str, hint: str
) -> None:
    before, after, said = level.compiled(scoring(sdk, change, model_last=model_last), "Score", **asked)
    assert after == before
    (text,) = said
    assert text.startswith("no SSH for step 'Score'")
    assert f": its model can't have SSH: {reason}" in text
    assert hint in text


@pytest.mark.parametrize("model_last", [False, True])
@pytest.mark.parametrize(("change", "asked", "reason", "hint"), REFUSED)
def test_a_decorated_transform_step_whose_model_cannot_have_ssh_is_an_error(
    sdk: SDK, model_last: bool, change: Any, asked: dict[str, Any], reason: str, hint: str
) -> None:
    pipeline = scoring(sdk, change, model_last=model_last)
    with_ssh(next(step for step in pipeline.steps if step.name == "Score"), **asked)
    with pytest.raises(SmsshError) as caught:
        pipeline.definition()
    assert reason in caught.value.message
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("model_last", [False, True])
@pytest.mark.parametrize("repack", [None, False])
def test_a_transform_step_that_cannot_have_ssh_leaves_its_model_alone(
    sdk: SDK, level: Level, model_last: bool, repack: bool | None
) -> None:
    pipeline = scoring(sdk, model_last=model_last)
    score = next(step for step in pipeline.steps if step.name == "Score")
    score.step_args.func_args[0].env = {f"MINE_{number}": "x" for number in range(15)}
    before, after, said = level.compiled(pipeline, "Score", repack=repack)
    assert after == before
    (text,) = said
    assert text.startswith("no SSH for step 'Score'")
    assert "Environment has 15 entries and SSH adds 2; SageMaker takes 16; take 1 out" in text


def test_what_is_found_out_late_is_forgotten_where_it_was_wrong(sdk: SDK) -> None:
    """The model is compiled first, and again when the transform step turned out not to be enterable."""
    pipeline = scoring(sdk)
    score = next(step for step in pipeline.steps if step.name == "Score")
    score.step_args.func_args[0].env = {f"MINE_{number}": "x" for number in range(15)}
    before = pipeline.definition()
    with_ssh(pipeline, steps="Score")
    for said in (1, 0):
        with warnings.catch_warnings(record=True) as record:
            warnings.simplefilter("always")
            assert pipeline.definition() == before
        assert len([each for each in record if each.category is SmsshWarning]) == said
    del score.step_args.func_args[0].env["MINE_0"]
    assert entered(pipeline) == {"Model", "Score"}


# -------------------------------------------------------------------------------- by which way


@pytest.mark.parametrize("steps", [None, "*", ["*", "training"]])
def test_nothing_unproven_is_tried_for_what_nobody_named(sdk: SDK, level: Level, steps: Any) -> None:
    session = sdk.session()
    model = sdk.model(session)
    scores = [sdk.transform(session, model.properties.ModelName, name) for name in ("First", "Second")]
    pipeline = sdk.pipeline(sdk.script_mode(session), model, *scores, session=session)
    before, after, said = level.compiled(pipeline, steps)
    assert {name for name in before if after[name] != before[name]} == {"Script"}
    (text,) = [each for each in said if "no SSH for" in each]
    assert text.startswith("no SSH for steps 'First' and 'Second'")
    assert "AWS does not document AdditionalModelDataSources for batch transform" in text
    assert "steps=..." in text
    assert "launcher='baked'" in text


@pytest.mark.parametrize("steps", ["Score", "S*", "transform", "Model", ["*", "model"]])
def test_what_somebody_named_is_tried_with_a_warning(sdk: SDK, level: Level, steps: Any) -> None:
    pipeline = scoring(sdk)
    _, after, said = level.compiled(pipeline, steps)
    assert uri_in(after["Model"])
    if steps != "Model":
        assert after["Score"]["Arguments"]["Environment"] == {"SMSSH_ENABLE": "1", "SMSSH_STEP": "Score"}
    assert len([text for text in said if UNPROVEN in text]) == 1


def test_an_image_that_has_the_package_needs_no_way(sdk: SDK, level: Level) -> None:
    _, after, said = level.compiled(scoring(sdk), launcher="baked")
    assert after["Model"]["Arguments"]["PrimaryContainer"]["Environment"]["SMSSH_ROLE"] == ROLE
    assert "AdditionalModelDataSources" not in after["Model"]["Arguments"]["PrimaryContainer"]
    assert after["Score"]["Arguments"]["Environment"]["SMSSH_ENABLE"] == "1"
    assert said == []


@pytest.mark.parametrize("whole", [True, False])
def test_what_the_sdk_repacks_is_repacked_with_the_bundle(sdk: SDK, tmp_path: Path, whole: bool) -> None:
    """Its repacking is proven: no option is needed, and nobody has to name anything."""
    session = sdk.session()
    trained, model = repacked(sdk, session, tmp_path / "inference")
    score = sdk.transform(session, model.properties.ModelName)
    pipeline = sdk.pipeline(trained, *model.steps, model, score, session=session)
    with_ssh(pipeline if whole else score)
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        found = steps_of(pipeline)
    container = found["Model"]["Arguments"]["PrimaryContainer"]
    assert "AdditionalModelDataSources" not in container
    assert container["Environment"]["SMSSH_BUNDLE"] == "/opt/ml/model/code/smssh"
    assert found["Score"]["Arguments"]["Environment"]["SMSSH_ENABLE"] == "1"
    assert not [each for each in record if UNPROVEN in str(each.message)]
    # The job that repacks is entered as a step of the pipeline, and not because it repacks.
    (repack,) = [step for name, step in found.items() if "RepackModel" in name]
    assert ("SMSSH_ENABLE" in json.dumps(repack)) is whole


def test_repacking_can_be_left_out(sdk: SDK, tmp_path: Path) -> None:
    session = sdk.session()
    trained, model = repacked(sdk, session, tmp_path / "inference")
    score = with_ssh(sdk.transform(session, model.properties.ModelName), repack=False)
    found = steps_of(sdk.pipeline(trained, *model.steps, model, score, session=session))
    assert uri_in(found["Model"])


def test_a_model_that_was_repacked_is_not_given_the_bundle_twice(
    sdk: SDK, boto_session: Any, tmp_path: Path
) -> None:
    """By `enable`, which meets the definition that `with_ssh` has made."""
    session = sdk.session()
    trained, model = repacked(sdk, session, tmp_path / "inference")
    score = sdk.transform(session, model.properties.ModelName)
    steps = [trained, *model.steps, model, with_ssh(score)]
    once = json.loads(sdk.pipeline(*steps, session=session).definition())
    chosen = Selection(["transform", "model"])
    for options in (SSHOptions(bundle_prefix=PLACE), SSHOptions(bundle_prefix=PLACE, endpoints=True)):
        assert inject_definition(once, options, chosen, lambda: boto_session) is once


# -------------------------------------------------------------------------------- a step of our own that repacks


@pytest.mark.parametrize("model_last", [False, True])
def test_a_step_that_repacks_is_added_on_request(sdk: SDK, level: Level, model_last: bool) -> None:
    """As the SDK's: the artefact goes in, and one with the bundle comes out, which the model is made from."""

    def change(request: Any) -> None:
        request["VpcConfig"] = {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}

    before, after, said = level.compiled(scoring(sdk, change, model_last=model_last), repack=True)
    name = "Model-RepackWithSSH"
    expected = ["Score", name, "Model"] if model_last else [name, "Model", "Score"]
    assert list(after) == expected
    made, container = after[name]["Arguments"], after["Model"]["Arguments"]["PrimaryContainer"]
    given = before["Model"]["Arguments"]["PrimaryContainer"]
    assert container["ModelDataUrl"] == {"Get": f"Steps.{name}.ModelArtifacts.S3ModelArtifacts"}
    assert container["Environment"]["SMSSH_BUNDLE"] == "/opt/ml/model/code/smssh"
    assert "AdditionalModelDataSources" not in container
    channels = {
        each["ChannelName"]: each["DataSource"]["S3DataSource"]["S3Uri"] for each in made["InputDataConfig"]
    }
    assert channels == {"artefact": given["ModelDataUrl"], "smssh": uri_in(after[name])}
    assert made["AlgorithmSpecification"]["TrainingImage"] == given["Image"]
    assert made["RoleArn"] == ROLE
    assert made["VpcConfig"] == {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
    assert made["OutputDataConfig"]["S3OutputPath"] == f"s3://{BUCKET}/smssh/bundles/repacked/"
    assert "SMSSH_ENABLE" not in json.dumps(after[name])
    assert after["Score"]["Arguments"]["Environment"]["SMSSH_ENABLE"] == "1"
    assert not [text for text in said if UNPROVEN in text or "no SSH" in text]
    items = made["AlgorithmSpecification"]
    assert all(len(each) <= 256 for each in items["ContainerEntrypoint"] + items["ContainerArguments"])


def test_the_request_of_the_step_that_repacks_is_one_that_boto3_takes(sdk: SDK, boto_session: Any) -> None:
    found = steps_of(with_ssh(scoring(sdk), repack=True))["Model-RepackWithSSH"]["Arguments"]
    client = boto_session.client("sagemaker")
    shape = client.meta.service_model.operation_model("CreateTrainingJob").input_shape
    report = ParamValidator().validate({"TrainingJobName": "t", **found}, shape)
    assert not report.has_errors(), report.generate_report()


def test_a_step_that_repacks_is_added_once(sdk: SDK, boto_session: Any) -> None:
    pipeline = with_ssh(scoring(sdk), repack=True)
    once = json.loads(pipeline.definition())
    assert json.loads(pipeline.definition()) == once
    options = SSHOptions(bundle_prefix=PLACE, repack=True)
    assert inject_definition(once, options, Selection(["*", "model"]), lambda: boto_session) is once


def test_a_step_that_repacks_is_off_with_the_rest(sdk: SDK, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = scoring(sdk)
    before = pipeline.definition()
    with_ssh(pipeline, repack=True)
    monkeypatch.setenv("SMSSH_ENABLE", "0")
    assert pipeline.definition() == before


def test_a_step_that_repacks_stays_in_its_condition(sdk: SDK) -> None:
    from sagemaker.core.workflow.conditions import ConditionEquals
    from sagemaker.mlops.workflow.condition_step import ConditionStep

    session = sdk.session()
    first = sdk.script_mode(session)
    model = sdk.model(session)
    model.add_depends_on([first])
    score = sdk.transform(session, model.properties.ModelName)
    condition = ConditionStep(
        name="If",
        conditions=[ConditionEquals(left="a", right="a")],
        if_steps=[model, score],
        else_steps=[sdk.model(session, "Other")],
    )
    pipeline = with_ssh(sdk.pipeline(first, condition, session=session), steps="Score", repack=True)
    found = steps_of(pipeline)
    inner = found["If"]["Arguments"]
    assert [each["Name"] for each in inner["IfSteps"]] == ["Model-RepackWithSSH", "Model", "Score"]
    assert [each["Name"] for each in inner["ElseSteps"]] == ["Other"]
    assert found["Model-RepackWithSSH"]["DependsOn"] == found["Model"]["DependsOn"] == ["Script"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (several, "Containers has 2 entries|it has 2 containers"),
        (isolate, "EnableNetworkIsolation is on"),
        (lambda request: request["PrimaryContainer"].pop("ModelDataUrl"), "it has no ModelDataUrl"),
        (
            lambda request: request["PrimaryContainer"].update(Image="gcr.io/distroless/base"),
            "has no /bin/sh",
        ),
    ],
)
def test_what_no_step_can_repack(sdk: SDK, level: Level, change: Any, reason: str) -> None:
    """The transform step goes without for the same reason."""
    before, after, said = level.compiled(scoring(sdk, change), "Score", repack=True)
    assert after == before
    (text,) = said
    assert text.startswith("no SSH for step 'Score'")
    assert re.search(reason, text)


@pytest.mark.parametrize("name", ["model.tar.gz", "mine.tar.gz"])
@pytest.mark.parametrize("inside", ["", "ours", "theirs"])
def test_what_the_step_that_repacks_does(tmp_path: Path, name: str, inside: str) -> None:
    """The script itself, in other folders."""
    content = tmp_path / "content"
    (content / "code").mkdir(parents=True)
    (content / "weights.bin").write_text("weights")
    (content / "code" / "inference.py").write_text("serve")
    if inside:
        (content / "code" / "smssh").mkdir()
        old = "smssh-manifest.json" if inside == "ours" else "mine.py"
        (content / "code" / "smssh" / old).write_text("old")
    data = tmp_path / "ml" / "input" / "data"
    (data / "artefact").mkdir(parents=True)
    with tarfile.open(data / "artefact" / name, "w:gz") as archive:
        archive.add(content, ".")
    (data / "smssh").mkdir()
    (data / "smssh" / "sitecustomize.py").write_text("new")
    script = SCRIPT.replace("/opt/ml", str(tmp_path / "ml"))
    done = subprocess.run(["/bin/sh", "-e", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode == 0) is (inside != "theirs"), done.stderr
    model = tmp_path / "ml" / "model"
    if inside == "theirs":
        assert (model / "code" / "smssh" / "mine.py").read_text() == "old"
        return
    found = {str(each.relative_to(model)) for each in model.rglob("*") if each.is_file()}
    assert found == {"weights.bin", "code/inference.py", "code/smssh/sitecustomize.py"}


# -------------------------------------------------------------------------------- models from elsewhere


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "its model was not seen to get SSH: unless it was made with SSH, the job can't be entered"),
        ({"launcher": "baked"}, "its model was not seen to get SSH, which would say by SMSSH_ROLE what role"),
        ({"launcher": "baked", "role": ROLE}, None),
        ({"launcher": "baked", "transport": "none"}, None),
    ],
)
def test_a_model_from_elsewhere(sdk: SDK, level: Level, asked: dict[str, Any], said: str | None) -> None:
    """Who has the package in the image is not told to put it there."""
    from sagemaker.core.workflow.parameters import ParameterString

    session, name = sdk.session(), ParameterString("ModelName", default_value="m")
    pipeline = sdk.pipeline(sdk.transform(session, name), session=session, parameters=[name])
    _, after, found = level.compiled(pipeline, **asked)
    assert after["Score"]["Arguments"]["Environment"]["SMSSH_ENABLE"] == "1"
    texts = [text for text in found if "its model was not seen" in text]
    assert len(texts) == (said is not None)
    assert all(said is not None and said in text for text in texts)


def test_a_baked_transform_step_has_the_role_of_a_model_that_is_left_out(sdk: SDK) -> None:
    pipeline = scoring(sdk)
    with_ssh(pipeline, steps="Model", enabled=False)
    found = steps_of(with_ssh(pipeline, launcher="baked"))
    assert found["Score"]["Arguments"]["Environment"]["SMSSH_ROLE"] == ROLE
    assert "SMSSH" not in json.dumps(found["Model"])


def test_a_baked_transform_step_has_no_need_of_files_in_its_model(sdk: SDK) -> None:
    """The model was chosen with other options, and from a package, to which no files can be added."""
    pipeline = scoring(sdk, lambda request: request["PrimaryContainer"].update(ModelPackageName="p"))
    with_ssh(pipeline, steps="*", launcher="baked")
    found = steps_of(pipeline)
    assert found["Score"]["Arguments"]["Environment"]["SMSSH_ROLE"] == ROLE
    assert "SMSSH" not in json.dumps(found["Model"])
