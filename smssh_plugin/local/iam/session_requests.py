"""Requests of Systems Manager and Session Manager as IAM sees them: actions, resources, condition keys.

Each action has the keys that the service authorization reference lists for it, and no others: a condition on another
key must not hold here. Where the reference and public evidence differ, the comment says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .account import ACCOUNT, REGION

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Sessions", "channel_action", "tag_keys"]

_ANY = f"arn:aws:ssm:{REGION}:{ACCOUNT}:*"
"""What AWS's messages name as the resource of actions that have none."""
_PREFERENCES = "SSM-SessionManagerRunShell"
_NATIVE = "sagemaker-training-job:"
_CHANNELS = {
    ("POST", "control-channel"): "CreateControlChannel",
    ("GET", "control-channel"): "OpenControlChannel",
    ("POST", "data-channel"): "CreateDataChannel",
    ("GET", "data-channel"): "OpenDataChannel",
}
_NODE_TAGS = ("DeregisterManagedInstance", "UpdateManagedInstanceRole")
_OWN_DOCUMENTS = (
    "CreateDocument",
    "DeleteDocument",
    "DescribeDocument",
    "GetDocument",
    "UpdateDocument",
    "UpdateDocumentDefaultVersion",
)
_SETTINGS = ("GetServiceSetting", "ResetServiceSetting", "UpdateServiceSetting")
_PARAMETERS = ("DeleteParameter", "GetParameter", "GetParameterHistory", "GetParameters", "PutParameter")


