"""Phantoms: synthetic dermoscopic images whose masks are known exactly.

They stand in for real images in tests and demonstrations, in the layout of the ISIC 2018 challenge:
the lesion's boundary (Task 1) and, if asked for, five dermoscopic attributes (Task 2).

    python lesion/phantom.py --out DIR --images N [--attributes]
"""

import argparse
import io
import re
import sys
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

if not __package__:  # run as a script: import the packages beside it, not the modules in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from PIL import Image
from scipy import ndimage

from lesion import NOTICE
from lesion import phantom_layers as layers
from lesion.phantom_attributes import (
    CHALLENGE_RATES,
    EVEN_RATES,
    distribute_attributes,
    draw_attributes,
)
from lesion.printing import CommandParser
from lesion.samples import ATTRIBUTES
from lesion.stopping import stoppable
from mrcnn.files import atomic_path
from mrcnn.images import write_image

IMAGE_FOLDER = "ISIC2018_Task1-2_Training_Input"
MASK_FOLDER = "ISIC2018_Task1_Training_GroundTruth"
ATTRIBUTE_FOLDER = "ISIC2018_Task2_Training_GroundTruth_v3"
ATTRIBUTION = "ATTRIBUTION.txt"
FIRST_ID = 9_000_000
MAX_ID = 9_999_999
SMALLEST_SIDE, LARGEST_SIDE = 16, 4096
JPEG_QUALITY = 92

_TITLE = "Phantom dermoscopy: synthetic drawings, not photographs."
_RANGE = "Images: ISIC_{first:07d} to ISIC_{last:07d}"
_RANGE_PATTERN = re.compile(r"Images: ISIC_(\d{7}) to ISIC_(\d{7})")


@dataclass
class Phantom:
    """A drawn image and the masks of what it shows.

    Attributes:
        image: uint8 [height, width, 3].
        mask: bool [height, width], one connected region without holes; all False without a lesion.
        attributes: bool [height, width] for each of `lesion.samples.ATTRIBUTES`, within `mask`,
            all False where it is absent; empty if it was drawn without regard to attributes.
    """

    image: np.ndarray
    mask: np.ndarray
    attributes: dict[str, np.ndarray] = field(default_factory=dict)


def draw_phantom(
    seed: int,
    height: int = 192,
    width: int = 256,
    lesion: bool = True,
    attributes: Collection[str] | None = None,
) -> Phantom:
    """Draw one phantom, in sRGB.

    The same seed and size give the same pixels; the same seed at another size gives the same scene.
    What an attribute's mask marks is said in `lesion.phantom_attributes`.

    Args:
        seed: 0 or more.
        height: pixels, 16 to 4096.
        width: pixels, 16 to 4096.
        lesion: False draws the same skin with nothing on it to segment.
        attributes: those of `lesion.samples.ATTRIBUTES` that the lesion shows, and no others. None
            leaves it to the seed whether the lesion resembles a network or clods, which no mask
            tells then.

    Raises:
        ValueError: for a negative seed, a side out of its range, or an unknown attribute.
    """
    _check_scene(seed, height, width)
    unknown = [name for name in attributes or () if name not in ATTRIBUTES]
    if unknown:
        raise ValueError(
            f"Attributes are among {', '.join(ATTRIBUTES)}; received {', '.join(unknown)}."
        )

    def stream(name: str) -> np.random.Generator:
        # One stream for each layer: a change in how one is drawn leaves the others as they were.
        return np.random.default_rng([seed, zlib.crc32(name.encode())])

    frame = layers.Frame(height, width)
    aperture = layers.draw_aperture(frame, stream("aperture"))
    visible = ~aperture.mask
    image = layers.draw_skin(frame, stream("skin"))
    mask = np.zeros(frame.shape, bool)
    regions: dict[str, np.ndarray] = {}
    stack = []
    if lesion:
        level = layers.draw_level(frame, stream("level"), visible)
        pigment, *rest = layers.draw_lesion(
            frame, stream("lesion"), level, structured=attributes is None
        )
        mask = pigment.mask & visible
        meshes: list[layers.Layer] = []
        structures: list[layers.Layer] = []
        if attributes is not None:
            meshes, structures, regions = draw_attributes(
                frame, stream, level, pigment, visible, attributes
            )
        stack += [pigment, *meshes, *rest, *structures]
    if "streaks" in regions:
        mask = _with_streaks(mask, regions["streaks"], visible)
    stack += layers.draw_ink(frame, stream("ink"))
    stack += layers.draw_hair(frame, stream("hair"))
    stack += [layers.draw_glare(frame, stream("glare"))]
    stack += layers.draw_bubbles(frame, stream("bubbles"))
    for layer in stack:
        image = layer.over(image)
    image = aperture.over(image)
    for layer in layers.draw_ruler(frame, stream("ruler")):
        image = layer.over(image)
    image = layers.light(frame, stream("light"), image)
    masks = {}
    if attributes is not None:
        masks = {name: regions.get(name, np.zeros_like(mask)) & mask for name in ATTRIBUTES}
    return Phantom(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8), mask, masks)


