"""Every kind of step and job of SageMaker SDK v3; see `common`."""

from __future__ import annotations

from typing import Any

from common import BUCKET, IMAGE, ROLE, Table, World
from sagemaker.core.helper.session_helper import Session
from sagemaker.core.parameter import ContinuousParameter
from sagemaker.core.processing import FrameworkProcessor, Processor, ScriptProcessor
from sagemaker.core.shapes import InstanceGroup, S3DataSource
from sagemaker.core.spark.processing import PySparkProcessor
from sagemaker.core.training.configs import Compute, InputData, SourceCode
from sagemaker.core.transformer import Transformer
from sagemaker.core.workflow.conditions import ConditionEquals
from sagemaker.core.workflow.parameters import ParameterString
from sagemaker.core.workflow.pipeline_context import PipelineSession
from sagemaker.mlops.workflow.condition_step import ConditionStep
from sagemaker.mlops.workflow.function_step import step
from sagemaker.mlops.workflow.model_step import ModelStep
from sagemaker.mlops.workflow.notebook_job_step import NotebookJobStep
from sagemaker.mlops.workflow.pipeline import Pipeline
from sagemaker.mlops.workflow.steps import (
    CacheConfig,
    ProcessingStep,
    TrainingStep,
    TransformStep,
    TuningStep,
)
from sagemaker.serve.model_builder import ModelBuilder
from sagemaker.train.model_trainer import ModelTrainer
from sagemaker.train.tuner import HyperparameterTuner
from shared import ONE, SDK, add_cases

table = Table(Pipeline, lambda boto: PipelineSession(boto_session=boto, default_bucket=BUCKET))
sdk = SDK(
    condition_equals=ConditionEquals,
    condition_step=ConditionStep,
    notebook_job_step=NotebookJobStep,
    parameter_string=ParameterString,
    processing_step=ProcessingStep,
    processor=Processor,
    py_spark_processor=PySparkProcessor,
    script_processor=ScriptProcessor,
    session=Session,
    step=step,
    transform_step=TransformStep,
    transformer=Transformer,
)
INSTANCE = Compute(**ONE)


def trainer(world: World, session: Any = None, **more: Any) -> ModelTrainer:
    more.setdefault("compute", INSTANCE)
    return ModelTrainer(
        training_image=IMAGE,
        role=ROLE,
        sagemaker_session=session or world.session,
        base_job_name="train",
        **more,
    )


def source(world: World) -> SourceCode:
    return SourceCode(source_dir=str(world.code), entry_script="train.py")


def data(world: World, **more: Any) -> list[InputData]:
    return [InputData(channel_name="train", data_source=world.s3("data"), **more)]


# ------------------------------------------------------------------------------------------- training


@table.steps("training-source-code")
def training_source_code(world: World) -> Any:
    made = trainer(world, source_code=source(world), hyperparameters={"epochs": 3}, environment={"A": "b"})
    cache = CacheConfig(enable_caching=True, expire_after="P1D")
    return TrainingStep(name="Train", step_args=made.train(data(world)), cache_config=cache)


@table.steps("training-byoc")
def training_byoc(world: World) -> Any:
    return TrainingStep(name="Train", step_args=trainer(world).train(data(world)))


@table.steps("training-script-mode")
def training_script_mode(world: World) -> Any:
    """The sagemaker-training toolkit by its hyperparameters."""
    given = {
        "sagemaker_program": "train.py",
        "sagemaker_submit_directory": world.s3("code.tar.gz"),
    }
    return TrainingStep(name="Train", step_args=trainer(world, hyperparameters=given).train())


@table.steps("training-heterogeneous")
def training_heterogeneous(world: World) -> Any:
    groups = [
        InstanceGroup(instance_type="ml.m5.large", instance_count=2, instance_group_name="workers"),
        InstanceGroup(instance_type="ml.g5.xlarge", instance_count=1, instance_group_name="gpu"),
    ]
    made = trainer(world, source_code=source(world), compute=Compute(instance_groups=groups))
    where = S3DataSource(
        s3_data_type="S3Prefix",
        s3_uri=world.s3("data"),
        s3_data_distribution_type="FullyReplicated",
        instance_group_names=["workers"],
    )
    channel = InputData(channel_name="train", data_source=where)
    return TrainingStep(name="Train", step_args=made.train([channel]))


