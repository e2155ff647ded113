"""Tuning jobs and tuning steps, through a real client."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from smssh_plugin.local.faults import Faults
from smssh_plugin.local.sagemaker.sagemaker_service import SageMaker
from tests.local.service_harness import definition, running, step, training
from tests.waiting import until

GOLDEN = Path(__file__).resolve().parents[2] / "submit" / "sdks" / "golden"
RATE = {"Name": "rate", "MinValue": "0.1", "MaxValue": "0.2"}
WARM = {
    "ParentHyperParameterTuningJobs": [{"HyperParameterTuningJobName": "x"}],
    "WarmStartType": "TransferLearning",
}
METRICS = [{"Name": "loss", "Regex": "loss=([0-9.eE+-]+)"}]


@pytest.fixture
def service():
    with running() as one:
        yield one


def _config(most=3, together=1, objective="Minimize", strategy="Random", **ranges):
    return {
        "Strategy": strategy,
        "HyperParameterTuningJobObjective": {"Type": objective, "MetricName": "loss"},
        "ResourceLimits": {"MaxNumberOfTrainingJobs": most, "MaxParallelTrainingJobs": together},
        "ParameterRanges": ranges or {"ContinuousParameterRanges": [RATE]},
        "RandomSeed": 7,
    }


def _one(metrics=METRICS, **environment):
    made = training(
        StaticHyperParameters={"epochs": "2"}, Environment={"LINES": "loss={rate}", **environment}
    )
    made["AlgorithmSpecification"] = {**made["AlgorithmSpecification"], "MetricDefinitions": metrics}
    return made


def _create(service, name="tune", config=None, one=None, **more):
    return service.sagemaker.create_hyper_parameter_tuning_job(
        HyperParameterTuningJobName=name,
        HyperParameterTuningJobConfig=config or _config(),
        TrainingJobDefinition=one or _one(),
        **more,
    )["HyperParameterTuningJobArn"]


def _ended(service, name="tune"):
    def ready():
        found = service.sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
        return found if found["HyperParameterTuningJobStatus"] in ("Completed", "Failed", "Stopped") else None

    return until(ready, f"{name} has ended")


def _listed(service, name="tune", **more):
    return service.sagemaker.list_training_jobs_for_hyper_parameter_tuning_job(
        HyperParameterTuningJobName=name, **more
    )["TrainingJobSummaries"]


@pytest.mark.parametrize("objective", ["Minimize", "Maximize"])
def test_a_tuning_job_runs_its_training_jobs_and_finds_the_best(service, objective) -> None:
    tags = [{"Key": "team", "Value": "a"}]
    arn = _create(service, config=_config(objective=objective), Tags=tags)
    assert arn == "arn:aws:sagemaker:us-east-1:123456789012:hyper-parameter-tuning-job/tune"
    found = _ended(service)
    assert found["HyperParameterTuningJobStatus"] == "Completed"
    assert found["TrainingJobStatusCounters"]["Completed"] == 3
    assert found["ObjectiveStatusCounters"] == {"Succeeded": 3, "Pending": 0, "Failed": 0}
    assert service.sagemaker.list_tags(ResourceArn=arn)["Tags"] == tags
    rates = []
    for number, job in enumerate(service.runner.jobs, 1):
        assert re.fullmatch(f"tune-{number:03}-[0-9a-f]{{8}}", job.name)
        rate = job.request["HyperParameters"].pop("rate")
        assert 0.1 <= float(rate) <= 0.2
        rates.append(float(rate))
        assert job.request["HyperParameters"] == {"epochs": "2", "_tuning_objective_metric": "loss"}
        described = service.sagemaker.describe_training_job(TrainingJobName=job.name)
        assert described["TuningJobArn"] == arn
        assert described["FinalMetricDataList"][0]["MetricName"] == "loss"
    best = min(rates) if objective == "Minimize" else max(rates)
    shown = found["BestTrainingJob"]
    assert float(shown["TunedHyperParameters"]["rate"]) == best
    assert shown["FinalHyperParameterTuningJobObjectiveMetric"] == {"MetricName": "loss", "Value": best}
    assert shown["TrainingJobName"] == service.runner.jobs[rates.index(best)].name
    by_value = _listed(service, SortBy="FinalObjectiveMetricValue", SortOrder="Descending")
    assert [float(one["TunedHyperParameters"]["rate"]) for one in by_value] == sorted(rates, reverse=True)
    assert [one["TrainingJobName"] for one in _listed(service)] == [job.name for job in service.runner.jobs]
    assert len(_listed(service, StatusEquals="Failed")) == 0
    summary = service.sagemaker.list_hyper_parameter_tuning_jobs()["HyperParameterTuningJobSummaries"][0]
    assert (summary["HyperParameterTuningJobName"], summary["Strategy"]) == ("tune", "Random")
    with pytest.raises(ClientError, match="ResourceInUse"):
        _create(service)
    with pytest.raises(ClientError, match=r"ResourceNotFound.*tuning job with the name other"):
        service.sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName="other")


def test_ranges_of_every_kind_and_a_grid(service) -> None:
    integers = [
        {"Name": "depth", "MinValue": "1", "MaxValue": "3"},
        {"Name": "size", "MinValue": "8", "MaxValue": "1024", "ScalingType": "Logarithmic"},
    ]
    continuous = [
        {"Name": "keep", "MinValue": "0.5", "MaxValue": "0.99", "ScalingType": "ReverseLogarithmic"}
    ]
    choices = [{"Name": "rate", "Values": ["0.1", "0.3"]}, {"Name": "mode", "Values": ["a", "b"]}]
    ranges = {
        "IntegerParameterRanges": integers,
        "ContinuousParameterRanges": continuous,
        "CategoricalParameterRanges": choices,
    }
    _create(service, "random", _config(most=8, together=4, **ranges))
    assert _ended(service, "random")["HyperParameterTuningJobStatus"] == "Completed"
    assert service.runner.most <= 4
    for one in _listed(service, "random"):
        tuned = one["TunedHyperParameters"]
        assert tuned.keys() == {"depth", "size", "keep", "rate", "mode"}
        assert int(tuned["depth"]) in (1, 2, 3)
        assert 8 <= int(tuned["size"]) <= 1024
        assert 0.5 <= float(tuned["keep"]) <= 0.99
    # As long as there are combinations, whatever the limit is.
    _create(service, "grid", _config(most=50, strategy="Grid", CategoricalParameterRanges=choices))
    assert _ended(service, "grid")["HyperParameterTuningJobStatus"] == "Completed"
    tuned = [tuple(one["TunedHyperParameters"].values()) for one in _listed(service, "grid")]
    assert sorted(tuned) == [("0.1", "a"), ("0.1", "b"), ("0.3", "a"), ("0.3", "b")]


def test_several_definitions_take_turns(service) -> None:
    config = _config(most=4)
    objective = config.pop("HyperParameterTuningJobObjective")
    ranges = config.pop("ParameterRanges")
    several = []
    for name in ("a", "b"):
        one = {**_one(), "DefinitionName": name, "TuningObjective": objective, "HyperParameterRanges": ranges}
        resources = one.pop("ResourceConfig")
        # As SDK v2 has it.
        several.append({**one, "HyperParameterTuningResourceConfig": resources})
    tune = {"HyperParameterTuningJobConfig": config, "TrainingJobDefinitions": several}
    best = {"Get": "Steps.Tune.TrainingJobSummaries[0].TrainingJobName"}
    use = step("Use", "Training", training(Environment={"BEST": best}))
    service.pipeline(definition(step("Tune", "Tuning", tune), use))
    execution = service.start_pipeline()
    assert service.execution(execution, "Succeeded", "Failed")["PipelineExecutionStatus"] == "Succeeded"
    name = service.steps(execution)["Tune"]["Metadata"]["TuningJob"]["Arn"].rpartition("/")[2]
    assert [one["TrainingJobDefinitionName"] for one in _listed(service, name)] == ["a", "b", "a", "b"]


@pytest.mark.parametrize(
    ("environment", "metrics", "reason"),
    [
        ({"OUTCOME": "fail"}, METRICS, "All training jobs failed."),
        (
            {},
            [{"Name": "loss", "Regex": "accuracy=(.*)"}],
            "No objective metrics found after running 3 training jobs.",
        ),
        ({"LINES": "loss=nan"}, [{"Name": "loss", "Regex": "loss=(.*)"}], "No objective metrics found"),
        ({}, [{"Name": "loss", "Regex": "(?<loss"}], "No objective metrics found"),
        ({}, [{"Name": "loss", "Regex": "loss="}], "No objective metrics found"),
    ],
)
def test_a_tuning_job_that_fails(service, environment, metrics, reason) -> None:
    _create(service, one=_one(metrics, **environment))
    found = _ended(service)
    assert found["HyperParameterTuningJobStatus"] == "Failed"
    assert found["FailureReason"].startswith(reason)
    assert "BestTrainingJob" not in found


def test_a_stop_ends_the_training_jobs_and_starts_no_more(service) -> None:
    _create(service, config=_config(most=5, together=2), one=_one(OUTCOME="hold"))
    until(lambda: len(service.runner.running) == 2, "two run")
    client = service.sagemaker
    client.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName="tune")
    found = _ended(service)
    assert found["HyperParameterTuningJobStatus"] == "Stopped"
    assert found["TrainingJobStatusCounters"]["Stopped"] == 2
    assert len(service.runner.jobs) == 2
    client.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName="tune")  # no error, as on AWS


def test_enough_is_enough(service) -> None:
    config = {**_config(most=50), "TuningJobCompletionCriteria": {"TargetObjectiveMetricValue": 0.2}}
    _create(service, config=config)
    assert _ended(service)["TrainingJobStatusCounters"]["Completed"] == 1
    limited = _config(most=50, together=50)
    limited["ResourceLimits"]["MaxRuntimeInSeconds"] = 120
    _create(service, "other", limited)
    assert _ended(service, "other")["TrainingJobStatusCounters"]["Completed"] == 50


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"WarmStartConfig": WARM},
            "WarmStart",
        ),
        ({"Autotune": {"Mode": "Enabled"}}, "does not interpret Autotune"),
        ({"one": _one(metrics=[])}, "A metric is required for this hyperparameter tuning job objective."),
        ({"config": _config(strategy="Grid")}, "categorical hyperparameters only"),
        ({"config": _config(IntegerParameterRanges=[])}, "At least one hyperparameter range"),
        (
            {"config": _config(IntegerParameterRanges=[{"Name": "a", "MinValue": "2", "MaxValue": "1"}])},
            "The range of hyperparameter 'a' is invalid",
        ),
        (
            {"config": _config(IntegerParameterRanges=[{"Name": "a", "MinValue": "x", "MaxValue": "1"}])},
            "The range of hyperparameter 'a' is invalid",
        ),
        (
            {
                "config": _config(
                    ContinuousParameterRanges=[{**RATE, "MinValue": "0", "ScalingType": "Logarithmic"}]
                )
            },
            "does not allow Logarithmic scaling",
        ),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_requests_that_are_refused(service, change, expected) -> None:
    with pytest.raises(ClientError, match=f"ValidationException.*{expected}"):
        _create(service, **change)
    assert service.sagemaker.list_hyper_parameter_tuning_jobs()["HyperParameterTuningJobSummaries"] == []


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_the_tuning_step_that_an_sdk_makes(service, version) -> None:
    text = (GOLDEN / version / "tuning.json").read_text(encoding="utf-8")
    request = json.loads(text.replace("ACCOUNT", "123456789012"))["after"]["Tune"]
    request["TrainingJobDefinition"]["Environment"]["LINES"] = "loss={rate}"
    top = [{"Get": "Steps.Tune.TrainingJobSummaries[0].TrainingJobName"}, "output/model.tar.gz"]
    environment = {
        "MODEL": {"Std:Join": {"On": "/", "Values": ["s3:/", "bucket", *top]}},
        "BEST": {"Get": "Steps.Tune.BestTrainingJob.TrainingJobName"},
    }
    service.pipeline(
        definition(
            step("Tune", "Tuning", request), step("Use", "Training", training(Environment=environment))
        )
    )
    execution = service.start_pipeline()
    assert service.execution(execution, "Succeeded", "Failed")["PipelineExecutionStatus"] == "Succeeded"
    arn = service.steps(execution)["Tune"]["Metadata"]["TuningJob"]["Arn"]
    name = arn.rpartition("/")[2]
    assert re.fullmatch(r"[a-z0-9]{12}-Tune-[A-Za-z0-9]{10}", name)
    *tuned, use = service.runner.jobs
    best = max(tuned, key=lambda job: float(job.request["HyperParameters"]["rate"])).name
    assert len(tuned) == 2
    assert use.request["Environment"] == {"MODEL": f"s3://bucket/{best}/output/model.tar.gz", "BEST": best}
    tags = service.sagemaker.list_tags(ResourceArn=arn)["Tags"]
    assert {"Key": "sagemaker:pipeline-step-name", "Value": "Tune"} in tags


def test_a_tuning_step_that_is_stopped(service) -> None:
    tune = {
        "HyperParameterTuningJobConfig": _config(),
        "TrainingJobDefinition": _one(OUTCOME="hold"),
    }
    service.pipeline(definition(step("Tune", "Tuning", tune)))
    execution = service.start_pipeline()
    until(lambda: service.runner.running, "a training job runs")
    service.sagemaker.stop_pipeline_execution(PipelineExecutionArn=execution)
    service.execution(execution, "Stopped")
    assert service.steps(execution)["Tune"]["StepStatus"] == "Stopped"
    assert len(service.runner.jobs) == 1


def test_a_tuning_job_in_real_containers(world) -> None:
    """The toolkit hands the drawn value to the script, whose output is the objective."""
    script = """
        import argparse
        parser = argparse.ArgumentParser()
        parser.add_argument("--rate", type=float)
        parser.add_argument("--epochs")
        print("loss=%s" % parser.parse_args().rate)
    """
    job = world.script_mode(script).request
    algorithm = {**job["AlgorithmSpecification"], "MetricDefinitions": METRICS}
    members = ("RoleArn", "OutputDataConfig", "ResourceConfig", "StoppingCondition")
    one = {name: job[name] for name in members}
    request = {
        "HyperParameterTuningJobName": "real",
        "HyperParameterTuningJobConfig": _config(most=2, together=2),
        "TrainingJobDefinition": {
            **one,
            "AlgorithmSpecification": algorithm,
            "StaticHyperParameters": job["HyperParameters"],
        },
    }

    async def main():
        async with world.runner() as runner:
            service = SageMaker(runner, None, Faults(), None)
            runner.on_status(service.jobs.progress)
            runner.on_line(service.jobs.line)
            await service.handle("CreateHyperParameterTuningJob", request)
            await asyncio.wait_for(service.tuning.finished("real"), 120)
            named = {"HyperParameterTuningJobName": "real"}
            found = await service.handle("DescribeHyperParameterTuningJob", named)
            trials = await service.handle("ListTrainingJobsForHyperParameterTuningJob", named)
            return found, trials["TrainingJobSummaries"]

    found, trials = asyncio.run(main())
    assert found["HyperParameterTuningJobStatus"] == "Completed", (found, world.lines)
    best = min(float(one["TunedHyperParameters"]["rate"]) for one in trials)
    assert found["BestTrainingJob"]["FinalHyperParameterTuningJobObjectiveMetric"]["Value"] == best
    assert len(trials) == 2
