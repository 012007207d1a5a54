#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# All that needs a GPU: the tests against the CPU, under compute-sanitizer too where it is installed,
# bnt-bench's own tests, and what it measures of the products and of a model of
# BitNet-b1.58-2B-4T's shape with random weights, with and without the int8 copy of its output
# matrix, and of one of Ternary-Bonsai-1.7B's, with scales by groups of 128 and with one a matrix.
# Prints everything; tests/cuda/results.md keeps the latest tables. Needs 6 GB of disk in TMPDIR.
#
#     tests/cuda/run.sh [BUILD]     BUILD: the build folder, default build
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=${1:-build}/bin
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# pack CHECKPOINT NAME [OPTION]...
pack() {
    "$bin/bnt-convert" -q "$1" | "$bin/bnt-pack" -q "${@:3}" -o "$work/$2.bnt"
}

models=()
for folder in tests/data/fairy-6m tests/data/variants/*/; do
    name=$(basename "$folder")
    golden=$(find "$folder" -name golden.safetensors)
    pack "$folder" "$name"
    pack "$folder" "$name-int8" --embedding int8
    models+=("$work/$name.bnt:$golden" "$work/$name-int8.bnt")
done
"$bin/test_cuda" "${models[@]}"
if command -v compute-sanitizer >/dev/null; then
    small=$work/2b-packed.bnt
    compute-sanitizer --tool memcheck --error-exitcode 1 "$bin/test_cuda" --small "$small"
    # racecheck does not know copies that arrive at a barrier by themselves (cp.async.mbarrier.arrive),
    # by which the prompt's products on Hopper wait for weights, and takes them for races: it leaves
    # these kernels out.
    race=(compute-sanitizer --tool racecheck --kernel-name-exclude kns=gemm --error-exitcode 1)
    "${race[@]}" "$bin/test_cuda" --small
    for model in "$small" "$work/2b-packed-int8.bnt"; do
        "${race[@]}" "$bin/bnt-run" "$model" --device cuda --token-ids 1,2,3,4,5 --temp 0 -n 3 --ignore-eos
    done
fi
BNT_BIN=$(realpath "$bin") python3 -B tests/cli/test_bench.py Gpu

"$bin/bnt-bench" --device cuda --gemv
"$bin/bnt-synth" --like 2b-4t --form packed --quiet -o "$work/2b-4t"
pack "$work/2b-4t" 2b-4t
pack "$work/2b-4t" 2b-4t-int8 --embedding int8
for name in 2b-4t 2b-4t-int8; do
    "$bin/bnt-bench" --device cuda "$work/$name.bnt"
done
for group in 128 matrix; do
    "$bin/bnt-synth" --like bonsai-1.7b --form levels --group "$group" --quiet -o "$work/bonsai"
    pack "$work/bonsai" "bonsai-$group"
    rm -r "$work/bonsai"
    "$bin/bnt-bench" --device cuda "$work/bonsai-$group.bnt"
done
