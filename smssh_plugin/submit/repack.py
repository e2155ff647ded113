"""Models that bring the bundle in their `code/` folder, instead of by AdditionalModelDataSources.

Both SDKs repack a model in the pipeline where it comes from a step before and has a script of its own: a training step
copies its source folder into the `code/` of the model (`_repack_model.py`). The bundle is put beside that script while
the SDK makes the step's request, and so uploads the folder; in the model it is `code/smssh`.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterator, Mapping

from ..errors import ExitStatus, SmsshError
from . import bundle
from .leaves import at, is_map
from .stored import Prefix, contents

if TYPE_CHECKING:
    from .options import SSHOptions

__all__ = ["check", "makers", "staged", "whole_source"]

FOLDER = "smssh"
_EVERYTHING = '"/opt/ml/code"'
"""The hyperparameter source_dir, as the toolkit reads it: with any, the whole of /opt/ml/code is copied."""


def is_repack(step: Any) -> bool:
    """Whether a step is one of the SDK's that repack a model."""
    return callable(getattr(type(step), "_prepare_for_repacking", None))


def makers(step: Any) -> list[Any]:
    """The steps that repack the models of a model step, as far as its arguments tell."""
    arguments = getattr(step, "step_args", None)
    request = arguments if isinstance(arguments, dict) else getattr(arguments, "create_model_request", None)
    return [] if request is None else _makers(request)


def _makers(request: Any) -> list[Any]:
    containers = [at(request, "PrimaryContainer"), *(at(request, "Containers") or ())]
    found = []
    for container in containers:
        try:
            # The artefact is what the step before puts out; see `steps._plain`.
            maker = object.__getattribute__(at(container, "ModelDataUrl"), "_step")
        except AttributeError:
            continue
        if is_repack(maker):
            found.append(maker)
    return found


def check(where: str, request: Mapping[str, Any]) -> None:
    """Refuse a model that nobody repacks.

    Raises:
        SmsshError: its artefact is not what a repacking step of the SDK's puts out.
    """
    if not _makers(request):
        raise SmsshError(
            f"{where}: repack=True needs a model that the SDK repacks in the pipeline, and this one's artefact is not "
            "from such a step",
            hint="give the model a script (entry_point or source_code) and an artefact of a step before, or leave "
            "repack out: the bundle then comes by AdditionalModelDataSources",
            reference="not-repacked",
            status=ExitStatus.USAGE,
        )


@contextlib.contextmanager
def staged(step: Any, options: SSHOptions, session: Callable[[], Any]) -> Iterator[None]:
    """Have the bundle beside the script of a repacking step while its request is made; nothing for other steps.

    Args:
        step: any step.
        options: what was asked for.
        session: answers the session that knows where bundles go.

    Raises:
        SmsshError: the script's folder is not to be written to.
    """
    if not (options.repack and options.active and is_repack(step)):
        yield
        return
    # Makes the folder where there is none; the SDK calls it again, to no effect but its own.
    step._prepare_for_repacking()  # noqa: SLF001
    source = getattr(step, "_staged_source_dir", None) or getattr(step, "_source_dir", None)
    if not isinstance(source, str) or source.lower().startswith("s3://"):
        raise SmsshError(
            f"step {step.name!r}: repack=True needs the model's script in a folder of this machine, and source_dir is "
            f"{source}",
            hint="give source_dir as a local folder, or leave repack out: the bundle then comes by "
            "AdditionalModelDataSources",
            reference="source-not-local",
            status=ExitStatus.USAGE,
        )
    target = Path(source, FOLDER)
    if target.exists():
        raise SmsshError(
            f"step {step.name!r}: {target} is there already, and repack=True needs that name",
            hint="give it another name",
            reference="name-taken",
            status=ExitStatus.USAGE,
        )
    try:
        _lay_out(bundle.publish(options, session()), target, options, session())
        yield
    finally:
        # The folder may be the user's.
        shutil.rmtree(target, ignore_errors=True)


def _lay_out(uri: str, target: Path, options: SSHOptions, session: Any) -> None:
    """Put the bundle into a folder, each file compared with the manifest, and that with the digest in the address."""
    store = bundle.destination(options, session)
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


def whole_source(step: Any, request: Mapping[str, Any], options: SSHOptions) -> Mapping[str, Any]:
    """The request of a repacking step, so that it copies its source folder and not just the script.

    SDK v2 copies the folder only where the user gave one.

    Args:
        step: any step.
        request: its request.
        options: what was asked for.
    """
    parameters = request.get("HyperParameters")
    if not (options.repack and options.active and is_repack(step) and is_map(parameters)):
        return request
    if parameters.get("source_dir") not in (None, "null"):
        return request
    return {**request, "HyperParameters": {**parameters, "source_dir": _EVERYTHING}}
