"""boot: what a process is, who may start the supervisor, what a job's interpreters see of it."""

import ast
import json
import os
import subprocess
import sys

import pytest

from smssh_plugin.entrypoints import boot
from tests import needs
from tests.waiting import LIMIT

from .container import IMAGE


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        (["python3", "/usr/local/bin/train"], "start"),
        (["python3", "-E", "-u", "/opt/venv/bin/serve"], "start"),
        (["python3", "/usr/local/bin/smspark-submit", "app.py"], "start"),
        (["python3", "-X", "dev", "/usr/bin/torchserve"], "start"),
        (["python3", "/opt/ml/input/data/sm_drivers/scripts/environment.py"], "start"),
        (["python3", "/opt/ml/processing/input/code/prepare.py"], "start"),
        (["python3", "/opt/ml/code/train.py", "--lr", "1"], "start"),
        (["python3", "-m", "sagemaker.remote_function.invoke_function"], "start"),
        (["python3", "-um", "sagemaker.remote_function.job"], "start"),
        (["torchrun", "/opt/conda/bin/torchrun", "train.py"], "script"),
        (["python3", "-m", "torch.distributed.run", "x.py"], "script"),
        (["python3", "/home/me/x.py"], "script"),
        (["python3", "-c", "import torch"], "ignore"),
        (["python3", "-Ic", "import torch"], "ignore"),
        (["python3", "-m", "pip", "install", "x"], "ignore"),
        (["python3", "/usr/bin/pip3.11", "install", "x"], "ignore"),
        (["python3", "/usr/local/bin/deep_learning_container.py"], "ignore"),
        (["python3", "-Wignore::DeprecationWarning", "/opt/ml/processing/input/code/x.py"], "start"),
        (["python3", "-Xtracemalloc", "/opt/ml/processing/input/code/x.py"], "start"),
        (["python3", "-Xfrozen_modules=off", "/opt/ml/processing/input/code/x.py"], "start"),
        (["python3", "-mpip", "install", "x"], "ignore"),
        (["python3", "-msagemaker.remote_function.job"], "start"),
        (["python3", "--", "-c.py"], "script"),
        (["python3", "--", "-"], "ignore"),
        (["python3", "--"], "ignore"),
        (["python3", "-m"], "ignore"),
        (["python3", "-"], "ignore"),
        (["python3"], "ignore"),
        (["python3", "-m", "smssh_plugin.entrypoints.smssh_hook", "status"], "ignore"),
    ],
)
def test_classify(command, kind, monkeypatch) -> None:
    monkeypatch.delenv("SAGEMAKER_BASE_DIR", raising=False)
    assert boot.classify(command) == kind


OPTIONS = [
    ["-Wignore::DeprecationWarning"],
    ["-W", "ignore::DeprecationWarning"],
    ["-uWignore"],
    ["-uW", "ignore"],
    ["-Xtracemalloc"],
    ["-Xutf8"],
    ["-X", "importtime"],
    ["-uXdev", "-B"],
    ["-BIs"],
    ["--check-hash-based-pycs", "always"],
    ["--check-hash-based-pycs", "never", "-E"],
    ["-E", "--"],
    [],
]
"""What may stand before the program."""


@pytest.mark.parametrize("version", ["3.7", "3.11", "3.13"])
@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_the_program_is_what_the_interpreter_takes_for_it(tmp_path, version, options) -> None:
    interpreter = needs.python(version)
    script = tmp_path / "prepare.py"
    script.write_text("import sys; print(repr(sys.argv))\n")
    (tmp_path / "folder.py").write_text("import sys; print(repr(sys.argv))\n")
    ends_options = options[-1:] == ["--"]
    cases = [([str(script), "-c", "-m"], ("script", str(script)))]
    if not ends_options:
        cases += [
            (["-mfolder", "-c"], ("module", "folder")),
            (["-m", "folder", "-c"], ("module", "folder")),
            (["-bmfolder", "-c"], ("module", "folder")),
            (["-cimport sys; print(repr(sys.argv))", "m"], ("other", "")),
            (["-bc", "import sys; print(repr(sys.argv))", "m"], ("other", "")),
        ]
    if "I" in "".join(options):  # not even the folder of the module is on sys.path
        cases = [case for case in cases if case[1][0] != "module"]
    for rest, expected in cases:
        command = [interpreter, *options, *rest]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
        first = ast.literal_eval(done.stdout)[0]
        taken = {"script": first, "module": os.path.basename(first)[:-3], "other": ""}[expected[0]]
        assert boot.program(command) == expected == (expected[0], taken), command


