"""What a job's script sees of us: nothing, whatever starts us and whatever looks."""

import hashlib
import json
import os
import shutil
import stat
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smssh_plugin.entrypoints import boot, hide
from smssh_plugin.manifest import MANIFEST
from smssh_plugin.submit.request.add_ssh import Injection, add_ssh
from smssh_plugin.submit.request.launchers import FOLDERS, MOVED
from tests import needs
from tests.faults.images import bake, image
from tests.faults.namespaces import prefix
from tests.waiting import LIMIT, until

from .container import IMAGE, let_others_in
from .test_drivers import Driven
from .venvs import venv

LOOK = """\
import json, os, pathlib, resource, sys
base = pathlib.Path(os.environ["SAGEMAKER_BASE_DIR"])
ours = ("SMSSH_", "PYTHONPATH", "TRAINING_MODULE", "SAGEMAKER_TRAINING_MODULE")
umask = os.umask(0)
seen = {
    "files": sorted(str(path.relative_to(base)) for path in base.rglob("*") if path.suffix not in (".pyc", ".log")),
    "configuration": {str(path.relative_to(base)): path.read_text() for path in base.rglob("config/*.json")},
    "modes": [path.stat().st_mode for path in sorted(base.rglob("config/*.json"))],
    "environment": {name: value for name, value in sorted(os.environ.items()) if not name.startswith(ours)},
    "folder": os.getcwd(),
    "umask": umask,
    "limits": [resource.getrlimit(each) for each in range(16)],
    "descriptors": sorted(set(os.listdir("/proc/self/fd")) - {"3"}),
    "arguments": sys.argv,
    "hook": sys.excepthook is sys.__excepthook__,
    "terminal": [os.isatty(number) for number in (0, 1, 2)],
}
print("LOOK" + json.dumps(seen, sort_keys=True))
"""
INPUTS = (
    '{"train" : {"TrainingInputMode":"File"} ,\n "smssh": {"TrainingInputMode":"File"},"zoo":{"A\\"B": []}}\n'
)
KEPT = '{"train" : {"TrainingInputMode":"File"} ,\n "zoo":{"A\\"B": []}}\n'


def entry_point(container, command, kind="training"):
    """The words that a request has, as this test's folder stands for /opt/ml."""
    digest = container.digest
    where, field = {
        "training": ("AlgorithmSpecification", "InputDataConfig"),
        "processing": ("AppSpecification", "ProcessingInputs"),
    }[kind]
    request = {where: {"ContainerEntrypoint": [str(each) for each in command]}, field: []}
    injection = Injection(f"s3://bucket/smssh/bundles/{digest}/", transport="none")
    changed = add_ssh(kind, request, injection)
    return [each.replace("/opt/ml", str(container.base)) for each in changed[where]["ContainerEntrypoint"]]


class Job:
    """A job whose request has the bundle as an input, or one without us.

    Args:
        container: its surroundings; the folder of the channel is below its base.
    """

    def __init__(self, container):
        self.container = container
        self.source = container.bundle
        self.base = container.base
        self.config = self.base / "input" / "config"
        self.data = self.base / "input" / "data"
        container.bundle = self.data / "smssh"
        container.digest = digest_of(self.source)
        self.path = f"{container.run_dir}/bundle:{container.bundle}"

    def lay_out(self, ours=True, source=LOOK, **hyperparameters):
        self.container.toolkit_job(source, **hyperparameters)
        (self.base / "model").mkdir(exist_ok=True)
        (self.data / "train").mkdir()
        (self.config / "inputdataconfig.json").write_text(INPUTS if ours else KEPT)
        (self.config / "inputdataconfig.json").chmod(0o640)
        if ours:
            shutil.copytree(self.source, self.container.bundle)

    def wrap(self, *command, **environ):
        return self.container.start(*entry_point(self.container, command), **environ)

    def seen(self, process, status=0):
        assert process.wait(LIMIT) == status, self.container.output() + self.container.log()
        lines = self.container.output().splitlines()
        return json.loads(next(line[4:] for line in lines if line.startswith("LOOK")))


