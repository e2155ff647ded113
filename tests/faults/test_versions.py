"""Two of us at once: baked into the image, and in the bundle that the request brings, of other versions."""

from __future__ import annotations

import pytest

import smssh_plugin
from tests.waiting import LIMIT, until

from .images import bake, image

BAKED = "0.0.1"


@pytest.fixture
def baked(container):
    """An image in which another version of this package is installed."""
    made = image(container.folder)
    bake(made, BAKED)
    return made


SCRIPT = (
    "import os, sys, time\n"
    "print(sorted({name.split('.')[0] for name in sys.modules if 'smssh' in name}), flush=True)\n"
    "while not os.path.exists('go'): time.sleep(0.05)\n"
    "sys.exit(7)\n"
)


def versions(container):
    """The version that serves, once there is a login."""
    return until(lambda: (s := container.wait_for("ready")) and s["ssh"]["port"] and s["plugin_version"])


def test_the_baked_one_comes_first_and_is_the_only_one(container, baked) -> None:
    """Its .pth runs before sitecustomize is imported; the bundle's then finds that boot has run."""
    # The variables that a request gets which names no entry point: the baked one serves from the bundle too.
    process = container.start(
        baked / "bin" / "python",
        container.script(SCRIPT, name="train"),
        PYTHONPATH=container.bundle,
        SMSSH_BUNDLE=container.bundle,
    )
    assert versions(container) == BAKED
    assert container.log().count("started by") == 1
    assert "started by pth" in container.log()
    container.script("", name="go")
    assert process.wait(LIMIT) == 7
    container.assert_quiet()


def test_the_wrapped_entry_point_comes_first_and_is_the_only_one(container, baked) -> None:
    """run.sh is there before any interpreter of the image's; the baked one finds the lock taken."""
    process = container.wrap(
        baked / "bin" / "python",
        container.script(SCRIPT, name="train"),
        PATH=f"{baked}/bin:{container.environ['PATH']}",
        SMSSH_HOLD="failure",
    )
    status = container.wait_for("running")
    assert status["plugin_version"] == smssh_plugin.__version__ != BAKED
    assert container.log().count("started by") == 1
    container.script("", name="go")
    assert container.wait_for("held")["attempt"] == 1
    container.hook("release")
    assert process.wait(LIMIT) == 7
    assert container.output().count("smssh: held (") == 1
    container.assert_quiet()


def test_off_is_off_for_both(container, baked) -> None:
    script = container.script(
        "import sys; print([name for name in sys.modules if 'smssh' in name])", name="train"
    )
    process = container.start(baked / "bin" / "python", script, on=False, PYTHONPATH=container.bundle)
    assert process.wait(LIMIT) == 0
    assert container.output() == "[]\n"
    assert not container.run_dir.exists()
