"""The files of an analysis: which images there are, what is written for each, what is done already.

For an image `<stem>.jpg`:

    <stem>.json                     the record; where it is, the rest is whole
    <stem>_overlay.jpg              the image with the boundary
    <stem>_segmentation.png         the boundary's mask, 0 and 255, as the ISIC challenge asks for
    <stem>_attribute_<name>.png     a mask for each attribute, likewise
    <stem>_attributes.jpg           the image with boundary and attributes
    <stem>_segmentation.dcm         of a DICOM image: all masks as DICOM SEG; it names the patient
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

from lesion import NOTICE
from lesion.analysis import SCHEMA_VERSION, Analysis, size_and_time
from lesion.dicom import write_segmentation
from lesion.folders import ANALYSED_SUFFIXES, image_stem
from lesion.quality import QualityWarning
from lesion.samples import ATTRIBUTES
from mrcnn.files import sha256_of, write_json
from mrcnn.images import ImageError, write_image

RECORD, OVERLAY, SEGMENTATION = ".json", "_overlay.jpg", "_segmentation.png"
ATTRIBUTE_OVERLAY, DICOM_SEGMENTATION = "_attributes.jpg", "_segmentation.dcm"
ATTRIBUTE_MASKS = {name: f"_attribute_{name}.png" for name in ATTRIBUTES}
_MARK = b"not a medical device"  # of `NOTICE`, however its dashes are encoded
_LONGEST_NAME = 255  # bytes of a file's name, of most file systems
_ENDINGS = (
    RECORD,
    OVERLAY,
    SEGMENTATION,
    ATTRIBUTE_OVERLAY,
    DICOM_SEGMENTATION,
    *ATTRIBUTE_MASKS.values(),
)
# Whatever is wrong with a record, it is made anew.
_UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
# Files that data sets and this command put beside images, and that are none themselves.
_NO_IMAGE = re.compile(
    r"_(segmentation|mask|overlay|superpixels|attributes|attribute_\w+)$"
    r"|^imd\d+_(lesion|r\d+_label\d+)$",  # of PH2
    re.IGNORECASE,
)


def write_results(analysis: Analysis, out: Path, stem: str) -> dict:
    """Writes what was found in one image, and gives back its record.

    Raises:
        OSError: a file cannot be written. There is then no record of the image.
    """
    # Interrupted half-way, an earlier record would vouch for files of two analyses.
    forget(out, stem)
    boundary, attributes = analysis.mask, analysis.attributes
    outputs = {"overlay": stem + OVERLAY}
    _write(out / outputs["overlay"], analysis.overlay())
    if boundary is not None:
        outputs["segmentation"] = stem + SEGMENTATION
        _write(out / outputs["segmentation"], boundary)
    if attributes is not None:
        outputs["attribute_overlay"] = stem + ATTRIBUTE_OVERLAY
        _write(out / outputs["attribute_overlay"], analysis.attribute_overlay())
        for name, mask in attributes.masks.items():
            outputs[f"attribute_{name}"] = stem + ATTRIBUTE_MASKS[name]
            _write(out / outputs[f"attribute_{name}"], mask)
    record = {**analysis.to_dict(), "outputs": outputs}
    if analysis.dicom is not None and (boundary is not None or attributes is not None):
        try:
            if _write_dicom(analysis, out / f"{stem}{DICOM_SEGMENTATION}"):
                outputs["dicom_segmentation"] = stem + DICOM_SEGMENTATION
        except (ImageError, ImportError) as error:
            warning = QualityWarning("no_dicom_segmentation", str(error), 0, 1)
            record["warnings"].append(asdict(warning))
    write_json(out / f"{stem}{RECORD}", record)
    return record


def _write(path, image):
    write_image(path, image, NOTICE)


def _write_dicom(analysis, path):
    """The segments written; none where there is nothing to write."""
    masks = {} if analysis.attributes is None else analysis.attributes.masks
    return write_segmentation(path, analysis.dicom, analysis.mask, masks, analysis.models)


def forget(out: Path, stem: str) -> None:
    """Removes an image's record, and the files it names, so that it counts as not analysed."""
    path = out / f"{stem}{RECORD}"
    try:
        outputs = set(json.loads(path.read_text(encoding="utf-8"))["outputs"].values())
    except _UNREADABLE:
        outputs = set()
    path.unlink(missing_ok=True)
    for ending in _ENDINGS:
        if stem + ending in outputs:
            (out / f"{stem}{ending}").unlink(missing_ok=True)


