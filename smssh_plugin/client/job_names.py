"""The names of the jobs of pipeline steps.

Pipelines call their jobs `pipelines-<execution>-<step>-<random>`, and ARNs have such a name in lower case: then only
the job's own nodes and the list of jobs have it as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import SmsshError
from .managed_nodes import living_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..aws.session import AwsSession

__all__ = [
    "StepJob",
    "execution_part",
    "known",
    "listed_name",
    "names_of",
    "nodes_of_steps",
    "own_names",
]

# API operation, and the names of its answer's list and of the job's name there, by kind.
_LIST = {
    "training": ("list_training_jobs", "TrainingJobSummaries", "TrainingJobName"),
    "processing": ("list_processing_jobs", "ProcessingJobSummaries", "ProcessingJobName"),
    "transform": ("list_transform_jobs", "TransformJobSummaries", "TransformJobName"),
}


@dataclass(frozen=True)
class StepJob:
    """The job that runs a pipeline step.

    Attributes:
        names: the names the job can have; ARNs may be in lower case where the job's name is not.
        kind: training, processing or transform.
        step: the name of the step.
        inside: the name of the step without the index of its iteration, where it ends in that; "" elsewhere. All
            iterations of a ForEach step make one request, and so their nodes' tags have that name.
    """

    names: tuple[str, ...]
    kind: str
    step: str
    inside: str = ""


def names_of(arn: str, step: str) -> tuple[str, ...]:
    """The job's name as in the ARN, and with the capitals that the service takes out of ARNs put back.

    Pipelines call their jobs `pipelines-<execution>-<step>-<random>`, and may cut the step's name short.
    """
    name = arn.rpartition("/")[2]
    dash = len(execution_part(name))
    if not dash:
        return (name,)
    rest = name[dash:]
    same = 0
    while same < min(len(rest), len(step)) and rest[same].lower() == step[same].lower():
        same += 1
    cased = name[:dash] + step[:same] + rest[same:]
    return (name,) if cased == name else (name, cased)


def known(job: StepJob) -> bool:
    """Whether one of the names of a job is sure to be its own.

    Of `pipelines-<execution>-<step>-<random>`, what the last part was cannot be told where its ARN is in lower case.
    """
    return not job.step or job.names[0] != job.names[0].lower()


def own_names(aws: AwsSession, jobs: list[StepJob]) -> set[str]:
    """The own names of steps' jobs, as nodes that are online say; `known` tells which jobs need it."""
    return {str(info["Name"]) for info in nodes_of_steps(aws, jobs, [])}


def nodes_of_steps(
    aws: AwsSession, jobs: list[StepJob], filters: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """The online nodes that carry the steps of these jobs, and are called as those are.

    Args:
        aws: the AWS session.
        jobs: the jobs, at most half of `NAMES_A_FILTER`.
        filters: further filters of tags.
    """
    names = {job.names[0].lower() for job in jobs}
    carried = {name for job in jobs for name in (job.step, job.inside) if name}
    steps = {"Key": "tag:SMSSHStep", "Values": sorted(carried)}
    for info in living_nodes(aws, [steps, *filters]):
        if str(info.get("Name", "")).lower() in names:
            yield info


def listed_name(aws: AwsSession, job: StepJob) -> str | None:
    """The own name of a step's job as SageMaker lists it; None where it does not, or does not let us see."""
    if known(job) or job.kind not in _LIST or not (start := execution_part(job.names[0])):
        return None
    operation, summaries, key = _LIST[job.kind]
    try:
        for page in aws.pages("sagemaker", operation, NameContains=start, MaxResults=100):
            for one in page.get(summaries, []):
                if str(one[key]).lower() == job.names[0]:
                    return str(one[key])
    except SmsshError:  # it is asked for where all else failed, whose words are better
        return None
    return None


def execution_part(name: str) -> str:
    """What the names of all jobs of a pipeline's execution begin with; "" where this is not the name of such a job."""
    head, dash = "pipelines-", name.find("-", len("pipelines-")) + 1
    return name[:dash] if name.startswith(head) and dash else ""
