#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# What verifying costs while fetching: bnt-fetch, which hashes every byte, against curl -O, which
# takes what comes, over the same file from the same server on this machine, in turns. The network
# is as fast as it gets here, so that all of the difference shows.
#
# Each round also times both with the file on the disk at the end (curl followed by sync), which
# bnt-fetch always sees to before a file gets its name; the plain ratio has that against it. With
# BNT_BENCH_DIR=/dev/shm there is no disk, and what is left is the hashing.

set -euo pipefail
export LC_ALL=C

usage() {
    cat <<'HELP'
usage: tests/bench/fetch.sh [BUILD_DIR]

Times bnt-fetch of BUILD_DIR/bin (default: build) beside curl -O and prints the ratio.

Environment:
  ROUNDS=5            rounds, each of which runs every step once
  BYTES=1000000000    size of the file
  BNT_BENCH_DIR       where the files go (default: a temporary folder); removed at the end
  TARGET=1.3          the ratio aimed at
HELP
}

die() {
    echo "fetch.sh: $1" >&2
    exit "${2:-1}"
}

case ${1:-} in
    -h | --help) usage; exit 0 ;;
    -*) die "$1: an option it does not know; see --help" 2 ;;
esac
rounds=${ROUNDS:-5}
bytes=${BYTES:-1000000000}
target=${TARGET:-1.3}
[[ $rounds =~ ^[1-9][0-9]*$ && $bytes =~ ^[1-9][0-9]*$ ]] || die "ROUNDS and BYTES: positive numbers" 2
tool=${1:-$(dirname "$0")/../../build}/bin/bnt-fetch
[[ -x $tool ]] || die "$tool: not there; build first, or name the build folder"
tool=$(realpath "$tool")
for needed in curl openssl python3 awk; do
    command -v "$needed" > /dev/null || die "$needed: not found"
done

work=$(mktemp -d "${BNT_BENCH_DIR:-${TMPDIR:-/tmp}}/bnt-fetch-bench.XXXXXX")
server=
finish() {
    [[ -z $server ]] || kill "$server" 2> /dev/null || true
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

mkdir "$work/served" "$work/out"
head -c "$bytes" /dev/urandom > "$work/served/model.safetensors"
hash=$(openssl dgst -sha256 -r "$work/served/model.safetensors" | cut -d ' ' -f 1)
sync

# The smallest Hub that will do; the kernel copies the file to the socket.
python3 - "$work/served/model.safetensors" "$hash" "$work/port" << 'PYTHON' &
import json, os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

path, oid, port_file = sys.argv[1:]
size = os.path.getsize(path)
listing = json.dumps({'sha': '0' * 40, 'siblings': [
    {'rfilename': 'model.safetensors', 'size': size, 'lfs': {'sha256': oid, 'size': size}}]}).encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, *args):
        pass

    def head(self, length):
        self.send_response(200)
        self.send_header('Content-Length', str(length))
        self.end_headers()
        self.wfile.flush()

    def do_HEAD(self):
        self.head(size)

    def do_GET(self):
        if self.path.startswith('/api/'):
            self.head(len(listing))
            self.wfile.write(listing)
            return
        self.head(size)
        with open(path, 'rb') as file:
            self.connection.sendfile(file)


server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
with open(port_file + '.new', 'w') as file:
    file.write(str(server.server_port))
os.rename(port_file + '.new', port_file)
server.serve_forever()
PYTHON
server=$!
for ((i = 0; i < 100; i++)); do
    [[ ! -f $work/port ]] || break
    sleep 0.1
done
[[ -f $work/port ]] || die "the server does not start"
url=http://127.0.0.1:$(< "$work/port")
export HF_ENDPOINT=$url HF_HOME=$work/out/hf no_proxy='*'
unset HF_TOKEN HF_HUB_CACHE HF_HUB_OFFLINE HF_TOKEN_PATH

fetch() {
    "$tool" -q org/model > /dev/null
}

plain_curl() {
    (cd "$work/out" && curl -sfO "$url/org/model/resolve/main/model.safetensors")
}

curl_and_sync() {
    plain_curl
    sync "$work/out/model.safetensors"
}

hash_only() {
    openssl dgst -sha256 "$work/served/model.safetensors" > /dev/null
}

# time_step NAME: adds "NAME SECONDS" to $work/times, beginning with nothing left to write back.
time_step() {
    local start stopped
    rm -rf "$work/out"
    mkdir "$work/out"
    sync
    start=${EPOCHREALTIME/./}
    "$1"
    stopped=${EPOCHREALTIME/./}
    echo "$1 $((stopped - start))" >> "$work/times"
}

for ((round = 0; round < rounds; round++)); do
    for step in fetch plain_curl curl_and_sync hash_only; do
        time_step "$step"
    done
done

echo "bnt-fetch against curl -O, $bytes bytes over loopback, $rounds rounds, $(nproc) cores," \
    "$(df --output=fstype "$work" | tail -n 1), $(date -u '+%Y-%m-%d %H:%M UTC')"
awk -v target="$target" '
    function median(name, other,    v, i, j, t) {
        for (i = 1; i <= n; i++) v[i] = took[name, i] / (other == "" ? 1e6 : took[other, i])
        for (i = 2; i <= n; i++)
            for (j = i; j > 1 && v[j - 1] > v[j]; j--) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
        return n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2
    }
    { took[$1, ++count[$1]] = $2; n = count[$1] }
    END {
        printf "bnt-fetch %.2f s, curl -O %.2f s, curl -O and sync %.2f s, sha256 alone %.2f s (medians)\n",
            median("fetch"), median("plain_curl"), median("curl_and_sync"), median("hash_only")
        r = median("fetch", "plain_curl")
        printf "ratio to curl -O: %.2f (aim <= %s: %s)\n", r, target, r <= target ? "met" : "missed"
        printf "ratio to curl -O and sync: %.2f\n", median("fetch", "curl_and_sync")
    }' "$work/times"
