"""Submit a job through each form that SSH can be asked for in, and say where each can be entered.

A program of its own: `forms.py FOLDER FORM...` prints a line of JSON with form: address. Each job waits to be let go,
where SSH is on: a login makes the file /opt/ml/go.
"""

import json
import logging
import sys
import warnings
from pathlib import Path

import boto3
import jsonschema

import smssh_plugin
from smssh_plugin import SSHOptions, with_ssh

# The SDK checks its configuration file at every look into it: nine tenths of its time.
jsonschema.validate = lambda *_, **__: None

ROLE = "arn:aws:iam::123456789012:role/forms"
ONE = {"instance_count": 1, "instance_type": "ml.m5.large"}
WAITING = """import os, time
while os.environ.get("SMSSH_ENABLE") == "1" and not os.path.exists("/opt/ml/go"):
    time.sleep(0.1)
"""
TRAINING = """import os
with open(os.path.join(os.environ["SM_MODEL_DIR"], "weights"), "w") as file:
    file.write("1")
"""
INFERENCE = f"""def model_fn(model_dir):
    return open(model_dir + "/weights").read()


def input_fn(data, content_type):
    return data


def predict_fn(data, model):
    exec({WAITING!r})
    return model


def output_fn(prediction, accept):
    return prediction
"""
COMMAND = ["python3", "-c", f"exec({WAITING!r})"]
"""On one line: the service takes no others in an entry point."""
STEPS = ("decorated", "optioned", "step", "list", "pipeline")
JOBS = ("client", "session", "trainer", "process")


def pipelines(code: Path) -> None:
    """A pipeline with a step for each form of with_ssh, and one that is turned on and off by its executions."""
    from sagemaker.core.processing import ScriptProcessor
    from sagemaker.core.workflow.parameters import ParameterString
    from sagemaker.core.workflow.pipeline_context import PipelineSession
    from sagemaker.mlops.workflow.pipeline import Pipeline
    from sagemaker.mlops.workflow.steps import ProcessingStep

    session = PipelineSession()

    def make(name: str) -> ProcessingStep:
        processor = ScriptProcessor(
            role=ROLE, image_uri="image", command=["python3"], sagemaker_session=session, **ONE
        )
        return ProcessingStep(name=name, step_args=processor.run(code=str(code)))

    steps = [
        with_ssh(make)("decorated"),
        with_ssh(SSHOptions(owner="ann"))(make)("optioned"),
        with_ssh(make("step"), wait="ready"),
        *with_ssh([make("list")]),
        make("pipeline"),
        make("none"),
    ]
    forms = with_ssh(Pipeline(name="forms", steps=steps, sagemaker_session=session), steps="pip*")
    forms.upsert(role_arn=ROLE)
    forms.start()
    debug = ParameterString("Debug", default_value="0", enum_values=["0", "1"])
    parameter = with_ssh(make("parameter"), enabled=debug)
    switch = Pipeline(name="switch", steps=[parameter], parameters=[debug], sagemaker_session=session)
    switch.upsert(role_arn=ROLE)
    switch.start()
    switch.start(parameters={"Debug": "1"})


def repacked(folder: Path) -> None:
    """A transform step whose model brings the bundle in its code/ folder: train, repack, model, score."""
    from sagemaker.core.s3 import S3Uploader
    from sagemaker.core.training.configs import Compute, SourceCode
    from sagemaker.core.transformer import Transformer
    from sagemaker.core.workflow.pipeline_context import PipelineSession
    from sagemaker.mlops.workflow.model_step import ModelStep
    from sagemaker.mlops.workflow.pipeline import Pipeline
    from sagemaker.mlops.workflow.steps import TrainingStep, TransformStep
    from sagemaker.serve.model_builder import ModelBuilder
    from sagemaker.train.model_trainer import ModelTrainer

    session = PipelineSession()
    for name, text in (("train", TRAINING), ("inference", INFERENCE)):
        (folder / name).mkdir()
        (folder / name / f"{name}.py").write_text(text)
    rows = S3Uploader.upload_string_as_file_body(
        "1\n", f"s3://{bucket()}/rows/a.csv", sagemaker_session=session
    )
    trainer = ModelTrainer(
        training_image="image",
        role=ROLE,
        sagemaker_session=session,
        base_job_name="repacked-train",
        compute=Compute(**ONE),
        source_code=SourceCode(source_dir=str(folder / "train"), entry_script="train.py"),
    )
    train = TrainingStep(name="train", step_args=trainer.train())
    builder = ModelBuilder(
        image_uri="image",
        role_arn=ROLE,
        sagemaker_session=session,
        model_path=str(folder / "model"),
        s3_model_data_url=train.properties.ModelArtifacts.S3ModelArtifacts,
        source_code=SourceCode(source_dir=str(folder / "inference"), entry_script="inference.py"),
    )
    model = ModelStep(name="model", step_args=builder.build())
    transformer = Transformer(
        model_name=model.properties.ModelName,
        output_path=f"s3://{bucket()}/scores",
        sagemaker_session=session,
        **ONE,
    )
    score = TransformStep(
        name="repacked", step_args=transformer.transform(data=rows, content_type="text/csv")
    )
    steps = [train, *model.steps, model, with_ssh(score, repack=True)]
    pipeline = Pipeline(name="repack", steps=steps, sagemaker_session=session)
    pipeline.upsert(role_arn=ROLE)
    pipeline.start()


