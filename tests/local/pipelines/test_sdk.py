"""A pipeline of every kind of step, built, upserted, started and awaited by the real Python SDK v3."""

from __future__ import annotations

import json

import pytest

from smssh_plugin.local.environment import Access, client_environment, removed_variables
from tests import needs
from tests.local.service_harness import IMAGE, KEY, ROLE, running
from tests.waiting import LIMIT

INSTANCE = "ml.m5.large"
pytestmark = pytest.mark.timeout(600)
"""The SDK validates its whole configuration for every processor and step that it makes, which takes its time."""


@pytest.fixture
def service():
    with running() as one:
        yield one


@pytest.fixture
def sdk(service, tmp_path, monkeypatch):
    """The environment of a client of the service."""
    for name in removed_variables():
        monkeypatch.delenv(name)
    for name, value in client_environment(Access(service.endpoint, KEY), tmp_path).items():
        monkeypatch.setenv(name, value)
    # An earlier test may have left one, with another service's credentials.
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
    # Only now: it wants a region when it is imported.
    needs.module("sagemaker.mlops.workflow.pipeline")
    return service


def _build(folder, report: dict[str, float], train_environment: dict[str, str]):
    from sagemaker.core.processing import ScriptProcessor
    from sagemaker.core.shapes import ProcessingOutput, ProcessingS3Output
    from sagemaker.core.training.configs import Compute, InputData, SourceCode
    from sagemaker.core.transformer import Transformer
    from sagemaker.core.workflow.conditions import ConditionGreaterThanOrEqualTo
    from sagemaker.core.workflow.functions import Join, JsonGet
    from sagemaker.core.workflow.parameters import ParameterFloat, ParameterInteger, ParameterString
    from sagemaker.core.workflow.pipeline_context import PipelineSession
    from sagemaker.core.workflow.properties import PropertyFile
    from sagemaker.mlops.workflow.condition_step import ConditionStep
    from sagemaker.mlops.workflow.fail_step import FailStep
    from sagemaker.mlops.workflow.model_step import ModelStep
    from sagemaker.mlops.workflow.pipeline import Pipeline
    from sagemaker.mlops.workflow.retry import StepExceptionTypeEnum, StepRetryPolicy
    from sagemaker.mlops.workflow.steps import CacheConfig, ProcessingStep, TrainingStep, TransformStep
    from sagemaker.serve.model_builder import ModelBuilder
    from sagemaker.train.model_trainer import ModelTrainer

    session = PipelineSession()
    threshold = ParameterFloat("Threshold", default_value=0.8)
    count = ParameterInteger("Count", default_value=1)
    instance = ParameterString("Instance", default_value=INSTANCE, enum_values=[INSTANCE, "ml.m5.xlarge"])
    root = f"s3://{session.default_bucket()}/sdk"
    for name in ("prepare.py", "train.py"):
        (folder / name).write_text("print('never run here')\n")

    processor = ScriptProcessor(
        role=ROLE,
        image_uri=IMAGE,
        command=["python3"],
        instance_count=count,
        instance_type=instance,
        env={"REPORT": json.dumps(report)},
        sagemaker_session=session,
    )
    s3_output = ProcessingS3Output(
        s3_uri=f"{root}/prepared", local_path="/opt/ml/processing/output", s3_upload_mode="EndOfJob"
    )
    file = PropertyFile(name="Report", output_name="data", path="report.json")
    prepared = ProcessingStep(
        name="Prepare",
        step_args=processor.run(
            code=str(folder / "prepare.py"),
            outputs=[ProcessingOutput(output_name="data", s3_output=s3_output)],
        ),
        property_files=[file],
        cache_config=CacheConfig(enable_caching=True, expire_after="P1D"),
    )
    data = prepared.properties.ProcessingOutputConfig.Outputs["data"].S3Output.S3Uri
    source = folder / "source"
    source.mkdir()
    (source / "train.py").write_text("print('never run here')\n")
    trainer = ModelTrainer(
        training_image=IMAGE,
        role=ROLE,
        sagemaker_session=session,
        base_job_name="sdk",
        compute=Compute(instance_type=instance, instance_count=1),
        source_code=SourceCode(source_dir=str(source), entry_script="train.py"),
        environment=train_environment,
    )
    trained = TrainingStep(
        name="Train",
        step_args=trainer.train([InputData(channel_name="train", data_source=data)]),
        retry_policies=[StepRetryPolicy([StepExceptionTypeEnum.THROTTLING], max_attempts=3)],
    )
    builder = ModelBuilder(
        image_uri=IMAGE,
        role_arn=ROLE,
        sagemaker_session=session,
        s3_model_data_url=trained.properties.ModelArtifacts.S3ModelArtifacts,
        model_path=str(folder / "model"),  # the default may be another user's
    )
    model = ModelStep(name="Model", step_args=builder.build())
    transformer = Transformer(
        model_name=model.properties.ModelName,
        instance_count=1,
        instance_type=INSTANCE,
        output_path=f"{root}/scores",
        sagemaker_session=session,
    )
    score = TransformStep(name="Score", step_args=transformer.transform(data=data, content_type="text/csv"))
    auc = JsonGet(step_name="Prepare", property_file=file, json_path="auc")
    refuse = FailStep(name="Refuse", error_message=Join(on=" ", values=["below", threshold]))
    ask = ConditionStep(
        name="Ask",
        conditions=[ConditionGreaterThanOrEqualTo(left=auc, right=threshold)],
        if_steps=[trained, model, score],
        else_steps=[refuse],
    )
    return Pipeline(
        name="sdk", parameters=[threshold, count, instance], steps=[prepared, ask], sagemaker_session=session
    )