def record_of_another(path: Path, out: Path, stem: str) -> str | None:
    """The image whose record the results of `path` would replace, if it is not the same image.

    Of a relative path nobody knows from which folder it was meant: the content decides alone.
    """
    try:
        source = json.loads((out / f"{stem}{RECORD}").read_text(encoding="utf-8"))["source"]
        named, sha256 = Path(source["path"]), str(source["sha256"])
    except _UNREADABLE:
        return None
    if named.is_absolute() and named.resolve() == path.resolve():
        return None
    try:
        return None if sha256 == sha256_of(path) else str(named)
    except OSError:  # it has no results that could replace any
        return str(named)


def file_of_another(out: Path, stem: str) -> Path | None:
    """A file that an image's results would replace, and that is none of them.

    What is named by a record, or says the notice, is a result. Masks of a data set have the names
    that results have.
    """
    record = out / f"{stem}{RECORD}"
    try:
        outputs = set(json.loads(record.read_text(encoding="utf-8"))["outputs"].values())
    except (KeyError, TypeError, AttributeError):  # somebody else's JSON
        return record
    except _UNREADABLE:  # missing; damaged, to be made anew; or somebody else's, too
        if is_foreign(record):
            return record
        outputs = set()
    paths = (out / f"{stem}{ending}" for ending in _ENDINGS[1:])
    return next((path for path in paths if path.name not in outputs and is_foreign(path)), None)


def is_foreign(path: Path) -> bool:
    """Whether a file is there that does not say the notice, as all results do.

    An empty one is nobody's: nothing is lost with it.
    """
    return path.is_file() and bool(content := path.read_bytes()) and _MARK not in content


def is_done(path: Path, settings: Mapping, out: Path, stem: str) -> bool:
    """Whether an earlier run has left what this one would write.

    That is so if the image's record can be read and is of this schema; names the same path, a file
    of the same size that was last written at the same time or has the same SHA-256, the same
    settings (version, SHA-256 of all weights, options); and if every file it names is there, and
    not empty.
    """
    try:
        record = json.loads((out / f"{stem}{RECORD}").read_text(encoding="utf-8"))
        source = record["source"]
        size, modified = size_and_time(path)
        return (
            record["schema_version"] == SCHEMA_VERSION
            and record["settings"] == settings
            and (source["path"], source["bytes"]) == (str(path), size)
            and (source["modified"] == modified or source["sha256"] == sha256_of(path))
            and all((out / name).stat().st_size for name in record["outputs"].values())
        )
    except _UNREADABLE:
        return False


class Records(Sequence[dict]):
    """Records in a folder, each read when it is asked for: thousands take no memory."""

    def __init__(self, out: Path, stems: Iterable[str]):
        self._paths = [out / f"{stem}{RECORD}" for stem in stems]

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> dict:  # type: ignore[override]  # no slices
        return json.loads(self._paths[index].read_text(encoding="utf-8"))


