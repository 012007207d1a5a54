#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""bnt-fetch against a Hub of our own on 127.0.0.1 (hub.py): what it fetches, how it survives what goes wrong, what it
refuses, and where the files end up. No byte leaves this machine."""
import errno
import fcntl
import functools
import hashlib
import json
import os
import pwd
import resource
import shutil
import signal
import socket
import stat
import subprocess
import threading
import time
import unittest
from collections import namedtuple

import tools
from hub import Hub, git_sha1, sha256, url_of
from tools import Case

WEIGHTS = bytes(range(256)) * 16384  # 4 MB
SMALL = bytes(range(255, -1, -1)) * 256
FILES = {
    'config.json': b'{"architectures": ["BitNetForCausalLM"]}\n',
    'generation_config.json': b'{}',
    'model.safetensors': WEIGHTS,
    'tokenizer.json': SMALL,
    'README.md': b'# hello\n',
    'LICENSE.txt': b'do as you like\n',
    'special_tokens_map.json': b'',
    'consolidated.safetensors': b'not needed',
    'adapter_model.safetensors': b'not needed',
    'model.fp32.safetensors': b'not needed',
    'model-00001-of-00002.safetensors': b'of another export',
    'model.safetensors.index.json': b'{"weight_map": {"a": "model-00001-of-00002.safetensors"}}',
    'model.fp32.safetensors.index.json': b'{}',
    'pytorch_model.bin': b'not needed',
    'onnx/model.onnx': b'nor this',
    'onnx/deep/extra.json': b'[1]',
}
DEFAULT = ['LICENSE.txt', 'README.md', 'config.json', 'generation_config.json', 'model.safetensors',
           'special_tokens_map.json', 'tokenizer.json']
LFS = ['model.safetensors', 'tokenizer.json']
BARE = {'config.json': b'{}', 'tokenizer.json': b'{"version": "1.0"}'}  # all that is needed, but for the weights
Stamp = namedtuple('Stamp', 'inode mtime')
TOKEN = 'hf_secret'


def stamp(path):
    st = os.stat(path)
    return Stamp(st.st_ino, st.st_mtime_ns)


def contents(folder):
    """{path below folder: bytes}, links followed; without what --local-dir keeps for itself."""
    found = {}
    for at, dirs, names in os.walk(folder):
        if '.cache' in dirs:
            dirs.remove('.cache')
        for name in names:
            path = os.path.join(at, name)
            found[os.path.relpath(path, folder)] = tools.read(path)
    return found


def sharded(shards, extra=()):
    """A repository's files: weights in shards, {name: bytes}, with their index."""
    index = {'metadata': {}, 'weight_map': {'tensor%d' % i: name for i, name in enumerate(shards)}}
    return {**BARE, **shards, **dict(extra), 'model.safetensors.index.json': json.dumps(index).encode()}


def wait_for(condition, seconds=tools.TIMEOUT):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError('waited %d s in vain' % seconds)
        time.sleep(0.01)


