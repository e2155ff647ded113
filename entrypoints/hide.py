"""Takes what is ours out of the job's sight, before any code of the user's or of a toolkit looks.

The bundle comes as an input of the job. Toolkits make SM_CHANNELS and its relatives of the job's inputs, XGBoost's
image ends at one that it does not know, and scripts go through the folders. So whatever of ours runs first moves the
bundle to the private folder, takes its entry out of the job's configuration files, and removes its folder; the
folder goes last, so that the next start completes one that was cut off.

Where something of that cannot be written to (a read-only mount, another user's folder), it stays; then the
variables that toolkits make of it are filtered, in every interpreter that we are in, and the supervisor says in the
job's log what can be seen.

Runs in the job's interpreters: CPython 3.7 and later, standard library only; json would load `re`.
"""

from __future__ import annotations

import os
import time

from ..files import AtomicFile
from . import boot

TYPE_CHECKING = False  # typing itself is not imported in the job's interpreters
if TYPE_CHECKING:
    from typing import Callable, Iterator, MutableMapping

CHANNEL = "smssh"
"""The name of our input in requests (submit/request/add_ssh.py)."""
INPUTS = "inputdataconfig.json"
"""The channels of a training job by name; all toolkits read it."""
MARKS = ("smssh-manifest.json", "smssh.zip")
"""What tells our folder from an input of the user's that has its name."""
VARIABLES = ("SM_CHANNELS", "SM_INPUT_DATA_CONFIG", "SM_TRAINING_ENV")
LOCK_LIMIT = 10.0
"""Seconds that another process which is at it is waited for."""
CHUNK = 1 << 20


