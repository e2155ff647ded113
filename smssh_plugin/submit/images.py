"""What the address of an image tells about it. Pure.

Names of repositories: `image_uri_config/*.json` of SageMaker SDK 2.257.7. An image is taken for AWS's own where it has
one of these names and does not lie in the account of the job's role.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from .leaves import is_map, is_text

__all__ = ["Image", "is_algorithm", "keeps_python_path", "parse"]

ALGORITHMS = frozenset(
    [
        "blazingtext",
        "factorization-machines",
        "forecasting-deepar",
        "image-classification",
        "ipinsights",
        "kmeans",
        "knn",
        "lda",
        "linear-learner",
        "ntm",
        "object-detection",
        "object2vec",
        "pca",
        "randomcutforest",
        "semantic-segmentation",
        "seq2seq",
    ]
)
"""Built-in algorithms: programs of AWS's that run no script, take the channels that they know, and are closed to
SageMaker's remote debugging (developer guide, "Access a training container ... for remote debugging")."""
XGBOOST = frozenset(["sagemaker-xgboost", "xgboost"])
"""A framework with a script, and a built-in algorithm without one: then it ends at a channel that it does not know
(`sagemaker_algorithm_toolkit/channel_validation.py` of sagemaker-xgboost-container)."""

_FRAMEWORKS = re.compile(
    r"(autogluon|djl|huggingface|mxnet|pytorch|stabilityai-pytorch|tensorflow)-"
    r"|sagemaker-(base-python|chainer|mxnet|pytorch|rl|scikit-learn|spark|tensorflow|xgboost)"
    r"|smdistributed-|xgboost\Z"
)
_ADDRESS = re.compile(r"(?P<account>\d{12})\.dkr\.ecr\.[a-z0-9.-]+/(?P<name>[^:@]+)")
_ROLE = re.compile(r"arn:[a-z-]+:iam::(\d{12}):")


class Image(NamedTuple):
    """An image in ECR.

    Attributes:
        account: whose it is.
        name: its repository.
    """

    account: str
    name: str


def parse(address: Any, role: Any) -> Image | None:
    """The image at an address, if it may be one of AWS's; None where it is somebody's own, or nobody can tell.

    Args:
        address: the image's address; may be a pipeline variable.
        role: the role of the job; may be a pipeline variable.
    """
    if not is_text(address):
        return None
    found = _ADDRESS.match(address)
    if found is None:
        return None
    own = _ROLE.match(role) if is_text(role) else None
    if own is not None and own.group(1) == found["account"]:
        return None
    return Image(found["account"], found["name"])


def is_algorithm(address: Any, role: Any, hyperparameters: Any) -> bool:
    """Whether a training job runs one of SageMaker's built-in algorithms.

    Args:
        address: its image.
        role: its role.
        hyperparameters: its hyperparameters, which name the script where there is one.
    """
    image = parse(address, role)
    if image is None:
        return False
    if image.name in ALGORITHMS:
        return True
    scripted = is_map(hyperparameters) and "sagemaker_program" in hyperparameters
    return image.name in XGBOOST and not scripted


def keeps_python_path(address: Any, role: Any) -> bool:
    """Whether nothing is lost when a job's PYTHONPATH takes the place of the image's own.

    AWS's framework images have none, but for XGBoost's up to 1.7, whose own is restored in the container
    (entrypoints/sitecustomize.py).
    """
    image = parse(address, role)
    return image is not None and _FRAMEWORKS.match(image.name) is not None
