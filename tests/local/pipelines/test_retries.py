"""RetryPolicies, and the faults of a pipeline's own calls, through a real client."""

from __future__ import annotations

import json

import pytest
from botocore.exceptions import ClientError

from smssh_plugin.local.faults import Fault
from smssh_plugin.local.pipelines.retries import Retries, read_retries
from smssh_plugin.local.service_error import ServiceError
from tests.local.service_harness import FAILURES, IMAGE, definition, processing, running, step, training
from tests.waiting import until

QUOTA = "The account-level service limit 'ml.m5.large for processing job usage' is 0 Instances"


@pytest.fixture
def service():
    with running() as one:
        yield one


def _policy(*faults, **more):
    return {"ExceptionType": list(faults), "IntervalSeconds": 0, **more}


def _train(outcome="succeed", *policies):
    return step("S", "Training", training(Environment={"OUTCOME": outcome}), RetryPolicies=list(policies))


def _ended(service, *steps):
    service.pipeline(definition(*steps))
    arn = service.start_pipeline()
    status = service.execution(arn, "Succeeded", "Failed", "Stopped")["PipelineExecutionStatus"]
    return arn, status, service.steps(arn)


def _fail(service, operation, code, **more):
    service.sessions.faults.add(Fault(f"sagemaker:{operation}", code, **more))


@pytest.mark.parametrize("fault", ["internal", "capacity"])
def test_a_job_that_was_not_at_fault_runs_again(service, fault) -> None:
    name = {"internal": "SageMaker.JOB_INTERNAL_ERROR", "capacity": "SageMaker.CAPACITY_ERROR"}[fault]
    _, status, steps = _ended(service, _train(f"{fault},{fault},succeed", _policy(name, MaxAttempts=2)))
    assert status == "Succeeded"
    assert steps["S"]["AttemptCount"] == 3
    assert "FailureReason" not in steps["S"]
    jobs = [job.name for job in service.runner.jobs]
    assert len(set(jobs)) == 3
    assert steps["S"]["Metadata"]["TrainingJob"]["Arn"].endswith(jobs[-1])


@pytest.mark.parametrize(
    ("outcome", "policies", "attempts"),
    [
        ("internal", [], 1),
        ("internal", [_policy("SageMaker.CAPACITY_ERROR")], 1),
        ("internal", [_policy("SageMaker.JOB_INTERNAL_ERROR", MaxAttempts=0)], 1),
        ("internal", [_policy("SageMaker.JOB_INTERNAL_ERROR", ExpireAfterMin=0)], 1),
        ("internal", [_policy("SageMaker.JOB_INTERNAL_ERROR")], 6),
        ("capacity", [_policy("SageMaker.JOB_INTERNAL_ERROR", "SageMaker.CAPACITY_ERROR", MaxAttempts=1)], 2),
        ("fail", [_policy("SageMaker.JOB_INTERNAL_ERROR", "Step.SERVICE_FAULT")], 1),
    ],
)
def test_when_retries_end(service, outcome, policies, attempts) -> None:
    _, status, steps = _ended(service, _train(outcome, *policies))
    assert (status, steps["S"]["AttemptCount"]) == ("Failed", attempts)
    assert len(service.runner.jobs) == attempts
    if outcome != "fail":
        assert steps["S"]["FailureReason"] == FAILURES[outcome]


def test_a_fault_set_for_an_operation_meets_a_pipelines_own_calls(service) -> None:
    _fail(service, "CreateProcessingJob", "ResourceLimitExceeded", message=QUOTA)
    arn, status, steps = _ended(service, step("P", "Processing", processing()))
    assert status == "Failed"
    # As executions that people published have it.
    assert steps["P"]["FailureReason"] == (
        f"ClientError: Failed to invoke sagemaker:CreateProcessingJob. Error Details: {QUOTA}\n"
        f"Retry not appropriate on execution of step with PipelineExecutionArn {arn} and StepId P."
        " No retry policy configured for the exception type SAGEMAKER_RESOURCE_LIMIT."
    )
    assert steps["P"]["AttemptCount"] == 1
    assert service.runner.jobs == []