def names(folder):
    return {path.name for path in folder.iterdir()} - {"__pycache__"}


def digest_of(folder):
    return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()


@pytest.fixture
def job(container):
    return Job(container)


def same(one, other):
    for name in one:
        assert one[name] == other[name], name
    assert one.keys() == other.keys()
    assert "smssh" not in json.dumps(one).lower().replace("smssh_run_dir", "")


# ------------------------------------------------------------------------------------------------ launchers


@pytest.mark.parametrize("launcher", ["wrap", "sitecustomize", "pth", "chain", "bash_env", "smssh-hook"])
def test_a_toolkits_script_sees_nothing(job, launcher) -> None:
    container = job.container
    train = IMAGE / "bin" / "train"
    if launcher in ("pth", "smssh-hook"):
        made = image(container.folder)
        bake(made, "0.0.1")
        train = made / "bin" / "train"
        train.write_text(f"#!{made}/bin/python\n" + (IMAGE / "bin" / "train").read_text().split("\n", 1)[1])
        train.chmod(0o755)
    job.lay_out(ours=False)
    without = job.seen(container.start(train, on=False))
    assert without["environment"]["SM_CHANNELS"] == '["train","zoo"]'
    job.lay_out()
    if launcher == "wrap":
        process = job.wrap(train)
    elif launcher == "sitecustomize":
        process = container.start(train, PYTHONPATH=job.path)
    elif launcher == "pth":
        process = container.start(train, SMSSH_BUNDLE=container.bundle)
    elif launcher == "chain":
        path = ":".join(f"{each}/chain" for each in job.path.split(":"))
        process = container.start(train, PYTHONPATH=path, SAGEMAKER_TRAINING_MODULE="smssh_chain:main")
    elif launcher == "bash_env":
        # The shell is nobody's process 1 here: it starts us, and goes on.
        bash_env = container.bundle / "env.sh"
        process = container.start("bash", "-c", f"{train}; exit $?", BASH_ENV=bash_env)
    else:
        code = "from smssh_plugin.entrypoints.smssh_hook import main; raise SystemExit(main())"
        command = [made / "bin" / "python", "-c", code, "run", "--", train]
        process = container.start(*command, SMSSH_BUNDLE=container.bundle)
    seen = job.seen(process)
    for each in (seen, without):
        for name in ("PWD", "SHLVL", "_", "OLDPWD") if launcher == "bash_env" else ():
            each["environment"].pop(name, None)  # the job's own shell
    same(seen, without)
    # What is ours is whole, and private.
    hidden = container.run_dir / "bundle"
    assert names(hidden) == names(job.source)
    assert stat.S_IMODE(hidden.stat().st_mode) == 0o700
    assert container.starts() == 1


def test_a_channel_too_many_would_show(job) -> None:
    """What a script saw where the input was left where it is."""
    job.lay_out()
    seen = job.seen(job.container.start(IMAGE / "bin" / "train", on=False))
    assert json.loads(seen["environment"]["SM_CHANNELS"]) == ["smssh", "train", "zoo"]
    assert "input/data/smssh" in seen["files"]


def test_hold_and_retry_work_from_where_the_bundle_is_then(job) -> None:
    job.lay_out(source="raise ValueError('user bug')\n")
    container = job.container
    process = job.wrap(IMAGE / "bin" / "train", SMSSH_HOLD="failure")
    status = container.wait_for("held")
    (job.base / "code" / "train.py").write_text(LOOK)
    shown = container.ssh(status, 'echo "[$PYTHONPATH]"; smssh-hook report')
    assert "ValueError: user bug" in shown.stdout
    assert "bundle" not in shown.stdout.split("]")[0]
    assert container.hook("retry").returncode == 0
    assert job.seen(process)["environment"]["SM_CHANNELS"] == '["train","zoo"]'
    container.assert_quiet()


