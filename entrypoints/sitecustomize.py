"""The carrier on PYTHONPATH: Python imports the first `sitecustomize` on sys.path at every start.

CPython 3.7 and later, standard library only. It hides the image's own sitecustomize, so that one is run
too, as if this file were not there. Boot comes out of the smssh.zip beside it: sys.path stays as it is, and
sys.modules gets names that begin with `_smssh` only.
"""

import os
import sys


def _run_next() -> None:
    """Run the sitecustomize that this file hides, under its own name."""
    import importlib.machinery
    import importlib.util

    here = os.path.dirname(os.path.abspath(__file__))
    rest = [path for path in sys.path if os.path.abspath(path or os.curdir) != here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", rest)
    if spec is None or spec.loader is None:
        return
    module = importlib.util.module_from_spec(spec)
    # Whoever imports sitecustomize later gets the image's, as without us.
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


def _run_boot() -> None:
    """Import boot out of the zip below a private package: an import path of its own, nothing on sys.path."""
    if "_smssh_boot" in sys.modules:  # the image is baked and its carrier came first
        return
    import types

    bundle = os.path.dirname(os.path.abspath(__file__))
    package = types.ModuleType("_smssh")
    package.__path__ = [os.path.join(bundle, "smssh.zip", "smssh_plugin")]
    sys.modules["_smssh"] = package
    from _smssh.entrypoints import boot  # type: ignore[import-not-found]

    boot.start("sitecustomize", bundle)


try:
    if os.environ.get("SMSSH_ENABLE") == "1":
        try:  # noqa: SIM105 - contextlib is not imported in the job's interpreters
            _run_boot()
        except BaseException:  # noqa: BLE001, S110 - the job goes on, whatever is wrong with us
            pass
finally:
    # An error in the image's own file is the image's own affair: it is reported as Python reports it.
    _run_next()