@pytest.mark.parametrize(
    ("kind", "operation"),
    [
        ("Processing", "CreateProcessingJob"),
        ("Model", "CreateModel"),
        ("RegisterModel", "CreateModelPackage"),
    ],
)
def test_a_quota_is_tried_again_where_a_policy_says_so(service, kind, operation) -> None:
    specification = {"Containers": [{"Image": IMAGE}], "SupportedContentTypes": ["text/csv"]}
    specification["SupportedResponseMIMETypes"] = ["text/csv"]
    arguments = {
        "Processing": processing(),
        "Model": {"PrimaryContainer": {"Image": IMAGE}},
        "RegisterModel": {"ModelPackageGroupName": "g", "InferenceSpecification": specification},
    }[kind]
    _fail(service, operation, "ResourceLimitExceeded", message=QUOTA, times=2)
    policies = [_policy("SageMaker.RESOURCE_LIMIT", MaxAttempts=2)]
    _, status, steps = _ended(service, step("S", kind, arguments, RetryPolicies=policies))
    assert (status, steps["S"]["AttemptCount"]) == ("Succeeded", 3)


@pytest.mark.parametrize(
    "fault", [{"code": "ThrottlingException"}, {"code": "InternalFailure", "status": 500}, {"hang_up": True}]
)
@pytest.mark.parametrize("operation", ["CreateTrainingJob", "DescribeTrainingJob"])
def test_throttling_and_service_faults_are_retried_without_a_policy(service, operation, fault) -> None:
    _fail(service, operation, **{"code": "", "times": 1, **fault})
    uses = training(Environment={"NAME": {"Get": "Steps.S.TrainingJobName"}})
    _, status, steps = _ended(service, _train(), step("T", "Training", uses))
    assert status == "Succeeded"
    assert steps["S"]["AttemptCount"] == (2 if operation == "CreateTrainingJob" else 1)


def test_a_policy_replaces_what_the_service_does_by_itself(service) -> None:
    _fail(service, "CreateTrainingJob", "ThrottlingException", message="Rate exceeded")
    _, status, steps = _ended(service, _train("succeed", _policy("Step.THROTTLING", MaxAttempts=0)))
    assert (status, steps["S"]["AttemptCount"]) == ("Failed", 1)
    assert steps["S"]["FailureReason"] == (
        "ClientError: Failed to invoke sagemaker:CreateTrainingJob. Error Details: Rate exceeded"
    )


def test_stop_while_a_retry_waits(service) -> None:
    policy = _policy("SageMaker.JOB_INTERNAL_ERROR", IntervalSeconds=43_200)
    service.pipeline(definition(_train("internal", policy)))
    arn = service.start_pipeline()
    until(
        lambda: service.runner.jobs and service.steps(arn)["S"]["StepStatus"] == "Starting", "the retry waits"
    )
    service.sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn)
    service.execution(arn, "Stopped")
    assert service.steps(arn)["S"]["StepStatus"] == "Stopped"
    assert len(service.runner.jobs) == 1


def test_a_stop_that_is_throttled_still_stops_the_job(service) -> None:
    service.pipeline(definition(_train("hold")))
    arn = service.start_pipeline()
    until(lambda: service.runner.running, "the job runs")
    _fail(service, "StopTrainingJob", "ThrottlingException", times=1)
    service.sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn)
    service.execution(arn, "Stopped")


