import json
import logging
import random
import unicodedata
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesion.grouping import (
    content_mark,
    independent_groups,
    lesion_groups,
    remember_content,
    unit_of,
)
from lesion.layouts import find_samples
from lesion.samples import DIAGNOSES, Sample
from lesion.splits import (
    FRACTIONS,
    UNLABELLED,
    Split,
    SplitError,
    carried_over,
    learned_keys,
    split_by_parts,
    split_samples,
)
from mrcnn.files import sha256_of

HALVES = {"train": 0.5, "test": 0.5}


def sample(image_id, lesion_id=None, diagnosis=None, collection="set"):
    path = Path(collection) / f"{image_id}.jpg"
    return Sample(collection, image_id, path, lesion_id=lesion_id, diagnosis=diagnosis)


def images(count, **known):
    return [sample(f"image{number:04d}", **known) for number in range(count)]


def part_of(split):
    return {key: part for part, keys in split.parts.items() for key in keys}


samples_of_any_kind = st.lists(
    st.builds(
        sample,
        st.integers(0, 30).map(lambda n: f"ISIC_{n:07d}"),
        st.none() | st.integers(0, 8).map(str),
        st.none() | st.sampled_from(DIAGNOSES),
        st.sampled_from(["one", "two"]),
    ),
    unique_by=lambda s: s.key,
    max_size=40,
)


@given(samples_of_any_kind, st.integers(0, 5))
def test_each_sample_is_in_one_part_with_its_lesion_and_its_other_copies(samples, seed):
    split = split_samples(samples, seed=seed)
    parts = part_of(split)
    assert sorted(key for keys in split.parts.values() for key in keys) == sorted(
        s.key for s in samples
    )
    for of in (lambda s: s.lesion_id, lambda s: s.image_id):
        seen = {}
        for s in samples:
            if of(s) is not None:
                assert seen.setdefault(of(s), parts[s.key]) == parts[s.key]


@given(samples_of_any_kind, st.randoms())
def test_order_of_the_samples_does_not_matter(samples, randomness):
    shuffled = list(samples)
    randomness.shuffle(shuffled)
    assert split_samples(samples) == split_samples(shuffled)


def test_images_of_one_lesion_stay_together_through_another_collection():
    # Two images show one lesion; one lies in a second collection as well, without its lesion.
    a, b = "ISIC_0000001", "ISIC_0000002"
    linked = [sample(a, "L"), sample(b, "L"), sample(b, collection="other")]
    for seed in range(20):
        parts = part_of(split_samples([*linked, *images(9)], HALVES, seed))
        assert len({parts[s.key] for s in linked}) == 1
    assert len(set(lesion_groups([*linked, *images(9)]))) == 10


def test_names_that_are_not_of_the_archive_mean_nothing_beyond_their_collection():
    own, other = images(40), images(40, collection="other")
    split = split_samples([*own, *other], HALVES)
    parts = part_of(split)
    assert any(parts[a.key] != parts[b.key] for a, b in zip(own, other, strict=True))
    assert learned_keys([split_samples(own, {"train": 1.0})], [*own, *other]) == {
        s.key for s in own
    }
    assert len(set(lesion_groups([*own, *other]))) == 80


def test_images_of_one_patient_stay_together():
    of_patient = [replace(s, patient_id="p") for s in images(6)]
    others = images(20, collection="other")
    for seed in range(20):
        parts = part_of(split_samples([*of_patient, *others], HALVES, seed))
        assert len({parts[s.key] for s in of_patient}) == 1
    assert len(set(lesion_groups(of_patient))) == 6
    assert unit_of(of_patient) == "patient"
    assert unit_of(images(2)) == "image"
    assert unit_of([*of_patient, replace(others[0], lesion_id="L")]) == "lesion and patient"
    assert unit_of([*of_patient, *images(2)]) == "patient where known"
    assert len(set(independent_groups(of_patient))) == 1


def test_names_that_are_no_unicode():
    split_samples([sample("m\udce9"), *images(3)])


def test_fractions_of_single_images_are_exact():
    split = split_samples(images(1000))
    assert {name: len(keys) for name, keys in split.parts.items()} == {
        "train": 820,
        "validation": 30,
        "test": 150,
    }


