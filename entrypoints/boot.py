"""Boot: decide whether anything happens at all, take the container's lock, start the supervisor.

Launchers that run in the job's interpreter call `start`, the others `start_supervisor`. It runs in the user's
interpreters, so: CPython 3.7 and later, standard library
only, nothing imported before the decision, nothing printed, no threads, no children left behind, and it
never raises.

The module is imported in two ways: as `smssh_plugin.entrypoints.boot` where the package is installed, and
by `sitecustomize.py` straight out of the bundle's smssh.zip, below a private package `_smssh`, so that the
job's interpreters see neither a new entry on sys.path nor a `smssh_plugin` that hides the image's own.
`load` works either way.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # typing itself is not imported in the job's interpreters
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from threading import ExceptHookArgs
    from types import ModuleType, TracebackType
    from typing import Iterator, Mapping, MutableMapping, Sequence

ENABLE = "SMSSH_ENABLE"
OLD_ENABLE = "START_SSH"
"""sagemaker-ssh-helper's switch: `true` turns us on where ours is not set at all."""
RUN_DIR = "SMSSH_RUN_DIR"
BUNDLE = "SMSSH_BUNDLE"
JOB_PREFIX = "SMSSH_JOB_"
"""Where the supervisor finds the variables of the job that it must not run with itself."""

PLACES = (
    "/input/data/smssh",
    "/processing/smssh",
    "/additional-model-data-sources/smssh",
    "/model/code/smssh",
)
"""Where a request mounts the bundle, below /opt/ml (submit/request/launchers.py)."""
MOVED = "bundle"
"""Where `hide` moves it, below the private folder."""
VISIBLE = "visible"
"""The file of the private folder that says what of ours could not be taken out of the job's sight."""
PRIVATE = "/run/smssh"
"""The private folder, where it can be made. Requests name the bundle in it as well as the one in the channel."""
SM_CHANNEL = "SM_CHANNEL_SMSSH"
"""What toolkits tell a script of the bundle's channel."""

MARKER = "_smssh_boot"
"""The name in sys.modules that says: boot has run in this interpreter."""

TOOLKIT_PROGRAMS = frozenset(["train", "serve"])
TOOLKIT_MAINS = (
    b"sagemaker_training.cli.train",
    b"sagemaker_containers.cli.train",
    b"'sagemaker-training==",  # setuptools names the distribution instead
    b"'sagemaker-containers==",
)
"""What the console script `train` of a training toolkit contains."""
CONSOLE_SCRIPT_LIMIT = 4096
"""Bytes read to tell it from an image's own program `train`."""
PROGRAMS = TOOLKIT_PROGRAMS | frozenset(
    ["smspark-submit", "multi-model-server", "mxnet-model-server", "torchserve"]
)
IGNORED_PROGRAMS = ("pip", "deep_learning_container", "smssh", "smssh-hook", "conda", "uv")
IGNORED_MODULES = (
    "pip",
    "ensurepip",
    "venv",
    "virtualenv",
    "site",
    "sysconfig",
    "compileall",
    "smssh_plugin",
)
DRIVER_MODULES = (
    "sagemaker.remote_function",
    "sagemaker.train.remote_function",
    "sagemaker.core.remote_function",
)
SHELLS = frozenset(["sh", "bash", "dash", "ash", "busybox", "ksh", "zsh"])
INT_BIT = 1 << 1
"""SIGINT, signal 2, in the masks of /proc/PID/status (proc(5))."""
LONG_WITH_VALUE = "--check-hash-based-pycs"
"""The only long option of Python's that has one, in the next word."""

TRACEBACK_LIMIT = 65536
"""Characters of one traceback; of its last line, see ERROR_LIMIT."""
ERROR_LIMIT = 2000
WORD_LIMIT = 500
"""Characters of one word of a recorded command line, of which WORDS_LIMIT are kept."""
WORDS_LIMIT = 50
THREADS_LIMIT = 8
"""Exceptions of threads that are recorded of one process."""
RECORDS_LIMIT = 64
"""Tracebacks that are kept: a job may start thousands of processes that fail."""

