#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Write the sample files: OUTDIR/good/NN-what.bnt and OUTDIR/bad/RNN-what.bnt, the same bytes on every machine.

A bad file is a good one with one edit, its checksums made right again, so that it breaks the rule in its name and
no other (R18-R19-… breaks both). One of them takes PCRE2 to notice: bad/R26-pattern-does-not-compile.bnt. Sections
lie on pages of their own, so that no file is below 20 KB: at most five a rule keep the folder under 5 MB, --all: 15.
"""
import argparse
import os
import sys

sys.path[:0] = [os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'bntpy')]

import bad  # noqa: E402 (they need the path above)
import good  # noqa: E402

BAD_PER_RULE = 5


def write_all(folder, samples):
    os.makedirs(folder, exist_ok=True)
    for name, raw in samples:
        with open(os.path.join(folder, name + '.bnt'), 'wb') as file:
            file.write(raw)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--all', action='store_true', help='every bad sample, not only five a rule')
    parser.add_argument('outdir')
    options = parser.parse_args()
    write_all(os.path.join(options.outdir, 'good'), good.samples())
    write_all(os.path.join(options.outdir, 'bad'), bad.samples(None if options.all else BAD_PER_RULE))
    return 0


if __name__ == '__main__':
    sys.exit(main())
