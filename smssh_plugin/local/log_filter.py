"""FilterLogEvents over the logs that moto holds, which looks at no prefix of streams and cuts no page by its size.

As CloudWatch Logs has it (FilterLogEvents' reference): events of all streams in the order of time, by name or by
prefix and not both, pages of at most 10,000 events and 1 MB, the end of the time exclusive, a token that names the
place to go on at.
"""

from __future__ import annotations

import json
from typing import Any

from moto.logs.exceptions import InvalidParameterException, ResourceNotFoundException
from moto.logs.responses import LogsResponse

__all__ = ["provide"]

_EVENTS = 10_000
_BYTES = 1 << 20


def provide() -> None:
    """Have moto answer FilterLogEvents so, for the whole process."""
    setattr(LogsResponse, "filter_log_events", _filter_log_events)  # noqa: B010 - mypy refuses the assignment


def _filter_log_events(self: LogsResponse) -> str:
    name, prefix = self._get_param("logGroupName"), self._get_param("logStreamNamePrefix")
    names = self._get_param("logStreamNames")
    limit = self._get_param("limit") or _EVENTS
    if names and prefix:
        raise InvalidParameterException(
            constraint="Only one of logStreamNames and logStreamNamePrefix can be given",
            parameter="logStreamNamePrefix",
            value=prefix,
        )
    if not 1 <= limit <= _EVENTS:
        raise InvalidParameterException(
            constraint=f"Member must have value between 1 and {_EVENTS}", parameter="limit", value=str(limit)
        )
    group = self.logs_backend.groups.get(name)
    if group is None:
        raise ResourceNotFoundException
    start, end = self._get_param("startTime") or 0, self._get_param("endTime")
    found: list[dict[str, Any]] = []
    for stream_name, stream in list(group.streams.items()):
        if (names and stream_name not in names) or not stream_name.startswith(prefix or ""):
            continue
        # moto's end of the time is inclusive.
        until = None if end is None else end - 1
        found += stream.filter_log_events(start, until, self._get_param("filterPattern"))
    found.sort(key=_place)
    token = self._get_param("nextToken")
    if token:
        try:
            after = tuple(int(part) for part in token.split("."))
        except ValueError:
            raise InvalidParameterException(
                constraint="The specified nextToken is invalid", parameter="nextToken", value=token
            ) from None
        found = [event for event in found if _place(event) > after]
    page: list[dict[str, Any]] = []
    size = 0
    for event in found[:limit]:
        size += len(event["message"].encode())
        if page and size > _BYTES:
            break
        page.append(event)
    answer: dict[str, Any] = {"events": page, "searchedLogStreams": []}
    if len(page) < len(found):
        answer["nextToken"] = ".".join(str(part) for part in _place(page[-1]))
    return json.dumps(answer)


def _place(event: dict[str, Any]) -> tuple[int, int]:
    return int(event["timestamp"]), int(event["eventId"])