def test_every_diagnosis_and_collection_is_divided():
    samples = [
        sample(f"{diagnosis}{number}", diagnosis=diagnosis, collection=collection)
        for collection in ("one", "two")
        for diagnosis, count in (("NV", 200), ("MEL", 40), ("DF", 20))
        for number in range(count)
    ]
    # Ids differ between the collections, or their images would go together.
    samples = [sample(s.collection + s.image_id, None, s.diagnosis, s.collection) for s in samples]
    split = split_samples(samples, {"train": 0.8, "test": 0.2})
    test = Counter((s.collection, s.diagnosis) for s in split.select(samples, "test"))
    for collection in ("one", "two"):
        for diagnosis, expected in (("NV", 40), ("MEL", 8), ("DF", 4)):
            assert abs(test[collection, diagnosis] - expected) <= 1


def test_many_strata_of_one_image_do_not_all_go_to_training():
    samples = [sample("x", diagnosis="MEL", collection=f"set{n:02d}") for n in range(40)]
    samples = [sample(f"x{n}", None, "MEL", s.collection) for n, s in enumerate(samples)]
    sizes = {name: len(keys) for name, keys in split_samples(samples, HALVES).parts.items()}
    assert sizes == {"train": 20, "test": 20}


def test_large_lesions_are_as_likely_in_either_part():
    lesions = [sample(f"{n}-{m}", f"L{n}") for n in range(200) for m in range(1 + 3 * (n % 2))]
    parts = part_of(split_samples(lesions, HALVES, seed=3))
    single = Counter(parts[s.key] for s in lesions if int(s.lesion_id[1:]) % 2 == 0)
    # 100 single images: outside of 30 to 70 once in ten thousand seeds.
    assert 30 <= single["train"] <= 70


def test_seed_decides():
    samples = images(100)
    assert split_samples(samples, seed=1) == split_samples(samples, seed=1)
    assert split_samples(samples, seed=1).parts != split_samples(samples, seed=2).parts


def test_split_is_the_same_on_every_machine():
    # Written down once: published numbers depend on it.
    split = split_samples(images(8), HALVES, seed=0)
    numbers = [int(key.removeprefix("set/image")) for key in split.parts["test"]]
    assert numbers == [1, 2, 5, 6]


def test_empty_part_is_warned_of(caplog):
    with caplog.at_level(logging.WARNING):
        split_samples(images(3))
    assert "'validation' of the split is empty" in caplog.text


@pytest.mark.parametrize("fractions", [{"train": 0.5}, {"train": 1.5, "test": -0.5}, {}])
def test_fractions_must_sum_to_one(fractions):
    with pytest.raises(ValueError, match="sum to 1"):
        split_samples(images(3), fractions)


def test_two_samples_of_one_key_are_refused():
    with pytest.raises(ValueError, match="set/a"):
        split_samples([sample("a"), sample("a")])


# === Selection and files ===


def test_selection_keeps_the_order_given():
    samples = images(20)
    random.Random(0).shuffle(samples)
    split = split_samples(samples, HALVES)
    chosen = split.select(samples, "test")
    assert chosen == [s for s in samples if s.key in split.parts["test"]]
    assert len(chosen) == 10


def test_selection_warns_of_samples_that_the_split_does_not_know(caplog):
    split = split_samples(images(10), HALVES)
    with caplog.at_level(logging.WARNING):
        chosen = split.select([*images(10), sample("new")], "test")
    assert len(chosen) == 5
    assert "1 of 11 samples" in caplog.text


def test_selection_from_another_data_set_is_refused():
    split = split_samples(images(10), HALVES)
    with pytest.raises(SplitError, match="drawn for set, the samples are of other"):
        split.select([sample("image0000", collection="other")], "test")
    with pytest.raises(SplitError, match="no part 'dev'; it has train, test"):
        split.select(images(10), "dev")