class Sessions:
    """Reads requests of SSM.

    Args:
        node_tags: the tags of a node, by its id; None for one that does not exist.
        session: the user id and the target of a session's owner, by the session's id; None for one that does not
            exist.
    """

    def __init__(
        self,
        node_tags: Callable[[str], Mapping[str, str] | None],
        session: Callable[[str], tuple[str, str] | None],
    ) -> None:
        self._node_tags = node_tags
        self._session = session

    def asked(self, operation: str, members: Mapping[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
        """What a call asks for: actions, each with a resource and its own keys."""
        action = f"ssm:{operation}"
        if operation == "CreateActivation":
            return self._activation(members)
        if operation == "StartSession":
            return self._start(members)
        if operation in ("TerminateSession", "ResumeSession"):
            return [self._of_session(action, str(members.get("SessionId", "")))]
        if operation in ("AddTagsToResource", "RemoveTagsFromResource", "ListTagsForResource"):
            return [self._of_tags(action, members)]
        if operation in _NODE_TAGS:
            node = str(members.get("InstanceId", ""))
            return [(action, _node(node), self._tags(node, "ssm:resourceTag"))]
        if operation in ("UpdateInstanceInformation", "ListInstanceAssociations"):
            return [(action, _node(str(members.get("InstanceId", ""))), {})]
        if operation == "GetConnectionStatus":
            return [(action, _node(str(members.get("Target", ""))), {})]
        if operation in _OWN_DOCUMENTS:
            return [(action, _document(str(members.get("Name", ""))), {})]
        if operation in _SETTINGS:
            name = str(members.get("SettingId", ""))
            arn = name if name.startswith("arn:") else f"arn:aws:ssm:{REGION}:{ACCOUNT}:servicesetting{name}"
            return [(action, arn, {})]
        if operation in _PARAMETERS:
            names = members.get("Names") or [members.get("Name", "")]
            return [(action, _parameter(str(name)), {}) for name in names]
        if operation == "GetParametersByPath":
            return [(action, _parameter(str(members.get("Path", ""))), {})]
        return [(action, _ANY, {})]

    def _activation(self, members: Mapping[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
        tags = tag_keys(members.get("Tags"))
        name = str(members.get("IamRole", ""))
        role = f"arn:aws:iam::{ACCOUNT}:role/{name.removeprefix('/')}"
        found: list[tuple[str, str, dict[str, Any]]] = [("ssm:CreateActivation", _ANY, tags)]
        if tags:
            # Not in the reference: sagemaker-ssh-helper's policies and those of AWS's charts allow it on the role.
            found.append(("ssm:AddTagsToResource", role, tags))
        return [*found, ("iam:PassRole", role, {"iam:PassedToService": "ssm.amazonaws.com"})]

    def _start(self, members: Mapping[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
        target = str(members.get("Target", ""))
        document = str(members.get("DocumentName") or _PREFERENCES)
        keys: dict[str, Any] = {"ssm:SessionDocumentAccessCheck": "true"}
        if target.startswith(_NATIVE):
            # AWS documents this key for such targets, and `*` as their resource.
            job = target.removeprefix(_NATIVE).rpartition("_")[0]
            resource = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:training-job/{job}"
            keys["ssm:resourceTag/aws:ssmmessages:target-id"] = target
        else:
            resource = _node(target)
            keys |= self._tags(target, "ssm:resourceTag") | self._tags(target, "aws:ResourceTag")
        return [("ssm:StartSession", resource, keys), ("ssm:StartSession", _document(document), {})]

    def _of_session(self, action: str, session: str) -> tuple[str, str, dict[str, Any]]:
        resource = f"arn:aws:ssm:{REGION}:{ACCOUNT}:session/{session}"
        found = self._session(session)
        if found is None:
            return action, resource, {}
        userid, target = found
        prefix = "ssm:resourceTag/aws:ssmmessages"
        return action, resource, {f"{prefix}:session-id": userid, f"{prefix}:target-id": target}

    def _of_tags(self, action: str, members: Mapping[str, Any]) -> tuple[str, str, dict[str, Any]]:
        kind, name = members.get("ResourceType"), str(members.get("ResourceId", ""))
        tags = self._tags(name, "aws:ResourceTag") if kind == "ManagedInstance" else {}
        resource = {
            "ManagedInstance": _node(name),
            "Document": _document(name),
            "Parameter": _parameter(name),
        }.get(str(kind), f"arn:aws:ssm:{REGION}:{ACCOUNT}:{str(kind).lower()}/{name}")
        if action.endswith(":AddTagsToResource"):
            tags |= tag_keys(members.get("Tags"))
        elif action.endswith(":RemoveTagsFromResource"):
            tags |= {"aws:TagKeys": [str(key) for key in members.get("TagKeys") or ()]}
        return action, resource, tags

    def _tags(self, node: str, prefix: str) -> dict[str, Any]:
        return {f"{prefix}/{key}": value for key, value in (self._node_tags(node) or {}).items()}


def channel_action(method: str, path: str) -> str | None:
    """The action of a websocket, or of the call before it; None for another path."""
    parts = path.split("/")
    if len(parts) != 4 or parts[:2] != ["", "v1"]:
        return None
    action = _CHANNELS.get((method, parts[2]))
    return None if action is None else f"ssmmessages:{action}"


def tag_keys(tags: Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
    """The keys of the tags in a request, `[{"Key": ..., "Value": ...}]`."""
    found = [(str(tag.get("Key", "")), str(tag.get("Value", ""))) for tag in tags or ()]
    if not found:
        return {}
    return {
        **{f"aws:RequestTag/{key}": value for key, value in found},
        "aws:TagKeys": [key for key, _ in found],
    }


def _node(name: str) -> str:
    kind = "managed-instance" if name.startswith("mi-") else "instance"
    service = "ssm" if kind == "managed-instance" else "ec2"
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{kind}/{name}"


def _document(name: str) -> str:
    """Documents of AWS have no account."""
    if name.startswith("arn:"):
        return name
    owner = "" if name.startswith(("AWS-", "Amazon")) else ACCOUNT
    return f"arn:aws:ssm:{REGION}:{owner}:document/{name}"


def _parameter(name: str) -> str:
    if name.startswith("arn:"):
        return name
    return f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/{name.removeprefix('/')}"