def has_home():
    """In a container a user may have a number and no entry."""
    try:
        return os.path.isdir(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return False


class Fetch(Case):
    """A Hub with one repository, and an empty home."""

    def setUp(self):
        super().setUp()
        self.hub = self.enter(Hub())
        self.repo = self.hub.add('org/model', FILES, lfs=LFS, revisions=('main', 'v1.0', 'refs/pr/1'))
        self.home = self.path('hf')
        self.cache = os.path.join(self.home, 'hub')
        self.folder = os.path.join(self.cache, 'models--org--model')
        self.snapshot = os.path.join(self.folder, 'snapshots', self.repo.commit)

    def enter(self, context):
        self.addCleanup(context.__exit__, None, None, None)
        return context.__enter__()

    def env(self, **changes):
        """Nothing of the caller's Hub settings or proxies; waits shortened to a hundredth."""
        env = {key: value for key, value in tools.environment().items()
               if not key.startswith(('HF_', 'XDG_', 'BNT_FETCH')) and not key.lower().endswith('_proxy')}
        env.pop('SSL_CERT_FILE', None)
        env.update(HOME=self.dir, HF_HOME=self.home, HF_ENDPOINT=self.hub.url, BNT_FETCH_RETRY_SCALE='0.01',
                   HF_HUB_DOWNLOAD_TIMEOUT='5', no_proxy='*')
        env.update(changes)
        return {key: value for key, value in env.items() if value is not None}

    def fetch(self, *args, env=(), repo='org/model', **options):
        """It succeeds without a word; returns the folder that it prints."""
        out = self.ok('bnt-fetch', repo, *args, env=self.env(**dict(env)), **options).decode()
        self.assertEqual(out.count('\n'), 1)
        return out[:-1]

    def fails(self, *args, names=(), env=(), repo='org/model', **options):
        return self.refused('bnt-fetch', repo, *args, names=names, env=self.env(**dict(env)), **options)

    def blob(self, path, repo=None):
        return os.path.join(self.folder, 'blobs', (repo or self.repo).oid(path))

    def partial(self, path):
        return self.blob(path) + '.incomplete'

    def ranges(self):
        return [r.headers.get('range') for r in self.hub.seen('cdn', 'GET', self.repo.oid('model.safetensors'))]

    def weights_only(self):
        """Fetches only the weights, which shortens what a test has to look at."""
        return self.fetch('--include', 'model.safetensors')

    def assertSnapshot(self, names=DEFAULT):
        self.assertEqual(contents(self.snapshot), {name: FILES[name] for name in names})

    def assertNothingNamed(self):
        """No file of the repository has a final name: neither blob nor link nor ref."""
        for sub in ('snapshots', 'refs'):
            for at, _, names in os.walk(os.path.join(self.folder, sub)):
                self.assertEqual(names, [], at)
        blobs = os.path.join(self.folder, 'blobs')
        if os.path.isdir(blobs):
            self.assertEqual([n for n in os.listdir(blobs) if not n.endswith('.incomplete')], [])


class Protocol(Fetch):

    def test_fetches_what_a_conversion_needs(self):
        self.assertEqual(self.fetch(), self.snapshot)
        self.assertSnapshot()

    def test_fetches_what_says_how_a_text_becomes_a_vector(self):
        files = {**BARE, 'model.safetensors': b'w', 'modules.json': b'[]', '1_Pooling/config.json': b'{}'}
        more = {'2_Dense/config.json': b'no', '1_Pooling/other.json': b'no', 'onnx/config.json': b'no', 'a/modules.json': b'no',
                'onnx/model.safetensors': b'no'}
        self.hub.add('org/vectors', {**files, **more})
        self.assertEqual(contents(self.fetch(repo='org/vectors')), files)
        self.assertEqual(contents(self.fetch('--local-dir', self.path('there'), repo='org/vectors')), files)

    def test_include(self):
        self.fetch('--include', '*.json', '--include', 'onnx/*.onnx')
        self.assertSnapshot([name for name in FILES if name.endswith('.json')] + ['onnx/model.onnx'])

    def test_include_folder_and_everything(self):
        self.fetch('--include', 'onnx/')
        self.assertSnapshot(['onnx/deep/extra.json', 'onnx/model.onnx'])
        self.fetch('--include', '*')
        self.assertSnapshot(list(FILES))

    def test_include_without_a_match(self):
        self.fails('--include', 'absent.json', names=['org/model', "'absent.json'"])
        self.fails('--include', '*.gguf', names=['org/model', 'no file matches'])

    def test_revisions(self):
        for revision, quoted in (('v1.0', 'v1.0'), ('refs/pr/1', 'refs%2Fpr%2F1')):
            self.assertEqual(self.fetch('--revision', revision), self.snapshot)
            self.assertTrue(self.hub.seen('hub', 'GET', '/api/models/org/model/revision/%s?' % quoted))
            self.assertEqual(tools.read(os.path.join(self.folder, 'refs', revision)), self.repo.commit.encode())
        shutil.rmtree(os.path.join(self.folder, 'refs'))
        self.assertEqual(self.fetch('--revision', self.repo.commit), self.snapshot)
        self.assertFalse(os.path.exists(os.path.join(self.folder, 'refs')))

    def test_repository_without_organisation(self):
        repo = self.hub.add('gpt2', {'config.json': b'{}'})
        self.assertEqual(self.fetch('--include', '*', repo='gpt2'),
                         os.path.join(self.cache, 'models--gpt2', 'snapshots', repo.commit))

    def test_json(self):
        report = json.loads(self.ok('bnt-fetch', 'org/model', '--json', env=self.env()))
        self.assertEqual((report['commit'], report['folder'], report['license'], report['revision']),
                         (self.repo.commit, self.snapshot, 'mit', 'main'))
        self.assertEqual(sorted(f['path'] for f in report['files']), DEFAULT)
        for file in report['files']:
            key = 'sha256' if file['path'] in LFS else 'git_sha1'
            self.assertEqual((file[key], file['size'], file['fetched']),
                             (self.repo.oid(file['path']), len(FILES[file['path']]), True))
        again = json.loads(self.ok('bnt-fetch', 'org/model', '--json', env=self.env()))
        self.assertFalse(any(file['fetched'] for file in again['files']))

    def test_large_listing_by_model_info(self):
        many = {'sub/%04d.json' % i: b'%d' % i for i in range(2500)}
        self.hub.add('org/many', {**many, 'config.json': b'{}'})
        folder = self.fetch('--include', 'sub/24*.json', repo='org/many')
        self.assertEqual(len(contents(folder)), 100)

    def test_large_listing_by_pages(self):
        many = {'sub/%04d.json' % i: b'%d' % i for i in range(2500)}
        self.hub.add('org/many', {**many, 'config.json': b'{}', 'w.safetensors': SMALL}, lfs=['w.safetensors'])
        self.hub.tree_only = True
        folder = self.fetch('--include', 'sub/?499.json', '--include', 'w.*', '--include', 'sub/0000.json',
                            repo='org/many')
        self.assertEqual(sorted(contents(folder)), ['sub/0000.json', 'sub/0499.json', 'sub/1499.json',
                                                    'sub/2499.json', 'w.safetensors'])
        self.assertEqual(len(self.hub.seen('hub', 'GET', '/tree/')), 3)

    def test_next_page_elsewhere_is_refused(self):
        self.hub.tree_only, self.hub.page, self.hub.next_page = True, 2, self.hub.cdn_url + '/more'
        self.fails(names=['org/model', 'elsewhere'])
        self.assertEqual(self.hub.seen('cdn'), [])

    def test_pages_without_end(self):
        self.hub.tree_only, self.hub.page = True, 1
        self.hub.next_page = '/api/models/org/model/tree/%s?recursive=true' % self.repo.commit
        self.fails(names=['org/model', 'without end'])
        self.assertEqual(len(self.hub.seen('hub', 'GET', '/tree/')), 1)

    def test_listing_without_end(self):
        self.hub.info = {'padding': 'x' * (64 << 20)}
        self.fails(names=['org/model', 'the listing is longer than 64 MB'])

    def test_numbers_that_fit_nothing(self):
        """As in model info that passes on what a tokenizer_config.json says."""
        self.hub.info = {'config': {'tokenizer_config': {'model_max_length': 1000000000000000019884624838656}}}
        self.fetch()
        self.assertSnapshot()

    def test_renamed_repository(self):
        self.hub.renamed['old/name'] = 'org/model'
        self.hub.token = TOKEN
        folder = self.fetch(repo='old/name', env={'HF_TOKEN': TOKEN})
        self.assertEqual(folder, os.path.join(self.cache, 'models--old--name', 'snapshots', self.repo.commit))
        self.assertEqual(sorted(contents(folder)), DEFAULT)

    def test_names_that_need_quoting(self):
        name = 'a b#c?d%41 ü.json'
        repo = self.hub.add('org/odd', {name: b'odd'})
        folder = self.fetch('--include', '*', repo='org/odd')
        self.assertEqual(contents(folder), {name: b'odd'})
        self.assertTrue(self.hub.seen('hub', 'GET', url_of(self.hub, repo, name)))

    def test_weak_etags(self):
        self.hub.weak = True
        self.fetch()
        self.assertSnapshot()

    def test_several_at_a_time_and_one(self):
        for jobs in ('1', '3', '64'):
            shutil.rmtree(self.home, ignore_errors=True)
            self.fetch('-j', jobs)
            self.assertSnapshot()

    def test_files_in_parallel(self):
        names = ['%d.safetensors' % i for i in range(4)]
        self.hub.add('org/shards', sharded({name: name.encode() for name in names}), lfs=names)
        together = threading.Barrier(4, timeout=tools.TIMEOUT)  # each waits for the other three
        self.hub.fail(together=together, times=4)
        self.fetch(repo='org/shards')
        self.assertFalse(together.broken)

    def test_the_same_bytes_under_two_names(self):
        weights = {'a.safetensors': WEIGHTS, 'b.safetensors': WEIGHTS, 'c.safetensors': WEIGHTS}
        files = sharded(weights)
        self.hub.add('org/twice', files, lfs=weights)
        self.assertEqual(contents(self.fetch(repo='org/twice')), files)
        self.assertEqual(len(self.hub.seen('cdn')), 1)
        self.assertEqual(contents(self.fetch('--local-dir', self.path('plain'), repo='org/twice')), files)


class Cache(Fetch):

    def test_layout(self):
        """Every name, link, and byte, as hub.md has them."""
        self.fetch('--include', '*')
        found = {}
        for at, dirs, names in os.walk(self.cache):
            for name in names:
                path = os.path.join(at, name)
                found[os.path.relpath(path, self.cache)] = \
                    ('link', os.readlink(path)) if os.path.islink(path) else ('file', tools.read(path))
        expected = {'models--org--model/refs/main': ('file', self.repo.commit.encode())}
        for path, data in FILES.items():
            oid = self.repo.oid(path)
            expected['models--org--model/blobs/' + oid] = ('file', data)
            expected['.locks/models--org--model/%s.lock' % oid] = ('file', b'')
            expected['models--org--model/snapshots/%s/%s' % (self.repo.commit, path)] = \
                ('link', '../../' + '../' * path.count('/') + 'blobs/' + oid)
        self.assertEqual(found, expected)

    def test_second_run_fetches_nothing(self):
        self.fetch()
        before = stamp(self.blob('model.safetensors'))
        count = len(self.hub.requests)
        self.fetch()
        self.assertEqual(len(self.hub.requests), count + 1)  # the listing
        self.assertEqual(stamp(self.blob('model.safetensors')), before)

    def prepare(self, names, link=True):
        """The cache as the Python tools leave it."""
        for name in names:
            tools.write(self.blob(name), FILES[name])
            target = os.path.join(self.snapshot, name)
            if link:
                os.makedirs(os.path.dirname(target), exist_ok=True)
                os.symlink(os.path.relpath(self.blob(name), os.path.dirname(target)), target)
        tools.write(os.path.join(self.folder, 'refs', 'main'), self.repo.commit.encode())

    def make_folders(self):
        for sub in ('blobs', 'refs', 'snapshots/' + self.repo.commit):
            os.makedirs(os.path.join(self.folder, sub))

    def test_uses_what_python_fetched(self):
        self.make_folders()
        self.prepare(DEFAULT)
        self.assertEqual(self.fetch(), self.snapshot)
        self.assertEqual(len(self.hub.requests), 1)
        self.assertFalse(os.path.exists(os.path.join(self.cache, '.locks')))

    def test_links_blobs_that_are_there(self):
        self.make_folders()
        self.prepare(DEFAULT, link=False)
        self.fetch()
        self.assertSnapshot()
        self.assertEqual(len(self.hub.requests), 1)

    def test_wrong_link_and_short_blob_are_mended(self):
        self.make_folders()
        self.prepare(DEFAULT)
        os.remove(os.path.join(self.snapshot, 'config.json'))
        os.symlink('../../blobs/nowhere', os.path.join(self.snapshot, 'config.json'))
        tools.write(self.blob('tokenizer.json'), b'short')
        self.fetch()
        self.assertSnapshot()
        self.assertEqual(sorted(os.listdir(self.snapshot)), DEFAULT)

    def test_branch_moves(self):
        self.fetch()
        newer = self.hub.add('org/model', {**FILES, 'config.json': b'{"new": 1}'}, lfs=LFS)
        folder = self.fetch()
        self.assertEqual(folder, os.path.join(self.folder, 'snapshots', newer.commit))
        self.assertEqual(tools.read(os.path.join(self.folder, 'refs', 'main')), newer.commit.encode())
        self.assertEqual(len(self.hub.seen('cdn')), 2)  # not a second time
        self.assertSnapshot()  # the old one is still whole

    def test_where_the_cache_is(self):
        for env, folder in (({'HF_HUB_CACHE': self.path('direct')}, 'direct'),
                            ({'HF_HOME': None, 'XDG_CACHE_HOME': self.path('xdg')}, 'xdg/huggingface/hub'),
                            ({'HF_HOME': None}, '.cache/huggingface/hub'),
                            ({'HF_HOME': '~/tilde'}, 'tilde/hub'),
                            ({'HUGGINGFACE_HUB_CACHE': self.path('older')}, 'older'),
                            ({'HF_HUB_CACHE': self.path('newer'), 'HUGGINGFACE_HUB_CACHE': self.path('older')}, 'newer'),
                            ({'HF_HOME': '$HOME/${WHERE}/x$NO'}, 'there/x$NO/hub'),
                            ({'HF_HOME': '~/$WHERE${NOT'}, 'there${NOT/hub'),
                            ({'HF_HUB_CACHE': '~/$DOLLAR'}, '$WHERE'),
                            ({'HUGGINGFACE_HUB_CACHE': '${HOME}/old'}, 'old'),
                            ({'HF_HOME': None, 'XDG_CACHE_HOME': '~/$WHERE'}, 'there/huggingface/hub')):
            env = {'WHERE': 'there', 'DOLLAR': '$WHERE', **env}
            out = self.fetch('--include', 'config.json', env=env)
            self.assertTrue(out.startswith(self.path(folder) + '/models--org--model/snapshots/'), out)

    @unittest.skipUnless(has_home(), 'this user has no home folder')
    def test_home_of_a_user(self):
        """With and without $HOME; a folder is no token, which names it."""
        user = pwd.getpwuid(os.getuid())
        for changes in ({'HF_TOKEN_PATH': '~%s/' % user.pw_name}, {'HF_TOKEN_PATH': '~', 'HOME': None}):
            self.fails(env=changes, names=user.pw_dir)
        self.fails(env={'HF_TOKEN_PATH': '~/', 'HOME': self.dir + '//'}, names=self.dir)
        self.fetch('--include', 'config.json', env={'HF_HUB_CACHE': '~nobody of this name/x', 'HF_TOKEN': 'x'},
                   cwd=self.dir)
        self.assertTrue(os.path.isdir(self.path('~nobody of this name')))

    def test_older_name_of_offline(self):
        self.fetch()
        count = len(self.hub.requests)
        self.fetch(env={'TRANSFORMERS_OFFLINE': '1'})
        self.fails(env={'TRANSFORMERS_OFFLINE': '1'}, repo='org/other', names=['org/other', 'TRANSFORMERS_OFFLINE'])
        self.assertEqual(len(self.hub.requests), count)
        self.fetch(env={'TRANSFORMERS_OFFLINE': '1', 'HF_HUB_OFFLINE': '0'})
        self.assertEqual(len(self.hub.requests), count + 1)

    def test_offline(self):
        self.fetch()
        self.hub.fail('hub', reset=True, times=100)
        offline = {'HF_HUB_OFFLINE': 'YES'}
        count = len(self.hub.requests)
        self.assertEqual(self.fetch(env=offline), self.snapshot)
        self.assertEqual(self.fetch('--revision', self.repo.commit, env=offline), self.snapshot)
        self.fails('--revision', 'v1.0', env=offline, names=['org/model', "'v1.0'", 'HF_HUB_OFFLINE'])
        self.fails('--include', 'pytorch_model.bin', env=offline, names=['org/model', "'pytorch_model.bin'"])
        self.fails(repo='org/other', env=offline, names=['org/other', 'HF_HUB_OFFLINE'])
        self.assertEqual(len(self.hub.requests), count)

    def test_offline_from_pythons_cache(self):
        self.make_folders()
        self.prepare(['config.json', 'model.safetensors'])
        self.assertEqual(self.fetch(env={'HF_HUB_OFFLINE': '1'}), self.snapshot)
        os.remove(self.blob('model.safetensors'))
        self.fails('--include', 'model.safetensors', env={'HF_HUB_OFFLINE': '1'}, names=["'model.safetensors'"])

    def test_offline_local_dir(self):
        plain = self.path('plain')
        self.fails('--local-dir', plain, env={'HF_HUB_OFFLINE': '1'}, names=['org/model'])
        self.fetch('--local-dir', plain)
        self.assertEqual(self.fetch('--local-dir', plain, env={'HF_HUB_OFFLINE': '1'}), plain)

    def test_waits_for_another_process(self):
        locks = os.path.join(self.cache, '.locks', 'models--org--model')
        os.makedirs(locks)
        with open(os.path.join(locks, self.repo.oid('model.safetensors') + '.lock'), 'w') as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            child = tools.start('bnt-fetch', 'org/model', env=self.env(), stdout=subprocess.PIPE)
            self.addCleanup(child.kill)
            wait_for(lambda: os.path.exists(self.blob('tokenizer.json')))
            time.sleep(0.3)
            self.assertIsNone(child.poll())
            self.assertEqual(self.ranges(), [])
        out, err = child.communicate(timeout=tools.TIMEOUT)
        self.assertEqual((child.returncode, out.decode()), (0, self.snapshot + '\n'), err)
        self.assertEqual(err.decode(), 'bnt-fetch: waiting for another process that fetches model.safetensors\n')

    def test_two_processes_at_once(self):
        self.hub.fail(wait=0.5, times=2)
        both = [tools.start('bnt-fetch', 'org/model', '-q', env=self.env(), stdout=subprocess.PIPE) for _ in range(2)]
        for child in both:
            out, err = child.communicate(timeout=tools.TIMEOUT)
            self.assertEqual((child.returncode, out.decode(), err), (0, self.snapshot + '\n', b''))
        self.assertSnapshot()
        self.assertEqual(len(self.hub.seen('cdn')), 2)  # each LFS file once

    @unittest.skipIf(os.geteuid() == 0, 'root may write anywhere')
    def test_unwritable_cache(self):
        os.makedirs(self.cache, 0o500)
        self.fails(names=[self.cache, 'Permission denied'])

    @unittest.skipIf(os.geteuid() != 0, 'only root can mount a file system')
    def test_read_only_mount(self):
        os.mkdir(self.path('mount'))
        done = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'ro', 'tmpfs', self.path('mount')], capture_output=True, check=False)
        if done.returncode != 0:
            self.skipTest('cannot mount a tmpfs here: %r' % done.stderr)
        self.addCleanup(subprocess.run, ['umount', '-l', self.path('mount')], check=False)
        for folder in (self.path('mount'), self.path('mount', 'new', 'folder')):
            self.fails('--local-dir', folder, names=[folder, 'Read-only file system'])
            self.fails(env={'HF_HUB_CACHE': folder}, names=[folder, 'Read-only file system'])

    def test_cache_that_cannot_be(self):
        self.fails(env={'HF_HUB_CACHE': '/proc/bnt/hub'}, names=['/proc/bnt/hub'])

    def test_cache_that_is_a_file(self):
        tools.write(self.path('file'), b'')
        self.fails(env={'HF_HUB_CACHE': self.path('file')}, names=[self.path('file')])
        self.assertEqual(tools.read(self.path('file')), b'')

    def test_permissions_follow_the_umask(self):
        self.fetch()
        mask = os.umask(0)
        os.umask(mask)
        self.assertEqual(stat.S_IMODE(os.stat(self.blob('model.safetensors')).st_mode), 0o666 & ~mask)


