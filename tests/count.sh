#!/bin/sh
# SPDX-License-Identifier: MIT
# Adds up the results that ctest left in ctest.log of each build folder, and fails unless every one is there and passed.
set -eu
passed=0
failed=0
skipped=0
without=
for folder in "$@"; do
    # ctest's last words: "100% tests passed, 0 tests failed out of 24"
    # shellcheck disable=SC2046 # two numbers, to be split
    set -- $(sed -n 's/.*tests passed, \([0-9]*\) tests failed out of \([0-9]*\)$/\1 \2/p' "$folder/ctest.log" 2>/dev/null)
    if [ $# -ne 2 ]; then
        without="$without $folder"
        continue
    fi
    not_run=$(grep -c '[*]Skipped ' "$folder/ctest.log" || true)
    failed=$((failed + $1))
    passed=$((passed + $2 - $1 - not_run))
    skipped=$((skipped + not_run))
done
words="$passed passed, $failed failed"
[ "$skipped" -eq 0 ] || words="$words, $skipped skipped (no GPU)"
[ -z "$without" ] || words="$words; no result in$without"
echo "$words"
[ -z "$without" ] && [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
