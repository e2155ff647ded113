"""The sessions that a request is made with: of the SageMaker SDK (`sagemaker_session`) and of boto3 (`boto_session`).

None of them is a session of Session Manager; those are in `smssh_plugin/session/`.
"""

from __future__ import annotations

from typing import Any, Callable

__all__ = ["SdkSession", "SessionOf", "boto_session_of"]

SdkSession = Any
"""A session of the SageMaker SDK (anything with a `boto_session`), a boto3 session, or None for a new one of boto3."""

SessionOf = Callable[[], SdkSession]
"""Answers the session that knows where bundles go; asked only where one is needed."""


def boto_session_of(session: SdkSession) -> Any:
    """The boto3 session of what may be a session of the SageMaker SDK; a new one if there is no session."""
    import boto3

    return getattr(session, "boto_session", session) or boto3.Session()
