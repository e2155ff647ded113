"""The session documents that the stand-in knows, and what StartSession makes of their parameters."""

from __future__ import annotations

import re
from typing import Any

from .service_error import ServiceError

__all__ = ["DOCUMENTS", "parameters_of"]

_PORT = r"^([1-9]|[1-9][0-9]{1,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$"


def _port(default: str, description: str) -> dict[str, Any]:
    return {"type": "String", "description": description, "allowedPattern": _PORT, "default": default}


DOCUMENTS: dict[str, dict[str, Any]] = {
    "AWS-StartSSHSession": {
        "schemaVersion": "1.0",
        "description": "Document to start SSH session over Session Manager",
        "sessionType": "Port",
        "parameters": {"portNumber": _port("22", "(Optional) Port number of SSH server on the instance")},
        "properties": {"portNumber": "{{ portNumber }}"},
    },
    "AWS-StartPortForwardingSession": {
        "schemaVersion": "1.0",
        "description": "Document to start port forwarding session over Session Manager",
        "sessionType": "Port",
        "parameters": {
            "portNumber": _port("80", "(Optional) Port number of the server on the instance"),
            "localPortNumber": {
                "type": "String",
                "description": "(Optional) Port number on local machine to forward traffic to",
                "allowedPattern": _PORT.replace("^(", "^(0|"),
                "default": "0",
            },
        },
        "properties": {
            "portNumber": "{{ portNumber }}",
            "type": "LocalPortForwarding",
            "localPortNumber": "{{ localPortNumber }}",
        },
    },
}
"""By name, as the public documents of the service are."""


def parameters_of(document: str, given: dict[str, Any]) -> dict[str, str]:
    """The values of a document's parameters: StartSession takes lists, the agent wants strings.

    Raises:
        ServiceError: no such document, or a parameter that it does not allow.
    """
    if document not in DOCUMENTS:
        raise ServiceError("InvalidDocument", f"Document with name {document} does not exist.")
    rules = DOCUMENTS[document]["parameters"]
    values = {name: rule["default"] for name, rule in rules.items()}
    for name, value in given.items():
        if name not in rules:
            raise ServiceError("InvalidParameters", f"{document} has no parameter {name}.")
        if not isinstance(value, list) or len(value) != 1 or not isinstance(value[0], str):
            raise ServiceError("InvalidParameters", f"The parameter {name} takes a list of one string.")
        if not re.fullmatch(rules[name]["allowedPattern"], value[0]):
            raise ServiceError(
                "InvalidParameters",
                f"Parameter {name} has value {value[0]!r} not matching {rules[name]['allowedPattern']}.",
            )
        values[name] = value[0]
    return values
