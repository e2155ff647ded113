"""What a careless plugin does to a job, shown first with a careless one, and then that ours doesn't.

The careless ones are a few lines each: they stand for the guard being left out.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.entrypoints.container import IMAGE
from tests.waiting import LIMIT, until

from .images import image, packages

GOOD = "import os; open(os.environ['SM_MODEL_DIR'] + '/model', 'w').write('weights'); print('trained')\n"
STILL = 2.0
"""Seconds after which a job that should be over counts as hanging; the harm lasts for ever."""

CAPTURING = """\
from sagemaker_training import entry_point, environment
def main():
    env = environment.Environment()
    entry_point.run(env.module_dir, env.user_entry_point, env.to_cmd_args(), env.to_env_vars(),
                    capture_error=True)
"""
"""What SageMaker's PyTorch image does: reads the script's output until nobody has it open any more."""


@pytest.fixture
def launcher(container):
    """Writes a careless launcher: a sitecustomize of a few lines that acts in the process it names."""

    def write(program, body):
        folder = container.folder / "careless"
        folder.mkdir()
        body = textwrap.indent(textwrap.dedent(body), "    ")
        head = "with open('/proc/self/cmdline', 'rb') as file:\n    command = file.read().split(b'\\0')\n"
        test = f"if any(part.endswith(b'/{program}') or part == b'{program}' for part in command):\n"
        (folder / "sitecustomize.py").write_text(head + test + body)
        return folder

    return write


def train(container, folder, on=True, **environ):
    container.toolkit_job(GOOD)
    return container.train(on=on, PYTHONPATH=folder, **environ)


def capturing(container):
    module = container.folder / "framework"
    module.mkdir(exist_ok=True)
    (module / "framework.py").write_text(CAPTURING)
    return {"SAGEMAKER_TRAINING_MODULE": "framework:main"}, str(module)


def hangs(process, over):
    """Whether it still runs a while after everything that it had to do was done."""
    until(over, what="the end of the work")
    time.sleep(STILL)
    return process.poll() is None


def test_a_daemon_with_the_scripts_output_would_hang_the_job(container, launcher) -> None:
    environ, module = capturing(container)
    careless = launcher(
        "train.py",
        f"""
        import os
        if os.fork() == 0:
            os.setsid()
            open({str(container.folder / "daemon")!r}, "w").write(str(os.getpid()))
            os.execvp("sleep", ["sleep", "600"])
        """,
    )
    process = train(container, f"{careless}:{module}", on=False, **environ)
    pid = int(until(lambda: (p := container.folder / "daemon").exists() and p.read_text(), what="the daemon"))
    try:
        model = container.base / "model" / "model"
        assert hangs(process, model.exists)
        assert not container.succeeded()
    finally:
        os.kill(pid, signal.SIGKILL)
    assert process.wait(LIMIT) == 0  # it was the daemon, and nothing else


def test_our_daemon_has_nothing_of_the_scripts(container) -> None:
    environ, module = capturing(container)
    process = train(container, f"{container.bundle}:{module}", **environ)
    assert process.wait(LIMIT) == 0
    assert container.succeeded()
    assert container.starts("sitecustomize") == 1


def test_a_thread_that_is_no_daemon_would_hang_the_toolkit(container, launcher) -> None:
    careless = launcher(
        "train", "import threading, time; threading.Thread(target=time.sleep, args=(600,)).start()"
    )
    process = train(container, careless, on=False)
    assert hangs(process, container.succeeded)
    process.kill()
    process.wait()


def test_we_leave_no_thread_and_no_child_in_the_toolkit(container) -> None:
    """Looked at from inside, when the toolkit is done: what `train` itself has is the same."""
    module = container.folder / "framework"
    module.mkdir()
    (module / "framework.py").write_text(
        "import os, threading\n"
        "def main():\n"
        "    from sagemaker_training import entry_point, environment\n"
        "    env = environment.Environment()\n"
        "    entry_point.run(env.module_dir, env.user_entry_point, env.to_cmd_args(), env.to_env_vars())\n"
        "    threads = sorted(thread.name for thread in threading.enumerate() if not thread.daemon)\n"
        "    with open(f'/proc/self/task/{os.getpid()}/children') as file:\n"
        "        print('left:', threads, file.read().split())\n"
    )
    for on in (False, True):
        path = f"{container.bundle}:{module}" if on else module
        process = train(container, path, on=on, SAGEMAKER_TRAINING_MODULE="framework:main")
        assert process.wait(LIMIT) == 0
        assert "left: ['MainThread'] []\n" in container.output()
    assert container.starts("sitecustomize") == 1


# ------------------------------------------------------------------------------------------- launchers that exit


@pytest.fixture
def baked(container):
    """An image of the test's own, where a .pth can be laid down."""
    return image(container.folder)


