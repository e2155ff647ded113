"""The real sagemaker-training toolkit: with us and without us, and held."""

import json
import signal
import sys
from pathlib import Path

import pytest

from smssh_plugin.entrypoints import boot
from tests.waiting import LIMIT, until

from .container import IMAGE, STALLED, WORDY

GOOD = "open(__import__('os').environ['SM_MODEL_DIR'] + '/model', 'w').write('weights')\n"
USER_ERROR = "raise ValueError('user bug')\n"
EXIT_7 = "import sys\nsys.exit(7)\n"


def outcome(container, process):
    return process.wait(LIMIT), container.failure_file(), container.succeeded()


def run(container, source, on, changed=None, **environ):
    container.toolkit_job(source)
    if changed is not None:
        changed(container)
    return outcome(container, container.train(on=on, **environ))


@pytest.mark.parametrize("source", [GOOD, USER_ERROR, EXIT_7])
def test_the_same_with_us_and_without_us(container, source) -> None:
    without = run(container, source, on=False)
    assert run(container, source, on=True) == without
    assert (without[0] == 0) == (source == GOOD)
    container.assert_quiet()


def test_a_framework_error_has_the_same_traceback(container) -> None:
    """It passes through our wrapper's frame, which must not show."""

    def changed(container):
        (container.base / "input" / "config" / "hyperparameters.json").write_text(
            json.dumps({"sagemaker_program": '"train.py"', "sagemaker_submit_directory": '"/nowhere/at-all"'})
        )

    without = run(container, GOOD, on=False, changed=changed)
    assert b"Framework Error" in without[1]
    assert b"Traceback" in without[1]
    # Ready first: such a job ends before a supervisor could hear of its attempt.
    assert run(container, GOOD, on=True, changed=changed, SMSSH_WAIT="ready") == without
    assert "attempt 1 of the entry point runs" in container.log()


def test_the_same_where_nothing_of_us_works(container) -> None:
    without = run(container, USER_ERROR, on=False)
    container.toolkit_job(USER_ERROR)
    process = container.train(
        SMSSH_AUTHORIZED_KEYS="nonsense", SMSSH_TRANSPORT="ssm", SMSSH_HOLD="failure", SMSSH_HOLD_SECONDS=1
    )
    assert outcome(container, process) == without


def test_hold_edit_retry_writes_success(container) -> None:
    container.toolkit_job(USER_ERROR)
    process = container.train(SMSSH_HOLD="failure")
    status = container.wait_for("held")
    assert status["code_dir"] == str(container.base / "code")
    assert not container.failure_file()
    shown = container.ssh(status, 'echo "$SM_MODEL_DIR"; cat "$SMSSH_CODE_DIR/train.py"; smssh-hook report')
    assert shown.stdout.startswith(f"{container.base}/model\n{USER_ERROR}")
    assert "ValueError: user bug" in shown.stdout
    fixed = container.ssh(
        status, f'echo "{GOOD.strip()}" > "$SMSSH_CODE_DIR/train.py"; smssh-hook retry --json'
    )
    assert fixed.returncode == 0, fixed.stdout + fixed.stderr + container.log()
    assert json.loads(fixed.stdout)["attempt"] == 2
    assert outcome(container, process) == (0, None, True)
    assert (container.base / "model" / "model").read_text() == "weights"
    container.assert_quiet()


def test_hold_release_writes_the_same_failure(container) -> None:
    without = run(container, EXIT_7, on=False)
    container.toolkit_job(EXIT_7)
    process = container.train(SMSSH_HOLD="failure")
    status = container.wait_for("held")
    assert status["exit_code"] == 7
    container.hook("release")
    assert outcome(container, process) == without


def test_release_with_a_chosen_status(container) -> None:
    container.toolkit_job(EXIT_7)
    process = container.train(SMSSH_HOLD="failure")
    container.wait_for("held")
    container.hook("release", "--exit", "33")
    code, failure, _ = outcome(container, process)
    assert code == 33
    assert b"ExitCode 7" in failure


@pytest.mark.parametrize(("chosen", "code"), [((), 0), (("--exit", "0"), 0), (("--exit", "33"), 33)])
def test_release_at_the_end_with_a_chosen_status(container, chosen, code) -> None:
    container.toolkit_job(GOOD)
    process = container.train(SMSSH_HOLD="end")
    container.wait_for("held")
    container.hook("release", *chosen)
    assert outcome(container, process) == (code, None, True)


