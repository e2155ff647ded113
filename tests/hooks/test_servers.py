"""The SSH servers with OpenSSH's real client: what a person, scp, rsync and an IDE do."""

import contextlib
import hashlib
import json
import os
import pty
import re
import select
import socket
import subprocess
import threading
import time

import pytest

from smssh_plugin.container import openssh
from tests import needs
from tests.waiting import LIMIT, until


@pytest.fixture
def ready(container, server):
    """A running job with the server, and its status."""
    container.wrap(
        "sh", "-c", "while [ ! -e stop ]; do sleep 0.1; done", SMSSH_SSH_SERVER=server, ODD='a "b" \\c $d'
    )
    status = container.wait_for("running")
    assert status["ssh"]["server"] == server
    yield container, status
    container.script("", name="stop")
    assert container.processes[0].wait(LIMIT) == 0
    container.assert_quiet()


def test_commands(ready) -> None:
    container, status = ready
    done = container.ssh(status, "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    assert container.ssh(status, "cat", data="in").stdout == "in"
    assert container.ssh(status, "kill -9 $$").returncode == 255
    assert container.ssh(status, "no-such-command").returncode == 127
    shown = container.ssh(
        status, 'printf "%s|%s|%s" "$ODD" "$AWS_REGION" "$SMSSH_CODE_DIR"; command -v smssh-hook'
    )
    assert shown.stdout == f'a "b" \\c $d|us-east-1|{container.folder}{container.run_dir}/bin/smssh-hook\n'
    assert container.ssh(status, "env").stdout.count("SMSSH_ENABLE") == 0


def test_a_lot_of_data_both_ways(ready) -> None:
    container, status = ready
    data = os.urandom(1 << 20) * 40
    digest = hashlib.sha256(data).hexdigest()
    up = container.ssh(status, "sha256sum", data=data, text=False)
    assert up.stdout.split()[0].decode() == digest
    (container.folder / "data").write_bytes(data)
    # A slow reader: back-pressure must not cost the connection.
    reader = subprocess.Popen(
        ["ssh", *container.ssh_options(status), "127.0.0.1", f"cat {container.folder}/data"],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"]},
    )
    time.sleep(1.0)
    down = reader.stdout.read()
    assert reader.wait(LIMIT) == 0
    assert hashlib.sha256(down).hexdigest() == digest


def test_copies(ready, tmp_path) -> None:
    container, status = ready
    options = container.ssh_options(status)
    source, there, back = tmp_path / "source", container.folder / "there", tmp_path / "back"
    source.write_bytes(os.urandom(300_000))
    for extra in ([], ["-O"]):
        subprocess.run(
            ["scp", *extra, *options, str(source), f"127.0.0.1:{there}"], check=True, timeout=LIMIT
        )
        subprocess.run(["scp", *extra, *options, f"127.0.0.1:{there}", str(back)], check=True, timeout=LIMIT)
        assert back.read_bytes() == source.read_bytes()
    batch = f"get {there} {back}\nls {container.folder}\n"
    done = subprocess.run(
        ["sftp", "-b", "-", *options, "127.0.0.1"],
        input=batch,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=True,
    )
    assert "there" in done.stdout
    if needs.find("rsync"):
        shell = " ".join(["ssh", *options])
        subprocess.run(["rsync", "-e", shell, str(source), f"127.0.0.1:{there}"], check=True, timeout=LIMIT)


class Terminal:
    """ssh in a terminal of its own."""

    def __init__(self, container, status, *command):
        self.master, slave = pty.openpty()
        self.seen = ""
        self.process = subprocess.Popen(
            ["ssh", "-tt", *container.ssh_options(status), "127.0.0.1", *command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={"PATH": os.environ["PATH"], "TERM": "xterm"},
        )
        os.close(slave)

    def write(self, text):
        os.write(self.master, text.encode())

    def wait_for(self, pattern):
        def read():
            if select.select([self.master], [], [], 0.05)[0]:
                with contextlib.suppress(OSError):
                    self.seen += os.read(self.master, 65536).decode(errors="replace")
            return re.search(pattern, self.seen)

        return until(read, what=f"{pattern!r} in {self.seen!r}")

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.master)


@contextlib.contextmanager
def terminals(container, status):
    """Makes terminals of logins, and closes them at the end of the block."""
    if status["ssh"]["server"] == "sshd" and os.geteuid() != 0:
        from smssh_plugin.container.openssh import _can_own_terminals

        if not _can_own_terminals():
            needs.does_not_apply("sshd cannot hand terminals over for this user")
    made = []

    def make(*command):
        made.append(Terminal(container, status, *command))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def terminal(ready):
    with terminals(*ready) as make:
        yield make


def test_terminal(ready, terminal) -> None:
    container, _ = ready
    shell = terminal()
    shell.write("stty -echo; echo ready-$((1+1))\n")
    shell.wait_for("ready-2")
    shell.write("tty; pwd; command -v smssh-hook; echo term=$TERM\n")
    shell.wait_for(r"/dev/pts/\d+")
    shell.wait_for(f"{container.folder}\r?\n")
    shell.wait_for(f"{container.run_dir}/bin/smssh-hook")
    shell.wait_for("term=xterm")
    # ^C reaches the command, not the shell; a window that changes its size says so.
    shell.write("sleep 50; echo status=$?\n")
    time.sleep(0.5)
    shell.write("\x03")
    shell.write("\necho after-$((2+3))\n")
    shell.wait_for("after-5")
    import fcntl
    import struct
    import termios

    fcntl.ioctl(shell.master, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
    os.kill(shell.process.pid, 28)  # SIGWINCH: the new size is on our side of a terminal that is not ours
    shell.wait_for("")
    until(lambda: shell.write("stty size\n") or (shell.wait_for(r"\d+ \d+") and "33 77" in shell.seen))
    shell.write("exit 4\n")
    assert shell.process.wait(LIMIT) == 4


def test_a_client_that_goes_away_takes_its_terminals_command_along(ready, terminal) -> None:
    shell = terminal("echo pid=$$; exec sleep 1000")
    pid = int(shell.wait_for(r"pid=(\d+)").group(1))
    shell.process.kill()

    def gone():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return False

    until(gone, what="the end of the command")


class Echo:
    """A TCP server that sends everything back."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                while data := connection.recv(65536):
                    connection.sendall(data)


def echoed(address, timeout=10):
    try:
        if isinstance(address, str):
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(address)
        else:
            connection = socket.create_connection(("127.0.0.1", address), timeout)
        with connection:
            connection.settimeout(timeout)
            connection.sendall(b"hello")
            return connection.recv(5) == b"hello"
    except OSError:
        return False


def free():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def test_forwarding(ready, tmp_path) -> None:
    container, status = ready
    echo, local, remote, dynamic = Echo(), free(), free(), free()
    path = str(tmp_path / "s")
    process = subprocess.Popen(
        [
            *("ssh", "-N", *container.ssh_options(status), "-o", "ExitOnForwardFailure=yes"),
            *(
                "-L",
                f"{local}:127.0.0.1:{echo.port}",
                "-R",
                f"{remote}:127.0.0.1:{echo.port}",
                "-D",
                str(dynamic),
            ),
            *("-R", f"{path}:127.0.0.1:{echo.port}", "127.0.0.1"),
        ],
        stdin=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"]},
    )
    try:
        until(lambda: echoed(local), what="-L")
        assert echoed(remote)
        assert echoed(path)
        with socket.create_connection(("127.0.0.1", dynamic), 10) as proxy:
            proxy.sendall(b"\x05\x01\x00")
            assert proxy.recv(2) == b"\x05\x00"
            proxy.sendall(b"\x05\x01\x00\x01" + socket.inet_aton("127.0.0.1") + echo.port.to_bytes(2, "big"))
            assert proxy.recv(10)[:2] == b"\x05\x00"
            proxy.sendall(b"hello")
            assert proxy.recv(5) == b"hello"
    finally:
        process.terminate()
        process.wait(LIMIT)
        echo.listener.close()


def test_it_listens_on_loopback_only(ready) -> None:
    _, status = ready
    listening = []
    for name in ("/proc/net/tcp", "/proc/net/tcp6"):
        with open(name) as file:
            rows = [line.split() for line in file.readlines()[1:]]
        listening += [
            row[1] for row in rows if row[3] == "0A" and row[1].endswith(f":{status['ssh']['port']:04X}")
        ]
    assert listening == [f"0100007F:{status['ssh']['port']:04X}"]


def test_a_certificate_of_a_trusted_authority_logs_in(container, server, tmp_path) -> None:
    """`smssh certify`: the line of the authority is one of the authorized keys, for both servers."""
    for name in ("authority", "mine"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    line = 'cert-authority,principals="smssh" ' + (tmp_path / "authority.pub").read_text().strip()
    container.wrap(
        *("sh", "-c", "while [ ! -e stop ]; do sleep 0.1; done"),
        SMSSH_SSH_SERVER=server,
        SMSSH_AUTHORIZED_KEYS=line,
    )
    status = container.wait_for("running")
    assert container.ssh(status, "true", key=tmp_path / "mine").returncode == 255
    sign = ["ssh-keygen", "-q", "-s", tmp_path / "authority", "-I", "me", "-n", "smssh", "-V", "-1m:+1h"]
    subprocess.run([*sign, tmp_path / "mine.pub"], check=True)
    assert container.ssh(status, "echo in", key=tmp_path / "mine").stdout == "in\n"
    container.script("", name="stop")
    assert container.processes[0].wait(LIMIT) == 0


@pytest.fixture
def restricted(container, server, tmp_path):
    """Starts a job that lets in the usual key, and another one with options; answers what logs in with that one."""

    def make(options, more=()):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
        public = (tmp_path / "other.pub").read_text().strip()
        lines = [container.on["SMSSH_AUTHORIZED_KEYS"], f"{options} {public}", *more]
        container.wrap(
            *("sh", "-c", "while [ ! -e stop ]; do sleep 0.1; done"),
            SMSSH_SSH_SERVER=server,
            SMSSH_AUTHORIZED_KEYS="\n".join(lines),
            SMSSH_LOG_TO_STDOUT="1",
        )
        status = container.wait_for("running")
        assert status["ssh"]["server"] == server
        assert container.ssh(status, "echo all").stdout == "all\n"

        def login(*command, **given):
            return container.ssh(status, *command, key=tmp_path / "other", **given)

        return login, status

    yield make
    container.script("", name="stop")
    assert container.processes[0].wait(LIMIT) == 0


ONLY = r"""command="printf '%s|' only 'a\b' \"$SSH_ORIGINAL_COMMAND\" \"$BASH_ENV\" $AWS_REGION!" """.strip()


def test_a_key_that_is_restricted_to_a_command_gets_no_other(restricted, container) -> None:
    login, _ = restricted(f"no-pty,{ONLY}")
    shown = r"only|a\b|{}||us-east-1!|"
    assert login("id; echo more").stdout == shown.format("id; echo more")
    assert login().stdout == login(data="id\n").stdout == shown.format("")
    breach = container.folder / "breach"
    sent = ("-o", f"SetEnv=BASH_ENV=$(>{breach}) ENV=$(>{breach}) PATH=/none LC_ALL=C")
    assert login("id", options=sent).stdout == shown.format("id")
    assert not breach.exists()
    assert "only" in login("-s", "sftp").stdout
    assert login(terminal=True).stderr != ""


def test_a_key_that_is_restricted_to_sftp(restricted, server) -> None:
    """By the name that sshd itself knows: asyncssh, which does not, runs nothing at all."""
    login, _ = restricted('restrict,command="internal-sftp"')
    assert login("echo all").stdout != "all\n"
    assert (login("-s", "sftp", data="").returncode == 0) == (server == "sshd")


def test_a_key_that_is_restricted_forwards_nothing(restricted, server) -> None:
    login, status = restricted("RESTRICT,pty")
    assert login("echo in").stdout == "in\n"
    port = status["ssh"]["port"]
    assert "SSH-" not in login(options=("-W", f"127.0.0.1:{port}")).stdout
    failing = ("-o", "ExitOnForwardFailure=yes")
    assert login("true", options=(*failing, "-R", "0:127.0.0.1:1")).returncode == 255
    if server == "asyncssh" or os.geteuid() == 0 or openssh._can_own_terminals():
        assert login("tty", terminal=True).stdout.startswith("/dev/")


class UnixEcho(Echo):
    """The same on a Unix socket."""

    def __init__(self, path):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        threading.Thread(target=self._run, daemon=True).start()


@contextlib.contextmanager
def forwarded(container, status, path, key, *more):
    """A local port that ssh forwards to a Unix socket in the container, and one there that leads to this machine."""
    port = free()
    process = subprocess.Popen(
        [
            *("ssh", "-N", *container.ssh_options(status, key), "-o", "ExitOnForwardFailure=no", *more),
            *("-L", f"{port}:{path}", "127.0.0.1"),
        ],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"]},
    )

    def listens():
        assert process.poll() is None
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 10):
            return True
        return False

    try:
        until(listens, what="ssh -L")
        yield port
    finally:
        process.kill()  # it may wait for a forward that was refused
        process.wait(LIMIT)


def said_to(port, *messages):
    """What a forwarded supervisor answers to lines; "" where the connection is closed."""
    try:
        with socket.create_connection(("127.0.0.1", port), LIMIT) as connection:
            connection.settimeout(LIMIT)
            connection.sendall("".join(json.dumps(each) + "\n" for each in messages).encode())
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    except OSError:
        return ""


@pytest.mark.parametrize(
    ("options", "open_to_it"),
    [
        ("", True),
        ('expiry-time="20990101"', True),
        ('restrict,port-forwarding,permitopen="localhost:6006",command="/bin/false"', False),
        ('permitopen="localhost:6006"', False),
        ('permitlisten="localhost:6006"', False),
        ('command="/bin/true"', False),
        ("restrict,port-forwarding", False),
    ],
)
def test_a_restricted_key_reaches_no_unix_socket(
    restricted, container, tmp_path, options, open_to_it
) -> None:
    _, status = restricted(options)
    echo = UnixEcho(tmp_path / "echo")
    there = tmp_path / "listens-there"
    try:
        with forwarded(
            container, status, tmp_path / "echo", tmp_path / "other", "-R", f"{there}:127.0.0.1:1"
        ) as port:
            assert echoed(port) == open_to_it
            assert there.exists() == open_to_it
    finally:
        echo.listener.close()


def test_a_forwarded_supervisor_obeys_nobody(container, server, tmp_path) -> None:
    """Not even a key that may do everything: what only was forwarded does not decide how a job ends."""
    container.wrap(
        "sh", "-c", "exit 3", SMSSH_SSH_SERVER=server, SMSSH_HOLD="failure", SMSSH_HOLD_SECONDS="600"
    )
    status = container.wait_for("held")
    breach = container.folder / "breach"
    messages = (
        {
            "op": "before",
            "environment": {"PROMPT_COMMAND": f"touch {breach}", "PATH": f"{breach}:$(touch {breach})"},
        },
        {"op": "release", "exit_code": 0},
        {"op": "end"},
    )
    with forwarded(container, status, container.path("socket"), container.key) as port:
        for message in messages:
            assert '"reference": "no-token"' in said_to(port, message)
        assert said_to(port, *messages).count("no-token") == 1
    assert container.status()["state"] == "held"
    container.hook("release")
    assert container.processes[0].wait(LIMIT) == 3
    assert not breach.exists()


@pytest.mark.parametrize(
    ("options", "let_in"),
    [
        ('expiry-time="20200101"', False),
        ('expiry-time="20990101"', True),
        ('expiry-time="209901011200",from="127.0.0.1,10.0.0.0/8"', True),
        ('from="10.0.0.0/8"', False),
        ("no-such-option", False),
        ('environment="A=b",no-user-rc,no-X11-forwarding,no-agent-forwarding', True),
    ],
)
def test_options_of_keys(restricted, options, let_in) -> None:
    login, _ = restricted(options)
    assert (login("echo in").stdout == "in\n") == let_in


def test_a_key_may_open_and_have_opened_what_it_says(restricted) -> None:
    login, status = restricted('permitopen="127.0.0.1:1",permitlisten="localhost:1"')
    assert login("echo in").stdout == "in\n"
    assert "SSH-" not in login(options=("-W", f"127.0.0.1:{status['ssh']['port']}")).stdout
    failing = ("-o", "ExitOnForwardFailure=yes")
    assert login("true", options=(*failing, "-R", "localhost:0:127.0.0.1:1")).returncode == 255


def test_what_asyncssh_cannot_keep_is_not_let_in(restricted, container, server) -> None:
    login, _ = restricted("verify-required")
    assert (login("echo in").stdout == "in\n") == (server == "sshd")
    said = "asyncssh does not know its option verify-required"
    if server == "asyncssh":
        until(lambda: said in container.output())  # another process writes it
    else:
        assert said not in container.output()


def test_the_command_of_a_certificate_is_its_only_one(restricted, server, tmp_path) -> None:
    """sshd refuses one whose command is not its line's; asyncssh runs it."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "authority"], check=True)
    line = 'cert-authority,principals="smssh" ' + (tmp_path / "authority.pub").read_text().strip()
    login, _ = restricted('expiry-time="20200101"', more=[line])
    sign = ["ssh-keygen", "-q", "-s", tmp_path / "authority", "-I", "me", "-n", "smssh", "-V", "-1m:+1h"]
    subprocess.run([*sign, "-O", "force-command=echo only", tmp_path / "other.pub"], check=True)
    assert login("echo all").stdout == ("" if server == "sshd" else "only\n")
