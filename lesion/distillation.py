"""What trained classifiers make of images, for another to learn from (distillation).

Hinton, Vinyals & Dean 2015: besides the one true category the answers of a teacher say what else an
image looks like. They need no diagnosis, so that images without one can be learned from, too.
"""

import logging
import re
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.special import softmax
from tqdm import tqdm

from lesion.diagnosis import DiagnosisPredictor, load_classifier
from lesion.diagnosis_data import DiagnosisDataset, log_shares
from lesion.folders import image_files
from lesion.pairing import stem_of
from lesion.reading import chunks
from lesion.records import stamp_of
from lesion.samples import DIAGNOSES, DatasetError, Sample, archive_id
from lesion.splits import Split
from lesion.weights import member_files
from mrcnn.files import atomic_path, sha256_of
from mrcnn.images import ImageError, read_image
from mrcnn.weights import WeightsError

logger = logging.getLogger(__name__)

# Images at a time: large photographs are not all held at once.
_CHUNK = 8


def find_unlabelled(
    folders: Sequence[str | Path],
    samples: Sequence[Sample],
    split: Split,
    listed: Sequence[Sample] = (),
) -> list[Sample]:
    """The images of folders as samples without a diagnosis.

    Left out is what cannot be read, what `samples` have, too, by name or byte for byte, and what
    the training is to be scored on by its split, be it in a folder of another name or by another
    image of its lesion or patient. Masks and maps of superpixels are no photographs.

    Args:
        folders: of images.
        samples: what is learned from with a diagnosis, or scored.
        split: the training's.
        listed: all that the data sets hold, sound or not: they may name an image's lesion.

    Raises:
        lesion.samples.DatasetError: if a folder is missing, if nothing in it can be used, or if two
            are called alike.
    """
    places = [Path(folder) for folder in folders]
    _refuse_folders(places)
    ids = {archive_id(sample.image_id) for sample in samples}
    hashes = {sha256_of(sample.image) for sample in samples}
    lesions = {_name(s.image): s.lesion_id for s in listed if s.lesion_id}
    patients = {_name(s.image): s.patient_id for s in listed if s.patient_id}
    found: list[Sample] = []
    for folder in places:
        paths = [path for path in image_files(folder) if not _NO_PHOTOGRAPH.search(path.stem)]
        one_each = _one_of_each_name(paths)
        fresh = [path for path in one_each if (archive_id(path.stem) or path) not in ids]
        content = {path: sha256_of(path) for path in fresh}
        new = [
            Sample(
                *(_collection(folder), stem_of(path), path),
                lesion_id=lesions.get(_name(path)),
                patient_id=patients.get(_name(path)),
            )
            for path in sorted(fresh)
            if content[path] not in hashes
        ]
        new = [sample for sample in new if split.part_of(sample) not in ("validation", "test")]
        sound = [sample for sample in new if _is_sound(sample.image)]
        logger.info(
            "%s: %d images without a diagnosis; left out %d that the data sets have, too, or that "
            "are scored by the split, and %d that cannot be read.",
            *(folder, len(sound), len(paths) - len(new), len(new) - len(sound)),
        )
        if not sound:
            raise DatasetError(
                f"The folder {folder} of --unlabelled holds no image that can be used, is not in "
                "the data sets and not scored by the split. Give the folder that the files "
                "themselves lie in."
            )
        ids |= {archive_id(sample.image_id) for sample in sound}
        hashes |= {content[sample.image] for sample in sound}
        found += sound
    return found


_NO_PHOTOGRAPH = re.compile(r"_(superpixels|segmentation|mask|attribute_\w+)$", re.IGNORECASE)


def _refuse_folders(folders):
    """Raises DatasetError if a folder is missing, or two would be data sets of one name."""
    named = Counter(map(_collection, folders))
    if twice := [name for name, count in named.items() if count > 1]:
        raise DatasetError(
            f"Several folders of --unlabelled are those of a data set {twice[0]}, so that images "
            "of one name could not be told apart. Rename one of them."
        )
    if missing := [folder for folder in folders if not folder.is_dir()]:
        raise DatasetError(f"The folder {missing[0]} of --unlabelled does not exist.")