def test_more_steps_start_as_soon_as_more_may_run(service) -> None:
    steps = [step(f"S{n}", "Training", training(Environment={"OUTCOME": "hold"})) for n in range(3)]
    service.pipeline(definition(*steps), ParallelismConfiguration={"MaxParallelExecutionSteps": 1})
    arn = service.start_pipeline()
    until(lambda: service.runner.running, "one runs")
    service.sagemaker.update_pipeline_execution(
        PipelineExecutionArn=arn, ParallelismConfiguration={"MaxParallelExecutionSteps": 3}
    )
    until(lambda: len(service.runner.running) == 3, "all run, though none has ended")
    for name in list(service.runner.running):
        service.release(name)
    service.execution(arn, "Succeeded")


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        ("x", "RetryPolicies: Expecting start of Json Array."),
        ({}, "RetryPolicies: Expecting start of Json Array."),
        (["x"], "RetryPolicies: Expecting start of Json Object."),
        ([None], "RetryPolicies: Expecting start of Json Object."),
        ([{}], "ExceptionType: Expecting start of Json Array."),
        ([{"ExceptionType": "Step.THROTTLING"}], "ExceptionType: Expecting start of Json Array."),
        ([{"ExceptionType": []}], "ExceptionType must not be empty."),
        (
            [{"ExceptionType": [["Step.THROTTLING"]]}],
            "for 'ExceptionType' failed to satisfy enum value set: [",
        ),
        (
            [_policy("Step.THROTTLING", MaxAttempts=21)],
            "'21' for 'MaxAttempts' must be an integer from 0 to 20",
        ),
        ([_policy("Step.THROTTLING", MaxAttempts=-1)], "'-1' for 'MaxAttempts'"),
        ([_policy("Step.THROTTLING", MaxAttempts=1.5)], "'1.5' for 'MaxAttempts'"),
        ([_policy("Step.THROTTLING", MaxAttempts=True)], "'True' for 'MaxAttempts'"),
        ([_policy("Step.THROTTLING", MaxAttempts="3")], "'3' for 'MaxAttempts'"),
        (
            [_policy("Step.THROTTLING", ExpireAfterMin=14_401)],
            "'14401' for 'ExpireAfterMin' must be an integer",
        ),
        ([_policy("Step.THROTTLING", IntervalSeconds=43_201)], "'43201' for 'IntervalSeconds'"),
        (
            [_policy("Step.THROTTLING", BackoffRate=-1)],
            "'-1' for 'BackoffRate' must be a number of at least 0",
        ),
        ([_policy("Step.THROTTLING", BackoffRate=float("inf"))], "'inf' for 'BackoffRate'"),
        (
            [_policy("Step.THROTTLING", MaxAttempts=1, ExpireAfterMin=1)],
            "Only one of MaxAttempts or ExpireAfterMin",
        ),
        ([_policy("Step.THROTTLING", MaxRetries=1)], "Unknown member 'MaxRetries'"),
    ],
)
def test_policies_that_are_refused(service, policies, expected) -> None:
    with pytest.raises(ClientError) as caught:
        service.pipeline(definition({**_train(), "RetryPolicies": policies}))
    error = caught.value.response["Error"]
    assert error["Code"] == "ValidationException"
    assert error["Message"].startswith("Unable to parse pipeline definition. Step 'S': RetryPolicies: ")
    assert expected in error["Message"]


def test_intervals_grow_and_are_bounded() -> None:
    now = [0.0]
    policies = read_retries(json.loads('[{"ExceptionType": ["Step.THROTTLING"], "ExpireAfterMin": 1}]'))
    retries = Retries(policies, lambda: now[0])
    assert [retries.wait("Step.THROTTLING") for _ in range(4)] == [1, 2, 4, 8]
    now[0] = 60.0
    assert retries.wait("Step.THROTTLING") is None
    # Of a fault that no policy is for, the service's own way.
    assert [retries.wait("Step.SERVICE_FAULT") for _ in range(6)] == [1, 2, 4, 8, 16, None]
    assert retries.wait("SageMaker.RESOURCE_LIMIT") is None
    steep = Retries(read_retries([_policy("Step.THROTTLING", IntervalSeconds=43_200, BackoffRate=1e308)]))
    assert [steep.wait("Step.THROTTLING") for _ in range(3)] == [43_200, 864_000, 864_000]


def test_a_step_without_jobs_has_no_policies(service) -> None:
    condition = {
        "Conditions": [{"Type": "Equals", "LeftValue": 1, "RightValue": 1}],
        "IfSteps": [],
        "ElseSteps": [],
    }
    policies = [_policy("Step.THROTTLING")]
    with pytest.raises(ClientError, match="a Condition step has no RetryPolicies"):
        service.pipeline(definition(step("C", "Condition", condition, RetryPolicies=policies)))


def test_what_no_policy_can_name_is_not_retried(service) -> None:
    assert ServiceError("ValidationException", "x").status == 400
    _fail(service, "CreateTrainingJob", "ValidationException", message="no")
    _, status, steps = _ended(service, _train("succeed", _policy("Step.SERVICE_FAULT", "Step.THROTTLING")))
    assert (status, steps["S"]["AttemptCount"]) == ("Failed", 1)
    assert steps["S"]["FailureReason"].endswith("Error Details: no")