def _with_streaks(mask: np.ndarray, streaks: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """The lesion with the streaks that run out of it, and what they enclose, as one region."""
    whole = ndimage.binary_fill_holes(mask | (streaks & visible)) & visible
    labels, _ = ndimage.label(whole)
    return np.isin(labels, labels[mask][:1])  # a strand cut off by the aperture is none of it


def _check_scene(seed: int, height: int, width: int) -> None:
    if seed < 0:
        raise ValueError(f"A phantom's seed is 0 or more, received {seed}.")
    if min(height, width) < SMALLEST_SIDE or max(height, width) > LARGEST_SIDE:
        raise ValueError(
            f"A phantom is {SMALLEST_SIDE} to {LARGEST_SIDE} pixels high and wide, received a "
            f"height of {height} and a width of {width}."
        )


def write_phantoms(
    out: str | Path,
    images: int,
    seed: int = 0,
    height: int = 192,
    width: int = 256,
    first_id: int = FIRST_ID,
    empty_fraction: float = 0.0,
    overwrite: bool = False,
    attributes: bool = False,
    rates: Mapping[str, float] = CHALLENGE_RATES,
) -> list[str]:
    """Write phantoms in the layout of ISIC 2018's training part, Task 1 and, if wanted, Task 2.

    `out` then holds ISIC2018_Task1-2_Training_Input/ISIC_9000000.jpg, its mask
    ISIC2018_Task1_Training_GroundTruth/ISIC_9000000_segmentation.png (0 and 255), and so on, and
    ATTRIBUTION.txt, which says that they are drawn; with `attributes` also five masks of each
    image, blank ones included, such as
    ISIC2018_Task2_Training_GroundTruth_v3/ISIC_9000000_attribute_streaks.png. Each file is whole
    or absent.

    Args:
        out: folder, made where missing.
        images: how many, 1 or more.
        seed: 0 or more; every image of every seed differs.
        height: pixels, 16 to 4096.
        width: pixels, 16 to 4096.
        first_id: number of the first image. From 9000000 to 9009999 it means nothing beyond its
            folder; with others a phantom is taken to be the ISIC archive's image of that number.
        empty_fraction: share of the images, 0 to 1, that show skin without a lesion.
        overwrite: whether phantoms already in `out` under other numbers give way.
        attributes: whether lesions show dermoscopic attributes, and their masks are written.
        rates: share, 0 to 1, of the lesions that show an attribute, by the names of
            `lesion.samples.ATTRIBUTES`; met as nearly as the number of lesions allows. One that is
            not named is not drawn.

    Returns:
        The images' names, "ISIC_9000000" and so on, in order.

    Raises:
        ValueError: for an argument out of its range.
        FileExistsError: if `out` holds other phantoms, or images that are no phantoms.
    """
    if images < 1 or first_id < 0 or first_id + images - 1 > MAX_ID:
        raise ValueError(
            f"Phantoms are numbered from first_id to at most {MAX_ID}, and there is at least 1: "
            f"received images={images} with first_id={first_id}."
        )
    if not 0 <= empty_fraction <= 1:
        raise ValueError(f"empty_fraction is a share from 0 to 1, received {empty_fraction}.")
    if any(name not in ATTRIBUTES or not 0 <= rate <= 1 for name, rate in rates.items()):
        raise ValueError(
            f"rates are shares from 0 to 1 of {', '.join(ATTRIBUTES)}, received {dict(rates)}."
        )
    _check_scene(seed, height, width)
    out = Path(out)
    names = [f"ISIC_{first_id + index:07d}" for index in range(images)]
    stale = _phantoms_in_the_way(out, names, overwrite, attributes)

    for path in stale:
        path.unlink(missing_ok=True)
    emptied = out / ATTRIBUTE_FOLDER
    if not attributes and emptied.is_dir() and not any(emptied.iterdir()):
        emptied.rmdir()  # it would promise masks to whoever reads `out`
    # The old go and the note comes before the new: a run cut short leaves only files that the note
    # names, which the next run then knows for phantoms.
    with atomic_path(out / ATTRIBUTION) as temporary:
        temporary.write_text(_attribution(names, seed, height, width), encoding="utf-8")
    order = np.random.default_rng([seed, images]).permutation(images)
    empty = round(images * empty_fraction)
    shown = dict.fromkeys(order[empty:].tolist(), None)
    if attributes:
        shown = distribute_attributes(list(shown), rates, np.random.default_rng([seed, images, 1]))
    for index, name in enumerate(names):
        # MAX_ID + 1 images at most: no two seeds share a drawing.
        number = seed * (MAX_ID + 1) + index
        wanted = shown.get(index, () if attributes else None)
        phantom = draw_phantom(number, height, width, index in shown, wanted)
        content = io.BytesIO()  # to be written in one piece, or to fail, as on a full disk
        Image.fromarray(phantom.image).save(content, "JPEG", quality=JPEG_QUALITY)
        with atomic_path(_image_path(out, name)) as temporary:
            temporary.write_bytes(content.getvalue())
        write_image(_mask_path(out, name), phantom.mask)
        for attribute, mask in phantom.attributes.items():
            write_image(_attribute_path(out, name, attribute), mask)
    return names


def _image_path(out: Path, name: str) -> Path:
    return out / IMAGE_FOLDER / f"{name}.jpg"


def _mask_path(out: Path, name: str) -> Path:
    return out / MASK_FOLDER / f"{name}_segmentation.png"


def _attribute_path(out: Path, name: str, attribute: str) -> Path:
    return out / ATTRIBUTE_FOLDER / f"{name}_attribute_{attribute}.png"


def _paths(out: Path, names: list[str], attributes: bool) -> set[Path]:
    """All files of the images `names`, those of their attributes included or not."""
    paths = {path(out, name) for name in names for path in (_image_path, _mask_path)}
    if attributes:
        paths |= {_attribute_path(out, name, each) for name in names for each in ATTRIBUTES}
    return paths


def _attribution(names: list[str], seed: int, height: int, width: int) -> str:
    span = _RANGE.format(first=int(names[0][5:]), last=int(names[-1][5:]))
    return (
        f"{_TITLE}\n{span}\n\n"
        "Every image and mask in this folder was drawn by a program (lesion/phantom.py, "
        f"seed {seed}, {width}x{height} pixels).\nThey show no person and no disease, and come "
        "from no archive: only the folder layout and the form of the\nnames are those of the ISIC "
        f"2018 challenge. They may be used without restriction.\n\n{NOTICE}\n"
    )


def _phantoms_in_the_way(
    out: Path, names: list[str], overwrite: bool, attributes: bool
) -> list[Path]:
    """Files of phantoms that `out` holds and that those of `names` will not replace.

    Raises:
        FileExistsError: if there are any and they may not be overwritten, or if there are images
            that no note names as phantoms.
    """
    files = [
        path
        for folder in (IMAGE_FOLDER, MASK_FOLDER, ATTRIBUTE_FOLDER)
        if (out / folder).is_dir()
        for path in sorted((out / folder).iterdir())
        if not path.name.startswith(".")
    ]
    note = out / ATTRIBUTION
    lines = (
        note.read_text(encoding="utf-8", errors="replace").splitlines() if note.is_file() else []
    )
    drawn = _RANGE_PATTERN.fullmatch(lines[1]) if len(lines) > 1 else None
    held = []
    if drawn and lines[0] == _TITLE:
        held = [f"ISIC_{number:07d}" for number in range(int(drawn[1]), int(drawn[2]) + 1)]
    phantoms = _paths(out, held, attributes=True)
    foreign = [path for path in files if path not in phantoms]
    if foreign or (lines and not held):
        raise FileExistsError(
            f"{out} holds files that are no phantoms, such as {(foreign or [note])[0].name}, which "
            "are not overwritten: choose another folder."
        )
    if files and held != names and not overwrite:
        raise FileExistsError(
            f"{out} already holds {len(held)} phantoms ({held[0]} to {held[-1]}), and {len(names)} "
            f"({names[0]} to {names[-1]}) are asked for: choose another folder, or overwrite them "
            "(--overwrite)."
        )
    wanted = _paths(out, names, attributes)
    return [path for path in files if path not in wanted]


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text.strip().lower())
    if not match:
        raise argparse.ArgumentTypeError(f"a size is WIDTHxHEIGHT, such as 256x192, not {text!r}")
    return int(match[1]), int(match[2])


