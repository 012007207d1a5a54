#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# How long the offline side takes on a checkpoint of BitNet-b1.58-2B-4T's shape, and how much
# memory. Nothing that must read every byte and vouch for it can be much faster than hashing the
# bytes, so `openssl dgst -sha256` over the same file, in the same round, is the yardstick of each
# step; and nothing that must leave the output on the disk is faster than dd with fsync, which
# stands below.
#
# Ratios are medians of the rounds' own ratios, peaks are the highest of all rounds. A target that
# is missed is marked and is no failure; a tool that fails is.

set -euo pipefail
export LC_ALL=C

usage() {
    cat <<'HELP'
usage: tests/bench/offline.sh [--packed] [BUILD_DIR]

Times bnt-convert | bnt-pack and bnt-verify of BUILD_DIR/bin (default: build) beside openssl.
  --packed          a second table, for a checkpoint of packed U8 codes

Environment:
  ROUNDS=3                 rounds, each of which runs every step once
  BNT_BENCH_DIR            where the checkpoints are kept for the next time (default: a temporary
                           folder, removed at the end; 6 GB are needed, 8 with --packed)
  BNT_BENCH_LIKE=2b-4t     any other shape that bnt-synth --like knows
  BNT_BENCH_THREADS=2      -j of bnt-convert and bnt-pack
  TARGET_CONVERT=3 TARGET_VERIFY=2 TARGET_ANON_MB=400
HELP
}

die() {
    echo "offline.sh: $1" >&2
    exit "${2:-1}"
}

rounds=${ROUNDS:-3}
like=${BNT_BENCH_LIKE:-2b-4t}
threads=${BNT_BENCH_THREADS:-2}
target_convert=${TARGET_CONVERT:-3}
target_verify=${TARGET_VERIFY:-2}
target_anon=${TARGET_ANON_MB:-400}
forms=(masters)
build=

for argument in "$@"; do
    case $argument in
        --packed) forms=(masters packed) ;;
        -h | --help) usage; exit 0 ;;
        -*) die "$argument: an option it does not know; see --help" 2 ;;
        *) [[ -z $build ]] || die "$argument: one BUILD_DIR is enough" 2
           build=$argument ;;
    esac
done
[[ $rounds =~ ^[1-9][0-9]*$ ]] || die "ROUNDS=$rounds: not a positive number" 2
bin=${build:-$(dirname "$0")/../../build}/bin
for tool in "$bin"/bnt-{synth,convert,pack,verify}; do
    [[ -x $tool ]] || die "$tool: not there; build first, or name the build folder"
done
for tool in openssl dd awk lscpu mkfifo; do
    command -v "$tool" > /dev/null || die "$tool: not found"
done

# One folder for what is kept and, inside it, one for what never is.
if [[ -n ${BNT_BENCH_DIR:-} ]]; then
    mkdir -p "$BNT_BENCH_DIR"
    kept=$BNT_BENCH_DIR
    work=$(mktemp -d "$kept/offline.XXXXXX")
else
    kept=$(mktemp -d "${TMPDIR:-/tmp}/bnt-offline.XXXXXX")
    work=$kept
fi

