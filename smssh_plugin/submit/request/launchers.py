"""How a request gets our code started in the container: the launchers of entrypoints/, as far as requests go. Pure.

| launcher | what it changes | where it works |
| --- | --- | --- |
| wrap | the entry point, behind run.sh (see `wrapper`) | requests that name one |
| sitecustomize | PYTHONPATH | whatever runs Python |
| chain | SAGEMAKER_TRAINING_MODULE, PYTHONPATH | `train` of the training toolkits |
| bash_env | BASH_ENV | whatever begins with bash |

`auto` is wrap where the request names an entry point, else sitecustomize. An image that has the package starts us by
itself: nothing of all this is asked for then.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Mapping, Sequence

from .limits import LIMITS, check_count, refuse
from .values import is_list, is_text
from .wrapper import wrap

__all__ = ["BUNDLE", "FOLDERS", "REPACKED", "Start", "start"]

FOLDERS = {
    "training": "/opt/ml/input/data/smssh",
    "tuning": "/opt/ml/input/data/smssh",
    "processing": "/opt/ml/processing/smssh",
    "model": "/opt/ml/additional-model-data-sources/smssh",
}
"""Where the bundle is in the container, by kind."""
REPACKED = "/opt/ml/model/code/smssh"
"""Where it is in a model that was repacked with it."""
MOVED = "/run/smssh/bundle"
"""Where entrypoints/hide.py moves it, before the user's code looks. Our PYTHONPATH names both places: what a shell of
the job starts later has that of the request."""
BUNDLE = "SMSSH_BUNDLE"

_MODULE = "SAGEMAKER_TRAINING_MODULE"
_CHAIN = "smssh_chain:main"


@dataclass(frozen=True)
class Start:
    """What a launcher changes.

    Attributes:
        entry_point: the new entry point; None leaves it as it is.
        variables: variables to set, whatever stood there.
        python_path: what goes in front of PYTHONPATH; None leaves it as it is.
    """

    entry_point: list[Any] | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    python_path: str | None = None


def start(
    launcher: str,
    digest: str,
    kind: str,
    folder: str,
    entry_point: Any,
    environment: Mapping[str, Any],
    where: str,
    field_name: str,
) -> Start:
    """What a launcher changes in a request.

    Args:
        launcher: an option's `launcher`; `baked` changes nothing.
        digest: the SHA-256 of the bundle's manifest.
        kind: the kind of request.
        folder: where the bundle is in the container.
        entry_point: the request's own entry point, if it names one.
        environment: its environment.
        where: the step or request, for messages.
        field_name: the member with the entry point, for messages; empty where such requests have none.

    Raises:
        SmsshError: it can't work in this request.
    """
    if launcher == "baked":
        return Start()
    named = is_list(entry_point) and len(entry_point) > 0
    if launcher == "wrap" and not named:
        problem = f"{field_name} is not set" if field_name else f"no {LIMITS[kind].call} names an entry point"
        raise refuse(
            where,
            f"{problem}, so that there is nothing for launcher='wrap' to wrap",
            ("name the entry point in the request, or " if field_name else "")
            + "use SSHOptions(launcher='auto')",
            "no-entry-point",
        )
    if launcher == "chain":
        return _chain(kind, folder, named, environment, where, field_name)
    if launcher == "bash_env":
        ours = f"{folder}/env.sh"
        if "BASH_ENV" in environment and not _is(environment["BASH_ENV"], ours):
            raise refuse(
                where,
                "Environment.BASH_ENV is set, and launcher='bash_env' would take its place",
                "use SSHOptions(launcher='auto')",
                "name-taken",
            )
        return Start(variables={"BASH_ENV": ours})
    if launcher != "sitecustomize" and named:
        return Start(_wrapped(entry_point, kind, folder, digest, where, field_name))
    return Start(variables={BUNDLE: environment.get(BUNDLE, folder)}, python_path=f"{MOVED}:{folder}")


def _wrapped(
    entry_point: Sequence[Any], kind: str, folder: str, digest: str, where: str, field_name: str
) -> list[Any]:
    wrapped = wrap(entry_point, folder, digest)
    added = len(wrapped) - len(entry_point)
    check_count(where, field_name, len(wrapped), added, LIMITS[kind].entry_point, "items")
    return wrapped


def _chain(
    kind: str, folder: str, named: bool, environment: Mapping[str, Any], where: str, field_name: str
) -> Start:
    if kind not in ("training", "tuning") or named:
        problem = f"{field_name} runs something else" if named else f"it runs in no {LIMITS[kind].call}"
        raise refuse(
            where,
            f"launcher='chain' is for `train` of the training toolkits, and {problem}",
            "use SSHOptions(launcher='auto')",
            "no-toolkit",
        )
    variables: dict[str, Any] = {_MODULE: _CHAIN}
    if _MODULE in environment and not _is(environment[_MODULE], _CHAIN):
        variables["SMSSH_TRAINING_MODULE"] = environment[_MODULE]
    return Start(variables=variables, python_path=f"{MOVED}/chain:{folder}/chain")


def _is(value: Any, text: str) -> bool:
    return is_text(value) and value == text