def build_parser() -> argparse.ArgumentParser:
    """The command line's arguments."""
    parser = CommandParser(
        prog="lesion phantom",
        description="Draw synthetic dermoscopic images with exact masks of the lesion and of its "
        "attributes, in the layout of ISIC 2018. The same arguments give the same images.",
    )
    add = parser.add_argument
    add("--out", required=True, type=Path, metavar="DIR", help="folder to write to")
    add("--images", required=True, type=int, metavar="N", help="how many to draw")
    add("--seed", type=int, default=0, help="another seed, other images (default: %(default)s)")
    add(
        "--size", type=_size, default=(256, 192), metavar="WxH", help="in pixels (default: 256x192)"
    )
    add(
        "--empty-fraction",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="share of images, 0 to 1, that show skin without a lesion (default: %(default)s)",
    )
    add(
        "--attributes",
        action="store_true",
        help="draw the five dermoscopic attributes of Task 2, with a mask of each",
    )
    add(
        "--rates",
        choices=("challenge", "even"),
        default="challenge",
        help="with --attributes, how often one is present: as in the challenge's training set, or "
        "each in a third of the lesions (default: %(default)s)",
    )
    add("--overwrite", action="store_true", help="replace a different number of phantoms in DIR")
    return parser


@stoppable
def main(argv: list[str] | None = None) -> int:
    """Draw as the arguments say; 2 when they cannot be followed."""
    arguments = build_parser().parse_args(argv)
    width, height = arguments.size
    try:
        names = write_phantoms(
            arguments.out,
            arguments.images,
            seed=arguments.seed,
            height=height,
            width=width,
            empty_fraction=arguments.empty_fraction,
            overwrite=arguments.overwrite,
            attributes=arguments.attributes,
            rates=EVEN_RATES if arguments.rates == "even" else CHALLENGE_RATES,
        )
    except (ValueError, OSError) as error:
        print(f"phantom.py: {error}", file=sys.stderr)
        return 2
    print(f"{len(names)} phantoms of {width}x{height} pixels, {names[0]} to {names[-1]}:")
    print(f"  images  {arguments.out / IMAGE_FOLDER}")
    print(f"  masks   {arguments.out / MASK_FOLDER}")
    if arguments.attributes:
        print(f"          {arguments.out / ATTRIBUTE_FOLDER}")
    print("Synthetic drawings, not photographs.")
    print(NOTICE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
