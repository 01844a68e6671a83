"""Data sets of other hospitals: one's own folders with a table, and PH2."""

import unicodedata

import numpy as np
import pytest
from PIL import Image

from lesion.checks import check_samples
from lesion.layouts import find_collections, find_samples
from lesion.pairing import among_all
from lesion.samples import Collection, DatasetError


def save(path, mask=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(sum(path.stem.encode())).integers(0, 256, (40, 50, 3), np.uint8)
    if mask:
        pixels = np.zeros((40, 50), np.uint8)
        pixels[10:30, 20:40] = 255
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def own(tmp_path):
    """Three images, and a function that lays a table beside them and finds the samples."""
    for name in ("a.bmp", "b.JPG", "c.png"):
        save(tmp_path / "images" / name)

    def find(text, encoding="utf-8", name="diagnoses.csv"):
        (tmp_path / name).write_bytes(text.encode(encoding))
        return find_samples(tmp_path, task="diagnosis")

    return find


def diagnoses(collection):
    return {sample.image_id: sample.diagnosis for sample in collection.samples}


class TestOwnTable:
    def test_like_that_of_ham10000(self, own):
        rows = ["image_id,lesion_id,dx,age,sex,localization", "a.bmp,1,MEL,50,male,back"]
        found = own("\n".join([*rows, "b,1,mel,,,"]))
        assert found.layout == "plain"
        first, second, third = found.samples
        lesion = f"{found.name}/1"
        assert (first.diagnosis, first.lesion_id) == ("MEL", lesion)
        assert first.metadata == {"age": "50", "sex": "male", "site": "back"}
        assert (second.diagnosis, second.lesion_id, second.metadata) == ("MEL", lesion, {})
        assert (third.diagnosis, third.lesion_id) == (None, None)
        assert [problem.reason for problem in found.problems] == [
            "not in diagnoses.csv: lesion unknown"
        ]
        assert found.diagnoses_listed == 2

    def test_as_a_spreadsheet_saves_it(self, own):
        rows = ["isic_id;diagnosis;age_approx;anatom_site_general", "a;Nevus;50;torso"]
        text = "\r\n".join([*rows, "b.JPG;melanoma;;", "c;solar lentigo;;", ""])
        found = own(text, "utf-8-sig")
        assert diagnoses(found) == {"a": "NV", "b": "MEL", "c": "BKL"}
        assert found.samples[0].metadata == {"age": "50", "site": "torso"}
        (problem,) = found.problems
        assert "no column lesion_id among isic_id, diagnosis" in problem.reason

    def test_a_column_for_each_category_that_is_there(self, own):
        found = own("image,MEL,NV,BCC\na,1.0,0,0\nb,0,1,0\nc,0,0,0\n")
        assert diagnoses(found) == {"a": "MEL", "b": "NV", "c": None}
        assert "none of these columns is 1" in found.problems[0].reason

    def test_columns_under_the_names_of_the_categories(self, own):
        text = "image,melanoma,Basal_Cell_Carcinoma,seborrheic_keratosis,SCC\n"
        found = own(f"{text}a,True,False,False,0\nb,0,X,,0\nc,0,0,0,1.0\n")
        assert diagnoses(found) == {"a": "MEL", "b": "BCC", "c": None}
        assert "the category (scc) of c is unknown" in found.problems[0].reason

    def test_columns_of_one_category(self, own):
        found = own("image,common nevus,atypical nevus,melanoma\na,X,,\nb,,X,\nc,,X,X\n")
        assert diagnoses(found) == {"a": "NV", "b": "NV", "c": None}

    @pytest.mark.parametrize("column", ["label", "class"])
    def test_other_columns_of_diagnoses(self, own, column):
        assert diagnoses(own(f"filename,{column},age\na.bmp,Melanoma,50\n"))["a"] == "MEL"
        # Beside one that is sure to be of diagnoses, it may mean anything.
        assert diagnoses(own(f"filename,{column},dx\na.bmp,1,nv\n"))["a"] == "NV"

    def test_the_same_of_many_rows_is_said_once(self, own):
        found = own("image,dx\na,wart\nb,wart\nc,sebaceous nevus\n")
        assert [problem.reason for problem in found.problems[:2]] == [
            "the diagnosis (dx) 'wart' of 2 images, such as a in line 2, is unknown and not used",
            "line 4: the diagnosis (dx) 'sebaceous nevus' of c is unknown and not used",
        ]

    def test_spreadsheet_is_named(self, tmp_path):
        save(tmp_path / "images" / "a.png")
        (tmp_path / "masks").mkdir()
        (tmp_path / "Diagnoses.xlsx").write_bytes(b"PK")
        (problem,) = find_samples(tmp_path, task="diagnosis").problems
        assert str(problem).endswith(
            "Diagnoses.xlsx: a spreadsheet, which is not read: save its table as .csv"
        )

    def test_two_categories_are_none(self, own):
        found = own("image,MEL,NV\na,1,1\nb,0,1\nc,0,1\n")
        assert diagnoses(found)["a"] is None
        assert "category (mel and nv) of a" in found.problems[0].reason

    def test_diagnosis_that_is_none_of_the_seven(self, own):
        found = own("image,dx\na,squamous cell carcinoma\nb,nv\nc,nv\n")
        assert diagnoses(found) == {"a": None, "b": "NV", "c": "NV"}
        assert "'squamous cell carcinoma' of a is unknown" in found.problems[0].reason
        assert found.diagnoses_listed == 3

    def test_without_anything_of_images(self, own):
        with pytest.raises(DatasetError, match="such as image_id.*its columns are name, size"):
            own("name,size\na,3\n")

    def test_without_a_row(self, own):
        with pytest.raises(DatasetError, match="lists no image"):
            own("image,dx\n")

    def test_tables_that_contradict_each_other(self, own):
        own("image,dx,lesion_id\na,nv,1\nb,nv,2\nc,nv,3\n")
        found = own("image,dx\na,mel\nb,nv\n", name="other.tsv")
        assert diagnoses(found) == {"b": "NV", "c": "NV"}
        (problem,) = found.problems
        assert str(problem).endswith(
            "other.tsv: line 2: a is listed again and otherwise; the image is left out"
        )

    @pytest.mark.parametrize("table", ["name,size\na,3\n", "image,dx\na,nv,3\n"])
    def test_other_tasks_can_do_without(self, own, tmp_path, table):
        save(tmp_path / "masks" / "a.png", mask=True)
        (tmp_path / "notes.csv").write_text(table)
        found = find_samples(tmp_path, task="boundary")
        assert len(found.samples) == 3
        assert "no table is used" in found.problems[0].reason

    def test_blank_diagnosis_is_named(self, own):
        found = own("image,diagnosis,lesion_id\na,,1\nb,nevus,2\nc,nevus,3\n")
        assert [p.reason for p in found.problems] == ["line 2: a has no diagnosis"]

    @pytest.mark.parametrize(
        "table",
        [
            "image,dx,diagnosis\na,mel,\nb,,nevus\nc,,\n",
            "image,MEL,NV,dx\na,1,0,\nb,0,1,unknown\nc,0,0,\n",
        ],
    )
    def test_blank_beside_a_diagnosis_is_no_problem(self, own, table):
        found = own(table)
        assert diagnoses(found) == {"a": "MEL", "b": "NV", "c": None}
        assert [p.reason[:7] for p in found.problems] == ["line 4:", "no colu"]

    def test_each_hospital_counts_lesions_from_one(self, tmp_path):
        for name in ("one", "two"):
            save(tmp_path / name / "images" / f"{name}.png")
            (tmp_path / name / "t.csv").write_text(f"image,dx,lesion_id\n{name},nv,1\n")
        roots = [tmp_path / "one", tmp_path / "two"]
        samples = [s for c in find_collections(roots, task="diagnosis") for s in c.samples]
        assert [sample.lesion_id for sample in samples] == ["one/1", "two/1"]
        (tmp_path / "two" / "t.csv").rename(tmp_path / "two" / "HAM10000_metadata.csv")
        text = "image_id,dx,lesion_id\ntwo,nv,1\n"  # in the form of HAM10000, of one's own
        (tmp_path / "two" / "HAM10000_metadata.csv").write_text(text)
        assert find_samples(tmp_path / "two", task="diagnosis").samples[0].lesion_id == "two/1"
        (tmp_path / "two" / "HAM10000_metadata.csv").unlink()
        for name in ("HAM_0000001", "HAMTEST_0000001", "IL_0000001"):
            (tmp_path / "two" / "t.csv").write_text(f"image,dx,lesion_id\ntwo,nv,{name}\n")
            (sample,) = find_samples(tmp_path / "two", task="diagnosis").samples
            assert sample.lesion_id == name

        two = Collection("two", tmp_path, "plain", "all", [])
        for name in ("BCN_0003884", "MSK4_0011169", "IP_0000001"):
            assert among_all(two, name) == name
        for name in ("HAM_7", "IL_1", "BCN_00038841"):
            assert among_all(two, name) == f"two/{name}"

    def test_patients(self, own):
        found = own("image,dx,patient_id\na,nv,1\nb,nv,IP_1234567\nc,nv,unknown\n")
        assert [s.patient_id for s in found.samples] == [f"{found.name}/1", "IP_1234567", None]
        reasons = [p.reason for p in found.problems]
        assert len(reasons) == 1 and reasons[0].endswith("splits are by patient")

    def test_a_word_for_not_known_in_the_place_of_patients(self, tmp_path):
        rows = [f"i{number},nv,{number},{'p' if number < 25 else number}" for number in range(60)]
        for number in range(60):
            save(tmp_path / "images" / f"i{number}.png")
        (tmp_path / "t.csv").write_text("\n".join(["image,dx,lesion_id,patient_id", *rows]))
        reasons = [note.reason for note in find_samples(tmp_path, task="diagnosis").notes]
        assert "patient p has 25 images; leave patient_id empty if not known" in reasons

    @pytest.mark.parametrize("form", ["NFC", "NFD"])
    def test_letters_with_marks_in_either_form(self, tmp_path, form):
        other = {"NFC": "NFD", "NFD": "NFC"}[form]
        name, listed = (unicodedata.normalize(each, "M\u00fcller") for each in (form, other))
        save(tmp_path / "images" / f"{name}.png")
        save(tmp_path / "masks" / f"{listed}_mask.png", mask=True)
        (tmp_path / "t.csv").write_text(f"image,dx,lesion_id\n{listed}.jpg,mel,1\n", "utf-8")
        found = find_samples(tmp_path, task="diagnosis")
        (sample,) = found.samples
        assert (sample.diagnosis, sample.image_id) == ("MEL", "M\u00fcller")
        assert sample.mask and not found.problems

    def test_names_that_differ_in_case_alone(self, tmp_path):
        for name in ("Mole1.JPG", "two.png", "Two.png"):
            save(tmp_path / "images" / name)
        save(tmp_path / "masks" / "MOLE1.png", mask=True)
        (tmp_path / "t.csv").write_text("image,dx,lesion_id\nmole1,mel,1\ntwo,nv,2\nTWO,df,3\n")
        found = find_samples(tmp_path, task="diagnosis")
        assert diagnoses(found) == {"Mole1": "MEL", "two": "NV", "Two": "DF"}
        assert [bool(sample.mask) for sample in found.samples] == [True, False, False]

    def test_each_of_several_tables_adds_what_it_knows(self, own, tmp_path):
        (tmp_path / "more.csv").write_text("image,lesion_id,sex\na,1,male\nb,2,\n")
        (tmp_path / "sizes.csv").write_text("name,size\na,3\n")
        found = own("image,dx,sex,age\na,nv,female,50\nb,,female,\nc,mel,,\n")
        first, second, third = found.samples
        lesion = f"{found.name}/1"
        assert (first.diagnosis, first.lesion_id) == ("NV", lesion)
        assert first.metadata == {"sex": "female", "age": "50"}
        assert (second.diagnosis, second.lesion_id) == (None, f"{found.name}/2")
        assert (third.diagnosis, third.lesion_id) == ("MEL", None)
        assert {str(problem).rpartition("/")[2] for problem in found.problems} == {
            "diagnoses.csv: line 3: b has no dx",
            "diagnoses.csv: line 4: c has no lesion_id",
        }
        assert found.diagnoses_listed == 2
        (unused,) = [note for note in found.notes if note.path.name == "sizes.csv"]
        assert unused.reason.startswith("not used: The table") and "size" in unused.reason

    def test_one_of_several_tables_that_is_broken_stops(self, own, tmp_path):
        (tmp_path / "more.csv").write_text("image,lesion_id\na,1,2\n")
        with pytest.raises(DatasetError, match="Line 2 of the table .*more.csv has 3 values"):
            own("image,dx\na,nv\n")

    def test_results_of_this_project_are_no_truth(self, own):
        with pytest.raises(DatasetError, match="holds results of this project"):
            own("image,diagnosis,notice\na,nv,research use only\n")

    def test_category_of_isic2019(self, own):
        assert diagnoses(own("image,MEL,AK\na,0,1\nb,1,0\nc,0,1\n"))["a"] == "AKIEC"

    def test_nearest_name_counts(self, own):
        found = own("image,dx,localization,anatom_site_general\na,nv,foot,lower extremity\n")
        assert found.samples[0].metadata == {"site": "foot"}

    def test_with_masks(self, own, tmp_path):
        mask = save(tmp_path / "masks" / "b_lesion.bmp", mask=True)
        found = own("image,dx,lesion_id\na,nv,1\nb,nv,2\nc,nv,3\n")
        assert [sample.mask for sample in found.samples] == [None, mask, None]
        assert len(check_samples(found, "diagnosis").samples) == 3
        assert len(check_samples(found, "boundary").samples) == 1


class TestContradictoryCopies:
    """The same bytes under two names, with two diagnoses."""

    def test_neither_is_used(self, own, tmp_path):
        (tmp_path / "images" / "d.png").write_bytes((tmp_path / "images" / "c.png").read_bytes())
        found = own("image,dx,lesion_id\na,nv,1\nb,nv,2\nc,nv,3\nd,mel,4\n")
        checked = check_samples(found, "diagnosis")
        assert [sample.image_id for sample in checked.samples] == ["a", "b"]
        assert checked.left_out == 2 and sum(checked.sizes.values()) == 2
        assert "the same bytes as c.png, and another diagnosis (NV there, MEL here): neither" in (
            checked.problems[-1].reason
        )

    def test_of_another_data_set(self, own, tmp_path):
        used = {}
        check_samples(own("image,dx,lesion_id\na,nv,1\n"), "diagnosis", used=used)
        save(tmp_path / "two" / "images" / "x.png").write_bytes(
            (tmp_path / "images" / "a.bmp").read_bytes()
        )
        (tmp_path / "two" / "t.csv").write_text("image,dx,lesion_id\nx,mel,1\n")
        second = find_samples(tmp_path / "two", task="diagnosis")
        checked = check_samples(second, "diagnosis", used=used)
        assert not checked.samples
        assert checked.problems[-1].reason.endswith("(NV there, MEL here): this one is not used")


def test_ham10000s_table_beside_a_challenge_is_no_second_data_set(tmp_path):
    save(tmp_path / "ISIC2018_Task1-2_Training_Input" / "ISIC_0000001.jpg")
    save(tmp_path / "ISIC2018_Task1_Training_GroundTruth" / "ISIC_0000001_segmentation.png", True)
    (tmp_path / "HAM10000_metadata.csv").write_text("lesion_id,image_id,dx\n")
    assert find_samples(tmp_path, task="boundary").layout == "isic2018"
    save(tmp_path / "HAM10000_images_part_1" / "ISIC_0024306.jpg")
    with pytest.raises(DatasetError, match="several data sets"):
        find_samples(tmp_path, task="boundary")


class TestPh2:
    @pytest.mark.parametrize("inner", [".", "PH2 Dataset images"])
    def test_as_distributed(self, tmp_path, inner):
        for case in ("IMD002", "IMD003"):
            folder = tmp_path / inner / case
            save(folder / f"{case}_Dermoscopic_Image" / f"{case}.bmp")
            save(folder / f"{case}_lesion" / f"{case}_lesion.bmp", mask=True)
            save(folder / f"{case}_roi" / f"{case}_R1_Label3.bmp", mask=True)
        found = find_samples(tmp_path)
        assert (found.layout, found.problems) == ("ph2", [])
        assert [sample.image_id for sample in found.samples] == ["IMD002", "IMD003"]
        assert [sample.mask.name for sample in found.samples] == [
            "IMD002_lesion.bmp",
            "IMD003_lesion.bmp",
        ]
        assert len(check_samples(found).samples) == 2

    def test_table_beside_the_cases(self, tmp_path):
        save(tmp_path / "IMD058" / "IMD058_Dermoscopic_Image" / "IMD058.bmp")
        (tmp_path / "PH2.csv").write_text("image,dx\nIMD058,mel\n")
        (sample,) = find_samples(tmp_path, task="diagnosis").samples
        assert sample.diagnosis == "MEL"

    @pytest.fixture
    def ph2(self, tmp_path):
        for name in ("IMD003", "IMD017", "IMD058", "IMD061"):
            save(tmp_path / "PH2 Dataset images" / name / f"{name}_Dermoscopic_Image/{name}.bmp")
        header = "||   Name || Histological Diagnosis || Clinical Diagnosis || Asymmetry ||"
        rows = ["IMD003 ||  || 0", "IMD017 ||  || 1", "IMD058 || Melanoma || 2", "IMD061 || || 7"]
        text = "\n".join([header, *(f"|| {row} || 0 ||" for row in rows), "", "Legends: 0 - ..."])
        (tmp_path / "PH2_dataset.txt").write_text(text)
        (tmp_path / "PH2_dataset.xlsx").write_bytes(b"PK")
        return tmp_path

    PUBLISHED = {"IMD003": "NV", "IMD017": "NV", "IMD058": "MEL", "IMD061": None}

    @pytest.mark.parametrize("inner", [".", "PH2 Dataset images"])
    def test_the_table_it_is_distributed_with(self, ph2, inner):
        found = find_samples(ph2 / inner, task="diagnosis")
        assert diagnoses(found) == self.PUBLISHED
        assert [sample.metadata for sample in found.samples][1:3] == [{}, {"confirmation": "histo"}]
        assert "the clinical diagnosis '7' of IMD061 is unknown" in found.problems[0].reason
        assert found.diagnoses_listed == 4

    def test_tables_of_ones_own_add_what_they_know(self, ph2):
        (ph2 / "patients.csv").write_text("image,age,lesion_id\nIMD003,50,1\nIMD061,,2\n")
        found = find_samples(ph2, task="diagnosis")
        assert diagnoses(found) == self.PUBLISHED and found.diagnoses_listed == 4
        assert found.samples[0].metadata == {"age": "50"}
        assert found.samples[3].lesion_id == f"{found.name}/2"

    def test_tables_of_something_else_take_nothing_away(self, ph2):
        (ph2 / "notes.csv").write_text("camera,lens\na,b\n")
        found = find_samples(ph2, task="diagnosis")
        assert diagnoses(found) == self.PUBLISHED and found.diagnoses_listed == 4
        assert any("no table is used: The table" in problem.reason for problem in found.problems)

    def test_without_its_table(self, ph2):
        (ph2 / "PH2_dataset.txt").unlink()
        reasons = [problem.reason for problem in find_samples(ph2, task="diagnosis").problems]
        assert any(reason.startswith("no PH2_dataset.txt") for reason in reasons)

    def test_another_table_under_that_name(self, tmp_path):
        save(tmp_path / "IMD003" / "IMD003_Dermoscopic_Image" / "IMD003.bmp")
        (tmp_path / "PH2_dataset.txt").write_text("IMD003 is a common nevus\n")
        with pytest.raises(DatasetError, match="lists no image of PH2"):
            find_samples(tmp_path, task="diagnosis")
        assert "no table is used" in str(find_samples(tmp_path, task="boundary").problems[0])


class TestHam10000:
    @pytest.mark.parametrize("name", ["HAM10000_metadata_heldout.csv", "labels.csv"])
    def test_table_of_another_name(self, tmp_path, name):
        save(tmp_path / "HAM10000_images_heldout" / "ISIC_0024306.jpg")
        (tmp_path / name).write_text("image_id,dx,lesion_id\nISIC_0024306,mel,HAM_0000001\n")
        (sample,) = find_samples(tmp_path).samples
        assert (sample.diagnosis, sample.lesion_id) == ("MEL", "HAM_0000001")
        (tmp_path / "HAM10000_metadata.tab").write_text("image_id\nISIC_0024306\n")
        with pytest.raises(DatasetError, match="lacks the column lesion_id, dx"):
            find_samples(tmp_path)

    def test_other_tables_beside_the_published_one(self, tmp_path):
        save(tmp_path / "HAM10000_images_part_1" / "ISIC_0024306.jpg")
        (tmp_path / "HAM10000_metadata.csv").write_text(
            "image_id,dx,lesion_id,sex\nISIC_0024306,mel,HAM_0000001,unknown\n"
        )
        (tmp_path / "patients.csv").write_text("image,patient_id,sex\nISIC_0024306,7,female\n")
        pixels = ",".join(f"pixel{number:04d}" for number in range(9000))
        (tmp_path / "hmnist_28_28_RGB.csv").write_text(f"{pixels},label\n1,2\n")
        found = find_samples(tmp_path)
        (sample,) = found.samples
        assert (sample.patient_id, sample.diagnosis) == (f"{found.name}/7", "MEL")
        assert sample.metadata == {"sex": "female"} and not found.problems
        (unused,) = [note for note in found.notes if note.reason.startswith("not used")]
        assert len(unused.reason) < 1500

    def test_without_an_image(self, tmp_path):
        (tmp_path / "HAM10000_images_part_1").mkdir()
        with pytest.raises(DatasetError, match="has the layout ham10000 but holds no image"):
            find_samples(tmp_path)


def test_link_to_itself_is_no_data_set(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(DatasetError, match="does not exist or is no folder"):
        find_collections([tmp_path / "loop"])


def test_second_mask_of_an_attribute_is_named(tmp_path):
    save(tmp_path / "ISIC2018_Task1-2_Training_Input" / "ISIC_0000001.jpg")
    folder = tmp_path / "ISIC2018_Task2_Training_GroundTruth_v3"
    for suffix in (".bmp", ".png"):
        save(folder / f"ISIC_0000001_attribute_streaks{suffix}", mask=True)
    found = find_samples(tmp_path, task="attributes")
    assert found.samples[0].attributes["streaks"].suffix == ".bmp"
    assert "another mask of ISIC_0000001, ISIC_0000001_attribute_streaks.bmp is used" in {
        problem.reason for problem in found.problems
    }


class TestFoldersOfDiagnoses:
    """A folder for each category, under whichever of its names."""

    @pytest.fixture
    def classes(self, tmp_path):
        for name in ("melanoma/a.jpg", "nevus/b.jpg", "Seborrhoeic keratosis/c.png"):
            save(tmp_path / name)
        return tmp_path

    def test_names_are_diagnoses(self, classes):
        found = find_samples(classes, task="diagnosis")
        assert (found.layout, found.diagnoses_listed) == ("classes", 3)
        assert diagnoses(found) == {"a": "MEL", "b": "NV", "c": "BKL"}
        (problem,) = found.problems
        assert problem.reason.endswith("lesions are unknown, splits are by image")
        assert len(check_samples(found, "diagnosis").samples) == 3

    def test_below_images(self, classes):
        (classes / "images").mkdir()
        for folder in ("melanoma", "nevus", "Seborrhoeic keratosis"):
            (classes / folder).rename(classes / "images" / folder)
        save(classes / "masks" / "a_mask.png", mask=True)
        found = find_samples(classes, task="diagnosis")
        assert found.layout == "plain"
        assert diagnoses(found) == {"a": "MEL", "b": "NV", "c": "BKL"}
        assert [bool(sample.mask) for sample in found.samples] == [True, False, False]

    def test_table_of_lesions_beside_them(self, classes):
        (classes / "lesions.csv").write_text("image,lesion_id\na.jpg,1\nb,2\nc,3\n")
        found = find_samples(classes, task="diagnosis")
        assert diagnoses(found) == {"a": "MEL", "b": "NV", "c": "BKL"}
        assert [s.lesion_id.rpartition("/")[2] for s in found.samples] == ["1", "2", "3"]
        assert not found.problems

    def test_table_that_says_otherwise(self, classes):
        (classes / "t.csv").write_text("image,dx,lesion_id\na,nv,1\nb,nv,2\nc,bkl,3\n")
        found = find_samples(classes, task="diagnosis")
        assert diagnoses(found) == {"b": "NV", "c": "BKL"} and found.left_out == 1

        assert any("a has another diagnosis by its folder" in p.reason for p in found.problems)

    def test_table_in_other_case_that_says_otherwise(self, classes):
        (classes / "t.csv").write_text("image,dx,lesion_id\nA,nv,1\nB,,2\nC,bkl,3\n")
        found = find_samples(classes, task="diagnosis")
        assert diagnoses(found) == {"b": "NV", "c": "BKL"} and found.left_out == 1
        assert [p.reason for p in found.problems] == [
            "line 2: a has another diagnosis by its folder; the image is left out"
        ]

    def test_table_that_lacks_an_image(self, classes):
        (classes / "t.csv").write_text("image,lesion_id\na,1\nb,2\n")
        found = find_samples(classes, task="diagnosis")
        assert diagnoses(found) == {"a": "MEL", "b": "NV", "c": "BKL"}
        (problem,) = found.problems
        assert (problem.path.name, problem.reason) == ("c.png", "not in t.csv: lesion unknown")

    def test_table_that_names_folders_too(self, classes):
        save(classes / "nevus" / "a.png")
        rows = ["melanoma/a.jpg,7", "C:\\x\\Nevus\\A.PNG,8", "nevus/b.jpg,8", "elsewhere/c.png,9"]
        (classes / "t.csv").write_text("\n".join(["image_path,lesion_id", *rows]))
        found = find_samples(classes, task="diagnosis")
        lesions = {s.image_id: s.lesion_id.rpartition("/")[2] for s in found.samples}
        assert lesions == {"melanoma_a": "7", "nevus_a": "8", "b": "8", "c": "9"}
        assert not found.problems

    @pytest.mark.parametrize(
        "name", ["melanoma/p1/a.jpg", "melanoma/p1/p2/a.jpg", "melanoma/a.heic"]
    )
    def test_folder_without_images_that_are_read(self, classes, name):
        (classes / name).parent.mkdir(parents=True, exist_ok=True)
        (classes / "melanoma" / "a.jpg").rename(classes / name)
        found = find_samples(classes, task="diagnosis")
        assert diagnoses(found) == {"b": "NV", "c": "BKL"}
        (problem,) = [p for p in found.problems if p.path.name == "melanoma"]
        assert problem.reason.startswith("images that are not read: 1 ")

    @pytest.mark.parametrize("root", [".", "images"])
    def test_folder_in_a_folder_of_its_name(self, classes, root):
        save(classes / root / "nevus" / "nevus" / "d.jpg")
        (classes / root / "melanoma").mkdir(parents=True, exist_ok=True)
        (classes / "melanoma" / "a.jpg").rename(classes / root / "melanoma" / "a.jpg")
        if root == ".":
            (classes / "nevus" / "b.jpg").unlink()
        found = find_samples(classes, task="diagnosis")
        assert diagnoses(found).items() >= {"a": "MEL", "d": "NV"}.items()

    def test_results_of_an_evaluation_are_no_images(self, classes):
        for name in ("evaluation/roc.png", "nevus/evaluation/roc.png"):
            save(classes / name)
        (classes / "evaluation" / "evaluation.json").write_text("{}")
        (classes / "nevus" / "evaluation" / "evaluation.json").write_text("{}")
        found = find_samples(classes, task="diagnosis")
        assert diagnoses(found) == {"a": "MEL", "b": "NV", "c": "BKL"}
        assert [p.path for p in found.problems] == [classes]  # which has no table of lesions

    def test_diagnosis_that_is_none_of_the_seven(self, classes):
        save(classes / "squamous cell carcinoma" / "d.jpg")
        found = find_samples(classes, task="diagnosis")
        assert diagnoses(found)["d"] is None
        assert "its name is none of the seven diagnoses; 1 images have none" in {
            problem.reason for problem in found.problems
        }

    def test_images_of_one_name(self, classes):
        save(classes / "nevus" / "a.png")
        found = find_samples(classes, task="diagnosis")
        assert diagnoses(found) == {"melanoma_a": "MEL", "nevus_a": "NV", "b": "NV", "c": "BKL"}

    def test_images_beside_the_folders(self, classes):
        save(classes / "images" / "a.png")
        for folder in ("melanoma", "nevus"):
            (classes / folder).rename(classes / "images" / folder)
        found = find_samples(classes, task="diagnosis")
        assert diagnoses(found) == {"a": None, "melanoma_a": "MEL", "b": "NV"}
        assert found.samples[0].image.parent.name == "images"

    def test_images_of_one_name_beside_the_name_they_would_get(self, classes):
        for name in ("nevus/a.png", "others/melanoma_a.png"):
            save(classes / name)
        found = find_samples(classes, task="diagnosis")
        assert diagnoses(found) == {
            **{"melanoma__a": "MEL", "melanoma_a": None, "nevus_a": "NV"},
            **{"b": "NV", "c": "BKL"},
        }
        assert {s.image.parent.name for s in found.samples if s.diagnosis is None} == {"others"}

    def test_masks_and_images_beside_the_folders(self, classes):
        save(classes / "masks" / "melanoma" / "a_mask.png", mask=True)
        save(classes / "masks" / "b.png", mask=True)
        save(classes / "loose.png")
        found = find_samples(classes, task="diagnosis")
        assert [bool(sample.mask) for sample in found.samples] == [True, True, False]
        assert "1 images beside the folders are not read, such as loose.png" in {
            problem.reason for problem in found.problems
        }

    def test_one_folder_is_none(self, classes):
        for name in ("nevus", "Seborrhoeic keratosis"):
            (classes / name).rename(classes / f"more {name}")
        with pytest.raises(DatasetError, match="is no data set that is known here"):
            find_samples(classes)


def test_spreadsheet_that_is_no_data_set_is_named(tmp_path):
    (tmp_path / "diagnoses.xlsx").write_bytes(b"PK")
    with pytest.raises(DatasetError, match=r"no data set.*diagnoses\.xlsx: a spreadsheet"):
        find_samples(tmp_path)


def test_masks_that_are_not_read_are_named(tmp_path):
    save(tmp_path / "images" / "a.png")
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "a.gif").write_bytes(b"GIF89a")
    reasons = [problem.reason for problem in find_samples(tmp_path).problems]
    assert "masks that are not read: 1 .gif" in reasons


class TestMasksInFolders:
    """A mask in a folder belongs to the image in the folder of the same name."""

    def test_images_of_one_name(self, tmp_path):
        for folder in ("p1", "P2"):
            save(tmp_path / "images" / folder / "1.png")
            save(tmp_path / "masks" / folder.lower() / "1_mask.png", mask=True)
        found = find_samples(tmp_path, task="boundary")
        pairs = {s.image_id: s.mask.parent.name for s in found.samples}
        assert pairs == {"p1_1": "p1", "P2_1": "p2"} and not found.problems

    def test_image_beside_the_folder(self, tmp_path):
        save(tmp_path / "images" / "1.png")
        save(tmp_path / "images" / "melanoma" / "1.png")
        save(tmp_path / "images" / "other" / "3.png")
        save(tmp_path / "images" / "new" / "p1" / "4.png")
        save(tmp_path / "masks" / "melanoma" / "1.png", mask=True)
        save(tmp_path / "masks" / "melanoma" / "2.png", mask=True)
        found = find_samples(tmp_path, task="boundary")
        assert {s.image_id: bool(s.mask) for s in found.samples} == {"1": False, "melanoma_1": True}
        assert {(p.path.name, p.reason) for p in found.problems} >= {
            ("new", "images that are not read: 1 in folders inside"),
            ("2.png", "mask without its image"),
            ("other", "1 images are not read: its name is none of the seven diagnoses"),
        }


def test_folder_of_its_own_name_beside_images(tmp_path):
    save(tmp_path / "images" / "a.png")
    save(tmp_path / "images" / "images" / "b.png")
    (tmp_path / "masks").mkdir()
    found = find_samples(tmp_path, task="boundary")
    assert [sample.image_id for sample in found.samples] == ["a"]
    assert any("1 in folders inside" in problem.reason for problem in found.problems)


def test_name_of_the_data_set_in_either_form(tmp_path):
    save(tmp_path / "Mu\u0308ller" / "images" / "a.png")
    (tmp_path / "Mu\u0308ller" / "masks").mkdir()
    (sample,) = find_samples(tmp_path / "Mu\u0308ller").samples
    assert sample.key == "M\u00fcller/a"


def test_images_in_folders_below_images(tmp_path):
    for number in (1, 2):
        save(tmp_path / "images" / f"clinic {number}" / f"i{number}.png")
        save(tmp_path / "masks" / f"clinic {number}" / f"i{number}.png", mask=True)
    found = find_samples(tmp_path, task="boundary")
    assert [sample.image_id for sample in found.samples] == ["i1", "i2"]
    assert all(sample.mask for sample in found.samples) and not found.problems


class TestLaterChallenges:
    def test_isic2019(self, tmp_path):
        for name in ("ISIC_0000001", "ISIC_0000002_downsampled"):
            save(tmp_path / "ISIC_2019_Training_Input" / f"{name}.jpg")
        save(tmp_path / "ISIC_2019_Test_Input" / "ISIC_0034321.jpg")
        header = "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK"
        rows = [
            "ISIC_0000001,0,0,0,1,0,0,0,0,0",
            "ISIC_0000002_downsampled,0,0,0,0,0,0,0,1,0",
        ]
        (tmp_path / "ISIC_2019_Training_GroundTruth.csv").write_text("\n".join([header, *rows]))
        rows = ["ISIC_0000001,85.0,palms/soles,MSK4_0011169,male", "ISIC_0000002_downsampled,,,,"]
        text = "\n".join(["image,age_approx,anatom_site_general,lesion_id,sex", *rows])
        (tmp_path / "ISIC_2019_Training_Metadata.csv").write_text(text)
        found = find_samples(tmp_path, task="diagnosis")
        assert found.layout == "isic2019" and len(found.samples) == 3
        first, second, test = found.samples
        assert (first.diagnosis, first.lesion_id, first.part) == (
            *("AKIEC", "MSK4_0011169", "training"),
        )
        assert first.metadata == {"age": "85.0", "sex": "male", "site": "palms/soles"}
        assert (second.diagnosis, test.part) == (None, "test")
        reasons = [problem.reason for problem in found.problems]
        assert any("the category (scc) of ISIC_0000002_downsampled" in text for text in reasons)
        assert "no table of its diagnoses, lesions and patients beside it" in reasons
        only = find_samples(tmp_path, "training", task="diagnosis")
        assert [sample.part for sample in only.samples] == ["training"] * 2

    def test_isic2020(self, tmp_path):
        save(tmp_path / "ISIC_2020_Training_JPEG" / "train" / "ISIC_2637011.jpg")
        rows = ["ISIC_2637011,IP_7279968,male,45.0,head/neck,nevus,benign,0"]
        header = "image_name,patient_id,sex,age_approx,anatom_site_general_challenge,diagnosis"
        text = "\n".join([f"{header},benign_malignant,target", *rows])
        (tmp_path / "ISIC_2020_Training_GroundTruth.csv").write_text(text)
        (tmp_path / "ISIC_2020_Training_GroundTruth_v2.csv").write_text(
            "image_name,patient_id,lesion_id\nISIC_2637011,IP_7279968,IL_7972535\n"
        )
        (tmp_path / "ISIC_2020_Training_Duplicates.csv").write_text("image_name_1,image_name_2\n")
        found = find_samples(tmp_path, task="diagnosis")
        (sample,) = found.samples
        assert (sample.diagnosis, sample.patient_id) == ("NV", "IP_7279968")
        assert sample.lesion_id == "IL_7972535" and not found.problems
        assert (found.layout, found.part) == ("isic2020", "training")
