"""Requests in normal form, the files that hold what they are to be, and what changed in them, in words."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from smssh_plugin.submit.request.wrapper import WORDS

WRAPPER = "SMSSH WRAPPER"
"""Stands for the words before the folder in an entry point that is wrapped."""
HERE = Path(__file__).parent / "golden"
WIDTH = 110

TIMES = [
    (r"\d{4}-\d{2}-\d{2}-\d{2}-\d{2}-\d{2}-\d{3}", "TIME"),
    (r"-\d{14}\b", "-TIME"),
    (r"\btuning-\d{10}\b", "tuning-TIME"),
]
"""What the SDKs take from the clock: names of jobs, keys of uploads."""
RANDOM = [
    (r"\bmodel-[0-9a-f]{8}\b", "model-ID"),
    (r"\b(tune|model|score)-\d+-\d+\b", r"\1-NAME"),  # `World.new_name`
    (r"-----BEGIN PUBLIC KEY-----(\\n|[A-Za-z0-9+/=])+-----END PUBLIC KEY-----(\\n)?", "PUBLIC KEY"),
    (r'("REMOTE_FUNCTION_SECRET_KEY": )"[0-9a-f]{64}"', r'\1"SECRET KEY"'),
    (r"\btmp[a-z0-9_]{8}\b", "TMP"),
    (r"requirements_[a-z0-9_]{8}\b", "requirements_TMP"),
]
"""What the SDKs make up, and we in their place."""
FOLDERS = [
    (r"/code/([0-9a-f]{32}|[0-9a-f]{64})/", "/code/DIGEST/"),
    (r"-[0-9a-f]{32}/source/", "-DIGEST/source/"),  # up to 2.25x
]
"""What the SDKs make of the paths of the user's files: they are part of the digest."""
PLACES = [
    (r"sagemaker-us-east-1-123456789012", "BUCKET"),
    (r"\b123456789012\b", "ACCOUNT"),
    (r"\b[0-9a-f]{64}\b", "DIGEST"),
    (r'(--client_python_version",\s*)"[\d.]+"', r'\1"PYTHON"'),
    (r'(--client_sagemaker_pysdk_version",\s*)"[\d.]+"', r'\1"SDK"'),
]
"""What depends on the account, on files, and on the versions of things."""


def steady(value: Any, folder: Path) -> str:
    """A request or definition as text, byte for byte, except for what the SDK itself makes anew each time.

    Args:
        value: the request or definition.
        folder: the folder of the machine that made it.
    """
    return _replaced(json.dumps(value).replace(str(folder), "FOLDER"), TIMES + RANDOM + FOLDERS)


def normal(value: Any, folder: Path) -> Any:
    """A request or definition without what depends on the time, the machine and the user that made it."""
    text = steady(value, folder).replace(json.dumps(WORDS)[1:-1], json.dumps(WRAPPER))
    return json.loads(_replaced(text, PLACES))


def _replaced(text: str, pairs: list[tuple[str, str]]) -> str:
    for pattern, replacement in pairs:
        text = re.sub(pattern, replacement, text)
    return text


def path_of(version: str, case: str) -> Path:
    """The file of a case: one of the version's own, where it differs from the other versions of its major."""
    own = HERE / f"v{version}" / f"{case}.json"
    return own if own.exists() else HERE / f"v{version.split('.')[0]}" / f"{case}.json"


def read(version: str, case: str) -> Any:
    """What a case is to give; None where nobody knows yet."""
    path = path_of(version, case)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def write(version: str, case: str, found: Any, newest: bool) -> None:
    """Hold what a case gives: for the major, and for an older version in a file of its own where it differs."""
    common = HERE / f"v{version.split('.')[0]}" / f"{case}.json"
    own = HERE / f"v{version}" / f"{case}.json"
    own.unlink(missing_ok=True)
    if not newest and common.exists() and json.loads(common.read_text(encoding="utf-8")) == found:
        return
    path = common if newest else own
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(pretty(found) + "\n", encoding="utf-8")


