"""The page: its options, what it says of files, what becomes of them, and it in a browser."""

import asyncio
import base64
import importlib.util
import re
import shutil
import signal
import struct
import sys
import time
import zlib
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from PIL.IcoImagePlugin import IcoImageFile
from PIL.PngImagePlugin import PngImageFile

from lesion import NOTICE, app
from lesion import analyzer as analyzer_module
from lesion.analyzer import Analyzer
from lesion.app_policy import Policy
from lesion.app_style import PAGE_STYLE
from lesion.app_uploads import Uploads
from lesion.app_view import FORMATS, MAX_UPLOAD, _outline, _shares, error_html, examine
from lesion.attributes import Attributes
from lesion.overlay import PREDICTION_COLOR
from lesion.phantom import draw_phantom
from lesion.samples import ATTRIBUTES
from mrcnn.images import write_image

PHANTOM = draw_phantom(4, 150, 200, attributes=("pigment_network", "milia_like_cyst"))
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
needs_gradio = pytest.mark.skipif(
    importlib.util.find_spec("gradio") is None, reason="gradio (the extra `demo`) is not installed"
)


class Boundaries:
    """Knows the phantom's lesion, takes dark pixels of others; stands in for a network."""

    def predict(self, images):
        return [self._boundary(image) for image in images]

    def describe(self):
        return {"task": "boundary", "weights": "boundary.h5", "sha256": "a" * 64}

    @staticmethod
    def _boundary(image):
        known = image.shape == PHANTOM.image.shape
        mask = PHANTOM.mask if known else image.mean(axis=2) < 100
        return SimpleNamespace(mask=mask, score=0.75, box=(10, 20, 30, 40))


class AttributesPredictor:
    def predict(self, images):
        blank = {name: np.zeros(images[0].shape[:2], bool) for name in ATTRIBUTES}
        masks = PHANTOM.attributes if images[0].shape == PHANTOM.image.shape else blank
        presence = {name: float(mask.any()) for name, mask in masks.items()}
        return [Attributes(masks, presence)]

    def describe(self):
        return {"task": "attributes", "weights": "attributes.h5", "sha256": "b" * 64}


class Guess:
    def predict(self, images, patients):
        probabilities = np.array([0.05, 0.6, 0.05, 0.1, 0.1, 0.05, 0.05])
        return [SimpleNamespace(probabilities=probabilities, category="NV", refer=None)]

    def describe(self):
        described = {"task": "diagnosis", "weights": "diagnosis.h5", "sha256": "c" * 64}
        return {**described, "patient_data": True}


@pytest.fixture(scope="module")
def analyzer():
    return Analyzer(Boundaries(), AttributesPredictor(), Guess())


@pytest.fixture
def phantom(tmp_path):
    """The phantom's file."""
    path = tmp_path / "phantom.png"
    write_image(path, PHANTOM.image)
    return path


def bomb(path, width, height):
    """A sound PNG of few bytes whose header promises many pixels."""

    def chunk(name, content):
        checksum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content + chunk(b"IEND", b""))
    return path


def error(html):
    """The text of an error, and that it is nothing but one."""
    found = re.fullmatch(r'<p class="lesion-error" role="alert">(.*)</p>', html)
    assert found, html[:200]
    assert "\n" not in found[1]
    return found[1]


# === Options and exit codes; gradio is not needed ===


def test_options():
    arguments = app.build_parser().parse_args([])
    assert (arguments.host, arguments.port, arguments.max_megapixels) == ("127.0.0.1", 7860, 50)
    assert (arguments.boundary, arguments.attributes, arguments.diagnosis) == (None, None, None)
    for option in ("--weights", "--boundary"):
        assert app.build_parser().parse_args([option, "b.h5"]).boundary == "b.h5"


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--port=0"], "from 1 on"),
        (["--port=65536"], "from 1 to 65535"),
        (["--max-megapixels=0"], "above 0"),
        (["--max-megapixels=90"], "at most 89"),
        (["--share"], "unrecognized"),
    ],
)
def test_unusable_options(arguments, said, capsys):
    with pytest.raises(SystemExit, match="2"):
        app.main(arguments)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "host, alone",
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.7", False),
        ("example.org", False),
    ],
)
def test_loopback(host, alone):
    assert app.is_loopback(host) == alone