def test_classify_knows_the_base_dir(monkeypatch) -> None:
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", "/base")
    assert boot.classify(["python", "/base/code/x.py"]) == "start"
    assert boot.classify(["python", "/opt/ml/code/x.py"]) == "script"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"#!/usr/bin/python\nfrom sagemaker_training.cli.train import main\n", True),
        (b"#!/usr/bin/python\nfrom sagemaker_containers.cli.train import main\n", True),
        (b"# EASY-INSTALL-ENTRY-SCRIPT: 'sagemaker-training==3.9.2','console_scripts','train'\n", True),
        (b"#!/usr/bin/python\nfrom sagemaker_training import environment\n", False),
        (b"\x7fELF\x02\x01\x01\x00", False),
        (b"#" * 5000 + b"\nfrom sagemaker_training.cli.train import main\n", False),
        (None, False),
    ],
)
def test_a_toolkits_train_is_told_from_others(tmp_path, text, expected) -> None:
    path = tmp_path / "train"
    if text is not None:
        path.write_bytes(text)
    assert boot.is_toolkits(str(path)) is expected


def test_run_folders_of_others_are_not_used(tmp_path, monkeypatch) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    shared.chmod(0o755)
    monkeypatch.setenv("SMSSH_RUN_DIR", str(shared))
    assert boot.run_dir(create=True) is None
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    link = tmp_path / "link"
    link.symlink_to(private)
    monkeypatch.setenv("SMSSH_RUN_DIR", str(link))
    assert boot.run_dir(create=True) is None
    monkeypatch.setenv("SMSSH_RUN_DIR", str(tmp_path / "new"))
    assert boot.run_dir(create=True) == str(tmp_path / "new")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_lock(tmp_path) -> None:
    handle = boot.take_lock(str(tmp_path))
    assert handle is not None
    assert boot.take_lock(str(tmp_path)) is None
    os.close(handle)
    # Free, but its owner, this process, lives: a start that failed is not tried again.
    assert boot.take_lock(str(tmp_path)) is None


@pytest.mark.parametrize(
    "owner", ["", "garbage", "999999 1 {boot}", "{pid} 1 {boot}", "{pid} {start} other-boot", "\0\xff"]
)
def test_a_stale_lock_is_taken_over(tmp_path, owner) -> None:
    text = owner.format(pid=os.getpid(), start=boot.start_time(os.getpid()), boot=boot.boot_id())
    (tmp_path / "lock").write_text(text, encoding="latin-1")
    handle = boot.take_lock(str(tmp_path))
    assert handle is not None
    os.close(handle)


def test_race(container) -> None:
    """32 interpreters of one job at once: exactly one start."""
    code = container.base / "code"
    code.mkdir(parents=True)
    (code / "rank.py").write_text(
        "import os, time\nwhile not os.path.exists('go'): time.sleep(0.05)\nprint('ran')\n"
    )
    ranks = " & ".join([f"python {code}/rank.py"] * 32)
    process = container.start("sh", "-c", f"{ranks} & wait", PYTHONPATH=container.bundle)
    container.wait_for("ready")
    container.script("", name="go")
    assert process.wait(LIMIT) == 0
    assert container.output().count("ran\n") == 32
    assert container.log().count("started by sitecustomize") == 1
    container.assert_quiet()


