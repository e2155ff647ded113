"""The launcher in SAGEMAKER_TRAINING_MODULE: the training toolkits import it and call what it names.

Opt-in, for images whose own sitecustomize must not be hidden. In the bundle it is `chain/smssh_chain.py`, alone in
its folder: PYTHONPATH=<bundle>/chain, SAGEMAKER_TRAINING_MODULE=smssh_chain:main. In an image with the package:
SAGEMAKER_TRAINING_MODULE=smssh_plugin.entrypoints.chain:main.

The variable hides the image's own ENV SAGEMAKER_TRAINING_MODULE. `main` therefore is not a function of this module:
asked for it, the module boots and hands out the image's own, so that tracebacks in failure files are as without us.
That is the one in SMSSH_TRAINING_MODULE, else the first of KNOWN that the image has, else what the toolkit does where
the variable is not set.

The job fails where the toolkit cannot import this file. CPython 3.7 and later, standard library only.
"""

import importlib
import importlib.util
import os
import sys

TYPE_CHECKING = False  # typing itself is not imported in the job's interpreters
if TYPE_CHECKING:
    from typing import Any, Callable

MODULE = "SAGEMAKER_TRAINING_MODULE"
ORIGINAL = "SMSSH_TRAINING_MODULE"
KNOWN = (
    "sagemaker_pytorch_container.training:main",
    "sagemaker_tensorflow_container.training:main",
    "sagemaker_sklearn_container.training:main",
    "sagemaker_xgboost_container.training:main",
    "sagemaker_mxnet_container.training:main",
    "sagemaker_chainer_container.training:main",
)
"""What SageMaker's own images set."""
HIDDEN = "/xgboost/dmlc-core/tracker"
"""See sitecustomize.py; here too, the job's PYTHONPATH takes the place of the image's."""


def __getattr__(name: str) -> "Callable[[], None]":  # PEP 562
    if name != "main":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        for path in list(sys.path):
            if path.endswith("-packages") and path + HIDDEN not in sys.path and os.path.isdir(path + HIDDEN):
                sys.path.append(path + HIDDEN)  # the toolkits hand sys.path on to the user's script
        if os.environ.get("SMSSH_ENABLE") == "1":
            _run_boot()
    except BaseException:  # noqa: BLE001, S110 - the job goes on, whatever is wrong with us
        pass
    return _original()


def _run_boot() -> None:
    if "_smssh_boot" in sys.modules:  # another launcher came first
        return
    if __package__:
        from . import boot

        boot.start("chain")
        return
    # As sitecustomize.py does it: nothing on sys.path, a private package.
    import types

    bundle = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    package = types.ModuleType("_smssh")
    package.__path__ = [os.path.join(bundle, "smssh.zip", "smssh_plugin")]
    sys.modules["_smssh"] = package
    from _smssh.entrypoints import boot as bundled  # type: ignore[import-not-found]

    bundled.start("chain", bundle)


def _original() -> "Callable[[], Any]":
    """What the toolkit would have called without us."""
    named = os.environ.get(ORIGINAL)
    os.environ.pop(MODULE, None)  # toolkits tell the script of it: SM_FRAMEWORK_MODULE
    for target in [named] if named else KNOWN:
        module, _, function = target.partition(":")
        if named or importlib.util.find_spec(module.partition(".")[0]) is not None:
            os.environ[MODULE] = target
            found: Callable[[], Any] = getattr(importlib.import_module(module), function)
            return found
    return run_program


def run_program() -> None:
    """What `train` of the toolkits does where no framework's module is set (trainer.py, _trainer.py)."""
    if "sagemaker_training" in sys.modules:
        from sagemaker_training import entry_point, environment, params, runner

        env = environment.Environment()
        types = runner.RunnerType
        keyword = "runner_type"
    else:
        from sagemaker_containers import _params as params
        from sagemaker_containers import _runner as runner
        from sagemaker_containers import entry_point, training_env

        env = training_env()
        types = runner.RunnerType
        keyword = "runner"
    mpi = env.additional_framework_parameters.get(params.MPI_ENABLED)
    groups = getattr(env, "distribution_instance_groups", None)  # from 4.0 on
    if groups is not None and env.current_instance_group not in groups:
        mpi = None
    chosen = types.MPI if mpi else types.Process
    arguments = (env.module_dir, env.user_entry_point, env.to_cmd_args(), env.to_env_vars())
    entry_point.run(*arguments, **{keyword: chosen})
