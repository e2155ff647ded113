"""Every kind of step and job of SageMaker SDK v2; see `common`."""

from __future__ import annotations

import shutil
from typing import Any

from common import BUCKET, IMAGE, ROLE, Table, World
from sagemaker.estimator import Estimator
from sagemaker.inputs import CreateModelInput, TrainingInput, TransformInput
from sagemaker.instance_group import InstanceGroup
from sagemaker.model import Model
from sagemaker.pipeline import PipelineModel
from sagemaker.processing import FrameworkProcessor, Processor, ScriptProcessor
from sagemaker.pytorch import PyTorch, PyTorchModel
from sagemaker.session import Session
from sagemaker.sklearn.estimator import SKLearn
from sagemaker.spark.processing import PySparkProcessor
from sagemaker.transformer import Transformer
from sagemaker.tuner import ContinuousParameter, HyperparameterTuner
from sagemaker.workflow.condition_step import ConditionStep
from sagemaker.workflow.conditions import ConditionEquals
from sagemaker.workflow.function_step import step
from sagemaker.workflow.model_step import ModelStep
from sagemaker.workflow.notebook_job_step import NotebookJobStep
from sagemaker.workflow.parameters import ParameterString
from sagemaker.workflow.pipeline import Pipeline
from sagemaker.workflow.pipeline_context import PipelineSession
from sagemaker.workflow.step_collections import EstimatorTransformer
from sagemaker.workflow.steps import (
    CacheConfig,
    CreateModelStep,
    ProcessingStep,
    TrainingStep,
    TransformStep,
    TuningStep,
)
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


def script_mode(world: World, session: Any = None, **more: Any) -> PyTorch:
    return PyTorch(
        entry_point="train.py",
        source_dir=str(world.code),
        image_uri=IMAGE,
        role=ROLE,
        sagemaker_session=session or world.session,
        **{**ONE, **more},
    )


def byoc(world: World, session: Any = None, **more: Any) -> Estimator:
    return Estimator(
        image_uri=IMAGE, role=ROLE, sagemaker_session=session or world.session, **{**ONE, **more}
    )


def data(world: World, **more: Any) -> dict[str, TrainingInput]:
    return {"train": TrainingInput(world.s3("data"), **more)}


# ------------------------------------------------------------------------------------------- training


@table.steps("training-script-mode")
def training_script_mode(world: World) -> Any:
    cache = CacheConfig(enable_caching=True, expire_after="P1D")
    made = script_mode(world, hyperparameters={"epochs": 3}, environment={"A": "b"})
    return TrainingStep(name="Train", step_args=made.fit(data(world)), cache_config=cache)


@table.steps("training-byoc")
def training_byoc(world: World) -> Any:
    return TrainingStep(name="Train", step_args=byoc(world).fit(data(world)))


@table.steps("training-byoc-entry-point")
def training_entry_point(world: World) -> Any:
    number = ParameterString("Epochs", default_value="3")
    made = byoc(
        world,
        container_entry_point=["python3", "/opt/train.py"],
        container_arguments=["--epochs", number],
    )
    return [TrainingStep(name="Train", step_args=made.fit()), number]


@table.steps("training-heterogeneous")
def training_heterogeneous(world: World) -> Any:
    workers, gpu = InstanceGroup("workers", "ml.m5.large", 2), InstanceGroup("gpu", "ml.g5.xlarge", 1)
    made = script_mode(world, instance_count=None, instance_type=None, instance_groups=[workers, gpu])
    return TrainingStep(name="Train", step_args=made.fit(data(world, instance_groups=["workers"])))


# ------------------------------------------------------------------------------------------- processing


@table.steps("processing-framework")
def processing_framework(world: World) -> Any:
    made = FrameworkProcessor(
        estimator_cls=SKLearn,
        framework_version="1.2-1",
        image_uri=IMAGE,
        role=ROLE,
        sagemaker_session=world.session,
        **ONE,
    )
    return ProcessingStep(name="Prepare", step_args=made.run(code="prepare.py", source_dir=str(world.code)))


# ------------------------------------------------------------------------------------------- models


def model_step(world: World, step: str = "Model", **more: Any) -> ModelStep:
    more.setdefault("model_data", world.s3("model.tar.gz"))
    model = Model(image_uri=IMAGE, role=ROLE, sagemaker_session=world.session, **more)
    return ModelStep(name=step, step_args=model.create(instance_type="ml.m5.large"))


@table.steps("transform-model-create")
def transform_model(world: World) -> Any:
    model = model_step(world, env={"SAGEMAKER_PROGRAM": "inference.py"})
    return [model, sdk.score(world, model.properties.ModelName)]


@table.steps("transform-alone", only=lambda steps: steps[-1])
def transform_alone(world: World) -> Any:
    """The step that makes its model comes along."""
    return transform_model(world)


