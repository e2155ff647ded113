"""The launcher on PYTHONPATH: Python imports the first `sitecustomize` on sys.path at every start.

CPython 3.7 and later, standard library only. It hides the image's own sitecustomize, so that one is run
too, as if this file were not there. Boot comes out of the smssh.zip beside it: sys.path stays as it is, and
sys.modules gets names that begin with `_smssh` only.

A job's PYTHONPATH also takes the place of the image's own. Of SageMaker's images, XGBoost's up to 1.7 have one, for
the tracker of Rabit (ENV PYTHONPATH in their Dockerfiles): what is there is put back on sys.path.
"""

import os
import sys
import time

HIDDEN = "/xgboost/dmlc-core/tracker"
"""In site-packages of XGBoost images: what their PYTHONPATH names."""

INPUTS = ("/input/data/smssh", "/processing/smssh")
"""Where a job has the bundle as an input; a model keeps what it brings."""

REMOVAL_LIMIT = 10.0
"""Seconds that another process which takes this folder away is waited for."""


def _restore_path() -> None:
    """Put what the image's own PYTHONPATH named on sys.path, where it stood: after ours, before the library."""
    here = os.path.dirname(os.path.abspath(__file__))
    places = [index for index, path in enumerate(sys.path) if os.path.abspath(path or os.curdir) == here]
    for path in list(sys.path):
        hidden = path + HIDDEN
        if path.endswith("-packages") and places and hidden not in sys.path and os.path.isdir(hidden):
            sys.path.insert(places[0] + 1, hidden)


def _run_next() -> None:
    """Run the sitecustomize that this file hides, under its own name."""
    # The parts of importlib that every interpreter has loaded; importlib.util would load much more, at every start.
    import _frozen_importlib
    import _frozen_importlib_external

    here = os.path.dirname(os.path.abspath(__file__))
    rest = [path for path in sys.path if os.path.abspath(path or os.curdir) != here]
    # A request names the bundle's folder twice, before and after it is moved; here it may be in both.
    rest = [path for path in rest if not os.path.exists(path + "/smssh.zip")]
    spec = _frozen_importlib_external.PathFinder.find_spec("sitecustomize", rest)
    if spec is None or spec.loader is None:
        return
    module = _frozen_importlib.module_from_spec(spec)
    # A later import of sitecustomize gets the image's, as without us.
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


def _add_package(bundle: str) -> None:
    """Have the zip below a private package: an import path of its own, nothing on sys.path."""
    import types

    package = types.ModuleType("_smssh")
    package.__path__ = [os.path.join(bundle, "smssh.zip", "smssh_plugin")]
    sys.modules["_smssh"] = package


def _run_boot(bundle: str) -> None:
    if "_smssh_boot" in sys.modules:  # the image is baked and its launcher came first
        return
    _add_package(bundle)
    from _smssh.entrypoints import boot  # type: ignore[import-not-found]

    boot.start("sitecustomize", bundle)


def _follow(bundle: str) -> None:
    """Wait until a folder that another process is removing is gone, and go on with the bundle where it was moved to.

    This file goes first, then the zip, then the folder: in between, what runs after us would see the folder.
    """
    deadline = time.monotonic() + REMOVAL_LIMIT
    if os.path.exists(f"{bundle}/sitecustomize.py") or not os.path.isdir(bundle):
        return
    while os.path.isdir(bundle) and time.monotonic() < deadline:
        time.sleep(0.005)
    if "_smssh_boot" in sys.modules:
        sys.modules["_smssh_boot"].move_bundle()
    else:
        moved = [path for path in sys.path if path != bundle and os.path.exists(f"{path}/smssh.zip")]
        if moved:
            _run_boot(moved[0])


def _leave(bundle: str) -> None:
    """The switch is off: take the input away that brought this file, if it is a job's."""
    if bundle.endswith(INPUTS) and os.path.isfile(bundle + "/smssh.zip"):
        _add_package(bundle)
        from _smssh.entrypoints import hide

        hide.discard()


_bundle = os.path.dirname(os.path.abspath(__file__))
try:
    try:
        _restore_path()
        if os.environ.get("SMSSH_ENABLE") == "1":
            try:
                _run_boot(_bundle)
            finally:
                _follow(_bundle)
        else:
            _leave(_bundle)
    except BaseException:  # noqa: BLE001, S110 - the job goes on, whatever is wrong with us
        pass
finally:
    # An error in the image's own file is the image's own affair: it is reported as Python reports it.
    _run_next()