def test_a_retry_at_the_end_begins_anew(container) -> None:
    """Nothing of the good attempt runs beside the next one, or stands in its report."""
    container.toolkit_job(
        "import os, subprocess\n"
        "rank = subprocess.Popen(['sleep', '600'], start_new_session=True, stdout=subprocess.DEVNULL,\n"
        "                        stderr=subprocess.DEVNULL)\n"
        "print('the good attempt', flush=True)\n"
        "open(os.environ['SM_MODEL_DIR'] + '/rank', 'w').write(str(rank.pid))\n"
    )
    process = container.train(SMSSH_HOLD="failure,end")
    assert container.wait_for("held")["point"] == "end"
    rank = (container.base / "model" / "rank").read_text()
    assert boot.start_time(rank)
    (container.base / "code" / "train.py").write_text(USER_ERROR)
    assert container.hook("retry", check=False).returncode == 1
    assert container.wait_for("held")["point"] == "failure"
    assert boot.start_time(rank) is None
    tail = json.loads(container.hook("report", "--json").stdout)["log_tail"]
    assert not [line for line in tail if "good attempt" in line]
    container.hook("release")
    assert outcome(container, process)[0] == 1


def test_sigterm_in_a_hold_ends_it(container) -> None:
    without = run(container, EXIT_7, on=False)
    container.toolkit_job(EXIT_7)
    process = container.train(SMSSH_HOLD="failure")
    container.wait_for("held")
    process.send_signal(signal.SIGTERM)
    assert outcome(container, process) == without
    container.assert_quiet()


def test_strict_is_a_failure_of_the_toolkits_own(container) -> None:
    container.toolkit_job(GOOD)
    process = container.train(SMSSH_STRICT=1, SMSSH_AUTHORIZED_KEYS="")
    code, failure, succeeded = outcome(container, process)
    assert (code, succeeded) == (1, False)
    assert b"SMSSH_STRICT" in failure


def test_under_the_wrapped_entry_point_there_is_one_hold(container) -> None:
    container.toolkit_job(USER_ERROR)
    process = container.wrap("train", SMSSH_HOLD="failure")
    status = container.wait_for("held")
    assert status["attempt"] == 1
    container.hook("release", "--exit", "12")
    assert process.wait(LIMIT) == 12
    assert container.output().count("smssh: held (") == 1
    container.assert_quiet()


def test_under_the_wrapped_entry_point_a_retry_succeeds(container) -> None:
    container.toolkit_job(USER_ERROR)
    process = container.wrap("train", SMSSH_HOLD="failure")
    container.wait_for("held")
    (container.base / "code" / "train.py").write_text(GOOD)
    assert container.hook("retry").returncode == 0
    assert outcome(container, process) == (0, None, True)


def test_capture_error_is_not_kept_waiting(container) -> None:
    """A supervisor that inherited the script's output would keep `train` reading for ever."""
    container.toolkit_job(USER_ERROR)
    module = container.base / "framework.py"
    module.write_text(
        "from sagemaker_training import entry_point, environment\n"
        "def main():\n"
        "    env = environment.Environment()\n"
        "    entry_point.run(env.module_dir, env.user_entry_point, env.to_cmd_args(), env.to_env_vars(),\n"
        "                    capture_error=True)\n"
    )
    process = container.train(
        PYTHONPATH=f"{container.bundle}:{container.base}", SAGEMAKER_TRAINING_MODULE="framework:main"
    )
    code, failure, _ = outcome(container, process)
    assert code == 1
    assert b"ValueError: user bug" in failure


CAPTURING = """\
from sagemaker_training import entry_point, environment
def main():
    env = environment.Environment()
    entry_point.run(env.module_dir, env.user_entry_point, env.to_cmd_args(), env.to_env_vars(), capture_error=True)
"""


def test_capture_error_with_huge_output(container) -> None:
    """The toolkit reads its pipes to their end, and its own output goes through ours: 16 MB of it."""
    container.toolkit_job(
        "import os, sys, time\n"
        "while not os.path.exists(os.environ['SM_MODEL_DIR'] + '/go'): time.sleep(0.05)\n"
        "for n in range(160000):\n"
        "    print('%08d' % n + 'x' * 91)\n"
        "    if n % 1000 == 0: print('y' * 10000, file=sys.stderr)\n"
        "raise ValueError('user bug')\n"
    )
    (container.base / "framework.py").write_text(CAPTURING)
    process = container.train(
        PYTHONPATH=f"{container.bundle}:{container.base}",
        SAGEMAKER_TRAINING_MODULE="framework:main",
        SMSSH_HOLD="failure",
        SMSSH_WAIT="ready",
    )
    container.wait_for("running")

    def peak():
        """Megabytes that `train` has had at most."""
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024

    before = peak()
    (container.base / "model" / "go").touch()
    status = container.wait_for("held")
    assert peak() - before < 10
    assert "ValueError: user bug" in container.hook("report").stdout
    assert status["exit_code"] == 1
    container.hook("release")
    code, failure, _ = outcome(container, process)
    assert code == 1
    assert b"ValueError: user bug" in failure
    numbers = [int(line[:8]) for line in container.output().splitlines() if line.endswith("x" * 91)]
    # The toolkit reads blocks, and breaks the lines at their ends.
    assert len(numbers) > 150000
    assert numbers == sorted(numbers)


