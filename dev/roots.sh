#!/bin/sh
# Make Debian roots below .work/roots, in which tests/hooks run the servers as in containers of other images.
#
#     dev/roots.sh [NAME ...]      needs root and mmdebstrap; a root that is there is left alone
#
# bullseye, bookworm and trixie have OpenSSH 8.4, 9.2 and 10.0; plain is bookworm without any of OpenSSH, but with
# the packages of its server in apt's cache. The tests that want a root that is not there are skipped, and say so.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$here/.work/roots"

make_root() {
    name=$1 suite=$2 packages=$3
    shift 3
    target=$here/.work/roots/$name
    [ ! -d "$target" ] || return 0
    rm -rf "$target.new"
    mmdebstrap --quiet --variant=apt --include="$packages" \
        --aptopt='Acquire::Retries "3"' --aptopt='Acquire::Check-Valid-Until "false"' \
        "$@" "$suite" "$target.new"
    mv "$target.new" "$target"
}

for name in ${*:-plain trixie bullseye bookworm}; do
    case $name in
        plain)
            make_root plain bookworm python3 --skip=cleanup/apt --customize-hook='chroot "$1" \
                apt-get -qq install -y --no-install-recommends --download-only openssh-server'
            ;;
        bullseye | bookworm | trixie) make_root "$name" "$name" python3,openssh-server,rsync,zsh,fish,tcsh ;;
        *) echo "no such root: $name" >&2; exit 2 ;;
    esac
done
