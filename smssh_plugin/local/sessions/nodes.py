"""What Systems Manager knows of activations and managed nodes: the session service without its sockets."""

from __future__ import annotations

import base64
import bisect
import itertools
import math
import re
import secrets
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..keyring import Key
from ..service_error import ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = ["Activation", "Node", "Nodes", "page"]

ONLINE_SECONDS = 330.0
"""How long a node counts as Online after its last ping. Agents ping every 300 s, connected or not."""
TOKEN_SECONDS = 3600.0
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
    number: int
    """In the order of registration."""
    activation: Activation
    public_key: str
    fingerprint: str
    registered: float
    tags: dict[str, str]
    pinged: float = 0.0
    rotate: bool = False
    """Whether the agent is to replace its key the next time it asks for the role's credentials."""
    information: dict[str, Any] = field(default_factory=dict)
    access_keys: dict[str, float] = field(default_factory=dict)
    """The access key ids that were given out to its agent, and when each expires."""

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

    What costs time is looked up, not searched: an account has ten thousand nodes as well as one.

    Args:
        clock: the time in seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.activations: dict[str, Activation] = {}
        self.nodes: dict[str, Node] = {}
        self.token_seconds = TOKEN_SECONDS
        """The life of the role's credentials."""
        self.examined = 0
        """Nodes that were looked at by listings, one by one; for tests of what a call costs."""
        self._clock = clock
        self._numbers = itertools.count()
        self._ordered: list[Node] = []
        self._tagged_with: dict[tuple[str, str | None], dict[str, Node]] = {}
        """By a tag's key and value, and by its key alone (None)."""
        self._activated_by: dict[str, dict[str, Node]] = {}
        self._key_of: dict[str, Node] = {}
        self._keys: dict[str, Key] = {}
        self.may_have_role: Callable[[str], bool] = lambda _role: True
        """Whether a role, by its name, is there and Systems Manager may assume it."""

    def create_activation(self, body: dict[str, Any]) -> dict[str, Any]:
        """CreateActivation."""
        now = self._clock()
        role = body.get("IamRole")
        if not role:
            raise ServiceError("ValidationException", "1 validation error detected: IamRole must not be null")
        if not self.may_have_role(str(role).rpartition("/")[2]):
            raise ServiceError(
                "ValidationException",
                f"Nonexistent role or missing ssm service principal in trust policy: {role}",
            )
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
            number=next(self._numbers),
            activation=activation,
            public_key=str(body["PublicKey"]),
            fingerprint=str(body["Fingerprint"]),
            registered=now,
            tags=dict(activation.tags),
        )
        self.nodes[node.id] = node
        self._ordered.append(node)
        self._activated_by.setdefault(activation.id, {})[node.id] = node
        self._index_tags(node, {})
        return {"InstanceId": node.id}

    def role_token(self, body: dict[str, Any], access_key: str | None) -> dict[str, Any]:
        """RequestManagedInstanceRoleToken, signed with the node's RSA key; its id is the access key."""
        node = self.nodes.get(access_key or "")
        if node is None:
            raise ServiceError("AccessDeniedException", f"{access_key} is not a registered managed instance.")
        if body.get("Fingerprint") != node.fingerprint:
            raise ServiceError("MachineFingerprintDoesNotMatch", "The machine fingerprint does not match.")
        now = self._clock()
        for expired in [key for key, expires in node.access_keys.items() if expires <= now]:
            del node.access_keys[expired]
            del self._key_of[expired]
            del self._keys[expired]
        expires = now + self.token_seconds
        key = Key.random(f"node {node.id}", temporary=True, expires=expires)
        node.access_keys[key.access_key] = expires
        self._key_of[key.access_key] = node
        self._keys[key.access_key] = key
        return {
            "AccessKeyId": key.access_key,
            "SecretAccessKey": key.secret_key,
            "SessionToken": key.token,
            "TokenExpirationDate": expires,
            "UpdateKeyPair": node.rotate,  # the agent dereferences it unseen: it must be there
        }

    def key(self, access_key: str) -> Key | None:
        """The credentials that an agent was given under an access key id; None if it was given none."""
        return self._keys.get(access_key)

    def update_public_key(self, body: dict[str, Any], access_key: str | None) -> dict[str, Any]:
        """UpdateManagedInstancePublicKey, signed with the key that is replaced."""
        node = self.nodes.get(access_key or "")
        if node is None:
            raise ServiceError("AccessDeniedException", f"{access_key} is not a registered managed instance.")
        if not body.get("NewPublicKey"):
            raise ServiceError("ValidationException", "NewPublicKey must not be null")
        node.public_key = str(body["NewPublicKey"])
        node.rotate = False
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
        """The node whose agent holds this access key.

        Raises:
            ServiceError: nobody's, or its time is over.
        """
        node = self.nodes.get(access_key or "") or self._key_of.get(access_key or "")
        if node is None:
            raise ServiceError("AccessDeniedException", f"{access_key} is not the key of a managed instance.")
        if node.access_keys.get(access_key or "", math.inf) <= self._clock():
            raise ServiceError(
                "ExpiredTokenException", "The security token included in the request is expired"
            )
        return node

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
        wanted = [(str(key), _checked_filter(str(key), values)) for key, values in filters + old]
        if len({key.startswith("tag") for key, _ in wanted}) > 1:
            # By the operation's reference; how AWS says it is not known.
            raise ServiceError(
                "InvalidInstanceInformationFilterValue",
                "Tag filters can't be combined with other filter types.",
            )
        size, start = _page_of(body, smallest=5)
        candidates = self._candidates(wanted)
        first = bisect.bisect_left(candidates, start, key=lambda node: node.number)
        found: list[Node] = []
        for node in itertools.islice(candidates, first, None):
            self.examined += 1
            if all(_matches(node, key, values, now) for key, values in wanted):
                found.append(node)
                if len(found) > size:
                    break
        answer: dict[str, Any] = {"InstanceInformationList": [one.to_json(now) for one in found[:size]]}
        if len(found) > size:
            answer["NextToken"] = str(found[size].number)
        return answer

    def _candidates(self, wanted: list[tuple[str, Sequence[str]]]) -> list[Node]:
        """The nodes that can match, in order, by the filter that leaves the fewest."""
        best: list[Node] | None = None
        for key, values in wanted:
            if not key.startswith("tag:") and key not in ("tag-key", "ActivationIds", "InstanceIds"):
                continue
            found = {name: node for value in values for name, node in self._with(key, value).items()}
            if best is None or len(found) < len(best):
                best = sorted(found.values(), key=lambda node: node.number)
        return self._ordered if best is None else best

    def _with(self, key: str, value: str) -> Mapping[str, Node]:
        """The nodes that one value of an indexed filter means, by their ids."""
        if key == "InstanceIds":
            return {value: self.nodes[value]} if value in self.nodes else {}
        if key == "ActivationIds":
            return self._activated_by.get(value, {})
        return self._tagged_with.get((value, None) if key == "tag-key" else (key[len("tag:") :], value), {})

    def deregister(self, node_id: str) -> Node:
        """DeregisterManagedInstance."""
        node = self.nodes.pop(node_id, None)
        if node is None:
            raise ServiceError("InvalidInstanceId", f"The instance ID {node_id} isn't valid.")
        del self._ordered[bisect.bisect_left(self._ordered, node.number, key=lambda one: one.number)]
        del self._activated_by[node.activation.id][node.id]
        for key in node.access_keys:
            del self._key_of[key]
            del self._keys[key]
        before, node.tags = node.tags, {}
        self._index_tags(node, before)
        return node

    def add_tags(self, body: dict[str, Any]) -> dict[str, Any]:
        """AddTagsToResource for a managed node."""
        node = self._tagged(body)
        before, node.tags = node.tags, _checked_tags(body.get("Tags") or (), node.tags)
        self._index_tags(node, before)
        return {}

    def remove_tags(self, body: dict[str, Any]) -> dict[str, Any]:
        """RemoveTagsFromResource for a managed node."""
        node = self._tagged(body)
        before, node.tags = node.tags, dict(node.tags)
        for key in body.get("TagKeys") or ():
            node.tags.pop(key, None)
        self._index_tags(node, before)
        return {}

    def _index_tags(self, node: Node, before: dict[str, str]) -> None:
        """Bring the look-up by tags up to date with a node's tags."""
        old, new = set(before.items()), set(node.tags.items())
        gone: set[tuple[str, str | None]] = {
            *(old - new),
            *((key, None) for key in before.keys() - node.tags),
        }
        come: set[tuple[str, str | None]] = {
            *(new - old),
            *((key, None) for key in node.tags.keys() - before),
        }
        for tag in gone:
            # A test may have changed the tags behind our back.
            self._tagged_with.get(tag, {}).pop(node.id, None)
        for tag in come:
            self._tagged_with.setdefault(tag, {})[node.id] = node

    def list_tags(self, body: dict[str, Any]) -> dict[str, Any]:
        """ListTagsForResource for a managed node."""
        return {"TagList": _tag_list(self._tagged(body).tags)}

    def _tagged(self, body: dict[str, Any]) -> Node:
        if body.get("ResourceType") != "ManagedInstance":
            raise ServiceError(
                "InvalidResourceType",
                "The local emulator keeps tags of resources of the type ManagedInstance only.",
            )
        node = self.nodes.get(body.get("ResourceId", ""))
        if node is None:
            raise ServiceError(
                "InvalidResourceId", "The resource ID isn't valid. Verify that you entered it right."
            )
        return node


