#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# All that needs a GPU: the tests against the CPU, under compute-sanitizer too where it is installed,
# and the bench. Prints everything; tests/cuda/results.md keeps the latest table.
#
#     tests/cuda/run.sh [BUILD]     BUILD: the build folder, default build
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=${1:-build}/bin
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

models=()
for folder in tests/data/fairy-6m tests/data/variants/*/; do
    name=$(basename "$folder")
    golden=$(find "$folder" -name golden.safetensors)
    "$bin/bnt-convert" -q "$folder" | "$bin/bnt-pack" -q -o "$work/$name.bnt"
    models+=("$work/$name.bnt:$golden")
done
"$bin/test_cuda" "${models[@]}"
if command -v compute-sanitizer >/dev/null; then
    small=$work/2b-packed.bnt
    compute-sanitizer --tool memcheck --error-exitcode 1 "$bin/test_cuda" --small "$small"
    compute-sanitizer --tool racecheck --error-exitcode 1 "$bin/test_cuda" --small
    compute-sanitizer --tool racecheck --error-exitcode 1 "$bin/bnt-run" "$small" \
        --device cuda --token-ids 1,2,3,4,5 --temp 0 -n 3 --ignore-eos
fi
"$bin/bench_cuda"