@pytest.mark.parametrize("on", [True, False])
def test_the_switch_that_is_off_leaves_nothing_in_sight(job, on) -> None:
    """`enabled` may be a parameter of the pipeline: then the input is there, whatever it says."""
    script = job.container.script(LOOK)
    variables = {"SAGEMAKER_BASE_DIR": str(job.base)}
    job.lay_out(ours=False)
    without = job.seen(job.container.start("python", script, on=False, **variables))
    for launcher in ("wrap", "sitecustomize"):
        job.lay_out()
        if launcher == "wrap":
            process = job.wrap("python", script, on=on)
        else:
            process = job.container.start("python", script, on=on, PYTHONPATH=job.path)
        same(job.seen(process), without)
        job.container.assert_quiet()
        assert job.container.run_dir.exists() == on
        shutil.rmtree(job.container.run_dir, ignore_errors=True)


def test_shells_without_a_python_of_ours_see_nothing(job) -> None:
    job.lay_out()
    text = f"ls {job.data}; cat {job.config}/inputdataconfig.json; "
    text += "env | grep -v ^SMSSH_ | cut -d= -f1 | sort | tr '\\n' ' '"
    process = job.wrap("sh", "-c", text)
    assert process.wait(LIMIT) == 0
    wrapped = job.container.output()
    job.lay_out(ours=False)
    assert job.container.start("sh", "-c", text, on=False).wait(LIMIT) == 0
    assert wrapped.replace("PYTHONPATH ", "") == job.container.output()
    job.container.assert_quiet()


# ------------------------------------------------------------------------------------------------- toolkits

LEGACY = """\
import json, os
print("LOOK" + json.dumps({name: value for name, value in os.environ.items() if name.startswith("SM_")}))
"""
OLD = [
    ("training-3.9.2", ("sagemaker-training==3.9.2", "protobuf<=3.20.3", "numpy<2", "setuptools<81")),
    ("training-4.9.0", ("sagemaker-training==4.9.0", "protobuf<=3.20.3", "numpy<2", "setuptools<81")),
    ("containers-2.8.6", ("sagemaker-containers==2.8.6.post2", "setuptools<81")),
]


@pytest.mark.timeout(600)  # what has no wheels is built, once
@pytest.mark.parametrize(("name", "requirements"), OLD)
@pytest.mark.parametrize("launcher", ["wrap", "sitecustomize"])
def test_older_toolkits(job, name, requirements, launcher) -> None:
    base = needs.python("3.9")  # the last that the oldest of them runs on
    made = venv(name, *requirements, base=base)
    script = job.container.script(
        "import sys\n"
        "try:\n    from sagemaker_training.environment import Environment\n"
        "    print('LOOK' + __import__('json').dumps(Environment().to_env_vars()))\n"
        "except ImportError:\n    from sagemaker_containers import training_env\n"
        "    print('LOOK' + __import__('json').dumps(training_env().to_env_vars()))\n",
        name="train",
    )
    command = (made / "bin" / "python", script)
    job.lay_out(ours=False)
    without = job.seen(job.container.start(*command, on=False))
    job.lay_out()
    if launcher == "wrap":
        seen = job.seen(job.wrap(*command))
    else:
        seen = job.seen(job.container.start(*command, PYTHONPATH=job.path))
    same(seen, without)


@pytest.mark.parametrize("launcher", ["wrap", "sitecustomize"])
@pytest.mark.parametrize("mode", ["basic", "command"])
def test_the_drivers_of_sdk_v3(job, launcher, mode) -> None:
    driven = Driven(job.container)
    job.container.bundle = job.source
    seen = []
    for ours in (False, True):
        driven.lay_out(LOOK, mode)
        channels = '{"code": {}, "sm_drivers": {}%s}' % (', "smssh": {}' if ours else "")
        (job.config / "inputdataconfig.json").write_text(channels)
        script = f"{driven.data}/sm_drivers/sm_train.sh"
        command = ["/bin/bash", "-c", f"chmod +x {script} && {script}"]
        if ours:
            shutil.copytree(job.source, job.data / "smssh")
        if not ours:
            process = job.container.start(*command, on=False)
        elif launcher == "wrap":
            process = job.wrap(*command)
        else:
            process = job.container.start(*command, PYTHONPATH=job.path)
        seen.append(job.seen(process))
        seen[-1]["environment"].pop("_", None)
    assert '"smssh"' not in (job.base / "input" / "sm_training.env").read_text()
    assert json.loads(seen[0]["environment"]["SM_CHANNELS"]) == ["code", "sm_drivers"]
    same(seen[1], seen[0])