def test_every_kind_of_step(sdk, tmp_path) -> None:
    pipeline = _build(tmp_path, {"auc": 0.85}, {"OUTCOME": "succeed"})
    pipeline.upsert(role_arn=ROLE, tags=[{"Key": "a", "Value": "b"}])
    assert pipeline.upsert(role_arn=ROLE, tags=[{"Key": "c", "Value": "d"}])["PipelineVersionId"] == 2
    tags = sdk.sagemaker.list_tags(ResourceArn=pipeline.describe()["PipelineArn"])["Tags"]
    assert {tag["Key"] for tag in tags} == {"a", "c"}

    execution = pipeline.start(parameters={"Instance": "ml.m5.xlarge"})
    execution.wait(delay=1, max_attempts=60)
    assert execution.describe()["PipelineExecutionStatus"] == "Succeeded"
    steps = {step["StepName"]: step for step in execution.list_steps()}
    assert set(steps) == {"Prepare", "Ask", "Train", "Model", "Score"}
    assert {step["StepStatus"] for step in steps.values()} == {"Succeeded"}
    kinds = [job.kind for job in sdk.runner.jobs]
    assert kinds == ["processing", "training", "transform"]
    prepare, train, score = (job.request for job in sdk.runner.jobs)
    assert prepare["ProcessingResources"]["ClusterConfig"]["InstanceType"] == "ml.m5.xlarge"
    assert prepare["ProcessingResources"]["ClusterConfig"]["InstanceCount"] == 1
    assert train["ResourceConfig"]["InstanceType"] == "ml.m5.xlarge"
    channels = {channel["ChannelName"]: channel for channel in train["InputDataConfig"]}
    assert channels["train"]["DataSource"]["S3DataSource"]["S3Uri"].endswith("/sdk/prepared")
    model = sdk.sagemaker.describe_model(ModelName=score["ModelName"])
    artifacts = sdk.sagemaker.describe_training_job(TrainingJobName=train["TrainingJobName"])[
        "ModelArtifacts"
    ]
    assert model["PrimaryContainer"]["ModelDataUrl"] == artifacts["S3ModelArtifacts"]
    assert {"Name": "Threshold", "Value": "0.8"} in execution.list_parameters()["PipelineParameters"]

    refused = pipeline.start(parameters={"Threshold": 0.9})
    with pytest.raises(Exception, match="terminal failure state"):
        refused.wait(delay=1, max_attempts=60)
    steps = {step["StepName"]: step for step in refused.list_steps()}
    assert set(steps) == {"Prepare", "Ask", "Refuse"}
    assert steps["Refuse"]["FailureReason"] == "below 0.9"


def test_a_failing_job_fails_the_pipeline(sdk, tmp_path) -> None:
    pipeline = _build(tmp_path, {"auc": 0.85}, {"OUTCOME": "fail"})
    pipeline.upsert(role_arn=ROLE)
    execution = pipeline.start()
    with pytest.raises(Exception, match="terminal failure state"):
        execution.wait(delay=1, max_attempts=60)
    steps = {step["StepName"]: step for step in execution.list_steps()}
    assert set(steps) == {"Prepare", "Ask", "Train"}
    assert steps["Train"]["FailureReason"].startswith("AlgorithmError: ExecuteUserScriptError")
    pipeline.delete()


def test_every_type_of_step_that_the_sdk_has_is_known(sdk) -> None:
    from sagemaker.mlops.workflow.steps import StepTypeEnum

    from smssh_plugin.local.pipelines.definition import CALLS, NOT_INTERPRETED, OTHER_TYPES

    assert {kind.value for kind in StepTypeEnum} <= {*CALLS, *OTHER_TYPES, *NOT_INTERPRETED}