def test_the_last_words_arrive_where_the_log_is_taken_late(container) -> None:
    """`train` ends only when its script's output is taken, as without us."""
    container.toolkit_job(WORDY)
    reader = container.script(STALLED, "reader.py")
    process = container.start(
        "bash",
        "-c",
        f"set -o pipefail; '{IMAGE}/bin/train' 2>&1 | {sys.executable} '{reader}'",
        PYTHONPATH=container.bundle,
        SMSSH_HOLD="failure",
    )
    assert process.wait(LIMIT) == 0
    assert container.output().count("~") == 1000 * 100
    assert 0 < container.output().index("last words") < container.output().index("training SUCCESS")


@pytest.mark.parametrize("launcher", ["wrapped", "toolkit"])
def test_stdout_and_stderr_stay_in_order(container, launcher) -> None:
    """Where both go to one place, as they do here."""
    source = "import os, sys\nfor n in range(20000): os.write(1 + n % 2, b'%d\\n' % n)\nsys.exit(3)\n"
    if launcher == "wrapped":
        process = container.wrap("python", container.script(source), SMSSH_HOLD="failure")
    else:
        container.toolkit_job(source)
        process = container.train(SMSSH_HOLD="failure")
    container.wait_for("held")
    numbers = [int(line) for line in container.output().splitlines() if line.isdigit()]
    assert numbers == list(range(20000))
    assert json.loads(container.hook("report", "--json").stdout)["log_tail"][-1] == "19999"
    container.hook("release")
    process.wait(LIMIT)


def test_ask_a_running_toolkit_job_to_hold(container) -> None:
    """It did not ask for a hold: no output was kept, all else is as in any hold."""
    container.toolkit_job(
        "import os, time\n"
        "while not os.path.exists(os.environ['SM_MODEL_DIR'] + '/go'): time.sleep(0.05)\n" + USER_ERROR
    )
    process = container.train(SMSSH_WAIT="ready")
    container.wait_for("running")
    container.hook("hold")
    (container.base / "model" / "go").touch()
    status = container.wait_for("held")
    assert status["exit_code"] == 1
    report = json.loads(container.hook("report", "--json").stdout)
    assert report["log_tail"] is None
    assert "ValueError: user bug" in report["traceback"]
    (container.base / "code" / "train.py").write_text(GOOD)
    assert container.hook("retry").returncode == 0
    until(lambda: container.status()["point"] == "end", what="the hold at the end")
    container.hook("release")
    assert outcome(container, process) == (0, None, True)


def test_sigterm_while_the_toolkit_waits_is_no_success(container) -> None:
    container.toolkit_job(GOOD)
    process = container.train(SMSSH_WAIT="10m")
    container.wait_for("held")
    process.send_signal(signal.SIGTERM)
    assert outcome(container, process) == (128 + signal.SIGTERM, None, False)
    container.assert_quiet()


# ------------------------------------------------------------------------- programs that are called as the toolkit's

OWN_TRAIN = f"#!{IMAGE}/bin/python\nprint('ran', flush=True)\nraise ValueError('user bug')\n"


def own_train(container, text=OWN_TRAIN):
    """An image's own program: SageMaker starts `train` where the request names no entry point."""
    (container.folder / "program").mkdir()
    path = container.script(text, name="program/train")
    path.chmod(0o755)
    return path


def test_an_images_own_train_is_held_and_retried(container) -> None:
    program = own_train(container)
    process = container.start(program, PYTHONPATH=container.bundle, SMSSH_HOLD="failure")
    status = container.wait_for("held")
    assert status["code_dir"] == str(program.parent)
    assert "ValueError: user bug" in container.hook("report").stdout
    assert container.ssh(status, "smssh-hook status").returncode == 0
    program.write_text(OWN_TRAIN.replace("raise ValueError('user bug')", "print('fixed')"))
    assert container.hook("retry").returncode == 0
    assert process.wait(LIMIT) == 0
    lines = [line for line in container.output().splitlines() if line in ("ran", "fixed")]
    assert lines == ["ran", "ran", "fixed"]
    assert container.output().count("smssh: held (") == 1
    container.assert_quiet()


