"""SSH into any SageMaker job, and fix a failed pipeline step while it is still running.

Every name below is imported when it is first used: this package starts inside job containers and behind
`smssh proxy`, where nothing may be imported that is not needed.
"""

from ._version import __version__

__all__ = [
    "SSHOptions",
    "SmsshError",
    "SmsshWarning",
    "Tunnel",
    "__version__",
    "connect",
    "enable",
    "hookimpl",
    "is_last_session_timeout",
    "with_ssh",
]

_HOMES = {
    "SSHOptions": "submit.options",
    "SmsshError": "errors",
    "SmsshWarning": "submit.options",
    "Tunnel": "client.tunnels",
    "connect": "client.connection",
    "enable": "submit.boto",
    "hookimpl": "hookspecs",
    "is_last_session_timeout": "entrypoints.idle",
    "with_ssh": "submit.with_ssh",
}

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .client.connection import connect
    from .client.tunnels import Tunnel
    from .entrypoints.idle import is_last_session_timeout
    from .errors import SmsshError
    from .hookspecs import hookimpl
    from .submit.boto import enable
    from .submit.options import SmsshWarning, SSHOptions
    from .submit.with_ssh import with_ssh


def __dir__() -> "list[str]":
    """The public names as well, before they were used."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> object:
    """Import the public name from its home (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    try:
        value = getattr(import_module("." + home, __name__), name)
    except ModuleNotFoundError as error:
        if not str(error.name).startswith(__name__):
            raise
        # In a job that got the bundle: this package is there without what only a client needs.
        raise ImportError(
            f"{__name__}.{name} is for the machine that submits jobs or connects to them"
        ) from None
    globals()[name] = value
    return value
