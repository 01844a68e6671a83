"""From samples to batches for the classifier."""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from lesion.cache import ImageCache
from lesion.patient import patient_vector
from lesion.samples import DIAGNOSES, Sample
from mrcnn.data import FailureKept, SampleError

UNLABELLED = len(DIAGNOSES)
"""The label of a sample without a diagnosis."""


@dataclass(frozen=True)
class DiagnosisDataset:
    """Samples with a diagnosis, and where a teacher has answers also without one.

    Attributes:
        samples: the samples.
        cache: of their images.
        crops: `lesion.crop.lesion_square`s of the cache's images, by path; None keeps them whole.
        answers: float32 [samples, 7], a teacher's probabilities (`lesion.distillation.taught`).
    """

    samples: Sequence[Sample]
    cache: ImageCache
    crops: Mapping[str, tuple[int, int, int]] | None = None
    answers: np.ndarray | None = None

    def image(self, position: int) -> np.ndarray:
        """The image of a sample, uint8 [height, width, 3]."""
        path = self.samples[position].image
        image = self.cache.image(path)
        if self.crops is None:
            return image
        top, left, side = self.crops[str(path)]
        return image[top : top + side, left : left + side]

    @property
    def labels(self) -> np.ndarray:
        """int [samples], positions in `DIAGNOSES`, or `UNLABELLED`."""
        known = (sample.diagnosis for sample in self.samples)
        return np.array([DIAGNOSES.index(each) if each else UNLABELLED for each in known], int)


def sampling_shares(labels: np.ndarray, power: float) -> np.ndarray:
    """float64 [7]: the share of each category among the images drawn.

    Args:
        labels: int [samples]; those without a diagnosis do not count.
        power: of a category's frequency: 1 draws all images alike, 0 all categories, 0.5 is
            square-root sampling (Mahajan et al. 2018).
    """
    counts = np.bincount(labels, minlength=UNLABELLED)[:UNLABELLED].astype(float)
    weights = np.where(counts > 0, np.maximum(counts, 1) ** power, 0)
    return weights / weights.sum()


def log_shares(labels: np.ndarray, power: float) -> np.ndarray:
    """float64 [7]: logarithms of `sampling_shares`; what is never drawn counts as the rarest."""
    shares = sampling_shares(labels, power)
    return np.log(np.maximum(shares, shares[shares > 0].min()))


