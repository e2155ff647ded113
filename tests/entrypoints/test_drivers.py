"""The SDK's own drivers: ModelTrainer's sm_train.sh (v3) and the driver of @step and @remote, with the real files.

The containers' fixed folder /opt/ml is a folder of the test's own here, put into the files' text; tests/docker has
the same rows with the files as they are.
"""

import json
import os
import platform
import shutil
import zipfile
from pathlib import Path
from unittest import mock

import pytest

from tests import needs
from tests.waiting import LIMIT, until

templates = needs.module("sagemaker.train.templates")

USER = """\
import os, pathlib, sys, time
base = pathlib.Path(os.environ["TEST_BASE"])
if "SMSSH_ENABLE" in os.environ:
    (base / "started").write_text(str(os.path.exists(os.environ["SMSSH_RUN_DIR"] + "/lock")))
(base / "model" / "model").write_text(os.environ.get("SM_HPS", ""))
print("user code", *sys.argv[1:], flush=True)
"""
ENDINGS = {
    "good": "",
    "exception": "raise ValueError('user bug')\n",
    "exit 7": "sys.exit(7)\n",
    "sigterm": "(base / 'up').touch()\ntime.sleep(60)\n",
}
MODES = {
    "basic": templates.EXECUTE_BASIC_SCRIPT_DRIVER,
    "command": templates.EXECUTE_BASE_COMMANDS.format(base_command='python3 train.py --epochs "3"'),
}
REMOTE = "sagemaker_remote_function_bootstrap"


def sagemaker_file(*parts):
    """A file of the SDK."""
    return Path(templates.__file__).parent.joinpath(*parts)


class Driven:
    """One training job that is started by the SDK's drivers.

    Args:
        container: the job's surroundings.
    """

    def __init__(self, container):
        self.container = container
        self.base = container.base
        self.data = self.base / "input" / "data"

    def lay_out(self, source, mode="basic", requirements=None):
        """What ModelTrainer uploads and SageMaker lays out."""
        shutil.rmtree(self.base, ignore_errors=True)
        for name in ("input/config", "input/data/code", "output", "model"):
            (self.base / name).mkdir(parents=True)
        config = self.base / "input" / "config"
        config.joinpath("hyperparameters.json").write_text('{"epochs": "3"}')
        config.joinpath("inputdataconfig.json").write_text('{"code": {}, "sm_drivers": {}}')
        config.joinpath("resourceconfig.json").write_text(
            json.dumps(
                {
                    "current_host": "algo-1",
                    "hosts": ["algo-1"],
                    "current_instance_type": "ml.m5.large",
                    "network_interface_name": "lo",
                }
            )
        )
        drivers = self.data / "sm_drivers"
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(sagemaker_file("container_drivers"), drivers, ignore=ignore)
        install = sagemaker_file("..", "core", "utils", "install_requirements.py")
        shutil.copy(install, drivers / "scripts" / "install_requirements.py")
        code = {"source_dir": "code", "entry_script": "train.py" if mode == "basic" else ""}
        drivers.joinpath("sourcecode.json").write_text(json.dumps(code))
        drivers.joinpath("distributed.json").write_text("{}")
        drivers.joinpath("sm_train.sh").write_text(
            templates.TRAIN_SCRIPT_TEMPLATE.format(
                working_dir="cd /opt/ml/input/data/code",
                install_requirements=templates.INSTALL_AUTO_REQUIREMENTS,
                execute_driver=MODES[mode],
            )
        )
        (self.data / "code" / "train.py").write_text(source)
        if requirements is not None:
            (self.data / "code" / "requirements.txt").write_text(requirements)
        for path in drivers.rglob("*.*"):
            if path.suffix in (".py", ".sh"):
                path.write_text(path.read_text().replace("/opt/ml/", f"{self.base}/"))

    def start(self, on=True, launcher="wrap", **environ):
        """ModelTrainer's fixed ContainerEntrypoint and ContainerArguments."""
        script = f"{self.data}/sm_drivers/sm_train.sh"
        return self.run(["/bin/bash", "-c", f"chmod +x {script} && {script}"], on, launcher, environ)

    def run(self, command, on, launcher, environ):
        """Start a command with one of the launchers, or without us."""
        environ = {"TEST_BASE": self.base, **environ}
        if on and launcher == "wrap":
            return self.container.wrap(*command, **environ)
        if on:
            environ["PYTHONPATH"] = self.container.bundle
        return self.container.start(*command, on=on, **environ)

    def outcome(self, process, terminate=False):
        """How the job ended: exit status, failure file, model, what the user's script printed."""
        if terminate:
            until((self.base / "up").exists, what=lambda: "the script: " + self.container.output())
            process.terminate()
        status = process.wait(LIMIT)
        status = 128 - status if status < 0 else status
        found = [self.base / "output" / "failure", self.base / "model" / "model"]
        texts = [path.read_text() if path.exists() else None for path in found]
        printed = [line for line in self.container.output().splitlines() if line.startswith("user code")]
        return status, *texts, printed

    def started_before(self):
        """Whether the supervisor was started before the user's code."""
        return (self.base / "started").read_text() == "True"


