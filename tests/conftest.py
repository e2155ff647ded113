"""What holds for all tests."""

import gc
import resource
import signal

import hypothesis
import pytest

from tests import fast, needs, process_state, service_models

OPEN_FILES = 20_000
"""Some tests open a thousand sockets, and a login may have no more than 1024 descriptors."""

LONG = (
    "entrypoints/test_sight.py",
    "setup/test_apply.py",
    "hooks/test_servers.py",
    "debug/test_debug.py",
    "cli/test_local.py",
    "entrypoints/test_drivers.py",
    "supervisor/test_hold.py",
    "entrypoints/test_toolkit.py",
    "entrypoints/test_serving.py",
)
"""Files below this folder that take half a minute of a processor or more, besides those of tests/e2e."""


def pytest_configure(config):
    """Have ^C and a hangup mean something in what the tests start, as in a terminal, and let them open what they need.

    A shell that runs the tests in the background has SIGINT and SIGQUIT ignored, nohup SIGHUP, and that is inherited.
    """
    gc.disable()  # until everything is collected: nothing of that is garbage
    config.pluginmanager.register(needs)
    config.pluginmanager.register(fast)
    config.pluginmanager.register(process_state)
    # The machine may be busy with other tests: time says nothing about an example.
    hypothesis.settings.register_profile("smssh", deadline=None)
    hypothesis.settings.load_profile("smssh")
    service_models.read_once()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < OPEN_FILES:
        wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN or hasattr(config, "workerinput"):
        signal.signal(signal.SIGHUP, lambda *_: None)  # which what is started does not inherit


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """The longest files first, so that no worker is left alone with one at the end; all else stays in random order.

    pytest-xdist has an order of its own, by numbers of tests, unless it is told `--no-loadscope-reorder`.
    """

    def turn(item):
        file = item.nodeid.partition("::")[0].removeprefix("tests/")
        return item.get_closest_marker("e2e") is None, LONG.index(file) if file in LONG else len(LONG)

    items.sort(key=turn)


def pytest_collection_finish():
    """Leave what is imported by now, a million objects, out of every look for garbage to come."""
    gc.enable()
    gc.freeze()
