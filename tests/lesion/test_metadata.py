"""Tables that users bring: what is known of images and patients."""

import pytest

from lesion.metadata import image_name, read_metadata, read_patients
from lesion.samples import Collection, DatasetError


def test_names_of_columns_are_those_of_the_archive_or_plain(tmp_path):
    table = tmp_path / "patients.csv"
    expected = {"a": {"age": "50", "sex": "male", "site": "back"}, "b": {"sex": "female"}}
    for header in (
        "image,age,sex,site",
        "Image_ID;Age_Approx;Sex;Anatom_Site_General",
        "isic_id,age,sex,localization",
    ):
        text = f"{header}\na.jpg,50,male,back\nb,,female,\n"
        table.write_text(text.replace(",", ";") if ";" in header else text)
        assert read_patients(table) == expected


@pytest.mark.parametrize("note", ['"one\ntwo"', '"one\r\ntwo"', "one\u2028two", "one\x0btwo"])
def test_line_breaks_within_a_value(tmp_path, note):
    table = tmp_path / "patients.csv"
    table.write_text(f"image,note,age\na,{note},50\n\nb,,51\n", encoding="utf-8", newline="")
    assert read_patients(table) == {"a": {"age": "50"}, "b": {"age": "51"}}


def test_quotes_within_a_value(tmp_path):
    table = tmp_path / "patients.csv"
    table.write_text('image,note,age\na,"blue" nevus,50\nb,5" wide,51\n"c" ,,52\n')
    assert {name: row["age"] for name, row in read_patients(table).items()} == {
        "a": "50",
        "b": "51",
        "c": "52",
    }


def test_of_several_columns_the_one_that_knows(tmp_path):
    table = tmp_path / "patients.csv"
    table.write_text("image,site,localization\na,unknown,back\nb,NA,\n")
    assert read_patients(table) == {"a": {"site": "back"}, "b": {"site": "NA"}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,dx\na,NV\n", "at least one of age, sex and site"),
        ("name,age\na,50\n", "must have the column image"),
        ("image,age\na,50\na,51\n", "Line 3 .* says of a what an earlier line does not"),
        ("image,age\n,\na,50\n,60\n", "Line 4 .* of no image"),
        ("image,age\na\n", "has 1 values"),
        ("image,age\n", "lists no image"),
        ("dx,size\n", "lists no image"),
        ('image,age\na,"50\nb,51\n', "Line 2 .*unexpected end of data"),
        ('image,note,age\na,"x\ny",50\nb,50\n', "Line 4 .* has 2 values"),
    ],
)
def test_unusable_tables_are_explained(tmp_path, text, message):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(DatasetError, match=message):
        read_patients(tmp_path / "p.csv")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("mole.JPG", "mole"),
        ("images/mole.jpeg", "mole"),
        (r"c:\images\mole.png", "mole"),
        ("1.2.840.1", "1.2.840.1"),
        ("1.2.840.2.dcm", "1.2.840.2"),
        ("mole.1", "mole.1"),
    ],
)
def test_name_of_an_image(path, name):
    assert image_name(path) == name


def test_missing_table(tmp_path):
    with pytest.raises(DatasetError, match=r"gone\.csv cannot be read"):
        read_patients(tmp_path / "gone.csv")


class TestTablesOfSpreadsheets:
    """As they come out of Excel, or were typed."""

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
    def test_encodings(self, tmp_path, encoding, caplog):
        (tmp_path / "p.csv").write_text("image;sex;note\nmüller;w;Köln\n", encoding=encoding)
        assert read_patients(tmp_path / "p.csv") == {"müller": {"sex": "w"}}
        assert ("was read as Windows-1252" in caplog.text) == (encoding == "cp1252")

    def test_line_that_names_the_separator(self, tmp_path):
        (tmp_path / "p.csv").write_text("sep=;\nimage;age\na,b;50\n")
        assert read_patients(tmp_path / "p.csv") == {"a,b": {"age": "50"}}

    def test_two_columns_of_one_name(self, tmp_path):
        (tmp_path / "p.csv").write_text("image,age,Age\na,50,51\n")
        with pytest.raises(DatasetError, match="several columns age, of which one"):
            read_patients(tmp_path / "p.csv")


def read(tmp_path, text):
    """`read_metadata` of a table: its rows, and its collection."""
    (tmp_path / "m.csv").write_text(text)
    collection = Collection("ours", tmp_path, "plain", "all", [])
    rows, _ = read_metadata([tmp_path / "m.csv"], collection)
    return rows, collection


