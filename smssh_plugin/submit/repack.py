"""Models that bring the bundle in their `code/` folder, instead of by AdditionalModelDataSources.

Both SDKs repack a model in the pipeline where it comes from a step before and has a script of its own: a training step
copies its source folder into the `code/` of the model (`_repack_model.py`). The bundle is put beside that script while
the SDK makes the step's request, and so uploads the folder; in the model it is `code/smssh`. A folder of the user's is
copied for that, and never written to.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator, Mapping

from ..errors import ExitStatus, SmsshError
from .bundle import publish
from .bundle.store import Prefix, contents, destination
from .request.values import at, is_list, is_map

if TYPE_CHECKING:
    from .options import SSHOptions
    from .sessions import SdkSession, SessionOf

__all__ = ["makers", "problem", "request_of", "staged", "whole_source"]

FOLDER = "smssh"
_EVERYTHING = '"/opt/ml/code"'
"""The hyperparameter source_dir, as the toolkit reads it: with any, the whole of /opt/ml/code is copied."""


def is_repack(step: Any) -> bool:
    """Whether a step is one of the SDK's that repack a model."""
    return callable(getattr(type(step), "_prepare_for_repacking", None))


def request_of(step: Any) -> Mapping[str, Any] | None:
    """The request of a model step, as far as its arguments hold it; nothing is compiled."""
    arguments = getattr(step, "step_args", None)
    found = arguments if isinstance(arguments, dict) else getattr(arguments, "create_model_request", None)
    return found if isinstance(found, dict) else None


def makers(request: Any) -> list[Any]:
    """For each container of a model's request, the step that repacks its artefact, or None."""
    several = at(request, "Containers")
    containers = several if is_list(several) and several else [at(request, "PrimaryContainer")]
    found = []
    for container in containers:
        try:
            # The artefact is what the step before puts out; see `steps._plain`.
            maker = object.__getattribute__(at(container, "ModelDataUrl"), "_step")
        except AttributeError:
            maker = None
        found.append(maker if is_repack(maker) else None)
    return found


def problem(where: str, request: Mapping[str, Any]) -> SmsshError | None:
    """Why the SDK's repacking can't bring the bundle into a model; None where it can.

    Args:
        where: the model's step.
        request: its request.
    """
    found = makers(request)
    if not all(found):
        which = "this one's artefact is not" if len(found) == 1 else "not every container's artefact is"
        return SmsshError(
            f"{where}: repack=True needs a model that the SDK repacks in the pipeline, and {which} from such a step; "
            "a step that does it can only be added to a pipeline's definition",
            hint="give SSH to the pipeline (with_ssh(pipeline, steps=..., repack=True)); or give the model a script "
            "(entry_point or source_code) and an artefact of a step before, or leave repack out",
            reference="not-repacked",
            status=ExitStatus.USAGE,
        )
    return next(filter(None, map(_problem_of_source, found)), None)


def _problem_of_source(step: Any) -> SmsshError | None:
    source = _own_folder(step) or getattr(step, "_source_dir", None)
    if source is None:
        return None  # the SDK makes one
    if not isinstance(source, str) or source.lower().startswith("s3://"):
        shown = source if isinstance(source, str) else "a pipeline variable"
        return SmsshError(
            f"step {step.name!r}: repack=True needs the model's script in a folder of this machine, and source_dir is "
            f"{shown}",
            hint="give source_dir as a local folder, or leave repack out",
            reference="source-not-local",
            status=ExitStatus.USAGE,
        )
    target = Path(source, FOLDER)
    if target.exists():
        return SmsshError(
            f"step {step.name!r}: {target} is there already, and repack=True needs that name",
            hint="give it another name",
            reference="name-taken",
            status=ExitStatus.USAGE,
        )
    return None


def _own_folder(step: Any) -> str | None:
    """The copy of the script's folder that the SDK keeps for the step, from v3.27 on."""
    found = getattr(step, "_staged_source_dir", None)
    return found if isinstance(found, str) else None


@contextlib.contextmanager
def staged(step: Any, options: SSHOptions, session_of: SessionOf) -> Iterator[None]:
    """Have the bundle beside the script of a repacking step while its request is made.

    Args:
        step: a repacking step, in which `problem` found none.
        options: what was asked for its model.
        session_of: answers the session that knows where bundles go.

    Raises:
        SmsshError: the bundle can't be stored or read.
    """
    if getattr(step, "_source_dir", None) is None:
        # Makes the folder, with the script in it; the SDK calls it again, to no effect but its own.
        step._prepare_for_repacking()  # noqa: SLF001
    uri = publish.publish(options, session_of())
    own = _own_folder(step)
    if own is not None:
        target = Path(own, FOLDER)
        try:
            _lay_out(uri, target, options, session_of())
            yield
        finally:
            shutil.rmtree(target, ignore_errors=True)
        return
    source = step._source_dir  # noqa: SLF001
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "source")
        shutil.copytree(source, copy)
        _lay_out(uri, copy / FOLDER, options, session_of())
        with _in_place_of(source, str(copy), step):
            yield


@contextlib.contextmanager
def _in_place_of(source: str, copy: str, step: Any) -> Iterator[None]:
    """Have a repacking step, and what makes its request, look for the script in a copy of its folder."""
    trainers = getattr(getattr(step, "step_args", None), "func_args", None) or ()
    holders = [
        (step, "_source_dir"),
        (getattr(step, "estimator", None), "source_dir"),
        *((getattr(each, "source_code", None), "source_dir") for each in trainers[:1]),
    ]
    held = [(holder, name) for holder, name in holders if getattr(holder, name, None) == source]
    try:
        for holder, name in held:
            setattr(holder, name, copy)
        yield
    finally:
        for holder, name in held:
            setattr(holder, name, source)


def _lay_out(uri: str, target: Path, options: SSHOptions, session: SdkSession) -> None:
    """Put the bundle into a folder, each file compared with the manifest, and that with the digest in the address."""
    store = destination(options, session)
    place = Prefix(uri, store.client, store.owner)
    try:
        for name, data in contents(place).items():
            file = target / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
    except SmsshError as error:
        problem = "it is gone" if error.status is ExitStatus.NOT_FOUND else error.message
        raise SmsshError(
            f"the bundle {uri}, which repack=True puts beside the model's script, can't be read: {problem}",
            hint=f"allow s3:ListBucket on {store.bucket} and s3:GetObject on {store.bucket}/{place.prefix}/*",
            reference="bundle-not-readable",
            status=ExitStatus.REFUSED,
        ) from None


def whole_source(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """The request of a repacking step, so that it copies its source folder and not just the script.

    SDK v2 copies the folder only where the user gave one.
    """
    parameters = request.get("HyperParameters")
    if not is_map(parameters) or parameters.get("source_dir") not in (None, "null"):
        return request
    return {**request, "HyperParameters": {**parameters, "source_dir": _EVERYTHING}}
