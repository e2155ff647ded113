"""What Systems Manager knows of activations and managed nodes: the session service without its sockets."""

from __future__ import annotations

import base64
import re
import secrets
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .service_error import ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["Activation", "Node", "Nodes", "page"]

ONLINE_SECONDS = 330.0
"""How long a node counts as Online after its last ping. Agents ping every 300 s, connected or not."""
_DAY = 86400.0
_EXPIRATION_MAX = 30 * _DAY
_TAGS_MAX = 50
_TAG_TEXT = re.compile(r"[\w\s.:/=+\-@]*", re.UNICODE)
_FILTERS = frozenset(
    {
        "ActivationIds",
        "AgentVersion",
        "AssociationStatus",
        "IamRole",
        "InstanceIds",
        "PingStatus",
        "PlatformTypes",
        "ResourceType",
        "SourceIds",
        "SourceTypes",
        "tag-key",
    }
)


@dataclass
class Activation:
    """A hybrid activation. Times are seconds since the epoch."""

    id: str
    code: str
    role: str
    limit: int
    created: float
    expires: float
    description: str = ""
    name: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    registrations: int = 0

    def to_json(self, now: float) -> dict[str, Any]:
        """An entry of DescribeActivations. The code isn't shown again."""
        return {
            "ActivationId": self.id,
            "Description": self.description,
            "DefaultInstanceName": self.name,
            "IamRole": self.role,
            "RegistrationLimit": self.limit,
            "RegistrationsCount": self.registrations,
            "ExpirationDate": self.expires,
            "Expired": now >= self.expires,
            "CreatedDate": self.created,
            "Tags": _tag_list(self.tags),
        }


@dataclass
class Node:
    """A managed node that an agent registered. Times are seconds since the epoch."""

    id: str
    activation: Activation
    public_key: str
    fingerprint: str
    registered: float
    tags: dict[str, str]
    pinged: float = 0.0
    information: dict[str, Any] = field(default_factory=dict)
    access_keys: set[str] = field(default_factory=set)
    """The access key ids that were given out to its agent."""

    def ping_status(self, now: float) -> str:
        """Online, ConnectionLost, or Inactive for a node that never pinged."""
        if not self.pinged:
            return "Inactive"
        return "Online" if now - self.pinged < ONLINE_SECONDS else "ConnectionLost"

    def to_json(self, now: float) -> dict[str, Any]:
        """An entry of DescribeInstanceInformation."""
        shown = {
            "InstanceId": self.id,
            "PingStatus": self.ping_status(now),
            "LastPingDateTime": self.pinged or self.registered,
            "IsLatestVersion": True,
            "ActivationId": self.activation.id,
            "IamRole": self.activation.role,
            "RegistrationDate": self.registered,
            "ResourceType": "ManagedInstance",
            "Name": self.activation.name,
        }
        for key in (
            "AgentVersion",
            "PlatformType",
            "PlatformName",
            "PlatformVersion",
            "IPAddress",
            "ComputerName",
        ):
            if key in self.information:
                shown[key] = self.information[key]
        return shown