def test_off_leaves_no_trace(container) -> None:
    script = container.script(
        "import sys; print([name for name in sys.modules if 'smssh' in name], sys.excepthook)"
    )
    process = container.start("python", script, on=False, PYTHONPATH=container.bundle)
    assert process.wait(LIMIT) == 0
    assert container.output().startswith("[] <built-in function excepthook>")
    assert not container.run_dir.exists()


def test_on_leaves_little(container) -> None:
    script = container.script(
        "import sys, threading\n"
        "print(sorted({name.split('.')[0] for name in sys.modules if 'smssh' in name or 'pluggy' in name}))\n"
        "print([path for path in sys.path if path.endswith('.zip') and 'smssh' in path])\n"
        "print(threading.active_count(), sys.modules.get('json'))\n"
    )
    process = container.start("python", script, PYTHONPATH=container.bundle)
    assert process.wait(LIMIT) == 0
    assert container.output() == "['_smssh', '_smssh_boot']\n[]\n1 None\n"


@pytest.mark.parametrize("on", [True, False])
def test_what_the_launcher_imports(container, on) -> None:
    """Every interpreter of the job pays for it: nothing but what is listed here."""
    script = container.script("import sys; print(*sys.modules)")
    assert container.start("python", script, on=False).wait(LIMIT) == 0
    without = set(container.output().split())
    assert container.start("python", script, on=on, PYTHONPATH=container.bundle).wait(LIMIT) == 0
    ours = {
        "_smssh",
        "_smssh_boot",
        "_smssh.entrypoints",
        "_smssh.entrypoints.boot",
        "_smssh.entrypoints.reexec",
    }
    library = {"__future__", "atexit", "fcntl", "time", "zipimport"}
    more = set(container.output().split()) - without - {"sitecustomize"}
    assert more <= (ours | library | {"types"} if on else set())


def test_the_images_sitecustomize_runs_too(container, tmp_path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "sitecustomize.py").write_text("import sys\nVALUE = 5\nsys.flag_of_theirs = __file__\n")
    script = container.script("import sys, sitecustomize; print(sys.flag_of_theirs, sitecustomize.VALUE)")
    for on in (True, False):
        process = container.start("python", script, on=on, PYTHONPATH=f"{container.bundle}:{theirs}")
        assert process.wait(LIMIT) == 0
        assert container.output() == f"{theirs}/sitecustomize.py 5\n"


def test_an_error_in_the_images_sitecustomize_is_reported_as_without_us(container, tmp_path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "sitecustomize.py").write_text("raise RuntimeError('theirs')\n")
    script = container.script("print('ran')")
    assert container.start("python", script, PYTHONPATH=f"{container.bundle}:{theirs}").wait(LIMIT) == 0
    assert "RuntimeError: theirs" in container.output()
    assert container.output().endswith("ran\n")


@pytest.mark.parametrize("content", [b"", b"not a zip"])
def test_a_broken_zip_is_not_heard_of(container, tmp_path, content) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "sitecustomize.py").write_bytes((container.bundle / "sitecustomize.py").read_bytes())
    (broken / "smssh.zip").write_bytes(content)
    process = container.start("python", container.script("print('ran')"), PYTHONPATH=broken)
    assert process.wait(LIMIT) == 0
    assert container.output() == "ran\n"


def test_traceback_is_recorded_and_printed_as_always(container) -> None:
    text = "def f():\n    raise KeyError('x') from OSError('y')\nf()\n"
    script = container.script(text, name="train")
    plain = container.start("python", script, on=False)
    assert plain.wait(LIMIT) == 1
    recorded = container.start("python", script, PYTHONPATH=container.bundle)
    assert recorded.wait(LIMIT) == 1
    assert container.output(1) == container.output(0)
    record = json.loads(next(container.run_dir.glob("traceback-*.json")).read_text())
    assert record["error"] == "KeyError: 'x'"
    assert record["traceback"] == container.output(0)