def hide() -> None:
    """Move the bundle, clean the configuration files, remove the folder; what cannot be done is noted."""
    run = boot.run_dir(create=True)
    if run is None or os.path.exists(os.path.join(run, boot.VISIBLE)):
        return
    lock = _lock(run)
    try:
        reasons = []
        for folder in boot.in_sight():
            if _is_ours(folder):
                reasons += clean_all()
                reasons += _move(folder, os.path.join(run, boot.MOVED))
        if reasons:
            handle = os.open(os.path.join(run, boot.VISIBLE), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.write(handle, "; ".join(reasons).encode("utf-8", "replace"))
            os.close(handle)
    finally:
        os.close(lock)
    boot.follow_move()


def discard() -> None:
    """Where the switch is off: as if a job's request had never had the bundle; nothing of it is kept."""
    for folder in boot.in_sight():
        if folder.endswith(boot.PLACES[:2]) and _is_ours(folder):
            clean_all()
            if not _why_it_stays(folder):
                _remove(folder)


def _lock(run: str) -> int:
    import fcntl

    handle = os.open(
        os.path.join(run, "hide.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
    )
    deadline = time.monotonic() + LOCK_LIMIT
    while time.monotonic() < deadline:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # noqa: PERF203 - once in a container
            time.sleep(0.01)
        else:
            break
    return handle


def _is_ours(folder: str) -> bool:
    return not os.path.islink(folder) and any(os.path.isfile(os.path.join(folder, name)) for name in MARKS)


# ---------------------------------------------------------------------------------------------- the folder


def _move(folder: str, target: str) -> list[str]:
    """Have the folder at another place; why that cannot be done, if it cannot.

    Args:
        folder: the input's folder.
        target: where it goes; what an earlier start has put there is replaced where it is another bundle.
    """
    reason = _why_it_stays(folder)
    if reason:
        return [f"{folder} ({reason})"]
    new = target + ".new"
    try:
        _remove(new)
        if not _same(folder, target):
            _copy(folder, new)
            _remove(target)
            os.rename(new, target)
        _remove(folder)
    except OSError as error:
        _remove(new)
        return [f"{folder} ({error.strerror or error})"]
    parent = os.path.dirname(folder)
    if os.path.basename(parent) == "additional-model-data-sources":
        try:  # noqa: SIM105 - contextlib is not imported in the job's interpreters
            os.rmdir(parent)  # it exists only because of our bundle
        except OSError:
            pass
    return []


def _why_it_stays(folder: str) -> str:
    """Why a folder cannot be removed; '' where it can."""
    parent = os.path.dirname(folder)
    if _is_mount(folder):
        return "it is a mount"  # with local mode of the SDKs, shared by all hosts
    if not (os.access(parent, os.W_OK | os.X_OK) and os.access(folder, os.W_OK | os.X_OK)):
        return "it cannot be written to"
    return ""


def _is_mount(folder: str) -> bool:
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            wanted = os.fsencode(os.path.realpath(folder)).replace(b"\\", b"\\134").replace(b" ", b"\\040")
            return any(line.split()[4] == wanted for line in file)
    except (OSError, IndexError):
        return os.path.ismount(folder)


def _same(folder: str, target: str) -> bool:
    """Whether the bundle is there already, whole: an earlier start was cut off after it had moved it."""
    try:
        with open(os.path.join(folder, MARKS[0]), "rb") as one, open(
            os.path.join(target, MARKS[0]), "rb"
        ) as other:
            return one.read() == other.read()
    except OSError:
        # Without a manifest here there is nothing to compare; what is there came as a whole.
        return os.path.isdir(target) and not os.path.exists(os.path.join(folder, MARKS[0]))


def _copy(folder: str, target: str) -> None:
    """Copy a tree; shutil would take longer to import than this takes."""
    os.mkdir(target, 0o700)
    for entry in os.scandir(folder):
        path = os.path.join(target, entry.name)
        if entry.is_dir(follow_symlinks=False):
            if entry.name != "__pycache__":
                _copy(entry.path, path)
        elif entry.is_file(follow_symlinks=False):
            _copy_file(entry.path, path)


def _copy_file(path: str, target: str) -> None:
    with open(path, "rb") as source, open(target, "wb") as out:
        data = source.read(CHUNK)
        while data:
            out.write(data)
            data = source.read(CHUNK)


def _remove(path: str) -> None:
    """Remove a tree, what tells that it is ours last; another interpreter may still write into its __pycache__."""
    for attempt in range(20):
        try:
            entries = sorted(os.scandir(path), key=lambda entry: entry.name in MARKS)
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    _remove(entry.path)
                else:
                    os.unlink(entry.path)
            os.rmdir(path)
        except FileNotFoundError:  # noqa: PERF203 - once in a container
            if not os.path.lexists(path):
                return
        except OSError:
            if attempt == 19:
                raise
            time.sleep(0.005)
        else:
            return


# ------------------------------------------------------------------------------- the configuration files


def clean_all() -> list[str]:
    """Take our entries out of the job's configuration files; which of them have to stay, and why."""
    reasons = []
    base = boot.base_dir()
    for folder in (base + "/input/config", base + "/config"):
        try:
            names = sorted(name for name in os.listdir(folder) if name.endswith(".json"))
        except OSError:
            continue
        for name in names:
            path = os.path.join(folder, name)
            try:
                _clean(path, name == INPUTS)
            except (OSError, ValueError, IndexError) as error:
                reasons.append(f"{path} ({getattr(error, 'strerror', None) or error})")
    return reasons


def _clean(path: str, inputs: bool) -> None:
    with open(path, "rb") as file:
        data = file.read()
        status = os.fstat(file.fileno())
    if b"smssh" not in data.lower():
        return
    text = data.decode("utf-8", "surrogateescape")
    cleaned = without_ours(text, inputs)
    if cleaned == text:
        return
    with AtomicFile(path, status.st_mode & 0o7777) as out:
        out.write(cleaned.encode("utf-8", "surrogateescape"))
        out.flush()
        if os.geteuid() == 0:
            os.fchown(out.fileno(), status.st_uid, status.st_gid)
        os.utime(out.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))


def without_ours(text: str, inputs: bool = False) -> str:
    """A configuration file without what we added to the request; all else stays as it is, to the byte.

    Args:
        text: JSON: the channels by name, or a job's whole configuration.
        inputs: whether it is the channels by name.

    Raises:
        ValueError, IndexError: it is not JSON.
    """
    cuts: list[tuple[int, int]] = []
    top = list(_members(text, _space(text, 0)))
    if inputs:
        cuts += _without(top, lambda key, _: key == CHANNEL)
    for key, _, start, _ in top:
        if key in ("InputDataConfig", "ProcessingInputs"):
            cuts += _without(list(_members(text, start)), lambda _, at: _names_us(text, at))
        elif key == "Environment":
            cuts += _without(list(_members(text, start)), lambda key, at: _is_variable(key, _word(text, at)))
        elif key in ("AlgorithmSpecification", "AppSpecification"):
            members = _members(text, start)
            entry_points = [at for member, _, at, _ in members if member == "ContainerEntrypoint"]
            cuts += [cut for at in entry_points for cut in _unwrapped(text, at)]
    return _cut(text, cuts)


def _cut(text: str, cuts: list[tuple[int, int]]) -> str:
    for start, end in sorted(cuts, reverse=True):
        text = text[:start] + text[end:]
    return text


def _names_us(text: str, at: int) -> bool:
    names = ("ChannelName", "InputName")
    return any(key in names and _word(text, start) == CHANNEL for key, _, start, _ in _members(text, at))


def _is_variable(name: str | None, value: str) -> bool:
    """Whether a variable of the request is ours alone."""
    parts = value.split(":")
    return str(name).startswith("SMSSH_") or (
        name in ("PYTHONPATH", "BASH_ENV") and all(boot.is_place(part) for part in parts)
    )


def _unwrapped(text: str, at: int) -> list[tuple[int, int]]:
    """What to cut off the front of an entry point that is wrapped (submit/request/launchers.py)."""
    words = list(_members(text, at))
    for number, (_, _, start, _) in enumerate(words[:-2]):
        if boot.is_place(_word(text, start)):
            return [(words[0][1], words[number + 2][1])]  # the folder, and the digest behind it
    return []


def _without(
    members: list[tuple[str | None, int, int, int]], unwanted: Callable[[str | None, int], bool]
) -> list[tuple[int, int]]:
    """What to cut so that members go, each with one comma.

    Args:
        members: see `_members`.
        unwanted: asked with the key and the place of the value.
    """
    gone = [unwanted(key, start) for key, _, start, _ in members]
    kept = [index for index, each in enumerate(gone) if not each]
    cuts = []
    for index in [index for index, each in enumerate(gone) if each]:
        if kept and index > kept[-1]:
            cuts.append((members[index - 1][3], members[index][3]))
        elif index + 1 < len(members):
            cuts.append((members[index][1], members[index + 1][1]))
        else:
            cuts.append((members[index][1], members[index][3]))
    return cuts


def _members(text: str, at: int) -> Iterator[tuple[str | None, int, int, int]]:
    """The members of an object or a list: key, where it begins, where its value begins, where that ends.

    Nothing where the value is neither.
    """
    if text[at] not in "{[":
        return
    closing = "}" if text[at] == "{" else "]"
    at = _space(text, at + 1)
    while text[at] != closing:
        key, begins = None, at
        if closing == "}":
            end = _end(text, at)
            key = _word(text, at)
            at = _space(text, end)
            if text[at] != ":":
                raise ValueError("no JSON")
            at = _space(text, at + 1)
        end = _end(text, at)
        yield key, begins, at, end
        at = _space(text, end)
        if text[at] == ",":
            at = _space(text, at + 1)
        elif text[at] != closing:
            raise ValueError("no JSON")


def _word(text: str, at: int) -> str:
    """A string of JSON; what it would be if it needed no escapes but those of slashes. '' for other values."""
    return text[at + 1 : _end(text, at) - 1].replace("\\/", "/") if text[at] == '"' else ""


def _space(text: str, at: int) -> int:
    while text[at] in " \t\r\n":
        at += 1
    return at


def _end(text: str, at: int) -> int:
    """Where a value ends."""
    depth = 0
    while True:
        letter = text[at]
        if not depth and letter not in '"{[]}':
            while text[at] not in ",]} \t\r\n":
                at += 1
            return at
        if letter == '"':
            at += 1
            while text[at] != '"':
                at += 2 if text[at] == "\\" else 1
        elif letter in "{[":
            depth += 1
        elif letter in "}]":
            depth -= 1
        at += 1
        if depth <= 0:
            return at


# --------------------------------------------------------------------------------------- the environment


def filter_environment(environ: MutableMapping[str, str]) -> None:
    """Take our channel out of what the toolkits tell a script, where it could not be taken out of what they read.

    Args:
        environ: the environment; it is changed.
    """
    environ.pop(boot.SM_CHANNEL, None)
    for name in VARIABLES:
        try:
            if CHANNEL in environ.get(name, ""):
                environ[name] = _filtered(environ[name])
        except (ValueError, IndexError) as error:  # noqa: PERF203 - three of them
            boot.note(f"{name} is as it was: {error}")


def _filtered(text: str) -> str:
    cuts: list[tuple[int, int]] = []
    top = list(_members(text, _space(text, 0)))
    cuts += _without(top, lambda key, at: key == CHANNEL or (key is None and _word(text, at) == CHANNEL))
    for key, _, start, _ in top:
        if key in ("channel_input_dirs", "input_data_config"):
            cuts += _without(list(_members(text, start)), lambda key, _: key == CHANNEL)
    return _cut(text, cuts)


def inputs_in_sight() -> bool:
    """Whether the file that toolkits read our channel from still names it."""
    if not boot.visible():
        return False
    try:
        with open(f"{boot.base_dir()}/input/config/{INPUTS}", "rb") as file:
            return b'"smssh"' in file.read()
    except OSError:
        return False
