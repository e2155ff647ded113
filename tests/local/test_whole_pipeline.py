"""A pipeline that tunes, asks a function and decides, by `smssh local run` as a person uses it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from .jobs_support import image_environment

pytestmark = pytest.mark.needs("namespaces")

PROGRAM = """
import io, json, tarfile, time, zipfile
import boto3

s3, sagemaker = boto3.client("s3"), boto3.client("sagemaker")
trust = json.dumps({"Version": "2012-10-17", "Statement": []})
role = boto3.client("iam").create_role(RoleName="jobs", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
s3.create_bucket(Bucket="bucket")

script = b'''
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--rate", type=float)
print("loss=%s" % parser.parse_args().rate)
'''
source = io.BytesIO()
with tarfile.open(fileobj=source, mode="w:gz") as tar:
    info = tarfile.TarInfo("train.py")
    info.size = len(script)
    tar.addfile(info, io.BytesIO(script))
s3.put_object(Bucket="bucket", Key="source.tar.gz", Body=source.getvalue())

handler = '''
import boto3

def handle(event, context):
    jobs = boto3.client("sagemaker").list_training_jobs()["TrainingJobSummaries"]
    return {"jobs": len(jobs), "loss": event["loss"]}
'''
code = io.BytesIO()
with zipfile.ZipFile(code, "w") as archive:
    archive.writestr("app.py", handler)
function = boto3.client("lambda").create_function(
    FunctionName="count", Runtime="python3.12", Role=role, Handler="app.handle",
    Code={"ZipFile": code.getvalue()}, Timeout=60,
)["FunctionArn"]

tuning = {
    "HyperParameterTuningJobConfig": {
        "Strategy": "Bayesian",
        "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
        "ResourceLimits": {"MaxNumberOfTrainingJobs": 2, "MaxParallelTrainingJobs": 1},
        "ParameterRanges": {
            "ContinuousParameterRanges": [{"Name": "rate", "MinValue": "0.1", "MaxValue": "0.9"}]
        },
    },
    "TrainingJobDefinition": {
        "StaticHyperParameters": {
            "sagemaker_program": '"train.py"',
            "sagemaker_submit_directory": '"s3://bucket/source.tar.gz"',
            "sagemaker_region": '"us-east-1"',
        },
        "AlgorithmSpecification": {
            "TrainingImage": "123456789012.dkr.ecr.us-east-1.amazonaws.com/job:1",
            "TrainingInputMode": "File",
            "MetricDefinitions": [{"Name": "loss", "Regex": "loss=(.*)"}],
        },
        "RoleArn": role,
        "OutputDataConfig": {"S3OutputPath": "s3://bucket/models"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 600},
    },
}
best = "Steps.Tune.BestTrainingJob.FinalHyperParameterTuningJobObjectiveMetric.Value"
outputs = [{"OutputName": "jobs", "OutputType": "Integer"}, {"OutputName": "loss", "OutputType": "Float"}]
steps = [
    {"Name": "Tune", "Type": "Tuning", "Arguments": tuning},
    {
        "Name": "Ask", "Type": "Lambda", "Arguments": {"loss": {"Get": best}},
        "FunctionArn": function, "OutputParameters": outputs,
    },
]
definition = json.dumps({"Version": "2020-12-01", "Steps": steps})
sagemaker.create_pipeline(PipelineName="whole", RoleArn=role, PipelineDefinition=definition)
execution = sagemaker.start_pipeline_execution(PipelineName="whole")["PipelineExecutionArn"]
while True:
    found = sagemaker.describe_pipeline_execution(PipelineExecutionArn=execution)
    if found["PipelineExecutionStatus"] != "Executing":
        break
    time.sleep(0.2)
listed = sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=execution)["PipelineExecutionSteps"]
print(json.dumps([found["PipelineExecutionStatus"], listed], default=str))
"""


def test_a_pipeline_that_tunes_and_asks_a_function(tmp_path) -> None:
    image = image_environment()
    command = [sys.executable, "-c", "import sys; from smssh_plugin.cli import main; sys.exit(main())"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    done = subprocess.run(
        [*command, "local", "run", "--image", str(image), "--", sys.executable, "-c", PROGRAM],
        env={**environ, "SMSSH_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    status, steps = json.loads(done.stdout)
    assert status == "Succeeded", steps
    outputs = {step["StepName"]: step["Metadata"] for step in steps}["Ask"]["Lambda"]["OutputParameters"]
    values = {output["Name"]: output["Value"] for output in outputs}
    assert values["jobs"] == "2"
    assert 0.1 <= float(values["loss"]) <= 0.9
    folder = tmp_path / "local" / "functions"
    assert [path.name for path in folder.iterdir()] == ["count.log"]