class Mirrors(Fetch):
    """Servers that speak less than the Hub's protocol."""
    ETAGS = {
        'sha1': lambda data: '"%s"' % hashlib.sha1(data).hexdigest(),  # Artifactory's
        'sha256': lambda data: '"%s"' % sha256(data),
        'md5': lambda data: '"%s"' % hashlib.md5(data).hexdigest(),
        'git': lambda data: 'W/"%s"' % git_sha1(data),
    }
    NO_HASH = {
        'time and size': lambda data: '"65f2c1a0-%x"' % len(data),
        'multipart': lambda data: '"%s-3"' % hashlib.md5(data).hexdigest(),
        'other hash': lambda data: '"%s"' % hashlib.sha512(data).hexdigest()[:64],
        'none': lambda data: '',
    }

    def bare(self):
        self.hub.bare, self.hub.tree_status = True, 404

    def again(self):
        shutil.rmtree(self.home, ignore_errors=True)

    def test_a_listed_hash_decides(self):
        for name, etag in {**self.ETAGS, **self.NO_HASH}.items():
            with self.subTest(etag=name):
                self.hub.etag = etag
                self.fetch()
                self.assertSnapshot()
                self.assertTrue(os.path.exists(self.blob('model.safetensors')))
                self.again()

    def test_a_listed_hash_decides_against_wrong_bytes(self):
        self.hub.etag = lambda data: '"%s"' % hashlib.sha1(data).hexdigest()
        self.hub.fail('hub', 'GET', 'resolve.*model.safetensors', corrupt=5, times=2)
        self.fails(names=['model.safetensors', 'sha256', self.repo.oid('model.safetensors')])

    def test_linked_etags_of_another_kind(self):
        self.hub.linked = {'X-Linked-Etag': '"%s"' % hashlib.sha1(WEIGHTS).hexdigest()}
        self.weights_only()
        self.assertSnapshot(['model.safetensors'])

    def test_what_python_fetched_under_another_name(self):
        """huggingface_hub names a blob by the mirror's ETag."""
        self.fetch()
        other = os.path.join(self.folder, 'blobs', hashlib.sha1(WEIGHTS).hexdigest())
        os.rename(self.blob('model.safetensors'), other)
        os.remove(os.path.join(self.snapshot, 'model.safetensors'))
        os.symlink('../../blobs/' + os.path.basename(other), os.path.join(self.snapshot, 'model.safetensors'))
        count = len(self.hub.requests)
        self.fetch()
        self.assertEqual(len(self.hub.requests), count + 1)
        self.assertSnapshot()

    def test_without_blobs(self):
        """The tree has what the siblings lack."""
        self.hub.bare = True
        self.fetch()
        self.assertSnapshot()

    def test_without_knowing_the_parameter(self):
        for status in (400, 404, 405, 422, 501):
            self.hub.blobs_status = status
            self.fetch()
            self.assertSnapshot()
            self.again()

    def test_without_blobs_and_tree(self):
        for status in (403, 404, 405, 501):
            self.bare()
            self.hub.tree_status = status
            self.fetch()
            self.assertSnapshot()
            for name in DEFAULT:
                self.assertTrue(os.path.exists(self.blob(name)), name)
            self.again()

    def test_a_page_for_people_instead_of_a_tree(self):
        self.bare()
        self.hub.tree_status = 200
        self.fetch()
        self.assertSnapshot()

    def test_tree_that_lacks_hashes(self):
        self.hub.bare = True
        self.hub.fail('hub', path='/tree/', status=200, body=b'[{"type": "file", "path": "config.json"}]')
        self.fetch()
        self.assertSnapshot()

    def test_bare_mirror_with_etags_that_are_hashes(self):
        self.bare()
        for name, etag in self.ETAGS.items():
            with self.subTest(etag=name):
                self.hub.etag = etag
                self.fetch()
                self.assertSnapshot()
                count = len(self.hub.seen(method='GET', path='/resolve/'))
                self.fetch()
                self.assertEqual(len(self.hub.seen(method='GET', path='/resolve/')), count)
                self.fetch('--local-dir', self.path(name))
                self.assertEqual(contents(self.path(name)), {n: FILES[n] for n in DEFAULT})
                self.again()

    def test_bare_mirror_with_etags_that_are_none(self):
        """The size is all there is to check, which is said."""
        self.bare()
        for name, etag in self.NO_HASH.items():
            with self.subTest(etag=name):
                self.hub.etag = etag
                done = tools.run('bnt-fetch', 'org/model', env=self.env())
                self.assertEqual((done.code, done.out.decode()), (0, self.snapshot + '\n'), done.err)
                self.one_line(done._replace(code=1), 'bnt-fetch', names='only the size is checked')
                self.assertSnapshot()
                self.again()

    def test_bare_mirror_that_redirects(self):
        self.bare()
        with Hub() as origin:
            origin.add('org/model', FILES, lfs=LFS)
            self.hub.fail('hub', path='/resolve/.*/model.safetensors', status=308, times=100,
                          headers={'Location': origin.url + url_of(origin, self.repo, 'model.safetensors')})
            self.fetch()
        self.assertSnapshot()

    def test_bare_mirror_without_a_size(self):
        self.bare()
        self.hub.fail('hub', 'HEAD', 'config.json', times=100, length=None)
        self.fails('--include', 'config.json', names=['org/model', 'config.json', 'size'])


SHIM = r"""
#include <errno.h>
#include <stdlib.h>
static int fail(const char *variable)
{
    errno = atoi(getenv(variable));
    return errno ? -1 : 0;
}
int symlinkat(const char *to, int dir, const char *name)
{
    (void)to, (void)dir, (void)name;
    return fail("SHIM_SYMLINK");
}
int flock(int fd, int operation)
{
    (void)fd, (void)operation;
    return fail("SHIM_FLOCK");
}
"""


@functools.lru_cache(maxsize=None)
def shim():
    """A library that stands for a file system without links and locks, or None if there is no compiler."""
    compiler = shutil.which('cc') or shutil.which('gcc') or shutil.which('clang')
    if not compiler:
        return None
    source = tools.write(os.path.join(tools.module_folder(), 'shim.c'), SHIM.encode())
    subprocess.run([compiler, '-shared', '-fPIC', '-o', source + '.so', source], check=True)
    return source + '.so'