def page(name: str, entries: Sequence[Any], body: dict[str, Any], *, smallest: int) -> dict[str, Any]:
    """One page of a list: 10 entries unless MaxResults says otherwise, which may be `smallest` to 50."""
    size, start = _page_of(body, smallest=smallest)
    answer: dict[str, Any] = {name: list(entries[start : start + size])}
    if start + size < len(entries):
        answer["NextToken"] = str(start + size)
    return answer


def _page_of(body: dict[str, Any], *, smallest: int) -> tuple[int, int]:
    """How many entries a page has, and the number that its token names."""
    size = body.get("MaxResults", 10)
    if not isinstance(size, int) or not smallest <= size <= 50:
        raise ServiceError(
            "ValidationException",
            f"1 validation error detected: Value '{size}' at 'maxResults' failed to satisfy constraint: "
            f"Member must have value between {smallest} and 50",
        )
    token = str(body.get("NextToken") or "0")
    if not re.fullmatch("[0-9]{1,9}", token):
        raise ServiceError("InvalidNextToken", "The specified token isn't valid.")
    return size, int(token)


def _checked_filter(key: str, values: Sequence[str] | None) -> Sequence[str]:
    if not values:
        raise ServiceError("InvalidInstanceInformationFilterValue", f"The filter {key} has no values.")
    if not key.startswith("tag:") and key not in _FILTERS:
        raise ServiceError("InvalidFilterKey", f"The specified filter key {key} isn't valid.")
    return values


def _matches(node: Node, key: str, values: Sequence[str], now: float) -> bool:
    if key.startswith("tag:"):
        return node.tags.get(key[4:]) in values
    if key == "tag-key":
        return not node.tags.keys().isdisjoint(values)
    shown = {
        "ActivationIds": "ActivationId",
        "InstanceIds": "InstanceId",
        "PlatformTypes": "PlatformType",
    }.get(key, key)
    return node.to_json(now).get(shown) in values


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