_booted = False
_registered = 0
"""The process at whose exit the job is over, where neither init nor the toolkit's import hook says when that is."""
_bundle: str | None = None
forced_exit: int | None = None
"""The exit status that a release chose, where the toolkit would end with another one."""


def start(launcher: str = "start", bundle: str | None = None) -> None:
    """Do what this interpreter needs; return at once unless we are turned on.

    Args:
        launcher: which launcher calls, for the log.
        bundle: the folder of the bundle, if the launcher comes from one.
    """
    if not enabled(os.environ):
        return
    try:
        this = sys.modules[__name__]
        # A .pth runs twice in a virtual environment, and a baked image may be given the bundle as well.
        if sys.modules.setdefault(MARKER, this) is this and not _booted:
            _boot(launcher, bundle)
    except BaseException as error:  # noqa: BLE001 - the job goes on, whatever is wrong with us
        note(f"boot failed: {type(error).__name__}: {error}")


def enabled(environ: Mapping[str, str]) -> bool:
    """Whether an environment turns us on."""
    return environ.get(ENABLE) == "1" or (ENABLE not in environ and environ.get(OLD_ENABLE) == "true")


def _boot(launcher: str, bundle: str | None) -> None:
    global _booted, _bundle, _registered  # noqa: PLW0603 - once in an interpreter
    _booted = True
    _bundle = bundle
    if code_path():
        sys.meta_path.append(Finder)
    if SM_CHANNEL in os.environ and visible():
        load("hide").filter_environment(os.environ)
    arguments = own_command()
    kind = classify(arguments)
    if launcher == "pth" or _finds_moved():
        move_bundle()
    if kind == "ignore":
        return
    what, path = program(arguments)
    name = os.path.basename(path)
    record_tracebacks()
    if name in TOOLKIT_PROGRAMS:
        load("toolkit").install()
    entry = entry_process()
    if kind != "start" and not is_entry_point(entry):
        return
    move_bundle()
    toolkit_holds = what == "script" and name == "train" and is_toolkits(path)  # by the toolkit's import hook
    won = start_supervisor(launcher, entry, holder=toolkit_holds)
    run = run_dir()
    if run is not None:
        # For what this process starts with another TMPDIR: it would look elsewhere, and start a second one.
        os.environ[RUN_DIR] = run
    if won and (name in TOOLKIT_PROGRAMS or entry == os.getpid()):  # else init says when the job is over
        import atexit

        # Registered before anything of the job is: so it runs last.
        atexit.register(end_job, os.getpid())
        _registered = os.getpid()
    if won and not toolkit_holds:
        load("reexec").at_start(arguments, name in PROGRAMS or entry == os.getpid())


def end_job(pid: int) -> None:
    """Let the supervisor deregister before the container dies with this process.

    Args:
        pid: the process that ends the job; nothing happens in a fork of it that runs its exit handlers.
    """
    if os.getpid() != pid:
        return
    try:
        load("supervisor_client").end()
    except BaseException as error:  # noqa: BLE001 - the job goes on, whatever is wrong with us
        note(f"end failed: {type(error).__name__}: {error}")
    if forced_exit is not None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(forced_exit)


def end_before_exit() -> None:
    """What the exit handler does, for a toolkit that ends with os._exit."""
    if _registered:
        end_job(_registered)


# ---------------------------------------------------------------------------------- the bundle, moved


def base_dir() -> str:
    """The folder that is /opt/ml in a container."""
    return os.environ.get("SAGEMAKER_BASE_DIR") or "/opt/ml"


def in_sight() -> list[str]:
    """The places of a bundle, as requests name them, where something is."""
    return [base_dir() + place for place in PLACES if os.path.lexists(base_dir() + place)]


def is_place(path: str) -> bool:
    """Whether a path is one where requests say that the bundle is, or below it."""
    return any(_below(path, root) for root in _roots())