class PoorFileSystems(Fetch):
    """No symbolic links (vfat, exfat), no locks (some network file systems), or locks that do nothing (Lustre, GPFS)."""
    LINKS_FAIL = [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS]
    LOCKS_FAIL = [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS]

    def poor(self, link, lock):
        """link: what symlink fails with; lock: what flock fails with, 0: it does nothing."""
        if not shim():
            self.skipTest('no C compiler')
        options = os.environ.get('ASAN_OPTIONS', '')
        return {'LD_PRELOAD': shim(), 'SHIM_SYMLINK': str(link), 'SHIM_FLOCK': str(lock),
                'ASAN_OPTIONS': (options + ':' if options else '') + 'verify_asan_link_order=0'}

    def assertPlainSnapshot(self, names=DEFAULT):
        self.assertSnapshot(names)
        for at, _, found in os.walk(self.snapshot):
            self.assertFalse([name for name in found if os.path.islink(os.path.join(at, name))])

    def blobs(self):
        return os.listdir(os.path.join(self.folder, 'blobs'))

    def test_without_links(self):
        """The files lie in the snapshot, and only there, as huggingface_hub puts them."""
        for error in self.LINKS_FAIL:
            self.fetch('--include', '*', env=self.poor(error, 0))
            self.assertPlainSnapshot(list(FILES))
            self.assertEqual(self.blobs(), [])
            count = len(self.hub.requests)
            self.fetch('--include', '*', env=self.poor(error, 0))
            self.assertEqual(len(self.hub.requests), count + 1)
            shutil.rmtree(self.home)

    def test_links_that_nobody_wants(self):
        env = {'HF_HUB_DISABLE_SYMLINKS': '1'}
        self.fetch(env=env)
        self.assertPlainSnapshot()
        self.assertEqual(self.blobs(), [])
        self.assertEqual(self.fetch(env={'HF_HUB_OFFLINE': '1'}), self.snapshot)
        count = len(self.hub.requests)
        self.fetch()
        self.assertEqual(len(self.hub.requests), count + 1)

    def test_blobs_are_copied(self):
        """Other snapshots may link to them."""
        self.fetch()
        shutil.rmtree(os.path.join(self.folder, 'snapshots'))
        before = sorted(self.blobs())
        count = len(self.hub.requests)
        self.fetch(env={'HF_HUB_DISABLE_SYMLINKS': 'true'})
        self.assertPlainSnapshot()
        self.assertEqual((sorted(self.blobs()), len(self.hub.requests)), (before, count + 1))

    def test_links_that_are_there_stay(self):
        self.fetch()
        self.fetch(env={'HF_HUB_DISABLE_SYMLINKS': '1'})
        self.assertTrue(os.path.islink(os.path.join(self.snapshot, 'config.json')))

    def test_wrong_files_without_links(self):
        self.fetch(env={'HF_HUB_DISABLE_SYMLINKS': '1'})
        tools.write(os.path.join(self.snapshot, 'config.json'), b'x' * len(FILES['config.json']))
        self.fetch(env={'HF_HUB_DISABLE_SYMLINKS': '1'})
        self.assertPlainSnapshot()

    def together(self, env, count=6, repo='org/model', *args):
        """So many fetches at once; all succeed."""
        children = [tools.start('bnt-fetch', repo, '-q', *args, env=self.env(**env), stdout=subprocess.PIPE)
                    for _ in range(count)]
        for child in children:
            self.addCleanup(child.kill)
        for child in children:
            out, err = child.communicate(timeout=tools.TIMEOUT)
            self.assertEqual((child.returncode, err), (0, b''), out)

    def test_several_fetches_without_locks(self):
        for lock in self.LOCKS_FAIL + [0]:
            self.hub.fail(pace=(1 << 19, 0.02), times=100)
            self.hub.fail(cut=1000000, times=2)
            self.together(self.poor(errno.EPERM, lock))
            self.assertPlainSnapshot()
            self.assertEqual(self.blobs(), [])
            shutil.rmtree(self.home)

    def test_several_fetches_without_locks_or_ranges(self):
        """Each starts over where another has just got its file."""
        for delay in (0.01, 0.05):
            self.hub.fail(pace=(1 << 19, delay), times=3)
            self.hub.fail(cut=2000000, times=3)
            self.hub.fail(no_range=True, times=100)
            self.together(self.poor(errno.EPERM, 0))
            self.assertPlainSnapshot()
            shutil.rmtree(self.home)

    def test_several_fetches_to_a_plain_folder_without_locks(self):
        plain = self.path('plain')
        self.hub.fail(pace=(1 << 19, 0.02), times=100)
        self.together(self.poor(errno.EPERM, 0), 6, 'org/model', '--local-dir', plain)
        self.assertEqual(contents(plain), {name: FILES[name] for name in DEFAULT})
        left = os.listdir(os.path.join(plain, '.cache', 'bnt'))
        self.assertEqual([name for name in left if not name.endswith('.lock')], [])

    def test_resumes_without_locks(self):
        env = self.poor(errno.EPERM, errno.ENOLCK)
        self.hub.fail(path=self.repo.oid('model.safetensors'), times=6, cut=100000)
        self.fails('--include', 'model.safetensors', env=env, names='model.safetensors')
        size = os.path.getsize(self.partial('model.safetensors'))
        self.assertGreater(size, 0)
        self.fetch('--include', 'model.safetensors', env=env)
        self.assertEqual(self.ranges()[-1], 'bytes=%d-' % size)
        self.assertPlainSnapshot(['model.safetensors'])

    def test_what_a_killed_fetch_left_without_locks(self):
        """It is taken over when it is old; what may be another's is let be."""
        env = self.poor(errno.EPERM, 0)
        for name, age in (('0123456789abcdef', 7200), ('fedcba9876543210', 60)):
            path = self.partial('model.safetensors').replace('.incomplete', '.%s.incomplete' % name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            tools.write(path, WEIGHTS[:age])
            os.utime(path, (time.time() - age, time.time() - age))
        self.fetch('--include', 'model.safetensors', env=env)
        self.assertEqual(self.ranges(), ['bytes=7200-'])
        self.assertEqual(self.blobs(), [os.path.basename(path)])
        self.assertPlainSnapshot(['model.safetensors'])

    @unittest.skipUnless(tools.is_root() and shutil.which('mkfs.vfat'), 'mounting a vfat needs root and mkfs.vfat')
    def test_vfat(self):
        image = self.path('image')
        with open(image, 'wb') as file:
            file.truncate(64 << 20)
        mount = self.path('mount')
        os.mkdir(mount)
        subprocess.run(['mkfs.vfat', image], check=True, stdout=subprocess.DEVNULL)
        done = subprocess.run(['mount', '-o', 'loop', image, mount], stderr=subprocess.PIPE)
        if done.returncode:
            self.skipTest('cannot mount: %s' % done.stderr.decode())
        self.addCleanup(subprocess.run, ['umount', mount], check=True)
        folder = self.fetch(env={'HF_HOME': mount})
        self.assertEqual(contents(folder), {name: FILES[name] for name in DEFAULT})
        self.together({'HF_HOME': mount}, 3)


class Plan(Fetch):
    """What is fetched, of repositories of all kinds, and which are refused before anything is."""
    OTHER = {'README.md': b'hello'}

    def names(self, repo, *args):
        return sorted(contents(self.fetch(*args, repo=repo)))

    def test_shards_of_the_index_alone(self):
        shards = {'model-0000%d-of-00002.safetensors' % i: b'%d' % i for i in (1, 2)}
        stray = {'model-00001-of-00003.safetensors': b's', 'consolidated.safetensors': b'c',
                 'model.fp32-00001-of-00002.safetensors': b'f', 'model.fp32.safetensors.index.json': b'{}',
                 'adapter_model.safetensors': b'a', 'sub/model.safetensors': b'd', 'pytorch_model.bin': b'p'}
        files = sharded(shards, stray)
        self.hub.add('org/shards', files, lfs=list(shards) + list(stray))
        expected = sorted([*BARE, *shards, 'model.safetensors.index.json'])
        self.assertEqual(self.names('org/shards'), expected)
        self.assertEqual(self.names('org/shards', '--local-dir', self.path('plain')), expected)
        self.assertEqual(len(self.hub.seen('cdn')), 4)

    def test_model_safetensors_before_an_index(self):
        files = sharded({'a.safetensors': b'a'}, {'model.safetensors': b'm'})
        self.hub.add('org/both', files)
        self.assertEqual(self.names('org/both'), ['config.json', 'model.safetensors', 'tokenizer.json'])
        self.assertEqual(self.hub.seen(path='index.json'), [])

    def test_bare_mirror(self):
        self.hub.bare, self.hub.tree_status = True, 404
        shards = {'1.safetensors': b'1', '2.safetensors': b'2'}
        self.hub.add('org/shards', sharded(shards, {'3.safetensors': b'3'}), lfs=shards)
        self.assertEqual(self.names('org/shards'), sorted([*BARE, *shards, 'model.safetensors.index.json']))

    def test_index_with_a_shard_that_is_not_there(self):
        files = sharded({'a.safetensors': WEIGHTS, 'b.safetensors': b'b'})
        del files['b.safetensors']
        self.hub.add('org/short', files, lfs=['a.safetensors'])
        self.fails(repo='org/short', names=['org/short', 'index.json', "'b.safetensors'"])
        self.assertEqual(self.hub.seen('cdn'), [])

    def test_bad_indices(self):
        for index in (b'{', b'[]', b'{}', b'{"weight_map": {}}', b'{"weight_map": {"a": 5}}',
                      b'{"weight_map": {"a": "../x"}}', b'{"weight_map": {"a": "pytorch_model.bin"}}'):
            self.hub.add('org/bad', {**BARE, 'a.safetensors': b'a', 'pytorch_model.bin': b'p',
                                     'model.safetensors.index.json': index})
            self.fails(repo='org/bad', names=['org/bad', 'index.json'])

    def test_without_weights(self):
        """At once: no file is asked for."""
        for other in ('pytorch_model.bin', 'pytorch_model-00001-of-00002.bin', 'ggml-model-i2_s.gguf',
                      'consolidated.safetensors', 'original/consolidated.00.pth', 'adapter_model.safetensors',
                      'model-00001-of-00002.safetensors', 'tf_model.h5'):
            self.hub.add('org/other', {**BARE, **self.OTHER, other: WEIGHTS}, lfs=[other])
            self.fails(repo='org/other', names=['org/other', other, 'model.safetensors'])
        self.hub.add('org/none', self.OTHER)
        self.fails(repo='org/none', names=['org/none', 'no weights'])
        self.assertEqual(self.hub.seen(path='/resolve/'), [])
        self.assertEqual(self.names('org/other', '--include', '*.h5'), ['tf_model.h5'])

    def test_without_tokenizer(self):
        for other in ('tokenizer.model', 'vocab.json'):
            self.hub.add('org/other', {'config.json': b'{}', 'model.safetensors': WEIGHTS, other: b'x'},
                         lfs=['model.safetensors'])
            self.fails(repo='org/other', names=['org/other', 'no tokenizer.json', other])
        self.assertEqual(self.hub.seen(path='/resolve/'), [])

    def test_without_config(self):
        self.hub.add('org/other', {'tokenizer.json': b'{}', 'model.safetensors': WEIGHTS}, lfs=['model.safetensors'])
        self.fails(repo='org/other', names=['org/other', 'no config.json'])

    def test_offline(self):
        shards = {'a.safetensors': b'a', 'b.safetensors': b'b'}
        self.hub.add('org/shards', sharded(shards, {'c.safetensors': b'c'}))
        folder = self.fetch('--include', '*', repo='org/shards')
        offline = {'HF_HUB_OFFLINE': '1'}
        report = json.loads(self.ok('bnt-fetch', 'org/shards', '--json', env=self.env(**offline)))
        self.assertEqual([file['path'] for file in report['files']],
                         ['a.safetensors', 'b.safetensors', 'config.json', 'model.safetensors.index.json',
                          'tokenizer.json'])
        os.remove(os.path.join(folder, 'b.safetensors'))
        self.fails(repo='org/shards', env=offline, names=['org/shards', "'b.safetensors'", 'HF_HUB_OFFLINE'])


class Unreachable(Fetch):
    """The Hub does not answer."""

    def nowhere(self):
        with Hub() as other:
            return {'HF_ENDPOINT': other.url}

    def uses_cache(self, *args, names=(), env=()):
        done = tools.run('bnt-fetch', 'org/model', *args, env=self.env(**dict(env)))
        self.assertEqual((done.code, done.out.decode()), (0, self.snapshot + '\n'), done.err)
        self.one_line(done._replace(code=1), 'bnt-fetch', names=['org/model', 'fetched before', *names])

    def test_complete_snapshot(self):
        self.fetch()
        self.uses_cache(env=self.nowhere(), names=['refused'])
        self.uses_cache(env={'HF_ENDPOINT': 'https://no-such-host.invalid'}, names=['no-such-host.invalid'])
        for status in (429, 500, 503):
            self.hub.fail('hub', status=status, times=6)
            self.uses_cache(names=['HTTP %d' % status])
            self.hub.faults = []
        self.hub.fail('hub', status=429, times=1, headers={'Retry-After': '86400'})
        self.uses_cache(names=['HTTP 429'])
        self.hub.fail('hub', reset=True, times=1)
        self.uses_cache()
        self.assertEqual(self.fetch('-q', env=self.nowhere()), self.snapshot)

    def test_answers_that_do_not_pass(self):
        """A Hub that says no has been reached."""
        self.fetch()
        for status in (401, 403, 404):
            self.hub.fail('hub', status=status, times=2)
            self.fails(names='org/model')
            self.hub.faults = []

    def test_tree_that_does_not_answer(self):
        self.fetch()
        self.hub.tree_only = True
        self.hub.fail('hub', path='/tree/', status=503, times=6)
        self.uses_cache(names=['503'])

    def test_other_revisions(self):
        self.fetch()
        self.uses_cache('--revision', self.repo.commit, env=self.nowhere())
        self.fails('--revision', 'v1.0', env=self.nowhere(), names=['org/model', 'refused'])

    def test_incomplete_snapshot(self):
        for name in ('model.safetensors', 'config.json', 'tokenizer.json'):
            self.fetch()
            os.remove(os.path.join(self.snapshot, name))
            self.fails(env=self.nowhere(), names=['org/model', 'refused'])
        self.fetch()
        os.remove(self.blob('model.safetensors'))
        self.fails(env=self.nowhere(), names=['org/model', 'refused'])

    def test_include(self):
        self.fetch('--include', 'config.json')
        self.uses_cache('--include', 'config.json', env=self.nowhere())
        self.fails('--include', 'config.json', '--include', 'LICENSE.txt', env=self.nowhere(), names='refused')

    def test_local_dir(self):
        plain = self.path('plain')
        self.fetch('--local-dir', plain)
        done = tools.run('bnt-fetch', 'org/model', '--local-dir', plain, env=self.env(**self.nowhere()))
        self.assertEqual((done.code, done.out.decode()), (0, plain + '\n'))
        self.assertIn('fetched before', done.err)

    def test_nobody_is_not_waited_for(self):
        """A second try soon, and no more; whoever has answered once is waited for, which is said when it takes long."""
        env = {**self.nowhere(), 'BNT_FETCH_RETRY_SCALE': '0.5'}
        start = time.monotonic()
        self.fails(env=env, names=['org/model', 'refused'])
        fast = time.monotonic() - start
        self.hub.fail('hub', status=503, times=3)
        start = time.monotonic()
        done = tools.run('bnt-fetch', 'org/model', '--include', 'config.json', env=self.env(BNT_FETCH_RETRY_SCALE='0.5'))
        self.assertEqual(done.code, 0, done.err)
        self.assertEqual(done.err, 'bnt-fetch: the Hub answers HTTP 503: trying again\n')
        self.assertLess(fast, time.monotonic() - start)  # half of 1 second, and of 1 + 2 + 4


class Proxies(Fetch):
    """Proxies that want to know who asks. The Hub of the tests serves as one."""

    def through(self, **env):
        return {'no_proxy': None, **env}

    def test_name_of_the_proxy(self):
        self.hub.fail('hub', status=407, times=100)
        address = self.hub.url.split('//')[1]
        for name, given in (('http_proxy', self.hub.url), ('all_proxy', 'http://user:hush@' + address + '/')):
            error = self.fails(env=self.through(**{name: given}), names=['127.0.0.1', address, name, '407'])
            self.assertNotIn('hush', error)
        self.assertEqual(len(self.hub.requests), 2)

    def test_tunnels(self):
        with socket.create_server(('127.0.0.1', 0)) as server:
            address = '127.0.0.1:%d' % server.getsockname()[1]

            def refuse():
                client, _ = server.accept()
                with client:
                    client.recv(4096)
                    client.sendall(b'HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n')
            thread = threading.Thread(target=refuse, daemon=True)
            thread.start()
            self.fails(env=self.through(HF_ENDPOINT='https://hub.invalid', https_proxy='http://' + address),
                       names=['hub.invalid', address, 'https_proxy', '407'])
            thread.join(tools.TIMEOUT)

    def test_no_proxy_known(self):
        self.hub.fail('hub', status=407)
        self.fails(names=['a proxy on the way', '407'])


class Addresses(Fetch):

    def revision_of(self, address, *args):
        report = json.loads(self.ok('bnt-fetch', address, *args, '--include', 'config.json', '--json', env=self.env()))
        self.assertEqual(report['repository'], 'org/model')
        return report['revision']

    def test_addresses(self):
        for tail, revision in (('', 'main'), ('/', 'main'), ('?library=transformers', 'main'), ('#files', 'main'),
                               ('/tree/main', 'main'), ('/tree/v1.0', 'v1.0'), ('/tree/v1.0/', 'v1.0'),
                               ('/tree/refs%2Fpr%2F1', 'refs/pr/1'), ('/tree/refs/pr/1', 'refs/pr/1'),
                               ('/blob/v1.0/config.json', 'v1.0'), ('/blob/refs%2Fpr%2F1/onnx/model.onnx', 'refs/pr/1'),
                               ('/resolve/v1.0/model.safetensors?download=true', 'v1.0'),
                               ('/raw/v1.0/config.json', 'v1.0'), ('/blame/v1.0/README.md', 'v1.0'),
                               ('/commit/' + self.repo.commit, self.repo.commit), ('/commits/v1.0', 'v1.0')):
            for start in ('https://huggingface.co/', 'http://huggingface.co/', 'https://hf.co/', 'huggingface.co/',
                          'hf.co/', 'https://www.huggingface.co/', 'HTTPS://HuggingFace.co/', self.hub.url + '/'):
                if start in ('https://huggingface.co/', self.hub.url + '/') or tail in ('', '/tree/v1.0'):
                    self.assertEqual(self.revision_of(start + 'org/model' + tail), revision, start + tail)

    def test_revisions_of_names(self):
        for name, revision in (('org/model@v1.0', 'v1.0'), ('org/model@refs/pr/1', 'refs/pr/1'),
                               ('org/model@' + self.repo.commit, self.repo.commit), ('hf://org/model', 'main'),
                               ('hf://models/org/model@v1.0', 'v1.0'),
                               ('hf://org/model@refs/pr/1/config.json', 'refs/pr/1')):
            self.assertEqual(self.revision_of(name), revision)

    def test_agreement_with_the_option(self):
        self.assertEqual(self.revision_of('org/model@v1.0', '--revision', 'v1.0'), 'v1.0')
        self.assertEqual(self.revision_of('https://hf.co/org/model', '--revision', 'v1.0'), 'v1.0')
        self.refused('bnt-fetch', 'org/model@v1.0', '--revision', 'main', code=2, env=self.env(),
                     names=["'v1.0'", "'main'"])

    def test_get(self):
        """bnt get, from the address in a browser to a file that runs."""
        files = {name: tools.read(tools.FAIRY, name) for name in os.listdir(tools.FAIRY)
                 if os.path.isfile(os.path.join(tools.FAIRY, name))}
        self.hub.add('org/fairy', files, lfs=['model.safetensors'], revisions=('main', 'v2'))
        for address in (self.hub.url + '/org/fairy/tree/v2', 'https://huggingface.co/org/fairy/blob/v2/config.json',
                        'hf.co/org/fairy/tree/v2', 'huggingface.co/org/fairy/resolve/v2/config.json', 'org/fairy@v2'):
            self.ok('bnt', 'get', '-q', address, '-o', self.path('m.bnt'), env=self.env())
            self.ok('bnt-verify', '-q', self.path('m.bnt'))
            os.remove(self.path('m.bnt'))
        self.assertEqual(self.hub.seen(path='/revision/main'), [])
        self.hub.add('org/bin', {**BARE, 'pytorch_model.bin': b'x'})
        done = tools.run('bnt', 'get', 'org/bin', '-o', self.path('m.bnt'), env=self.env())
        self.one_line(done, 'bnt-fetch', names=['org/bin', 'pytorch_model.bin'])
        self.assertFalse(os.path.exists(self.path('m.bnt')))

    def test_names_without_organisation(self):
        self.hub.add('gpt2', {'config.json': b'{}'})
        for address in ('https://huggingface.co/gpt2', 'https://huggingface.co/gpt2/tree/main', 'gpt2@main',
                        'hf.co/gpt2/blob/main/config.json'):
            self.fetch('--include', '*', repo=address)

    def test_below_a_path(self):
        """A mirror whose Hub is not at its top; only the address is of interest."""
        env = self.env(HF_ENDPOINT=self.hub.url + '/api/hf')
        for address in (self.hub.url + '/api/hf/org/model/tree/v1.0', 'https://huggingface.co/org/model'):
            done = tools.run('bnt-fetch', address, env=env)
            self.assertEqual(done.code, 1)
            self.assertIn('org/model', done.err)
        self.refused('bnt-fetch', self.hub.url + '/org/model', code=2, env=env)

    def test_refusals(self):
        for address in ('https://example.com/org/model', 'https://huggingface.co.example.com/org/model',
                        'https://huggingface.co/', 'https://huggingface.co', 'https://huggingface.co/datasets/org/data',
                        'https://huggingface.co/spaces/org/app', 'https://huggingface.co/org/model/discussions/5',
                        'https://huggingface.co/org/model/settings', 'https://user:word@huggingface.co/org/model',
                        'https://huggingface.co/org/../model', 'https://huggingface.co/org%2Fmodel/x', 'hf://model',
                        'hf://datasets/org/data', 'hf://org/model@', 'org/model@', '@main', 'org/model@../x',
                        'ftp://huggingface.co/org/model', 'https://huggingface.co/org/model/tree/..%2Fx',
                        'https://huggingface.co/org/mod%00el', 'org/model@a%2F..%2Fb'):
            self.refused('bnt-fetch', address, code=2, env=self.env())
        self.assertEqual(self.hub.requests, [])


class LocalDir(Fetch):

    def test_plain_files(self):
        plain = self.path('new', 'plain')
        self.assertEqual(self.fetch('--local-dir', plain, '--include', '*'), plain)
        self.assertEqual(contents(plain), FILES)
        self.assertFalse(any(os.path.islink(os.path.join(at, n)) for at, _, names in os.walk(plain) for n in names))
        self.assertFalse(os.path.exists(self.cache))
        left = os.listdir(os.path.join(plain, '.cache', 'bnt'))
        self.assertEqual([name for name in left if not name.endswith('.lock')], [])

    def test_keeps_what_is_right_and_mends_what_is_not(self):
        plain = self.path('plain')
        self.fetch('--local-dir', plain)
        before = stamp(os.path.join(plain, 'model.safetensors'))
        tools.write(os.path.join(plain, 'tokenizer.json'), SMALL[:-1] + b'x')  # same size
        count = len(self.hub.requests)
        self.fetch('--local-dir', plain)
        self.assertEqual(len(self.hub.requests), count + 3)
        self.assertEqual(stamp(os.path.join(plain, 'model.safetensors')), before)
        self.assertEqual(tools.read(os.path.join(plain, 'tokenizer.json')), SMALL)
        path = os.path.join(plain, 'config.json')
        os.chmod(tools.write(path, b'{}'), 0o640)
        self.fetch('--local-dir', plain)
        self.assertEqual(tools.read(path), FILES['config.json'])
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o640)

    @unittest.skipIf(os.geteuid() == 0, 'root may write anywhere')
    def test_unwritable_folder(self):
        """Noticed before anything is fetched, in words of what cannot be done."""
        for folder in (self.path('shut'), self.path('shut', 'new')):
            os.makedirs(self.path('shut'), 0o500, exist_ok=True)
            count = len(self.hub.requests)
            self.fails('--local-dir', folder, names=[folder, 'Permission denied'])
            self.assertEqual(len(self.hub.requests), count + 1)
        os.makedirs(self.path('part', '.cache', 'bnt'))
        os.chmod(self.path('part'), 0o500)
        self.fails('--local-dir', self.path('part'), names=['json', 'Permission denied'])
        self.assertEqual(os.listdir(self.path('part', '.cache', 'bnt')), [])
        os.chmod(self.path('part'), 0o700)
        os.chmod(tools.write(self.path('part', 'config.json'), b'{}'), 0o400)
        self.fails('--local-dir', self.path('part'), names=['config.json', 'Permission denied'])
        self.assertEqual(tools.read(self.path('part', 'config.json')), b'{}')

    def test_resumes(self):
        plain = self.path('plain')
        self.hub.fail(path=self.repo.oid('model.safetensors'), times=6, cut=100000)
        self.fails('--local-dir', plain, names='model.safetensors')
        part = os.path.join(plain, '.cache', 'bnt', self.repo.oid('model.safetensors') + '.incomplete')
        size = os.path.getsize(part)
        self.assertGreater(size, 0)
        self.fetch('--local-dir', plain)
        self.assertEqual(self.ranges()[-1], 'bytes=%d-' % size)
        self.assertEqual(contents(plain), {name: FILES[name] for name in DEFAULT})

    def test_links_in_the_way(self):
        outside = self.folder_of('outside')
        plain = self.folder_of('plain')
        os.symlink(outside, os.path.join(plain, 'onnx'))
        self.fails('--local-dir', plain, '--include', '*', names=['onnx/', 'link'])
        plain = self.folder_of('other')
        os.symlink(os.path.join(outside, 'config.json'), os.path.join(plain, 'config.json'))
        count = len(self.hub.requests)
        self.fails('--local-dir', plain, names=['config.json', 'link'])
        self.assertEqual(len(self.hub.requests), count + 1)  # the listing: nothing is fetched in vain
        self.assertTrue(os.path.islink(os.path.join(plain, 'config.json')))
        os.remove(os.path.join(plain, 'config.json'))
        os.mkfifo(os.path.join(plain, 'config.json'))
        self.fails('--local-dir', plain, names=['config.json', 'pipe'])
        self.assertTrue(stat.S_ISFIFO(os.lstat(os.path.join(plain, 'config.json')).st_mode))
        shutil.rmtree(os.path.join(plain, '.cache'))
        os.symlink(outside, os.path.join(plain, '.cache'))
        self.fails('--local-dir', plain, '--include', '*', names='.cache')
        self.assertEqual(os.listdir(outside), [])

    def folder_of(self, name):
        os.mkdir(self.path(name))
        return self.path(name)

    def test_snapshot_links_in_the_way(self):
        outside = self.folder_of('outside')
        os.makedirs(self.snapshot)
        os.symlink(outside, os.path.join(self.snapshot, 'onnx'))
        self.fails('--include', 'onnx/*', names=['onnx/', 'link'])
        self.assertEqual(os.listdir(outside), [])

    def test_folder_in_the_way(self):
        os.makedirs(self.path('plain', 'config.json'))
        self.fails('--local-dir', self.path('plain'), names=['config.json'])


