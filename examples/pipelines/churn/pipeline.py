"""Customer churn: a pipeline whose training step fails, and is fixed while it is still running.

Against AWS (uses your profile, region and default bucket):

    python pipeline.py --role arn:aws:iam::111122223333:role/SageMakerRole --image IMAGE_URI

Against the local emulator, with no AWS account:

    python pipeline.py --local ENVIRONMENT

where ENVIRONMENT is a Python environment that stands in for the image: it holds sagemaker-training,
sagemaker-inference and scikit-learn.
"""

import argparse
import logging
import os
import platform
import sys
import tarfile
import tempfile
import warnings
from pathlib import Path

from smssh_plugin import SmsshWarning, SSHOptions, with_ssh

HERE = Path(__file__).resolve().parent
NAME = "churn"
INSTANCE = "ml.m5.large"

# A hold does not stop SageMaker's clock: an hour of work, and four of somebody who is logged in.
MAX_SECONDS = 5 * 3600


def build(role: str, image: str, python: str, node_role: str = ""):
    """The pipeline: prepare -> train -> model -> score, and segment beside them."""
    from sagemaker.core.processing import ScriptProcessor
    from sagemaker.core.s3 import S3Uploader
    from sagemaker.core.shapes import ProcessingInput, ProcessingOutput, ProcessingS3Input, ProcessingS3Output
    from sagemaker.core.training.configs import Compute, InputData, SourceCode, StoppingCondition
    from sagemaker.core.transformer import Transformer
    from sagemaker.core.workflow.pipeline_context import PipelineSession
    from sagemaker.mlops.workflow.model_step import ModelStep
    from sagemaker.mlops.workflow.pipeline import Pipeline
    from sagemaker.mlops.workflow.steps import ProcessingStep, TrainingStep, TransformStep
    from sagemaker.serve.model_builder import ModelBuilder
    from sagemaker.train.model_trainer import ModelTrainer

    # A failed step stays up for ten minutes, or for as long as somebody is logged in (four hours at most). The wheels
    # are for images without an sshd of their own.
    ssh = SSHOptions(hold=("failure",), wheels=(python,), role=node_role or None)
    session = PipelineSession()
    root = f"s3://{session.default_bucket()}/{NAME}"
    customers = S3Uploader.upload(
        str(HERE / "data" / "customers.csv"), f"{root}/data", sagemaker_session=session
    )

    @with_ssh(ssh)
    def prepare():
        processor = ScriptProcessor(
            role=role,
            image_uri=image,
            command=["python3"],
            instance_count=1,
            instance_type=INSTANCE,
            sagemaker_session=session,
        )
        mounts = "/opt/ml/processing"
        arguments = processor.run(
            code=str(HERE / "prepare" / "prepare.py"),
            inputs=[
                ProcessingInput(
                    input_name="customers",
                    s3_input=ProcessingS3Input(
                        s3_uri=customers,
                        local_path=f"{mounts}/input/customers",
                        s3_data_type="S3Prefix",
                        s3_input_mode="File",
                    ),
                )
            ],
            outputs=[
                ProcessingOutput(
                    output_name=name,
                    s3_output=ProcessingS3Output(
                        s3_uri=f"{root}/prepared/{name}",
                        local_path=f"{mounts}/output/{name}",
                        s3_upload_mode="EndOfJob",
                    ),
                )
                for name in ("train", "score")
            ],
        )
        return ProcessingStep(name="Prepare", step_args=arguments)

    prepared = prepare()

    def output(name: str):
        return prepared.properties.ProcessingOutputConfig.Outputs[name].S3Output.S3Uri

    @with_ssh(ssh)
    def train():
        # Script mode: the image's own `train` (the sagemaker-training toolkit) fetches the code and runs it.
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(folder, "sourcedir.tar.gz")
            with tarfile.open(archive, "w:gz") as tar:
                for file in sorted((HERE / "train").iterdir()):
                    tar.add(file, arcname=file.name)
            code = S3Uploader.upload(str(archive), f"{root}/code", sagemaker_session=session)
        trainer = ModelTrainer(
            training_image=image,
            role=role,
            sagemaker_session=session,
            base_job_name="churn-train",
            compute=Compute(instance_type=INSTANCE, instance_count=1),
            stopping_condition=StoppingCondition(max_runtime_in_seconds=MAX_SECONDS),
            hyperparameters={
                "sagemaker_program": "train.py",
                "sagemaker_submit_directory": code,
                "regularisation": 0.5,
            },
        )
        return TrainingStep(
            name="Train",
            step_args=trainer.train([InputData(channel_name="train", data_source=output("train"))]),
        )

    trained = train()

    @with_ssh(ssh)
    def segment():
        trainer = ModelTrainer(
            training_image=image,
            role=role,
            sagemaker_session=session,
            base_job_name="churn-segment",
            compute=Compute(instance_type=INSTANCE, instance_count=1),
            stopping_condition=StoppingCondition(max_runtime_in_seconds=MAX_SECONDS),
            source_code=SourceCode(source_dir=str(HERE / "segment"), entry_script="segment.py"),
            hyperparameters={"clusters": 4},
        )
        return TrainingStep(
            name="Segment",
            step_args=trainer.train([InputData(channel_name="train", data_source=output("train"))]),
        )

    @with_ssh(ssh)
    def model():
        builder = ModelBuilder(
            model_path=tempfile.mkdtemp(prefix=NAME),
            image_uri=image,
            role_arn=role,
            sagemaker_session=session,
            s3_model_data_url=trained.properties.ModelArtifacts.S3ModelArtifacts,
            env_vars={
                "SAGEMAKER_PROGRAM": "inference.py",
                "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code",
            },
        )
        return ModelStep(name="Model", step_args=builder.build())

    created = model()

    @with_ssh(ssh)
    def score():
        transformer = Transformer(
            model_name=created.properties.ModelName,
            instance_count=1,
            instance_type=INSTANCE,
            strategy="MultiRecord",
            assemble_with="Line",
            accept="text/csv",
            output_path=f"{root}/scores",
            sagemaker_session=session,
        )
        arguments = transformer.transform(data=output("score"), content_type="text/csv", split_type="Line")
        return TransformStep(name="Score", step_args=arguments)

    return Pipeline(
        name=NAME, steps=[prepared, trained, segment(), created, score()], sagemaker_session=session
    )