def test_saved_split_comes_back(tmp_path):
    split = split_samples(images(30), seed=7)
    split.save(tmp_path / "run" / "split.json")
    assert Split.load(tmp_path / "run" / "split.json") == split


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no JSON"),
        ("[]", "is no split"),
        ('{"format": "lesion split 99"}', "is no split"),
        (dict(seed="0"), "whole number as seed, not '0'"),
        (dict(parts=None), "lists of keys by part"),
        (dict(parts={"train": ["a/b", 1]}), "lists of keys by part"),
        (dict(fractions=None), "`fractions`"),
        (dict(marks={"train": "L1"}), "lists of names by part as `marks`"),
        (dict(parts={"train": ["a/b"], "test": ["a/b"]}), "a/b more than once"),
    ],
)
def test_unusable_file_is_explained(tmp_path, content, message):
    path = tmp_path / "split.json"
    split_samples(images(4), HALVES).save(path)
    if isinstance(content, dict):
        content = json.dumps(json.loads(path.read_text()) | content)
    path.write_text(content)
    with pytest.raises(SplitError, match=message) as raised:
        Split.load(path)
    assert str(path) in str(raised.value)


def test_deep_nesting_is_no_split(tmp_path):
    (tmp_path / "split.json").write_text("[" * 100_000)
    with pytest.raises(SplitError, match="no JSON text"):
        Split.load(tmp_path / "split.json")


def test_missing_file_is_explained(tmp_path):
    with pytest.raises(SplitError, match="cannot be read: No such file"):
        Split.load(tmp_path / "split.json")


# === Real data ===


def test_real_ham10000_keeps_fractions_of_every_diagnosis(shared):
    if not (shared / "data" / "ham10000").is_dir():
        pytest.skip("the data set is not there")
    samples = find_samples(shared / "data" / "ham10000").samples
    split = split_samples(samples)
    lesions = {part: {s.lesion_id for s in split.select(samples, part)} for part in split.parts}
    assert not lesions["train"] & lesions["test"]
    assert not lesions["train"] & lesions["validation"]
    total = Counter(s.diagnosis for s in samples)
    for part, fraction in FRACTIONS.items():
        of_part = Counter(s.diagnosis for s in split.select(samples, part))
        for diagnosis in DIAGNOSES:
            # A lesion has six images at most.
            assert abs(of_part[diagnosis] - fraction * total[diagnosis]) <= 6


class TestParts:
    """The challenge's own parts."""

    @pytest.fixture
    def collection(self):
        return [
            replace(sample(f"{part}{number}", None, "NV" if number % 2 else "MEL"), part=part)
            for part, count in (("training", 40), ("validation", 4), ("test", 6))
            for number in range(count)
        ]

    def test_stay_as_they_are(self, collection):
        split = split_by_parts(collection, FRACTIONS)
        assert split.parts["test"] == [f"set/test{number}" for number in range(6)]
        assert split.parts["validation"] == [f"set/validation{number}" for number in range(4)]
        assert len(split.parts["train"]) == 40

    def test_that_are_missing_are_drawn(self, collection):
        samples = [s for s in collection if s.part != "validation"]
        parts = split_by_parts(samples, {"train": 0.6, "validation": 0.1, "test": 0.3}).parts
        assert len(parts["test"]) == 6
        assert len(parts["validation"]) == pytest.approx(40 / 7, abs=1)

    def test_without_any_all_is_drawn(self):
        samples = images(50)
        assert split_by_parts(samples, FRACTIONS, 3).parts == split_samples(samples, seed=3).parts

    def test_copies_of_a_test_image_are_not_trained_on(self, collection):
        renamed = {f"test{number}": f"ISIC_{number:07d}" for number in range(6)}
        collection = [replace(s, image_id=renamed.get(s.image_id, s.image_id)) for s in collection]
        copies = [sample(image_id, collection="other") for image_id in renamed.values()]
        parts = split_by_parts([*collection, *copies], FRACTIONS).parts
        assert {copy.key for copy in copies} <= set(parts["test"])