def _roots() -> list[str]:
    return [base_dir() + place for place in PLACES] + [f"{PRIVATE}/{MOVED}"]


def move_bundle() -> None:
    """Have the bundle out of the job's sight, see `hide`, and go on with it where it is then; never raises."""
    try:
        if in_sight():
            load("hide").hide()
        elif not os.path.exists(_named_bundle() or os.curdir):
            follow_move()  # another process has moved it meanwhile
    except Exception as error:  # noqa: BLE001 - the job goes on, whatever is wrong with us
        note(f"the bundle is where it was: {type(error).__name__}: {error}")


def _finds_moved() -> bool:
    """Whether processes that have PYTHONPATH from the request find the bundle once it is moved."""
    run = run_dir(create=True) if in_sight() else None
    return run is not None and f"{run}/{MOVED}" in sys.path


def visible() -> bool:
    """Whether the job can see what of ours could not be taken away, see `hide`."""
    run = run_dir()
    return run is not None and os.path.exists(os.path.join(run, VISIBLE))


def moved_bundle() -> str | None:
    """The folder that the bundle was moved to; None before."""
    run = run_dir()
    folder = f"{run}/{MOVED}"
    return folder if run is not None and os.path.isdir(folder) else None


def follow_move() -> None:
    """Have this process, and what it starts, find everything of the bundle where it was moved to."""
    global _bundle  # noqa: PLW0603 - one bundle in an interpreter
    new = moved_bundle()
    if new is None:
        return
    if _bundle is not None:
        _bundle = _moved_path(_bundle, new)
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in ("_smssh", MARKER, "smssh_plugin", "smssh_chain", "sitecustomize"):
            if getattr(module, "__file__", None):
                module.__file__ = _moved_path(str(module.__file__), new)
            if isinstance(getattr(module, "__path__", None), list):
                module.__path__[:] = [_moved_path(each, new) for each in module.__path__]
    path = [_moved_path(each, new) if isinstance(each, str) else each for each in sys.path]
    sys.path[:] = [
        each for index, each in enumerate(path) if each not in path[:index] or not _below(each, new)
    ]
    update_variables(os.environ)


def update_variables(environ: MutableMapping[str, str]) -> None:
    """Have the variables that name the bundle name the folder that it was moved to.

    Args:
        environ: an environment; it is changed.
    """
    new = moved_bundle()
    if new is None:
        return
    for name in ("PYTHONPATH", BUNDLE, "BASH_ENV"):
        value = environ.get(name, "")
        if "smssh" in value:
            parts = [_moved_path(part, new) for part in value.split(os.pathsep)]
            parts = [
                part for index, part in enumerate(parts) if part not in parts[:index] or not _below(part, new)
            ]
            environ[name] = os.pathsep.join(parts)


def moved_path(path: str) -> str:
    """A path of the bundle as it is now."""
    new = moved_bundle()
    return path if new is None else _moved_path(path, new)


def _moved_path(path: str, new: str) -> str:
    """A path of the bundle as it is after the move; any other, and what is still there, as it is."""
    for root in _roots():
        if _below(path, root) and not os.path.lexists(root):
            return new + path[len(root) :]
    return path


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + "/")


# -------------------------------------------------------------------------------------- what is this process


