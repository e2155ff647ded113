"""Options that are about requests: the switch, caching, the launcher, repacked models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from smssh_plugin import SmsshError, SSHOptions, with_ssh
from smssh_plugin.submit import inject
from smssh_plugin.submit.bundle import publish
from smssh_plugin.submit.bundle.agent import Agent
from smssh_plugin.submit.options import SmsshWarning

from .conftest import IMAGE, KEY, ROLE, SDK, steps_of
from .support import (
    additions,
    entered,
    every_step,
    function_step,
    uri_in,
)

if TYPE_CHECKING:
    import boto3

pytestmark = [
    pytest.mark.timeout(300),  # the SDK takes seconds to import, a minute on a busy machine
    pytest.mark.filterwarnings("ignore:Running within a PipelineSession"),
]


# -------------------------------------------------------------------------------- the switch


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
    pipeline = sdk.pipeline(*steps, session=session, parameters=[debug])
    with_ssh(pipeline, steps=["*", "transform"], enabled=debug)
    with pytest.warns(SmsshWarning) as record:
        found = steps_of(pipeline)
    (said,) = [str(each.message) for each in record if "enabled is a pipeline parameter" in str(each.message)]
    assert "still has the bundle and what starts it" in said
    assert "'Score'" in said
    assert "'Model'" not in said
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
    with pytest.raises(
        SmsshError, match="enabled is the parameter 'Debug', which the pipeline does not declare"
    ):
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


# -------------------------------------------------------------------------------- caching, launchers, hosts


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
    step = with_ssh(sdk.bare_processing(session), hold="failure", owner="ann", hosts=2, launcher="baked")
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


def test_one_step_of_a_baked_pipeline_has_another_image(sdk: SDK) -> None:
    session, shared = sdk.session(), SSHOptions(launcher="baked", hold=("failure",))
    other = with_ssh(sdk.bare_processing(session, "Other"), shared, launcher="auto")
    pipeline = with_ssh(sdk.pipeline(other, sdk.bare_processing(session, "Baked"), session=session), shared)
    found = steps_of(pipeline)
    assert uri_in(found["Other"])
    assert "SMSSH_HOLD" not in found["Other"]["Arguments"]["Environment"]
    assert found["Baked"]["Arguments"]["Environment"]["SMSSH_HOLD"] == "failure"
    assert "ProcessingInputs" not in found["Baked"]["Arguments"]


def test_more_keys_than_a_variable_takes(sdk: SDK) -> None:
    session = sdk.session()
    step = with_ssh(
        sdk.bare_processing(session), launcher="baked", authorized_keys="ssh-rsa AAAA" + "B" * 300 + " ann"
    )
    with pytest.raises(SmsshError, match=r"step 'Bare': .*SMSSH_AUTHORIZED_KEYS .* takes 256") as caught:
        sdk.pipeline(step, session=session).definition()
    assert "ssm:PARAMETER" in (caught.value.hint or "")
    step = with_ssh(sdk.bare_processing(session), launcher="baked", authorized_keys="ssm:/team/keys")
    arguments = steps_of(sdk.pipeline(step, session=session))["Bare"]["Arguments"]
    assert arguments["Environment"]["SMSSH_AUTHORIZED_KEYS"].endswith("\nssm:/team/keys")


def test_what_only_a_bundle_can_carry() -> None:
    with pytest.raises(SmsshError, match="extra has 'mine', which only a bundle can carry"):
        SSHOptions(launcher="baked", extra={"mine": 1})
    with pytest.raises(SmsshError, match="wheels asks for a bundle"):
        SSHOptions(launcher="baked", wheels=("3.11",))


@pytest.mark.parametrize(("name", "wrong"), [("launcher", "pth"), ("cache", "off"), ("hosts", -1)])
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
    found = steps_of(with_ssh(pipeline, steps=["*", "transform"], environment=asked))
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
    steps = [with_ssh(sdk.training(session, name), hold="failure") for name in "AB"]
    with pytest.warns(SmsshWarning) as record:
        sdk.pipeline(*steps, session=session).definition()
    first, second = [str(each.message) for each in record if "a hold" in str(each.message)]
    assert first.startswith(
        "step 'A': a hold of up to 14400 s in all may be cut short: StoppingCondition.Max"
    )
    assert "ends the job 3600 s after its start" in first
    assert second == "step 'B': a hold of up to 14400 s in all may be cut short"


def test_an_image_is_said_to_be_doubtful_once(sdk: SDK) -> None:
    """And not of each step that runs in it."""
    session = sdk.session()
    steps = [with_ssh(sdk.bare_processing(session, name)) for name in "AB"]
    with pytest.warns(SmsshWarning) as record:
        sdk.pipeline(*steps, session=session).definition()
    (said,) = [str(each.message) for each in record if issubclass(each.category, SmsshWarning)]
    assert said.startswith("step 'A': PYTHONPATH is set for SSH and takes the place of the image's own; ")
    assert f"if {IMAGE} has one" in said


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
    assert container["Environment"]["PYTHONPATH"] == "/run/smssh/bundle:/opt/ml/model/code/smssh"
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
    assert "with_ssh(pipeline, steps=..., repack=True)" in (caught.value.hint or "")


def test_a_bundle_that_was_taken_away(sdk: SDK, s3: Any, tmp_path: Path) -> None:
    session = sdk.session()
    trained, model = repacked(sdk, session, tmp_path / "inference")
    options = SSHOptions(repack=True, owner="taken-away")
    pipeline = sdk.pipeline(trained, *with_ssh([*model.steps, model], options), session=session)
    bucket, _, prefix = publish.publish(options, session)[len("s3://") :].partition("/")
    for each in s3.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]:
        s3.delete_object(Bucket=bucket, Key=each["Key"])
    with pytest.raises(SmsshError, match="can't be read: it is gone") as caught:
        pipeline.definition()
    assert caught.value.reference == "bundle-not-readable"
    assert list((tmp_path / "inference").iterdir()) == [tmp_path / "inference" / "inference.py"]


def test_a_folder_of_the_users_is_not_written_over(sdk: SDK, tmp_path: Path) -> None:
    session = sdk.session()
    trained, model = repacked(sdk, session, tmp_path / "inference")
    staged = Path(model.steps[0]._staged_source_dir)
    (staged / "smssh").mkdir()
    pipeline = sdk.pipeline(trained, *with_ssh([*model.steps, model], repack=True), session=session)
    with pytest.raises(SmsshError, match="smssh is there already") as caught:
        pipeline.definition()
    assert caught.value.reference == "name-taken"


# -------------------------------------------------------------------------------- transform steps and their models


def scored(sdk: SDK, model_options: SSHOptions, **asked: Any) -> dict[str, str]:
    """Our variables of a transform job whose model was decorated first; the switch and the step's name left out."""
    session = sdk.session()
    model = with_ssh(sdk.model(session), model_options)
    score = with_ssh(sdk.transform(session, model.properties.ModelName), **asked)
    arguments = steps_of(sdk.pipeline(model, score, session=session))["Score"]["Arguments"]
    environment: dict[str, str] = arguments["Environment"]
    assert (environment.pop("SMSSH_ENABLE"), environment.pop("SMSSH_STEP")) == ("1", "Score")
    return environment