def test_a_users_own_excepthook_wins(container) -> None:
    script = container.script("import sys\nsys.excepthook = lambda *a: print('mine')\n1/0\n", name="train")
    process = container.start("python", script, PYTHONPATH=container.bundle)
    assert process.wait(LIMIT) == 1
    assert container.output().endswith("mine\n")


THREADS = """\
import sys, threading
def quits(): raise SystemExit(3)
def fails(): raise KeyError('x') from OSError('y')
for each in (quits, fails):
    thread = threading.Thread(target=each, name='feeder')
    thread.start()
    thread.join()
print(threading.excepthook is getattr(threading, '__excepthook__', threading.excepthook))
"""


def test_what_ends_a_thread_is_recorded_and_printed_as_always(container) -> None:
    script = container.script(THREADS, name="train")
    plain = container.start("python", script, on=False)
    assert plain.wait(LIMIT) == 0
    recorded = container.start("python", script, PYTHONPATH=container.bundle)
    assert recorded.wait(LIMIT) == 0
    assert container.output(1) == container.output(0)
    (found,) = container.run_dir.glob("traceback-*.json")
    record = json.loads(found.read_text())
    assert (record["error"], record["thread"]) == ("KeyError: 'x'", "feeder")
    assert record["traceback"].startswith("OSError: y\n")
    assert found.name == f"traceback-{recorded.pid}-0.json"


