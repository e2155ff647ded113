"""Processing jobs: every shape that the SDK sends, with us and without us, entered, held and retried.

The containers' fixed folder /opt/ml is a folder of the test's own here, put into the scripts' text; tests/docker has
the same rows with the scripts as they are.
"""

import io
import shutil
import tarfile
import time
import zipfile

import pytest

from smssh_plugin.entrypoints import retry as again
from tests import needs
from tests.waiting import until

from .container import IMAGE

USER = """\
import os, pathlib, signal, sys, time
base = pathlib.Path(os.environ["SAGEMAKER_BASE_DIR"])
if "SMSSH_ENABLE" in os.environ:
    (base / "started").write_text(str(os.path.exists(os.environ["SMSSH_RUN_DIR"] + "/lock")))
(base / "processing/output/rows.csv").write_text(",".join(sys.argv[1:]))
print("user code", *sys.argv[1:], flush=True)
"""
"""The user's script: notes whether the supervisor was started before it, writes its output, then ends in some way."""
ENDINGS = {
    "good": "",
    "exception": "raise ValueError('user bug')\n",
    "exit 7": "sys.exit(7)\n",
    "killed": "os.kill(os.getpid(), signal.SIGKILL)\n",
    "sigterm": "(base / 'up').touch()\ntime.sleep(60)\n",
    "sigterm handled": "def end(*_):\n    os.write(1, b'ending\\n')\n    sys.exit(3)\n"
    "signal.signal(signal.SIGTERM, end)\n(base / 'up').touch()\nfor _ in range(1000): time.sleep(0.05)\n",
}
SUBMIT = """\
#!{python}
import subprocess, sys, threading, time
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
options = [part for part in sys.argv[1:] if part.startswith("--")]
app = [part for part in sys.argv[1:] if not part.startswith("--")]
try:
    subprocess.run(" ".join(["spark-submit", "--master", "yarn", *options, *app]), check=True, shell=True)
except subprocess.CalledProcessError as error:
    raise RuntimeError("spark failed with a non-zero exit code") from error
"""
"""The shape of SageMaker's Spark image, whose package is not on PyPI: a console script that serves its status from a
daemon thread, runs spark-submit in a shell, and raises when that fails (aws/sagemaker-spark-container,
smspark/cli.py and job.py)."""
SPARK_SUBMIT = """\
#!/bin/bash
while [[ $1 == --* ]]; do [[ $1 == --master ]] && shift; shift; done
exec python "$@"
"""


def ended(process, seconds=60):
    """The exit status as a container reports it: 128 + N after signal N."""
    status = process.wait(seconds)
    return 128 - status if status < 0 else status


class Processing:
    """One processing job's folder and command line.

    Args:
        container: the job's surroundings.
        shape: a key of the table at the end of `command`.
    """

    def __init__(self, container, shape):
        self.container = container
        self.base = container.base
        self.shape = shape
        for name in ("code", "entrypoint"):
            (self.base / "processing" / "input" / name).mkdir(parents=True)
        (self.base / "processing" / "output").mkdir()
        (self.base / "config").mkdir()
        (self.base / "config" / "processingjobconfig.json").write_text('{"ProcessingJobName": "process-1"}')
        (self.base / "config" / "resourceconfig.json").write_text(
            '{"current_host": "algo-1", "hosts": ["algo-1"]}'
        )
        self.bin = container.folder / "bin"
        self.bin.mkdir()
        self.path = f"{self.bin}:{container.environ['PATH']}"

    @property
    def code(self):
        """The folder of the user's code."""
        return self.bin if self.shape == "bare" else self.base / "processing" / "input" / "code"

    def lay_out(self, source, requirements=None):
        """Put the user's script where this shape of job has it."""
        for name in ("started", "up"):
            (self.base / name).unlink(missing_ok=True)
        (self.base / "processing" / "output" / "rows.csv").unlink(missing_ok=True)
        if self.shape == "framework":
            self._framework(source, requirements)
        elif self.shape == "bare":
            self._program("analyze", f"#!{IMAGE}/bin/python\n{source}")
        else:
            (self.code / "proc.py").write_text(source)
        if self.shape == "spark":
            self._program("smspark-submit", SUBMIT.format(python=IMAGE / "bin" / "python"))
            self._program("spark-submit", SPARK_SUBMIT)

    def _program(self, name, text):
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def _framework(self, source, requirements):
        """What FrameworkProcessor uploads: the SDK's own scripts, and the packed code."""
        processing = needs.module("sagemaker.core.processing")
        install = needs.module("sagemaker.core.utils.install_requirements")
        processor = processing.FrameworkProcessor.__new__(processing.FrameworkProcessor)
        processor.command = ["python3"]
        script = processor._generate_framework_script("proc.py", requirements="requirements.txt")
        script = script.replace("/opt/ml/", f"{self.base}/")
        (self.base / "processing" / "input" / "entrypoint" / "runproc.sh").write_text(script)
        with open(install.__file__) as file:
            (self.code / "install_requirements.py").write_text(file.read())
        files = {"proc.py": source, **({} if requirements is None else {"requirements.txt": requirements})}
        with tarfile.open(self.code / "sourcedir.tar.gz", "w:gz") as archive:
            for name, text in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text.encode()))

    def command(self):
        """ContainerEntrypoint and ContainerArguments."""
        shapes = {
            "script": ["python3", self.code / "proc.py", "--rows", "3"],
            "framework": ["/bin/bash", self.base / "processing/input/entrypoint/runproc.sh", "--rows", "3"],
            "spark": ["smspark-submit", "--verbose", self.code / "proc.py", "3"],
            "bare": ["analyze", "3"],
        }
        return shapes[self.shape]

    def start(self, on=True, launcher="wrap", **environ):
        """Start the job with one of the launchers, or without us."""
        environ["PATH"] = self.path
        if on and launcher == "wrap":
            return self.container.wrap(*self.command(), **environ)
        if on:
            environ["PYTHONPATH"] = self.container.bundle
        return self.container.start(*self.command(), on=on, **environ)

    def outcome(self, process, terminate=False):
        """How the job ended: exit status, output file, what the user's script printed."""
        if terminate:
            until((self.base / "up").exists, what=lambda: "the script: " + self.container.output())
            process.terminate()
        status = ended(process)
        output = self.base / "processing" / "output" / "rows.csv"
        printed = [
            line for line in self.container.output().splitlines() if line.startswith(("user code", "ending"))
        ]
        return status, output.read_text() if output.exists() else None, printed

    def started_before(self):
        """Whether the supervisor was started before the user's code."""
        return (self.base / "started").read_text() == "True"