MODELS = SSHOptions(hold=("failure",), hosts=2, transport="none", extra={"mine": 1})


@pytest.mark.parametrize(
    ("asked", "variables"),
    [
        ({}, {}),
        ({"hold": "failure", "hosts": 2, "transport": "none", "extra": {"mine": 1}}, {}),
        ({"hold": "failure,end", "wait": "ready"}, {"SMSSH_HOLD": "failure,end", "SMSSH_WAIT": "ready"}),
        ({"hosts": 0, "extra": {"strict": True}}, {"SMSSH_HOSTS": "0", "SMSSH_STRICT": "1"}),
        ({"authorized_keys": "ssh-rsa AAAAann"}, {"SMSSH_AUTHORIZED_KEYS": f"{KEY}\nssh-rsa AAAAann"}),
        ({"agent": "found", "owner": "ann"}, {"SMSSH_AGENT": "found", "SMSSH_OWNER": "ann"}),
        # No variable can bring files, nor what only hooks of somebody's read.
        ({"agent": "bundle", "wheels": "3.11", "extra": {"mine": 2}}, {}),
    ],
)
def test_a_transform_step_keeps_its_own_options(
    sdk: SDK, asked: dict[str, Any], variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMSSH_OWNER", "whoever submits")
    assert scored(sdk, MODELS, **asked) == variables


def test_a_transform_step_pins_another_agent_than_its_model(
    sdk: SDK, monkeypatch: pytest.MonkeyPatch
) -> None:
    def agent_for(options: SSHOptions, *_: Any) -> Agent:
        return Agent(
            {"agent_version": options.agent_version or "1.1.1.1", "agent_sha256": {"x86_64": "a" * 64}}
        )

    for module in (publish, inject):
        monkeypatch.setattr(module, "agent_for", agent_for)
    pinned = {"SMSSH_AGENT_VERSION": "3.3.1.0", "SMSSH_AGENT_SHA256": f"x86_64={'a' * 64}"}
    assert scored(sdk, SSHOptions(), agent_version="3.3.1.0") == pinned
    assert scored(sdk, SSHOptions(agent_version="3.3.1.0"), agent_version="3.3.1.0") == {}
    assert scored(sdk, SSHOptions(agent_version="3.3.1.0")) == {}


def test_what_a_transform_step_asks_for_is_said_where_its_model_is_not_seen(sdk: SDK) -> None:
    from sagemaker.core.workflow.parameters import ParameterString

    session, model = sdk.session(), ParameterString("ModelName", default_value="m")
    score = with_ssh(sdk.transform(session, model), hold="failure", authorized_keys="ssh-rsa AAAAann")
    pipeline = sdk.pipeline(score, session=session, parameters=[model])
    with pytest.warns(SmsshWarning, match="its model was not seen to get SSH"):
        environment = steps_of(pipeline)["Score"]["Arguments"]["Environment"]
    assert environment == {
        "SMSSH_ENABLE": "1",
        "SMSSH_STEP": "Score",
        "SMSSH_HOLD": "failure",
        "SMSSH_AUTHORIZED_KEYS": f"{KEY}\nssh-rsa AAAAann",
    }


def test_a_baked_model_says_nothing_for_a_transform_step(sdk: SDK) -> None:
    variables = scored(sdk, SSHOptions(launcher="baked", hold=("failure",)), hold="failure")
    assert variables == {"SMSSH_HOLD": "failure", "SMSSH_AUTHORIZED_KEYS": KEY}