class Finder:
    """Lets a job import `smssh_plugin` out of the bundle, where it would find none: asked last, for that one name."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:  # noqa: ARG004 - the import system's signature
        """The spec of the package; its modules are found by its own path."""
        if name != "smssh_plugin":
            return None
        from _frozen_importlib_external import PathFinder  # loaded in every interpreter

        return PathFinder.find_spec(name, [code_path()])


def own_command() -> list[str]:
    """The command line of this process; sys.argv is not complete while `site` runs."""
    with open("/proc/self/cmdline", "rb") as file:
        return [os.fsdecode(part) for part in file.read().split(b"\0")[:-1]]


def program(arguments: Sequence[str]) -> tuple[str, str]:
    """What a Python command line runs: ("script", path), ("module", name) or ("other", "")."""
    words = iter(arguments[1:])
    for word in words:
        if word == "--":
            return _script(next(words, "-"))
        if word == "-" or not word.startswith("-"):
            return _script(word)
        if word == LONG_WITH_VALUE:
            next(words, "")
        elif not word.startswith("--"):
            letter, value = _option_with_value(word, words)
            if letter == "c":
                break
            if letter == "m":
                return "module", value
    return "other", ""


def _script(word: str) -> tuple[str, str]:
    return ("other", "") if word == "-" else ("script", word)


def _option_with_value(word: str, words: Iterator[str]) -> tuple[str, str]:
    """The letter and value of the option in a word that takes one; two empty strings if there is no such option.

    As Python's own getopt: letters share a word, and a value is the rest of it or else the next word.
    """
    for place, letter in enumerate(word[1:], 2):
        if letter in "cmWX":
            return letter, word[place:] or next(words, "")
    return "", ""


def classify(arguments: Sequence[str]) -> str:
    """`start` for a process that a job begins with, `script` for another script of it, else `ignore`.

    Args:
        arguments: the command line, interpreter first, as in /proc/self/cmdline.
    """
    what, name = program(arguments)
    if what == "other" or not name:
        return "ignore"
    if what == "module":
        if name.split(".")[0] in IGNORED_MODULES:
            return "ignore"
        return "start" if name.startswith(DRIVER_MODULES) else "script"
    base = os.path.basename(name)
    if base in PROGRAMS:
        return "start"
    if os.path.splitext(base)[0].rstrip("0123456789.") in IGNORED_PROGRAMS:
        return "ignore"
    path = os.path.abspath(name)
    root = os.environ.get("SAGEMAKER_BASE_DIR") or "/opt/ml"
    folders = (
        root + "/input/data/sm_drivers/",
        root + "/input/data/code/",
        root + "/processing/input/",
        root + "/code/",
    )
    return "start" if path.startswith(folders) else "script"


def is_toolkits(path: str) -> bool:
    """Whether a program `train` is a training toolkit's; an image's own has to have that name too.

    Args:
        path: the script.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(CONSOLE_SCRIPT_LIMIT)
    except OSError:
        return False
    return any(main in text for main in TOOLKIT_MAINS)


def start_time(pid: int | str) -> int | None:
    """When the process started, in clock ticks since the machine did; None if there is no such process.

    With the process id it names a process once and for all: ids are reused, the pair is not.
    """
    try:
        fields = _stat(pid)
    except (OSError, IndexError):
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])  # a zombie runs nothing any more


def _stat(pid: int | str) -> list[bytes]:
    """The fields of /proc/PID/stat (proc(5)) after the name: state, parent, ...; `processes` is one import more."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rsplit(b")", 1)[1].split()


def boot_id() -> str:
    """The machine's boot; another one makes every process id on record void."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""


def entry_process() -> int:
    """The process that ends the job: the topmost ancestor that is turned on too."""
    pid = os.getpid()
    wanted = {ENABLE.encode() + b"=1", OLD_ENABLE.encode() + b"=true"}
    while pid != 1:
        try:
            parent = int(_stat(pid)[1])
            with open(f"/proc/{parent}/environ", "rb") as file:
                if parent == 0 or wanted.isdisjoint(file.read().split(b"\0")):
                    break
        except (OSError, IndexError, ValueError):
            break
        pid = parent
    return pid


def is_entry_point(entry: int) -> bool:
    """Whether this is an image's own entry point: the container's first process, or what its shell waits for.

    Args:
        entry: see `entry_process`.
    """
    if entry == os.getpid():
        return True
    try:
        if entry != os.getppid() or os.path.basename(os.readlink(f"/proc/{entry}/exe")) not in SHELLS:
            return False
        # A shell without job control starts what it does not wait for with SIGINT ignored (POSIX, 2.11).
        return not _ignores_interrupt("self") or _ignores_interrupt(entry)
    except OSError:
        return False