finish() {
    local pids
    mapfile -t pids < <(jobs -p)
    ((${#pids[@]} == 0)) || kill "${pids[@]}" 2> /dev/null || true
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# A pipe that nobody writes to: reading it with a timeout sleeps without starting a process.
mkfifo "$work/pipe" "$work/never"
exec {never}<> "$work/never"

# Samples the peaks of processes every 50 ms until all have ended: lines of NAME ANON FILE TOTAL, in
# KiB. Anonymous and file-backed pages peak apart; VmHWM is the kernel's own peak of their sum.
sample() {
    local -A anon=() file=() total=()
    local pair pid key value rest alive=1
    while ((alive)); do
        alive=0
        for pair in "$@"; do
            pid=${pair#*=}
            while read -r key value rest; do
                case $key in
                    RssAnon:) alive=1; ((value <= ${anon[$pid]:-0})) || anon[$pid]=$value ;;
                    RssFile:) ((value <= ${file[$pid]:-0})) || file[$pid]=$value ;;
                    VmHWM:) ((value <= ${total[$pid]:-0})) || total[$pid]=$value ;;
                esac
            done 2> /dev/null < "/proc/$pid/status" || true
        done
        read -rt 0.05 -u "$never" rest || true
    done 2> /dev/null
    for pair in "$@"; do
        pid=${pair#*=}
        echo "${pair%%=*} ${anon[$pid]:-0} ${file[$pid]:-0} ${total[$pid]:-0}"
    done
}

# Waits for the NAME=PID processes of one step, with their peaks going to $work/peaks.
wait_sampled() {
    local pair failed=
    sample "$@" >> "$work/peaks" &
    local sampler=$!
    for pair in "$@"; do
        wait "${pair#*=}" || failed=$failed" ${pair%%=*}"
    done
    stopped=${EPOCHREALTIME/./}
    wait "$sampler"
    [[ -z $failed ]] || { tail -n 20 "$work/log" >&2; die "failed:$failed"; }
}

# Steps: each leaves its end in $stopped (microseconds), so that no sampling counts as its time.

hash_file() {
    openssl dgst -sha256 "$1" > /dev/null 2>> "$work/log" || die "openssl failed on $1"
    stopped=${EPOCHREALTIME/./}
}

convert_and_pack() {
    "$bin/bnt-convert" -j "$threads" "$checkpoint" > "$work/pipe" 2>> "$work/log" &
    local convert=$!
    "$bin/bnt-pack" -j "$threads" -o "$work/m.bnt" < "$work/pipe" > /dev/null 2>> "$work/log" &
    wait_sampled "convert=$convert" "pack=$!"
}

verify() {
    "$bin/bnt-verify" "$work/m.bnt" > /dev/null 2>> "$work/log" &
    wait_sampled "verify=$!"
}

raw_write() {
    dd if=/dev/zero of="$work/raw" bs=4M iflag=count_bytes count="$(stat -c %s "$work/m.bnt")" \
        conv=fsync 2>> "$work/log" || { tail -n 20 "$work/log" >&2; die "dd failed"; }
    stopped=${EPOCHREALTIME/./}
    rm -f "$work/raw"
}

# time_step NAME COMMAND...: adds "NAME SECONDS" to $work/times.
time_step() {
    local name=$1 start
    shift
    start=${EPOCHREALTIME/./}
    "$@"
    awk -v name="$name" -v us=$((stopped - start)) 'BEGIN { printf "%s %.6f\n", name, us / 1e6 }' \
        >> "$work/times"
}

# The checkpoint, made unless it is kept from the last time, and then in the page cache.
prepare() {
    local form=$1
    checkpoint=$kept/${like//\//_}-$form # the shape may be the path of a config.json
    if [[ ! -f $checkpoint/config.json || ! -f $checkpoint/model.safetensors ]]; then
        "$bin/bnt-synth" --like "$like" --form "$form" --quiet -o "$checkpoint"
        sync # or the write-back of the checkpoint would count as somebody's time
    fi
    cat "$checkpoint/model.safetensors" > /dev/null
}

measure() {
    local round
    : > "$work/times"
    : > "$work/peaks"
    for ((round = 0; round < rounds; round++)); do
        rm -f "$work/m.bnt"
        time_step hash_source hash_file "$checkpoint/model.safetensors"
        time_step convert convert_and_pack
        time_step hash_output hash_file "$work/m.bnt"
        time_step verify verify
        time_step raw_write raw_write
    done
}

report() {
    echo
    echo "### $like, $1: model.safetensors $(stat -c %s "$checkpoint/model.safetensors") bytes," \
        "m.bnt $(stat -c %s "$work/m.bnt") bytes"
    echo
    awk -v convert_limit="$target_convert" -v verify_limit="$target_verify" \
        -v anon_limit="$target_anon" -v threads="$threads" '
        function sort(values, n,    i, j, t) {
            for (i = 2; i <= n; i++)
                for (j = i; j > 1 && values[j - 1] > values[j]; j--) {
                    t = values[j]; values[j] = values[j - 1]; values[j - 1] = t
                }
        }
        function median(values, n) {
            sort(values, n)
            return n % 2 ? values[(n + 1) / 2] : (values[n / 2] + values[n / 2 + 1]) / 2
        }
        function seconds(name,    values, i, m) {
            for (i = 1; i <= n; i++) values[i] = took[name, i]
            m = median(values, n)
            return sprintf("%.2f (%.2f-%.2f)", m, values[1], values[n])
        }
        function ratio(name, yardstick,    values, i) {
            for (i = 1; i <= n; i++) values[i] = took[name, i] / took[yardstick, i]
            return median(values, n)
        }
        function plain(title, name) {
            printf "| %s | %s | | | | |\n", title, seconds(name)
        }
        function judged(title, name, yardstick, letter, limit, anon, peaks, total,    r, word) {
            r = ratio(name, yardstick)
            word = r <= limit && anon <= anon_limit ? "met" : "**missed**:"
            if (r > limit) word = word " time"
            if (anon > anon_limit) word = word " memory"
            printf "| %s | %s | %.2f x %s | <= %.2f x, <= %d MB anon: %s | %s | %s |\n", title,
                seconds(name), r, letter, limit, anon_limit, word, peaks, total
        }
        function mb(kib) { return kib * 1024 / 1e6 }
        function top(tool) { return sprintf("%s %.0f", tool, mb(anon[tool])) }
        function rest(tool) {
            return sprintf("%s %.0f, %.0f", tool, mb(file[tool]), mb(total[tool]))
        }
        NF == 2 { count[$1]++; took[$1, count[$1]] = $2; n = count[$1] }
        NF == 4 {
            if ($2 > anon[$1]) anon[$1] = $2
            if ($3 > file[$1]) file[$1] = $3
            if ($4 > total[$1]) total[$1] = $4
        }
        END {
            print "| step | seconds: median (min-max) | ratio | target | peak anon MB |" \
                " peak file, VmHWM MB |"
            print "|---|---|---|---|---|---|"
            plain("a. openssl dgst -sha256 model.safetensors", "hash_source")
            judged("b. bnt-convert -j " threads " \\| bnt-pack -j " threads, "convert",
                "hash_source", "a", convert_limit, mb(anon["convert"] + anon["pack"]),
                top("convert") ", " top("pack"), rest("convert") "; " rest("pack"))
            plain("c. openssl dgst -sha256 m.bnt", "hash_output")
            judged("d. bnt-verify m.bnt", "verify", "hash_output", "c", verify_limit,
                mb(anon["verify"]), top("verify"), rest("verify"))
            plain("e. dd conv=fsync of as many bytes as m.bnt has", "raw_write")
            printf "\nb / e (the floor of writing) %.2f. %d round%s; the MB of b are judged as" \
                " the sum of both tools.\n", ratio("convert", "raw_write"), n, (n > 1 ? "s" : "")
        }' "$work/times" "$work/peaks"
}

echo "Offline side, $(date -u '+%Y-%m-%d %H:%M UTC')"
echo
echo "- machine: $(lscpu | sed -n 's/^Model name: *//p' | head -n 1), $(nproc) cores," \
    "$(awk '/^MemTotal/ { printf "%.0f", $2 * 1024 / 1e9 }' /proc/meminfo) GB, $(uname -sr)"
echo "- folder: $kept ($(df --output=fstype "$kept" | tail -n 1))"
for tool in bnt-synth bnt-convert bnt-pack bnt-verify; do
    version=$("$bin/$tool" --version 2> /dev/null | head -n 1) || true
    echo "- ${version:-$tool of an unknown version}"
done
echo "- $(openssl version)"

for form in "${forms[@]}"; do
    prepare "$form"
    measure
    report "$form"
    [[ -n ${BNT_BENCH_DIR:-} ]] || rm -rf "$checkpoint" # the next form needs the room
done