@pytest.fixture
def environment(monkeypatch):
    """Keeps what `main` sets for its process from this one."""
    monkeypatch.setattr(app.os, "environ", dict(app.os.environ))


@pytest.fixture
def page(monkeypatch, environment, analyzer):
    """Stands in for gradio: a page that is closed by Ctrl-C at once."""
    made = SimpleNamespace(opened=None, closed=False, asked=None)
    made.close = lambda verbose: setattr(made, "closed", True)

    def build_page(_, uploads, max_megapixels):
        made.folder, made.max_megapixels = uploads.folder, max_megapixels
        return made

    def open_page(_, host, port, alone):
        assert made.folder.is_dir()
        made.opened = host, port
        return "http://somewhere/"

    def stop(_):
        raise KeyboardInterrupt

    module = ModuleType("lesion.app_page")
    module.build_page, module.open_page = build_page, open_page
    monkeypatch.setitem(sys.modules, "lesion.app_page", module)
    monkeypatch.setattr(app.threading.Event, "wait", stop)

    def analyzer_of(**options):
        made.asked = options
        return analyzer

    monkeypatch.setattr(app, "Analyzer", analyzer_of)
    return made


def test_folder_goes_with_the_command(page, capsys):
    assert app.main(["--port", "7999", "--max-megapixels", "12"]) == 0
    assert page.opened == ("127.0.0.1", 7999) and page.max_megapixels == 12 and page.closed
    assert not page.folder.exists()
    printed = capsys.readouterr()
    assert "http://somewhere/" in printed.out and NOTICE in printed.out
    assert printed.err == ""


def test_folder_goes_with_a_command_that_is_terminated(page, monkeypatch):
    monkeypatch.setattr(app.threading.Event, "wait", lambda _: signal.raise_signal(signal.SIGTERM))
    assert app.main([]) == 0
    assert page.closed and not page.folder.exists()


def test_options_reach_the_analyzer(page):
    weights = ["--weights=a", "--diagnosis-weights=b", "--diagnosis-weights=c"]
    app.main([*weights, "--views=1", "--risk=0.2", "--melanoma-sensitivity=0.9"])
    assert page.asked == {
        "boundary": "a",
        "attributes": None,
        "diagnosis": ["b", "c"],
        "views": 1,
        "risk": 0.2,
        "melanoma_sensitivity": 0.9,
    }


def test_other_hosts_are_warned_of(page, capsys):
    assert app.main(["--host", "0.0.0.0"]) == 0
    warning = capsys.readouterr().err
    assert warning.startswith("Warning: --host 0.0.0.0 lets other computers")
    assert warning.count("\n") == 1


def test_without_weights_the_analyzer_says_why(page, monkeypatch, capsys):
    monkeypatch.setattr(app, "Analyzer", Analyzer)
    monkeypatch.setattr(analyzer_module, "shipped_weights", lambda task: None)
    assert app.main([]) == 2
    said = capsys.readouterr().err
    assert said.startswith("There are weights for no task") and said.count("\n") == 1
    assert page.opened is None


def test_port_in_use(page, monkeypatch, capsys):
    def refuse(*_):
        raise OSError("The port is in use.")

    monkeypatch.setattr(sys.modules["lesion.app_page"], "open_page", refuse)
    assert app.main([]) == 2
    assert capsys.readouterr().err == "The port is in use.\n"
    assert not page.folder.exists()


def test_missing_extra(environment, monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "lesion.app_page", raising=False)
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert app.main([]) == 2
    said = capsys.readouterr().err
    assert 'pip install -e ".[demo]"' in said and said.count("\n") == 1


def test_gradio_is_told_to_keep_quiet():
    settings = app.environment("folder")
    assert settings["GRADIO_TEMP_DIR"] == "folder"
    assert settings["GRADIO_ANALYTICS_ENABLED"] == settings["GRADIO_RUN_HISTORY"] == "False"


# === What is said of a file ===


def test_good_image(analyzer, phantom):
    html = examine(analyzer, phantom, 50)
    assert html.startswith("<article") and "phantom.png" in html and "200 × 150 pixels" in html
    assert str(phantom.parent) not in html
    for text in ("melanoma (MEL)", "0.600", "Presence of attributes", "Largest diameter"):
        assert text in html
    # What is found can be switched; what is not has a box that cannot.
    for name in ("boundary", "pigment_network", "milia_like_cyst"):
        assert f'name="{name}" checked' in html and f'data-layer="{name}"' in html
    for name in ("negative_network", "streaks", "globules"):
        assert f'name="{name}" disabled' in html and f'data-layer="{name}"' not in html