SHAPES = ("script", "framework", "spark", "bare")


CELLS = [(shape, "wrap", ending) for shape in SHAPES for ending in ENDINGS]
CELLS += [("bare", "sitecustomize", ending) for ending in ENDINGS]
CELLS += [(shape, "sitecustomize", "exit 7") for shape in ("script", "framework", "spark")]


@pytest.fixture(scope="module")
def alone():
    """How each job ends without us, as far as that is known: {(shape, ending): outcome}."""
    return {}


@pytest.mark.parametrize(("shape", "launcher", "ending"), CELLS)
def test_the_same_with_us_and_without_us(container, alone, shape, launcher, ending) -> None:
    job = Processing(container, shape)
    terminate = ending.startswith("sigterm")
    if (shape, ending) not in alone:
        job.lay_out(USER + ENDINGS[ending])
        alone[shape, ending] = job.outcome(job.start(on=False), terminate)
        assert alone[shape, ending][1] is not None
    job.lay_out(USER + ENDINGS[ending])
    assert job.outcome(job.start(launcher=launcher), terminate) == alone[shape, ending]
    assert job.started_before()
    container.assert_quiet()


@pytest.mark.parametrize(
    ("shape", "launcher"),
    [
        ("script", "wrap"),
        ("framework", "wrap"),
        ("spark", "wrap"),
        ("spark", "sitecustomize"),
        ("bare", "sitecustomize"),
    ],
)
def test_hold_edit_retry(container, shape, launcher) -> None:
    job = Processing(container, shape)
    failing = USER + "if not (base / 'fixed').exists():\n    raise ValueError('user bug')\n"
    job.lay_out(failing)
    process = job.start(launcher=launcher, SMSSH_HOLD="failure")
    status = container.wait_for("held")
    assert status["kind"] == "processing"
    assert status["job"] == "process-1"
    assert status["code_dir"] == str(job.code)
    shown = container.ssh(
        status, "smssh-hook report; cat /proc/self/environ | tr '\\0' '\\n' | grep SAGEMAKER_BASE"
    )
    assert "ValueError: user bug" in shown.stdout
    assert f"SAGEMAKER_BASE_DIR={job.base}" in shown.stdout
    again = container.ssh(status, "smssh-hook retry --json")
    assert again.returncode == status["exit_code"] == 1, again.stderr
    fixed = container.ssh(status, f"touch {job.base}/fixed; smssh-hook retry --json")
    assert fixed.returncode == 0, fixed.stdout + fixed.stderr + container.log()
    assert job.outcome(process)[0] == 0
    assert container.output().count("user code") == 3
    assert (job.base / "processing" / "output" / "rows.csv").exists()
    container.assert_quiet()


def test_edits_survive_what_runproc_unpacks(container) -> None:
    """The SDK's script unpacks the submitted code in every attempt, over what a person has fixed there."""
    job = Processing(container, "framework")
    job.lay_out(USER + "raise ValueError('user bug')\n")
    process = job.start(SMSSH_HOLD="failure")
    status = container.wait_for("held")
    (job.code / "proc.py").write_text(USER + "import added\n")
    (job.code / "added.py").write_text("print('user code added')\n")
    assert container.ssh(status, "smssh-hook retry").returncode == 0, container.output()
    status, _, printed = job.outcome(process)
    assert status == 0
    assert printed[-1] == "user code added"


