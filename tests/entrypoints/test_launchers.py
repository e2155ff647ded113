"""The launchers that a person chooses: BASH_ENV, SAGEMAKER_TRAINING_MODULE; and what PYTHONPATH hides."""

import functools
import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from smssh_plugin.submit.bundle.build import LAUNCHER_FILES
from tests import needs
from tests.waiting import LIMIT, until

BASH = needs.look("bash")
GOOD = "open(__import__('os').environ['SM_MODEL_DIR'] + '/model', 'w').write('weights')\n"
USER_ERROR = "raise ValueError('user bug')\n"
EXIT_7 = "import sys\nsys.exit(7)\n"
HIDDEN = " ".join(f"-e {name}" for name in ("^SMSSH_", "^BASH", "^PYTHONPATH", "^PIPESTATUS", "^_$"))
STATE = f'set -o; shopt; declare -F; compgen -v | grep -v {HIDDEN}; echo "$-"; trap'
"""What a shell script can see of its shell."""

bash = pytest.mark.needs("bash")


def child_of(process):
    """The process that `unshare` started, as this side numbers it."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return int(until(lambda: path.read_text().split(), what="the child of unshare")[0])


def taken(pid):
    """Whether no signal waits for a process any more."""
    return "ShdPnd:\t0000000000000000" in Path(f"/proc/{pid}/status").read_text()


def test_they_all_travel_in_the_bundle(bundle) -> None:
    for name, file in LAUNCHER_FILES.items():
        source = (Path(__file__).parents[2] / "entrypoints" / file).read_bytes()
        assert (bundle / name).read_bytes() == source
    assert "sitecustomize.py" not in os.listdir(
        bundle / "chain"
    )  # this launcher is chosen to have none of ours


# -------------------------------------------------------------------------------------------- BASH_ENV


@bash
@pytest.mark.parametrize("options", ["", "-eu", "-euo pipefail", "-f"])
def test_bash_env_leaves_the_shell_as_it_was(container, options) -> None:
    given = {"BASH_ENV": container.bundle / "env.sh"}
    script = container.script(STATE + "\nset -- \n", name="job.sh")
    outputs = []
    for on in (False, True):
        process = container.start(BASH, *options.split(), script, "a b", on=on, **(given if on else {}))
        assert process.wait(LIMIT) == 0, container.output()
        outputs.append(container.output())
    assert outputs[0] == outputs[1]
    assert container.starts("BASH_ENV") == 1


@bash
def test_bash_env_starts_once_and_goes_before_pythonpath(container) -> None:
    script = container.script(
        "for number in 1 2 3 4; do bash -c 'echo \"$PYTHONPATH ${BASH_ENV-unset}\"' & done; wait\n"
        "python -c 'import sys; print(\"_smssh_boot\" in sys.modules)'\n"
        "while ! [ -e go ]; do sleep 0.05; done\nexit 7\n",
        name="job.sh",
    )
    process = container.start(BASH, script, BASH_ENV=container.bundle / "env.sh", PYTHONPATH="/theirs")
    container.wait_for("ready")
    container.script("", name="go")
    assert process.wait(LIMIT) == 7
    assert container.output().startswith(f"{container.bundle}:/theirs unset\n" * 4 + "True\n")
    assert container.log().count("started by BASH_ENV") == 1
    container.assert_quiet()


@bash
def test_bash_env_off_does_nothing(container) -> None:
    command = (BASH, "-c", 'echo "$BASH_ENV ${PYTHONPATH-unset}"; exit 3')
    process = container.start(*command, on=False, BASH_ENV=container.bundle / "env.sh")
    assert process.wait(LIMIT) == 3
    assert container.output() == f"{container.bundle}/env.sh unset\n"
    assert not container.run_dir.exists()


@bash
@pytest.mark.parametrize("missing", ["smssh.zip", "run.sh"])
def test_bash_env_of_a_broken_bundle_harms_nothing(container, tmp_path, missing) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(container.bundle, broken)
    (broken / missing).unlink()
    process = container.start(BASH, "-euc", "echo here; exit 3", BASH_ENV=broken / "env.sh")
    assert process.wait(LIMIT) == 3
    assert container.output() == "here\n"


@bash
def test_bash_env_without_python_harms_nothing(container, tmp_path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "python3").write_text("#!/bin/sh\nexit 1\n")
    (tools / "python3").chmod(0o755)
    for name in ("python", "sh"):
        (tools / name).symlink_to("python3" if name == "python" else "/bin/sh")
    env = (Path(container.bundle) / "env.sh").read_text()
    for place in ("/usr/bin/python3", "/usr/local/bin/python3", "/opt/", "/miniconda3/"):
        env = env.replace(place, "/nowhere/")
    copy = tmp_path / "copy"
    shutil.copytree(container.bundle, copy)
    (copy / "env.sh").write_text(env)
    process = container.start(BASH, "-euc", "echo here; exit 3", BASH_ENV=copy / "env.sh", PATH=tools)
    assert process.wait(LIMIT) == 3
    assert container.output() == "here\n"
    assert not container.run_dir.exists()


@bash
def test_bash_env_of_process_1_becomes_the_wrapped_entry_point(container, first) -> None:
    text = 'printf \'<%s>\' "$0" "$@" "${BASH_ENV-unset}"; exit 7'
    command = (*first, BASH, "-euc", text, "a b", "", "line\nline", "*")
    process = container.start(*command, BASH_ENV=container.bundle / "env.sh", SMSSH_HOLD="failure")
    container.wait_for("held")
    assert container.log().count("started by run.sh for process 1\n") == 1
    assert container.output().startswith("<a b><><line\nline><*><unset>")
    assert container.hook("release").returncode == 0
    assert process.wait(LIMIT) == 7


# --------------------------------------------------------------------------------- init as process 1


@pytest.mark.parametrize("caught", [True, False])
def test_process_1_passes_on_what_its_command_would_have_got(container, first, caught) -> None:
    handler = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))" if caught else "pass"
    script = container.script(
        f"import os, signal, sys, time\n{handler}\nprint('up', flush=True)\n"
        "while not os.path.exists('go'): time.sleep(0.05)\nsys.exit(9)\n"
    )
    statuses = []
    for wrap in (container.start, container.wrap):
        (container.folder / "go").unlink(missing_ok=True)
        shutil.rmtree(container.run_dir, ignore_errors=True)
        command = ("python", script)
        if wrap == container.wrap:
            command = ("/bin/sh", container.bundle / "run.sh", *command)
        process = container.start(*first, *command, on=wrap == container.wrap)
        until(lambda: "up\n" in container.output(), what=lambda: "the script: " + container.output())
        os.kill(child_of(process), signal.SIGTERM)
        if not caught:
            # Seen by process 1, and not passed on: the script goes on until it ends by itself.
            until(functools.partial(taken, child_of(process)), what="the signal's delivery")
            container.script("", name="go")
        statuses.append(process.wait(LIMIT))
        container.assert_quiet()
    assert statuses == [5, 5] if caught else [9, 9]


# ------------------------------------------------------------------------- SAGEMAKER_TRAINING_MODULE


def chained(container, **environ):
    environ.setdefault("PYTHONPATH", container.bundle / "chain")
    return container.train(SAGEMAKER_TRAINING_MODULE="smssh_chain:main", **environ)


def outcome(container, process):
    return process.wait(LIMIT), container.failure_file(), container.succeeded()


@pytest.mark.parametrize("source", [GOOD, USER_ERROR, EXIT_7])
def test_chain_ends_the_job_as_without_us(container, source) -> None:
    container.toolkit_job(source)
    without = outcome(container, container.train(on=False))
    for switch in ("1", "0"):
        container.toolkit_job(source)
        assert outcome(container, chained(container, SMSSH_ENABLE=switch)) == without
    container.assert_quiet()


def test_chain_holds_and_retries(container) -> None:
    container.toolkit_job(USER_ERROR)
    process = chained(container, SMSSH_HOLD="failure")
    container.wait_for("held")
    assert container.log().count("started by chain") == 1
    (container.base / "code" / "train.py").write_text(GOOD)
    assert container.hook("retry").returncode == 0
    assert outcome(container, process) == (0, None, True)
    container.assert_quiet()


@pytest.mark.parametrize("named", [True, False])
def test_chain_hands_over_to_the_images_own_module(container, named) -> None:
    """Its failure file as without us: tracebacks show no frame of ours."""
    package = container.folder / "theirs" / ("framework" if named else "sagemaker_pytorch_container")
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "training.py").write_text("def main():\n    raise OSError(5, 'the framework fails')\n")
    target = f"{package.name}.training:main"
    container.toolkit_job(GOOD)
    process = container.train(on=False, PYTHONPATH=package.parent, SAGEMAKER_TRAINING_MODULE=target)
    without = outcome(container, process)
    assert without[0] == 5
    assert b"the framework fails" in without[1]
    container.toolkit_job(GOOD)
    given = {"SMSSH_TRAINING_MODULE": target} if named else {}
    path = f"{container.bundle}/chain:{package.parent}"
    assert outcome(container, chained(container, PYTHONPATH=path, **given)) == without


def test_chain_of_a_broken_bundle_harms_nothing(container, tmp_path) -> None:
    container.toolkit_job(USER_ERROR)
    without = outcome(container, container.train(on=False))
    broken = tmp_path / "broken"
    shutil.copytree(container.bundle, broken)
    (broken / "smssh.zip").write_bytes(b"not a zip")
    container.toolkit_job(USER_ERROR)
    assert outcome(container, chained(container, PYTHONPATH=broken / "chain")) == without


# --------------------------------------------------------------------------------- what PYTHONPATH hides


@pytest.mark.parametrize("on", [True, False])
def test_the_path_of_xgboosts_image_is_restored(container, on) -> None:
    """Its ENV PYTHONPATH names the tracker of Rabit; the job's PYTHONPATH takes its place."""
    packages = container.folder / "site-packages"
    tracker = packages / "xgboost" / "dmlc-core" / "tracker"
    tracker.mkdir(parents=True)
    (tracker / "tracker.py").write_text("VALUE = 5\n")
    script = container.script("import json, sys, tracker; print(json.dumps([tracker.VALUE, sys.path[:3]]))")
    path = f"{container.bundle}:{packages}"
    process = container.start("python", script, on=on, PYTHONPATH=path)
    assert process.wait(LIMIT) == 0, container.output()
    assert json.loads(container.output()) == [5, [str(container.folder), str(container.bundle), str(tracker)]]