@pytest.fixture
def driven(container):
    return Driven(container)


@pytest.fixture(scope="module")
def alone():
    """How each job ends without us, as far as that is known: {(mode, ending): outcome}."""
    return {}


def same_text(outcome, driven):
    """The outcome without the path of the test's folder, which some tracebacks name."""
    return tuple(
        part.replace(str(driven.base), "BASE") if isinstance(part, str) else part for part in outcome
    )


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    ("mode", "launcher"), [("basic", "wrap"), ("command", "wrap"), ("basic", "sitecustomize")]
)
def test_the_same_with_us_and_without_us(driven, alone, mode, launcher, ending) -> None:
    terminate = ending == "sigterm"
    if (mode, ending) not in alone:
        driven.lay_out(USER + ENDINGS[ending], mode)
        outcome = driven.outcome(driven.start(on=False), terminate)
        assert outcome[3] == ["user code --epochs 3"]
        alone[mode, ending] = same_text(outcome, driven)
    driven.lay_out(USER + ENDINGS[ending], mode)
    outcome = driven.outcome(driven.start(launcher=launcher), terminate)
    assert same_text(outcome, driven) == alone[mode, ending]
    assert driven.started_before()
    driven.container.assert_quiet()


def test_environment_py_is_where_it_starts_without_a_wrapper(driven) -> None:
    """The first interpreter of sm_train.sh that runs a file; the user's is only one more."""
    driven.lay_out(USER)
    assert driven.outcome(driven.start(launcher="sitecustomize"))[0] == 0
    assert driven.container.starts("sitecustomize") == 1


@pytest.mark.parametrize("mode", MODES)
def test_hold_edit_retry(driven, mode) -> None:
    driven.lay_out(USER + "raise ValueError('user bug')\n", mode)
    process = driven.start(SMSSH_HOLD="failure")
    container = driven.container
    status = container.wait_for("held")
    assert status["code_dir"] == str(driven.data / "code")
    failure = driven.base / "output" / "failure"
    assert failure.exists()  # written by the drivers, before anybody could ask
    assert "ValueError: user bug" in container.ssh(status, "smssh-hook report").stdout
    fixed = container.ssh(status, 'sed -i "/user bug/d" "$SMSSH_CODE_DIR/train.py"; smssh-hook retry --json')
    assert fixed.returncode == 0, fixed.stdout + fixed.stderr + container.log()
    outcome = driven.outcome(process)
    assert outcome[0] == 0
    assert outcome[1:3] == (None, '{"epochs": 3}')
    container.assert_quiet()


def test_requirements_that_fail(driven) -> None:
    requirements = "--no-index\nno-such-package-anywhere==1\n"
    driven.lay_out(USER, requirements=requirements)
    without = same_text(driven.outcome(driven.start(on=False)), driven)
    assert without[0] != 0
    assert without[3] == []
    driven.lay_out(USER, requirements=requirements)
    assert same_text(driven.outcome(driven.start()), driven) == without
    driven.lay_out(USER, requirements=requirements)
    process = driven.start(SMSSH_HOLD="failure")
    status = driven.container.wait_for("held")
    fixed = driven.container.ssh(
        status, 'echo --no-index > "$SMSSH_CODE_DIR/requirements.txt"; smssh-hook retry'
    )
    assert fixed.returncode == 0, fixed.stdout + fixed.stderr + driven.container.output()
    assert driven.outcome(process)[0] == 0


