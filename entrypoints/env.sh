# The launcher in BASH_ENV: every bash that runs a script or a -c string reads this file first. Opt-in: it hides the
# image's own BASH_ENV, and other shells do not read it.
#
# Nothing is printed, and no variable, function or option of the shell is changed. The bash that is process 1, or the
# first one that process 1 starts, becomes run.sh with the command line that it was started with, so it is held and
# retried like any wrapped entry point. Any other bash starts the supervisor and goes on, with the bundle in front
# of PYTHONPATH as run.sh has it. In both cases BASH_ENV is not inherited: once is enough.
#
# Written for `bash -eu`, and without functions: whatever fails in here is tested.

if [ "${SMSSH_ENABLE-}" = 1 ] && [ -r "${BASH_SOURCE[0]%/*}/run.sh" ] && [ -r "/proc/$$/cmdline" ]; then
    smssh_here=${BASH_SOURCE[0]%/*}
    unset BASH_ENV
    if [ "$$" = 1 ] || { [ "$PPID" = 1 ] && ! [ -e /run/smssh/lock ] && ! [ -e "${TMPDIR:-/tmp}/smssh-$EUID/lock" ]; }; then
        smssh_command=()
        while IFS= read -r -d '' smssh_word || [ -n "$smssh_word" ]; do
            smssh_command+=("$smssh_word")
        done <"/proc/$$/cmdline" 2>/dev/null || :
        if [ "${#smssh_command[@]}" -gt 0 ] && [ -x /bin/sh ]; then
            # If exec fails after all, this bash goes on.
            shopt -q execfail && smssh_word=1 || smssh_word=0
            shopt -s execfail
            exec /bin/sh "$smssh_here/run.sh" "${smssh_command[@]}" || :
            [ "$smssh_word" = 1 ] || shopt -u execfail
        fi
    else
        for smssh_word in python3 python /opt/venv/bin/python3 /opt/conda/bin/python3 /usr/bin/python3 \
            /usr/local/bin/python3 /miniconda3/bin/python3; do
            smssh_word=$(command -v "$smssh_word" 2>/dev/null) || continue
            "$smssh_word" -I -S -c 'import sys; sys.exit(sys.version_info < (3, 7))' </dev/null >/dev/null 2>&1 || continue
            # It says where the bundle is then.
            smssh_here=$("$smssh_word" -I -S -c '
import os, sys
try:
    sys.path.insert(0, os.path.join(sys.argv[1], "smssh.zip"))
    from smssh_plugin.entrypoints import boot
    boot.move_bundle()
    boot.start_supervisor("BASH_ENV", boot.entry_process())
finally:
    print(boot.moved_path(sys.argv[1]))
' "$smssh_here" </dev/null 2>/dev/null) || smssh_here=${BASH_SOURCE[0]%/*}
            break
        done
        export PYTHONPATH="$smssh_here${PYTHONPATH:+:$PYTHONPATH}"
    fi
    unset smssh_here smssh_command smssh_word
fi