class Faults(Fetch):

    def test_dropped_connections(self):
        for cut in (0, 1, 65536, 1000000):
            self.hub.fail(path=self.repo.oid('model.safetensors'), cut=cut)
        self.weights_only()
        self.assertSnapshot(['model.safetensors'])
        offsets = [0, 0, 1, 65537, 1065537]
        self.assertEqual(self.ranges(), ['bytes=%d-' % n if n else None for n in offsets])

    def test_long_files_survive_many_breaks(self):
        """A connection that brought a megabyte counts as one that worked."""
        self.hub.fail(times=3, cut=1 << 20)
        self.hub.fail(times=4, cut=1000)
        self.weights_only()
        self.assertSnapshot(['model.safetensors'])

    def test_gives_up_after_five_retries(self):
        self.hub.fail(times=100, cut=10)
        self.fails('--include', 'model.safetensors', names=['model.safetensors'])
        self.assertEqual(len(self.ranges()), 6)
        self.assertNothingNamed()
        self.assertEqual(tools.read(self.partial('model.safetensors')), WEIGHTS[:60])

    def test_passing_errors(self):
        for status in (408, 429, 500, 502, 503, 504):
            self.hub.fail('hub', path='^/api', status=status, times=1)
        self.hub.faults.pop()  # five retries
        for server, method in (('hub', 'HEAD'), ('cdn', 'GET')):
            self.hub.fail(server, method, status=503, times=2)
        self.weights_only()
        self.assertSnapshot(['model.safetensors'])

    def test_errors_that_stay(self):
        self.hub.fail('hub', status=503, times=100, headers={'X-Request-Id': 'req-7', 'X-Error-Message': 'too busy'})
        self.fails(names=['HTTP 503', 'too busy', 'req-7'])
        self.assertEqual(len(self.hub.requests), 6)

    def timed(self, **headers):
        self.hub.faults = []
        self.hub.fail('hub', path='^/api', status=429, headers=headers)
        start = time.monotonic()
        self.fetch('--include', 'config.json')
        return time.monotonic() - start

    def test_waits_as_long_as_asked(self):
        """Waits are shortened to a hundredth: 60 seconds to 0.6."""
        self.assertGreater(self.timed(**{'Retry-After': '60'}), 0.6)
        self.assertGreater(self.timed(**{'RateLimit': '"api";r=0;t=79'}), 0.8)
        self.fails_at_once({'Retry-After': '86400'})

    def fails_at_once(self, headers):
        self.hub.fail('hub', path='^/api', status=429, headers=headers)
        count = len(self.hub.requests)
        self.fails(names=['HTTP 429', '86400'])
        self.assertEqual(len(self.hub.requests), count + 1)

    def test_expired_link(self):
        self.hub.expired = 1  # the first signature
        self.weights_only()
        self.assertSnapshot(['model.safetensors'])
        self.assertEqual(len(self.hub.seen('hub', 'HEAD')), 2)

    def test_link_that_expires_on_the_way(self):
        self.hub.fail(cut=100000)
        self.hub.fail(status=403)
        self.weights_only()
        self.assertEqual(self.ranges(), [None, 'bytes=100000-', 'bytes=100000-'])
        self.assertEqual(len(self.hub.seen('hub', 'HEAD')), 2)

    def test_links_that_always_expire(self):
        self.hub.expired = 1000
        self.fails('--include', 'model.safetensors', names=['model', '403'])
        self.assertEqual(len(self.ranges()), 6)

    def test_server_without_ranges(self):
        self.hub.fail(cut=100000)
        self.hub.fail(no_range=True)
        self.weights_only()
        self.assertSnapshot(['model.safetensors'])
        self.assertEqual(self.ranges(), [None, 'bytes=100000-'])

    def test_server_that_sends_another_range(self):
        self.hub.fail(cut=100000)
        self.hub.fail(range_is='bytes 0-99/100', times=1)
        self.weights_only()
        self.assertSnapshot(['model.safetensors'])
        self.assertEqual(self.ranges(), [None, 'bytes=100000-', None])

    def test_range_not_satisfiable(self):
        self.hub.fail(cut=100000)
        self.hub.fail(status=416)
        self.weights_only()
        self.assertSnapshot(['model.safetensors'])
        self.assertEqual(self.ranges(), [None, 'bytes=100000-', None])

    def test_corrupted_bytes(self):
        """Once may be bad luck; twice is an error, and nothing is kept."""
        self.hub.fail(corrupt=3000000)
        self.weights_only()
        self.assertSnapshot(['model.safetensors'])
        shutil.rmtree(self.home)
        self.hub.fail(corrupt=3000000, times=100)
        self.fails('--include', 'model.safetensors',
                   names=['model.safetensors', 'sha256', self.repo.oid('model.safetensors')])
        self.assertNothingNamed()
        self.assertFalse(os.path.exists(self.partial('model.safetensors')))

    def test_corrupted_small_file(self):
        self.hub.fail('hub', 'GET', 'resolve.*config.json', corrupt=0, times=100)
        self.fails('--include', 'config.json', names=['config.json', 'sha1', self.repo.oid('config.json')])
        self.assertNothingNamed()

    def test_wrong_lengths(self):
        size = len(WEIGHTS)
        self.hub.fail(length=size + 5)
        self.weights_only()
        self.assertSnapshot(['model.safetensors'])
        for effect in ({'extra': b'more'}, {'extra': b'x' * 100000}):
            shutil.rmtree(self.home)
            self.hub.faults = []
            self.hub.fail(times=100, **effect)
            self.fails('--include', 'model.safetensors', names=['model.safetensors', 'more than', str(size)])
            self.assertNothingNamed()

    def test_size_or_hash_differs_from_the_listing(self):
        for linked in ({'X-Linked-Size': '5'}, {'X-Linked-Etag': '"%s"' % sha256(b'other')},
                       {'X-Repo-Commit': '0' * 40}):
            self.hub.linked = linked
            self.fails('--include', 'model.safetensors', names=['model.safetensors'])
            self.assertNothingNamed()

    def test_slow_peer(self):
        self.hub.fail(pace=(1 << 20, 0.4))
        self.fetch('--include', 'model.safetensors', env={'HF_HUB_DOWNLOAD_TIMEOUT': '1'})
        self.assertSnapshot(['model.safetensors'])
        self.assertEqual(self.ranges(), [None])

    def test_stalled_peer(self):
        self.hub.fail(stall=100000)
        self.fetch('--include', 'model.safetensors', env={'HF_HUB_DOWNLOAD_TIMEOUT': '1'})
        self.assertSnapshot(['model.safetensors'])
        self.assertEqual(self.ranges(), [None, 'bytes=100000-'])

    def test_stalled_head_and_listing(self):
        self.hub.fail('hub', 'HEAD', wait=3)
        self.hub.fail('hub', path='^/api', wait=4)
        self.fetch('--include', 'config.json', env={'HF_HUB_ETAG_TIMEOUT': '1', 'HF_HUB_DOWNLOAD_TIMEOUT': '1'})
        self.assertEqual([r.method for r in self.hub.seen('hub')], ['GET', 'GET', 'HEAD', 'HEAD', 'GET'])

    def test_nobody_there(self):
        with Hub() as other:
            url = other.url
        self.fails(env={'HF_ENDPOINT': url}, names=['org/model', url.split('//')[1]])

    def test_connection_reset(self):
        for server in ('hub', 'cdn'):
            self.hub.fail(server, reset=True, times=2)
        self.weights_only()
        self.assertSnapshot(['model.safetensors'])

    def test_endless_headers(self):
        self.hub.fail('hub', status=200, headers={'X-%d' % i: 'x' * 4000 for i in range(90)})
        self.fails(names=['headers'])

    def test_bad_listings(self):
        for body in (b'', b'{', b'[]', b'{"sha": "../../x"}', b'\xff', b'{"sha": 5, "siblings": 7}'):
            self.hub.fail('hub', path='^/api', status=200, body=body)
            self.fails(names='org/model')
        sha = self.repo.commit
        for entry in ({}, {'rfilename': 'a.json', 'size': -1, 'blobId': '0' * 40},
                      {'rfilename': 'a.json', 'size': 1, 'blobId': '../../../x'}):
            self.hub.info = {'sha': sha, 'siblings': [entry]}
            self.fetch('--include', 'config.json')  # the tree has what the info lacks
        self.hub.tree_only = True
        self.hub.info = {}
        self.hub.fail('hub', path='/tree/', status=200, body=b'[{"type": "file", "path": "x"}]')
        self.fails(names='org/model')

    def test_one_failure_ends_all(self):
        self.hub.fail('hub', 'GET', 'resolve.*config.json', status=410, times=100)
        self.hub.fail(stall=1000000)  # for longer than a test may take
        self.fails('--include', 'model.safetensors', '--include', 'config.json', names=['config.json', '410'])
        self.assertFalse(os.path.exists(self.blob('model.safetensors')))


