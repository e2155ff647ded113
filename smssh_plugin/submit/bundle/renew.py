"""The bundles that a pipeline uses which was upserted before, perhaps long ago: found in its definition, and renewed.

Nothing of ours runs when an execution starts: what lifecycle rules have deleted by then is missing, and a job fails
before its container starts. So `smssh bundle renew --pipeline` puts the bundles again, and clients that `enable` has
changed do it, where it is needed, before they start an execution.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, Iterator

from ...errors import ExitStatus, SmsshError
from ...manifest import MANIFEST, Manifest
from ..request.add_ssh import CHANNEL
from ..warnings import RequestWarning, say
from .bucket import code_of
from .expiry import is_old, remember, warn_of
from .store import Prefix, renew

__all__ = ["bundles_of", "definition_of", "keep"]

_BUNDLE = re.compile(r"s3://[^/]+/(\S+/)?[0-9a-f]{64}/\Z")
_NAMES = ("ChannelName", "InputName")
"""What requests call the name of an input."""


def definition_of(client: Any, pipeline: str) -> Any:
    """The definition of a pipeline, parsed.

    Args:
        client: a boto3 client of SageMaker.
        pipeline: its name or ARN.

    Raises:
        SmsshError: there is no such pipeline, it may not be read, or it is not JSON.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        text = client.describe_pipeline(PipelineName=pipeline)["PipelineDefinition"]
        return json.loads(text)
    except ClientError as error:
        missing = code_of(error) == "ResourceNotFound" or "could not find" in str(error).lower()
        status = ExitStatus.NOT_FOUND if missing else ExitStatus.REFUSED
        problem = str(error)
    except (BotoCoreError, KeyError, TypeError, ValueError) as error:
        status, problem = ExitStatus.UNREACHABLE, str(error)
    raise SmsshError(
        f"the definition of pipeline {pipeline!r} cannot be read: {problem}",
        hint="check its name and the region; it needs sagemaker:DescribePipeline",
        reference="definition-not-readable",
        status=status,
    )


def bundles_of(definition: Any) -> list[str]:
    """The addresses of the bundles in a definition, each once, sorted."""
    return sorted(set(_bundles(definition)))


def _bundles(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if any(value.get(name) == CHANNEL for name in _NAMES):
            yield from (text for text in _texts(value) if _BUNDLE.match(text))
        else:
            for each in value.values():
                yield from _bundles(each)
    elif isinstance(value, list):
        for each in value:
            yield from _bundles(each)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


def keep(pipeline: str, address: str, client: Any, owner: str, encryption: str = "") -> None:
    """Renew a bundle if it is old; warn if it is not whole, cannot be renewed, or is deleted some day.

    Args:
        pipeline: the pipeline that uses it, for warnings.
        address: the bundle.
        client: a boto3 client of S3.
        owner: the account that its bucket must belong to.
        encryption: see `SSHOptions.s3_encryption`.
    """
    place = Prefix(address, client, owner)
    try:
        found = _look(place)
        if found.problem is not None:
            problem = f"the bundle {address} is {found.problem}, and the jobs that use it fail"
            say(
                f"pipeline {pipeline!r}",
                [RequestWarning(problem, ": upsert the pipeline once more, which stores it anew")],
            )
            return
        if found.old:
            remember(address, renew(place, encryption))
        else:
            remember(address, place.expiry)
    except SmsshError as error:
        remember(address, place.expiry)
        say(
            f"pipeline {pipeline!r}",
            [RequestWarning(f"the bundle {address} was not seen to be whole and new: {error.message}", "")],
        )
    warn_of(address, lasting=True)


@dataclass(frozen=True)
class _Found:
    problem: str | None
    old: bool = False


def _look(place: Prefix) -> _Found:
    """What is wrong with a bundle, and whether it is time to renew it."""
    try:
        text = b"".join(place.chunks(MANIFEST))
    except SmsshError as error:
        if error.status is ExitStatus.NOT_FOUND:
            return _Found("gone")
        raise
    if hashlib.sha256(text).hexdigest() != place.name:
        return _Found("not what it was")
    wrong = sorted(name for name, state in place.states(Manifest.parse(text)).items() if state != "ok")
    if wrong:
        return _Found(f"not whole ({', '.join(wrong[:5])})")
    return _Found(None, place.oldest is not None and is_old(place.oldest, place.expiry))
