"""Named arrays with a JSON description in one HDF5 file, and the safe reading of foreign ones.

A file written here holds one dataset per array under its own name ("conv1/kernel"), and three
attributes: `format`, `format_version` and `metadata` (JSON). Nothing read from a file is ever
executed, and no link out of it is followed.
"""

import io
import json
import mmap
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from mrcnn.files import atomic_path

FORMAT = "mrcnn-arrays"
FORMAT_VERSION = 1

# What h5py raises where a structure in the file is damaged.
_DAMAGE = (OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError, MemoryError)
# Deflate makes at most 1,032 bytes of one.
_MOST_EXPANSION = 1100
_WAY_OUT = "Fetch it again; of a training of your own, remove it to go on from the one before."
_HEAP = b"GCOL\x01\0\0\0"  # begins a heap of texts in HDF5


class WeightsError(ValueError):
    """A weights file that cannot be used, with what it appears to be and the way out."""


@dataclass(frozen=True)
class StoredArray:
    """One array of an open file.

    Attributes:
        names: the names it answers to, the preferred one first; "#0" stands for the first weight
            of a layer in files that number them.
        dataset: not yet read; valid while the file is open.
    """

    names: tuple[str, ...]
    dataset: h5py.Dataset

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.dataset.shape or ())

    def read(self) -> np.ndarray:
        """The values.

        Raises:
            WeightsError: if they are not numbers or cannot be read.
        """
        with _damage_named(self.dataset.file.filename, self.names[0]):
            if self.dataset.dtype.kind not in "fiub":
                raise WeightsError(
                    f"{self.names[0]} in {self.dataset.file.filename} holds {self.dataset.dtype} "
                    "values, not numbers."
                )
            if self.dataset.shape is None:
                raise ValueError("it holds nothing")
            stored = self.dataset.id.get_storage_size()
            if self.dataset.nbytes > _MOST_EXPANSION * max(stored, 1):
                raise ValueError(f"{self.dataset.nbytes:,} bytes from {stored:,} in the file")
            return self.dataset[()]


def metadata_text(metadata: Mapping) -> str:
    """Metadata as they are stored; WeightsError for what JSON has no form for."""
    try:
        return json.dumps(dict(metadata), default=_json_value)
    except (TypeError, ValueError) as error:
        raise WeightsError(f"The metadata cannot be written as JSON: {error}.") from error


def save_arrays(
    path: str | os.PathLike, arrays: Mapping[str, np.ndarray], metadata: Mapping | None = None
) -> None:
    """Writes arrays and their description to `path`, completely or not at all.

    Args:
        path: of the file, usually ending in `.h5`.
        arrays: by name; a "/" in it makes a group. Types NumPy lacks (bfloat16) become float32.
        metadata: anything JSON holds; NumPy values and paths are turned into lists, numbers and
            strings.

    Raises:
        WeightsError: if the metadata holds something JSON has no form for.
        OSError: if the file cannot be written.
    """
    text = metadata_text(metadata or {})
    # In memory first: where a disk gets full, HDF5 (1.14.6) may end the whole process.
    content = io.BytesIO()
    with _new_file(content) as file:
        file.attrs.update(format=FORMAT, format_version=FORMAT_VERSION, metadata=text)
        for name, array in arrays.items():
            array = np.asarray(array)
            array = array if array.dtype.kind in "fiub" else array.astype(np.float32)
            _group_of(file, name).create_dataset(name.rpartition("/")[2], data=array)
    with atomic_path(path, durable=True) as temporary:
        try:
            temporary.write_bytes(content.getbuffer())
        except OSError as error:
            raise OSError(f"{path} cannot be written: {error}.") from error


def _new_file(content):
    """An empty file that does not say when it was made: equal contents are equal bytes."""
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fileobj_driver(h5py.h5fd.fileobj_driver, content)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)  # as h5py does
    # Attributes above 64 KiB need the storage of HDF5 1.8 or later.
    access.set_libver_bounds(h5py.h5f.LIBVER_V18, h5py.h5f.LIBVER_LATEST)
    made = _without_times(h5py.h5p.FILE_CREATE)
    return h5py.File(h5py.h5f.create(b"in memory", fcpl=made, fapl=access))


def _group_of(file, name):
    """The group of an array, which is made if it is not there."""
    if (outer := name.rpartition("/")[0]) and outer not in file:
        _group_of(file, outer)
        h5py.h5g.create(file.id, outer.encode(), gcpl=_without_times(h5py.h5p.GROUP_CREATE))
    return file[outer or "/"]


