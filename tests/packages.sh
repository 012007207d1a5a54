#!/bin/sh
# SPDX-License-Identifier: MIT
# packages.sh PACKAGE...: sees that what these Debian packages provide is there, whoever provides it, and installs what is missing by
# apt-get. It never lets apt remove a package. Without the right to install it names the packages and fails.
set -eu

# installed PACKAGE
installed() {
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# library NAME PACKAGE...: known to pkg-config, or one of the packages is there (where pkg-config is not)
library() {
    ! pkg-config --exists "$1" 2>/dev/null || return 0
    shift
    for package in "$@"; do
        ! installed "$package" || return 0
    done
    return 1
}

# compiles COMPILER HEADER
compiles() {
    echo "#include <$2>" | "$1" -E - >/dev/null 2>&1
}

# there PACKAGE: whether what it is wanted for can be had
there() {
    case $1 in
        gcc) command -v "${CC:-cc}" ;;
        libc6-dev) compiles "${CC:-cc}" stdio.h ;;
        zlib1g-dev) library zlib "$1" ;;
        libssl-dev) library libcrypto "$1" ;;
        libcurl4-openssl-dev) library libcurl "$1" libcurl4-gnutls-dev libcurl4-nss-dev ;;
        libjansson-dev) library jansson "$1" ;;
        libpcre2-dev) library libpcre2-8 "$1" ;;
        libutf8proc-dev) library libutf8proc "$1" ;;
        libcmocka-dev) library cmocka "$1" ;;
        gcc-aarch64-linux-gnu) command -v aarch64-linux-gnu-gcc ;;
        libc6-dev-arm64-cross) compiles aarch64-linux-gnu-gcc stdio.h ;;
        qemu-user) command -v qemu-aarch64 ;;
        libclang-rt-dev) installed "$1" || echo 'int main(void) { return 0; }' |
            clang -fsanitize=fuzzer-no-link,address -x c - -o /dev/null 2>/dev/null ;;
        clang | clang-format | clang-tidy | cmake | cppcheck | make | pkg-config | python3 | shellcheck) command -v "$1" ;;
        *) installed "$1" ;;
    esac >/dev/null
}

missing=
for package in "$@"; do
    there "$package" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

stop() {
    echo "make: $1; needed and missing:$missing" >&2
    exit 1
}

command -v apt-get >/dev/null || stop 'not a Debian system: install these packages or their equals'
sudo=
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || stop 'only root can install packages, and there is no sudo'
    sudo=sudo
fi
echo "make: installing$missing"
# shellcheck disable=SC2086 # packages, to be split
{
    $sudo apt-get update -qq || stop 'apt-get update fails'
    plan=$(apt-get install -s --no-install-recommends $missing) || stop 'apt-get cannot install them'
    removed=$(echo "$plan" | sed -n 's/^Remv \([^ ]*\).*/ \1/p' | tr -d '\n')
    [ -z "$removed" ] || stop "apt would remove$removed: install them yourself, or what serves as well"
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends --no-remove $missing >/dev/null ||
        stop 'apt-get cannot install them'
}
