"""Requests of the services that moto answers, as IAM sees them; S3 is in s3_requests.py.

Whatever is not known here asks for its action on no particular resource, or cannot be named: both are denied unless a
statement allows the action on every resource.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from .account import ACCOUNT, REGION

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["OPEN", "action_of", "asked", "members"]

OPEN = frozenset({"sts:GetCallerIdentity"})
"""What needs no permission."""
_PREFIXES = {"monitoring": "cloudwatch", "email": "ses"}
"""A service in signatures -> in actions, where they differ."""
_STREAMS = frozenset({"GetLogEvents", "PutLogEvents", "CreateLogStream", "DeleteLogStream"})


def action_of(service: str, target: str, body: bytes, *, form: bool) -> str | None:
    """The action of a request; None where it cannot be told.

    Args:
        service: in the signature.
        target: the header X-Amz-Target; "" for none.
        body: the body.
        form: whether that is a form, as in the query protocol.
    """
    name = target.rpartition(".")[2]
    if not name and form:
        name = parse_qs(body.decode("utf-8", "replace")).get("Action", [""])[0]
    return f"{_PREFIXES.get(service, service)}:{name}" if name else None


def asked(action: str, body: bytes, *, form: bool) -> list[tuple[str, str, dict[str, Any]]]:
    """What a request asks for.

    Args:
        action: its action.
        body: the body.
        form: whether that is a form.
    """
    service, _, name = action.partition(":")
    named = members(body, form=form)
    place = f"arn:aws:{service}:{REGION}:{ACCOUNT}"
    if service == "logs" and named.get("logGroupName"):
        arn = f"{place}:log-group:{named['logGroupName']}"
        if name in _STREAMS:
            arn += f":log-stream:{named.get('logStreamName', '')}"
        return [(action, arn, {})]
    if service == "sns" and named.get("TopicArn"):
        return [(action, str(named["TopicArn"]), {})]
    if service == "kms" and named.get("KeyId"):
        key = str(named["KeyId"])
        return [(action, key if key.startswith("arn:") else f"{place}:key/{key}", {})]
    if service == "sts" and named.get("RoleArn"):
        return [(action, str(named["RoleArn"]), {})]
    return [(action, f"{place}:*", {})]


def members(body: bytes, *, form: bool) -> Mapping[str, Any]:
    """The members of a request, as a form or JSON; none where it is neither."""
    if form:
        return {name: values[0] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}
    try:
        found = json.loads(body or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