def _ignores_interrupt(pid: int | str) -> bool:
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith("SigIgn:"):
                return bool(int(line.split()[1], 16) & INT_BIT)
    return False


# --------------------------------------------------------------------------------------- run folder and lock


def run_dir_candidates(environ: Mapping[str, str] | None = None) -> list[str]:
    """Where the container's private folder may be, best first."""
    environ = os.environ if environ is None else environ
    if environ.get(RUN_DIR):
        return [environ[RUN_DIR]]
    private = f"smssh-{os.geteuid()}"
    return [PRIVATE, os.path.join(environ.get("TMPDIR") or "/tmp", private)]  # noqa: S108 - checked by _private


def run_dir(create: bool = False) -> str | None:
    """The container's private folder, or None if it does not exist (or, with `create`, cannot be made).

    A folder of another user is never used, nor one behind a link, nor one where no program can be started.
    """
    for path in run_dir_candidates():
        if create:
            try:  # noqa: SIM105 - contextlib is not imported in the job's interpreters
                os.mkdir(path, 0o700)
            except OSError:
                pass
        if _private(path):
            return path
        if create and os.geteuid() != 0 and _is_roots_folder(path):
            # Root's supervisor serves this container already; a second one is not wanted.
            return None
    return None


def _is_roots_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path) and os.lstat(path).st_uid == 0


def _private(path: str) -> bool:
    try:
        status = os.lstat(path)
        flags = os.statvfs(path).f_flag
    except OSError:
        return False
    is_folder = (status.st_mode & 0o170000) == 0o040000
    is_ours = status.st_uid == os.geteuid() and not status.st_mode & 0o077
    return is_folder and is_ours and not flags & getattr(os, "ST_NOEXEC", 8)