# ------------------------------------------------------------------------------------------ other requests


@pytest.mark.parametrize("launcher", ["wrap", "sitecustomize"])
def test_a_processing_job(job, launcher) -> None:
    container = job.container
    own = {
        "AppSpecification": {"ImageUri": "i", "ContainerEntrypoint": ["python", "/a\\b"]},
        "Environment": {"A": "1"},
        "ProcessingInputs": [{"InputName": "code", "S3Input": {"S3Uri": "s3://b/smssh"}}],
    }
    folder = job.base / FOLDERS["processing"][len("/opt/ml/") :]
    seen = []
    for ours in (False, True):
        shutil.rmtree(job.base, ignore_errors=True)
        for name in ("config", "processing/input/code", "output"):
            (job.base / name).mkdir(parents=True)
        request = own
        if ours:
            shutil.copytree(job.source, folder)
            uri = f"s3://bucket/smssh/bundles/{container.digest}/"
            changed = add_ssh(
                "processing",
                own,
                Injection(uri, transport="none", launcher="sitecustomize" if launcher != "wrap" else "auto"),
            )
            request = json.loads(json.dumps(changed).replace("/opt/ml/", f"{job.base}/"))
        (job.base / "config" / "processingjobconfig.json").write_text(json.dumps(request))
        (job.base / "processing" / "input" / "code" / "look.py").write_text(LOOK)
        command = ["python", job.base / "processing" / "input" / "code" / "look.py"]
        if not ours:
            process = container.start(*command, on=False)
        elif launcher == "wrap":
            words = [
                each.replace("/opt/ml", str(job.base))
                for each in add_ssh(
                    "processing",
                    {"AppSpecification": {"ContainerEntrypoint": [str(each) for each in command]}},
                    Injection(f"s3://b/{container.digest}/", transport="none"),
                )["AppSpecification"]["ContainerEntrypoint"]
            ]
            process = container.start(*words)
        else:
            process = container.start(*command, PYTHONPATH=f"{container.run_dir}/bundle:{folder}")
        seen.append(job.seen(process))
        container.assert_quiet()
    assert [json.loads(each["configuration"].pop("config/processingjobconfig.json")) for each in seen] == [
        own,
        own,
    ]
    uri = seen[0].pop("files")
    assert seen[1].pop("files") == uri
    seen[0].pop("configuration"), seen[1].pop("configuration")
    same(seen[1], seen[0])


@pytest.mark.parametrize("place", ["additional-model-data-sources/smssh", "model/code/smssh"])
def test_a_model(job, place) -> None:
    """What serves goes through the folder of the model's code; of other sources there would be no folder."""
    job.lay_out(ours=False)
    container = job.container
    folder = job.base / place
    shutil.copytree(job.source, folder)
    serve = container.script(LOOK, name="serve")
    seen = job.seen(container.start("python", serve, PYTHONPATH=f"{container.run_dir}/bundle:{folder}"))
    assert not [each for each in seen["files"] if "smssh" in each or "additional" in each]
    assert (container.run_dir / "bundle" / "smssh.zip").exists()


# ------------------------------------------------------------------------------- siblings, races and restarts


def test_what_a_shell_starts_later_is_served_too(job) -> None:
    """Its PYTHONPATH is the request's, which names both places; the first interpreter is only a probe."""
    job.lay_out(source="")
    script = job.container.script(
        "import sys; print(sorted(m for m in sys.modules if 'smssh' in m)); raise KeyError('x')"
    )
    text = f"python -c pass; ls {job.data}; python {script}; python {script}; exit 3"
    process = job.container.start("sh", "-c", text, PYTHONPATH=job.path)
    assert process.wait(LIMIT) == 3
    lines = job.container.output().splitlines()
    assert lines[:1] == ["train"]
    assert sum("_smssh_boot" in line for line in lines) == 2
    assert len(list(job.container.run_dir.glob("traceback-*.json"))) == 2