def definition() -> None:
    """A pipeline that is nothing but its definition."""
    arguments = {
        "AlgorithmSpecification": {
            "TrainingImage": "image",
            "TrainingInputMode": "File",
            "ContainerEntrypoint": COMMAND,
        },
        "RoleArn": ROLE,
        "OutputDataConfig": {"S3OutputPath": f"s3://{bucket()}/out"},
        "ResourceConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
    }
    steps = [{"Name": "definition", "Type": "Training", "Arguments": arguments}]
    client = smssh_plugin.enable(boto3.client("sagemaker"))
    text = json.dumps({"Version": "2020-12-01", "Steps": steps})
    token = "t" * 32
    client.create_pipeline(
        PipelineName="raw", PipelineDefinition=text, RoleArn=ROLE, ClientRequestToken=token
    )
    client.start_pipeline_execution(PipelineName="raw")


def job(client: object, name: str) -> None:
    client.create_processing_job(  # type: ignore[attr-defined]
        ProcessingJobName=name,
        ProcessingResources={
            "ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 1}
        },
        AppSpecification={"ImageUri": "image", "ContainerEntrypoint": COMMAND},
        RoleArn=ROLE,
    )


def processor_run(code: Path) -> None:
    """Processor.run(), by the boto3 session."""
    from sagemaker.core.helper.session_helper import Session
    from sagemaker.core.processing import ScriptProcessor

    boto = smssh_plugin.enable(boto3.Session())
    processor = ScriptProcessor(
        role=ROLE,
        image_uri="image",
        command=["python3"],
        sagemaker_session=Session(boto_session=boto),
        **ONE,
    )
    processor.run(code=str(code), wait=False, logs=False, job_name="session")


def trainer_train(code: Path) -> str:
    """ModelTrainer.train(), by the SDK's session; the name of the job is the SDK's."""
    from sagemaker.core.helper.session_helper import Session
    from sagemaker.core.training.configs import Compute, SourceCode
    from sagemaker.train.model_trainer import ModelTrainer

    trainer = ModelTrainer(
        training_image="image",
        role=ROLE,
        sagemaker_session=smssh_plugin.enable(Session()),
        base_job_name="trainer",
        compute=Compute(**ONE),
        source_code=SourceCode(source_dir=str(code.parent), entry_script=code.name),
    )
    trainer.train(wait=False, logs=False)
    names = boto3.client("sagemaker").list_training_jobs(NameContains="trainer")["TrainingJobSummaries"]
    return str(names[0]["TrainingJobName"])


def bucket() -> str:
    account = boto3.client("sts").get_caller_identity()["Account"]
    return f"sagemaker-{boto3.Session().region_name}-{account}"


def main() -> None:
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    folder = Path(sys.argv[1], "code")
    folder.mkdir(exist_ok=True)
    code = folder / "waiting.py"
    code.write_text(WAITING)
    addresses = {}
    if sys.argv[2:] == ["process"]:
        smssh_plugin.enable()
        job(boto3.client("sagemaker"), "process")
        addresses["process"] = "process.processing.sagemaker"
    else:
        pipelines(code)
        addresses.update({name: f"{name}.forms.pipeline.sagemaker" for name in STEPS})
        addresses["parameter"] = "parameter.switch.pipeline.sagemaker"
        repacked(folder.parent)
        addresses["repacked"] = "repacked.repack.pipeline.sagemaker"
        definition()
        addresses["definition"] = "definition.raw.pipeline.sagemaker"
        job(smssh_plugin.enable(boto3.client("sagemaker")), "client")
        addresses["client"] = "client.processing.sagemaker"
        processor_run(code)
        addresses["session"] = "session.processing.sagemaker"
        addresses["trainer"] = f"{trainer_train(code)}.training.sagemaker"
    print(json.dumps(addresses))


if __name__ == "__main__":
    main()