def _without_times(kind):
    settings = h5py.h5p.create(kind)
    settings.set_obj_track_times(False)
    return settings


def load_arrays(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict]:
    """Arrays and metadata of a file that `save_arrays` wrote.

    Raises:
        WeightsError: for any other file, or a damaged one.
        FileNotFoundError: if there is none.
    """
    with open_file(path) as file:
        if not _is_own(file):
            raise WeightsError(f"{path} is an HDF5 file, but not one that this project wrote.")
        arrays = {stored.names[0]: stored.read() for stored in stored_arrays(file)}
        return arrays, _metadata(file)


def read_metadata(path: str | os.PathLike) -> dict:
    """The description in a weights file; empty for files that other programs wrote.

    Raises:
        WeightsError: if it is no HDF5 file, or a damaged one.
        FileNotFoundError: if there is none.
    """
    with open_file(path) as file:
        return _metadata(file)


@contextmanager
def open_file(path: str | os.PathLike) -> Iterator[h5py.File]:
    """Opens an HDF5 file for reading.

    Raises:
        WeightsError: saying what the file appears to be, if not HDF5.
        FileNotFoundError: if there is none.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no weights file at {path}.")
    if path.is_dir() or not h5py.is_hdf5(path):
        raise WeightsError(f"{path} is not a weights file in HDF5: {_appearance(path)}")
    _refuse_endless_heaps(path)
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        if "truncated" in str(error):
            raise WeightsError(
                f"{path} is a truncated HDF5 file: it has {path.stat().st_size:,} bytes and its "
                f"header says more, as after an interrupted download. {_WAY_OUT}"
            ) from error
        raise WeightsError(f"{path} is a damaged HDF5 file ({error}). {_WAY_OUT}") from error
    with file:
        yield file


def _refuse_endless_heaps(path: Path) -> None:
    """Refuses a file in which libhdf5 (1.14.6) would look for a text for ever.

    The entries of a heap are index (two bytes), six others, length (eight) and content. It goes
    from one to the next by their lengths, and stays at free space (index 0) of no length. See
    "Global Heap" in the HDF5 File Format Specification.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:

        def number(place, size):
            return int.from_bytes(content[place : place + size], "little")

        heap = content.find(_HEAP)
        while heap >= 0:
            end = min(heap + number(heap + 8, 8), len(content))
            place = heap + 16
            while place + 16 <= end:
                index, length = number(place, 2), number(place + 8, 8)
                if index == length == 0:
                    raise WeightsError(
                        f"{path} is a damaged HDF5 file: a heap in it has no end. Fetch it again."
                    )
                place += 16 + -(-length // 8) * 8 if index else length
            heap = content.find(_HEAP, heap + len(_HEAP))


@contextmanager
def _damage_named(filename: str, name: str = "its structure") -> Iterator[None]:
    """Turns what h5py raises in the block into a `WeightsError` that names the file."""
    try:
        yield
    except WeightsError:
        raise
    except _DAMAGE as error:
        raise WeightsError(
            f"{filename} is a damaged HDF5 file: {name} cannot be read ({error}). {_WAY_OUT}"
        ) from error


def stored_arrays(file: h5py.File) -> list[StoredArray]:
    """All arrays of an open weights file under the names "layer/weight" they answer to.

    Understood are the files of this project, of Keras 2 (`save_weights` and whole models) and the
    `.weights.h5` of Keras 3.

    Raises:
        WeightsError: for a newer format, or content that points outside the file.
    """
    with _damage_named(file.filename):
        return list(_found_arrays(file))


def _found_arrays(file: h5py.File) -> Iterator[StoredArray]:
    if _is_own(file):
        version = int(file.attrs["format_version"])
        if version > FORMAT_VERSION:
            raise WeightsError(
                f"{file.filename} has version {version} of the weights format; this installation "
                f"reads up to {FORMAT_VERSION}. Install a newer one."
            )
        for name, dataset in _datasets(file):
            yield StoredArray((name,), dataset)
        return
    root = file["model_weights"] if _is_group(file, "model_weights") else file
    for name, dataset in _datasets(root):
        parts = name.split("/")
        if parts[0] in ("optimizer", "optimizer_weights"):
            continue
        numbered = len(parts) >= 2 and parts[-2] == "vars" and parts[-1].isdigit()
        names = _numbered_names(root, parts) if numbered else _keras2_names(parts)
        yield StoredArray(names, dataset)


def _is_own(file: h5py.File) -> bool:
    with _damage_named(file.filename):
        return file.attrs.get("format") == FORMAT and "format_version" in file.attrs


def _is_group(group: h5py.Group, name: str) -> bool:
    return (
        isinstance(group.get(name, getlink=True), h5py.HardLink)
        and group.get(name, getclass=True) is h5py.Group
    )


def _metadata(file: h5py.File) -> dict:
    if not _is_own(file):
        return {}
    try:
        metadata = json.loads(file.attrs.get("metadata", "{}"))
    except _DAMAGE as error:
        raise WeightsError(
            f"The description inside {file.filename} is damaged ({error}). Fetch the file again."
        ) from error
    return metadata if isinstance(metadata, dict) else {}


def _datasets(root: h5py.Group) -> Iterator[tuple[str, h5py.Dataset]]:
    """Every dataset below `root` with its path, in the order of names; links are refused."""
    seen = set()
    pending = [("", root)]
    while pending:
        prefix, group = pending.pop(0)
        address = h5py.h5o.get_info(group.id).addr
        if address in seen:  # two names of one group, possibly one inside the other
            continue
        seen.add(address)
        for key in group:
            name = f"{prefix}{key}"
            link = group.get(key, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise WeightsError(
                    f"{name} in {root.file.filename} is a link ({type(link).__name__}) instead of "
                    "content; such files are refused, because a link may lead to other files."
                )
            item = group[key]
            if isinstance(item, h5py.Group):
                pending.append((f"{name}/", item))
            elif isinstance(item, h5py.Dataset):
                if item.is_virtual or item.external:
                    raise WeightsError(
                        f"{name} in {root.file.filename} keeps its values in other files; such "
                        "files are refused."
                    )
                yield name, item


def _keras2_names(parts: list[str]) -> tuple[str, ...]:
    """Names of a Keras 2 weight by its path <group>/.../<layer>/<weight>:0.

    The group differs from the layer in nested models ("rpn_model") and where Keras gave a layer
    of a second model another name ("conv1/conv1_1/kernel:0"): then the group is right.
    """
    weight = re.sub(r":\d+$", "", parts[-1])
    # Keras 3 calls the kernel of a depthwise convolution as that of any other.
    weight = "kernel" if weight == "depthwise_kernel" else weight
    layers = dict.fromkeys([*parts[-2:-1], *parts[:-1][:1]])
    return tuple(f"{layer}/{weight}" for layer in layers) or (weight,)


def _numbered_names(root: h5py.Group, parts: list[str]) -> tuple[str, ...]:
    """Names of a Keras 3 weight by its path <...>/vars/<index>.

    The group `vars` bears the layer's name as an attribute; that of the layer around it counts as
    well, since wrappers such as TimeDistributed give their name to what they wrap.
    """
    layers = [root["/".join(parts[:-1])].attrs.get("name")]
    around = "/".join([*parts[:-3], "vars"])
    if len(parts) > 3 and parts[-3] == "layer" and _is_group(root, around):
        layers.append(root[around].attrs.get("name"))
    names = tuple(f"{layer}/#{parts[-1]}" for layer in layers if isinstance(layer, str))
    return names or ("/".join(parts),)


def _json_value(value):
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{value!r} of type {type(value).__name__} has no JSON form")


def _appearance(path: Path) -> str:
    """One sentence on what a file that is not HDF5 seems to be, and what to do."""
    if path.is_dir():
        kind = (
            "a TensorFlow SavedModel folder" if (path / "saved_model.pb").exists() else "a folder"
        )
        return f"it is {kind}. Give the path of a .h5 file."
    with open(path, "rb") as file:
        head = file.read(512)
    start = head.lstrip().lower()
    if not head:
        return "it is empty. Fetch it again."
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return (
            "it is a web page saved under this name, such as a login or error page. Download the "
            "file itself."
        )
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the file it stands for. Run `git lfs pull`."
    if head.startswith(b"PK"):
        return _archive_appearance(path)
    if re.match(rb"\x80[\x02-\x05]", head):
        return (
            "it looks like a Python pickle, which can run code when it is opened and is therefore "
            "never read. Convert it to .h5 where it comes from."
        )
    if head.startswith(b"\x1f\x8b"):
        return "it is gzip-compressed. Unpack it first."
    return f"it begins with {head[:8]!r}, which is no known weights format."


def _archive_appearance(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError):
        return "it is a damaged zip archive. Fetch it again."
    if "model.weights.h5" in names:
        return (
            "it is a whole .keras model (a zip archive). Its member model.weights.h5 holds the "
            "weights: unpack that."
        )
    if any(name.endswith("data.pkl") for name in names):
        return "it is a PyTorch checkpoint, which holds a pickle and is never read."
    return "it is a zip archive. Unpack it and give the .h5 file in it."
