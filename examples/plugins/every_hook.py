"""One small implementation of every hook: docs/hooks.md shows them, a test loads them.

To use one, put it into a module of your own package and name that module in the entry-point group `smssh`.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import subprocess
import time
import urllib.request

from smssh_plugin import hookimpl

OUR_SSHD = "/opt/conda/bin/sshd"
OUR_PORT = 2222


@hookimpl
def smssh_configure(settings, job):
    # The jobs of the nightly pipeline are watched by nobody: a hold would only cost money.
    if job.step.startswith("nightly-"):
        return {"hold": ()}
    return None


@hookimpl
def smssh_authorized_keys(context):
    with open("/etc/our-team/authorized_keys", encoding="utf-8") as file:
        return file.read().splitlines()


@hookimpl
def smssh_start_server(context):
    from smssh_plugin.hookspecs import Server

    if not os.path.exists(OUR_SSHD):
        return None  # the next plugin's turn
    key, keys = context.run_dir / "our_host_key", context.run_dir / "our_authorized_keys"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    keys.write_text("\n".join(context.authorized_keys) + "\n")
    options = [
        f"AuthorizedKeysFile={keys}",
        "ListenAddress=127.0.0.1",
        "PasswordAuthentication=no",
        "PidFile=none",
        "StrictModes=no",
    ]
    flags = [word for option in options for word in ("-o", option)]
    subprocess.Popen(
        [OUR_SSHD, "-D", "-f", os.devnull, "-h", str(key), "-p", str(OUR_PORT), *flags],
        start_new_session=True,
    )
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", OUR_PORT), timeout=1).close()
            break
        except ConnectionRefusedError:
            time.sleep(0.1)
    else:
        raise RuntimeError(f"{OUR_SSHD} does not listen")
    algorithm, public, *_ = key.with_suffix(".pub").read_text().split()
    return Server("our-sshd", OUR_PORT, getpass.getuser(), f"{algorithm} {public}")


@hookimpl
def smssh_start_transport(context):
    from smssh_plugin.hookspecs import Transport

    if "OUR_TUNNEL" not in context.environment:
        return None  # ssm or native, as the settings say
    subprocess.Popen(["our-tunnel", "--port", str(context.server.port)], start_new_session=True)
    return Transport("our-tunnel", target=context.job.address)


@hookimpl
def smssh_announce(context):
    entry = {"address": context.job.address, "host_key": context.server.host_key}
    with open(f"/mnt/shared/jobs/{context.job.name}.json", "w", encoding="utf-8") as file:
        json.dump(entry, file)


@hookimpl
def smssh_ready(context):
    context.say(f"log in with: {context.connect_command}")


@hookimpl
def smssh_before_entry_point(context, attempt, command):
    context.log.info("attempt %d: %s", attempt, " ".join(command))


@hookimpl
def smssh_after_entry_point(context, attempt, exit_code):
    if exit_code == 137:
        context.say(f"attempt {attempt} was killed: most likely it needed more memory than there is")


@hookimpl
def smssh_entry_point_failed(context, failure):
    # Kept before somebody changes the code in the hold.
    subprocess.run(["cp", "-a", context.code_dir, f"/tmp/code-of-attempt-{failure.attempt}"], check=True)


@hookimpl
def smssh_collect_report(context, failure):
    shown = subprocess.run(["df", "-h"], capture_output=True, text=True, timeout=10, check=False)
    return {"df": shown.stdout}


@hookimpl
def smssh_hold(context, point, exit_code):
    # Status 3 is "bad input data" at our place: there is nothing to fix in the container.
    return False if point == "failure" and exit_code == 3 else None


@hookimpl
def smssh_tell_hosts(context, own):
    with open(f"/mnt/shared/jobs/{context.job.name}.{own.host}", "w", encoding="utf-8") as file:
        json.dump([own.state, own.attempt, own.exit_code], file)


@hookimpl
def smssh_ask_hosts(context, question):
    from smssh_plugin.hookspecs import HostAnswer

    others = smssh_other_hosts(context).values()
    return HostAnswer(next((other for other in others if question.fits(other)), None))


@hookimpl
def smssh_other_hosts(context):
    from smssh_plugin.hookspecs import HostState

    others = {}
    for host in context.job.hosts:
        path = f"/mnt/shared/jobs/{context.job.name}.{host}"
        if host != context.job.host and os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                state, attempt, exit_code = json.load(file)
            others[host] = HostState(host, state, attempt, exit_code)
    return others


@hookimpl
def smssh_notify(context, event, message, hold):
    if event != "held":
        return
    body = json.dumps({"text": f"{context.job.step}: {message}", "until": hold.deadline}).encode()
    request = urllib.request.Request("https://chat.example.com/hooks/ml", body, method="POST")
    urllib.request.urlopen(request, timeout=10).close()


@hookimpl
def smssh_stop(context):
    subprocess.run(["our-tunnel", "--close", context.job.address], timeout=5, check=False)


@hookimpl
def smssh_transform_request(kind, request, options):
    if kind != "training":
        return None
    return {**request, "Tags": [*request.get("Tags", []), {"Key": "debuggable", "Value": "yes"}]}


@hookimpl
def smssh_register_commands(commands):
    commands["jupyter"] = "our_package.jupyter:command"


@hookimpl
def smssh_probes():
    class Gpu:
        name = "gpu"

        def run(self, host):
            return host.run("nvidia-smi").text

    return [Gpu()]


@hookimpl
def smssh_checks():
    class Vpn:
        id = "company.vpn"
        summary = "whether this machine is in the company's VPN"

        def run(self, aws):
            try:
                socket.create_connection((f"vpn.{aws.region}.example.com", 443), timeout=5).close()
            except OSError as error:
                return {
                    "outcome": "problem",
                    "message": f"no VPN: {error}",
                    "fix": "start the VPN",
                    "who": "you",
                }
            return {"outcome": "ok", "message": "the VPN is there"}

    return [Vpn()]
