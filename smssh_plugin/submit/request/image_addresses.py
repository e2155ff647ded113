"""What the address of an image tells about it. Pure.

Names of repositories and the accounts that they are in: `image_uri_config/*.json` of SageMaker SDK 2.257.7 and of
sagemaker-core 2.27.0. An image is taken for AWS's own where it has one of these names and lies in one of these
accounts: anybody may call a repository `object-detection`, and keep it in another account than that of the job's role.
"""

from __future__ import annotations

import re
from typing import Any

from .values import is_map, is_text

__all__ = ["ACCOUNTS", "is_algorithm", "is_closed", "keeps_python_path"]

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
TOOLS = frozenset(
    [
        "detailed-profiler-processing",
        "image-classification-neo",
        "sagemaker-clarify-processing",
        "sagemaker-data-wrangler-container",
        "sagemaker-debugger-rules",
        "sagemaker-model-monitor-analyzer",
        "sagemaker-sparkml-serving",
        "tei",
        "tei-cpu",
        "xgboost-neo",
    ]
)
"""Other closed images of AWS's: Clarify, Model Monitor, Data Wrangler, the Debugger, and servers without Python."""
XGBOOST = frozenset(["sagemaker-xgboost", "xgboost"])
"""A framework with a script, and a built-in algorithm without one: then it ends at a channel that it does not know
(`sagemaker_algorithm_toolkit/channel_validation.py` of sagemaker-xgboost-container)."""