def run_with_pth(container, made, line, **environ):
    (packages(made) / "careless.pth").write_text(line + "\n")
    script = container.script("print('ran')\n", name="train")
    process = container.start(made / "bin" / "python", script, **environ)
    return process.wait(LIMIT), container.output()


def test_a_pth_that_exits_would_take_the_interpreter_along(container, baked) -> None:
    code, output = run_with_pth(container, baked, "import sys; sys.exit('not today')", on=False)
    assert code != 0
    assert "ran" not in output


@pytest.mark.parametrize(
    "error", ["SystemExit(3)", "KeyboardInterrupt()", "ValueError('x')", "MemoryError()"]
)
@pytest.mark.parametrize("launcher", ["pth", "sitecustomize"])
def test_our_launchers_swallow_everything(container, baked, launcher, error) -> None:
    """Whatever boot raises, in the one and in the other."""
    package = container.folder / "broken" / "smssh_plugin" / "entrypoints"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").touch()
    from smssh_plugin.entrypoints import boot

    source = Path(boot.__file__).read_text(encoding="utf-8")
    marked = "    arguments = own_command()\n    kind ="
    assert source.count(marked) == 1
    broken = source.replace(marked, f"    open('reached', 'w').close()\n    raise {error}\n" + marked)
    (package / "boot.py").write_text(broken)
    if launcher == "pth":
        line = Path(boot.__file__).with_name("smssh.pth").read_text(encoding="utf-8").strip()
        code, output = run_with_pth(container, baked, line, PYTHONPATH=package.parents[1])
    else:
        folder = container.folder / "bundle"
        folder.mkdir()
        (folder / "sitecustomize.py").write_bytes((container.bundle / "sitecustomize.py").read_bytes())
        (package.parents[1]).rename(folder / "smssh.zip")  # a folder of that name is imported from as well
        code, output = run_with_pth(container, baked, "", PYTHONPATH=folder)
    assert (container.folder / "reached").exists()
    assert (code, output) == (0, "ran\n")


def test_an_installation_that_is_half_gone_is_only_a_message(container, baked) -> None:
    """The .pth has stayed, the package has not: Python says so itself, and goes on."""
    from smssh_plugin.entrypoints import boot

    line = Path(boot.__file__).with_name("smssh.pth").read_text(encoding="utf-8").strip()
    code, output = run_with_pth(container, baked, line)
    assert code == 0
    assert output.endswith("ran\n")
    assert run_with_pth(container, baked, line, on=False) == (0, "ran\n")


# -------------------------------------------------------------------------------------- `serve` and its reaper

SERVE = """\
import os, subprocess, sys, time
from sagemaker_inference import model_server
model_server._add_sigchild_handler()  # the real one: waits for every child, ours included
{child}
server = subprocess.Popen(["sh", "-c", "exit 0"])
time.sleep(1.0)
with open(f"/proc/self/task/{{os.getpid()}}/children") as file:
    print("children:", file.read().split())
print("supervised:", code)
"""
NAIVE = 'ours = subprocess.Popen(["sh", "-c", "sleep 0.3; exit 7"])\ntime.sleep(0.8)\ncode = ours.wait()'