class Resume(Fetch):

    def interrupt(self, number):
        """Starts a fetch whose weights stall after 1,000,000 bytes, and ends it there."""
        self.hub.fail(path=self.repo.oid('model.safetensors'), stall=1000000)
        child = tools.start('bnt-fetch', 'org/model', env=self.env(), stdout=subprocess.PIPE)
        self.addCleanup(child.kill)
        part = self.partial('model.safetensors')
        wait_for(lambda: os.path.exists(part) and os.path.getsize(part) == 1000000)
        wait_for(lambda: os.path.exists(os.path.join(self.snapshot, 'tokenizer.json')))
        child.send_signal(number)
        out, err = child.communicate(timeout=tools.TIMEOUT)
        self.assertEqual((child.returncode, out), (-number, b''), err)
        self.assertFalse(os.path.lexists(os.path.join(self.snapshot, 'model.safetensors')))
        self.assertFalse(os.path.exists(self.blob('model.safetensors')))
        self.assertFalse(os.path.exists(os.path.join(self.folder, 'refs', 'main')))

    def test_after_kill(self):
        self.interrupt(signal.SIGKILL)
        self.fetch()
        self.assertEqual(self.ranges(), [None, 'bytes=1000000-'])
        self.assertSnapshot()
        self.assertFalse(os.path.exists(self.partial('model.safetensors')))
        self.assertEqual(len(self.hub.seen('cdn', 'GET', self.repo.oid('tokenizer.json'))), 1)

    def test_after_interrupt(self):
        self.interrupt(signal.SIGINT)
        self.fetch()
        self.assertEqual(self.ranges(), [None, 'bytes=1000000-'])
        self.assertSnapshot()

    def leave(self, data):
        os.makedirs(os.path.dirname(self.partial('model.safetensors')))
        tools.write(self.partial('model.safetensors'), data)

    def test_complete_but_unnamed(self):
        self.leave(WEIGHTS)
        self.weights_only()
        self.assertSnapshot(['model.safetensors'])
        self.assertEqual(self.ranges(), [])

    def test_spoilt_start(self):
        """What an earlier run left is hashed too."""
        self.leave(b'x' * 1000000)
        self.weights_only()
        self.assertSnapshot(['model.safetensors'])
        self.assertEqual(self.ranges(), ['bytes=1000000-', None])

    def test_too_long(self):
        self.leave(WEIGHTS + b'x')
        self.weights_only()
        self.assertSnapshot(['model.safetensors'])
        self.assertEqual(self.ranges(), [None])

    def test_partial_that_is_a_link(self):
        self.leave(b'')
        os.remove(self.partial('model.safetensors'))
        tools.write(self.path('victim'), b'mine')
        os.symlink(self.path('victim'), self.partial('model.safetensors'))
        self.fails('--include', 'model.safetensors', names='model.safetensors')
        self.assertEqual(tools.read(self.path('victim')), b'mine')

    def test_disk_full(self):
        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000000, 2000000))
        self.fails('--include', 'model.safetensors', preexec_fn=limit, names=['model.safetensors', 'File too large'])
        self.assertNothingNamed()
        self.assertEqual(os.path.getsize(self.partial('model.safetensors')), 2000000)
        self.weights_only()
        self.assertEqual(self.ranges(), [None, 'bytes=2000000-'])
        self.assertSnapshot(['model.safetensors'])

    def test_more_than_the_disk_has(self):
        small = [{'rfilename': name, 'size': 2, 'blobId': git_sha1(b'{}')} for name in ('config.json', 'tokenizer.json')]
        self.hub.info = {'siblings': small + [{'rfilename': 'model.safetensors', 'size': 1 << 60,
                                               'lfs': {'sha256': '0' * 64, 'size': 1 << 60}}]}
        self.fails(names=['MB are needed', self.cache])
        self.assertEqual(len(self.hub.requests), 1)


