"""Phantoms: synthetic dermoscopic images whose lesion's mask is known exactly.

They stand in for real images in tests and demonstrations, in the layout of the ISIC 2018 challenge:

    python lesion/phantom.py --out DIR --images N
"""

import argparse
import re
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

if __package__ in (
    None,
    "",
):  # run as a script: import the packages beside it, not the modules in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

from lesion import NOTICE  # noqa: E402
from lesion import phantom_layers as layers  # noqa: E402
from mrcnn.files import atomic_path  # noqa: E402
from mrcnn.images import write_image  # noqa: E402

IMAGE_FOLDER = "ISIC2018_Task1-2_Training_Input"
MASK_FOLDER = "ISIC2018_Task1_Training_GroundTruth"
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
    """A drawn image and the mask of its lesion.

    Attributes:
        image: uint8 [height, width, 3].
        mask: bool [height, width], one connected region without holes; all False without a lesion.
    """

    image: np.ndarray
    mask: np.ndarray


def draw_phantom(seed: int, height: int = 192, width: int = 256, lesion: bool = True) -> Phantom:
    """Draw one phantom, in sRGB.

    The same seed and size give the same pixels; the same seed at another size gives the same scene.

    Args:
        seed: 0 or more.
        height: pixels, 16 to 4096.
        width: pixels, 16 to 4096.
        lesion: False draws the same skin with nothing on it to segment.

    Raises:
        ValueError: for a negative seed or a side out of its range.
    """
    _check_scene(seed, height, width)

    def stream(name: str) -> np.random.Generator:
        # One stream for each layer: a change in how one is drawn leaves the others as they were.
        return np.random.default_rng([seed, zlib.crc32(name.encode())])

    frame = layers.Frame(height, width)
    aperture = layers.draw_aperture(frame, stream("aperture"))
    image = layers.draw_skin(frame, stream("skin"))
    mask = np.zeros(frame.shape, bool)
    stack = []
    if lesion:
        level = layers.draw_level(frame, stream("level"), visible=~aperture.mask)
        stack += layers.draw_lesion(frame, stream("lesion"), level)
        mask = stack[0].mask & ~aperture.mask
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
    return Phantom(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8), mask)


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
) -> list[str]:
    """Write phantoms in the layout of ISIC 2018 Task 1's training part.

    `out` then holds ISIC2018_Task1-2_Training_Input/ISIC_9000000.jpg, its mask
    ISIC2018_Task1_Training_GroundTruth/ISIC_9000000_segmentation.png (0 and 255), and so on, and
    ATTRIBUTION.txt, which says that they are drawn. Each file is whole or absent.

    Args:
        out: folder, made where missing.
        images: how many, 1 or more.
        seed: 0 or more; every image of every seed differs.
        height: pixels, 16 to 4096.
        width: pixels, 16 to 4096.
        first_id: number of the first image; the ISIC archive's own begin with 0.
        empty_fraction: share of the images, 0 to 1, that show skin without a lesion.
        overwrite: whether phantoms already in `out` under other numbers give way.

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
    _check_scene(seed, height, width)
    out = Path(out)
    names = [f"ISIC_{first_id + index:07d}" for index in range(images)]
    stale = _phantoms_in_the_way(out, names, overwrite)

    for path in stale:
        path.unlink(missing_ok=True)
    # The old go and the note comes before the new: a run cut short leaves only files that the note
    # names, which the next run then knows for phantoms.
    with atomic_path(out / ATTRIBUTION) as temporary:
        temporary.write_text(_attribution(names, seed, height, width), encoding="utf-8")
    order = np.random.default_rng([seed, images]).permutation(images)
    empty = set(order[: round(images * empty_fraction)].tolist())
    for index, name in enumerate(names):
        # MAX_ID + 1 images at most: no two seeds share a drawing.
        phantom = draw_phantom(seed * (MAX_ID + 1) + index, height, width, index not in empty)
        image_path, mask_path = _paths(out, name)
        with atomic_path(image_path) as temporary:
            Image.fromarray(phantom.image).save(temporary, quality=JPEG_QUALITY)
        write_image(mask_path, phantom.mask)
    return names


def _paths(out: Path, name: str) -> tuple[Path, Path]:
    return out / IMAGE_FOLDER / f"{name}.jpg", out / MASK_FOLDER / f"{name}_segmentation.png"


def _attribution(names: list[str], seed: int, height: int, width: int) -> str:
    span = _RANGE.format(first=int(names[0][5:]), last=int(names[-1][5:]))
    return (
        f"{_TITLE}\n{span}\n\n"
        "Every image and mask in this folder was drawn by a program (lesion/phantom.py, "
        f"seed {seed}, {width}x{height} pixels).\nThey show no person and no disease, and come "
        "from no archive: only the folder layout and the form of the\nnames are those of the ISIC "
        f"2018 challenge. They may be used without restriction.\n\n{NOTICE}\n"
    )


def _phantoms_in_the_way(out: Path, names: list[str], overwrite: bool) -> list[Path]:
    """Files of phantoms that `out` holds under other numbers than `names`.

    Raises:
        FileExistsError: if there are any and they may not be overwritten, or if there are images
            that no note names as phantoms.
    """
    files = [
        path
        for folder in (IMAGE_FOLDER, MASK_FOLDER)
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
    phantoms = {path for name in held for path in _paths(out, name)}
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
    wanted = {path for name in names for path in _paths(out, name)}
    return [path for path in files if path not in wanted]


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text.strip().lower())
    if not match:
        raise argparse.ArgumentTypeError(f"a size is WIDTHxHEIGHT, such as 256x192, not {text!r}")
    return int(match[1]), int(match[2])


def build_parser() -> argparse.ArgumentParser:
    """The command line's arguments."""
    parser = argparse.ArgumentParser(
        prog="phantom.py",
        description="Draw synthetic dermoscopic images with exact masks of the lesion, in the "
        "layout of ISIC 2018 Task 1. The same arguments give the same images.",
        epilog=NOTICE,
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
    add("--overwrite", action="store_true", help="replace a different number of phantoms in DIR")
    return parser


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
        )
    except (ValueError, OSError) as error:
        print(f"phantom.py: {error}", file=sys.stderr)
        return 2
    print(f"{len(names)} phantoms of {width}x{height} pixels, {names[0]} to {names[-1]}:")
    print(f"  images  {arguments.out / IMAGE_FOLDER}")
    print(f"  masks   {arguments.out / MASK_FOLDER}")
    print("Synthetic drawings, not photographs.")
    print(NOTICE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