@pytest.mark.parametrize("side", [1, 5, 40])
def test_a_speck_of_a_large_photograph_is_drawn(side):
    speck = np.zeros((3000, 4000), bool)
    speck[1000 : 1000 + side, 2000 : 2000 + side] = True
    for mask in (speck, np.zeros_like(speck)):
        assert (_shares(mask, (500, 375)) > 127).any() == mask.any()
        assert bool(_outline(mask, (500, 375))) == mask.any()


def test_patient_is_told_of(analyzer, phantom):
    told = examine(analyzer, phantom, 50, {"age": "50", "sex": "female", "site": ""})
    assert "Told of the patient: age 50, sex female." in told
    nothing = {"age": "", "sex": "", "site": ""}
    assert "Told of the patient" not in examine(analyzer, phantom, 50, nothing)


@pytest.mark.parametrize("age", ["old", "-3", "121"])
def test_patient_that_is_none(analyzer, phantom, age):
    assert f"nothing about the patient: age {age}." in error(
        examine(analyzer, phantom, 50, {"age": age, "sex": "", "site": ""})
    )


def test_report_is_the_one_of_the_command(analyzer, phantom):
    html = examine(analyzer, phantom, 50)
    link = r'download="([^"]*)"\s+href="data:text/html;base64,([^"]*)"'
    name, address = re.search(link, html).groups()
    report = base64.b64decode(address).decode()
    assert name == "phantom_report.html"
    assert report.startswith("<!DOCTYPE html>") and report.count(NOTICE) >= 2
    assert "default-src 'none'" in report and 'href="#case-1">phantom.png<' in report
    assert str(phantom.parent) not in report


@pytest.mark.parametrize(
    "pixels",
    [
        np.full((140, 130), 40_000, np.uint16),
        np.full((140, 130), 200, np.uint8),
        np.full((140, 130, 4), 200, np.uint8),
        np.full((1, 1, 3), 200, np.uint8),
    ],
    ids=["16 bits", "grey", "alpha", "1 x 1"],
)
def test_unusual_images(analyzer, tmp_path, pixels):
    path = tmp_path / "unusual.png"
    Image.fromarray(pixels).save(path)
    html = examine(analyzer, path, 50)
    assert "No lesion was found" in html


def test_bombs_are_refused(analyzer, tmp_path):
    path = bomb(tmp_path / "bomb.png", 8000, 8000)
    said = error(examine(analyzer, path, 50))
    assert said.startswith("bomb.png: the image has 64.0 megapixels; up to 50 are taken.")
    said = error(examine(analyzer, bomb(path, 60_000, 60_000), 50))
    assert said.startswith("bomb.png: the image has far too many megapixels")


def test_bombs_are_refused_before_anything_is_decoded(analyzer, tmp_path, monkeypatch):
    """Pillow decodes an ICO as it opens it, and a PNG as it looks for metadata behind pixels."""
    loaded = []
    for plugin in (PngImageFile, IcoImageFile):
        monkeypatch.setattr(plugin, "load", lambda self: loaded.append(self.size))
    path = bomb(tmp_path / "bomb.png", 8000, 8000)
    content = path.read_bytes()
    text = b"tEXtComment\0from a camera"
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    path.write_bytes(content[:-12] + chunk + content[-12:])
    assert "64.0 megapixels" in error(examine(analyzer, path, 50))
    icon = struct.pack("<HHHBBBBHHII", 0, 1, 1, 0, 0, 0, 0, 1, 32, len(content), 22) + content
    path.write_bytes(icon)
    assert "content is none of BMP" in error(examine(analyzer, path, 50))
    assert not loaded