def test_many_interpreters_at_once(job) -> None:
    job.lay_out(source="")
    look = "python -c 'import os, sys; print(sorted(os.listdir(sys.argv[1])))'"
    text = f"for n in 1 2 3 4 5 6 7 8 9 10 11 12; do {look} {job.data} & done; wait"
    process = job.container.start("sh", "-c", text, PYTHONPATH=job.path)
    assert process.wait(LIMIT) == 0
    assert job.container.output() == "['train']\n" * 12
    assert json.loads((job.config / "inputdataconfig.json").read_text()).keys() == {"train", "zoo"}


def test_an_interpreter_that_starts_while_another_removes_the_folder(job) -> None:
    """The launcher and the zip are gone already, the folder is not."""
    job.lay_out(source="")
    container = job.container
    channel = container.bundle
    path = ":".join(reversed(job.path.split(":")))  # as where the moved bundle came after this one was found
    launcher = channel / "sitecustomize.py"
    launcher.write_text(f"import os\nos.unlink({str(launcher)!r})\n" + launcher.read_text())
    shutil.copytree(job.source, container.run_dir / "bundle")
    container.run_dir.chmod(0o700)
    (channel / "smssh.zip").unlink()
    look = f"import os, sys; print(os.listdir({str(job.data)!r}), '_smssh_boot' in sys.modules)"
    process = container.start("python", "-c", look, PYTHONPATH=path)
    stat = Path(f"/proc/{process.pid}/stat")
    until(
        lambda: not launcher.exists() and stat.read_text().rpartition(")")[2].split()[0] == "S", what="a wait"
    )
    shutil.rmtree(channel)
    assert process.wait(LIMIT) == 0
    assert container.output() == "['train'] True\n"


@pytest.mark.parametrize("launcher", ["wrap", "sitecustomize", "chain"])
def test_a_container_that_is_started_again(job, launcher) -> None:
    """The files are moved already; the second start finds them where they are."""
    job.lay_out()
    container = job.container
    train = IMAGE / "bin" / "train"
    for nth in (1, 2):
        (job.base / "code").exists() and shutil.rmtree(job.base / "code")
        if launcher == "wrap":
            process = job.wrap(train)
        elif launcher == "sitecustomize":
            process = container.start(train, PYTHONPATH=job.path)
        else:
            path = ":".join(f"{each}/chain" for each in job.path.split(":"))
            process = container.start(train, PYTHONPATH=path, SAGEMAKER_TRAINING_MODULE="smssh_chain:main")
        assert job.seen(process)["environment"]["SM_CHANNELS"] == '["train","zoo"]'
        until(lambda nth=nth: container.starts() == nth, what="one more start")


@pytest.mark.parametrize("left", ["nothing moved", "copied half", "copied", "cleaned", "removed half"])
def test_a_start_that_was_cut_off_is_done_again(job, left) -> None:
    job.lay_out()
    container = job.container
    hidden = container.run_dir / "bundle"
    container.run_dir.mkdir(mode=0o700)
    if left == "copied half":
        new = container.run_dir / "bundle.new"
        new.mkdir()
        (new / "run.sh").touch()
    elif left != "nothing moved":
        shutil.copytree(job.source, hidden)
    if left in ("cleaned", "removed half"):
        (job.config / "inputdataconfig.json").write_text(KEPT)
    if left == "removed half":
        for name in ("run.sh", "sitecustomize.py", "env.sh"):
            (container.bundle / name).unlink()
    seen = job.seen(job.wrap(IMAGE / "bin" / "train"))
    assert seen["environment"]["SM_CHANNELS"] == '["train","zoo"]'
    assert not container.bundle.exists()
    assert (hidden / "run.sh").read_bytes() == (job.source / "run.sh").read_bytes()
    assert container.starts() == 1