def test_requirements_that_fail(container) -> None:
    """pip fails: the same end; with a hold a person fixes the list, and the retry takes it."""
    job = Processing(container, "framework")
    requirements = "--no-index\nno-such-package-anywhere==1\n"
    job.lay_out(USER, requirements)
    without = job.outcome(job.start(on=False))
    assert without[0] != 0
    assert without[1] is None
    job.lay_out(USER, requirements)
    assert job.outcome(job.start()) == without
    job.lay_out(USER, requirements)
    process = job.start(SMSSH_HOLD="failure")
    status = container.wait_for("held")
    assert status["exit_code"] == without[0]
    fixed = container.ssh(status, 'echo --no-index > "$SMSSH_CODE_DIR/requirements.txt"; smssh-hook retry')
    assert fixed.returncode == 0, fixed.stdout + fixed.stderr + container.output()
    assert job.outcome(process)[:2] == (0, "--rows,3")


def test_a_helper_in_the_background_is_not_the_entry_point(container) -> None:
    """The image's shell starts it and does not wait for it; what it does wait for is held."""
    helper = container.script("print('helper ran', flush=True)\n", name="helper.py")
    main = container.script("print('main ran', flush=True)\n", name="main.py")
    start = container.script(f"python {helper} &\nwait\npython {main}\n", name="start.sh")
    process = container.start("bash", start, PYTHONPATH=container.bundle, SMSSH_HOLD="start")
    container.wait_for("held")
    assert container.output().splitlines()[0] == "helper ran"
    assert "main ran" not in container.output()
    container.hook("release")
    assert ended(process) == 0
    assert "main ran" in container.output()


@pytest.mark.parametrize(
    "broken", ["raise SystemExit(99)\n", "import os\nos._exit\nimport no_such_module_here\n"]
)
def test_an_init_that_cannot_be_loaded_leaves_the_job_alone(container, tmp_path, broken) -> None:
    """Asked to hold, the image's own program makes way for init; where that is broken, it comes back, once."""
    folder = tmp_path / "broken"
    shutil.copytree(container.bundle, folder)
    with (
        zipfile.ZipFile(container.bundle / "smssh.zip") as whole,
        zipfile.ZipFile(folder / "smssh.zip", "w") as out,
    ):
        for name in whole.namelist():
            if name.endswith("entrypoints/init.pyc"):
                continue  # of the one that works
            out.writestr(name, broken if name.endswith("entrypoints/init.py") else whole.read(name))
    container.bundle = folder
    job = Processing(container, "bare")
    job.lay_out(USER + ENDINGS["exit 7"])
    process = job.start(launcher="sitecustomize", SMSSH_HOLD="failure")
    assert job.outcome(process) == (7, "3", ["user code 3"])


def test_strict_is_kept_where_no_entry_point_is_named(container) -> None:
    job = Processing(container, "bare")
    job.lay_out(USER)
    process = job.start(launcher="sitecustomize", SMSSH_STRICT=1, SMSSH_AUTHORIZED_KEYS="")
    status, output, printed = job.outcome(process)
    assert (status, output, printed) == (1, None, [])
    assert "SMSSH_STRICT" in container.output()


@pytest.mark.parametrize("source", ["", "print('user code')\n"])
def test_what_is_put_right_before_a_retry(tmp_path, source) -> None:
    """Edits and removals go into the archive; a folder where nothing is unpacked yet leaves it alone."""
    code = tmp_path / "processing" / "input" / "code"
    code.mkdir(parents=True)
    for name in ("proc.py", "gone.py"):
        (code / name).write_text("old\n")
    with tarfile.open(code / "sourcedir.tar.gz", "w:gz") as archive:
        for name in ("proc.py", "gone.py"):
            archive.add(code / name, name)
    (code / "gone.py").unlink()
    if source:
        (code / "proc.py").write_text(source)
    else:
        (code / "proc.py").unlink()
    failure = tmp_path / "output" / "failure"
    failure.parent.mkdir()
    failure.write_text("an older one")
    again.prepare({"SAGEMAKER_BASE_DIR": str(tmp_path)}, time.time() + 60, time.time() + 61)
    assert failure.exists()
    again.prepare({"SAGEMAKER_BASE_DIR": str(tmp_path)}, time.time() - 60, time.time())
    assert not failure.exists()
    with tarfile.open(code / "sourcedir.tar.gz") as archive:
        names = archive.getnames()
        assert names == (["proc.py"] if source else ["proc.py", "gone.py"])
        assert archive.extractfile("proc.py").read().decode() == (source or "old\n")
    assert sorted(path.name for path in code.iterdir()) == sorted(
        ["sourcedir.tar.gz", *(["proc.py"] if source else [])]
    )