@pytest.mark.parametrize("early", [False, True])
def test_threads_are_recorded_whether_threading_was_imported_before_or_not(tmp_path, early) -> None:
    begin = "import sys\n" + ("import threading\n" if early else "")
    begin += "from smssh_plugin.entrypoints import boot\nassert early == ('threading' in sys.modules)\n"
    text = f"early = {early}\n{begin}boot.record_tracebacks()\n{THREADS}"
    tmp_path.chmod(0o700)
    done = subprocess.run(
        [sys.executable, "-S", "-c", text],
        env={"SMSSH_RUN_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "True\n"
    assert len(list(tmp_path.glob("traceback-*.json"))) == 1


def test_threads_that_fail_again_and_again_cost_little(container) -> None:
    text = "import threading\nfor n in range(50):\n"
    text += "    t = threading.Thread(target=lambda: 1 / 0)\n    t.start(); t.join()\n"
    script = container.script(text + "raise KeyError('label')\n", name="train")
    assert container.start("python", script, PYTHONPATH=container.bundle).wait(LIMIT) == 1
    records = [json.loads(path.read_text()) for path in container.run_dir.glob("traceback-*.json")]
    assert sorted(bool(record["thread"]) for record in records) == [False] + [True] * boot.THREADS_LIMIT


def test_a_users_own_hook_for_threads_wins(container) -> None:
    text = "import threading\nthreading.excepthook = lambda *a: print('mine')\n"
    script = container.script(text + "threading.Thread(target=lambda: 1 / 0).start()\n", name="train")
    assert container.start("python", script, PYTHONPATH=container.bundle).wait(LIMIT) == 0
    assert container.output().endswith("mine\n")


def test_the_supervisor_inherits_nothing(container) -> None:
    """No descriptor of the job's (it would keep pipes open), no variable that changes an interpreter."""
    script = container.script(
        "import os\nos.set_inheritable(os.open('/dev/null', 0), True)\n"
        "while not os.path.exists('go'): __import__('time').sleep(0.05)\n",
        name="train",
    )
    process = container.start(
        "python", script, PYTHONPATH=container.bundle, LD_PRELOAD="", PYTHONSTARTUP="/x"
    )
    container.wait_for("ready")
    pid = next(pid for pid, command in container.strays() if "supervisor.main" in command)
    handles = {os.readlink(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd")}
    assert container.logs[0].name not in handles
    with open(f"/proc/{pid}/environ", "rb") as file:
        names = {part.partition(b"=")[0].decode() for part in file.read().split(b"\0")}
    assert not names & {"SMSSH_ENABLE", "LD_PRELOAD", "PYTHONSTARTUP"}
    assert os.getsid(pid) != os.getsid(process.pid)
    container.script("", name="go")
    assert process.wait(LIMIT) == 0
    container.assert_quiet()


def test_pth_line(container) -> None:
    """The launcher of baked images: once set off, twice in a virtual environment, nothing where it is off."""
    from pathlib import Path

    line = (Path(boot.__file__).parent / "smssh.pth").read_text().strip()
    assert "\n" not in line
    program = f"exec({line!r}); exec({line!r}); print('ran')"
    for on in (True, False):
        process = container.start(sys.executable, "-c", program, on=on)
        assert process.wait(LIMIT) == 0
        assert container.output() == "ran\n"


@pytest.mark.parametrize("version", ["3.7", "3.8", "3.9", "3.10", "3.12", "3.13"])
def test_other_pythons(container, version) -> None:
    """The whole way; where the job has 3.7, the supervisor runs in any newer Python on the PATH."""
    interpreter = needs.python(version)
    needs.program("sshd")  # the wheels of asyncssh are for one Python only
    from pathlib import Path

    first = str(Path(interpreter).parent)
    path = f"{first}:{IMAGE}/bin:/usr/bin:/bin"
    script = container.script("import sys\nprint(sys.version_info[:2])\nraise ValueError('bug')\n")
    process = container.wrap(interpreter, script, PATH=path, SMSSH_HOLD="failure")
    status = container.wait_for("held")
    report = json.loads(container.hook("report", "--json").stdout)
    assert report["error"] == "ValueError: bug"
    if version != "3.7":
        assert f" {version}." in report["python"]
    script.write_text("print('fixed')\n")
    assert container.ssh(status, "smssh-hook retry").returncode == 0
    assert process.wait(LIMIT) == 0
    assert f"({version.replace('.', ', ')})" in container.output()
    container.assert_quiet()


@pytest.mark.parametrize("version", ["3.7", "3.8"])
def test_syntax(version) -> None:
    interpreter = needs.python(version)
    from pathlib import Path

    folder = Path(boot.__file__).parent
    old = [
        folder / name
        for name in (
            "boot.py",
            "sitecustomize.py",
            "supervisor_client.py",
            "init.py",
            "toolkit.py",
            "smssh_hook.py",
        )
    ]
    if version == "3.8":
        old = [
            path
            for name in ("entrypoints", "hooks", "container", "supervisor")
            for path in (folder.parent / name).glob("*.py")
        ]
    for path in old:
        code = f"compile(open({str(path)!r}, encoding='utf-8').read(), {path.name!r}, 'exec')"
        subprocess.run([interpreter, "-c", code], check=True)


@pytest.mark.parametrize("version", ["3.8", "3.10"])
def test_failure_text_of_old_pythons_has_no_frame_of_ours(container, version) -> None:
    """Before 3.11 the wrapper's frame is taken out of the text; of a double, the real one is in 3.11."""
    interpreter = needs.python(version)
    package = container.folder / "lib" / "sagemaker_training"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "files.py").write_text("def write_failure_file(text):\n    open('failure', 'w').write(text)\n")
    (package / "entry_point.py").write_text("def run(*a, **k):\n    raise OSError('no such source')\n")
    container.script(
        "import traceback\n"
        "from sagemaker_training import entry_point, files\n"
        "try:\n    entry_point.run('uri', 'train.py', [], {})\n"
        "except Exception:\n    files.write_failure_file(traceback.format_exc())\n",
        name="train",
    )
    texts = []
    for on in (False, True):
        process = container.start(
            interpreter,
            "train",
            on=on,
            PYTHONPATH=f"{container.bundle}:{package.parent}",
            SMSSH_HOLD="failure",
            SMSSH_HOLD_SECONDS=1,
        )
        assert process.wait(LIMIT) == 0, container.output()
        texts.append((container.folder / "failure").read_text())
    assert texts[0] == texts[1]
    assert "smssh: held (" in container.output()