class Access(Fetch):

    def setUp(self):
        super().setUp()
        self.hub.token = TOKEN

    def authorizations(self, server):
        return {r.headers.get('authorization') for r in self.hub.seen(server)}

    def test_token_stays_at_home(self):
        self.fetch(env={'HF_TOKEN': TOKEN})
        self.assertSnapshot()
        self.assertEqual(self.authorizations('hub'), {'Bearer ' + TOKEN})
        self.assertEqual(self.authorizations('cdn'), {None})

    def test_token_stays_at_home_when_all_is_elsewhere(self):
        """A Hub that redirects absolutely, listing and all."""
        self.hub.token = None
        with Hub() as mirror:
            for path in ('/api/', '/resolve/'):
                mirror.fail('hub', path=path, status=307, times=1000, headers={'Location': self.hub.url + '/x'})
            self.fails(env={'HF_TOKEN': TOKEN, 'HF_ENDPOINT': mirror.url}, names='org/model')
            self.assertEqual({r.headers.get('authorization') for r in mirror.seen()}, {'Bearer ' + TOKEN})
        self.assertEqual(self.authorizations('hub'), {None})

    def test_sources_of_tokens(self):
        tools.write(self.path('elsewhere'), (TOKEN + '\n').encode())
        self.fetch(env={'HF_TOKEN': TOKEN + '\r\n'})
        self.fetch(env={'HF_TOKEN_PATH': self.path('elsewhere')})
        self.fails(names=['org/model', 'HF_TOKEN'])
        tools.write(os.path.join(self.home, 'token'), b' ' + TOKEN.encode() + b'\n')
        self.fetch()
        self.fetch(env={'HF_TOKEN': TOKEN, 'HF_TOKEN_PATH': self.path('none')})
        os.remove(os.path.join(self.home, 'token'))
        self.fetch(env={'HUGGING_FACE_HUB_TOKEN': TOKEN})
        self.fetch(env={'HF_TOKEN': TOKEN, 'HUGGING_FACE_HUB_TOKEN': 'older'})
        self.fetch(env={'HF_TOKEN': ' \n', 'HF_TOKEN_PATH': '$PLACE/elsewhere', 'PLACE': self.dir})
        self.fetch(env={'HF_TOKEN': TOKEN[:4] + '\n' + TOKEN[4:]})
        self.fails(env={'HF_TOKEN': TOKEN, 'HF_HUB_DISABLE_IMPLICIT_TOKEN': '1'}, names='HF_TOKEN')
        self.assertLessEqual(self.authorizations('hub'), {'Bearer ' + TOKEN, None})

    def test_bad_tokens(self):
        self.fails(env={'HF_TOKEN': 'wrong'}, names=['org/model', 'HF_TOKEN', 'Invalid credentials', 'Root=1-test'])
        count = len(self.hub.requests)
        self.fails(env={'HF_TOKEN': 'a\r\nX-Evil: 1'}, names='HF_TOKEN')
        self.assertEqual(len(self.hub.requests), count)
        self.assertNotIn(TOKEN, self.fails(env={'HF_TOKEN': TOKEN + 'x'}))

    def test_missing_repository(self):
        self.hub.token = None
        self.fails(repo='org/absent', names=['org/absent', 'no such repository', 'private', 'HF_TOKEN', 'Root=1-test'])

    def test_missing_revision(self):
        self.fails('--revision', 'v9', env={'HF_TOKEN': TOKEN},
                   names=['org/model', "'v9'", 'Invalid rev id', 'Root=1-test'])

    def test_file_that_vanished(self):
        self.hub.info = {'siblings': [{'rfilename': 'config.json', 'size': 2, 'blobId': git_sha1(b'{}')}]}
        del self.repo.files['config.json']
        self.fails('--include', 'config.json', env={'HF_TOKEN': TOKEN},
                   names=['org/model', "'config.json'", 'Entry not found'])

    def test_gated(self):
        self.hub.token = None
        for status, env in ((401, {}), (403, {'HF_TOKEN': TOKEN})):
            self.hub.gated = status
            self.fails(env=env, names=['org/model', 'gated', 'HF_TOKEN', self.hub.url + '/org/model',
                                       'Root=1-test', 'is restricted'])
        self.assertNothingNamed()