def find_images(inputs: Iterable[str | Path], out: str | Path) -> list[Path]:
    """Lists images: files as given, and those in folders and their subfolders, each once.

    In folders, masks and overlays (by their names), hidden files and the folder `out` are passed
    over.

    Raises:
        ValueError: a folder holds no image, or an output would replace an input.
    """
    out = _real(out)
    found: dict[Path, Path] = {}
    for entry in map(Path, inputs):
        if not entry.is_dir():
            found.setdefault(_real(entry), entry)
            continue
        images = [path for path in sorted(_files_below(entry)) if _is_image(path, entry, out)]
        if not images:
            raise ValueError(
                f"The folder {entry} holds no image to analyse; "
                f"looked for {', '.join(ANALYSED_SUFFIXES)}, not for masks and overlays."
            )
        for path in images:
            found.setdefault(_real(path), path)
    for stem in output_stems(found.values()).values():
        for ending in _ENDINGS:
            if out / f"{stem}{ending}" in found:
                raise ValueError(
                    f"The result {out / f'{stem}{ending}'} would replace an image that is to be "
                    "analysed; choose another folder with --out."
                )
    return list(found.values())


def _files_below(folder: Path) -> Iterator[Path]:
    """All files, also those that links lead to; each folder once, as links may lead in circles.

    Hidden folders, such as the dustbins of drives, are not entered.

    Raises:
        OSError: for a folder that cannot be listed, of which nobody would know what it holds.
    """
    seen = set()
    for place, inner, files in os.walk(folder, onerror=_unlisted, followlinks=True):
        seen.add(os.path.realpath(place))
        shown = [name for name in sorted(inner) if not name.startswith(".")]
        inner[:] = [n for n in shown if os.path.realpath(f"{place}/{n}") not in seen]
        yield from (Path(place) / name for name in files)


def _unlisted(error: OSError) -> NoReturn:
    raise type(error)(
        f"The folder {error.filename} cannot be listed ({error.strerror}), so that its images "
        "would be missing from the results. Make it readable, or name the others one by one."
    ) from error


def _real(path: str | Path) -> Path:
    """A path without links; of a link to itself, at which `Path.resolve` fails, the link."""
    return Path(os.path.realpath(path))


def output_stems(paths: Iterable[str | Path]) -> dict[Path, str]:
    """What each image's results are named after: `image_stem`, numbered where another has it, too.

    Case is ignored, as some file systems do. A number never takes a name that an image has itself.
    A name too long for what is added to it is cut.
    """
    images = list(dict.fromkeys(map(Path, paths)))
    own = {image_stem(path.name).casefold() for path in images}
    last_number: Counter[str] = Counter()
    taken: set[str] = set()
    stems = {}
    for path in images:
        whole = image_stem(path.name)
        stem = base = _cut(whole)
        while stem.casefold() in taken or (stem != whole and stem.casefold() in own):
            last_number[base.casefold()] += 1
            stem = f"{base}_{last_number[base.casefold()] + 1}"
        taken.add(stem.casefold())
        stems[path] = stem
    return stems


def _cut(stem):
    room = _LONGEST_NAME - max(map(len, _ENDINGS)) - 8  # bytes that are left for a number
    encoded = stem.encode("utf-8", "surrogateescape")
    return stem if len(encoded) <= room else encoded[:room].decode("utf-8", "ignore")


def _beside_images(folder):
    return any((folder.parent / name).is_dir() for name in ("images", "Images", "IMAGES"))


def _is_image(path: Path, folder: Path, out: Path) -> bool:
    inside = path.relative_to(folder)
    hidden = any(part.startswith(".") for part in inside.parts)
    # The layout of one's own data, whose masks may be named as the images are.
    above = path.parents[: len(inside.parts)]
    mask = any(each.name.lower() == "masks" and _beside_images(each) for each in above)
    # Where the results go into the folder of the images itself, or into one that it is in, only
    # their names tell them apart.
    result = _real(folder) in out.parents and out in _real(path).parents
    return (
        path.suffix.lower() in ANALYSED_SUFFIXES
        and not hidden
        and not (result or mask)
        and not _NO_IMAGE.search(path.stem)
        and (path.is_file() or path.is_symlink())  # a link that leads nowhere is to be named
    )