def test_serves_reaper_would_take_a_childs_exit_status(container) -> None:
    container.script(SERVE.format(child=NAIVE), name="serve")
    process = container.start(IMAGE / "bin" / "python", container.folder / "serve", on=False)
    assert process.wait(LIMIT) == 0
    assert "supervised: 0\n" in container.output()  # it ended with 7


def test_in_serve_we_are_nobodys_child(container) -> None:
    container.script(SERVE.format(child="code = None"), name="serve")
    process = container.start(
        IMAGE / "bin" / "python", container.folder / "serve", PYTHONPATH=container.bundle
    )
    pid = until(lambda: [pid for pid, line in container.strays() if "supervisor.main" in line])[0]
    parents = subprocess.run(
        ["ps", "-o", "ppid=", str(pid)], capture_output=True, text=True, check=True
    ).stdout
    assert int(parents) != process.pid
    assert process.wait(LIMIT) == 0
    assert "children: []\n" in container.output()
    # The supervisor knew how its own children ended: the server was up, or was stopped by it.
    assert container.starts("sitecustomize") == 1


# ----------------------------------------------------------------------------------------------- failure file


def test_an_early_failure_file_would_mask_the_users_error(container, launcher) -> None:
    """4.x and 5.x keep a failure file that is there already."""
    careless = launcher("train", f"open({str(container.base / 'output' / 'failure')!r}, 'w').write('no SSH')")
    container.toolkit_job("raise ValueError('user bug')\n")
    process = container.train(on=False, PYTHONPATH=careless)
    assert process.wait(LIMIT) == 1
    assert container.failure_file() == b"no SSH"


def test_we_never_write_the_failure_file(container) -> None:
    """No key may log in, no transport works: nothing of that is the job's affair."""
    without = None
    for on in (False, True):
        container.toolkit_job("raise ValueError('user bug')\n")
        process = container.train(on=on, SMSSH_AUTHORIZED_KEYS="nonsense", SMSSH_TRANSPORT="ssm")
        found = process.wait(LIMIT), container.failure_file()
        without = without or found
        assert found == without
    assert b"ExecuteUserScriptError" in without[1]
    container.assert_quiet()


# -------------------------------------------------------------------------------------- the container's one start

RACE = """\
import fcntl, os, sys, time
from smssh_plugin.entrypoints import boot

def careless(run):
    if os.path.exists(run + "/started"):
        return None
    return os.open(run + "/started", os.O_CREAT | os.O_WRONLY)

take = careless if sys.argv[1] == "careless" else boot.take_lock
for number in range(int(sys.argv[3])):
    run = f"{sys.argv[2]}/{number}"
    os.mkdir(run)
    gate, opener = os.pipe()
    votes, voter = os.pipe()
    keep, writer = os.pipe()
    for _ in range(64):
        if os.fork() == 0:
            os.close(opener)
            os.close(writer)
            os.read(gate, 1)  # the end of the pipe is the start
            won = take(run) is not None
            os.write(voter, b"1" if won else b"0")
            os.read(keep, 1)  # like a supervisor, which keeps the lock while it lives
            os._exit(0)
    os.close(opener)
    votes_cast = b""
    while len(votes_cast) < 64:
        votes_cast += os.read(votes, 64)
    os.close(writer)
    for _ in range(64):
        os.wait()
    for handle in (gate, votes, voter, keep):
        os.close(handle)
    print(votes_cast.count(b"1"))
"""


def winners(tmp_path, which, rounds):
    done = subprocess.run(
        [sys.executable, "-c", RACE, which, str(tmp_path), str(rounds)],
        capture_output=True,
        text=True,
        check=True,
        timeout=LIMIT,
    )
    return [int(line) for line in done.stdout.split()]


def test_64_processes_race_for_the_lock(tmp_path) -> None:
    assert winners(tmp_path, "lock", 20) == [1] * 20


@pytest.mark.applies(os.cpu_count() != 1, "one core")
def test_without_a_lock_there_would_be_several(tmp_path) -> None:
    """Look, then create: on a machine with more than one core somebody comes between sooner or later."""
    for attempt in range(10):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        if max(winners(folder, "careless", 20)) > 1:
            return
    pytest.fail("two hundred races without a collision")