# ------------------------------------------------------------------------------------------- processing


@table.steps("processing-framework")
def processing_framework(world: World) -> Any:
    made = FrameworkProcessor(image_uri=IMAGE, role=ROLE, sagemaker_session=world.session, **ONE)
    return ProcessingStep(name="Prepare", step_args=made.run(code="prepare.py", source_dir=str(world.code)))


# ------------------------------------------------------------------------------------------- models


def model_step(world: World, step: str = "Model", **more: Any) -> ModelStep:
    more.setdefault("s3_model_data_url", world.s3("model.tar.gz"))
    builder = ModelBuilder(
        image_uri=IMAGE,
        role_arn=ROLE,
        sagemaker_session=world.session,
        model_path=str(world.model),
        **more,
    )
    return ModelStep(name=step, step_args=builder.build())


@table.steps("transform-model-create")
def transform_model(world: World) -> Any:
    model = model_step(world, env_vars={"SAGEMAKER_PROGRAM": "inference.py"})
    return [model, sdk.score(world, model.properties.ModelName)]


@table.steps("transform-alone", only=lambda steps: steps[-1])
def transform_alone(world: World) -> Any:
    """The step that makes its model comes along."""
    return transform_model(world)


@table.steps("transform-model-repack", repack=False)
def transform_repack(world: World) -> Any:
    train = training_byoc(world)
    model = model_step(
        world,
        s3_model_data_url=train.properties.ModelArtifacts.S3ModelArtifacts,
        source_code=SourceCode(source_dir=str(world.code), entry_script="inference.py"),
    )
    return [train, *model.steps, model, sdk.score(world, model.properties.ModelName)]


@table.steps("model-endpoints", endpoints=True)
def model_endpoints(world: World) -> Any:
    return model_step(world)


# Before, ModelBuilder leaves models in a pipeline as they are.
if hasattr(ModelStep, "_repack_inputs_for"):

    @table.steps("transform-model-repack-with-bundle")
    def transform_repack_with_bundle(world: World) -> Any:
        return transform_repack(world)


# ------------------------------------------------------------------------------------------- the others


def tuner(world: World, session: Any = None) -> HyperparameterTuner:
    return HyperparameterTuner(
        model_trainer=trainer(world, session, source_code=source(world)),
        objective_metric_name="loss",
        hyperparameter_ranges={"rate": ContinuousParameter(0.1, 0.2)},
        metric_definitions=[{"Name": "loss", "Regex": "loss=(.*)"}],
        base_tuning_job_name="tune",
        max_jobs=2,
    )


@table.steps("tuning")
def tuning(world: World) -> Any:
    return TuningStep(name="Tune", step_args=tuner(world).tune(data(world)))


try:
    from sagemaker.mlops.workflow.for_each_step import CurrentItem, ForEachStep
except ImportError:  # before 3.27
    pass
else:

    @table.steps("for-each")
    def for_each(world: World) -> Any:
        body = sdk.bare(world, env={"ITEM": CurrentItem()})
        return ForEachStep(name="Each", iterable_items=["a", "b"], max_concurrency=1, for_each_body=[body])


# ------------------------------------------------------------------------------------------- jobs


@table.job("job-model-trainer")
def job_trainer(world: World) -> None:
    trainer(world, sdk.plain(world), source_code=source(world)).train(data(world), wait=False, logs=False)


@table.job("job-tuner")
def job_tuner(world: World) -> None:
    tuner(world, sdk.plain(world)).tune(data(world), job_name=world.new_name("tune"), wait=False)


add_cases(table, sdk, training_byoc, model_step)

if __name__ == "__main__":
    table.main()