class TestImagesOfTheArchive:
    """An image that the ISIC archive numbers is the same one in whatever folder it lies."""

    ids = [f"ISIC_000000{number}" for number in range(6)]
    split = Split({"train": ["ham/ISIC_0000000"], "test": ["ham/ISIC_0000001"]}, 0, {})

    def test_what_was_learned_from_is_known_in_another_folder(self):
        renamed = [sample(name, collection="HAM") for name in self.ids]
        assert [self.split.has_learned(s) for s in renamed] == [True] + [False] * 5

    def test_one_that_was_also_learned_from_counts_as_learned(self):
        for parts in (("train", "test"), ("test", "train")):
            keys = {part: [f"{part}/{self.ids[0]}"] for part in parts}
            assert Split(keys, 0, {}).has_learned(sample(self.ids[0], collection="HAM"))

    def test_other_names_may_mean_other_images(self):
        for name in ("1", "ISIC_1", "ISIC_9000001"):  # as of the phantoms
            split = Split({"train": [f"mine/{name}"], "test": []}, 0, {})
            assert split.has_learned(sample(name, collection="mine"))
            assert not split.has_learned(sample(name, collection="theirs"))

    def test_other_images_of_a_learned_lesion_are_learned(self):
        lesions = ["a", "b", "a", "c", None, None]
        renamed = [
            sample(name, lesion, collection="HAM")
            for name, lesion in zip(self.ids, lesions, strict=True)
        ]
        assert learned_keys([self.split], renamed) == {renamed[0].key, renamed[2].key}
        assert learned_keys([], renamed) == set()

    def test_parts_are_carried_over_and_the_rest_is_drawn(self):
        lesions = ["a", "b", "a", "c", "d", "e"]
        renamed = [
            sample(name, lesion, collection="HAM")
            for name, lesion in zip(self.ids, lesions, strict=True)
        ]
        carried = part_of(carried_over(self.split, renamed, HALVES))
        assert sorted(carried) == sorted(s.key for s in renamed)
        parts = [carried[s.key] for s in renamed]
        assert parts[:3] == ["train", "test", "train"]  # the third shows the first one's lesion
        assert set(parts[3:]) == {"train", "test"}

    def test_what_was_to_be_tested_on_is_learned_from_where_nothing_is(self):
        own = [sample("ISIC_0000000"), sample("ISIC_0000001"), sample("ISIC_0000002")]
        names = ("train", "validation", "test")
        split = Split({part: [s.key] for part, s in zip(names, own, strict=True)}, 0, {})
        carried = carried_over(split, own, {"train": 0.9, "validation": 0.1, "test": 0.0})
        assert carried.parts == {
            "train": ["set/ISIC_0000000", "set/ISIC_0000002"],
            "validation": ["set/ISIC_0000001"],
            "test": [],
        }

    def test_test_part_of_a_challenge_is_never_learned_from(self):
        own = replace(sample("ISIC_0000000"), part="test")
        split = Split({"train": [], "test": [own.key]}, 0, {})
        carried = carried_over(split, [own], {"train": 1.0, "test": 0.0})
        assert carried.parts == {"train": [], "test": [own.key]}

    def test_what_was_learned_from_earlier_stays_known(self):
        drawn = split_samples(images(4), HALVES)
        both = drawn.with_learned(self.split)
        assert both.has_learned(sample("ISIC_0000000", collection="ham"))
        assert both.parts["test"] == drawn.parts["test"]
        assert both.select(images(4), "train") == drawn.select(images(4), "train")
        assert both.with_learned(self.split) is both

    def test_images_of_a_renamed_folder_are_known_once(self):
        renamed = [sample(name, collection="HAM") for name in self.ids]
        carried = carried_over(self.split, renamed, HALVES)
        assert carried.with_learned(self.split) is carried

    def test_copy_of_a_test_image_that_was_learned_from_is_remembered(self):
        earlier = Split({UNLABELLED: ["more/ISIC_0000001"]}, 0, {})
        assert self.split.with_learned(earlier).has_learned(sample("ISIC_0000001", collection="x"))

    def test_test_image_that_was_learned_from_is_none_any_more(self):
        """Be it by its key, of which the training's data sets need not hold the image."""
        earlier = Split({"train": ["ham/ISIC_0000001", "ours/a"]}, 0, {})
        split = Split({"train": [], "test": ["ham/ISIC_0000001", "ours/a", "ours/b"]}, 0, {})
        both = split.with_learned(earlier)
        assert both.parts == {"train": ["ham/ISIC_0000001", "ours/a"], "test": ["ours/b"]}
        assert both.has_learned(sample("a", collection="ours"))

    def test_test_image_whose_copy_was_learned_from_is_none_any_more(self):
        both = self.split.with_learned(Split({"validation": ["x/ISIC_0000001"]}, 0, {}))
        assert both.parts == {"train": ["ham/ISIC_0000000", "x/ISIC_0000001"], "test": []}

    def test_copy_that_was_learned_from_counts_more_than_the_part_by_name(self):
        split = Split({"test": ["ham/ISIC_0000001"], UNLABELLED: ["x/ISIC_0000001"]}, 0, {})
        known = sample("ISIC_0000001", collection="ham")
        assert split.has_learned(known) and split.part_of(known) == UNLABELLED
        assert part_of(carried_over(split, [known], HALVES)) == {known.key: "train"}

    def test_case_of_an_id_means_nothing(self):
        lower = sample("isic_0000000", collection="copy")
        assert self.split.has_learned(lower)
        assert len(set(lesion_groups([lower, sample("ISIC_0000000")]))) == 1

    def test_reduced_copies_are_the_same_images(self):
        for name in ("_downsampled", "_256", " - Copy", "_crop1"):
            assert self.split.has_learned(sample(f"ISIC_0000000{name}", collection="isic2019"))
        assert not self.split.has_learned(sample("XISIC_0000000"))
        assert not self.split.has_learned(sample("ISIC_00000001"))
        same = [sample("ISIC_0000003", collection="a"), sample("ISIC_0000003_downsampled")]
        assert len(set(lesion_groups(same))) == 1

    def test_ids_that_begin_with_9_are_of_the_archive(self):
        split = Split({"train": ["isic2020/ISIC_9052500"], "test": []}, 0, {})
        assert split.has_learned(sample("ISIC_9052500", collection="other"))

    def test_what_a_teacher_answered_for_is_trained_on_when_it_has_a_diagnosis(self):
        split = Split({**self.split.parts, UNLABELLED: ["more/ISIC_0000002"]}, 0, {})
        renamed = [sample(name, collection="HAM") for name in self.ids]
        carried = part_of(carried_over(split, renamed, {"train": 0.0, "test": 1.0}))
        assert carried["HAM/ISIC_0000002"] == "train"

    def test_nothing_is_carried_over_to_other_images(self):
        assert carried_over(self.split, images(4), HALVES) is None


