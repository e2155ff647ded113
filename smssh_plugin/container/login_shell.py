"""What every login gets, whichever server lets it in: environment, folder, shell; and host key and free port.

Both servers run one script, `session`, for every shell and command. It takes the job's environment from a
private file (never from a command line, which others can read), so that whatever the image's start files do
to PATH, or print, reaches neither a command nor a copy, and is put right before an interactive prompt.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import socket
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Mapping, Sequence

from ..errors import SmsshError
from ..files import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from ..hookspecs import Context

__all__ = [
    "SFTP_SERVERS",
    "account",
    "environment",
    "free_ports",
    "home",
    "host_key",
    "interpreter_dir",
    "quoted",
    "session_command",
    "sftp_server",
    "ssh_dir",
    "wait_for_banner",
    "write_files",
]

SFTP_SERVERS = (
    "/usr/lib/openssh/sftp-server",  # Debian, Ubuntu
    "/usr/libexec/openssh/sftp-server",  # Amazon Linux, RHEL, Fedora
    "/usr/lib/ssh/sftp-server",  # Alpine, SUSE, Arch
    "/usr/libexec/sftp-server",
)
"""Where OpenSSH's packages put it; conda's is found beside its sshd."""
OWN = (
    *("USER", "LOGNAME", "SHELL", "MAIL", "TERM", "LINES", "COLUMNS", "PWD", "OLDPWD", "SHLVL", "_"),
    *("SSH_CLIENT", "SSH_CONNECTION", "SSH_TTY", "SSH_AUTH_SOCK", "SSH_ORIGINAL_COMMAND", "PROMPT_COMMAND"),
)
"""Variables that each login has of its own."""
SHELLS_OWN = frozenset(("BASHOPTS", "SHELLOPTS", "BASH_VERSINFO", "EUID", "PPID", "UID", "IFS"))
"""Variables that bash, which may be /bin/sh, refuses to have set (and ends)."""

# The rest of what a job may have in its environment and a shell has in another meaning: zsh and fish.
_NOT_TWICE = (
    "GID EGID USERNAME RANDOM SECONDS LINENO HISTCMD FUNCNAME GROUPS DIRSTACK OPTIND ARGC TTYIDLE status path "
    "fpath cdpath manpath mailpath module_path psvar watch argv prompt signals pipestatus options functions "
    "aliases history version hostname pid fish_pid FISH_VERSION umask"
)

SESSION = """\
# smssh: every login of this job begins here, in place of the account's shell.
umask 022
if [ $# -gt 0 ]; then # the key's own command, in place of the client's, which it may look at
    smssh_command=$1
else
    [ -z "${{SSH_ORIGINAL_COMMAND+x}}" ] || smssh_command=$SSH_ORIGINAL_COMMAND
    unset SSH_ORIGINAL_COMMAND
fi
[ -n "${{SHELL-}}" ] || SHELL=/bin/sh
export SHELL
unset HOME PATH SHLVL ENV BASH_ENV
# What the client sent stays, and is not set again by `login`.
SMSSH_SENT=' '
smssh_set() {{
    if eval "[ -n \\"\\${{$1+x}}\\" ]"; then SMSSH_SENT="$SMSSH_SENT$1 "; else export "$1=$2"; fi
}}
[ ! -r {environment} ] || . {environment}
# The job's code is kept as it is before somebody may change it; what only asks or decides does not.
if [ ! -e {kept} ]; then
    case ${{smssh_command-}} in
        'smssh-hook '*[!A-Za-z0-9\\ =-]*) {hook} logged-in </dev/null >/dev/null 2>&1 ;;
        'smssh-hook '*) ;;
        *) {hook} logged-in </dev/null >/dev/null 2>&1 ;;
    esac
fi
cd "$HOME" 2>/dev/null || cd /
if [ -n "${{smssh_command+x}}" ]; then
    {sftp}
    # bash reads ~/.bashrc for the commands of an SSH server, unless it thinks that it runs below another shell.
    export SHLVL=1
    exec "$SHELL" -c "$smssh_command"
fi
cd {code} 2>/dev/null
if [ ! -t 0 ]; then # a script on the standard input
    export SHLVL=1
    exec "$SHELL"
fi
export SMSSH_SENT
case ${{SHELL##*/}} in
    bash) exec "$SHELL" --rcfile {folder}/bashrc -i ;;
    zsh)
        [ -z "${{ZDOTDIR+x}}" ] || export SMSSH_ZDOTDIR="$ZDOTDIR"
        export ZDOTDIR={folder}
        exec "$SHELL" -l ;;
    fish) exec "$SHELL" -l -C 'source "$SMSSH_RUN_DIR/ssh/login.fish"' ;;
    sh | dash | ash | busybox | ksh* | mksh | yash)
        export ENV={folder}/login
        exec "$SHELL" -l ;;
