#!/bin/sh
# Gets what tests/web needs, as far as it is missing: a browser, an archive with DICOMweb, and OHIF's built application
# from npm, unpacked to .ohif. What cannot be had is said aloud and costs no more than those tests, which are skipped.
set -eu
cd "$(dirname "$0")/../.."

# Before another version is pinned: does its probe write a value on single slices? That of 3.13.2 writes none.
version=3.12.10
sha512=d24b85eba32af5cf5d303fbe6d4b138ccac9a57270699873f41e2e4b6e380dac008d2913c0860553dde9c4fb915108b16918bb4001e517715ed6ab9d06566b98

without() {
    echo "tests/web/tools.sh: $1; the tests of the viewer will be skipped" >&2
    exit 0
}

packages=
command -v chromium >/dev/null || packages="$packages chromium"
[ -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so ] || packages="$packages orthanc-dicomweb"
ohif=$(cat .ohif/version 2>/dev/null || true)
[ "$ohif" = "$version" ] || command -v npm >/dev/null || packages="$packages npm"
[ -z "$packages" ] || tests/tools.sh $packages || without "no$packages"
[ "$ohif" != "$version" ] || exit 0

echo "tests/web/tools.sh: getting OHIF $version"
new=$(mktemp -d)
trap 'rm -rf "$new"' EXIT
trap 'exit 1' INT TERM
archive=$new/ohif-app-$version.tgz
npm pack --loglevel=error --fetch-retries=1 --pack-destination "$new" "@ohif/app@$version" >/dev/null 2>"$new/log" </dev/null ||
    { tail -n 5 "$new/log" >&2; without "npm did not get OHIF"; }
echo "$sha512  $archive" | sha512sum --check --status || without "$archive is not the OHIF it should be"
# ort: neural networks that run in the browser, two thirds of the whole and used by none of the tests
rm -rf .ohif
mkdir .ohif
tar -xzf "$archive" -C .ohif --exclude='*.map' --exclude='package/dist/ort'
echo "$version" >.ohif/version