# ------------------------------------------------------------------------- the driver of @step and @remote

BOOTSTRAP = """\
import os, pathlib
pathlib.Path("/opt/ml/input/sm_training.env").write_text("export SM_CURRENT_HOST='algo-1'\\n")
print("bootstrap", flush=True)
"""
INVOKE = """\
import runpy, sys
import sagemaker.core.remote_function
print("user code", flush=True)
runpy.run_path("/opt/ml/input/data/user.py", run_name="__main__")
"""


def remote_layout(driven, source):
    """job_driver.sh of the SDK, as `@step` and `@remote` send it.

    What it runs, the SDK's bootstrap and invoke_function, need the SDK with all its packages in the image, and S3: here
    they are small files of the same names, started in the same way.
    """
    with mock.patch.dict(os.environ, AWS_DEFAULT_REGION="us-east-1"):  # the module makes a boto3 client
        job = needs.module("sagemaker.core.remote_function.job")
    driven.lay_out(source)
    bootstrap = driven.data / job.RUNTIME_SCRIPTS_CHANNEL_NAME
    package = driven.base / "site" / "sagemaker" / "core" / "remote_function"
    for folder in (bootstrap, package):
        folder.mkdir(parents=True)
    for folder in (package, *package.parents[:2]):
        (folder / "__init__.py").touch()
    files = {
        bootstrap / job.ENTRYPOINT_SCRIPT_NAME: job.ENTRYPOINT_SCRIPT,
        bootstrap / job.BOOTSTRAP_SCRIPT_NAME: BOOTSTRAP,
        package / "invoke_function.py": INVOKE,
        driven.data / "user.py": source,
    }
    for path, text in files.items():
        path.write_text(text.replace("/opt/ml/", f"{driven.base}/"))
    return ["/bin/bash", bootstrap / job.ENTRYPOINT_SCRIPT_NAME]


def remote_start(driven, source, on=True, launcher="wrap", **environ):
    command = remote_layout(driven, source)
    path = f"{driven.base}/site"
    if on and launcher == "sitecustomize":
        # As the request has it: the bundle before what the job's own PYTHONPATH names.
        environ.update(TEST_BASE=driven.base, PYTHONPATH=f"{driven.container.bundle}:{path}")
        return driven.container.start(*command, **environ)
    return driven.run(command, on, launcher, {"PYTHONPATH": path, **environ})


@pytest.mark.parametrize("ending", ["good", "exception", "exit 7", "sigterm"])
@pytest.mark.parametrize("launcher", ["wrap", "sitecustomize"])
def test_step_and_remote(driven, launcher, ending) -> None:
    source = USER + ENDINGS[ending]
    terminate = ending == "sigterm"
    without = same_text(driven.outcome(remote_start(driven, source, on=False), terminate), driven)
    outcome = driven.outcome(remote_start(driven, source, launcher=launcher), terminate)
    assert same_text(outcome, driven) == without
    assert (without[0] == 0) == (ending == "good")
    assert driven.started_before()
    assert driven.container.starts() == 1


def test_step_held_and_retried(driven) -> None:
    process = remote_start(driven, USER + "raise ValueError('user bug')\n", SMSSH_HOLD="failure")
    status = driven.container.wait_for("held")
    user = driven.data / "user.py"
    fixed = driven.container.ssh(status, f'sed -i "/user bug/d" {user}; smssh-hook retry --json')
    assert fixed.returncode == 0, fixed.stdout + fixed.stderr + driven.container.log()
    assert driven.outcome(process)[0] == 0


# ------------------------------------------------- what the real bootstrap makes, and insists on making anew