def test_another_bundle_takes_the_place_of_an_old_one(job) -> None:
    job.lay_out()
    old = job.container.run_dir / "bundle"
    job.container.run_dir.mkdir(mode=0o700)
    shutil.copytree(job.source, old)
    (old / MANIFEST).write_text("{}")
    (old / "gone").touch()
    job.seen(job.wrap(IMAGE / "bin" / "train"))
    assert digest_of(old) == job.container.digest
    assert not (old / "gone").exists()


# ------------------------------------------------------------------------------------ where it cannot be hidden


@pytest.mark.parametrize("launcher", ["wrap", "sitecustomize"])
def test_read_only_inputs_are_filtered_and_named(job, launcher) -> None:
    """The folder stays in sight; what toolkits tell the script does not."""
    container = job.container
    job.lay_out(ours=False)
    without = job.seen(container.start(IMAGE / "bin" / "train", on=False))
    source = LOOK + "import time\nwhile not os.path.exists(base / 'go'): time.sleep(0.05)\n"
    job.lay_out(source=source)
    command = [IMAGE / "bin" / "train"]
    if launcher == "wrap":
        command = entry_point(container, command)
    mount = f'mount --bind {job.base}/input {job.base}/input && mount -o remount,bind,ro {job.base}/input && exec "$@"'
    path = {"PYTHONPATH": job.path} if launcher != "wrap" else {}
    process = container.start(*prefix(), "/bin/sh", "-c", mount, "sh", *command, **path)
    until(lambda: "in sight: " in container.log(), what=lambda: "the log: " + container.output())
    until(lambda: "smssh: the job can see" in container.output(), what="the line")
    (job.base / "go").touch()
    seen = job.seen(process)
    for name in ("SM_CHANNELS", "SM_INPUT_DATA_CONFIG", "SM_TRAINING_ENV", "SM_CHANNEL_TRAIN"):
        assert seen["environment"][name] == without["environment"][name]
    assert "SM_CHANNEL_SMSSH" not in seen["environment"]
    container.assert_quiet()


def test_a_mount_that_others_share_is_left_alone(job) -> None:
    """Local mode of the SDKs mounts one folder into the containers of all hosts."""
    job.lay_out()
    container = job.container
    mount = f'mount --bind {job.source} {container.bundle} && exec "$@"'
    command = entry_point(container, [IMAGE / "bin" / "train"])
    before = names(job.source)
    seen = job.seen(container.start(*prefix(), "/bin/sh", "-c", mount, "sh", *command))
    assert seen["environment"]["SM_CHANNELS"] == '["train","zoo"]'
    assert names(job.source) == before
    assert "it is a mount" in container.log()


def test_the_channel_of_a_user_with_that_name_is_the_users(job) -> None:
    """With an image that has the package there is no bundle, and the name is free."""
    job.lay_out(ours=False)
    (job.data / "smssh").mkdir()
    (job.data / "smssh" / "data.csv").write_text("1\n")
    (job.config / "inputdataconfig.json").write_text(INPUTS)
    seen = job.seen(job.container.start(IMAGE / "bin" / "train", PYTHONPATH=job.source))
    assert seen["environment"]["SM_CHANNELS"] == '["smssh","train","zoo"]'
    assert "input/data/smssh/data.csv" in seen["files"]


@pytest.mark.needs("setpriv")
@pytest.mark.applies(os.geteuid() == 0, "only root becomes another user")
def test_an_ordinary_user(job) -> None:
    """Nobody's folders but /tmp; the private folder is below TMPDIR."""
    job.lay_out()
    container = job.container
    let_others_in(container.folder)
    for path in [container.folder, *container.folder.rglob("*")]:
        os.chown(path, 65534, 65534)
    container.environ.pop("SMSSH_RUN_DIR")
    script = container.script("import os, sys; print(os.listdir(sys.argv[1]), os.environ['PYTHONPATH'])")
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    process = container.start(
        *command, sys.executable, script, job.data, PYTHONPATH=f"{MOVED}:{container.bundle}"
    )
    assert process.wait(LIMIT) == 0
    assert container.output() == f"['train'] {container.folder}/smssh-65534/bundle\n"
    container.run_dir = container.folder / "smssh-65534"


