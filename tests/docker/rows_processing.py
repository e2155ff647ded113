"""Processing: the command lines that the SDK's processors send, and an image's own entry point."""

import io
import json
import tarfile
from pathlib import Path

from .harness import PROBE_PYTHON, WAIT_PYTHON, Row
from .rows_training import BAD_REQUIREMENTS, PYTHON, SSHD

CODE = "/opt/ml/processing/input/code"
BUNDLE = "/opt/ml/processing/smssh"
NO_TOOLKIT = "no training toolkit in a processing job"
NO_BASH = "no bash among the job's processes"
NO_REQUIREMENTS = "this processor installs none"
ALWAYS_NAMED = (
    "the request always names an entry point, which is wrapped; the launcher alone has no parent to hold with"
)

GOOD = WAIT_PYTHON + (
    "import sys\n"
    "print('user: arguments', sys.argv[1:])\n"
    "open('/opt/ml/processing/output/rows.csv', 'w').write('1,2\\n')\n"
)
SOURCES = {
    "good": GOOD,
    "exception": PROBE_PYTHON + "raise ValueError('user bug')\n",
    "exit7": PROBE_PYTHON + "import sys\nprint('user: leaving', flush=True)\nsys.exit(7)\n",
    "sigterm": WAIT_PYTHON
    + "import os, signal, sys, time\n"
    # Not print: the signal may come while one is under way, and a second one in it is an error.
    + "def stopped(*_):\n    os.write(1, b'user: stopped\\n')\n    sys.exit(5)\n"
    + "signal.signal(signal.SIGTERM, stopped)\n"
    + "os.write(1, b'user: ready\\n')\n"
    + "while True:\n    time.sleep(0.1)\n",
    "requirements": GOOD,
}
WITHOUT_REQUIREMENTS = {name: text for name, text in SOURCES.items() if name != "requirements"}

SMSPARK_SUBMIT = """\
#!/usr/bin/python3
import subprocess, sys, threading, time
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
try:
    subprocess.run(" ".join(["spark-submit", "--master", "yarn", *sys.argv[1:]]), check=True, shell=True)
except subprocess.CalledProcessError as error:
    raise RuntimeError("spark failed with a non-zero exit code") from error
"""
"""The shape of SageMaker's Spark image, whose package is not on PyPI: see tests/entrypoints/test_processing.py."""
SPARK_SUBMIT = """\
#!/bin/bash
while [[ $1 == --* ]]; do [[ $1 == --master ]] && shift; shift; done
exec python3 "$@"
"""
SPARK = SSHD.layer(
    "smspark-submit",
    f"cat > /usr/local/bin/smspark-submit <<'EOF'\n{SMSPARK_SUBMIT}EOF\n"
    f"cat > /usr/local/bin/spark-submit <<'EOF'\n{SPARK_SUBMIT}EOF\n"
    "chmod 755 /usr/local/bin/smspark-submit /usr/local/bin/spark-submit\n",
)
# A bind mount of the script would be the container's, not the image's.
OWN_PROGRAM = SSHD.layer(
    "an analysis of its own",
    "mkdir -p /opt/program\n"
    "printf '#!/usr/bin/python3\\nexec(open(\"/opt/ml/processing/input/code/own.py\").read())\\n' "
    "> /opt/program/analyze.py\n"
    "printf '#!/bin/bash\\necho preparing\\n/usr/bin/python3 /opt/program/analyze.py \"$@\"\\n' "
    "> /opt/program/start.sh\n"
    "chmod 755 /opt/program/*\n",
)


def layout(folder: Path, scenario: str, source: str, name: str = "proc.py") -> None:
    """What SageMaker gives to a processing container."""
    for path in ("processing/input/code", "processing/smssh", "processing/output", "output", "config"):
        (folder / path).mkdir(parents=True, exist_ok=True)
    (folder / "processing" / "input" / "code" / name).write_text(source)
    config = folder / "config"
    config.joinpath("processingjobconfig.json").write_text(json.dumps({"ProcessingJobName": "process-1"}))
    hosts = {"current_host": "algo-1", "hosts": ["algo-1"], "network_interface_name": "lo"}
    config.joinpath("resourceconfig.json").write_text(json.dumps(hosts))


def named(name: str):
    """The layout with the user's script under another name."""
    return lambda folder, scenario, source: layout(folder, scenario, source, name)