class Refusals(Fetch):

    def test_hostile_names(self):
        """Names that no git tree holds: the whole listing is refused, wanted or not."""
        for name in ('../evil.json', 'a/../../evil.json', '/evil.json', 'a//b.json', 'a/./b.json', '.', '..', '',
                     'folder/', './x.json', 'a/..'):
            self.hub.info = {'siblings': [{'rfilename': name, 'size': 2, 'blobId': git_sha1(b'{}')}]}
            for options in ((), ('--include', '*'), ('--include', '*', '--local-dir', self.path('plain'))):
                self.fails(*options, names=["'%s'" % name, 'refused'])
        self.assertFalse(os.path.exists(self.path('plain')))
        self.assertFalse(os.path.exists(self.home))

    def test_odd_names(self):
        for name, shown in (('a\\b.json', 'a\\b.json'), ('a\nb.json', 'a?b.json'), ('a\x1bb.json', 'a?b.json')):
            self.hub.info = {'siblings': [{'rfilename': name, 'size': 2, 'blobId': git_sha1(b'{}')}]}
            self.fails('--include', '*', names=["'%s'" % shown, 'refused'])
        self.hub.info = {'siblings': [{'rfilename': '.cache/bnt/x', 'size': 2, 'blobId': git_sha1(b'{}')}]}
        self.fails('--include', '*', '--local-dir', self.path('plain'), names='.cache/bnt/x')

    def test_hostile_names_in_the_tree(self):
        self.hub.tree_only = True
        self.repo.files['sub/../../evil'] = b'{}'
        self.fails(names=["'sub/../../evil'"])

    def test_http(self):
        for url in ('http://192.0.2.1', 'http://localhost.example', 'ftp://127.0.0.1', 'file:///etc', 'nonsense:',
                    'http://user:password@127.0.0.1', 'https://user@127.0.0.1', ''):
            if url:
                self.fails(env={'HF_ENDPOINT': url}, names='HF_ENDPOINT')

    def test_redirects(self):
        for location in ('file:///etc/passwd', 'ftp://127.0.0.1/x', 'http://192.0.2.1/x', 'http://u:p@127.0.0.1/x'):
            self.hub.location = location
            self.fails('--include', 'model.safetensors', names=['model.safetensors', 'refused'])
        self.hub.fail('hub', path='^/api', status=307, times=100, headers={'Location': '/api/models/org/model/again'})
        self.fails(names=['org/model', 'redirects'])
        self.assertEqual(len(self.hub.seen('hub', path='/again')), 5)

    def test_usage(self):
        for args in ((), ('a', 'b'), ('--nonsense', 'a'), ('a/b/c',), ('../x',), ('a/..',), ('a--b',), ('-j', '0', 'a'),
                     ('-j', 'x', 'a'), ('--revision', '../x', 'a'), ('--revision', '', 'a'), ('--include',),
                     ('--local-dir', '', 'a'), ('org/', ), ('/name',), ('a b',), ('-x', 'a')):
            self.refused('bnt-fetch', *args, code=2, env=self.env())
        self.assertEqual(self.hub.requests, [])

    def test_bad_settings(self):
        for name in ('HF_HUB_ETAG_TIMEOUT', 'HF_HUB_DOWNLOAD_TIMEOUT'):
            for value in ('soon', '-5', '1 2', '0x10', 'inf'):
                self.fails(env={name: value}, names=[name, "'%s'" % value])
            for value in ('0', '100000', '999999999999999999999999', ' 30 '):  # the usual, and as good as no limit
                self.fetch('--include', 'config.json', env={name: value})
                shutil.rmtree(self.home)

    def test_help_and_version(self):
        text = self.ok('bnt-fetch', '--help').decode()
        for option in ('--revision', '--include', '--local-dir', '-j', '--jobs', '-q', '--quiet', '--json',
                       '--allow-http', '--help', '--version', 'HF_TOKEN', 'HF_ENDPOINT', 'HF_HOME', 'HF_HUB_CACHE',
                       'HF_HUB_OFFLINE', 'HF_TOKEN_PATH', 'HF_HUB_ETAG_TIMEOUT', 'HF_HUB_DOWNLOAD_TIMEOUT',
                       'HF_HUB_DISABLE_PROGRESS_BARS', 'XDG_CACHE_HOME', 'HUGGINGFACE_HUB_CACHE',
                       'HUGGING_FACE_HUB_TOKEN', 'TRANSFORMERS_OFFLINE', 'HF_HUB_DISABLE_SYMLINKS', 'https_proxy'):
            self.assertIn(option, text)
        self.assertRegex(self.ok('bnt-fetch', '--version').decode(), r'^bnt-fetch \d+\.\d+\.\d+\n$')

    def test_closed_output(self):
        self.fetch()
        with open('/dev/full', 'wb') as full:
            self.refused('bnt-fetch', 'org/model', env=self.env(), stdout=full, names='standard output')


@unittest.skipUnless(shutil.which('openssl'), 'the openssl command makes the certificate')
class Encrypted(Fetch):

    def setUp(self):
        super().setUp()
        self.certificate = self.path('certificate.pem')
        subprocess.run(['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes',
                        '-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1', '-days', '2',
                        '-keyout', self.path('key.pem'), '-out', self.path('cert.pem')], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        tools.write(self.certificate, tools.read(self.path('cert.pem')) + tools.read(self.path('key.pem')))
        self.secure = self.enter(Hub(self.certificate))
        self.secure.add('org/model', FILES, lfs=LFS)

    def test_certificates_are_verified(self):
        self.fails(env={'HF_ENDPOINT': self.secure.url}, names=['certificate'])
        self.assertEqual(self.secure.requests, [])

    def test_redirect_to_http_is_refused(self):
        env = {'HF_ENDPOINT': self.secure.url, 'SSL_CERT_FILE': self.path('cert.pem')}
        self.fetch('--include', 'config.json', env=env)
        self.fails('--include', 'model.safetensors', env=env, names=['model.safetensors', 'from https to'])
        self.fails('--include', 'model.safetensors', '--allow-http', env=env, names=['from https to'])
        self.assertEqual(self.secure.seen('cdn'), [])


class Progress(Fetch):

    def on_a_terminal(self, *args, **env):
        """What standard error shows if it is a terminal."""
        main, side = os.openpty()
        self.addCleanup(os.close, main)
        self.hub.fail(path=self.repo.oid('model.safetensors'), pace=(1 << 20, 0.15))
        child = tools.start('bnt-fetch', 'org/model', *args, env=self.env(**env), stdout=subprocess.PIPE, stderr=side)
        os.close(side)
        shown = b''
        try:
            while True:  # a terminal gives a few kilobytes at a time
                shown += os.read(main, 1 << 16)
        except OSError:  # the other side is closed
            pass
        child.communicate(timeout=tools.TIMEOUT)
        self.assertEqual(child.returncode, 0)
        return shown.decode()

    def test_bar(self):
        shown = self.on_a_terminal()
        self.assertRegex(shown, r'fetching \[#+\.*\] +\d+%.*MB/s.*s left')
        self.assertTrue(shown.endswith('\r\x1b[K'))

    def test_no_bar(self):
        self.assertEqual(self.on_a_terminal('-q'), '')
        shutil.rmtree(self.home)
        self.assertEqual(self.on_a_terminal(HF_HUB_DISABLE_PROGRESS_BARS='1'), '')


if __name__ == '__main__':
    unittest.main()
