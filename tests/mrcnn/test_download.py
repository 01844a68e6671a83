"""Downloads from a server on this computer that breaks off, ignores ranges, or sends rubbish."""

import hashlib
import logging
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mrcnn import download as module
from mrcnn.download import DownloadError, cache_folder, coco_weights, download, known_file

CONTENT = bytes(range(256)) * 4000  # about 1 MB
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Sends `content`; breaks off after `cut` bytes while `cuts` last.

    Attributes:
        requested: the Range header of each request, or None.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.ranges, self.cut, self.cuts, self.status = CONTENT, True, 0, 0, None
        self.requested = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/weights.h5"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        wanted = self.headers.get("Range")
        server.requested.append(wanted)
        if server.status:
            self.send_error(server.status)
            return
        start = int(re.match(r"bytes=(\d+)-", wanted)[1]) if wanted and server.ranges else 0
        if start >= len(server.content) and start:
            self.send_error(416)
            return
        body = server.content[start:]
        self.send_response(206 if wanted and server.ranges else 200)
        if wanted and server.ranges:
            last, total = len(server.content) - 1, len(server.content)
            self.send_header("Content-Range", f"bytes {start}-{last}/{total}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if server.cuts:
            server.cuts -= 1
            body = body[: server.cut]
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def fetch(server, path, **checks):
    return download(server.url, path, **(checks or {"size": len(CONTENT), "md5": MD5}))


def test_a_file_is_fetched_checked_and_named(server, tmp_path):
    path = tmp_path / "new" / "folder" / "weights.h5"
    assert fetch(server, path, size=len(CONTENT), md5=MD5.upper(), sha256=SHA256) == path
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == ["weights.h5"]


def test_a_file_already_there_is_not_fetched_again(server, tmp_path):
    (tmp_path / "weights.h5").write_bytes(CONTENT)
    fetch(server, tmp_path / "weights.h5")
    assert server.requested == []


def test_a_wrong_file_already_there_is_replaced(server, tmp_path):
    (tmp_path / "weights.h5").write_bytes(CONTENT[:-1] + b"x")
    fetch(server, tmp_path / "weights.h5")
    assert (tmp_path / "weights.h5").read_bytes() == CONTENT


def test_a_broken_connection_is_taken_up_again(server, tmp_path):
    server.cut, server.cuts = 300_000, 2
    path = fetch(server, tmp_path / "weights.h5")
    assert path.read_bytes() == CONTENT
    assert server.requested == [None, "bytes=300000-", "bytes=600000-"]


def test_the_next_call_goes_on_where_the_last_one_stopped(server, tmp_path):
    (tmp_path / "weights.h5.part").write_bytes(CONTENT[:1000])
    path = fetch(server, tmp_path / "weights.h5")
    assert path.read_bytes() == CONTENT
    assert server.requested == ["bytes=1000-"]


def test_a_server_without_ranges_sends_all_again(server, tmp_path):
    server.ranges = False
    (tmp_path / "weights.h5.part").write_bytes(CONTENT[:1000])
    assert fetch(server, tmp_path / "weights.h5").read_bytes() == CONTENT
    assert server.requested == ["bytes=1000-"]


def test_a_complete_part_only_takes_its_name(server, tmp_path):
    (tmp_path / "weights.h5.part").write_bytes(CONTENT)
    assert fetch(server, tmp_path / "weights.h5").read_bytes() == CONTENT
    assert server.requested == []


def test_a_part_beyond_the_end_starts_anew(server, tmp_path):
    (tmp_path / "weights.h5.part").write_bytes(CONTENT + b"more")
    assert fetch(server, tmp_path / "weights.h5", md5=MD5).read_bytes() == CONTENT
    assert server.requested == [f"bytes={len(CONTENT) + 4}-", None]


def test_the_beginning_of_another_version_starts_anew(server, tmp_path):
    (tmp_path / "weights.h5.part").write_bytes(b"x" * 1000)
    assert fetch(server, tmp_path / "weights.h5").read_bytes() == CONTENT
    assert server.requested == ["bytes=1000-", None]


def test_two_at_once_fetch_it_once(server, tmp_path):
    pytest.importorskip("fcntl", reason="this system has no locks of folders")
    path = tmp_path / "weights.h5"
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(fetch, server, path) for _ in range(2)]
        assert [fetched.result() for fetched in both] == [path, path]
    assert len(server.requested) == 1 and path.read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    with pytest.raises(DownloadError, match=f"its md5 is {MD5} instead of {'0' * 32}"):
        fetch(server, tmp_path / "weights.h5", md5="0" * 32)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_size_is_an_error(server, tmp_path):
    server.content = b"<html>not found</html>"
    with pytest.raises(DownloadError, match="22 bytes instead of 1,024,000"):
        fetch(server, tmp_path / "weights.h5")