class Nodes:
    """Activations, managed nodes and their tags, in memory.

    Args:
        clock: the time in seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.activations: dict[str, Activation] = {}
        self.nodes: dict[str, Node] = {}
        self._clock = clock

    def create_activation(self, body: dict[str, Any]) -> dict[str, Any]:
        """CreateActivation."""
        now = self._clock()
        role = body.get("IamRole")
        if not role:
            raise ServiceError("ValidationException", "1 validation error detected: IamRole must not be null")
        limit = body.get("RegistrationLimit", 1)
        if not isinstance(limit, int) or not 1 <= limit <= 1000:
            raise ServiceError(
                "ValidationException",
                f"1 validation error detected: Value '{limit}' at 'registrationLimit' failed to satisfy "
                "constraint: Member must have value between 1 and 1000",
            )
        expires = float(body.get("ExpirationDate", now + _DAY))
        if not now < expires <= now + _EXPIRATION_MAX:
            raise ServiceError(
                "InvalidParameters", "ExpirationDate must be in the future, and within 30 days of now."
            )
        activation = Activation(
            id=str(uuid.uuid4()),
            # 20 characters, since agents refuse shorter ones, and of the alphabet that AWS's own have.
            code=base64.b64encode(secrets.token_bytes(15)).decode(),
            role=str(role).rpartition("/")[2],
            limit=limit,
            created=now,
            expires=expires,
            description=str(body.get("Description", "")),
            name=str(body.get("DefaultInstanceName", "")),
            tags=_checked_tags(body.get("Tags", ()), {}),
        )
        self.activations[activation.id] = activation
        return {"ActivationId": activation.id, "ActivationCode": activation.code}

    def describe_activations(self, body: dict[str, Any]) -> dict[str, Any]:
        """DescribeActivations."""
        keys = {
            "ActivationIds": lambda one: one.id,
            "DefaultInstanceName": lambda one: one.name,
            "IamRole": lambda one: one.role,
        }
        found = list(self.activations.values())
        for one in body.get("Filters") or ():
            key, values = one.get("FilterKey"), one.get("FilterValues") or ()
            if key not in keys:
                raise ServiceError("InvalidFilter", f"The filter key {key} isn't valid.")
            found = [activation for activation in found if keys[key](activation) in values]
        now = self._clock()
        return page("ActivationList", [one.to_json(now) for one in found], body, smallest=1)

    def delete_activation(self, body: dict[str, Any]) -> dict[str, Any]:
        """DeleteActivation. Nodes that were registered with it stay."""
        if self.activations.pop(body.get("ActivationId", ""), None) is None:
            raise ServiceError("InvalidActivation", "The activation isn't valid.")
        return {}

    def register(self, body: dict[str, Any]) -> dict[str, Any]:
        """RegisterManagedInstance, which the agent calls without credentials."""
        activation = self.activations.get(body.get("ActivationId", ""))
        now = self._clock()
        if (
            activation is None
            or not secrets.compare_digest(activation.code, str(body.get("ActivationCode", "")))
            or now >= activation.expires
            or activation.registrations >= activation.limit
        ):
            # One answer for all of them, as the service gives.
            raise ServiceError("InvalidActivation", "The activation isn't valid.")
        if not body.get("PublicKey") or not body.get("Fingerprint"):
            raise ServiceError("ValidationException", "PublicKey and Fingerprint must not be null")
        activation.registrations += 1
        node = Node(
            id="mi-0" + secrets.token_hex(8),
            activation=activation,
            public_key=str(body["PublicKey"]),
            fingerprint=str(body["Fingerprint"]),
            registered=now,
            tags=dict(activation.tags),
        )
        self.nodes[node.id] = node
        return {"InstanceId": node.id}

    def role_token(self, body: dict[str, Any], access_key: str | None) -> dict[str, Any]:
        """RequestManagedInstanceRoleToken, signed with the node's RSA key; its id is the access key."""
        node = self.nodes.get(access_key or "")
        if node is None:
            raise ServiceError("AccessDeniedException", f"{access_key} is not a registered managed instance.")
        if body.get("Fingerprint") != node.fingerprint:
            raise ServiceError("MachineFingerprintDoesNotMatch", "The machine fingerprint does not match.")
        key = "ASIA" + secrets.token_hex(8).upper()
        node.access_keys.add(key)
        return {
            "AccessKeyId": key,
            "SecretAccessKey": secrets.token_urlsafe(30),
            "SessionToken": secrets.token_urlsafe(48),
            "TokenExpirationDate": self._clock() + 3600,
            "UpdateKeyPair": False,  # the agent dereferences it unseen: it must be there
        }

    def update_public_key(self, body: dict[str, Any], access_key: str | None) -> dict[str, Any]:
        """UpdateManagedInstancePublicKey."""
        self.of_access_key(access_key).public_key = str(body.get("NewPublicKey", ""))
        return {}

    def update_information(self, body: dict[str, Any], access_key: str | None) -> dict[str, Any]:
        """UpdateInstanceInformation: the agent's ping, an empty one first."""
        node = self.of_access_key(access_key)
        if body.get("InstanceId") != node.id:
            raise ServiceError("AccessDeniedException", f"{access_key} belongs to {node.id}.")
        node.pinged = self._clock()
        node.information.update(
            {key: value for key, value in body.items() if key != "InstanceId" and value not in (None, "")}
        )
        return {}

    def of_access_key(self, access_key: str | None) -> Node:
        """The node whose agent holds this access key."""
        for node in self.nodes.values():
            if access_key == node.id or access_key in node.access_keys:
                return node
        raise ServiceError("AccessDeniedException", f"{access_key} is not the key of a managed instance.")

    def describe(self, body: dict[str, Any]) -> dict[str, Any]:
        """DescribeInstanceInformation, with either kind of filter."""
        filters = [(one.get("Key"), one.get("Values")) for one in body.get("Filters") or ()]
        old = [
            (one.get("key"), one.get("valueSet")) for one in body.get("InstanceInformationFilterList") or ()
        ]
        if filters and old:
            raise ServiceError(
                "ValidationException", "Use either Filters or InstanceInformationFilterList, not both."
            )
        now = self._clock()
        found: Iterable[Node] = self.nodes.values()
        for key, values in filters + old:
            found = _filtered(found, str(key), values or (), now)
        return page("InstanceInformationList", [node.to_json(now) for node in found], body, smallest=5)

    def deregister(self, node_id: str) -> Node:
        """DeregisterManagedInstance."""
        node = self.nodes.pop(node_id, None)
        if node is None:
            raise ServiceError("InvalidInstanceId", f"The instance ID {node_id} isn't valid.")
        return node

    def add_tags(self, body: dict[str, Any]) -> dict[str, Any]:
        """AddTagsToResource for a managed node."""
        node = self._tagged(body)
        node.tags = _checked_tags(body.get("Tags") or (), node.tags)
        return {}

    def remove_tags(self, body: dict[str, Any]) -> dict[str, Any]:
        """RemoveTagsFromResource for a managed node."""
        node = self._tagged(body)
        for key in body.get("TagKeys") or ():
            node.tags.pop(key, None)
        return {}

    def list_tags(self, body: dict[str, Any]) -> dict[str, Any]:
        """ListTagsForResource for a managed node."""
        return {"TagList": _tag_list(self._tagged(body).tags)}

    def _tagged(self, body: dict[str, Any]) -> Node:
        if body.get("ResourceType") != "ManagedInstance":
            raise ServiceError(
                "InvalidResourceType",
                "The stand-in keeps tags of resources of the type ManagedInstance only.",
            )
        node = self.nodes.get(body.get("ResourceId", ""))
        if node is None:
            raise ServiceError(
                "InvalidResourceId", "The resource ID isn't valid. Verify that you entered it right."
            )
        return node