PACKAGES = ("core", "train")
"""SDK v3 has the bootstrap twice; its text is that of v2's."""
CONDA = """\
#!/bin/sh
# conda, as far as the bootstrap uses it: an environment that is there cannot be created.
if [ "$1 $2" = "env create" ]; then
    [ ! -d "$ENVS/$4" ] || { echo "CondaValueError: prefix already exists: $ENVS/$4" >&2; exit 1; }
    mkdir -p "$ENVS/$4/conda-meta" && cp "$6" "$ENVS/$4/from"
elif [ "$1" = run ]; then
    shift 3; exec "$@"
fi
"""


def step(driven, package, source, *options, workspace=None, dependencies=None, conda=False):
    """A `@step` job whose bootstrap is the SDK's own; how to start it."""
    needs.program("sudo")  # the bootstrap insists on it where it is not root
    command = remote_layout(driven, source)
    runtime = sagemaker_file("..", package, "remote_function", "runtime_environment")
    bootstrap = Path(command[1]).parent
    for name in ("bootstrap_runtime_environment.py", "runtime_environment_manager.py"):
        (bootstrap / name).write_text((runtime / name).read_text().replace("/opt/ml/", f"{driven.base}/"))
    if workspace is not None:
        (driven.data / "sm_rf_user_ws").mkdir()
        with zipfile.ZipFile(driven.data / "sm_rf_user_ws" / "workspace.zip", "w") as archive:
            for name, text in workspace.items():
                archive.writestr(f"sagemaker_remote_function_workspace/{name}", text)
    for name, text in (dependencies or {}).items():
        (driven.data / "pre_exec_script_and_dependencies").mkdir(exist_ok=True)
        (driven.data / "pre_exec_script_and_dependencies" / name).write_text(text)
    environ = {"PYTHONPATH": f"{driven.base}/site", "ENVS": driven.container.home / "conda" / "envs"}
    if conda:
        program = driven.container.home / "conda" / "bin" / "conda"
        program.parent.mkdir(parents=True)
        program.write_text(CONDA)
        program.chmod(0o755)
        environ["PATH"] = f"{program.parent}:{driven.container.environ['PATH']}"
    version = ".".join(platform.python_version_tuple()[:2])
    return [*command, "--client_python_version", version, *options], environ


def retried(driven, command, environ, fix):
    """The outcome of a job that fails, is fixed by a shell command, and retried."""
    process = driven.run(
        command, True, "wrap", {**environ, "SMSSH_HOLD": "failure", "SMSSH_HOLD_SECONDS": "600"}
    )
    status = driven.container.wait_for("held")
    fixed = driven.container.ssh(status, f"{fix}; smssh-hook retry --json")
    assert fixed.returncode == 0, fixed.stdout + fixed.stderr + driven.container.output()
    return driven.outcome(process)


FAILS_ONCE = USER + "if not (base / 'fixed').exists(): raise ValueError('user bug')\n"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_step_without_a_workspace_is_retried(driven, package) -> None:
    """Its bootstrap makes the workspace by a bare os.mkdir."""
    source = FAILS_ONCE.replace("import os", "import os; open('made', 'w').close(); import os")
    command, environ = step(driven, package, source, "--pipeline_execution_id", "p")
    assert retried(driven, command, environ, f"touch {driven.base}/fixed")[:2] == (0, None)
    # What somebody may have made there is not lost.
    aside = driven.container.folder / "sagemaker_remote_function_workspace.attempt-1"
    assert (aside / "made").exists()
    assert "the next attempt makes it anew" in driven.container.log()


@pytest.mark.parametrize("package", PACKAGES)
def test_a_step_with_dependencies_is_retried(driven, package) -> None:
    """What a person edits in the channel that the dependencies come from is taken."""
    command, environ = step(
        driven,
        package,
        FAILS_ONCE,
        *("--pipeline_execution_id", "p", "--dependency_settings", '{"dependency_file": "requirements.txt"}'),
        dependencies={
            "requirements.txt": "--no-index\nno-such-package-anywhere==1\n",
            "pre_exec.sh": "true\n",
        },
    )
    channel = driven.data / "pre_exec_script_and_dependencies"
    fix = f"touch {driven.base}/fixed; echo --no-index > {channel}/requirements.txt"
    assert retried(driven, command, environ, fix)[:2] == (0, None)


