"""What exported models of the diagnosis answer: the classifiers as TensorFlow graphs.

As in `lesion.serving`, each class is an `Answer` of `mrcnn.export`.
"""

import tensorflow as tf

from lesion.crop import MARGIN, MIN_SHARE
from lesion.diagnosis import DiagnosisPredictor
from lesion.diagnosis_network import calibration_layers
from lesion.ensemble import DiagnosisEnsemble
from lesion.patient import OLDEST, SAME, SEXES, SITES, VECTOR_SIZE
from lesion.samples import DIAGNOSES
from lesion.serving import BoundaryAnswer, notice_of, require_one_view
from mrcnn.export import Read, Signature, frozen, some
from mrcnn.images_graph import decode

PATIENTS = "patients"
"""The signature of files with what is known of their patients."""

_SPACE = r"[\s\x0b\x1c-\x1f\x{85}\p{Z}]+"  # what Python's `strip` takes
_SPACE_AROUND = f"^{_SPACE}|{_SPACE}$"


class DiagnosisAnswer:
    """As `DiagnosisPredictor.predict` of one view.

        probabilities  float32 [batch, 7], calibrated, in the order of `DIAGNOSES`
        class_names    string [batch, 7], that order
        category       string [batch], the most probable
        notice         string [batch]

    Where the network has learned from patient data, a signature `patients` takes them beside the
    files; in the others nothing is known of the patients.

    Raises:
        ValueError: if the predictor averages several views.
    """

    def __init__(self, predictor: DiagnosisPredictor):
        require_one_view(predictor)
        self.network = predictor.network
        self.patient_data = predictor.config.patient_data
        self.square, self.calibrate, self.softmax = map(
            predictor.model.get_layer, ("square", "calibration", "probabilities")
        )
        self.boundary = predictor.boundary and BoundaryAnswer(predictor.boundary)
        self.side = side = predictor.config.image_size
        self._square_spec = tf.TensorSpec([side, side, 3])
        # From `shown` and patients to probabilities [batch, 7]: one function, so that signatures
        # share one copy of the weights.
        specs = [tf.TensorSpec([None, side, side, 3]), tf.TensorSpec([None, VECTOR_SIZE])]
        self.classify = tf.function(self._classify, specs, autograph=False)

    def __call__(
        self, elements: tf.Tensor, read: Read, patients: tf.Tensor | None = None
    ) -> dict[str, tf.Tensor]:
        shown = self.shown(elements, read)
        return _named(self.classify(shown, _known(patients, elements)), elements)

    @property
    def more_signatures(self) -> dict[str, Signature]:
        """See `mrcnn.export.write_saved_model`."""
        return _of_patients(self)

    def shown(self, elements: tf.Tensor, read: Read) -> tf.Tensor:
        """The network's squares of images, float32 [batch, side, side, 3]."""
        return tf.map_fn(
            lambda element: self._prepare(read(element)),
            elements,
            parallel_iterations=2,  # each holds a whole photograph
            fn_output_signature=self._square_spec,
        )

    def _prepare(self, image):
        """The network's square of an image, as `DiagnosisPredictor` cuts and reduces it."""
        if self.boundary:
            mask = self.boundary(image[tf.newaxis], tf.identity)["masks"][0, 0] > 0
            top, left, side = lesion_square(mask)
            image = image[top : top + side, left : left + side]
        # The layer would cut the same square, but after all of the photograph is made float32.
        side = tf.reduce_min(tf.shape(image)[:2])
        top, left = tf.unstack((tf.shape(image)[:2] - side) // 2)
        image = image[top : top + side, left : left + side]
        return self.square(tf.cast(image, tf.float32)[tf.newaxis])[0]

    def _classify(self, shown, patients):
        inputs = [shown, patients] if self.patient_data else shown
        with frozen(self.network):
            logits = self.network(inputs)
        return self.softmax(self.calibrate(logits))


class EnsembleAnswer:
    """As `DiagnosisEnsemble.predict`: the outputs of `DiagnosisAnswer`, the mean of all members."""

    def __init__(self, ensemble: DiagnosisEnsemble):
        self.members = [DiagnosisAnswer(member) for member in ensemble.members]
        self.patient_data = any(member.patient_data for member in self.members)
        self.calibrated = ensemble.calibration is not None
        if ensemble.calibration is not None:
            self.calibrate, self.softmax = calibration_layers(ensemble.calibration)

    @property
    def more_signatures(self) -> dict[str, Signature]:
        """See `mrcnn.export.write_saved_model`."""
        return _of_patients(self)

    def __call__(
        self, elements: tf.Tensor, read: Read, patients: tf.Tensor | None = None
    ) -> dict[str, tf.Tensor]:
        patients = _known(patients, elements)
        # Members of one size are shown the same, which is read and reduced once.
        shown = {}
        opinions = []
        for member in self.members:
            key = (member.side, id(member) if member.boundary else None)
            if key not in shown:
                shown[key] = member.shown(elements, read)
            opinions.append(member.classify(shown[key], patients))
        mean = tf.add_n(opinions) / len(opinions)
        if self.calibrated:
            mean = self.softmax(self.calibrate(tf.math.log(mean)))
        return _named(mean, elements)


def _known(patients, elements):
    """Patients as vectors float32 [batch, VECTOR_SIZE]; zeros where none are given."""
    if patients is None:
        return tf.zeros([tf.shape(elements)[0], VECTOR_SIZE])
    return patients


def _of_patients(answer):
    """The signature of files with `age`, `sex` and `site`, where an answer depends on these."""
    if not answer.patient_data:
        return {}

    def of_patients(image_bytes, age, sex, site):
        alike = [
            tf.debugging.assert_equal(
                *(tf.shape(given), tf.shape(image_bytes)), f"There must be one {name} per image."
            )
            for name, given in (("age", age), ("sex", sex), ("site", site))
        ]
        with tf.control_dependencies(alike):
            return answer(some(image_bytes), decode, patient_vectors(age, sex, site))

    specs = [tf.TensorSpec([None], tf.string, "image_bytes"), tf.TensorSpec([None], name="age")]
    specs += [tf.TensorSpec([None], tf.string, name) for name in ("sex", "site")]
    return {PATIENTS: Signature(of_patients, specs, {"age": [-1.0], "sex": [""], "site": [""]})}


def patient_vectors(age: tf.Tensor, sex: tf.Tensor, site: tf.Tensor) -> tf.Tensor:
    """As `lesion.patient.patient_vector`, of a batch.

    Args:
        age: float32 [batch], in years; a negative number or NaN where it is not known.
        sex, site: string [batch]; what is no word for one counts as not known.

    Returns:
        float32 [batch, VECTOR_SIZE].
    """
    known = (age >= 0) & (age <= OLDEST)
    columns = [tf.where(known, age / 100, 0.0)[:, tf.newaxis], known[:, tf.newaxis]]
    for given, name, words in ((sex, "sex", SEXES), (site, "site", SITES)):
        given = tf.strings.regex_replace(given, _SPACE_AROUND, "")
        given = tf.strings.lower(given, encoding="utf-8")
        for other, word in SAME[name].items():
            given = tf.where(given == other, word, given)
        columns.append(given[:, tf.newaxis] == tf.constant(words))
    return tf.concat([tf.cast(column, tf.float32) for column in columns], axis=1)


def _named(probabilities, elements):
    """What is answered of a batch's probabilities."""
    names = tf.constant(DIAGNOSES)
    return {
        "probabilities": probabilities,
        "class_names": tf.tile(names[tf.newaxis], [tf.shape(elements)[0], 1]),
        "category": tf.gather(names, tf.argmax(probabilities, axis=1)),
        "notice": notice_of(elements),
    }


def lesion_square(mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """`lesion.crop.lesion_square` of a mask bool [h, w]: int32 (top, left, side)."""
    size = tf.shape(mask)
    shorter = tf.reduce_min(size)
    found = tf.reduce_any(mask)
    # Without a lesion: the whole image, whose square is cut from the middle.
    rows, columns = (tf.where(found, tf.reduce_any(mask, axis=axis), True) for axis in (1, 0))
    spans = [tf.cast(tf.where(inside)[:, 0], tf.int32) for inside in (rows, columns)]
    starts = tf.stack([span[0] for span in spans])
    ends = tf.stack([span[-1] + 1 for span in spans])
    longer = tf.cast(tf.reduce_max(ends - starts), tf.float64)
    least = tf.round(MIN_SHARE * tf.cast(shorter, tf.float64))
    side = tf.cast(tf.maximum(tf.round(MARGIN * longer), least), tf.int32)
    side = tf.minimum(side, shorter)
    top, left = tf.unstack(tf.clip_by_value((starts + ends - side) // 2, 0, size - side))
    return top, left, side