_FRAMEWORKS = re.compile(
    r"(autogluon|djl|huggingface|mxnet|pytorch|stabilityai-pytorch|tensorflow)-"
    r"|sagemaker-(base-python|chainer|mxnet|pytorch|rl|scikit-learn|spark|tensorflow|xgboost)"
    r"|smdistributed-|xgboost\Z"
)
_WITHOUT_SCRIPTS = "xgboost"
"""The repository of XGBoost up to 0.72, a built-in algorithm and no more (`image_uri_config/xgboost.json`)."""
_ADDRESS = re.compile(r"(?P<account>\d{12})\.dkr\.ecr\.[a-z0-9.-]+/(?P<name>[^:@]+)")
ACCOUNTS = frozenset(
    """
    000907499111 001633400207 004313294153 007051062584 007439368137 010264522435 010526262399 017069133835
    024640144536 048378556238 048819808253 054986407534 057415533634 081325390199 089933028263 094389454867
    098760798382 102112518831 102471314380 103105715889 104374241257 105495057255 106583098589 107072934176
    107173498710 108575199400 110948597952 117516905037 118315366868 119527597002 121021644041 122526803553
    122578899357 124382933778 124985052026 126357580389 127363102723 131013547314 131546521161 136845547031
    141502667606 142351485170 143210264188 148761635175 151534178276 153931337802 154076345201 156387875391
    156813124566 159807026194 167761179201 173754725891 174368400705 174872318107 180250353322 184798709955
    190319476487 199566480951 204133271717 204372634319 204538143572 205493899709 205585389593 211125459255
    211330385671 216881608335 217643126080 224300973850 226302683700 227234621604 236514542706 237065988967
    243637512696 245179582081 245545462676 245909111842 246618743249 246785580436 249157047649 249704162688
    250201462417 254080097072 257386234256 257758044811 258307448986 260923028637 263625296855 263933020539
    266724342769 271483468897 272398656194 275950707576 276181064229 278240940207 281123927165 286214385809
    293181348795 297031611018 301217895009 303241398832 306415355426 306986355934 309385258863 310906938811
    313743910680 314341159256 314815235551 314864569078 324986816169 330188676905 341280168497 341593696636
    351501993468 353608530281 354813040037 355873309152 358279745144 364406365360 366743142698 366932332049
    371248457586 376037874950 377024640650 380164790875 380420809688 382416733822 387376663083 390048526115
    390780980154 390948362332 394103062818 395420993607 396913743851 404615174143 406031935815 406833011540
    408426139102 411392592546 411782140378 414596584902 415577184552 422173101802 422961961927 423003514399
    424196993095 429704687514 430734990657 433757028032 434457397001 437450045455 438346466558 440695851116
    440796970383 442386744353 446045086412 446299261295 447278800020 450853457545 451049120500 452307495513
    452832661640 453000072557 453252182341 453391408702 454834333376 455444449433 457447274322 462105765813
    464438896020 467912361380 468650794304 469771592824 470317259841 471112967968 472730292857 474822919863
    475088953585 479947661362 482524230118 488287956546 490574956308 492215442770 492261229750 493642496378
    495149712605 501404015308 503227376785 503895931360 510948584623 514117268639 515509971035 519511493484
    520018980103 520713654638 522234722520 528757812139 533267296287 536280801234 539772159869 544295431143
    550225433462 557239378090 559312083959 563025443158 563282790590 566113047672 569303640362 571004829621
    574779866223 578805364391 579539705040 588750061953 590183813437 590183933784 592751261982 598674086554
    601324751636 607024016150 615547856133 618459771430 623308166672 626614931356 628508329040 632365934929
    633353088612 633930458069 637423239942 638885417683 644912444149 649008135260 651117190479 658645717510
    658757709296 659782779980 662702820516 663277389841 664544806723 667973535471 669540362728 669576153137
    671472414489 675030665977 680080141114 680994064768 683313688378 685385470294 685455198987 692866216735
    705930551576 707077482487 709848358524 710691900526 712309505854 712779665605 713710892325 720646828776
    724002660598 727897471807 730335477804 732049463269 737130764395 737474898029 740489534195 742091327244
    744548109606 746233611703 746614075791 749696950732 749857270468 750251592176 751086301963 753923664805
    756306329178 759080221371 763008648453 763104351884 763603941244 764974769150 765400339828 766337827248
    772153158452 774647643957 777275614652 780543022126 782484402741 783357654285 785573368785 792733760839
    800295151634 801668240914 802834080501 806072073708 807237891255 811284229777 811711786498 813361260812
    818342061345 819679513684 825641698319 833128469047 833944533722 834264404009 835164637446 835444307964
    836651553127 836785723513 840123138293 841784149062 843974653677 844356804704 853188333426 855470959533
    860869212795 867004704886 871362719292 873151114052 875698925577 883091641454 886529160074 890145073186
    894491911112 895015795356 895741380848 898809789911 904829902805 906073651304 906349786431 907027046896
    912233562940 913387583493 914824155844 915447279597 925152966179 926135532090 929884845733 933208885752
    935523707064 936697816551 938034419563 941853720454 951798379941 966458181534 972752614525 975050140332
    978288397137 986000313247 990339680094 991648021394 999678624901 999911452149
    """.split()  # noqa: SIM905 - a line for each is hundreds of lines
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
    """Whether a training job runs one of SageMaker's built-in algorithms, or another closed image of AWS's.

    Args:
        address: its image.
        hyperparameters: its hyperparameters, which name the script where there is one.
        scripted: whether somebody knows that there is one, wherever it is named.
    """
    name = _repository(address)
    scripted = scripted or (is_map(hyperparameters) and "sagemaker_program" in hyperparameters)
    return name in ALGORITHMS or name in TOOLS or (name in XGBOOST and not scripted)


def is_closed(address: Any) -> bool:
    """Whether an image is a program of AWS's that runs no code of anybody else's, in a model or a processing job.

    Args:
        address: the image's address; may be a pipeline variable.
    """
    name = _repository(address)
    return name in ALGORITHMS or name in TOOLS or name == _WITHOUT_SCRIPTS


_SHELLLESS = re.compile(r"(?:[^:@]*/)?(?:distroless|chainguard)/|cgr\.dev/")
_WITH_SHELL = re.compile(r":(?:.*-)?(?:dev|debug)(?:-|@|\Z)")


def lacks_shell(address: Any) -> bool:
    """Whether an image is known to have no `/bin/sh`: distroless and Chainguard's, except for variants to debug with.

    Args:
        address: its address; may be a pipeline variable.
    """
    return is_text(address) and bool(_SHELLLESS.match(address)) and not _WITH_SHELL.search(address)


def keeps_python_path(address: Any) -> bool:
    """Whether nothing is lost when a job's PYTHONPATH takes the place of the image's own.

    AWS's framework images have none, except for XGBoost's up to 1.7, whose own is restored in the container
    (entrypoints/sitecustomize.py).
    """
    name = _repository(address)
    return name is not None and _FRAMEWORKS.match(name) is not None