class TestDiagnoses:
    def test_narrowest_level_of_the_archive_that_is_known(self, tmp_path):
        rows, collection = read(
            tmp_path,
            "isic_id,lesion_id,diagnosis_1,diagnosis_2,diagnosis_3,diagnosis_4,diagnosis_5\n"
            'a,1,Malignant,Malignant melanocytic proliferations (Melanoma),"Melanoma, NOS",,\n'
            'b,2,Benign,Benign melanocytic proliferations,Nevus,"Nevus, Spitz",\n'
            "c,3,Malignant,Malignant epidermal proliferations,Solar or actinic keratosis,,\n"
            'd,4,Malignant,Malignant epidermal proliferations,"Squamous cell carcinoma, NOS",,\n'
            "e,5,,,,,\n",
        )
        found = [rows[name]["diagnosis"] for name in "abcde"]
        assert found == ["MEL", "NV", "AKIEC", None, None]
        (problem,) = collection.problems
        assert "'Squamous cell carcinoma, NOS' of d is unknown" in problem.reason

    @pytest.mark.parametrize(
        ("word", "category"),
        [
            ("Melanocytic naevus", "NV"),
            ("melanocytic nevi", "NV"),
            ("Seborrhoeic keratosis", "BKL"),
            ("Benign keratosis", "BKL"),
            ("Actinic keratoses", "AKIEC"),
            ("Bowen's disease", "AKIEC"),
            ("Haemangioma", "VASC"),
            ("ak", "AKIEC"),
        ],
    )
    def test_words(self, tmp_path, word, category):
        rows, _ = read(tmp_path, f"image,dx\na,{word}\n")
        assert rows["a"]["diagnosis"] == category

    def test_two_columns_that_contradict_each_other(self, tmp_path):
        rows, collection = read(
            tmp_path, "image,lesion_id,dx,diagnosis\na,1,nv,melanoma\nb,2,nv,nevus\n"
        )
        assert (rows["a"]["diagnosis"], rows["b"]["diagnosis"]) == (None, "NV")
        (problem,) = collection.problems
        assert "(nv by dx, melanoma by diagnosis) of a is unknown" in problem.reason

    @pytest.mark.parametrize("dx", ["nv", "nevus"])
    def test_name_and_column_of_one_row(self, tmp_path, dx):
        rows, collection = read(
            tmp_path, f"image,lesion_id,dx,mel,nv\na,1,{dx},0,1\nb,2,{dx},1,0\nc,3,{dx},0,0\n"
        )
        assert [rows[name]["diagnosis"] for name in "abc"] == ["NV", None, "NV"]
        (problem,) = collection.problems
        assert f"({dx!r} by name, 1 for mel) of b is unknown" in problem.reason

    @pytest.mark.parametrize(
        ("first", "second", "expected"),
        [
            ("dx\na,squamous cell carcinoma", "dx\na,bkl", "left out"),
            ("MEL,NV\na,1,1", "dx\na,nv", "left out"),
            ("MEL,SCC\na,0,1", "dx\na,mel", "left out"),
            ("dx\na,scc", "dx\na,squamous cell carcinoma", None),
            ("MEL,NV\na,0,0", "dx\na,nv", "NV"),
            ("diagnosis_1\na,Benign", "dx\na,nv", "NV"),  # is broader
        ],
    )
    def test_one_of_the_seven_and_another_contradict_each_other(
        self, tmp_path, first, second, expected
    ):
        for texts in ((first, second), (second, first)):
            paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
            for path, text in zip(paths, texts, strict=True):
                path.write_text(f"image,{text}\n")
            collection = Collection("ours", tmp_path, "plain", "all", [])
            rows, contradictory = read_metadata(paths, collection)
            found = {name: row["diagnosis"] for name, row in rows.items()}
            left_out = expected == "left out"
            assert (found, contradictory) == (({}, {"a"}) if left_out else ({"a": expected}, set()))

    def test_column_of_a_diagnosis_that_means_nothing(self, tmp_path):
        _, collection = read(tmp_path, "isic_id,diagnosis_1,diagnosis_2\na,Benign,Of the moon\n")
        faults = [p.reason for p in collection.problems if "Of the moon" in p.reason]
        assert faults == [
            "line 2: the diagnosis (diagnosis_2) 'Of the moon' of a is unknown and not used"
        ]

    def test_folder_and_table_contradict_each_other(self, tmp_path):
        (tmp_path / "m.csv").write_text("image,dx\na,squamous cell carcinoma\n")
        known = {"a": {"diagnosis": "MEL"}}
        collection = Collection("ours", tmp_path, "classes", "all", [])
        assert read_metadata([tmp_path / "m.csv"], collection, known=known) == ({}, {"a"})

    def test_categories_with_decimal_commas(self, tmp_path):
        rows, _ = read(tmp_path, 'image;MEL;NV\na;"1,0";"0,0"\n')
        assert rows["a"]["diagnosis"] == "MEL"

    def test_how_they_were_confirmed_in_the_archives_words(self, tmp_path):
        rows, _ = read(tmp_path, "isic_id,dx,diagnosis_confirm_type\na,nv,Histopathology\n")
        assert rows["a"]["metadata"] == {"confirmation": "histo"}


