"""Fetching public weights: resumed where cut off, checked, and complete or absent."""

import hashlib
import logging
import os
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from mrcnn.files import alone_in

logger = logging.getLogger(__name__)

ATTEMPTS = 5  # connections one after the other, each of which brought something
BLOCK = 1 << 18  # bytes read at a time
TIMEOUT = 30  # seconds without an answer

_RELEASE = "https://github.com/matterport/Mask_RCNN/releases/download/v2.0/"
_KERAS = "https://storage.googleapis.com/keras-applications/"
_KERAS_TF = "https://storage.googleapis.com/tensorflow/keras-applications/"
_NOTOP = "_weights_tf_dim_ordering_tf_kernels_notop.h5"

# folder -> {file: (checksum, bytes where known)}; 32 digits are MD5, 64 are SHA-256. The network
# trained on COCO is matterport's, the others are those of keras.applications without their heads.
_FILES: dict[str, dict[str, tuple[str, int | None]]] = {
    _RELEASE: {"mask_rcnn_coco.h5": ("e98aaff6f99e307b5e2a8a3ff741a518", 257557808)},
    _KERAS_TF + "resnet/": {
        f"resnet50{_NOTOP}": ("4d473c1dd8becc155b73f8504c6f6626", 94765736),
        f"resnet101{_NOTOP}": ("88cf7a10940856eca736dc7b7e228a21", 171446536),
        f"resnet152{_NOTOP}": ("ee4c566cf9a93f14d82f913c2dc6dd0c", None),
        f"resnet50v2{_NOTOP}": ("fac2f116257151a9d068a22e544a4917", None),
        f"resnet101v2{_NOTOP}": ("c0ed64b8031c3730f411d2eb4eea35b5", None),
        f"resnet152v2{_NOTOP}": ("ed17cf2e0169df9d443503ef94b23b33", None),
    },
    _KERAS: {
        "efficientnetb0_notop.h5": ("50bc09e76180e00e4465e1a485ddc09d", 16705208),
        "efficientnetb1_notop.h5": ("74c4e6b3e1f6a1eea24c589628592432", None),
        "efficientnetb2_notop.h5": ("111f8e2ac8aa800a7a99e3239f7bfb39", None),
        "efficientnetb3_notop.h5": ("af6d107764bb5b1abb91932881670226", 43941136),
        "efficientnetb4_notop.h5": ("ebc24e6d6c33eaebbd558eafbeedf1ba", None),
        "efficientnetb5_notop.h5": ("38879255a25d3c92d5e44e04ae6cec6f", None),
        "efficientnetb6_notop.h5": ("9ecce42647a20130c1f39a5d4cb75743", None),
        "efficientnetb7_notop.h5": ("cbcfe4450ddf6f3ad90b1b398090fe4a", None),
    },
    _KERAS_TF + "efficientnet_v2/": {
        "efficientnetv2-b0_notop.h5": ("893217f2bb855e2983157299931e43ff", None),
        "efficientnetv2-b1_notop.h5": ("0e80663031ca32d657f9caa404b6ec37", None),
        "efficientnetv2-b2_notop.h5": ("1dfe2e7a5d45b6632553a8961ea609eb", None),
        "efficientnetv2-b3_notop.h5": ("f6abf7b5849ac99a89b50dd3fd532856", None),
        "efficientnetv2-s_notop.h5": ("af0682fb74e8c54910f2d4393339c070", None),
        "efficientnetv2-m_notop.h5": ("1b8dc055df72dde80d614482840fe342", None),
        "efficientnetv2-l_notop.h5": ("b0b66b5c863aef5b46e8608fe1711615", None),
    },
    _KERAS_TF + "convnext/": {
        "convnext_tiny_notop.h5": (
            "d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1",
            None,
        ),
        "convnext_small_notop.h5": (
            "6fc8009faa2f00c1c1dfce59feea9b0745eb260a7dd11bee65c8e20843da6eab",
            None,
        ),
        "convnext_base_notop.h5": (
            "40a20c5548a5e9202f69735ecc06c990e6b7c9d2de39f0361e27baeb24cb7c45",
            None,
        ),
        "convnext_large_notop.h5": (
            "96f02b6f0753d4f543261bc9d09bed650f24dd6bc02ddde3066135b63d23a1cd",
            None,
        ),
    },
    _KERAS_TF + "mobilenet_v3/": {
        "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5": (
            "d3e8ec802a04aa4fc771ee12a9a9b836",
            None,
        ),
        "weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5": (
            "07fb09a5933dd0c8eaafa16978110389",
            None,
        ),
    },
    _KERAS_TF + "densenet/": {
        f"densenet121{_NOTOP}": ("30ee3e1110167f948a6b9946edeeb738", None),
        f"densenet169{_NOTOP}": ("b8c4d4c20dd625c148057b9ff1c1176b", None),
        f"densenet201{_NOTOP}": ("c13680b51ded0fb44dff2d8f86ac8bb1", None),
    },
}


class DownloadError(OSError):
    """A file that could not be fetched, with where to get it by hand and where to put it."""


@dataclass(frozen=True)
class KnownFile:
    """A public file: where it is and how it is recognised."""

    name: str
    url: str
    size: int | None = None
    md5: str | None = None
    sha256: str | None = None


def known_file(name: str) -> KnownFile:
    """The public file of that name.

    Raises:
        ValueError: if the project knows of none.
    """
    for folder, files in _FILES.items():
        if name in files:
            checksum, size = files[name]
            kind = "md5" if len(checksum) == 32 else "sha256"
            return KnownFile(name, folder + name, size, **{kind: checksum})
    raise ValueError(f"{name!r} is not a known public file.")


def is_known_file(name: str) -> bool:
    """Whether `known_file` knows the public file of that name."""
    return any(name in files for files in _FILES.values())