@table.steps("transform-model-repack", repack=False)
def transform_repack(world: World) -> Any:
    train = training_byoc(world)
    source = world.code.with_name("inference")
    # The SDK writes its own scripts into it.
    shutil.copytree(world.code, source, dirs_exist_ok=True)
    model = model_step(
        world,
        model_data=train.properties.ModelArtifacts.S3ModelArtifacts,
        entry_point="inference.py",
        source_dir=str(source),
    )
    return [train, model, sdk.score(world, model.properties.ModelName)]


@table.steps("transform-model-repack-with-bundle")
def transform_repack_with_bundle(world: World) -> Any:
    return transform_repack(world)


@table.steps("transform-model-repack-script-with-bundle", repack=True)
def transform_repack_script_with_bundle(world: World) -> Any:
    """With a script alone, the SDK would copy nothing else."""
    train = training_byoc(world)
    model = PyTorchModel(
        model_data=train.properties.ModelArtifacts.S3ModelArtifacts,
        entry_point=str(world.code / "inference.py"),
        image_uri=IMAGE,
        framework_version="2.1",
        py_version="py310",
        role=ROLE,
        sagemaker_session=world.session,
    )
    step = ModelStep(name="Model", step_args=model.create(instance_type="ml.m5.large"))
    return [train, step, sdk.score(world, step.properties.ModelName)]


@table.steps("model-endpoints", endpoints=True)
def model_endpoints(world: World) -> Any:
    return model_step(world)


@table.steps("model-of-several-containers", endpoints=True)
def model_of_several(world: World) -> Any:
    models = [
        Model(
            image_uri=IMAGE, role=ROLE, sagemaker_session=world.session, model_data=world.s3(f"{name}.tar.gz")
        )
        for name in ("first", "second")
    ]
    made = PipelineModel(models=models, role=ROLE, sagemaker_session=world.session)
    return ModelStep(name="Models", step_args=made.create(instance_type="ml.m5.large"))


@table.pipeline("left-alone-several-containers", steps="Score")
def left_alone_several(world: World) -> Any:
    """Its transform step is named, and its model can't have SSH."""
    model = model_of_several(world)
    return [model, sdk.score(world, model.properties.ModelName)]


@table.pipeline("left-alone-old-model-step", steps="Score", transport="native")
def left_alone_old(world: World) -> Any:
    """The request of such a model is not known before it is compiled; the transform step can't have SSH."""
    model = Model(
        image_uri=IMAGE, role=ROLE, sagemaker_session=world.session, model_data=world.s3("model.tar.gz")
    )
    made = CreateModelStep(name="Model", model=model, inputs=CreateModelInput(instance_type="ml.m5.large"))
    return [made, sdk.score(world, made.properties.ModelName)]


@table.pipeline("left-alone-old-model-step-isolated", steps="Score")
def left_alone_old_isolated(world: World) -> Any:
    """The same, and the transform step is compiled first."""
    model = Model(
        image_uri=IMAGE,
        role=ROLE,
        sagemaker_session=world.session,
        model_data=world.s3("model.tar.gz"),
        enable_network_isolation=True,
    )
    made = CreateModelStep(name="Model", model=model, inputs=CreateModelInput(instance_type="ml.m5.large"))
    return [sdk.score(world, made.properties.ModelName), made]


@table.steps("collection-estimator-transformer")
def collection(world: World) -> Any:
    return EstimatorTransformer(
        name="Batch",
        estimator=byoc(world),
        model_data=world.s3("model.tar.gz"),
        model_inputs=None,
        transform_inputs=TransformInput(data=world.s3("score")),
        output_path=world.s3("scores"),
        **ONE,
    )


# ------------------------------------------------------------------------------------------- the others


def tuner(world: World, session: Any = None) -> HyperparameterTuner:
    return HyperparameterTuner(
        script_mode(world, session),
        objective_metric_name="loss",
        hyperparameter_ranges={"rate": ContinuousParameter(0.1, 0.2)},
        metric_definitions=[{"Name": "loss", "Regex": "loss=(.*)"}],
        base_tuning_job_name="tune",
        max_jobs=2,
    )


@table.steps("tuning")
def tuning(world: World) -> Any:
    return TuningStep(name="Tune", step_args=tuner(world).fit(data(world)))


# ------------------------------------------------------------------------------------------- jobs


@table.job("job-estimator")
def job_estimator(world: World) -> None:
    script_mode(world, sdk.plain(world)).fit(data(world), wait=False)


@table.job("job-tuner")
def job_tuner(world: World) -> None:
    tuner(world, sdk.plain(world)).fit(data(world), job_name=world.new_name("tune"), wait=False)


@table.job("job-transformer")
def job_transformer(world: World) -> None:
    session = sdk.plain(world)
    name = world.new_name("model")
    Model(
        image_uri=IMAGE, role=ROLE, model_data=world.s3("model.tar.gz"), name=name, sagemaker_session=session
    ).create(instance_type="ml.m5.large")
    made = sdk.batch(world, name, session)
    made.transform(world.s3("score"), job_name=world.new_name("score"), wait=False, logs=False)


add_cases(table, sdk, training_byoc, model_step)

if __name__ == "__main__":
    table.main()