# -------------------------------------------------------------------------------- the words before run.sh

FILES = ["run.sh", "smssh.zip", MANIFEST, "options.json", "everything"]


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("how", ["gone", "changed"])
def test_a_bundle_that_is_not_the_requests_runs_the_original(job, shell, file, how, tmp_path) -> None:
    needs.program(shell)
    job.lay_out(ours=False)
    script = job.container.script(LOOK + "raise SystemExit(7)\n")
    without = job.seen(job.container.start("python", script, on=False), 7)
    job.lay_out()
    for name in FILES[:-1] if file == "everything" else [file]:
        path = job.container.bundle / name
        if how == "gone":
            path.unlink()
        else:
            path.write_bytes(b"echo evil\n" + path.read_bytes())
    words = entry_point(job.container, ["python", script])
    words[:1] = [shell, "sh"] if shell == "busybox" else [shell]
    process = job.container.start(*words)
    seen = job.seen(process, 7)
    assert "evil" not in job.container.output()
    for each in (seen, without):
        for name in ("PWD", "SHLVL", "_"):
            each["environment"].pop(name, None)
        texts = each.pop("configuration")
        each["configuration"] = {name: json.loads(text) for name, text in texts.items()}
    assert seen == without
    if file != "options.json":
        assert "smssh: no login is possible" in job.container.output()
        assert "started by" not in job.container.log()


TOOLS = {
    "sha256sum": ["sha256sum"],
    "openssl": ["openssl"],
    "python": [],
    "nothing": None,
}


@pytest.mark.parametrize("tool", TOOLS)
def test_the_digest_is_made_by_what_there_is(job, tool) -> None:
    job.lay_out(source="")
    folder = job.container.folder / "tools"
    folder.mkdir()
    if TOOLS[tool] is not None:
        for name in TOOLS[tool]:
            (folder / name).symlink_to(needs.program(name))
        (folder / "python3").symlink_to(IMAGE / "bin" / "python")
    words = entry_point(job.container, ["/bin/sh", "-c", "echo $$; exit 4"])
    process = job.container.start(*words, PATH=folder)
    assert process.wait(LIMIT) == 4
    if tool != "nothing":
        assert job.container.starts("run.sh") == 1
    else:
        job.container.assert_quiet()
        assert "started by" not in job.container.log()
        assert job.container.output() == f"{process.pid}\n"


def test_the_original_is_process_1_where_nothing_runs(job, first) -> None:
    job.lay_out(source="")
    (job.container.bundle / "run.sh").unlink()
    process = job.container.start(*first, *entry_point(job.container, ["/bin/sh", "-c", "exit $$"]))
    assert process.wait(LIMIT) == 1


def test_signals_reach_the_original_where_nothing_runs(job) -> None:
    job.lay_out(source="")
    (job.container.bundle / "run.sh").unlink()
    text = "trap 'exit 9' TERM; echo up; while :; do sleep 0.05; done"
    process = job.container.start(*entry_point(job.container, ["/bin/sh", "-c", text]))
    until(lambda: "up" in job.container.output())
    process.terminate()
    assert process.wait(LIMIT) == 9


# ---------------------------------------------------------------------------------------------------- files

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
CHANNELS = st.dictionaries(st.sampled_from(["a", "b", "smssh", 'c"d', "e\\"]), JSON, max_size=5)


@given(CHANNELS, st.sampled_from([None, 0, 2]), st.booleans())
def test_our_channel_goes_and_the_rest_stays(channels, indent, ascii_only) -> None:
    text = json.dumps(channels, indent=indent, ensure_ascii=ascii_only)
    found = hide.without_ours(text, inputs=True)
    left = {name: value for name, value in channels.items() if name != "smssh"}
    assert json.loads(found) == left
    if "smssh" not in channels:
        assert found == text