def _one_of_each_name(paths):
    """Of files that show one image, such as a.jpg, a.png and a part a_crop.jpg, the shortest name.

    Other names than the archive's mean nothing beyond their folder.
    """
    longest = sorted(paths, key=lambda path: -len(path.name))
    return {archive_id(path.stem) or stem_of(path): path for path in longest}.values()


def _name(path):
    """What an image is known by in several folders: its id of the archive, or else its file."""
    return archive_id(path.stem) or path.resolve()


def _collection(folder):
    """The name that the data set has, or would have, whose images lie in a folder."""
    folder = folder.resolve()
    return folder.parent.name if folder.name.lower() == "images" else folder.name


def _is_sound(path):
    try:
        read_image(path, max_side=512)
    except ImageError as error:
        logger.warning("%s", error)
        return False
    return True


def taught(
    dataset: DiagnosisDataset, teacher: str | Path, power: float, folder: str | Path
) -> DiagnosisDataset:
    """The same with the answers of a teacher, the mean of its members' for one view of each image.

    Args:
        dataset: of images with a diagnosis and without.
        teacher: weights as for `lesion.weights.member_files`.
        power: see `lesion.diagnosis_data.sampling_shares`. The answers are those of someone who
            knows how often each category is drawn, as the loss supposes the network to be.
        folder: keeps what the members said, for the next training.

    Raises:
        mrcnn.weights.WeightsError: if a member's answers depend on how often categories were drawn
            in its own training.
    """
    offset = log_shares(dataset.labels, power)
    members = member_files([teacher])
    mean = np.zeros((len(dataset.samples), len(DIAGNOSES)))
    for member in members:
        predictor = load_classifier(member)
        if predictor.config.logit_adjustment != 1:
            raise WeightsError(
                f"{member} cannot teach: it was trained with --logit-adjustment="
                f"{predictor.config.logit_adjustment}, so that its answers hold the frequencies of "
                "its own training. Give a teacher that was trained with 1."
            )
        logits = _logits(predictor, dataset.samples, Path(folder))
        mean += softmax(logits + offset, axis=1) / len(members)
    return replace(dataset, answers=mean.astype(np.float32))


def _logits(predictor: DiagnosisPredictor, samples: Sequence[Sample], folder: Path) -> np.ndarray:
    """float [samples, 7], of one view each, from the folder as far as they are there."""
    store = folder / f"answers_{sha256_of(predictor.weights)[:16]}.npz"
    known = _stored(store)
    stamps = [_stamp(sample) for sample in samples]
    unknown = [i for i, stamp in enumerate(stamps) if stamp not in known]
    title = f"Teacher {predictor.weights.name}"
    try:
        for chunk in tqdm(chunks(unknown, _CHUNK), title, disable=None):
            logits = predictor.logits_of_views(
                [read_image(samples[i].image) for i in chunk], [samples[i].metadata for i in chunk]
            )
            known |= {stamps[i]: row for i, row in zip(chunk, logits[:, 0], strict=True)}
    finally:  # what was answered before an interruption need not be asked again
        if unknown and known:
            _store(store, known)
    return np.array([known[stamp] for stamp in stamps])


def _stamp(sample):
    """What an answer depends on, as text."""
    facts = sample.image.resolve(), *stamp_of(sample.image)
    return "|".join(map(str, (*facts, *sorted(sample.metadata.items()))))


def _stored(path):
    try:
        with np.load(path) as content:
            return dict(zip(content["stamps"].tolist(), content["logits"], strict=True))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        logger.warning("The teacher's answers in %s cannot be used (%s): made anew.", path, error)
        return {}


def _store(path, known):
    try:
        with atomic_path(path) as partial, open(partial, "wb") as file:
            np.savez(file, stamps=np.array(list(known)), logits=np.array(list(known.values())))
    except OSError as error:
        logger.warning("The teacher's answers cannot be kept in %s: %s.", path, error)
