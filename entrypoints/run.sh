#!/bin/sh
# The launcher that wraps a ContainerEntrypoint: /bin/sh run.sh ORIGINAL..., or sourced by the words in front of the
# entry point once they have found this file to be the one that the request means (submit/request/wrapper.py).
#
# Finds a Python for init.py, which runs the entry point, and becomes it, once the archive that it comes from is known to
# be the one in the manifest. Whatever is wrong before that, the original runs as if nothing had been here: same command,
# same process id. Where the switch is off, what the bundle's input adds to the job is taken away, and that is all.

smssh_here=${smssh_at:-${0%/*}}
smssh_digest=
smssh_clean=
if [ -n "${smssh_at-}" ]; then # sourced: $3$4 is the Python that takes the input away, $5 the folder, $6 the digest
    smssh_digest=$6
    [ "$smssh_at" != "$5" ] || smssh_clean=$3$4 # takes the input away, in Python
fi
if [ -r "$smssh_here/smssh.zip" ] && { [ "${SMSSH_ENABLE-}" = 1 ] || [ -n "$smssh_digest" ]; }; then
    for smssh_python in python3 python /opt/venv/bin/python3 /opt/conda/bin/python3 /usr/bin/python3 \
        /usr/local/bin/python3 /miniconda3/bin/python3; do
        smssh_python=$(command -v "$smssh_python" 2>/dev/null) || continue
        # Run it: a Python that doesn't start must not take the job with it. It says which variables this shell has put
        # into its environment: the original had none of them.
        smssh_added=$("$smssh_python" -I -S -c '
import sys
with open("/proc/%s/environ" % sys.argv[1], "rb") as file:
    first = {each.partition(b"=")[0] for each in file.read().split(b"\0")}
print(*({"PWD", "OLDPWD", "SHLVL", "_"} - {each.decode("latin-1") for each in first}))
sys.exit(sys.version_info < (3, 7))' $$ </dev/null 2>/dev/null) || continue
        [ -z "$smssh_digest" ] || shift 6
        # -I -S: nothing of the job's PYTHON* variables, site-packages or folder may get in here, and it starts faster.
        exec "$smssh_python" -I -S -c '
import os, sys
here, digest, added, clean = sys.argv[1:5]
command = sys.argv[5:]
try:
    for module in ("_sha2", "_sha256", "hashlib"):  # the last would load OpenSSL, and is in every Python
        try:
            sha256 = __import__(module).sha256
            break
        except ImportError:
            continue
    archive = os.path.join(here, "smssh.zip")
    with open(archive, "rb") as file, open(os.path.join(here, "smssh-manifest.json"), "rb") as manifest:
        names = manifest.read()
        if digest not in ("", sha256(names).hexdigest()):
            raise ImportError("smssh-manifest.json is not the one that the request means")
        if sha256(file.read()).hexdigest().encode() not in names:
            raise ImportError("smssh.zip is not what smssh-manifest.json says")
    sys.path.insert(0, archive)
    from smssh_plugin.entrypoints import init
except BaseException as error:
    try:
        import signal
        for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(ignored, signal.SIG_DFL)
        line = "smssh: no login is possible in this job: the bundle in %s cannot be used: %s" % (here, error)
        os.write(2, (line + chr(10)).encode("utf-8", "replace"))
    finally:
        try:
            exec(clean)
        except BaseException:
            pass
        for name in added.split():
            os.environ.pop(name, None)
        os.execvp(command[0], command)
init.ADDED.update(added.split())
sys.exit(init.run(command, "run.sh", here, digest))
' "$smssh_here" "$smssh_digest" "$smssh_added" "$smssh_clean" "$@"
    done
fi
unset smssh_here smssh_python smssh_added smssh_clean
if [ -n "$smssh_digest" ]; then
    return # those words go on with the original
fi
exec "$@"
