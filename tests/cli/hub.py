# SPDX-License-Identifier: MIT
"""A Hugging Face Hub on 127.0.0.1, with faults to order: the protocol as huggingface_hub 1.29 speaks it, and no more.

Two servers: the Hub itself, and the host that LFS files are redirected to, which has another port and must never see
a token. Both note every request. Python's standard library only.
"""
import hashlib
import json
import re
import socket
import ssl
import threading
import time
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit

Request = namedtuple('Request', 'server method path headers')  # headers: lower-case names


def git_sha1(data):
    return hashlib.sha1(b'blob %d\0' % len(data) + data).hexdigest()


def sha256(data):
    return hashlib.sha256(data).hexdigest()


class Repo:
    """The files of one commit. lfs: the names of those kept as LFS."""

    def __init__(self, name, files, lfs=(), revisions=('main',), license='mit'):
        self.name, self.files, self.lfs = name, dict(files), set(lfs)
        self.revisions, self.license = set(revisions), license
        self.commit = hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()

    def oid(self, path):
        return (sha256 if path in self.lfs else git_sha1)(self.files[path])


class Fault:
    """What goes wrong with the next requests (times of them) that match.

    server: 'hub' or 'cdn'; method, path (a regular expression): None for any. The rest says how:
    status, headers   this answer instead
    reset             the connection ends before an answer
    wait              so many seconds before the answer
    together          (a threading.Barrier): wait until so many requests are there
    stall             so many bytes, then nothing for a while
    cut               so many bytes, then the connection ends
    pace              (bytes, seconds): so many bytes, then a pause, and on
    corrupt           the byte at this offset of the file is another one
    no_range          Range is not understood: 200 and the whole file
    range_is          another Content-Range
    length            another Content-Length; None: no such header
    extra             bytes after the file
    """

    def __init__(self, server='cdn', method=None, path=None, times=1, **effect):
        self.server, self.method, self.path, self.times, self.effect = server, method, path, times, effect

    def matches(self, server, method, path):
        return (self.times > 0 and self.server == server and self.method in (None, method) and
                (self.path is None or re.search(self.path, path)))


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    timeout = 20

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.serve()

    def do_HEAD(self):
        self.serve()

    def serve(self):
        hub, name = self.server.hub, self.server.name
        hub.note(Request(name, self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        self.fault = hub.take_fault(name, self.command, self.path)
        time.sleep(self.fault.get('wait', 0))
        if 'together' in self.fault:
            self.fault['together'].wait()
        if 'reset' in self.fault:
            self.drop()
        elif 'status' in self.fault:
            self.answer(self.fault['status'], self.fault.get('headers', {}), self.fault.get('body', b'no'))
        elif name == 'cdn':
            self.serve_blob()
        else:
            self.serve_hub()

    # --- the Hub ---

    def serve_hub(self):
        url = urlsplit(self.path)
        for pattern, answer in ((r'/api/models/((?:[^/]+/)?[^/]+)/tree/([^/]+)$', self.serve_tree),
                                (r'/api/models/((?:[^/]+/)?[^/]+)/revision/([^/]+)$', self.serve_info),
                                (r'/((?:[^/]+/)?[^/]+)/resolve/([^/]+)/(.+)$', self.serve_file)):
            match = re.fullmatch(pattern, url.path)
            if match:
                return self.serve_repo(match, answer, parse_qs(url.query))
        return self.error(404, None, 'no such page')

    def serve_repo(self, match, answer, query):
        hub, name, revision = self.server.hub, match[1], unquote(match[2])
        if name in hub.renamed:
            return self.answer(307, {'Location': self.path.replace(name, hub.renamed[name], 1)}, b'')
        repo = hub.repos.get(name)
        if not repo or (hub.token and self.headers.get('Authorization') != 'Bearer ' + hub.token):
            if repo and self.headers.get('Authorization'):
                return self.error(401, None, 'Invalid credentials in Authorization header')
            return self.error(401, 'RepoNotFound', 'Repository not found')
        if revision not in repo.revisions | {repo.commit}:
            return self.error(404, 'RevisionNotFound', 'Invalid rev id: ' + revision)
        return answer(repo, query, *match.groups()[2:])

    def entry(self, repo, path, tree):
        size, oid = len(repo.files[path]), repo.oid(path)
        if path not in repo.lfs:
            return {'type': 'file', 'path': path, 'size': size, 'oid': oid} if tree else \
                {'rfilename': path, 'size': size, 'blobId': oid}
        pointer = git_sha1(b'pointer')
        if tree:
            return {'type': 'file', 'path': path, 'size': size, 'oid': pointer,
                    'lfs': {'oid': oid, 'size': size, 'pointerSize': 134}}
        return {'rfilename': path, 'size': size, 'blobId': pointer,
                'lfs': {'sha256': oid, 'size': size, 'pointerSize': 134}}

    def serve_info(self, repo, query):
        hub = self.server.hub
        if 'blobs' in query and hub.blobs_status:
            return self.answer(hub.blobs_status, {}, b'unknown parameter')
        info = {'id': repo.name, 'sha': repo.commit, 'private': False, 'gated': False,
                'cardData': {'license': repo.license}}
        if not hub.tree_only:
            info['siblings'] = [self.entry(repo, path, False) if 'blobs' in query and not hub.bare else {'rfilename': path}
                                for path in repo.files]
        return self.json({**info, **hub.info})

    def serve_tree(self, repo, query):
        hub = self.server.hub
        if hub.tree_status:
            return self.answer(hub.tree_status, {}, b'<html>no such page</html>')
        start = int(query.get('cursor', ['0'])[0])
        paths = list(repo.files)
        headers = {}
        if start + hub.page < len(paths):
            link = hub.next_page or '%s/api/models/%s/tree/%s?recursive=true&cursor=%d' % (
                hub.url, repo.name, repo.commit, start + hub.page)
            headers['Link'] = '<%s>; rel="next"' % link
        folder = [{'type': 'directory', 'path': 'sub', 'size': 0, 'oid': git_sha1(b'')}]
        return self.json(folder + [self.entry(repo, path, True) for path in paths[start:start + hub.page]], headers)

    def serve_file(self, repo, query, quoted):
        hub, path = self.server.hub, unquote(quoted)
        if path not in repo.files:
            return self.error(404, 'EntryNotFound', 'Entry not found')
        if hub.gated:
            return self.error(hub.gated, 'GatedRepo', 'Access to model %s is restricted' % repo.name)
        headers = {'X-Repo-Commit': repo.commit}
        if hub.etag:
            return self.body(repo.files[path], {'ETag': hub.etag(repo.files[path])})
        if path not in repo.lfs:
            headers['ETag'] = ('W/"%s"' if hub.weak else '"%s"') % repo.oid(path)
            return self.body(repo.files[path], headers)
        location = hub.location or '%s/%s?signature=%d' % (hub.cdn_url, repo.oid(path), hub.next_signature())
        headers.update({'X-Linked-Etag': '"%s"' % repo.oid(path), 'X-Linked-Size': str(len(repo.files[path])),
                        'ETag': '"%s"' % git_sha1(b'pointer'), 'Location': location, **hub.linked})
        return self.answer(302, headers, b'Found. Redirecting')

    # --- the other host ---

    def serve_blob(self):
        url = urlsplit(self.path)
        data = self.server.hub.blobs().get(url.path[1:])
        if data is None:
            return self.answer(404, {}, b'no such blob')
        if int(parse_qs(url.query).get('signature', ['0'])[0]) <= self.server.hub.expired:
            return self.answer(403, {}, b'<Error>Request has expired</Error>')
        return self.body(data, {'ETag': '"something else"'})

    # --- answers ---

    def drop(self):
        self.close_connection = True
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def error(self, status, code, message):
        headers = {'X-Error-Message': message, 'X-Request-Id': 'Root=1-test'}
        if code:
            headers['X-Error-Code'] = code
        self.answer(status, headers, message.encode())

    def json(self, value, headers=()):
        self.answer(200, {'Content-Type': 'application/json', **dict(headers)}, json.dumps(value).encode())

    def body(self, data, headers):
        match = re.fullmatch(r'bytes=(\d+)-', self.headers.get('Range', ''))
        start = int(match[1]) if match and 'no_range' not in self.fault else None
        if 'corrupt' in self.fault:
            at = self.fault['corrupt']
            data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]
        if start is None:
            return self.answer(200, headers, data)
        if start >= len(data):
            return self.answer(416, {'Content-Range': 'bytes */%d' % len(data)}, b'')
        headers['Content-Range'] = self.fault.get('range_is',
                                                  'bytes %d-%d/%d' % (start, len(data) - 1, len(data)))
        return self.answer(206, headers, data[start:])

    def answer(self, status, headers, data):
        data += self.fault.get('extra', b'')
        length = self.fault.get('length', len(data))
        headers = {**headers, **({} if length is None else {'Content-Length': str(length)})}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == 'HEAD':
            return
        try:
            self.send_body(data)
        except OSError:  # the client has gone; some tests kill it
            self.close_connection = True
        if self.fault.get('length', len(data)) != len(data):
            self.drop()

    def send_body(self, data):
        fault = self.fault
        if 'pace' in fault:
            size, seconds = fault['pace']
            for at in range(0, len(data), size):
                self.wfile.write(data[at:at + size])
                time.sleep(seconds)
        elif 'cut' in fault or 'stall' in fault:
            self.wfile.write(data[:fault.get('cut', fault.get('stall'))])
            self.wfile.flush()
            if 'stall' in fault:
                self.server.hub.stalled.set()
                self.server.hub.closing.wait(15)
            self.drop()
        else:
            self.wfile.write(data)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, client_address):
        pass  # clients break off; that is what the tests are about