class TestProblems:
    def test_rows_without_a_value_are_none(self, tmp_path):
        """Excel writes them where there once was something."""
        rows, collection = read(tmp_path, "image,dx,lesion_id\na,mel,1\n,,\n\n , ,\n")
        assert list(rows) == ["a"] and not collection.problems

    def test_of_several_tables_the_one_with_the_column_is_named(self, tmp_path):
        paths = [tmp_path / "truth.csv", tmp_path / "lesions.csv"]
        paths[0].write_text("image,diagnosis\na,\nb,nv\n")
        paths[1].write_text("image,diagnosis,lesion_id\nc,nv,3\na,,1\nb,nv,\n")
        collection = Collection("ours", tmp_path, "plain", "all", [])
        read_metadata(paths, collection)
        assert [str(problem) for problem in collection.problems] == [
            f"{paths[0]}: line 2: a has no diagnosis",
            f"{paths[1]}: line 4: b has no lesion_id",
        ]

    def test_names_in_other_case_are_one_image_where_no_other_is_called_so(self, tmp_path):
        paths = [tmp_path / "truth.csv", tmp_path / "lesions.csv"]
        paths[0].write_text("image,diagnosis\nIMG_1,nv\nimg_2,nv\n")
        paths[1].write_text("image,lesion_id\nimg_1.png,1\nIMG_2,2\n")
        collection = Collection("ours", tmp_path, "plain", "all", [])
        rows, _ = read_metadata(paths, collection, images=["IMG_1", "img_2", "IMG_2"])
        known = {name: (row["diagnosis"], row["lesion_id"]) for name, row in rows.items()}
        assert known == {"IMG_1": ("NV", "1"), "img_2": ("NV", None), "IMG_2": (None, "2")}

    def test_empty_lines_above_the_header(self, tmp_path):
        rows, _ = read(tmp_path, ",,\n\nimage,dx,lesion_id\na,nv,1\n")
        assert (rows["a"]["diagnosis"], rows["a"]["lesion_id"]) == ("NV", "1")

    def test_a_name_as_it_is_leaves_others_in_other_case_alone(self, tmp_path):
        path = tmp_path / "truth.csv"
        path.write_text("image,diagnosis\nA1,mel\na1,nv\nb,nv\n")
        collection = Collection("ours", tmp_path, "plain", "all", [])
        rows, contradictory = read_metadata([path], collection, images=["A1", "b"])
        known = {name: row["diagnosis"] for name, row in rows.items()}
        assert known == {"A1": "MEL", "a1": "NV", "b": "NV"} and not contradictory

    def test_lesions_that_are_numbered_anew_for_each_patient(self, tmp_path):
        rows = "".join(f"{p}{number},{number},{p}\n" for p in "abcde" for number in (1, 2))
        _, collection = read(tmp_path, f"image,lesion_id,patient_id\n{rows}e3,3,e\n")
        (problem,) = collection.problems
        expected = "2 lesions are of several patients, such as lesion 1 of a, b, c, …: all images"
        assert problem.reason.startswith(expected)
        assert problem.reason.endswith("name them by both, as a-1")


class TestNotes:
    def test_columns_that_are_read_and_that_are_not(self, tmp_path):
        _, collection = read(tmp_path, "image,Alter,sex,lesion_id\na,50,f,1\n")
        (note,) = collection.notes
        assert note.reason == (
            "read: image, sex, lesion_id; not read: alter; no column dx or diagnosis"
        )

    def test_lesion_of_suspiciously_many_images(self, tmp_path):
        rows = "".join(f"{number},{number // 21}\n" for number in range(24))
        _, collection = read(tmp_path, f"image,lesion_id\n{rows}")
        assert "lesion 0 has 21 images" in collection.notes[-1].reason
        assert len(collection.notes) == 2

    @pytest.mark.parametrize("word", ["-", "?", "unbekannt", "k.A.", "#N/A", "<NA>"])
    def test_words_for_an_unknown_lesion(self, tmp_path, word):
        rows, _ = read(tmp_path, f"image,dx,lesion_id\na,nv,{word}\n")
        assert rows["a"]["lesion_id"] is None