def framework_layout(folder: Path, scenario: str, source: str) -> None:
    """What FrameworkProcessor uploads: the SDK's own scripts, and the packed code."""
    from sagemaker.core.processing import FrameworkProcessor
    from sagemaker.core.utils import install_requirements

    layout(folder, scenario, source)
    code = folder / "processing" / "input" / "code"
    (code / "proc.py").unlink()
    processor = FrameworkProcessor.__new__(FrameworkProcessor)
    processor.command = ["python3"]
    entry_point = folder / "processing" / "input" / "entrypoint"
    entry_point.mkdir()
    script = processor._generate_framework_script("proc.py", requirements="requirements.txt")
    (entry_point / "runproc.sh").write_text(script)
    (code / "install_requirements.py").write_text(Path(install_requirements.__file__).read_text())
    files = {"proc.py": source}
    if scenario == "requirements":
        files["requirements.txt"] = BAD_REQUIREMENTS
    with tarfile.open(code / "sourcedir.tar.gz", "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))


def rows_written(run):
    """The job's output."""
    path = run.ml / "processing" / "output" / "rows.csv"
    return {"rows": path.read_text() if path.exists() else None}


def stopped_in_time(run):
    """SIGTERM, and as much time as the service gives where it takes long: the supervisor says goodbye, too."""
    run.wait_for("user: ready")
    run.stop(grace=60)
    return {}


ROWS = [
    Row(
        name="ScriptProcessor",
        image=SSHD,
        command=["python3", f"{CODE}/proc.py", "--rows", "3"],
        sources=WITHOUT_REQUIREMENTS,
        lay_out=layout,
        code=f"{CODE}/proc.py",
        bundle=BUNDLE,
        during={"sigterm": stopped_in_time},
        observe=rows_written,
        not_here={"chain": NO_TOOLKIT, "bash_env": NO_BASH, "requirements": NO_REQUIREMENTS},
    ),
    Row(
        name="ScriptProcessor, no sshd",
        image=PYTHON,
        command=["python3", f"{CODE}/proc.py"],
        sources=WITHOUT_REQUIREMENTS,
        lay_out=layout,
        code=f"{CODE}/proc.py",
        bundle=BUNDLE,
        during={"sigterm": stopped_in_time},
        observe=rows_written,
        not_here={
            "chain": NO_TOOLKIT,
            "bash_env": NO_BASH,
            "requirements": NO_REQUIREMENTS,
            "baked/hold": "without sshd the server comes from the bundle's wheels",
        },
    ),
    Row(
        name="FrameworkProcessor (runproc.sh)",
        image=SSHD,
        command=["/bin/bash", "/opt/ml/processing/input/entrypoint/runproc.sh", "--rows", "3"],
        sources=SOURCES,
        lay_out=framework_layout,
        code=f"{CODE}/proc.py",
        bundle=BUNDLE,
        observe=rows_written,
        not_here={
            "chain": NO_TOOLKIT,
            "baked/hold": ALWAYS_NAMED,
            "pythonpath/hold": ALWAYS_NAMED,
        },
    ),
    Row(
        name="PySparkProcessor (smspark-submit)",
        image=SPARK,
        command=["smspark-submit", "--verbose", f"{CODE}/proc.py", "3"],
        sources=WITHOUT_REQUIREMENTS,
        lay_out=layout,
        code=f"{CODE}/proc.py",
        bundle=BUNDLE,
        observe=rows_written,
        not_here={
            "chain": NO_TOOLKIT,
            "bash_env": "bash starts only below smspark-submit",
            "requirements": NO_REQUIREMENTS,
        },
    ),
    Row(
        name="Processor, the image's own program",
        image=OWN_PROGRAM,
        command=["/opt/program/analyze.py", "3"],
        sources=WITHOUT_REQUIREMENTS,
        lay_out=named("own.py"),
        code=f"{CODE}/own.py",
        bundle=BUNDLE,
        during={"sigterm": stopped_in_time},
        observe=rows_written,
        not_here={"chain": NO_TOOLKIT, "bash_env": NO_BASH, "requirements": NO_REQUIREMENTS},
    ),
    Row(
        name="Processor, the image's own program under bash",
        image=OWN_PROGRAM,
        command=["/opt/program/start.sh", "3"],
        sources=WITHOUT_REQUIREMENTS,
        lay_out=named("own.py"),
        code=f"{CODE}/own.py",
        bundle=BUNDLE,
        observe=rows_written,
        not_here={
            "chain": NO_TOOLKIT,
            "requirements": NO_REQUIREMENTS,
            "baked/hold": "bash is the parent; the launcher alone has none to hold with",
            "pythonpath/hold": "bash is the parent; the launcher alone has none to hold with",
        },
    ),
]