esac
unset SMSSH_SENT
exec "$SHELL"
"""
LOGIN = """\
# smssh: run once, after the start files of an interactive login and before its first prompt.
unset ENV
smssh_set() {{
    case "$SMSSH_SENT {not_twice} " in *" $1 "*) ;; *) export "$1=$2" ;; esac
}}
[ ! -r {environment} ] || . {environment}
unset -f smssh_set
unset SMSSH_SENT
cd {code} 2>/dev/null || :
"""
BASHRC = """\
# smssh: what bash reads as a login shell, and then what must be so whatever was read.
[ ! -r /etc/profile ] || . /etc/profile
for smssh_file in ~/.bash_profile ~/.bash_login ~/.profile; do
    [ -r "$smssh_file" ] && {{ . "$smssh_file"; break; }}
done
unset smssh_file
. {folder}/login
"""
ZSHENV = """\
# smssh: as if ZDOTDIR had never been changed; before the first prompt, `login` runs.
if [[ -n ${{SMSSH_ZDOTDIR+x}} ]]; then export ZDOTDIR=$SMSSH_ZDOTDIR; else unset ZDOTDIR; fi
unset SMSSH_ZDOTDIR
smssh_first() {{
    precmd_functions=(${{precmd_functions:#smssh_first}})
    unfunction smssh_first
    . {folder}/login
}}
typeset -ga precmd_functions
precmd_functions+=(smssh_first)
[[ ! -r ${{ZDOTDIR:-$HOME}}/.zshenv ]] || . ${{ZDOTDIR:-$HOME}}/.zshenv
"""

_lock = threading.Lock()


def ssh_dir(context: Context) -> Path:
    """The private folder of the SSH server's files."""
    folder = context.run_dir / "ssh"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def account() -> pwd.struct_passwd:
    """The account that people log in to: the one the job runs as.

    Raises:
        KeyError: the user id has no account, as in an image that is run with any id.
    """
    return pwd.getpwuid(os.geteuid())


def home(context: Context) -> str:
    """The HOME of logins: the job's, else the account's, else a private folder.

    It is the job's even where it cannot be written, because caches and configuration of the image lie there;
    but never `/`, which is what a container without a home has and nothing can be installed in.
    """
    choices = [context.environment.get("HOME", "")]
    with contextlib.suppress(KeyError):
        choices.append(account().pw_dir)
    for choice in choices:
        if choice.strip("/") and os.path.isdir(choice) and os.access(choice, os.R_OK | os.X_OK):
            return choice
    folder = context.run_dir / "home"
    folder.mkdir(mode=0o700, exist_ok=True)
    return str(folder)


def environment(context: Context, command: Sequence[str] = ()) -> dict[str, str]:
    """The variables of a login: the job's own, smssh-hook on the PATH, and where the user's code lies.

    Args:
        context: the supervisor's context.
        command: the entry point's command line, as far as it is known; `python` is to be the one that runs it.
    """
    variables = dict(context.environment)
    path = variables.get("PATH") or os.defpath
    own = str(context.run_dir / "bin")
    parts = [part for part in path.split(os.pathsep) if part != own]
    first = interpreter_dir(command, os.pathsep.join(parts))
    variables["PATH"] = os.pathsep.join([own, *([first] if first else []), *parts])
    variables["HOME"] = home(context)
    variables["SMSSH_CODE_DIR"] = context.code_dir
    variables["SMSSH_RUN_DIR"] = str(context.run_dir)
    for name in OWN:
        variables.pop(name, None)
    return variables


def interpreter_dir(command: Sequence[str], path: str) -> str | None:
    """The folder of the Python that runs a command, where `path` does not lead to it already; else None.

    Args:
        command: a command line: a Python, or a console script, whose first line names one.
        path: the PATH.
    """
    if not command or not command[0]:
        return None
    program = command[0] if "/" in command[0] else shutil.which(command[0], path=path)
    if program is None or not re.match(r"python[\d.]*\Z", os.path.basename(program)):
        program = _interpreter_of(program)
    if program is None or not os.path.isabs(program) or not os.access(program, os.X_OK):
        return None
    folder = os.path.dirname(program)
    found = shutil.which("python", path=path) or shutil.which("python3", path=path)
    # Not the files: the Python of a virtual environment is a link to another's.
    return None if found is not None and os.path.dirname(found) == folder else folder


def _interpreter_of(script: str | None) -> str | None:
    """The Python that a script's first line names by its path."""
    if script is None:
        return None
    try:
        with open(script, "rb") as file:
            line = file.readline(4096)
    except OSError:
        return None
    match = re.match(rb"#!\s*(/\S*/python[\d.]*)\s", line)
    return os.fsdecode(match.group(1)) if match else None


def write_files(context: Context, keys: Sequence[str], command: Sequence[str] = (), sftp: str = "") -> None:
    """Write the files that both servers use; logins that come later get what they say.

    Args:
        context: the supervisor's context.
        keys: the lines of authorized_keys.
        command: see `environment`.
        sftp: the program that serves SFTP; empty when the server does it itself.
    """
    folder = ssh_dir(context)
    variables = environment(context, command)
    names = {
        "folder": quoted(str(folder)),
        "environment": quoted(str(folder / "environment")),
        "code": quoted(context.code_dir),
        "kept": quoted(str(context.run_dir / "code" / "kept")),
        "hook": quoted(str(context.run_dir / "bin" / "smssh-hook")),
        "sftp": '[ "$smssh_command" != {0} ] || exec {0}'.format(quoted(sftp)) if sftp else ":",
        "not_twice": _NOT_TWICE,
    }
    files = {
        "authorized_keys": "".join(key + "\n" for key in keys),
        "environment": _assignments(variables),
        "session": SESSION.format(**names),
        "login": LOGIN.format(**names),
        "bashrc": BASHRC.format(**names),
        ".zshenv": ZSHENV.format(**names),
        "login.fish": _fish(variables, context.code_dir),
    }
    with _lock:
        for name, text in files.items():
            write_atomically(folder / name, text)


def _assignments(variables: Mapping[str, str]) -> str:
    """For a POSIX shell: smssh_set, or export, of each variable; without names that no shell can set."""
    lines = []
    for name, value in sorted(variables.items()):
        if not re.match(r"[A-Za-z_][A-Za-z0-9_]*\Z", name) or name in SHELLS_OWN:
            continue
        # Clients send these unasked, and the image hardly has the locale of somebody's laptop.
        verb = "export {}={}" if re.match(r"(LANG|LANGUAGE|LC_\w+)\Z", name) else "smssh_set {} {}"
        lines.append(verb.format(name, quoted(value)) + "\n")
    return "".join(lines)


def _fish(variables: Mapping[str, str], code: str) -> str:
    """What `login` does, for fish."""

    def literal(text: str) -> str:
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

    lines = ["set -l sent (string split ' ' -- $SMSSH_SENT)"]
    for name, value in sorted(variables.items()):
        if re.match(r"[A-Za-z_][A-Za-z0-9_]*\Z", name) and name not in {*SHELLS_OWN, *_NOT_TWICE.split()}:
            lines.append(f"contains -- {name} $sent; or set -gx {name} {literal(value)}")
    lines += ["set -e SMSSH_SENT", f"cd {literal(code)} 2>/dev/null"]
    return "\n".join(lines) + "\n"


def session_command(context: Context, forced: str | None = None) -> str:
    """The command that starts a login, in words that every shell understands.

    Args:
        context: the supervisor's context.
        forced: the only command that the login may run, whatever the client wants.
    """
    words = [str(ssh_dir(context) / "session"), *([] if forced is None else [forced])]
    return " ".join(["exec /bin/sh", *map(quoted, words)])


def sftp_server(program: str) -> str:
    """OpenSSH's SFTP server, where the image has it; else ''.

    Args:
        program: the sshd; one that was installed apart has its SFTP server near it.
    """
    prefix = os.path.dirname(os.path.dirname(os.path.realpath(program)))
    for path in (os.path.join(prefix, "libexec", "sftp-server"), *SFTP_SERVERS):
        if os.access(path, os.X_OK):
            return path
    return ""


def host_key(folder: Path) -> str:
    """The public host key: made once by ssh-keygen, as type and base64.

    Raises:
        SmsshError: there is no ssh-keygen, or it failed.
    """
    private = folder / "host_ed25519"
    if not private.exists():
        program = shutil.which("ssh-keygen")
        if program is None:
            raise SmsshError("no ssh-keygen in this image", reference="no-ssh-keygen")
        message = ""
        for kind in (("ed25519",), ("ecdsa", "-b", "256")):  # FIPS mode has no ed25519
            command = [program, "-q", "-t", *kind, "-N", "", "-C", "", "-f", str(private)]
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False
            )
            if done.returncode == 0:
                break
            message = message or done.stderr.decode("utf-8", "replace").strip()
        else:
            raise SmsshError(f"ssh-keygen failed: {message}", reference="no-host-key")
    return " ".join(private.with_suffix(".pub").read_text(encoding="ascii").split()[:2])


def free_ports(wanted: int) -> tuple[int, int]:
    """A server's port and its control port: the one that is wanted, or for 0 one that is free on loopback now."""
    with contextlib.ExitStack() as probes:
        found = []
        for _ in range(2):
            probe = probes.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            probe.bind(("127.0.0.1", 0))
            found.append(int(probe.getsockname()[1]))
    port = wanted or found[0]
    return port, next(each for each in reversed(found) if each != port)


def wait_for_banner(port: int, seconds: float) -> bool:
    """Whether an SSH server greets on the port within `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=2.0) as connection:
                if connection.recv(4) == b"SSH-":
                    return True
        except OSError:
            pass  # not listening yet
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)


def quoted(text: str) -> str:
    """For any shell; always in quotes (shlex.quote hides mistakes by leaving some bare).

    Except a backslash, which means something to fish in quotes, and `!`, which does to csh.
    """
    return "'" + re.sub(r"[\\!]", r"'\\\g<0>'", text.replace("'", "'\"'\"'")) + "'"