def take_lock(run: str) -> int | None:
    """The lock's descriptor if this process may start the supervisor, else None.

    The supervisor inherits the descriptor and holds the lock while it lives, so there is no moment between.
    A file that is free but names a live process belongs to a start that failed: not every rank tries it
    once more.
    """
    import fcntl

    handle = os.open(os.path.join(run, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    try:
        owner = os.pread(handle, 4096, 0).decode("ascii", "replace").split()
        if len(owner) >= 3 and owner[2] == boot_id() and str(start_time(owner[0])) == owner[1]:
            os.close(handle)
            return None
        write_lock(handle, os.getpid())
    except BaseException:
        os.close(handle)
        raise
    return handle


def write_lock(handle: int, pid: int) -> None:
    """Write the owner into the lock file: pid, start time, boot."""
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"{pid} {start_time(pid)} {boot_id()}\n".encode("ascii"), 0)


# ---------------------------------------------------------------------------------------- supervisor


def code_path() -> str:
    """What PYTHONPATH must be to import smssh_plugin: the bundle's zip; '' where it is installed."""
    here = os.path.abspath(__file__)
    end = here.find(".zip" + os.sep)
    return here[: end + 4] if end >= 0 else ""


def interpreter() -> str | None:
    """A Python that can run the supervisor: this one from 3.8 on, else (bundle only) any on the PATH."""
    if sys.version_info >= (3, 8) and sys.executable:
        return sys.executable
    if not code_path():
        return None
    import shutil
    import subprocess

    for name in [f"python3.{minor}" for minor in range(14, 7, -1)] + ["python3"]:
        path = shutil.which(name)
        check = "import sys; sys.exit(sys.version_info < (3, 8))"
        if path and subprocess.call([path, "-I", "-S", "-c", check], stderr=subprocess.DEVNULL) == 0:
            return path
    return None


def supervisor_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The supervisor's environment: the job's, without what changes the interpreter or starts us a second time."""
    scrubbed = {}
    for name, value in environ.items():
        if name == ENABLE:
            continue
        apart = name.startswith("PYTHON") or name in (OLD_ENABLE, "LD_PRELOAD", "BASH_ENV", "ENV")
        scrubbed[JOB_PREFIX + name if apart else name] = value
    if code_path():
        scrubbed["PYTHONPATH"] = code_path()
    return scrubbed


def start_supervisor(
    launcher: str,
    entry: int,
    environ: Mapping[str, str] | None = None,
    *,
    holder: bool = False,
    digest: str = "",
) -> bool:
    """Start the supervisor if no other process has; True if this call did.

    Args:
        launcher: which launcher calls, for the log.
        entry: id of the process that ends the job.
        environ: the job's environment; os.environ when left out.
        holder: whether the starter is going to be there when the entry point ends, so that it can hold the job.
        digest: the SHA-256 of the bundle's manifest, where the request says it.
    """
    run = run_dir(create=True)
    if run is None:
        return False
    lock = take_lock(run)
    if lock is None:
        return False
    try:
        python = interpreter()
        if python is None:
            note("no Python 3.8 or later for the supervisor")
            return False
        command = [python, "-m", "smssh_plugin.supervisor.main"]
        command += ["--run", run, "--lock", str(lock), "--entry", str(entry), "--launcher", launcher]
        command += ["--output", output_identity(f"/proc/{entry}/fd/1")]
        command += ["--bundle", bundle_dir() or "", "--digest", digest, *(["--holder"] if holder else [])]
        _spawn_detached(
            command, supervisor_environment(os.environ if environ is None else environ), run, lock
        )
    finally:
        os.close(lock)
    return True


def output_identity(file: int | str) -> str:
    """Device and inode of an open file, as text; "" where that cannot be told.

    Args:
        file: a descriptor, or its path below /proc.
    """
    try:
        status = os.stat(file)
    except OSError:
        return ""
    return f"{status.st_dev}:{status.st_ino}"


def bundle_dir() -> str | None:
    """The folder of the bundle, or None if there is no bundle."""
    named = _named_bundle()
    return moved_path(named) if named else None


def _named_bundle() -> str | None:
    return _bundle or os.path.dirname(code_path()) or os.environ.get(BUNDLE) or None


def _spawn_detached(command: list[str], environ: Mapping[str, str], run: str, lock: int) -> None:
    """Run a command detached from this process, in its own session, with no descriptor of ours but the lock."""
    child = os.fork()
    if child:
        try:  # noqa: SIM105 - contextlib would only be imported for this
            os.waitpid(child, 0)
        except ChildProcessError:
            pass  # reaped by the kernel: SIGCHLD is ignored here
        return
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.chdir(run)  # `-m` looks there first: in `/` an image may have a json.py of its own
        os.umask(0o077)
        null = os.open(os.devnull, os.O_RDONLY)
        log = os.open(os.path.join(run, "supervisor.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(null, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        limit = min(os.sysconf("SC_OPEN_MAX"), 65536) if os.sysconf("SC_OPEN_MAX") > 0 else 65536
        os.closerange(3, lock)
        os.closerange(lock + 1, limit)
        os.set_inheritable(lock, True)
        import signal

        for number in range(1, signal.NSIG):
            try:
                signal.signal(number, signal.SIG_DFL)
            except (OSError, ValueError, RuntimeError):  # noqa: PERF203 - not every number is a signal
                continue
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.execve(command[0], command, environ)  # noqa: S606 - no shell is wanted
    except BaseException:  # noqa: BLE001 - the job goes on, whatever is wrong with us
        os._exit(127)
    os._exit(127)


# -------------------------------------------------------------------------------- tracebacks, modules, notes


def record_tracebacks() -> None:
    """Keep the text of an uncaught exception for the report; what is printed stays the same."""
    original = sys.excepthook
    # Libraries look whether the hook is Python's own before they set theirs, and theirs calls this one.
    untouched = original is sys.__excepthook__

    def smssh_excepthook(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        try:
            _record(kind, error, trace)
        except BaseException as problem:  # noqa: BLE001 - the job goes on, whatever is wrong with us
            note(f"traceback not recorded: {problem}")
        original(kind, error, trace)

    sys.excepthook = smssh_excepthook
    if untouched:
        sys.__excepthook__ = smssh_excepthook
    _record_threads()


def _record_threads() -> None:
    """The same for what ends a thread, from Python 3.8 on.

    `threading` takes its hook from the built-in module when it is imported, which is not done here.
    """
    import _thread

    original = getattr(_thread, "_excepthook", None)
    if original is None:
        return
    left = list(range(THREADS_LIMIT))

    def smssh_thread_excepthook(args: ExceptHookArgs) -> None:
        try:
            if left and not issubclass(args.exc_type, SystemExit):
                number = left.pop(0)
                name = str(getattr(args.thread, "name", "")) or "unknown"
                _record(args.exc_type, args.exc_value, args.exc_traceback, name, f"-{number}")
        except BaseException as problem:  # noqa: BLE001 - the job goes on, whatever is wrong with us
            note(f"traceback not recorded: {problem}")
        original(args)

    _thread._excepthook = smssh_thread_excepthook  # noqa: SLF001 - that is where threading takes it from
    threading = sys.modules.get("threading")  # some images import it before us
    if threading is not None:
        for name in ("excepthook", "__excepthook__"):
            if getattr(threading, name, None) is original:
                setattr(threading, name, smssh_thread_excepthook)


def _record(
    kind: type[BaseException],
    error: BaseException | None,
    trace: TracebackType | None,
    thread: str = "",
    suffix: str = "",
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    run = run_dir()
    if run is None:
        return
    import json
    import time
    import traceback

    command = own_command()
    own = start_time(os.getpid()) or 0
    now = time.time()
    record = {
        "pid": os.getpid(),
        "began": now - (time.clock_gettime(time.CLOCK_BOOTTIME) - own / os.sysconf("SC_CLK_TCK")),
        "lineage": _lineage(),
        "time": now,
        "command": [word[-WORD_LIMIT:] for word in command[:WORDS_LIMIT]],
        "program": program(command)[1][-WORD_LIMIT:],
        "error": "".join(traceback.format_exception_only(kind, error)).strip()[-ERROR_LIMIT:],
        "traceback": "".join(traceback.format_exception(kind, error, trace))[-TRACEBACK_LIMIT:],
        "thread": thread[:WORD_LIMIT],
    }
    _make_room(run)
    path = os.path.join(run, f"traceback-{os.getpid()}{suffix}.json")
    with open(path + ".new", "w", opener=_private_file) as file:  # `files` is one import more
        json.dump(record, file)
    os.rename(path + ".new", path)


def _lineage() -> list[str]:
    """The processes from here up to the container's first: `PID:START`, which names a process once and for all."""
    found = []
    pid = os.getpid()
    while pid > 0:
        found.append(f"{pid}:{start_time(pid)}")
        try:
            pid = int(_stat(pid)[1])
        except (OSError, IndexError, ValueError):
            break
    return found


def _make_room(run: str) -> None:
    """Keep the number of records bounded: the first ones may be ranks', the last ones what ended the job."""
    paths = [os.path.join(run, name) for name in os.listdir(run) if name.startswith("traceback-")]
    if len(paths) < RECORDS_LIMIT:
        return
    try:
        paths.sort(key=os.path.getmtime)
        for path in paths[RECORDS_LIMIT // 2 : RECORDS_LIMIT // 2 + 1 + len(paths) - RECORDS_LIMIT]:
            os.unlink(path)
    except OSError:
        pass  # another process is making room


def _private_file(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def load(name: str) -> ModuleType:
    """A module beside this one."""
    whole = f"{__package__}.{name}"
    __import__(whole)  # the importlib package is not imported in the job's interpreters
    return sys.modules[whole]


def note(message: str) -> None:
    """One line into boot's log, if there is a place for one."""
    try:
        run = run_dir()
        if run is not None:
            with open(os.path.join(run, "boot.log"), "a", opener=_private_file) as file:
                file.write(f"{os.getpid()} {message}\n")
    except BaseException:  # noqa: BLE001, S110 - the job goes on, whatever is wrong with us
        pass
