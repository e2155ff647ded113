"""What can't be decided from a request, and may keep people out or cost them money. Said once.

`warnings_of` is pure: it finds what is to be said of one request. `say` says it: a pipeline compiles its steps one
after the other, and a person who gives SSH to all of them wants one line for all, and not again at the next
compilation. What keeps a job from being entered is said of each job, and of the steps of each pipeline, by its
name. Steps that are decorated one by one are compiled with nobody to tell which is the last: so the whole is said
of the first that something is true of, and of the others the headline.
"""

from __future__ import annotations

import contextlib
import contextvars
import sys
import warnings
from typing import Any, Callable, Iterable, Iterator, Mapping, NamedTuple, Sequence

from ..entrypoints import pid1
from ..settings import end_seconds
from .options import SmsshWarning, SSHOptions
from .request import image_addresses
from .request.add_ssh import Injection, definitions_of
from .request.launchers import MOVED
from .request.values import at, is_list, is_map, is_text

__all__ = [
    "Held",
    "RequestWarning",
    "cache_warning",
    "forgettable",
    "gathered",
    "say",
    "unproven_way",
    "unseen",
    "warnings_of",
]

Request = Mapping[str, Any]

CACHE_KEYS = {
    "training": "InputDataConfig, Environment and AlgorithmSpecification",
    "processing": "ProcessingInputs, Environment and AppSpecification",
    "transform": "Environment",
    "tuning": "TrainingJobDefinition.InputDataConfig",
}
"""What SSH changes of what SageMaker compares for step caching (developer guide, "Default cache key attributes by
pipeline step type"); a ContainerEntrypoint is part of the specification."""


class RequestWarning(NamedTuple):
    """What is to be said of a request.

    Attributes:
        headline: what is so, in words that hold for other requests as well.
        rest: what comes of it and what to do, with the punctuation before it; said once in a process.
        each: whether the headline is said of every step; False for what is not about the step, but about something
            that it shares with others, such as the image.
        closed: whether it keeps a job from being entered, so that one step in one pipeline does not stand for the step
            of that name in another.
    """

    headline: str
    rest: str = ""
    each: bool = True
    closed: bool = False

    @property
    def text(self) -> str:
        """All of it."""
        return self.headline + self.rest


def unseen(options: SSHOptions) -> list[RequestWarning]:
    """What is to be said of a transform job whose model was not seen to get SSH: its files come with its model.

    Args:
        options: what was asked for the job.
    """
    if not options.baked:
        return [_UNSEEN]
    return [_ROLE_UNSEEN] if options.role is None and options.transport == "ssm" else []


_UNSEEN = RequestWarning(
    "its model was not seen to get SSH",
    ": unless it was made with SSH, the job can't be entered; give SSH to what makes the model, too, or use an image "
    "that has smssh-plugin (SSHOptions(launcher='baked'))",
    closed=True,
)
_ROLE_UNSEEN = RequestWarning(
    "its model was not seen to get SSH, which would say by SMSSH_ROLE what role the hosts are registered with",
    ": unless the model or its image does, name it (SSHOptions(role=...))",
    closed=True,
)


def unproven_way() -> RequestWarning:
    """What is to be said of a transform job or its model where the bundle comes by a way that was not proven for it."""
    return RequestWarning(
        "the bundle is one of the model's AdditionalModelDataSources, which AWS does not document for batch transform",
        "; if the model or the job is refused or fails for that, let a job repack the model first "
        "(SSHOptions(repack=True), for a pipeline as a whole), use an image that has smssh-plugin "
        "(SSHOptions(launcher='baked')), or leave SSH off here (SSHOptions(enabled=False))",
    )


class Held(NamedTuple):
    """How long a job may be kept from going on.

    Attributes:
        wait: seconds before the entry point starts, at most; 0 for no wait.
        hold: seconds of a hold, at most; 0 where none was asked for.
        after: whether it is to be held when the entry point has run: after a failure, or at the end.
    """

    wait: int = 0
    hold: int = 0
    after: bool = False


