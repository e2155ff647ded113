"""What is left of sagemaker-ssh-helper's samples in docs/migrating.md, run with SageMaker SDK v2: what they send.

A program of its own, `python migrating.py OUT FOLDER`, like `v2.py`.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import tarfile
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import boto3
from common import BUCKET, IMAGE, REGION, ROLE, World, sent
from sagemaker.pytorch import PyTorch
from sagemaker.session import Session
from sagemaker.tuner import ContinuousParameter
from sagemaker.workflow.pipeline_context import PipelineSession

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))
from tests.submit.samples import samples  # noqa: E402

SCRIPTS = {
    "source_dir/training/train.py",
    "source_dir/processing/process_framework.py",
    "source_dir/processing/process.py",
    "source_dir/inference/inference_ssh.py",
    "train.py",
}


def session() -> Session:
    """A new one for each sample, with clients of its own: SSH stays on in those that `enable` was given."""
    return Session(boto_session=boto3.Session(region_name=REGION))


def trained(sagemaker_session: Session) -> PyTorch:
    """An estimator whose job has ended, and left a model."""
    estimator = PyTorch(
        entry_point="train.py",
        source_dir="source_dir/training",
        framework_version="1.13.1",
        py_version="py39",
        role=ROLE,
        instance_count=1,
        instance_type="ml.m5.xlarge",
        sagemaker_session=sagemaker_session,
    )
    estimator.fit(wait=False)
    model = urlparse(estimator.model_data)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("model.pth"))
    s3 = sagemaker_session.boto_session.client("s3")
    s3.put_object(Bucket=model.netloc, Key=model.path.lstrip("/"), Body=archive.getvalue())
    return estimator


def taken_for_granted(number: int) -> dict[str, Any]:
    """The names that the samples use and do not make."""
    sagemaker_session = session()
    algorithm = {
        "TrainingImage": IMAGE,
        "TrainingInputMode": "File",
        "ContainerEntrypoint": ["python3", "train.py"],
    }
    return {
        "role": ROLE,
        "training_input": f"s3://{BUCKET}/data",
        "transformer_input": f"s3://{BUCKET}/input",
        "transformer_output": f"s3://{BUCKET}/output",
        "model_data_prefix": f"s3://{BUCKET}/mms/",
        "model_name": f"model-{number}",
        "endpoint_name": f"endpoint-{number}",
        "sagemaker_session": sagemaker_session,
        "estimator": trained(sagemaker_session),
        "arguments": {
            "entry_point": "train.py",
            "role": ROLE,
            "framework_version": "1.9.0",
            "py_version": "py38",
            "instance_count": 1,
            "instance_type": "ml.m5.xlarge",
        },
        "objective_metric_name": "loss",
        "hyperparameter_ranges": {"rate": ContinuousParameter(0, 1)},
        "metric_definitions": [{"Name": "loss", "Regex": "loss=(.*)"}],
        "request": {
            "TrainingJobName": f"job-{number}",
            "AlgorithmSpecification": algorithm,
            "RoleArn": ROLE,
            "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/out"},
            "ResourceConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 30},
            "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
        },
    }


def name_bucket() -> None:
    """Give the SDK its default bucket: to find out the usual one, it asks AWS itself, whatever the endpoints are."""
    modules = {"TelemetryOptOut": True, "Session": {"DefaultS3Bucket": BUCKET}}
    configuration = {"SchemaVersion": "1.0", "SageMaker": {"PythonSDK": {"Modules": modules}}}
    Path(os.environ["SAGEMAKER_USER_CONFIG_OVERRIDE"]).write_text(json.dumps(configuration))


def main() -> None:
    logging.disable(logging.ERROR)
    name_bucket()
    warnings.simplefilter("ignore")
    out, folder = Path(sys.argv[1]), Path(sys.argv[2])
    world = World(folder, lambda boto: PipelineSession(boto_session=boto, default_bucket=BUCKET))
    world.prepare_account()
    for name in SCRIPTS:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("print('hello')\n")
    found = []
    for number, sample in enumerate(samples("migrating.md")):
        if sample.in_container:
            continue
        names = taken_for_granted(number)
        sent.clear()
        exec(compile(sample.after, sample.title, "exec"), names)
        found.append({"title": sample.title, "sent": list(sent)})
    out.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