def pretty(value: Any, indent: str = "", before: int = 0) -> str:
    """JSON with what fits on a line on one line."""
    flat = json.dumps(value)
    if len(indent) + before + len(flat) < WIDTH or not isinstance(value, (dict, list)) or not value:
        return flat
    inner = indent + " "
    if isinstance(value, dict):
        parts = [f"{json.dumps(key)}: {pretty(each, inner, len(key) + 4)}" for key, each in value.items()]
        opening, closing = "{", "}"
    else:
        parts = [pretty(each, inner) for each in value]
        opening, closing = "[", "]"
    return f"{opening}\n" + ",\n".join(inner + part for part in parts) + f"\n{indent}{closing}"


# -------------------------------------------------------------------------------- what changed


def requests_in(value: Any) -> dict[str, Any]:
    """The requests of a definition by the names of their steps, or those that were sent by what they create."""
    if isinstance(value, list):
        return {f"{number} {each['Operation']}": each["Request"] for number, each in enumerate(value)}
    found: dict[str, Any] = {}

    def collect(steps: list[Any]) -> None:
        for step in steps:
            nested = [step["Arguments"][name] for name in NESTED if name in step["Arguments"]]
            if not nested:
                found[step["Name"]] = step["Arguments"]
            for inner in nested:
                collect(inner)

    collect(value["Steps"])
    return found


NESTED = ("IfSteps", "ElseSteps", "ForEachBody")


def rest_of(value: Any) -> Any:
    """A definition without the requests of its steps, or what was sent without requests."""
    if isinstance(value, list):
        return [{**each, "Request": None} for each in value]

    def stripped(steps: list[Any]) -> list[Any]:
        kept = []
        for step in steps:
            nested = {name: stripped(step["Arguments"][name]) for name in NESTED if name in step["Arguments"]}
            kept.append({**step, "Arguments": {**step["Arguments"], **nested} if nested else None})
        return kept

    return {**value, "Steps": stripped(value["Steps"])}


def changes(before: Any, after: Any) -> list[str]:
    """What is different in a request, in a few words each; what is not ours is there by its path."""
    return sorted({_in_words(path, old, new) for path, old, new in _differences(before, after, ())})


_GONE = object()


def _differences(before: Any, after: Any, path: tuple[Any, ...]) -> list[tuple[tuple[Any, ...], Any, Any]]:
    if isinstance(before, dict) and isinstance(after, dict):
        found = []
        for name in dict.fromkeys([*before, *after]):
            found += _differences(before.get(name, _GONE), after.get(name, _GONE), (*path, name))
        return found
    if isinstance(after, list) and path[-1] == "ContainerEntrypoint":
        return [] if before == after else [(path, before, after)]
    if path[-1:] == ("Containers",) and isinstance(before, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [one for number, pair in pairs for one in _differences(*pair, (*path, number))]
    if isinstance(before, list) and isinstance(after, list) and before == after[: len(before)]:
        return [((*path, number), _GONE, each) for number, each in enumerate(after[len(before) :])]
    if before is _GONE and path[-1] in ("Environment", "InputDataConfig", "ProcessingInputs", *_SOURCES):
        empty: Any = {} if isinstance(after, dict) else []
        return _differences(empty, after, path)
    return [] if before == after else [(path, before, after)]


_SOURCES = ("AdditionalModelDataSources",)


def _in_words(path: tuple[Any, ...], before: Any, after: Any) -> str:
    if path[-2:-1] == ("Environment",):
        return (
            "PYTHONPATH"
            if path[-1] == "PYTHONPATH"
            else "variables"
            if before is _GONE
            else ".".join(map(str, path))
        )
    if path == ("HyperParameters", "source_dir") and before == "null":
        return "whole source folder"
    if path[-1] == "ContainerEntrypoint" and after[0] == WRAPPER and after[3:] == before:
        return "entry point wrapped"
    if before is _GONE and isinstance(after, dict):
        name = after.get("ChannelName") or after.get("InputName")
        if name == "smssh":
            return "data source" if path[-2] in _SOURCES else "channel" if "ChannelName" in after else "input"
    return ".".join(map(str, path))