def page(name: str, entries: Sequence[Any], body: dict[str, Any], *, smallest: int) -> dict[str, Any]:
    """One page of a list: 10 entries unless MaxResults says otherwise, which may be `smallest` to 50."""
    size = body.get("MaxResults", 10)
    if not isinstance(size, int) or not smallest <= size <= 50:
        raise ServiceError(
            "ValidationException",
            f"1 validation error detected: Value '{size}' at 'maxResults' failed to satisfy constraint: "
            f"Member must have value between {smallest} and 50",
        )
    token = body.get("NextToken") or "0"
    if not token.isdigit():
        raise ServiceError("InvalidNextToken", "The specified token isn't valid.")
    start = int(token)
    answer: dict[str, Any] = {name: list(entries[start : start + size])}
    if start + size < len(entries):
        answer["NextToken"] = str(start + size)
    return answer


def _filtered(nodes: Iterable[Node], key: str, values: Sequence[str], now: float) -> list[Node]:
    if not values:
        raise ServiceError("InvalidInstanceInformationFilterValue", f"The filter {key} has no values.")
    if key.startswith("tag:"):
        return [node for node in nodes if node.tags.get(key[4:]) in values]
    if key == "tag-key":
        return [node for node in nodes if not node.tags.keys().isdisjoint(values)]
    if key not in _FILTERS:
        raise ServiceError("InvalidFilterKey", f"The specified filter key {key} isn't valid.")
    shown = {
        "ActivationIds": "ActivationId",
        "InstanceIds": "InstanceId",
        "PlatformTypes": "PlatformType",
    }.get(key, key)
    return [node for node in nodes if node.to_json(now).get(shown) in values]


def _checked_tags(tags: Iterable[dict[str, str]], before: dict[str, str]) -> dict[str, str]:
    after = dict(before)
    for tag in tags:
        key, value = str(tag.get("Key", "")), str(tag.get("Value", ""))
        allowed = 1 <= len(key) <= 128 and len(value) <= 256 and not key.lower().startswith("aws:")
        if not allowed or not _TAG_TEXT.fullmatch(key) or not _TAG_TEXT.fullmatch(value):
            raise ServiceError(
                "ValidationException",
                f"1 validation error detected: the tag {key!r} = {value!r} breaks a rule for tags: "
                "keys of 1 to 128 and values of 0 to 256 letters, digits, spaces and _.:/=+-@, "
                "and no key that starts with aws:",
            )
        after[key] = value
    if len(after) > _TAGS_MAX:
        raise ServiceError("TooManyTagsError", f"A resource has {_TAGS_MAX} tags at most.")
    return after


def _tag_list(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]