def cache_folder() -> Path:
    """Where fetched files are kept: $MRCNN_HOME, else mrcnn in the user's cache folder."""
    if home := os.environ.get("MRCNN_HOME"):
        return Path(home).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mrcnn"


def fetch(name: str) -> Path:
    """Path of a known public file in the cache folder, fetched if it is not there.

    Raises:
        ValueError: for an unknown name.
        DownloadError: if it can be neither found nor fetched.
    """
    file = known_file(name)
    return download(file.url, cache_folder() / name, file.size, file.md5, file.sha256)


def coco_weights() -> Path:
    """Path of the weights matterport trained on COCO (81 classes, ResNet-101), 258 MB.

    Raises:
        DownloadError: if they can be neither found nor fetched.
    """
    return fetch("mask_rcnn_coco.h5")


def download(
    url: str,
    path: str | os.PathLike,
    size: int | None = None,
    md5: str | None = None,
    sha256: str | None = None,
) -> Path:
    """Fetches `url` to `path` unless the right file is there already.

    What has arrived is kept in `path` + ".part" and continued by the next attempt or call; the
    file takes its name when its size and checksums are right.

    Args:
        url: http or https.
        path: of the file; its folder is made.
        size: in bytes, where known.
        md5: hexadecimal, where known.
        sha256: hexadecimal, where known.

    Raises:
        DownloadError: naming the reason, the url and the place to put the file by hand.
        ValueError: for another kind of url.
    """
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"url must begin with http:// or https://; received {url!r}.")
    path = Path(path)
    if path.is_file():
        problem = _problem(path, size, md5, sha256)
        if not problem:
            return path
        logger.warning("%s is fetched again: %s.", path, problem)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with alone_in(path.parent):
            # Another process may have fetched it in the meantime.
            if path.is_file() and not _problem(path, size, md5, sha256):
                return path
            problem = _fetch_into(path, url, size, md5, sha256)
        if not problem:
            return path
    except (OSError, HTTPException) as error:
        problem = str(getattr(error, "reason", None) or error) or type(error).__name__
    checks = [f"{size:,} bytes" if size else "", f"MD5 {md5}" if md5 else ""]
    checks.append(f"SHA-256 {sha256}" if sha256 else "")
    details = ", ".join(check for check in checks if check)
    raise DownloadError(
        f"{path.name} could not be fetched from {url}: {problem}. Without internet access, fetch "
        f"it on another computer and put it at {path}{f' ({details})' if details else ''}."
    )


def _fetch_into(path, url, size, md5, sha256) -> str | None:
    """Fetches a file to `path`; what is wrong with what came, or None."""
    part = path.with_name(path.name + ".part")
    resumed = part.exists()
    if not sys.stderr.isatty():  # where there is no bar, as in notebooks
        volume = f"{size / 1e6:.1f} MB" if size else "of unknown size"
        logger.warning("Fetching %s (%s) from %s to %s.", path.name, volume, url, path.parent)
    _receive(url, part, size)
    problem = _problem(part, size, md5, sha256)
    if problem and resumed:
        # The kept beginning may have been of another version of the file.
        part.unlink()
        _receive(url, part, size)
        problem = _problem(part, size, md5, sha256)
    if problem:
        part.unlink()
    else:
        os.replace(part, path)
    return problem


def _problem(path, size, md5, sha256) -> str | None:
    """What is wrong with a file, or None."""
    found = path.stat().st_size
    if size is not None and found != size:
        return f"it has {found:,} bytes instead of {size:,}"
    for kind, expected in (("md5", md5), ("sha256", sha256)):
        if expected:
            with open(path, "rb") as file:
                actual = hashlib.file_digest(file, kind).hexdigest()
            if actual != expected.lower():
                return f"its {kind} is {actual} instead of {expected}"
    return None


def _receive(url, part, size):
    """Brings `part` to its full length, over several connections if they break."""
    for attempt in range(1, ATTEMPTS + 1):
        before = part.stat().st_size if part.exists() else 0
        if size is not None and before == size:
            return
        if size is not None and before > size:
            part.unlink()
            before = 0
        try:
            _receive_once(url, part, before, size)
            return
        except (OSError, HTTPException) as error:
            status = getattr(error, "code", None)
            if status == 416 and before:  # the server has no more than what is here, or less
                part.unlink()
                continue
            gained = part.exists() and part.stat().st_size > before
            if not gained or attempt == ATTEMPTS:
                raise
            logger.info("The connection broke (%s); going on from where it was.", error)
    raise DownloadError("the server refuses to send it")


def _receive_once(url, part, start, size):
    headers = {"User-Agent": "mrcnn", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        resumed = response.status == 206
        if resumed:
            match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
            if not match or int(match[1]) != start:
                raise DownloadError("the server sent another part than asked for")
        position = start if resumed else 0
        length = response.headers.get("Content-Length")
        total = position + int(length) if length else size
        with open(part, "ab" if resumed else "wb") as file:
            with _progress(part.name.removesuffix(".part"), position, total) as advance:
                while block := response.read(BLOCK):
                    file.write(block)
                    position += len(block)
                    advance(len(block))
    if total is not None and position < total:
        raise DownloadError(f"the connection ended after {position:,} of {total:,} bytes")


@contextmanager
def _progress(name, start, total):
    """Yields a function to call with numbers of bytes: a bar in a terminal, else log lines."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=name) as bar:
            yield bar.update
        return
    position = start
    logged = 10 * start // total if total else 0

    def advance(count):
        nonlocal position, logged
        position += count
        if total and 10 * position // total > logged:
            logged = 10 * position // total
            logger.info("%s: %d %% of %.1f MB", name, 10 * logged, total / 1e6)

    yield advance