@pytest.mark.parametrize(
    "name, content, said",
    [
        ("text.png", b"not an image", "content is none of BMP"),
        ("empty.jpg", b"", "content is none of BMP"),
        ("cut.png", bytes.fromhex("89504e470d0a1a0a0000"), "or it is damaged"),
        ("chunk.png", b"\x89PNG\r\n\x1a\n\0\0\0\x05IHDR" + bytes(9), "cannot be read"),
        ("paper.pdf", b"%PDF-1.4", "files of this type are not taken"),
        ("photograph.dcm", bytes(128) + b"DICM", "`lesion analyze` takes DICOM"),
        ("nothing", b"", "files of this type are not taken"),
        ("hidden.png", b"P5 1 1 255 \x80", "content is none of BMP"),
        ("large.tif", None, "the file has 65 MB; up to 64 MB are taken"),
    ],
)
def test_bad_files_are_one_line(analyzer, tmp_path, name, content, said):
    path = tmp_path / name
    with path.open("wb") as file:
        file.truncate(MAX_UPLOAD + 2**20) if content is None else file.write(content)
    line = error(examine(analyzer, path, 50))
    assert line.startswith(f"{name}: ") and said in line
    assert str(tmp_path) not in line


def test_file_that_is_gone(analyzer, tmp_path):
    assert "No such file" in error(examine(analyzer, tmp_path / "gone.png", 50))


def test_names_are_escaped(analyzer, tmp_path):
    path = tmp_path / "<b>&{{x}}${y}.png"
    write_image(path, PHANTOM.image)
    html = examine(analyzer, path, 50)
    assert "&lt;b&gt;&amp;" in html and "<b>" not in html
    assert error(error_html("<i>")) == "&lt;i&gt;"


def test_only_what_was_done_is_shown(phantom):
    html = examine(Analyzer("none", "none", Guess()), phantom, 50)
    assert "Show" not in html and "<figcaption>" not in html and "melanoma (MEL)" in html
    html = examine(Analyzer(Boundaries(), "none", "none"), phantom, 50)
    assert f"color:rgb{PREDICTION_COLOR}" in html and "Boundary, score 0.75" in html
    assert "globules" not in html and "melanoma" not in html


def points(path):
    return np.array([[float(x) for x in pair.split()] for pair in re.findall(r"[^MLZ]+", path)])


def test_outline_of_a_rectangle_is_its_frame():
    mask = np.zeros((20, 30), bool)
    mask[5:12, 10:30] = True  # up to the image's edge
    outline = points(_outline(mask, (30, 20)))
    # Half a grey level to the side of the middle between two pixels.
    assert outline.min(axis=0) == pytest.approx([10, 5], abs=0.05)
    assert outline.max(axis=0) == pytest.approx([30, 12], abs=0.05)
    reduced = points(_outline(mask, (15, 10)))
    assert reduced.max(axis=0) == pytest.approx([15, 6], abs=0.3)


def test_outline_of_each_region_is_closed():
    mask = np.zeros((20, 30), bool)
    mask[2:5, 2:5] = mask[10:15, 10:15] = True
    path = _outline(mask, (30, 20))
    assert path.count("M") == path.count("Z") == 2


def test_every_outline_can_be_hidden():
    for name in ("boundary", *ATTRIBUTES):
        assert f'input[name="{name}"]:not(:checked)) [data-layer="{name}"]' in PAGE_STYLE


# === What becomes of files ===


@pytest.fixture
def uploads(tmp_path):
    folder = tmp_path / "uploads"
    (folder / "0123").mkdir(parents=True)
    return Uploads(folder)


def upload(uploads, name):
    path = uploads.folder / "0123" / name
    path.write_bytes(b"image")
    return path


def test_file_goes_when_it_is_done(uploads):
    path = upload(uploads, "a.png")
    uploads.received("first", path)
    uploads.done("first", path)
    uploads.done("first", path)
    assert not path.exists()


@pytest.mark.parametrize("second", ["second", "first"], ids=["two pages", "one page twice"])
@pytest.mark.parametrize("closed", [False, True])
def test_file_that_was_sent_twice_goes_with_the_last(uploads, second, closed):
    path = upload(uploads, "a.png")  # of one content there is one file
    uploads.opened("third")
    uploads.received("first", path)
    uploads.received(second, path)
    if closed and second != "first":
        uploads.closed("first")
    else:
        uploads.done("first", path)
    assert path.exists()
    uploads.done(second, path)
    assert not path.exists()


def test_waiting_files_go_with_their_page(uploads):
    uploads.opened("second")
    mine, other = upload(uploads, "a.png"), upload(uploads, "b.png")
    uploads.received("first", mine)
    uploads.closed("first")
    assert not mine.exists() and other.exists()


