"""Tables that users bring: what is known of patients."""

import pytest

from lesion.samples import DatasetError
from lesion.tables import image_name, read_patients


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