class TestLesions:
    """Of which a training has seen images, in folders that need not be there any more."""

    first = [sample("a", "L1", collection="A"), sample("b", "L2", collection="A")]
    second = [sample(f"{number}", f"L{number}", collection="B") for number in (1, 2, 3)]

    @pytest.fixture
    def split(self):
        split = Split({"train": ["A/a"], "test": ["A/b"]}, 0, HALVES)
        return split.with_marks([*self.first, sample("c", "L3", collection="C")])

    def test_other_images_of_what_was_learned_from_are_learned(self, split):
        assert split.marks == {"train": ["L1"], "test": ["L2"]}
        assert learned_keys([split], self.second) == {"B/1"}
        assert [split.part_of(s) for s in self.second] == ["train", "test", None]

    def test_are_saved(self, split, tmp_path):
        split.save(tmp_path / "split.json")
        assert Split.load(tmp_path / "split.json") == split

    def test_of_earlier_trainings_stay_known(self, split):
        later = Split({"train": ["B/3"], "test": []}, 0, HALVES).with_learned(split)
        assert [later.has_learned(s) for s in self.second] == [True, False, True]
        assert later.with_learned(split) is later

    def test_of_what_is_learned_from_is_none_to_test_on(self, split):
        both = split.with_learned(Split({}, 0, {}, {"validation": ["L2"]}))
        assert both.marks == {"train": ["L1", "L2"], "test": []}

    def test_in_two_parts_belongs_to_what_is_learned_from_most(self):
        for parts in (("train", "validation", "test"), ("test", "validation", "train")):
            split = Split({}, 0, {}, dict.fromkeys(parts, ["L1"]))
            assert split.part_of(self.second[0]) == "train"

    def test_are_carried_over(self, split):
        carried = part_of(carried_over(split, self.second, HALVES))
        assert (carried["B/1"], carried["B/2"]) == ("train", "test")


