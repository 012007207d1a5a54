#!/bin/sh
# SPDX-License-Identifier: MIT
# aarch64.sh FOLDER: puts this system's own packages for 64-bit ARM, with all that they need down to libc, below FOLDER, for
# tests/aarch64.cmake. apt-get works on lists of its own there: this system's packages and architectures stay as they are.
set -eu
root=$1
packages='libcmocka-dev libjansson-dev libpcre2-dev libssl-dev libutf8proc-dev zlib1g-dev'

# Ubuntu keeps this architecture on another server; Debian's servers have all.
ubuntu_sources() {
    mkdir -p "$root/sources"
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
        [ ! -f "$file" ] ||
            sed 's#https\{0,1\}://[a-z.]*ubuntu\.com/ubuntu/\{0,1\}\( \|$\)#http://ports.ubuntu.com/ubuntu-ports\1#' \
                "$file" >"$root/sources/$(basename "$file")"
    done
    echo "-o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts=$root/sources"
}

get() {
    # shellcheck disable=SC2086 # options, to be split
    apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User=root \
        -o Dir::State="$root/state" -o Dir::State::status="$root/status" -o Dir::Cache="$root/cache" \
        -o Debug::NoLocking=1 $sources "$@" >>"$root/log" 2>&1
}

fetch() {
    mkdir -p "$root/state/lists/partial" "$root/cache/archives/partial"
    : >"$root/status" # nothing is installed yet
    # shellcheck disable=SC2086 # packages, to be split
    get update && get install -y --no-install-recommends --download-only $packages
}

# What newer releases keep below /usr alone, and older ones beside it, comes to the same place.
unpack() {
    mkdir -p "$root/usr/lib"
    ln -sfn usr/lib "$root/lib"
    for deb in "$root"/cache/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$deb" >"$root/tar"
        tar -x --keep-directory-symlink --exclude=./usr/share --exclude=./etc -f "$root/tar" -C "$root"
    done
    rm -rf "$root/tar" "$root/cache" "$root/state"
}

[ "$(cat "$root/done" 2>/dev/null)" != "$packages" ] || exit 0
rm -rf "$root"
mkdir -p "$root"
root=$(cd "$root" && pwd)
sources=
! grep -qs '^ID=ubuntu' /etc/os-release || sources=$(ubuntu_sources)
if ! fetch; then
    echo "aarch64.sh: cannot fetch this system's packages for arm64: $(tail -n 1 "$root/log")" >&2
    exit 1
fi
unpack
echo "$packages" >"$root/done"