def test_all_goes_with_the_last_page(uploads):
    uploads.opened("first")
    upload(uploads, "broken_off.png")
    (uploads.folder / "tmp1").write_bytes(b"half")
    uploads.closed("first")
    assert list(uploads.folder.iterdir()) == []


def test_nothing_else_is_deleted(uploads, phantom):
    with pytest.raises(ValueError, match="is no file of the folder"):
        uploads.done("first", phantom)
    with pytest.raises(ValueError, match="is no file of the folder"):
        uploads.done("first", uploads.folder / ".." / phantom.name)
    assert phantom.exists()


# === Whom the page answers ===


def answered(hosts=("localhost", "127.0.0.1"), path="/", kind="http", **headers):
    """What is sent for a request, by an application that says yes to everything."""
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})

    async def send(message):
        sent.append(message)

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": kind, "path": path, "headers": raw}
    asyncio.run(Policy(app, hosts)(scope, None, send))
    return sent


@pytest.mark.parametrize(
    ("status", "request_"),
    [
        (200, {"host": "127.0.0.1:7860"}),
        (200, {"host": "localhost:7860", "origin": "http://localhost:7860"}),
        (403, {"host": "127.0.0.1:7860", "origin": "https://example.org"}),
        (403, {"host": "127.0.0.1:7860", "origin": "null"}),
        (403, {"host": "rebound.example.org"}),
        (403, {}),
        (403, {"host": "[::1"}),
        (403, {"host": "127.0.0.1:7860", "origin": "http://[::1"}),
        (403, {"host": "127.0.0.1:7860", "path": "/gradio_api/file=https://example.org/a.png"}),
        (403, {"host": "127.0.0.1:7860", "path": "/gradio_api/file/https://example.org/a.png"}),
        (200, {"host": "192.168.1.7:7860", "hosts": None}),
        (403, {"host": "192.168.1.7:7860", "origin": "http://other", "hosts": None}),
    ],
)
def test_other_pages_are_refused(status, request_):
    first = answered(**request_)[0]
    assert first["status"] == status
    headers = dict(first["headers"])
    assert b"default-src 'self'" in headers[b"content-security-policy"]
    assert (headers.get(b"a") == b"b") == (status == 200)


def test_sockets_of_other_pages_are_closed():
    (message,) = answered(kind="websocket", host="127.0.0.1", origin="http://example.org")
    assert message["type"] == "websocket.close"


# === The page itself ===


@pytest.fixture
def folder(tmp_path, monkeypatch):
    path = tmp_path / "uploads"
    path.mkdir()
    for name, value in app.environment(str(path)).items():
        monkeypatch.setenv(name, value)
    return path


@needs_gradio
class TestPage:
    @pytest.fixture
    def blocks(self, analyzer, folder):
        from lesion.app_page import build_page

        return build_page(analyzer, Uploads(folder), 50)

    @staticmethod
    def function(blocks, name):
        return next(made.fn for made in blocks.fns.values() if made.name == name)

    def test_shows_notice_and_limits(self, blocks):
        shown = str(blocks.get_config_file()["components"])
        assert NOTICE in shown and "up to 64 MB and 50 megapixels" in shown
        assert all(name in shown for name in FORMATS)

    def test_one_analysis_at_a_time_and_few_waiting(self, blocks):
        assert blocks._queue.max_size == 8
        analyses = [made for made in blocks.fns.values() if made.name == "analyze"]
        assert [made.concurrency_limit for made in analyses] == ["default"]
        assert blocks._queue.default_concurrency_limit == 1

    def test_says_nothing_to_its_makers(self, blocks):
        assert not blocks.analytics_enabled

    @pytest.mark.parametrize("good", [True, False])
    def test_upload_goes_after_the_analysis(self, blocks, folder, good):
        (folder / "x").mkdir()
        path = folder / "x" / "image.png"
        write_image(path, PHANTOM.image) if good else bomb(path, 9000, 9000)
        request = SimpleNamespace(session_hash="page")
        given = ("50", "female", "back")
        html, left, *facts = self.function(blocks, "analyze")(str(path), *given, request)
        assert left is None and ("lesion-result" in html) == good
        assert facts == (["", "", ""] if good else [{"__type__": "update"}] * 3)  # as they are
        assert not path.exists()

    @pytest.mark.parametrize("takes", [True, False])
    def test_patient(self, analyzer, folder, monkeypatch, takes):
        from lesion.app_page import build_page

        asked = []
        monkeypatch.setattr("lesion.app_page.examine", lambda *given: asked.append(given) or "")
        monkeypatch.setattr(Analyzer, "takes_patients", takes)
        blocks = build_page(analyzer, Uploads(folder), 50)
        row = next(b for b in blocks.blocks.values() if b.elem_id == "patient")
        assert row.visible == takes
        request = SimpleNamespace(session_hash="page")
        (folder / "x").mkdir()
        path = folder / "x" / "image.png"
        path.touch()
        self.function(blocks, "analyze")(str(path), "50", "female", "back", request)
        assert asked[0][3] == {"age": "50", "sex": "female", "site": "back"}

    def test_upload_goes_with_its_page(self, blocks, folder):
        request = SimpleNamespace(session_hash="page")
        (folder / "x").mkdir()
        path = folder / "x" / "image.png"
        path.write_bytes(b"image")
        self.function(blocks, "opened")(request)
        self.function(blocks, "received")(str(path), request)
        self.function(blocks, "closed")(request)
        assert list(folder.iterdir()) == []