def test_a_lambda_step_of_the_sdk(sdk, tmp_path) -> None:
    """Its function is created when the pipeline is, as on AWS, and runs when its step is reached."""
    from sagemaker.core.lambda_helper import Lambda
    from sagemaker.core.workflow.conditions import ConditionEquals
    from sagemaker.core.workflow.pipeline_context import PipelineSession
    from sagemaker.mlops.workflow.condition_step import ConditionStep
    from sagemaker.mlops.workflow.fail_step import FailStep
    from sagemaker.mlops.workflow.lambda_step import LambdaOutput, LambdaOutputTypeEnum, LambdaStep
    from sagemaker.mlops.workflow.pipeline import Pipeline

    session = PipelineSession()
    trust = json.dumps({"Version": "2012-10-17", "Statement": []})
    sdk.client("iam").create_role(RoleName=ROLE.rpartition("/")[2], AssumeRolePolicyDocument=trust)
    script = tmp_path / "ask.py"
    script.write_text("def handle(event, context):\n    return {'answer': int(event['half']) * 2}\n")
    function = Lambda(
        function_name="ask",
        execution_role_arn=ROLE,
        script=str(script),
        handler="ask.handle",
        timeout=int(LIMIT),
        session=session,
    )
    answer = LambdaOutput(output_name="answer", output_type=LambdaOutputTypeEnum.Integer)
    asks = LambdaStep(name="Ask", lambda_func=function, inputs={"half": 21}, outputs=[answer])
    equal = ConditionEquals(left=asks.properties.Outputs["answer"], right=42)
    wrong = FailStep(name="Wrong", error_message="not 42")
    check = ConditionStep(name="Check", conditions=[equal], if_steps=[], else_steps=[wrong])
    pipeline = Pipeline(name="asking", steps=[asks, check], sagemaker_session=session)
    pipeline.upsert(role_arn=ROLE)
    execution = pipeline.start()
    arn = execution.arn
    assert sdk.execution(arn, "Succeeded", "Failed")["PipelineExecutionStatus"] == "Succeeded", sdk.steps(arn)
    outputs = sdk.steps(arn)["Ask"]["Metadata"]["Lambda"]["OutputParameters"]
    assert outputs == [{"Name": "answer", "Value": "42"}]


def test_steps_of_the_sdk_that_are_not_interpreted(sdk) -> None:
    """Each is accepted when the pipeline is made, and named when it is reached; other steps go on."""
    from sagemaker.core.processing import ScriptProcessor
    from sagemaker.core.workflow.pipeline_context import PipelineSession
    from sagemaker.mlops.workflow.check_job_config import CheckJobConfig
    from sagemaker.mlops.workflow.cleanup_step import CleanupStep, S3CleanupSource
    from sagemaker.mlops.workflow.emr_serverless_step import EMRServerlessJobConfig, EMRServerlessStep
    from sagemaker.mlops.workflow.emr_step import EMRStep, EMRStepConfig
    from sagemaker.mlops.workflow.for_each_step import CurrentItem, ForEachStep
    from sagemaker.mlops.workflow.pipeline import Pipeline
    from sagemaker.mlops.workflow.quality_check_step import DataQualityCheckConfig, QualityCheckStep
    from sagemaker.mlops.workflow.step_dependency import StepDependency, TriggerCondition
    from sagemaker.mlops.workflow.steps import ProcessingStep

    session = PipelineSession()

    def processing(name, **more):
        processor = ScriptProcessor(
            role=ROLE, image_uri=IMAGE, command=["python3"], instance_count=1, instance_type=INSTANCE,
            sagemaker_session=session, **more.pop("processor", {}),
        )  # fmt: skip
        return ProcessingStep(name=name, step_args=processor.run(code="s3://bucket/prepare.py"), **more)

    first = processing("First")
    check = QualityCheckStep(
        name="Quality",
        quality_check_config=DataQualityCheckConfig(
            baseline_dataset="s3://bucket/data.csv",
            dataset_format={"csv": {}},
            output_s3_uri="s3://bucket/out",
        ),
        check_job_config=CheckJobConfig(role=ROLE, sagemaker_session=session),
        register_new_baseline=True,
        model_package_group_name="group",
    )
    emr = EMRStep("Emr", "Emr", "d", "j-1", EMRStepConfig(jar="s3://bucket/a.jar"), depends_on=[first])
    serverless = EMRServerlessStep(
        "Serverless", "Serverless", "d", EMRServerlessJobConfig(job_driver={}, execution_role_arn=ROLE), "app"
    )
    cleanup = CleanupStep("Cleanup", [S3CleanupSource(step=first)])
    each = ForEachStep(
        "Each",
        iterable_items=["a", "b"],
        max_concurrency=1,
        for_each_body=[processing("Body", processor={"env": {"ITEM": CurrentItem()}})],
    )
    alarm = processing("Alarm", depends_on=[StepDependency(emr, TriggerCondition.FAILED)])
    strange = [check, emr, serverless, cleanup, each]
    pipeline = Pipeline(name="strange", steps=[first, *strange, alarm], sagemaker_session=session)
    pipeline.upsert(role_arn=ROLE)
    arn = pipeline.start().arn
    found = sdk.execution(arn, "Succeeded", "Failed", "CompletedWithFailures")
    assert found["PipelineExecutionStatus"] == "CompletedWithFailures"
    steps = sdk.steps(arn)
    reasons = {step.name: step.step_type.value for step in strange}
    assert {name: steps[name]["FailureReason"] for name in reasons} == {
        name: f"ClientError: smssh local does not interpret steps of type '{kind}'."
        for name, kind in reasons.items()
    }
    assert {name for name, one in steps.items() if one["StepStatus"] == "Succeeded"} == {"First", "Alarm"}
