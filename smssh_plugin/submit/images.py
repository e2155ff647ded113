"""What the address of an image tells about it. Pure.

Names of repositories and the accounts that they are in: `image_uri_config/*.json` of SageMaker SDK 2.257.7 and of
sagemaker-core 2.27.0. An image is taken for AWS's own where it has one of these names and lies in one of these
accounts: anybody may call a repository `object-detection`, and keep it in another account than that of the job's role.
"""

from __future__ import annotations

import re
from typing import Any

from .leaves import is_map, is_text

__all__ = ["ACCOUNTS", "is_algorithm", "keeps_python_path"]

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
ACCOUNTS = frozenset(
    """
    000907499111 004313294153 010264522435 048378556238 057415533634 081325390199 094389454867 102112518831
    102471314380 103105715889 104374241257 105495057255 106583098589 107072934176 107173498710 108575199400
    117516905037 118315366868 121021644041 124382933778 124985052026 127363102723 136845547031 141502667606
    142351485170 148761635175 153931337802 154076345201 156387875391 173754725891 174872318107 180250353322
    190319476487 204133271717 204372634319 204538143572 211125459255 217643126080 224300973850 226302683700
    236514542706 237065988967 243637512696 246618743249 246785580436 249704162688 257386234256 257758044811
    258307448986 260923028637 266724342769 271483468897 272398656194 276181064229 278240940207 281123927165
    286214385809 293181348795 297031611018 303241398832 306986355934 309385258863 310906938811 313743910680
    314815235551 330188676905 341280168497 351501993468 353608530281 354813040037 358279745144 364406365360
    366743142698 366932332049 371248457586 380164790875 380420809688 382416733822 387376663083 390048526115
    390780980154 390948362332 394103062818 395420993607 396913743851 404615174143 408426139102 411782140378
    414596584902 422961961927 423003514399 429704687514 433757028032 434457397001 438346466558 440695851116
    442386744353 446045086412 446299261295 450853457545 451049120500 452832661640 453391408702 454834333376
    455444449433 457447274322 462105765813 469771592824 470317259841 471112967968 475088953585 490574956308
    492215442770 492261229750 493642496378 495149712605 501404015308 503227376785 510948584623 514117268639
    520713654638 522234722520 528757812139 533267296287 544295431143 550225433462 559312083959 566113047672
    569303640362 571004829621 590183813437 592751261982 615547856133 623308166672 626614931356 628508329040
    632365934929 633353088612 633930458069 637423239942 644912444149 651117190479 658645717510 659782779980
    662702820516 664544806723 667973535471 669576153137 671472414489 680994064768 683313688378 685385470294
    692866216735 712309505854 712779665605 713710892325 720646828776 724002660598 727897471807 732049463269
    737130764395 737474898029 742091327244 744548109606 746614075791 749696950732 750251592176 753923664805
    759080221371 763104351884 764974769150 765400339828 766337827248 772153158452 780543022126 782484402741
    783357654285 792733760839 800295151634 801668240914 806072073708 811284229777 813361260812 819679513684
    825641698319 833128469047 833944533722 835164637446 836651553127 840123138293 841784149062 844356804704
    855470959533 860869212795 867004704886 871362719292 873151114052 883091641454 886529160074 898809789911
    906073651304 906349786431 907027046896 914824155844 936697816551 938034419563 951798379941 975050140332
    978288397137 991648021394 999678624901 999911452149
    """.split()  # noqa: SIM905 - a line for each is two hundred lines
)
"""AWS's own accounts, of all regions, for the repositories that are known by name here."""


def _repository(address: Any) -> str | None:
    """The repository of an image of AWS's; None where it is somebody's own, or nobody can tell.

    Args:
        address: the image's address; may be a pipeline variable.
    """
    found = _ADDRESS.match(address) if is_text(address) else None
    return found["name"] if found is not None and found["account"] in ACCOUNTS else None


def is_algorithm(address: Any, hyperparameters: Any, *, scripted: bool = False) -> bool:
    """Whether a training job runs one of SageMaker's built-in algorithms.

    Args:
        address: its image.
        hyperparameters: its hyperparameters, which name the script where there is one.
        scripted: whether somebody knows that there is one, wherever it is named.
    """
    name = _repository(address)
    scripted = scripted or (is_map(hyperparameters) and "sagemaker_program" in hyperparameters)
    return name in ALGORITHMS or (name in XGBOOST and not scripted)


_SHELLLESS = re.compile(r"(?:[^:@]*/)?(?:distroless|chainguard)/|cgr\.dev/")
_WITH_SHELL = re.compile(r":(?:.*-)?(?:dev|debug)(?:-|@|\Z)")


def lacks_shell(address: Any) -> bool:
    """Whether an image is known to have no `/bin/sh`: distroless and Chainguard's, but for variants to debug with.

    Args:
        address: its address; may be a pipeline variable.
    """
    return is_text(address) and bool(_SHELLLESS.match(address)) and not _WITH_SHELL.search(address)


def keeps_python_path(address: Any) -> bool:
    """Whether nothing is lost when a job's PYTHONPATH takes the place of the image's own.

    AWS's framework images have none, but for XGBoost's up to 1.7, whose own is restored in the container
    (entrypoints/sitecustomize.py).
    """
    name = _repository(address)
    return name is not None and _FRAMEWORKS.match(name) is not None