@pytest.mark.parametrize("options", [(), ("--pipeline_execution_id", "p")], ids=["remote", "step"])
@pytest.mark.parametrize("package", PACKAGES)
def test_edits_of_a_workspace_survive_a_retry(driven, package, options) -> None:
    """Its archive is unpacked again in the second attempt."""
    command, environ = step(
        driven,
        package,
        USER + "import runpy; runpy.run_path('bug.py')\nassert not os.path.exists('gone.py')\n",
        *options,
        workspace={
            "bug.py": "raise ValueError('user bug')\n",
            "kept.py": "x = 1\n",
            "gone.py": "",
            "deep/er.txt": "y",
        },
    )
    folder = driven.container.folder / "sagemaker_remote_function_workspace"
    fix = f"echo 'import new' > {folder}/bug.py; touch {folder}/new.py; rm {folder}/gone.py; export X=1"
    outcome = retried(driven, command, {**environ, "PYTHONPATH": f"{environ['PYTHONPATH']}:{folder}"}, fix)
    assert outcome[:2] == (0, None)
    assert (folder / "kept.py").read_text() == "x = 1\n"
    assert (folder / "deep" / "er.txt").read_text() == "y"
    with zipfile.ZipFile(driven.data / "sm_rf_user_ws" / "workspace.zip") as archive:
        assert archive.testzip() is None


@pytest.mark.parametrize("package", PACKAGES)
def test_a_conda_environment_of_the_bootstrap_is_made_anew(driven, package) -> None:
    command, environ = step(
        driven,
        package,
        FAILS_ONCE,
        *("--pipeline_execution_id", "p", "--dependency_settings", '{"dependency_file": "env.yml"}'),
        dependencies={"env.yml": "one"},
        conda=True,
    )
    channel = driven.data / "pre_exec_script_and_dependencies"
    fix = f"touch {driven.base}/fixed; printf two > {channel}/env.yml"
    assert retried(driven, command, environ, fix)[:2] == (0, None)
    made = environ["ENVS"]
    assert (made / "sagemaker-runtime-env" / "from").read_text() == "two"
    assert (made / "sagemaker-runtime-env.attempt-1" / "from").read_text() == "one"


def test_what_an_image_brings_is_left_alone(driven) -> None:
    """An environment or a folder of the same name that no attempt has made, in a job of another kind too."""
    container = driven.container
    driven.lay_out(FAILS_ONCE)
    theirs = container.folder / "sagemaker_remote_function_workspace"
    theirs.mkdir()
    process = driven.start(SMSSH_HOLD="failure")
    status = container.wait_for("held")
    assert container.ssh(status, f"touch {driven.base}/fixed; smssh-hook retry").returncode == 0
    assert driven.outcome(process)[0] == 0
    assert theirs.is_dir()


def test_the_hosts_of_an_mpi_job_do_not_take_the_last_attempts_word(container, tmp_path) -> None:
    """A worker ends as soon as it sees the file that its master wrote at the end of the attempt before."""
    name = f"done.algo-{os.getpid()}"
    done, early, other = (
        Path("/tmp", name),
        Path("/tmp", f"ready.algo-{os.getpid()}"),
        Path("/tmp", f"done-{name}"),
    )
    script = container.script(f"touch {done} {other}\n[ -e fixed ] || exit 3\n", name="job.sh")
    check = container.script(
        f"[ ! -e {done} ] && [ -e {early} ] && [ -e {other} ] && sh {script}\n", name="check.sh"
    )
    try:
        process = container.wrap(
            *("sh", "-c", f"if [ -e second ]; then sh {check}; else touch second; sh {script}; fi"),
            SMSSH_HOLD="failure",
        )
        status = container.wait_for("held")
        # Another host is in its next attempt already.
        assert (
            container.ssh(status, f"cd {container.folder}; touch fixed {early}; smssh-hook retry").returncode
            == 0
        )
        assert process.wait(LIMIT) == 0
    finally:
        for path in (done, early, other):
            path.unlink(missing_ok=True)
