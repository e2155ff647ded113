"""Which folder of this machine stands for which image.

An image is a folder: either the root folder of a system, as `docker export` or `podman export` unpacks it, or a
Python environment, which jobs see on top of this machine's own system. This module imports the standard library only,
and of the package what the command line may import before it starts anything.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import ExitStatus, SmsshError
from .jobs.kinds import ClientFault

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .jobs.kinds import Job

__all__ = ["Choice", "Image", "Images", "kind_of", "parse", "uri_of"]

Kind = Literal["root", "environment"]

CANNOT_PULL = (
    "Cannot pull algorithm container. Either the image does not exist or its permissions are incorrect."
)
"""The service's word on a job whose image is not there (aws/sagemaker-python-sdk issues 1968 and 1986)."""

_ECR = re.compile(r"(\d{12})\.dkr[.-]ecr(?:-fips)?\.[a-z0-9-]+\.[a-z0-9.-]+/(.+)")
_PULL_ACTIONS = "ecr:BatchCheckLayerAvailability, ecr:BatchGetImage, ecr:GetDownloadUrlForLayer"
_SUFFIX = re.compile(r"(?P<name>[^@]*?)(?P<tag>:[^:/@]+)?(?P<digest>@.*)?$", re.DOTALL)
_PATHS = ("/", "./", "../", "~")
"""What a path begins with, and no name of an image does."""


@dataclass(frozen=True)
class Choice:
    """What `--image` was given, several times at most.

    Args:
        default: the folder for every image that has none of its own; None for the environment that smssh runs in.
        named: the others, by name.
    """

    default: Path | None
    named: dict[str, Path]


def parse(values: Iterable[str]) -> Choice:
    """Read the values of `--image`: `NAME=FOLDER`, or `FOLDER` for the default. Folders become absolute.

    Whether a folder can be an image is looked at when an emulator starts: see `Images`.

    Raises:
        SmsshError: a value has no sense, a name comes twice, or there is no such folder.
    """
    default: Path | None = None
    named: dict[str, Path] = {}
    for value in values:
        name, equals, folder = value.partition("=")
        if not equals or name.startswith(_PATHS):
            name, folder = "", value
        elif not name or name.startswith("-") or name != "".join(name.split()):
            raise _usage(f"--image {value!r}: {name!r} is not the name of an image", _FORM)
        if not folder:
            raise _usage(f"--image {value!r} names no folder", _FORM)
        path = Path(os.path.abspath(os.path.expanduser(folder)))
        if not path.is_dir():
            fact = f"{path} is not a folder" if path.exists() else f"there is no folder {path}"
            raise _usage(f"--image {value!r}: {fact}", _FORM)
        if (named.get(name) if name else default) is not None:
            what = f"the image {name}" if name else "the default image"
            raise _usage(
                f"{what} is given twice: {named.get(name, default)} and {path}", "leave one of them out"
            )
        if name:
            named[name] = path
        else:
            default = path
    return Choice(default, named)


_FORM = "NAME=FOLDER gives one image its folder, FOLDER alone all images that have none of their own"


def kind_of(folder: Path) -> Kind:
    """What sort of image a folder is.

    Raises:
        SmsshError: it is not there, or neither a root folder nor a Python environment, or one that no job could see.
    """
    if not folder.is_dir():
        fact = "is not a folder" if folder.exists() else "does not exist"
        raise _no_image(f"the image {folder} {fact}", f"unpack one there: {_EXPORT}")
    environment = os.access(folder / "bin" / "python", os.X_OK)
    marked = (folder / "pyvenv.cfg").exists() or (folder / "conda-meta").is_dir()
    if _looks_like_root(folder) and not (environment and marked):
        if os.path.realpath(folder) == "/":
            raise _no_image(
                f"the image {folder} is this machine's own root folder", "name a Python environment in it"
            )
        return "root"
    if not environment:
        raise _no_image(
            f"the image {folder} has no bin/python of a Python environment, and is not a root folder"
            " (etc, and bin or usr/bin with a shell) either",
            f"make an environment: python3 -m venv {folder} &&"
            f" {folder}/bin/pip install sagemaker-training sagemaker-inference; or unpack an image there: {_EXPORT}",
        )
    if os.pathsep in str(folder):
        raise _no_image(
            f"the image environment {folder} has a {os.pathsep!r} in its path, which no PATH can hold",
            "rename it",
        )
    if str(folder).startswith("/opt/ml/"):
        raise _no_image(
            f"the image environment {folder} lies below /opt/ml, which every job has of its own",
            "move it elsewhere",
        )
    return "environment"


_EXPORT = "docker export $(docker create IMAGE) | tar -x -C FOLDER"


def _looks_like_root(folder: Path) -> bool:
    """Whether it has what every image with a shell has. Interfaces in it are meant for its own root: not followed."""
    shells = ("bin/sh", "usr/bin/sh", "bin/busybox")
    return (folder / "etc").is_dir() and any(os.path.lexists(folder / name) for name in shells)