@given(st.lists(st.fixed_dictionaries({"InputName": st.sampled_from(["smssh", "x"]), "Y": JSON}), max_size=5))
def test_our_inputs_go_and_the_rest_stays(inputs) -> None:
    found = json.loads(
        hide.without_ours(json.dumps({"B": [], "ProcessingInputs": inputs, "A": {}}, indent=2))
    )
    assert found == {
        "B": [],
        "ProcessingInputs": [each for each in inputs if each["InputName"] != "smssh"],
        "A": {},
    }


@pytest.mark.parametrize("text", ["", "{", '{"smssh"', "[1,", '{"smssh": {}', "null"])
def test_what_is_no_configuration_stays(tmp_path, text, monkeypatch) -> None:
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    path = tmp_path / "input" / "config" / "inputdataconfig.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    hide.clean_all()
    assert path.read_text() == text
    assert [each.name for each in path.parent.iterdir()] == ["inputdataconfig.json"]


@given(CHANNELS)
def test_the_filtered_variables_are_those_of_a_job_without_us(channels) -> None:
    def variables(named):
        return {
            "SM_CHANNELS": json.dumps(sorted(named), separators=(",", ":")),
            "SM_INPUT_DATA_CONFIG": json.dumps(named, sort_keys=True, separators=(",", ":")),
            "SM_TRAINING_ENV": json.dumps(
                {
                    "channel_input_dirs": dict.fromkeys(named, "/x"),
                    "input_data_config": named,
                    "a": ["smssh"],
                },
                sort_keys=True,
                separators=(",", ":"),
            ),
        }

    environ = variables(channels)
    hide.filter_environment(environ)
    assert environ == variables({name: value for name, value in channels.items() if name != "smssh"})


def test_the_places_are_those_of_the_requests() -> None:
    assert {f"/opt/ml{place}" for place in boot.PLACES} == {*FOLDERS.values(), "/opt/ml/model/code/smssh"}
    assert f"{boot.PRIVATE}/{boot.MOVED}" == MOVED
    from smssh_plugin.submit.request import wrapper

    assert all(len(word) <= wrapper.LIMIT and "\n" not in word for word in wrapper.WORDS)


# ------------------------------------------------------------------------------------- import smssh_plugin


@pytest.mark.parametrize("version", ["3.8", "3.11", "3.13"])
@pytest.mark.parametrize("launcher", ["wrap", "sitecustomize"])
def test_the_package_can_be_imported_in_a_job(job, version, launcher) -> None:
    interpreter = needs.python(version)
    job.lay_out(source="")
    script = job.container.script(
        "import sys\n"
        "before = [name for name in sys.modules if name.startswith('smssh_plugin')]\n"
        "import smssh_plugin\n"
        "from smssh_plugin import is_last_session_timeout\n"
        "print(before, smssh_plugin.__version__, callable(is_last_session_timeout), 'zip' in smssh_plugin.__file__)\n"
        "for name in ('pluggy', 'boto3_of_ours'):\n"
        "    try: __import__(name); print(name)\n"
        "    except ImportError: pass\n"
        "try: from smssh_plugin import with_ssh\n"
        "except ImportError as error: print(error)\n"
    )
    command = [IMAGE / "bin" / "python" if version == "3.11" else interpreter, script]
    process = job.wrap(*command) if launcher == "wrap" else job.container.start(*command, PYTHONPATH=job.path)
    assert process.wait(LIMIT) == 0, job.container.output()
    from smssh_plugin import __version__

    lines = job.container.output().splitlines()
    # The supervisor writes lines of its own between those of the job, or after them.
    assert f"[] {__version__} True True" in lines
    assert any("with_ssh" in line and "submits" in line for line in lines)


def test_an_installed_package_comes_first(job) -> None:
    job.lay_out(source="")
    theirs = job.container.folder / "theirs" / "smssh_plugin"
    theirs.mkdir(parents=True)
    (theirs / "__init__.py").write_text("mine = True\n")
    script = job.container.script("import smssh_plugin; print(smssh_plugin.mine)")
    process = job.wrap("python", script, PYTHONPATH=theirs.parent)
    assert process.wait(LIMIT) == 0
    assert job.container.output() == "True\n"