def test_an_images_own_train_heeds_strict(container) -> None:
    program = own_train(container)
    process = container.start(program, PYTHONPATH=container.bundle, SMSSH_STRICT=1, SMSSH_AUTHORIZED_KEYS="")
    assert process.wait(LIMIT) == 1
    assert "SMSSH_STRICT" in container.output()
    assert "ran\n" not in container.output()


def test_an_images_own_train_that_nobody_can_hold_says_so(container) -> None:
    program = own_train(
        container, "import os, time\nwhile not os.path.exists('go'): time.sleep(0.05)\n" + USER_ERROR
    )
    process = container.start("python", program, PYTHONPATH=container.bundle)
    container.wait_for("ready")
    refused = container.hook("hold", check=False)
    assert refused.returncode != 0
    assert "cannot be held" in refused.stderr
    container.script("", name="go")
    assert process.wait(LIMIT) == 1


def test_an_own_train_that_calls_the_toolkit_is_held_once(container) -> None:
    container.toolkit_job(USER_ERROR)
    program = own_train(
        container, f"#!{IMAGE}/bin/python\nfrom sagemaker_training import trainer\ntrainer.train()\n"
    )
    process = container.start(program, PYTHONPATH=container.bundle, SMSSH_HOLD="failure")
    container.wait_for("held")
    (container.base / "code" / "train.py").write_text(GOOD)
    assert container.hook("retry").returncode == 0
    assert outcome(container, process) == (0, None, True)
    assert container.output().count("smssh: held (") == 1
    container.assert_quiet()


XGBOOST = {
    "sagemaker_containers/__init__.py": "",
    "sagemaker_containers/cli/__init__.py": "",
    "sagemaker_containers/cli/train.py": "from sagemaker_containers._trainer import train as main\n",
    "sagemaker_containers/_modules.py": (
        "import subprocess, sys\n"
        "def run_module(uri, args, env_vars, name):\n"
        "    code = subprocess.call([sys.executable, name])\n"
        "    if code:\n        raise RuntimeError('script failed')\n"
    ),
    "sagemaker_containers/_trainer.py": (
        "import os, traceback\n"
        "def _exit_processes(code):\n    os._exit(code)\n"
        "def train():\n"
        "    code = 0\n"
        "    try:\n"
        "        from sagemaker_xgboost_container import training\n"
        "        training.main()\n"
        "    except Exception:\n"
        "        open('failure', 'w').write(traceback.format_exc())\n"
        "        code = 1\n"
        "    finally:\n"
        "        _exit_processes(code)\n"
    ),
    "sagemaker_xgboost_container/__init__.py": "",
    "sagemaker_xgboost_container/training.py": (
        "import os, sys\n"
        "from sagemaker_containers import _modules\n"
        "def run_algorithm_mode():\n"
        "    print('boosting', open('data').read(), flush=True)\n"
        "    if open('data').read() == 'bad':\n        raise ValueError('bad data')\n"
        "def main():\n"
        "    if os.path.exists('job.py'):\n        _modules.run_module('uri', [], {}, 'job.py')\n"
        "    else:\n        run_algorithm_mode()\n"
        "    sys.exit(0)\n"
    ),
}
"""A fake of XGBoost's image, whose packages run in old Pythons only (the one of the script mode is not on PyPI)."""


@pytest.fixture
def xgboost(container):
    """Start the fake image's console script."""
    for name, text in XGBOOST.items():
        path = container.folder / "lib" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    program = own_train(
        container,
        f"#!{IMAGE}/bin/python\nimport sys\nfrom sagemaker_containers.cli.train import main\nsys.exit(main())\n",
    )

    def start(on=True, **environ):
        path = f"{container.bundle}:{container.folder / 'lib'}"
        return container.start(program, on=on, PYTHONPATH=path, **environ)

    return start


@pytest.mark.parametrize("mode", ["script", "algorithm"])
def test_xgboosts_image_is_held_once_in_each_mode(container, xgboost, mode) -> None:
    data = container.script("bad", name="data")
    if mode == "script":
        container.script("import sys\nsys.exit(open('data').read() == 'bad')\n", name="job.py")
    assert xgboost(on=False).wait(LIMIT) == 1
    failure = (container.folder / "failure").read_text()
    process = xgboost(SMSSH_HOLD="failure")
    container.wait_for("held")
    container.hook("release")
    assert process.wait(LIMIT) == 1
    assert (container.folder / "failure").read_text() == failure
    assert container.output().count("smssh: held (") == 1
    container.assert_quiet()
    process = xgboost(SMSSH_HOLD="failure")
    container.wait_for("held")
    data.write_text("good")
    assert container.hook("retry").returncode == 0
    assert process.wait(LIMIT) == 0
    assert ("boosting good" in container.output()) == (mode == "algorithm")
    container.assert_quiet()