def warnings_of(
    kind: str, before: Request, after: Request, injection: Injection, held: Held
) -> list[RequestWarning]:
    """What is to be said of a request.

    Args:
        kind: one of the values of `KINDS`.
        before: the request as it was.
        after: the request with SSH in it.
        injection: what was added.
        held: what was asked for in the way of waits and holds.
    """
    if kind == "tuning":
        _, old = definitions_of(before)
        _, new = definitions_of(after)
        several = [_of_training(*pair, injection, held) for pair in zip(old, new)]
        several.append(_of_limit(before, held, "HyperParameterTuningJobConfig", "ResourceLimits"))
        return list(dict.fromkeys(warning for found in several for warning in found))
    if kind == "training":
        return _of_training(before, after, injection, held)
    if kind == "processing":
        network = before.get("NetworkConfig")
        return [
            *_of_network(network, injection, "NetworkConfig."),
            *_of_python_path(at(before, "AppSpecification", "ImageUri"), before, after),
            *_of_entry_point(at(before, "AppSpecification"), at(after, "AppSpecification"), held),
            *_of_limit(before, held, "StoppingCondition"),
        ]
    if kind == "model":
        found = _of_network(before, injection, "")
        for old, new in zip(_containers(before), _containers(after)):
            found += _of_python_path(at(old, "Image"), old, new)
        return list(dict.fromkeys(found))
    return []


def cache_warning(kind: str) -> RequestWarning | None:
    """What is to be said of a step with SSH whose results are cached; None for a step that starts no container."""
    if kind not in CACHE_KEYS:
        return None
    return RequestWarning(
        "step caching is on, and a cache hit starts no container that could be entered",
        f"; SSH is part of the key ({CACHE_KEYS[kind]}), so that turning it on or off, and a new bundle, run the step "
        "once; SSHOptions(cache='drop') runs it always, cache='keep' says no more",
    )


def _of_training(before: Any, after: Any, injection: Injection, held: Held) -> list[RequestWarning]:
    if not is_map(before) or not is_map(after):
        return []
    found = _of_network(before, injection, "")
    image = at(before, "AlgorithmSpecification", "TrainingImage")
    found += _of_python_path(image, before, after)
    found += _of_entry_point(at(before, "AlgorithmSpecification"), at(after, "AlgorithmSpecification"), held)
    found += _of_limit(before, held, "StoppingCondition")
    if held.hold and before.get("EnableManagedSpotTraining") is True:
        found.append(
            RequestWarning(
                "spot capacity can be taken away at any time", ", and with it a container that is held"
            )
        )
    debug = at(before, "RemoteDebugConfig", "EnableRemoteDebug")
    if injection.transport == "native":
        if debug is not None and debug is not True:
            found.append(_of_variable("RemoteDebugConfig.EnableRemoteDebug", "false"))
        if image_addresses.is_algorithm(image, before.get("HyperParameters")):
            found.append(
                RequestWarning(
                    "the native transport is SageMaker's remote debugging, which is not for images of built-in "
                    "algorithms"
                )
            )
    return found


def _of_network(holder: Any, injection: Injection, prefix: str) -> list[RequestWarning]:
    if not is_map(holder):
        return []
    found = []
    isolation = holder.get("EnableNetworkIsolation")
    if isolation is not None and isolation is not False and isolation is not True:
        found.append(_of_variable(f"{prefix}EnableNetworkIsolation", "true"))
    if holder.get("VpcConfig") is not None and injection.transport != "none":
        needed = "ssmmessages" if injection.transport == "native" else "ssm and ssmmessages"
        found.append(
            RequestWarning(
                f"{prefix}VpcConfig is set",
                f": without a way to the internet, its subnets need the interface endpoints {needed}, and the gateway "
                "endpoint of S3",
            )
        )
    return found


def _of_variable(member: str, value: str) -> RequestWarning:
    return RequestWarning(
        f"{member} is a pipeline variable", f"; where it is {value}, the container can't be entered"
    )


def _of_python_path(image: Any, before: Any, after: Any) -> list[RequestWarning]:
    """A job's PYTHONPATH takes the place of the image's own."""
    if at(before, "Environment", "PYTHONPATH") is not None or image_addresses.keeps_python_path(image):
        return []
    path = at(after, "Environment", "PYTHONPATH")
    if not is_text(path) or not path.startswith(MOVED):
        return []
    named = image if is_text(image) else "the image"
    return [
        RequestWarning(
            "PYTHONPATH is set for SSH and takes the place of the image's own",
            f"; if {named} has one, give it in the request's Environment; a training or processing job can name its "
            "entry point as well, which is wrapped instead",
            each=False,
        )
    ]


def _of_entry_point(before: Any, after: Any, held: Held) -> list[RequestWarning]:
    """Nobody of ours is above an entry point that insists on being process 1, to see how it ends."""
    command = at(before, "ContainerEntrypoint")
    if not held.after or not is_list(command) or at(after, "ContainerEntrypoint") is command:
        return []
    words = [word if is_text(word) else "" for word in command[:3]]
    if not words or not pid1.is_required_by_words(words):
        return []
    return [
        RequestWarning(
            "its entry point insists on being process 1, so the job can be entered, but not held when it ends",
            f": {repr(words[0]) if words[0] else 'it'} is started as process 1 itself, with nothing of ours above it; "
            "wait and hold='start' work, and to have its end held, name the program that it starts as the entry point",
        )
    ]