def this_python() -> str:
    """The Python that runs this, as wheels are named by."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return f"{version}-aarch64" if platform.machine() == "aarch64" else version


def main() -> None:
    """Build, upsert and start the pipeline, then let `smssh debug` see it through."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--local", metavar="ENVIRONMENT", help="run on the local emulator (smssh local)")
    parser.add_argument("--role", default="arn:aws:iam::123456789012:role/churn", help="execution role")
    parser.add_argument("--node-role", default="", help="role of the hosts' nodes, as smssh setup makes it")
    parser.add_argument(
        "--image", default="churn", help="image with sagemaker-training and sagemaker-inference"
    )
    parser.add_argument(
        "--python", default=this_python(), help="the image's Python: 3.12, 3.12-aarch64 (default: this one)"
    )
    parser.add_argument("--report", default="report", help="folder for report.json and report.html")
    parser.add_argument("--by-hand", action="store_true", help="only start the pipeline; you debug it")
    args = parser.parse_args()
    smssh = [sys.executable, "-m", "smssh_plugin.cli"]
    if args.local:
        # This file once more, with the local emulator's endpoint in its environment: nothing else tells the two apart.
        again = [
            sys.executable,
            __file__,
            "--role",
            args.role,
            "--image",
            args.image,
            "--python",
            args.python,
            "--node-role",
            args.node_role,
            "--report",
            args.report,
        ]
        os.execv(sys.executable, [*smssh, "local", "run", "--image", args.local, "--", *again])

    # The SDK logs every request; what a person wants to see here is the pipeline.
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore", message="Running within a PipelineSession")
    # The image has no PYTHONPATH of its own that would be lost.
    warnings.filterwarnings("ignore", message=".*PYTHONPATH", category=SmsshWarning)
    pipeline = build(args.role, args.image, args.python, args.node_role)
    pipeline.upsert(role_arn=args.role)
    execution = pipeline.start()
    print(f"started {execution.arn}", flush=True)
    if args.by_hand:
        print(f"once it fails: smssh connect Train.{NAME}.pipeline.sagemaker")
        return
    fixes = ["--fixes", str(HERE / "fixes"), "--report", args.report]
    # In place of this process: Ctrl-C while it starts a child could end it alone.
    os.execv(sys.executable, [*smssh, "debug", NAME, "--execution", execution.arn, *fixes])


if __name__ == "__main__":
    main()
