#!/bin/sh
# The carrier that wraps a ContainerEntrypoint: /bin/sh run.sh ORIGINAL...
#
# Finds a Python for the entry point's parent (init.py) and becomes it, once the archive that it comes from is known to
# be the one in the manifest. Whatever is wrong before that, the original runs as if nothing had been here: same command,
# same process id.

smssh_here=${0%/*}
if [ "${SMSSH_ENABLE-}" = 1 ] && [ -r "$smssh_here/smssh.zip" ]; then
    for smssh_python in python3 python /opt/venv/bin/python3 /opt/conda/bin/python3 /usr/bin/python3 \
        /usr/local/bin/python3 /miniconda3/bin/python3; do
        smssh_python=$(command -v "$smssh_python" 2>/dev/null) || continue
        # Run it: a Python that doesn't start must not take the job with it.
        "$smssh_python" -I -S -c 'import sys; sys.exit(sys.version_info < (3, 7))' </dev/null >/dev/null 2>&1 || continue
        # -I -S: nothing of the job's PYTHON* variables, site-packages or folder may get in here, and it starts faster.
        exec "$smssh_python" -I -S -c '
import os, sys
try:
    for module in ("_sha2", "_sha256", "hashlib"):  # the last would load OpenSSL, and is in every Python
        try:
            sha256 = __import__(module).sha256
            break
        except ImportError:
            continue
    archive = os.path.join(sys.argv[1], "smssh.zip")
    with open(archive, "rb") as file, open(os.path.join(sys.argv[1], "smssh-manifest.json"), "rb") as manifest:
        if sha256(file.read()).hexdigest().encode() not in manifest.read():
            raise ImportError("smssh.zip is not what smssh-manifest.json says")
    sys.path.insert(0, archive)
    from smssh_plugin.entrypoints import init
except BaseException as error:
    try:
        import signal
        for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(ignored, signal.SIG_DFL)
        line = "smssh: no login is possible in this job: the bundle in %s cannot be used: %s" % (sys.argv[1], error)
        os.write(2, (line + chr(10)).encode("utf-8", "replace"))
    finally:
        os.execvp(sys.argv[2], sys.argv[2:])
sys.exit(init.run(sys.argv[2:], "run.sh", sys.argv[1]))
' "$smssh_here" "$@"
    done
fi
unset smssh_here smssh_python
exec "$@"