class DiagnosisBatches(keras.utils.PyDataset):
    """Batches of images and one-hot diagnoses, the same for the same seed, whatever the threads.

    In training each category has a fixed number of places in an epoch, and its images take them in
    seeded permutations that run on across epochs. What batch `i` of epoch `e` holds depends on the
    seed, `e` and `i` alone.

    With `mixing`, each image is blended with another of its batch, and so are the two truths and
    patients (mixup; Zhang et al. 2018, equation 1): between images the network has to go straight,
    which keeps it from learning them by heart.

    Where the dataset has a teacher's answers, they are a part of the truth; of images without a
    diagnosis they are all of it.

    Args:
        dataset: a `DiagnosisDataset`.
        size: images per batch.
        prepare: `(image, rng) -> image` of the network's input size, from an image of the cache.
        steps: batches per epoch; by default as many as hold all images once.
        power: see `sampling_shares`; None: all images once, in order.
        patient_dropout: share of images whose patient data are withheld; None: the network takes
            images alone.
        mixing: alpha of the distribution Beta(alpha, alpha) of an image's share in its blend; 0
            blends nothing.
        teacher_share: of the dataset's `answers` in the truth of images with a diagnosis.
        unlabelled_share: of the images drawn, where the dataset has any without a diagnosis.
        seed: of order, `prepare` and blends.
        epoch: number of the epoch.
        workers: threads that prepare batches.

    Attributes:
        epoch: to be set before an epoch begins (`mrcnn.callbacks.EpochOfBatches`).
        failure: the exception that ended the preparation of a batch, or None.
        preparing: seconds that each of the last batches took a thread.
    """

    def __init__(
        self,
        dataset: DiagnosisDataset,
        size: int,
        prepare: Callable[[np.ndarray, np.random.Generator], np.ndarray],
        steps: int | None = None,
        power: float | None = None,
        patient_dropout: float | None = None,
        mixing: float = 0.0,
        teacher_share: float = 0.0,
        unlabelled_share: float = 0.0,
        seed: int = 0,
        epoch: int = 0,
        workers: int = 2,
    ):
        super().__init__(workers=workers, use_multiprocessing=False, max_queue_size=8)
        self.dataset = dataset
        self.labels = dataset.labels
        self.size = size
        self.prepare = prepare
        self.steps = steps or -(-len(self.labels) // size)
        self.power = power
        self.patient_dropout = patient_dropout
        self.mixing = mixing
        self.teacher_share = teacher_share
        self.unlabelled_share = unlabelled_share if UNLABELLED in self.labels else 0.0
        self.seed = seed
        self.epoch = epoch
        self.failure: Exception | None = None
        self.preparing: deque[float] = deque(maxlen=1_000_000)

    def __len__(self) -> int:
        return self.steps

    def order(self, epoch: int) -> np.ndarray:
        """Positions of an epoch's images among the samples, int [images]."""
        if self.power is None:
            return np.arange(len(self.labels))
        shares = (1 - self.unlabelled_share) * sampling_shares(self.labels, self.power)
        shares = np.append(shares, self.unlabelled_share)  # in the place of `UNLABELLED`
        places = _places(shares, self.steps * self.size)
        drawn = []
        for label, count in enumerate(places):
            members = np.flatnonzero(self.labels == label)
            for place in range(epoch * count, (epoch + 1) * count):
                turn, position = divmod(place, len(members))
                if position == 0 or place == epoch * count:
                    order = np.random.default_rng((self.seed, label, turn)).permutation(members)
                drawn.append(order[position])
        return np.random.default_rng((self.seed, epoch)).permutation(drawn)

    def references(self, index: int) -> list[str]:
        """Paths of the images of batch `index`, for messages."""
        return [str(self.dataset.samples[i].image) for i in self._positions(index)]

    def __getitem__(self, index: int) -> tuple[np.ndarray | tuple[np.ndarray, ...], np.ndarray]:
        begun = time.perf_counter()
        with FailureKept(self):
            positions = self._positions(index)
            rngs = [
                np.random.default_rng((self.seed, self.epoch, index, place))
                for place in range(len(positions))
            ]
            images = np.stack([self._image(i, rng) for i, rng in zip(positions, rngs, strict=True)])
            truth = self._truth(positions)
            inputs = [images]
            if self.patient_dropout is not None:
                inputs.append(self._patients(positions, rngs))
            if self.mixing:
                *inputs, truth = self._mixed(*inputs, truth, rngs=rngs)
        self.preparing.append(time.perf_counter() - begun)
        return tuple(inputs) if len(inputs) > 1 else inputs[0], truth

    def _positions(self, index):
        if getattr(self, "_ordered", (None,))[0] != self.epoch:
            self._ordered = self.epoch, self.order(self.epoch)
        return self._ordered[1][index * self.size : (index + 1) * self.size]

    def _truth(self, positions):
        """float32 [images, 7]: one-hot, or blended with the teacher's answers."""
        labels = self.labels[positions]
        truth = np.eye(UNLABELLED + 1, UNLABELLED, dtype=np.float32)[labels]
        if self.dataset.answers is None:
            return truth
        share = np.where(labels == UNLABELLED, 1, self.teacher_share).astype(np.float32)[:, None]
        return (1 - share) * truth + share * self.dataset.answers[positions]

    def _patients(self, positions, rngs):
        return np.stack(
            [
                patient_vector(
                    {} if rng.random() < self.patient_dropout else self.dataset.samples[i].metadata
                )
                for i, rng in zip(positions, rngs, strict=True)
            ]
        )

    def _mixed(self, *arrays, rngs):
        """Each row of the arrays blended with the row after it; a batch's order is random."""
        own = np.array([rng.beta(self.mixing, self.mixing) for rng in rngs], np.float32)
        mixed = []
        for array in arrays:
            share = own.reshape(-1, *[1] * (array.ndim - 1))
            blend = share * array + (1 - share) * np.roll(array, -1, axis=0)
            whole = np.issubdtype(array.dtype, np.integer)
            mixed.append((np.rint(blend) if whole else blend).astype(array.dtype))
        return mixed

    def _image(self, position, rng):
        path = self.dataset.samples[position].image
        try:
            return self.prepare(self.dataset.image(position), rng)
        except (OSError, ValueError) as error:
            raise SampleError(f"The image {path} cannot be used: {error}") from error


def _places(shares: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers that sum to `total`, nearest to the shares of it (largest remainders)."""
    exact = shares * total
    places = exact.astype(int)
    places[np.argsort(places - exact, kind="stable")[: total - places.sum()]] += 1
    return places