class Hub:
    """Use as a context: with Hub() as hub."""

    def __init__(self, certificate=None):
        self.repos, self.renamed, self.token, self.gated = {}, {}, None, None
        self.tree_only, self.page, self.next_page = False, 1000, None
        self.info, self.linked, self.location, self.weak = {}, {}, None, False
        # What mirrors lack: sizes and hashes of siblings, the tree, ?blobs (a status each); and what they have instead:
        # every file from their own disk, under an ETag of their own (bytes -> str).
        self.bare, self.tree_status, self.blobs_status, self.etag = False, None, None, None
        self.expired, self.signature = 0, 0
        self.faults, self.requests = [], []
        self.lock, self.stalled, self.closing = threading.Lock(), threading.Event(), threading.Event()
        self.servers = [Server(('127.0.0.1', 0), Handler) for _ in range(2)]
        for server, name in zip(self.servers, ('hub', 'cdn')):
            server.hub, server.name = self, name
        scheme = 'http'
        if certificate:
            scheme = 'https'
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.servers[0].socket = context.wrap_socket(self.servers[0].socket, server_side=True)
        self.url = '%s://127.0.0.1:%d' % (scheme, self.servers[0].server_port)
        self.cdn_url = 'http://127.0.0.1:%d' % self.servers[1].server_port

    def __enter__(self):
        self.threads = [threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.02}, daemon=True)
                        for server in self.servers]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *exception):
        self.closing.set()
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def add(self, name, files, **options):
        self.repos[name] = Repo(name, files, **options)
        return self.repos[name]

    def fail(self, *args, **options):
        self.faults.append(Fault(*args, **options))

    # --- for the handlers ---

    def note(self, request):
        with self.lock:
            self.requests.append(request)

    def take_fault(self, server, method, path):
        with self.lock:
            for fault in self.faults:
                if fault.matches(server, method, path):
                    fault.times -= 1
                    return fault.effect
        return {}

    def next_signature(self):
        with self.lock:
            self.signature += 1
            return self.signature

    def blobs(self):
        return {repo.oid(path): repo.files[path] for repo in self.repos.values() for path in repo.lfs}

    # --- for the tests ---

    def seen(self, server=None, method=None, path=''):
        """The requests so far that match; path is a part of it, as sent."""
        with self.lock:
            return [r for r in self.requests
                    if server in (None, r.server) and method in (None, r.method) and path in r.path]


def url_of(hub, repo, path):
    return '/%s/resolve/%s/%s' % (repo.name, repo.commit, quote(path))
