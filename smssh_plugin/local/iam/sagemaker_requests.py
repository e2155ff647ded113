"""Requests of SageMaker as IAM sees them: actions, resources, condition keys; and the roles that they pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .account import ACCOUNT, REGION
from .session_requests import tag_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["SageMakerRequests"]

_KINDS = {
    "TrainingJobName": "training-job",
    "ProcessingJobName": "processing-job",
    "TransformJobName": "transform-job",
    "HyperParameterTuningJobName": "hyper-parameter-tuning-job",
    "ModelPackageGroupName": "model-package-group",
    "PipelineName": "pipeline",
    "ModelName": "model",
}
"""A member that names a resource -> its type. CreateTransformJob has a model as well, which is not a resource of it."""
_ARNS = ("PipelineExecutionArn", "ResourceArn", "ModelPackageName", "ModelPackageArn")
_WITHOUT = (
    "ListTrainingJobs",
    "ListProcessingJobs",
    "ListTransformJobs",
    "ListHyperParameterTuningJobs",
    "ListModels",
    "ListPipelines",
    "ListModelPackages",
    "ListModelPackageGroups",
)
"""Operations without a resource, whatever they filter by."""


class SageMakerRequests:
    """Reads requests of SageMaker.

    Args:
        tags: the tags of a resource, by its ARN.
    """

    def __init__(self, tags: Callable[[str], Mapping[str, str]]) -> None:
        self._tags = tags

    def asked(self, operation: str, members: Mapping[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
        """What a call asks for: actions, each with a resource and its own keys."""
        resource = _resource(operation, members)
        request_tags = tag_keys(_tags_of(members))
        keys: dict[str, Any] = dict(request_tags)
        if operation == "DeleteTags":
            keys["aws:TagKeys"] = [str(key) for key in members.get("TagKeys") or ()]
        for key, value in self._tags(resource).items():
            keys |= {f"aws:ResourceTag/{key}": value, f"sagemaker:ResourceTag/{key}": value}
        found: list[tuple[str, str, dict[str, Any]]] = [(f"sagemaker:{operation}", resource, keys)]
        if request_tags and operation.startswith("Create"):
            # "Control creation of SageMaker resources with tags": who creates with tags needs AddTags as well.
            found.append(("sagemaker:AddTags", resource, request_tags))
        passed = {"iam:PassedToService": "sagemaker.amazonaws.com"}
        found += [("iam:PassRole", role, passed) for role in _roles(members)]
        return found


def _resource(operation: str, members: Mapping[str, Any]) -> str:
    if operation in _WITHOUT:
        return f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:*"
    for member, kind in _KINDS.items():
        name = members.get(member)
        if isinstance(name, str) and name:
            return name if name.startswith("arn:") else f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:{kind}/{name}"
    named = (members.get(member) for member in _ARNS)
    arn = next((text for text in named if isinstance(text, str) and text.startswith("arn:")), None)
    return arn or f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:*"


def _tags_of(members: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    tags = members.get("Tags")
    return [tag for tag in tags if isinstance(tag, dict)] if isinstance(tags, list) else []


def _roles(members: Mapping[str, Any]) -> list[str]:
    """The roles that a request passes to SageMaker, each once."""
    found = [members.get("RoleArn"), members.get("ExecutionRoleArn")]
    definitions = [members.get("TrainingJobDefinition"), *(members.get("TrainingJobDefinitions") or ())]
    found += [each.get("RoleArn") for each in definitions if isinstance(each, dict)]
    return list(dict.fromkeys(role for role in found if isinstance(role, str) and role))
