"""The tags that say what in an account a setup made, and what it wrote there last.

They are the record of `smssh setup --apply`, so that anybody of the account can go on with it, or undo it, from any
machine. Keys and values are what tags of IAM and of Systems Manager can hold.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "CONTENT",
    "MADE",
    "SETUP",
    "TRUST",
    "content",
    "digest",
    "listed",
    "owner",
    "role_mark",
    "roles_of",
    "tags_of",
    "written",
]

MADE = {"smssh": "setup"}
"""On what `smssh setup` makes in any way, by templates too."""
SETUP = "SMSSHSetup"
"""On what `--apply` makes: the value of `--name`."""
CONTENT = "SMSSHContent"
"""The digests of the last two contents that were written, with a space between: the newer one may not be there yet."""
TRUST = "SMSSHTrust"
"""The digest of the trust policy that a role was made with."""
ROLE = "SMSSHRole:"
"""On a policy: what a tag for each role begins with that the policy was attached to."""

_STACK = "aws:cloudformation:stack-name"
_DIGITS = 32


def digest(document: Any) -> str:
    """What tells one JSON document from another, whatever the order of its members."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def role_mark(role: str) -> str:
    """The tag's key for a role. No tag can hold a comma, and no role's name has a space."""
    return ROLE + role.replace(",", " ")


def roles_of(tags: Mapping[str, str]) -> list[str]:
    """The roles that a policy with these tags was attached to."""
    return [key[len(ROLE) :].replace(" ", ",") for key in tags if key.startswith(ROLE)]


def tags_of(answer: Mapping[str, Any], member: str = "Tags") -> dict[str, str]:
    """The tags of an answer as a table."""
    return {str(each["Key"]): str(each["Value"]) for each in answer.get(member) or ()}


def listed(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags as calls take them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def owner(tags: Mapping[str, str], name: str) -> str:
    """Who made a thing, if it was not the setup of this name; "" if it was."""
    made_by = tags.get(SETUP)
    if made_by == name:
        return ""
    if made_by is not None:
        return f"it belongs to the setup {made_by!r}"
    if _STACK in tags:
        return f"it belongs to the CloudFormation stack {tags[_STACK]!r}"
    return "it was not made by `smssh setup --apply`"


def written(tags: Mapping[str, str], document: Any) -> bool:
    """Whether a document is what was written here last, and nobody has changed it since."""
    return digest(document) in tags.get(CONTENT, "").split()


def content(*documents: Any) -> str:
    """The value of the tag for one content, or for two: what is there, and what will be."""
    return " ".join(dict.fromkeys(digest(each) for each in documents))