def test_a_refusal_is_an_error_with_its_status(server, tmp_path):
    server.status = 404
    with pytest.raises(DownloadError, match="Not Found"):
        fetch(server, tmp_path / "weights.h5")
    assert len(server.requested) == 1


def test_what_has_arrived_is_kept_when_the_server_is_gone(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    server.cut, server.cuts = 500_000, 1
    with pytest.raises(DownloadError, match="ended after 500,000 of 1,024,000 bytes"):
        fetch(server, tmp_path / "weights.h5")
    assert (tmp_path / "weights.h5.part").stat().st_size == 500_000


def test_without_a_connection_the_message_says_where_to_put_the_file(tmp_path):
    with Server() as closed:
        url = closed.url
    path = tmp_path / "weights.h5"
    with pytest.raises(DownloadError) as caught:
        download(url, path, size=12, md5="ab" * 16)
    message = str(caught.value)
    assert url in message
    assert f"put it at {path} (12 bytes, MD5 {'ab' * 16})" in message


def test_only_web_addresses(tmp_path):
    with pytest.raises(ValueError, match="must begin with http"):
        download("file:///etc/passwd", tmp_path / "x")


def test_progress_is_logged_in_tenths(server, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "mrcnn.download"):
        fetch(server, tmp_path / "weights.h5")
    shares = [int(n) for n in re.findall(r"weights\.h5: (\d+) % of 1\.0 MB", caplog.text)]
    assert shares == sorted(set(shares))
    assert shares[-1] == 100


def test_without_a_terminal_one_is_told_once(server, tmp_path, caplog):
    server.cut, server.cuts = 400_000, 1
    fetch(server, tmp_path / "weights.h5")
    fetch(server, tmp_path / "weights.h5")  # which is there
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert told == [f"Fetching weights.h5 (1.0 MB) from {server.url} to {tmp_path}."]


def test_a_terminal_gets_a_bar(server, tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    fetch(server, tmp_path / "weights.h5")
    assert "Fetching" not in caplog.text
    assert "weights.h5" in capsys.readouterr().err


def test_the_table_agrees_with_the_reference(shared):
    import json

    facts = json.loads((shared / "weights" / "known_hashes.json").read_text())
    for name, fact in facts.items():
        name = name.split()[0]
        if not name.endswith(".h5"):
            continue
        file = known_file(name)
        assert (file.size, file.md5) == (fact["bytes"], fact["md5"])
        assert file.url.startswith(fact.get("url", "https://"))


def test_an_unknown_file():
    with pytest.raises(ValueError, match="'other.h5' is not a known"):
        known_file("other.h5")


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("MRCNN_HOME", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("MRCNN_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "mrcnn"


def test_coco_weights_are_fetched_into_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("MRCNN_HOME", str(tmp_path))
    calls = []
    monkeypatch.setattr(module, "download", lambda *a: calls.append(a) or a[1])
    assert coco_weights() == tmp_path / "mask_rcnn_coco.h5"
    url, _, size, md5, _ = calls[0]
    assert url.endswith("/v2.0/mask_rcnn_coco.h5")
    assert (size, md5) == (257557808, "e98aaff6f99e307b5e2a8a3ff741a518")
