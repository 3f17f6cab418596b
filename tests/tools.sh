#!/bin/sh
# Installs the Debian packages of the programs that the tests and the demonstration talk to, as far as they are missing;
# or the packages named as arguments. Needs root or sudo only when something is missing.
set -eu
PATH=$PATH:/usr/sbin:/sbin

give_up() {
    echo "tests/tools.sh: $1; please install by hand:$missing" >&2
    exit 1
}

missing=
if [ $# -gt 0 ]; then
    missing=" $*"
else
    for pair in storescu:dcmtk dciodvfy:dicom3tools Orthanc:orthanc strace:strace ojph_compress:openjph-tools; do
        command -v "${pair%:*}" >/dev/null || missing="$missing ${pair#*:}"
    done
fi
[ -n "$missing" ] || exit 0

command -v apt-get >/dev/null || give_up "this system has no apt-get"
if [ "$(id -u)" = 0 ]; then
    as_root=
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root=sudo
else
    give_up "this is neither root nor a user of sudo without a password"
fi

# Debian's orthanc starts a server on ports 4242 and 8042, now and at every boot. The tests start their own on free
# ports: while we install, Debian's own switch (policy-rc.d, exit 101) keeps services from starting.
policy=/usr/sbin/policy-rc.d
log=$(mktemp)
trap 'rm -f "$log"' EXIT
trap 'exit 1' INT TERM
if [ ! -e "$policy" ]; then
    trap 'rm -f "$log"; $as_root rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
    $as_root chmod 755 "$policy"
fi

echo "tests/tools.sh: installing$missing"
if ! {
    $as_root apt-get update || echo "apt-get update failed: trying with the lists there are"
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 \
        install --yes --no-install-recommends $missing
} >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    give_up "apt-get failed"
fi
case "$missing " in
    *" orthanc "*) $as_root update-rc.d orthanc disable >/dev/null 2>&1 || true ;;
esac