class TestFiles:
    """Of names that are their folder's own, known by what is in them."""

    @pytest.fixture
    def split(self, tmp_path):
        split = Split({"train": ["A/a"], "test": ["A/b"]}, 0, HALVES)
        return split.with_marks([self.of(tmp_path, "A", name) for name in "ab"])

    def of(self, folder, collection, name, content=None):
        path = folder / collection / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_text(content or name)
        return Sample(collection, name, path)

    def test_the_same_in_a_folder_of_another_name(self, split, tmp_path):
        renamed = [self.of(tmp_path, "B", name) for name in "abc"]
        other = self.of(tmp_path, "C", "a", "of another hospital")
        assert learned_keys([split], [*renamed, other]) == {"B/a"}
        assert [split.part_of(s) for s in renamed] == ["train", "test", None]

    def test_are_saved(self, split, tmp_path):
        split.save(tmp_path / "split.json")
        assert Split.load(tmp_path / "split.json") == split
        assert [len(names) for names in split.marks.values()] == [1, 1]

    def test_beside_lesions(self, tmp_path):
        own = replace(self.of(tmp_path, "A", "a"), lesion_id="L1")
        split = Split({"train": ["A/a"]}, 0, {}).with_marks([own])
        assert split.has_learned(self.of(tmp_path, "B", "a"))

    def test_the_archives_are_known_by_their_names(self, tmp_path):
        own = self.of(tmp_path, "A", "ISIC_0000001")
        assert Split({"train": [own.key]}, 0, {}).with_marks([own]).marks == {}

    def test_file_that_has_changed_is_looked_at_again(self, split, tmp_path):
        renamed = self.of(tmp_path, "B", "a")
        assert split.has_learned(renamed)
        self.of(tmp_path, "B", "a", "another image")
        assert not split.has_learned(renamed)

    def test_file_whose_hash_is_known_is_not_read_again(self, tmp_path, monkeypatch):
        own, copy = (self.of(tmp_path, name, "a") for name in "AB")
        mark = content_mark(copy)
        remember_content(own.image, sha256_of(own.image))
        monkeypatch.setattr("lesion.grouping.sha256_of", None)
        assert content_mark(own) == mark

    def test_file_that_cannot_be_read(self, split, tmp_path):
        assert not split.has_learned(Sample("B", "a", tmp_path / "missing.png"))

    def test_patients_are_known(self, tmp_path):
        own = replace(self.of(tmp_path, "A", "a"), patient_id="IP_1234567")
        split = Split({"train": ["A/a"]}, 0, {}).with_marks([own])
        other = replace(self.of(tmp_path, "B", "x"), patient_id="IP_1234567")
        assert split.has_learned(other)


def test_splits_know_names_whose_letters_were_several_characters(tmp_path):
    name = unicodedata.normalize("NFD", "A/M\u00fcller")
    Split({"train": [name]}, 0, {}).save(tmp_path / "split.json")
    assert Split.load(tmp_path / "split.json").parts == {"train": ["A/M\u00fcller"]}


def test_splits_of_earlier_versions_know_lesions(tmp_path):
    Split({"train": ["A/a"]}, 0, {}, {"train": ["L1"]}).save(tmp_path / "split.json")
    text = (tmp_path / "split.json").read_text().replace('"marks"', '"lesions"')
    (tmp_path / "split.json").write_text(text)
    assert Split.load(tmp_path / "split.json").has_learned(sample("x", "L1"))


def test_carried_over_draws_what_the_split_does_not_know():
    own, new = images(20), images(20, collection="new")
    split = split_samples(own, HALVES, seed=3)
    parts = part_of(carried_over(split, [*own, *new], HALVES))
    assert {s.key: parts[s.key] for s in own} == part_of(split)
    assert Counter(parts[s.key] for s in new) == {"train": 10, "test": 10}
