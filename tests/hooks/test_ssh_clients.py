"""What people's programs do with the SSH servers: OpenSSH's client in all its ways, scp, rsync, and IDEs."""

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest

from tests import needs
from tests.entrypoints.container import IMAGE, Container
from tests.hooks.test_servers import Echo, Terminal, echoed, free, terminals
from tests.waiting import LIMIT, until

SECRET = "s3cret-of-the-job"
LINES = "first\nsecond 'quoted' \"twice\" \\n $HOME `id`\n"


@pytest.fixture(scope="module")
def jobs(tmp_path_factory, bundle, key):
    """Makes one running job for each server, which all tests of this module share."""
    needs.program("image environment")
    made = {}

    def make(server):
        if server not in made:
            container = Container(tmp_path_factory.mktemp(server), bundle, key)
            container.wrap(
                *("sh", "-c", "while [ ! -e stop ]; do sleep 0.1; done"),
                SMSSH_SSH_SERVER=server,
                SEVERAL=LINES,
                SECRET=SECRET,
                LANG="C.UTF-8",
            )
            made[server] = (container, container.wait_for("running"))
        return made[server]

    yield make
    for container, _ in made.values():
        container.script("", name="stop")
        container.processes[0].wait(LIMIT)
        container.close()


@pytest.fixture
def job(jobs, server):
    container, status = jobs(server)
    assert status["ssh"]["server"] == server
    return container, status