@needs_gradio
@pytest.mark.skipif(
    importlib.util.find_spec("playwright") is None, reason="playwright is not installed"
)
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
class TestBrowser:
    @pytest.fixture
    def address(self, analyzer, folder):
        from lesion.app_page import build_page, open_page

        blocks = build_page(analyzer, Uploads(folder), 50)
        yield open_page(blocks, "127.0.0.1", self.free_port())
        blocks.close(verbose=False)

    @pytest.fixture
    def browser(self):
        from playwright.sync_api import sync_playwright

        with sync_playwright() as driver:
            browser = driver.chromium.launch(
                # Containers lack what the sandbox needs.
                executable_path=CHROMIUM,
                args=["--no-sandbox"],
            )
            yield browser
            browser.close()

    @staticmethod
    def free_port():
        import socket

        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return probe.getsockname()[1]

    @staticmethod
    def drop(page, path):
        """What a browser tells a page when someone drops a file on it."""
        content = base64.b64encode(path.read_bytes()).decode()
        transfer = page.evaluate_handle(
            """([name, content]) => {
              const bytes = Uint8Array.from(atob(content), letter => letter.charCodeAt(0));
              const transfer = new DataTransfer();
              transfer.items.add(new File([bytes], name, {type: "image/png"}));
              return transfer; }""",
            [path.name, content],
        )
        page.dispatch_event("#upload button", "drop", {"dataTransfer": transfer})

    def test_from_drop_to_report(self, address, browser, folder, phantom, tmp_path):
        page = browser.new_page(viewport={"width": 390, "height": 800})
        requested = []
        page.on("request", lambda request: requested.append(request.url))
        page.goto(address)
        page.wait_for_selector("#upload button")
        assert page.get_by_role("note").inner_text() == NOTICE

        self.drop(page, phantom)
        result = page.locator(".lesion-result")
        result.wait_for(timeout=60_000)
        assert "phantom.png" in result.inner_text() and "melanoma (MEL)" in result.inner_text()
        assert [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size] == []

        line = page.locator('[data-layer="boundary"] .line')
        assert line.is_visible()
        page.get_by_role("checkbox", name="boundary").uncheck()
        assert not line.is_visible()
        assert page.locator('[data-layer="pigment_network"] .line').is_visible()

        with page.expect_download() as download:
            page.get_by_role("link", name="Download report").click()
        assert download.value.suggested_filename == "phantom_report.html"
        download.value.save_as(tmp_path / "report.html")
        assert NOTICE in (tmp_path / "report.html").read_text()

        page.mouse.wheel(0, 1000)
        page.wait_for_function("scrollY > 100")
        assert page.get_by_role("note").bounding_box()["y"] >= 0
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

        self.drop(page, bomb(tmp_path / "bomb.png", 9000, 9000))
        page.get_by_role("alert").filter(has_text="bomb.png: the image has 81.0").wait_for()

        local = (address, "data:", "blob:")
        assert [url for url in requested if not url.startswith(local)] == []
        page.close()
        deadline = time.monotonic() + 10
        while any(folder.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert list(folder.iterdir()) == []