def _of_limit(before: Request, held: Held, *members: str) -> list[RequestWarning]:
    """A hold does not stop the clock.

    Args:
        before: the request.
        held: what was asked for in the way of waits and holds.
        members: the path to the structure with the limit.
    """
    limit = at(before, *members, "MaxRuntimeInSeconds")
    if type(limit) is not int:
        return []
    ends = limit - end_seconds(limit)
    longest = held.wait + held.hold
    what = " and ".join(name for name, seconds in (("a wait", held.wait), ("a hold", held.hold)) if seconds)
    if not what or longest < ends:
        return []
    return [
        RequestWarning(
            f"{what} of up to {longest} s in all may be cut short",
            f": {'.'.join(members)}.MaxRuntimeInSeconds ends the job {limit} s after its start, so every hold ends "
            f"{ends} s after it at the latest, and what the job has run by then is part of that; give the job more "
            "time, or ask for less (hold_max_seconds, wait)",
        )
    ]


def _containers(model: Request) -> list[Any]:
    several = model.get("Containers")
    return list(several) if is_list(several) and several else [model.get("PrimaryContainer")]


# -------------------------------------------------------------------------------- saying it

_STEP = "step "
_INSIDE = ("smssh_plugin", "sagemaker", "boto", "contextlib", "functools", "pydantic")
_said: dict[RequestWarning, set[str]] = {}
"""What was said in this process, and of what."""
_waiting: contextvars.ContextVar[dict[tuple[str, str], list[str]] | None] = contextvars.ContextVar(
    "waiting", default=None
)
"""What is to be said at the end of `gathered`, of whose steps, and of which."""
_whose: contextvars.ContextVar[str] = contextvars.ContextVar("whose", default="")
"""Whose steps it is about, as the end of a subject."""


def say(subject: str, found: Iterable[RequestWarning]) -> None:
    """Warn of something, unless that was done before; of what was said of others, the headline will do.

    Args:
        subject: what it is about, as a person knows it.
        found: what is to be said of it.
    """
    waiting = _waiting.get()
    for warning in found:
        whose = _whose.get() if warning.closed else ""
        known = _said.setdefault(warning, set())
        whole = not known or (waiting is not None and (warning.text, whose) in waiting)
        if subject + whose in known or not (whole or warning.each):
            continue
        known.add(subject + whose)
        text = warning.text if whole else warning.headline
        if waiting is None:
            _warn(f"{subject}{whose}: {text}")
        else:
            waiting.setdefault((text, whose), []).append(subject)


@contextlib.contextmanager
def gathered(pipeline: str | None = None) -> Iterator[None]:
    """Say at the end, and of all at once, what is to be said of several steps.

    Args:
        pipeline: the name of the pipeline whose steps they are.
    """
    if _waiting.get() is not None:
        yield
        return
    waiting: dict[tuple[str, str], list[str]] = {}
    token = _waiting.set(waiting)
    whose = _whose.set("" if pipeline is None else f" of pipeline {pipeline!r}")
    try:
        yield
    finally:
        _waiting.reset(token)
        _whose.reset(whose)
        for (text, owner), subjects in waiting.items():
            _warn(f"{_joined(subjects)}{owner}: {text}")


def forgettable() -> Callable[[], None]:
    """A way to forget what is said from now on and was not warned of yet, for another try."""
    waiting = _waiting.get()
    known = {warning: set(subjects) for warning, subjects in _said.items()}
    kept = {key: list(subjects) for key, subjects in (waiting or {}).items()}

    def forget() -> None:
        _said.clear()
        _said.update({warning: set(subjects) for warning, subjects in known.items()})
        if waiting is not None:
            waiting.clear()
            waiting.update({key: list(subjects) for key, subjects in kept.items()})

    return forget


def _warn(text: str) -> None:
    """Warn at the line of the user's that asked for the request, not somewhere inside of the SDK."""
    level, frame = 1, sys._getframe()  # noqa: SLF001 - what warnings.warn itself counts
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_INSIDE):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, SmsshWarning, stacklevel=level)


def _joined(subjects: Sequence[str]) -> str:
    """Several subjects as one: `steps 'A', 'B' and 'C'`."""
    head = subjects[0].partition(_STEP)[0]
    names = [subject[len(head + _STEP) :] for subject in subjects if subject.startswith(head + _STEP)]
    if len(subjects) == 1 or len(names) < len(subjects):
        return ", ".join(subjects)
    return f"{head}steps {', '.join(names[:-1])} and {names[-1]}"