@contextlib.contextmanager
def client(container, status, *arguments, log="ERROR", **options):
    """An ssh that runs beside the test."""
    options = {"stdin": subprocess.DEVNULL, **options}
    process = subprocess.Popen(
        # Of options that are said twice, ssh takes the first.
        ["ssh", "-o", f"LogLevel={log}", *container.ssh_options(status), *arguments],
        env={"PATH": os.environ["PATH"]},
        **options,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(LIMIT)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


# ------------------------------------------------------------------------------------------- commands


def test_a_killed_command_is_reported_as_killed(job) -> None:
    container, status = job
    with client(
        container, status, "127.0.0.1", "kill -TERM $$", log="DEBUG1", stderr=subprocess.PIPE
    ) as process:
        assert b"rtype exit-signal" in process.stderr.read()
        assert process.wait(LIMIT) == 255


def test_a_signal_that_ssh_has_no_name_for(job) -> None:
    container, status = job
    assert container.ssh(status, "kill -40 $$").returncode != 0
    assert container.ssh(status, "echo on").stdout == "on\n"


def test_variables(job) -> None:
    container, status = job
    shown = container.ssh(status, 'printf %s "$SEVERAL"')
    assert shown.stdout == LINES
    done = container.ssh(
        status,
        'echo "$ONE|$SECRET|$LANG|$LC_TIME"',
        options=["-o", "SetEnv=ONE=1 SECRET=mine LANG=xx_YY.UTF-8 LC_TIME=C"],
    )
    # What somebody says for one login holds; what every client sends unasked does not replace the job's.
    assert done.stdout == "1|mine|C.UTF-8|C\n"


def test_commands_of_any_bytes(job) -> None:
    container, status = job
    command = b"printf %s 'a\xff\xfeb\xc3\xa9'"
    done = container.ssh(status, command, text=False)
    assert (done.returncode, done.stdout) == (0, b"a\xff\xfeb\xc3\xa9")


def test_long_commands(job) -> None:
    container, status = job
    text = "x" * 100_000
    assert container.ssh(status, f"echo {text} | wc -c").stdout.strip() == "100001"


def test_a_script_on_the_standard_input(job) -> None:
    container, status = job
    done = container.ssh(status, options=["-T"], data="pwd\necho $((20 + 3))\nexit 6\n")
    assert (done.returncode, done.stdout) == (6, f"{container.folder}\n23\n")
    assert container.ssh(status, "pwd").stdout == f"{container.home}\n"


def test_no_secret_is_on_a_command_line_or_open_to_others(job) -> None:
    container, status = job
    with client(container, status, "127.0.0.1", "echo up; sleep 100", stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"up\n"
        lines = [path.read_bytes() for path in _readable("/proc", "cmdline")]
    assert not [line for line in lines if SECRET.encode() in line]
    assert stat.S_IMODE(container.run_dir.stat().st_mode) == 0o700
    holding = [
        path
        for path in container.run_dir.rglob("*")
        if path.is_file() and not path.is_symlink() and SECRET.encode() in path.read_bytes()
    ]
    assert holding
    assert {stat.S_IMODE(path.stat().st_mode) for path in holding} == {0o600}
    assert SECRET not in container.log()


def _readable(folder, name):

    for entry in Path(folder).iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                (entry / name).read_bytes()
                yield entry / name


def test_a_reader_that_stops_early_ends_the_command(job) -> None:
    container, status = job
    with client(
        container, status, "127.0.0.1", "echo $$; exec yes", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        pid = int(process.stdout.readline())
        assert alive(pid)
        process.stdout.close()
        until(lambda: not alive(pid), what="the end of the command")


def test_a_slow_reader_of_much(job) -> None:
    """Back-pressure: asyncssh's own redirection drops the connection after a few megabytes of this."""
    container, status = job
    size = 200 << 20
    block = os.urandom(1 << 20)
    (container.folder / "much").write_bytes(block * (size >> 20))
    command = f"cat {container.folder}/much"
    digest, seen = hashlib.sha256(), 0
    try:
        with client(container, status, "127.0.0.1", command, stdout=subprocess.PIPE) as process:
            while data := process.stdout.read(1 << 16):
                digest.update(data)
                seen += len(data)
                if seen % (1 << 24) == 0:
                    time.sleep(0.1)
            assert process.wait(LIMIT) == 0
    finally:
        (container.folder / "much").unlink()
    assert seen == size
    assert digest.digest() == hashlib.sha256(block * (size >> 20)).digest()


def test_many_at_once(job) -> None:
    container, status = job
    arguments = ["ssh", *container.ssh_options(status), "127.0.0.1"]
    running = [
        subprocess.Popen(
            [*arguments, f"cat >/dev/null; echo {number}; exit {number}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PATH": os.environ["PATH"]},
        )
        for number in range(1, 21)
    ]
    for number, process in enumerate(running, 1):
        out, _ = process.communicate(b"x" * 100_000, timeout=LIMIT)
        assert (process.returncode, out) == (number, b"%d\n" % number)


def test_keepalives(job) -> None:
    container, status = job
    options = ["-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=1"]
    assert container.ssh(status, "sleep 3.5; echo on", options=options).stdout == "on\n"


# ------------------------------------------------------------------------------------------- copies


def test_copies_to_relative_names(job, tmp_path) -> None:
    """They begin in the home folder, and what they make can be read by the others, as with any server."""
    container, status = job
    options = container.ssh_options(status)
    source = tmp_path / "copied"
    source.write_bytes(os.urandom(10_000))
    source.chmod(0o644)
    for extra in ([], ["-O"]):
        subprocess.run(["scp", *extra, *options, str(source), "127.0.0.1:"], check=True, timeout=LIMIT)
        copied = container.home / "copied"
        assert copied.read_bytes() == source.read_bytes()
        assert stat.S_IMODE(copied.stat().st_mode) == 0o644
        copied.unlink()
        missing = subprocess.run(
            ["scp", *extra, *options, "127.0.0.1:missing", str(tmp_path)],
            capture_output=True,
            timeout=LIMIT,
            check=False,
        )
        assert missing.returncode != 0
        assert b"No such file" in missing.stderr
    assert container.ssh(status, "touch made; stat -c %a made; rm made").stdout == "644\n"


def test_trees(job, tmp_path) -> None:
    container, status = job
    options = container.ssh_options(status)
    tree = tmp_path / "tree"
    (tree / "in" / "side").mkdir(parents=True)
    (tree / "in" / "side" / "a b").write_text("x")
    (tree / os.fsdecode(b"n\xc3\xa4me")).write_text("y")
    subprocess.run(["scp", "-r", *options, str(tree), "127.0.0.1:there"], check=True, timeout=LIMIT)
    assert (container.home / "there" / "in" / "side" / "a b").read_text() == "x"
    if needs.find("rsync"):
        shell = " ".join(["ssh", *options])
        back = tmp_path / "back"
        subprocess.run(
            ["rsync", "-a", "--delete", "-e", shell, "127.0.0.1:there/", str(back)], check=True, timeout=LIMIT
        )
        assert (back / os.fsdecode(b"n\xc3\xa4me")).read_text() == "y"
    shutil.rmtree(container.home / "there")


# ------------------------------------------------------------------------------------------- forwarding


def test_a_remote_port_of_the_servers_choice(job) -> None:
    container, status = job
    echo = Echo()
    arguments = ["-N", "-R", f"0:127.0.0.1:{echo.port}", "127.0.0.1"]
    with client(container, status, *arguments, log="INFO", stderr=subprocess.PIPE) as process:
        line = process.stderr.readline().decode()
        port = int(re.search(r"Allocated port (\d+)", line).group(1))
        assert echoed(port)
    echo.listener.close()


def test_unix_sockets_both_ways(job, tmp_path) -> None:
    container, status = job
    served, local, remote = tmp_path / "served", tmp_path / "local", tmp_path / "remote"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(served))
        listener.listen()

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.sendall(connection.recv(100))

        threading.Thread(target=serve, daemon=True).start()
        arguments = ["-N", "-L", f"{local}:{served}", "-R", f"{remote}:{served}", "127.0.0.1"]
        with client(container, status, *arguments):
            until(lambda: echoed(str(local)), what="-L")
            until(lambda: echoed(str(remote)), what="-R")


def test_a_forwarded_port_half_closed(job) -> None:
    """`nc -N` and rsync's daemon say that they are done and then wait for the answer."""
    container, status = job
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        count = 0
                        while data := connection.recv(65536):
                            count += len(data)
                        connection.sendall(b"got %d" % count)

        threading.Thread(target=serve, daemon=True).start()
        port = free()
        with client(
            container, status, "-N", "-L", f"{port}:127.0.0.1:{listener.getsockname()[1]}", "127.0.0.1"
        ):

            def asked():
                try:
                    with socket.create_connection(("127.0.0.1", port), 10) as connection:
                        connection.sendall(b"x" * 100_000)
                        connection.shutdown(socket.SHUT_WR)
                        return connection.recv(100)
                except OSError:
                    return b""

            assert until(asked, what="the answer") == b"got 100000"


@pytest.mark.needs("ssh-agent")
def test_the_agent(job, tmp_path) -> None:
    container, status = job
    path = tmp_path / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    try:
        until(path.exists)
        environ = {"PATH": os.environ["PATH"], "SSH_AUTH_SOCK": str(path)}
        subprocess.run(["ssh-add", "-q", str(container.key)], env=environ, check=True)
        done = subprocess.run(
            ["ssh", "-A", *container.ssh_options(status), "127.0.0.1", "ssh-add -L"],
            env=environ,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        assert done.stdout.split()[1] == container.key.with_suffix(".pub").read_text().split()[1]
        assert "SSH_AUTH_SOCK" not in container.ssh(status, "env").stdout
    finally:
        agent.terminate()
        agent.wait(LIMIT)


def test_one_connection_for_all(job, tmp_path) -> None:
    container, status = job
    control = ["-S", str(tmp_path / "c")]
    with client(container, status, "-M", "-N", *control, "127.0.0.1") as master:
        until((tmp_path / "c").exists)
        running = [
            subprocess.Popen(
                ["ssh", *container.ssh_options(status), *control, "127.0.0.1", f"sleep 0.5; exit {number}"],
                env={"PATH": os.environ["PATH"]},
                stdin=subprocess.DEVNULL,
            )
            for number in range(20)
        ]
        assert [process.wait(LIMIT) for process in running] == list(range(20))
        assert container.ssh(status, options=[*control, "-O", "exit"]).returncode == 0
        master.wait(LIMIT)


def test_as_a_jump_host(job, tmp_path) -> None:
    container, status = job
    options = container.ssh_options(status)
    hop = " ".join(["ssh", *options, "-W", "%h:%p", "127.0.0.1"])
    done = container.ssh(status, "echo through", options=["-o", f"ProxyCommand={hop}"])
    assert done.stdout == "through\n"
    words = [word for word in options if word not in ("-F", "none", "-o")]
    lines = [word.replace("=", " ", 1) for word in words[2:]]
    config = tmp_path / "config"
    config.write_text(
        "\n".join([f"Host jump job\n HostName 127.0.0.1\n IdentityFile {container.key}", *lines]) + "\n"
    )
    done = subprocess.run(
        ["ssh", "-F", str(config), "-J", "jump", "job", "echo", "jumped"],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
        env={"PATH": os.environ["PATH"]},
    )
    assert done.stdout == "jumped\n", done.stderr


# ------------------------------------------------------------------------------------------- terminals


@pytest.fixture
def terminal(job):
    with terminals(*job) as make:
        yield make


def test_a_login_begins_at_the_code(job, terminal) -> None:
    """`python train.py` just works there."""
    container, _ = job
    container.script("import os; print('trained with ' + os.environ['SECRET'])", name="train.py")
    shell = terminal()
    shell.write("stty -echo; echo ready-$((1+1))\n")
    shell.wait_for("ready-2")
    shell.write('[ "$(tty)" = "$SSH_TTY" ] && echo the-same-tty-$((1+1))\n')
    shell.wait_for("the-same-tty-2")
    shell.write("python train.py; command -v python; printf '%s' \"$SEVERAL\" | wc -l\n")
    shell.wait_for(f"trained with {SECRET}\r?\n{IMAGE}/bin/python\r?\n2\r?\n")


def test_the_modes_of_the_terminal_are_the_clients(job, terminal) -> None:
    shell = terminal("stty -a; echo done-$((1+1))")
    import termios

    shell.wait_for("done-2")
    assert re.search(r"(?<!-)iutf8|-iutf8", shell.seen)
    # A client with other characters and UTF-8 in its terminal has them in the job's.
    other = Terminal.__new__(Terminal)
    other_master, slave = os.openpty()
    attributes = termios.tcgetattr(slave)
    attributes[0] |= 0o40000  # IUTF8
    attributes[6][termios.VERASE] = b"\x08"
    termios.tcsetattr(slave, termios.TCSANOW, attributes)
    container, status = job
    other.master, other.seen = other_master, ""
    other.process = subprocess.Popen(
        ["ssh", "-tt", *container.ssh_options(status), "127.0.0.1", "stty -a; echo done-$((1+1))"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        env={"PATH": os.environ["PATH"], "TERM": "xterm"},
    )
    os.close(slave)
    try:
        other.wait_for("done-2")
        assert "erase = ^H" in other.seen
        assert re.search(r"(?<!-)iutf8", other.seen)
    finally:
        other.close()


def test_the_whole_output_of_a_terminal_arrives(job, terminal) -> None:
    shell = terminal("seq 1 20000; exit 5")
    shell.wait_for(r"\n20000\r?\n")
    assert shell.process.wait(LIMIT) == 5


def test_a_background_job_does_not_keep_a_terminal(job, terminal) -> None:
    shell = terminal("sleep 300 & echo pid=$!; exit 4")
    pid = int(shell.wait_for(r"pid=(\d+)").group(1))
    try:
        assert shell.process.wait(LIMIT) == 4
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


# ------------------------------------------------------------------------------------------- IDEs

SERVER = """
import http.server, os, sys
server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
with open("port.new", "w") as file:
    file.write(f"{server.server_address[1]} {os.getpid()}")
os.rename("port.new", "port")
server.serve_forever()
"""


def through_socks(dynamic, port):
    """What a web server says, asked through `ssh -D`."""
    try:
        with socket.create_connection(("127.0.0.1", dynamic), 10) as proxy:
            proxy.sendall(b"\x05\x01\x00")
            proxy.recv(2)
            proxy.sendall(b"\x05\x01\x00\x01" + socket.inet_aton("127.0.0.1") + port.to_bytes(2, "big"))
            if proxy.recv(10)[:2] != b"\x05\x00":
                return b""
            proxy.sendall(b"GET /marker HTTP/1.0\r\n\r\n")
            data = b""
            while part := proxy.recv(65536):
                data += part
            return data
    except OSError:
        return b""


@pytest.mark.parametrize("detached", ["nohup ", ""])
def test_vs_code(job, detached) -> None:
    """Remote-SSH: `ssh -T -D PORT HOST bash`, a script on its input, a server that outlives the connection."""
    container, status = job
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, content in (("server.py", SERVER.encode()), ("marker", b"of the ide")):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    import base64

    encoded = base64.encodebytes(archive.getvalue()).decode()
    folder = container.home / ".ide"
    script = f"""
uname -rsv
mkdir -p "$HOME/.ide" && cd "$HOME/.ide" || exit 9
base64 -d <<'EOF' | tar xz --no-same-owner || exit 8
{encoded}
EOF
{detached}python server.py > log 2>&1 < /dev/null &
while [ ! -e port ]; do sleep 0.05; done
echo "listening on $(cat port)"
"""
    arguments = ["-T", "-D", str(free()), "127.0.0.1", "bash"]
    pid = 0
    try:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with client(container, status, *arguments, **pipes) as first:
            first.stdin.write(script.encode())
            first.stdin.flush()  # and stays open: that is the connection
            assert first.stdout.readline().startswith(b"Linux ")
            port, pid = map(int, re.match(rb"listening on (\d+) (\d+)", first.stdout.readline()).groups())
            assert b"of the ide" in until(lambda: through_socks(int(arguments[2]), port))
        # The laptop sleeps, the connection is cut: the next one finds the server.
        dynamic = free()
        with client(container, status, "-T", "-D", str(dynamic), "127.0.0.1", "bash", **pipes) as second:
            second.stdin.write(b"cat ~/.ide/port; echo\n")
            second.stdin.flush()
            assert second.stdout.readline().split() == [b"%d" % port, b"%d" % pid]
            assert b"of the ide" in until(lambda: through_socks(dynamic, port))
            assert alive(pid)
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def test_jetbrains_gateway(job, tmp_path) -> None:
    """The SFTP subsystem to upload, `sh -c` to run what was uploaded."""
    container, status = job
    program = tmp_path / "worker.sh"
    program.write_text('#!/bin/sh\necho "works in $1"\nexit 3\n')
    batch = f"mkdir .cache\nmkdir .cache/ide\ncd .cache/ide\nput {program} worker.sh\nchmod 755 worker.sh\nls -l\n"
    done = subprocess.run(
        ["sftp", "-b", "-", *container.ssh_options(status), "127.0.0.1"],
        input=batch,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "-rwxr-xr-x" in done.stdout
    run = container.ssh(status, 'sh -c \'cd "$HOME/.cache/ide" && ./worker.sh "$(uname)"\'')
    assert (run.returncode, run.stdout) == (3, "works in Linux\n")
    shutil.rmtree(container.home / ".cache")


# ------------------------------------------------------------------------------------------- faults


def server_pid(container, status):
    """The process that listens, told by its command line."""
    word = {"sshd": "sshd_config", "asyncssh": "asyncssh_program"}[status["ssh"]["server"]]
    return next(pid for pid, command in container.strays() if word in command)


def test_a_server_that_is_killed_comes_back_as_it_was(container, server) -> None:
    container.wrap("sh", "-c", "while [ ! -e stop ]; do sleep 0.1; done", SMSSH_SSH_SERVER=server)
    status = container.wait_for("running")
    pid = server_pid(container, status)
    arguments = ["127.0.0.1", "echo up; read line; echo $line"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with client(container, status, *arguments, **pipes) as other:
        assert other.stdout.readline() == b"up\n"
        os.kill(pid, signal.SIGKILL)
        # Same port, same host key: the options say both.
        until(lambda: container.ssh(status, "echo back").stdout == "back\n", what="the server")
        assert server_pid(container, status) != pid
        if server == "sshd":  # asyncssh's sessions are in the process itself
            other.stdin.write(b"on\n")
            other.stdin.flush()
            assert other.stdout.readline() == b"on\n"
    container.script("", name="stop")
    assert container.processes[0].wait(LIMIT) == 0
    container.assert_quiet()


def test_host_keys_are_private_and_of_one_container(job, jobs, server) -> None:
    container, status = job
    key = container.run_dir / "ssh" / "host_ed25519"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert status["ssh"]["host_key"].startswith("ssh-ed25519 ")
    if needs.find("sshd"):
        _, other = jobs("asyncssh" if server == "sshd" else "sshd")
        assert other["ssh"]["host_key"] != status["ssh"]["host_key"]


def test_an_agent_may_offer_many_keys_before_the_right_one(job, tmp_path) -> None:
    container, status = job
    path = tmp_path / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.PIPE)
    try:
        assert agent.stdout.readline()
        environ = {"PATH": os.environ["PATH"], "SSH_AUTH_SOCK": str(path)}
        for number in range(20):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / str(number)], check=True
            )
            subprocess.run(["ssh-add", "-q", tmp_path / str(number)], env=environ, check=True)
        # ssh offers what only a file has after all of the agent's.
        done = subprocess.run(
            ["ssh", "-o", "IdentitiesOnly=no", *container.ssh_options(status), "127.0.0.1", "echo in"],
            env=environ,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
    finally:
        agent.kill()
        agent.communicate()
    assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr


def test_asyncssh_has_a_host_key_of_ecdsa_where_there_is_no_ed25519(tmp_path, container) -> None:
    """As in FIPS mode, in an image without ssh-keygen."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", tmp_path / "key"], check=True)
    container.wrap("sh", "-c", "while [ ! -e stop ]; do sleep 0.1; done", SMSSH_SSH_SERVER="asyncssh")
    status = container.wait_for("running")
    other = tmp_path / "ssh"
    shutil.copytree(container.run_dir / "ssh", other)
    for left in ("asyncssh.json", "host_ed25519", "host_ed25519.pub"):
        (other / left).unlink()
    shutil.copy(tmp_path / "key.pub", other / "authorized_keys")
    code = (
        "from cryptography.hazmat.backends.openssl import backend\n"
        "type(backend).ed25519_supported = lambda self: False\n"
        "from smssh_plugin.container.asyncssh_program import main; import sys; main(sys.argv[1:])"
    )
    for _ in range(2):  # the second has the key of the first
        process = subprocess.Popen([sys.executable, "-c", code, str(other), str(free())])
        try:
            until((other / "asyncssh.json").exists, what="the server")
            answer = json.loads((other / "asyncssh.json").read_text())
            assert answer["host_key"].startswith("ecdsa-sha2-nistp256 ")
            done = container.ssh({**status, "ssh": answer}, "echo in", key=tmp_path / "key")
            assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr
        finally:
            process.terminate()
            process.wait(LIMIT)
        (other / "asyncssh.json").rename(other / "before")
    assert json.loads((other / "before").read_text())["host_key"] == answer["host_key"]


def test_interrupts_reach_commands_of_a_server_that_has_them_ignored(tmp_path, container) -> None:
    """A shell that starts something with `&` has it ignore SIGINT, and what that starts ignores it too."""
    container.wrap("sh", "-c", "while [ ! -e stop ]; do sleep 0.1; done", SMSSH_SSH_SERVER="asyncssh")
    status = container.wait_for("running")
    other = tmp_path / "ssh"
    shutil.copytree(container.run_dir / "ssh", other)
    (other / "asyncssh.json").unlink()
    port = free()
    code = "from smssh_plugin.container.asyncssh_program import main; import sys; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, str(other), str(port)]
    process = subprocess.Popen(["sh", "-c", "trap '' INT QUIT; exec \"$@\"", "sh", *command])
    try:
        until((other / "asyncssh.json").exists, what="the server")
        status["ssh"]["port"] = port
        shell = Terminal(container, status, "exec sleep 1000")
        try:
            until(lambda: _children(process.pid, b"sleep"), what="the command")
            shell.write("\x03")
            assert shell.process.wait(LIMIT) == 255
        finally:
            shell.close()
    finally:
        process.terminate()
        process.wait(LIMIT)


def _children(pid, name):
    found = []
    for path in _readable("/proc", "stat"):
        with contextlib.suppress(OSError):
            fields = path.read_bytes().rsplit(b")", 1)[1].split()
            command = (path.parent / "cmdline").read_bytes()
            if int(fields[1]) == pid and command.startswith(name):
                found.append(path)
    return found