def uri_of(job: Job) -> str | None:
    """The image that a job's containers are made of; None where its request names none."""
    if job.kind == "training":
        uri = (job.request.get("AlgorithmSpecification") or {}).get("TrainingImage")
    elif job.kind == "processing":
        uri = (job.request.get("AppSpecification") or {}).get("ImageUri")
    else:
        model = job.model or {}
        containers = model.get("Containers") or [model.get("PrimaryContainer") or {}]
        uri = containers[0].get("Image")
    return uri or None


@dataclass(frozen=True)
class Image:
    """An image that a job can be started from.

    Args:
        folder: as it was named.
        kind: what it is.
        number: tells it from the others; 0 is the default.
    """

    folder: Path
    kind: Kind
    number: int


class Images:
    """All images of an emulator.

    Args:
        default: the folder of every image without one of its own.
        named: the others, by full URI, by `repository:tag` or by `repository`.
        known_only: refuse images that are not in `named`, as SageMaker refuses what is not in ECR.

    Raises:
        SmsshError: a folder is not an image.
    """

    def __init__(
        self, default: Path, named: Mapping[str, Path] | None = None, *, known_only: bool = False
    ) -> None:
        named = {name: Path(os.path.abspath(path)) for name, path in (named or {}).items()}
        self.default = Image(Path(os.path.abspath(default)), kind_of(Path(os.path.abspath(default))), 0)
        self.named = {
            name: Image(path, kind_of(path), number)
            for number, (name, path) in enumerate(named.items(), start=1)
        }
        self.known_only = known_only
        if known_only and not named:
            raise _usage(
                "with --known-images-only, and no image that is known, no job could run",
                "name them: --image NAME=FOLDER",
            )

    @property
    def all(self) -> list[Image]:
        """Every one of them, the default first."""
        return [self.default, *self.named.values()]

    def find(self, uri: str | None) -> Image | None:
        """The image of a URI; the default for None. None if it is not known, where only known ones are wanted."""
        if uri is None:
            return self.default
        found = next((self.named[name] for name in names_of(uri) if name in self.named), None)
        return found if found is not None or self.known_only else self.default

    def pull(self, job: Job) -> Image:
        """The image of a job that starts.

        Raises:
            ClientFault: it is not known, or its folder has gone.
        """
        image = self.find(uri_of(job))
        if image is None:
            raise ClientFault(CANNOT_PULL)
        try:
            kind = kind_of(image.folder)
        except SmsshError as error:
            raise ClientFault(CANNOT_PULL) from error
        return image if kind == image.kind else Image(image.folder, kind, image.number)

    def refusal(self, uri: str | None, role: str) -> str | None:
        """What the service says of a job's image when the job is created; None where it lets it pass.

        It looks into ECR alone, and for the repository: a tag that is not there fails when the job starts
        (aws/amazon-sagemaker-examples issue 2534).

        Args:
            uri: the image.
            role: the ARN of the job's role.
        """
        found = _ECR.fullmatch(uri or "")
        if uri is None or found is None or self.find(uri) is not None:
            return None
        account, repository = found[1], _SUFFIX.fullmatch(found[2])
        assert repository is not None
        if any(_repository_of(name) == repository["name"] for name in self.named):
            return None
        return (
            f"Cannot find repository: {repository['name']} in registry ID: {account} Please check if your ECR"
            f" repository exists and role {role} has proper pull permissions for SageMaker: {_PULL_ACTIONS}"
        )

    def model_refusal(self, request: dict[str, Any]) -> str | None:
        """What the service says of a model's images when the model is created; None where it lets them pass.

        (aws-samples/easy-amazon-sagemaker-deployments issue 4.)
        """
        for container in request.get("Containers") or [request.get("PrimaryContainer") or {}]:
            uri = container.get("Image")
            if uri and _ECR.fullmatch(uri) and self.find(uri) is None:
                return f"Requested image {uri} not found."
        return None


def names_of(uri: str) -> list[str]:
    """The names that an image can be given, the most exact one first: the URI, `repository:tag`, `repository`.

    A URI without a tag is of the tag `latest`, as everywhere.
    """
    found = _SUFFIX.fullmatch(uri)
    assert found is not None  # it matches everything
    full = found["name"]
    suffixes = [part for part in (found["tag"], found["digest"]) if part] or [":latest"]
    both = "".join(suffixes)
    repository = _without_registry(full)
    names = [uri, *(f"{full}{suffix}" for suffix in (both, *suffixes))]
    names += [f"{repository}{suffix}" for suffix in (both, *suffixes)]
    return list(dict.fromkeys([*names, full, repository]))


def _without_registry(name: str) -> str:
    """The repository in `registry/repository`, by Docker's rule for what is a registry."""
    first, slash, rest = name.partition("/")
    return rest if slash and ("." in first or ":" in first or first == "localhost") else name


def _repository_of(name: str) -> str:
    found = _SUFFIX.fullmatch(name)
    assert found is not None  # it matches everything
    return _without_registry(found["name"])


def _usage(message: str, hint: str) -> SmsshError:
    return SmsshError(message, hint=hint, reference="bad-image", status=ExitStatus.USAGE)


def _no_image(message: str, hint: str) -> SmsshError:
    return SmsshError(message, hint=hint, reference="no-image", status=ExitStatus.USAGE)
