"""The model registry of the local emulator: groups and packages are recorded, described, listed and approved.

No container of a package is looked at. The words of refusals are the service's, as the SageMaker SDK reads them
("does not exist" decides there whether a group is made).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..service_error import ServiceError
from .resources import Store, arn, page
from .shapes import validation_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["GroupRecord", "PackageRecord", "Registry"]

_UPDATED = (
    "ModelApprovalStatus",
    "ApprovalDescription",
    "InferenceSpecification",
    "SourceUri",
    "ModelCard",
    "ModelLifeCycle",
)
"""The members that UpdateModelPackage replaces."""


@dataclass
class GroupRecord:
    """One model package group. Times are seconds since the epoch."""

    name: str
    arn: str
    number: int
    description: str | None
    versions: int = 0
    """How many have been registered: a version that was deleted is not given again."""
    created: float = field(default_factory=time.time)


@dataclass
class PackageRecord:
    """One model package: a version of a group, or one that has a name instead."""

    arn: str
    number: int
    request: dict[str, Any]
    group: str | None
    version: int | None
    created: float = field(default_factory=time.time)
    modified: float | None = None

    @property
    def name(self) -> str:
        """Its name; of a version, that of its group."""
        return self.group or str(self.request["ModelPackageName"])


class Registry:
    """Create, describe, list, update and delete model packages and their groups."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.groups: dict[str, GroupRecord] = {}
        self.packages: dict[str, PackageRecord] = {}
        """By ARN."""

    def operations(self) -> dict[str, Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]]:
        """The API operations, by name."""
        return {
            "CreateModelPackageGroup": self._create_group,
            "DescribeModelPackageGroup": self._describe_group,
            "ListModelPackageGroups": self._list_groups,
            "DeleteModelPackageGroup": self._delete_group,
            "CreateModelPackage": self._create,
            "DescribeModelPackage": self._describe,
            "ListModelPackages": self._list,
            "UpdateModelPackage": self._update,
            "DeleteModelPackage": self._delete,
        }

    def has(self, resource: str) -> bool:
        """Whether there is a package or a group of that ARN."""
        return resource in self.packages or any(group.arn == resource for group in self.groups.values())

    def _group(self, name_or_arn: str) -> GroupRecord:
        name = name_or_arn.rpartition("/")[2]
        record = self.groups.get(name)
        if record is None or name_or_arn not in (record.name, record.arn):
            missing = name_or_arn if name_or_arn.startswith("arn:") else arn(f"model-package-group/{name}")
            raise validation_error(f"ModelPackageGroup {missing} does not exist.")
        return record

    def _find(self, name_or_arn: str) -> PackageRecord:
        resource = name_or_arn if name_or_arn.startswith("arn:") else arn(f"model-package/{name_or_arn}")
        record = self.packages.get(resource)
        if record is None:
            raise validation_error(f"ModelPackage {resource} does not exist.")
        return record

    async def _create_group(self, request: dict[str, Any]) -> dict[str, Any]:
        name = request["ModelPackageGroupName"]
        resource = arn(f"model-package-group/{name}")
        if name in self.groups:
            raise validation_error(f"Model Package Group already exists: {resource}")
        description = request.get("ModelPackageGroupDescription")
        self.groups[name] = GroupRecord(name, resource, self._store.next_number(), description)
        self._store.tag(resource, request.get("Tags", ()))
        return {"ModelPackageGroupArn": resource}

    @staticmethod
    def _group_summary(record: GroupRecord) -> dict[str, Any]:
        return {
            "ModelPackageGroupName": record.name,
            "ModelPackageGroupArn": record.arn,
            "ModelPackageGroupDescription": record.description,
            "CreationTime": record.created,
            "ModelPackageGroupStatus": "Completed",
            "CreatedBy": {},
        }

    async def _describe_group(self, request: dict[str, Any]) -> dict[str, Any]:
        return self._group_summary(self._group(request["ModelPackageGroupName"]))

    async def _list_groups(self, request: dict[str, Any]) -> dict[str, Any]:
        by_name = request.get("SortBy") == "Name"
        found, token = page(
            (group for group in self.groups.values() if _wanted(group, request)),
            request,
            (lambda group: group.name) if by_name else (lambda group: group.created),
            order="Ascending",
        )
        return {
            "ModelPackageGroupSummaryList": [self._group_summary(group) for group in found],
            "NextToken": token,
        }

    async def _delete_group(self, request: dict[str, Any]) -> dict[str, Any]:
        record = self._group(request["ModelPackageGroupName"])
        if any(package.group == record.name for package in self.packages.values()):
            raise ServiceError(
                "ConflictException",
                f"Model Package Group {record.arn} cannot be deleted because it still contains Model Packages.",
            )
        del self.groups[record.name]
        self._store.tags.pop(record.arn, None)
        return {}

    async def _create(self, request: dict[str, Any]) -> dict[str, Any]:
        named, grouped = request.get("ModelPackageName"), request.get("ModelPackageGroupName")
        if (named is None) == (grouped is None):
            raise validation_error(
                "Exactly one of ModelPackageName and ModelPackageGroupName must be specified."
            )
        version = None
        if grouped is not None:
            group = self._group(grouped)
            group.versions += 1
            version = group.versions
            grouped = group.name
            resource = arn(f"model-package/{group.name}/{version}")
        else:
            resource = arn(f"model-package/{named}")
            if resource in self.packages:
                raise validation_error(f"Model Package already exists: {resource}")
        self.packages[resource] = PackageRecord(
            resource, self._store.next_number(), request, grouped, version
        )
        self._store.tag(resource, request.get("Tags", ()))
        return {"ModelPackageArn": resource}

    @staticmethod
    def _summary(record: PackageRecord) -> dict[str, Any]:
        # One of a group waits for its approval unless the request says otherwise.
        approval = record.request.get("ModelApprovalStatus") or (
            "PendingManualApproval" if record.group else None
        )
        return {
            "ModelPackageName": record.name,
            "ModelPackageGroupName": record.group,
            "ModelPackageVersion": record.version,
            "ModelPackageArn": record.arn,
            "ModelPackageDescription": record.request.get("ModelPackageDescription"),
            "CreationTime": record.created,
            "ModelPackageStatus": "Completed",
            "ModelApprovalStatus": approval,
        }

    async def _describe(self, request: dict[str, Any]) -> dict[str, Any]:
        record = self._find(request["ModelPackageName"])
        return {
            **record.request,
            **self._summary(record),
            "ModelPackageStatusDetails": {"ValidationStatuses": [], "ImageScanStatuses": []},
            "LastModifiedTime": record.modified,
        }

    async def _list(self, request: dict[str, Any]) -> dict[str, Any]:
        group = request.get("ModelPackageGroupName")
        if group is not None:
            group = self._group(group).name
        kind = request.get("ModelPackageType") or ("Versioned" if group is not None else "Unversioned")
        status = request.get("ModelApprovalStatus")

        def wanted(record: PackageRecord) -> bool:
            return (
                _wanted(record, request)
                and (group is None or record.group == group)
                and (kind == "Both" or (record.group is not None) == (kind == "Versioned"))
                and status in (None, self._summary(record)["ModelApprovalStatus"])
            )

        by_name = request.get("SortBy") == "Name"
        found, token = page(
            filter(wanted, self.packages.values()),
            request,
            (lambda record: record.name) if by_name else (lambda record: record.created),
            order="Ascending",
        )
        return {"ModelPackageSummaryList": [self._summary(record) for record in found], "NextToken": token}

    async def _update(self, request: dict[str, Any]) -> dict[str, Any]:
        record = self._find(request["ModelPackageArn"])
        changed = {name: request[name] for name in _UPDATED if request.get(name) is not None}
        metadata = {
            **(record.request.get("CustomerMetadataProperties") or {}),
            **(request.get("CustomerMetadataProperties") or {}),
        }
        for name in request.get("CustomerMetadataPropertiesToRemove") or ():
            metadata.pop(name, None)
        more = request.get("AdditionalInferenceSpecificationsToAdd") or []
        specifications = [*(record.request.get("AdditionalInferenceSpecifications") or []), *more]
        record.request = {
            **record.request,
            **changed,
            "CustomerMetadataProperties": metadata or None,
            "AdditionalInferenceSpecifications": specifications or None,
        }
        record.modified = time.time()
        return {"ModelPackageArn": record.arn}

    async def _delete(self, request: dict[str, Any]) -> dict[str, Any]:
        record = self._find(request["ModelPackageName"])
        del self.packages[record.arn]
        self._store.tags.pop(record.arn, None)
        return {}


def _wanted(record: GroupRecord | PackageRecord, request: dict[str, Any]) -> bool:
    return (
        request.get("NameContains", "").lower() in record.name.lower()
        and record.created > request.get("CreationTimeAfter", 0)
        and record.created < request.get("CreationTimeBefore", float("inf"))
    )
