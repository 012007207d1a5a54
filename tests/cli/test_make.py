#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The scripts that make calls. tests/packages.sh installs only what is missing, never at the cost of a package that is there; the system is
played by scripts in a folder that is all of PATH. tests/count.sh adds up the results of all stages."""
import os
import shutil
import subprocess

import tools

PACKAGES = os.path.join(tools.ROOT, 'tests', 'packages.sh')
COUNT = os.path.join(tools.ROOT, 'tests', 'count.sh')


class Packages(tools.Case):
    def setUp(self):
        super().setUp()
        for name in ('sh', 'sed', 'tr', 'cat', 'env'):
            os.symlink(shutil.which(name), self.path(name))
        self.write('id', 'echo 0')
        self.write('cc', 'exit 0')
        self.write('pkg-config', 'case " $KNOWN " in *" $2 "*) exit 0;; esac; exit 1')
        self.write('dpkg-query', 'case " $INSTALLED " in *" $3 "*) echo installed;; *) exit 1;; esac')
        self.write('apt-get', 'echo "$*" >>"$LOG"; case " $* " in *" -s "*) echo "Inst x (1)"; echo "$PLAN";; esac')

    def write(self, name, text):
        os.chmod(self.file(name, ('#!/bin/sh\n%s\n' % text).encode()), 0o755)

    def need(self, *packages, known='', installed='', plan='', code=0):
        """What apt-get was told to do, and what was said."""
        log = self.path('log')
        env = {'PATH': self.dir, 'KNOWN': known, 'INSTALLED': installed, 'PLAN': plan, 'LOG': log}
        done = subprocess.run([self.path('sh'), PACKAGES, *packages], env=env, capture_output=True, timeout=tools.TIMEOUT, check=False)
        said = (done.stdout + done.stderr).decode()
        self.assertEqual(done.returncode, code, said)
        calls = tools.read(log).decode().splitlines() if os.path.exists(log) else []
        if calls:
            os.remove(log)
        return calls, said

    def test_nothing_missing(self):
        self.assertEqual(self.need('gcc', 'libc6-dev', 'zlib1g-dev', 'libssl-dev', known='zlib libcrypto'), ([], ''))

    def test_only_what_is_missing(self):
        calls, said = self.need('gcc', 'zlib1g-dev', 'libjansson-dev', 'libcmocka-dev', known='zlib')
        self.assertIn('libjansson-dev libcmocka-dev', said)
        self.assertNotIn('zlib', said)
        self.assertEqual([call.split()[0] for call in calls], ['update', 'install', 'install'])
        self.assertIn(' -s ', calls[1])
        self.assertIn(' --no-remove ', calls[2])
        self.assertTrue(calls[2].endswith(' libjansson-dev libcmocka-dev'))

    def test_either_libcurl(self):
        self.assertEqual(self.need('libcurl4-openssl-dev', known='libcurl'), ([], ''))
        os.remove(self.path('pkg-config'))
        for flavour in ('openssl', 'gnutls'):
            calls, said = self.need('libcurl4-openssl-dev', 'pkg-config', installed='libcurl4-%s-dev' % flavour)
            self.assertTrue(calls[2].endswith(' pkg-config'), said)

    def test_nothing_is_removed(self):
        calls, said = self.need('libjansson-dev', plan='Remv libcurl4-gnutls-dev [7.88.1]\nRemv other [1]', code=1)
        self.assertEqual(len(calls), 2)  # the update and the simulation
        for name in ('libcurl4-gnutls-dev', 'other', 'libjansson-dev'):
            self.assertIn(name, said)

    def test_apt_that_fails(self):
        self.write('apt-get', 'exit 100')
        self.assertIn('libjansson-dev', self.need('libjansson-dev', code=1)[1])

    def test_ordinary_user(self):
        self.write('id', 'echo 1000')
        calls, said = self.need('libjansson-dev', 'libcmocka-dev', code=1)
        self.assertEqual(calls, [])
        self.assertIn('libjansson-dev libcmocka-dev', said)
        self.write('sudo', 'echo sudo >>"$LOG"; exec "$@"')
        self.assertEqual([call.split()[0] for call in self.need('libjansson-dev')[0]], ['sudo', 'update', 'install', 'sudo', 'install'])

    def test_another_system(self):
        os.remove(self.path('apt-get'))
        self.assertIn('libjansson-dev', self.need('libjansson-dev', code=1)[1])


class Count(tools.Case):
    def count(self, *results):
        folders = []
        for i, text in enumerate(results):
            folders.append(self.folder(str(i)))
            if text:
                tools.write(os.path.join(folders[-1], 'ctest.log'), text.encode())
        done = subprocess.run(['sh', COUNT, *folders], capture_output=True, timeout=tools.TIMEOUT, check=False)
        return done.returncode, done.stdout.decode()

    def test_all_passed(self):
        self.assertEqual(self.count('100% tests passed, 0 tests failed out of 24\n',
                                    '3/3 Test #3: cuda ....***Skipped   0.01 sec\n100% tests passed, 0 tests failed out of 3\n'),
                         (0, '26 passed, 0 failed, 1 skipped (no GPU)\n'))

    def test_some_failed(self):
        self.assertEqual(self.count('90% tests passed, 2 tests failed out of 20\n', '100% tests passed, 0 tests failed out of 4\n'),
                         (1, '22 passed, 2 failed\n'))

    def test_a_stage_without_result(self):
        """It did not compile, say: the others count all the same."""
        code, said = self.count('', '100% tests passed, 0 tests failed out of 4\n')
        self.assertEqual(code, 1)
        self.assertTrue(said.startswith('4 passed, 0 failed; no result in '), said)


if __name__ == '__main__':
    tools.main()
