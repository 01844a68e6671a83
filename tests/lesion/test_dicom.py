"""DICOM: every photometric interpretation, SEG read back, errors, and no word of the patient."""

import io
import json
import logging
import sys
import traceback
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lesion.dicom import SOP_CLASSES, DicomImage, is_dicom, read_dicom, write_segmentation
from lesion.phantom import draw_phantom
from lesion.samples import ATTRIBUTES
from mrcnn.images import ImageError

REASON = "needs the extra `dicom`: pip install -e .[dicom]"
try:
    import highdicom
    import pydicom
    from pydicom.encaps import encapsulate
    from pydicom.pixels import convert_color_space
    from pydicom.uid import (
        DeflatedExplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        JPEG2000Lossless,
        JPEGBaseline8Bit,
        JPEGLosslessSV1,
        JPEGLSLossless,
        RLELossless,
    )
except ImportError:
    pydicom = None

dicom = pytest.mark.skipif(pydicom is None, reason=REASON)

DERMOSCOPIC, PHOTOGRAPHIC = sorted(SOP_CLASSES, reverse=True)
SECRETS = {
    "PatientName": "Zwetschgenbaum^Otilie",
    "PatientID": "QX77310942",
    "PatientBirthDate": "19430217",
    "AccessionNumber": "ACC5550123",
    "InstitutionName": "Spital Hinterwaldingen",
    "ReferringPhysicianName": "Quacksalbinger^Ignaz",
    "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.77001",
    "SeriesInstanceUID": "1.2.826.0.1.3680043.8.498.77002",
    "SOPInstanceUID": "1.2.826.0.1.3680043.8.498.77003",
    "StudyID": "STUDY7788",
}
MODELS = {
    "boundary": {"task": "boundary", "network": "Mask R-CNN", "sha256": "01" * 32},
    "attributes": {"task": "attributes", "network": "Mask R-CNN, semantic", "sha256": "ab" * 32},
}


def tells(text):
    """Which secrets a text holds, whole or in part."""
    words = {word for value in SECRETS.values() for word in (value, *value.split("^"))}
    return sorted(word for word in words if word.lower() in text.lower())


def source(pixels=None, interpretation="RGB", **changes):
    """A data set of a photograph, [height, width(, 3)] of uint8 or uint16."""
    pixels = draw_phantom(0, 24, 32).image if pixels is None else pixels
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = DERMOSCOPIC
    dataset.Modality = "DMS"
    dataset.PatientSex = "F"
    dataset.StudyDate, dataset.StudyTime = "20260101", "120000"
    for keyword, value in SECRETS.items():
        setattr(dataset, keyword, value)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    dataset.PhotometricInterpretation = interpretation
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = pixels.dtype.itemsize * 8
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = 0
    dataset.PixelSpacing = [0.02, 0.02]
    dataset.PixelData = pixels.tobytes()
    for keyword, value in changes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dataset


def saved(dataset, path):
    dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", DERMOSCOPIC)
    dataset.file_meta.MediaStorageSOPInstanceUID = SECRETS["SOPInstanceUID"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's about what is wrong on purpose
        dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def read(tmp_path):
    return lambda dataset: read_dicom(saved(dataset, tmp_path / "image.dcm"))


@pytest.fixture
def pixels():
    return draw_phantom(0, 24, 32).image


@dicom
class TestPixels:
    @pytest.mark.parametrize("sop_class", SOP_CLASSES)
    def test_rgb(self, read, pixels, sop_class):
        image = read(source(pixels, SOPClassUID=sop_class))
        assert image.pixels.dtype == np.uint8
        assert (image.pixels == pixels).all()
        assert image.millimetres_per_pixel == 0.02
        assert image.source.PatientName == SECRETS["PatientName"]
        assert "PixelData" not in image.source

    def test_planes_one_behind_the_other(self, read, pixels):
        dataset = source(pixels, PlanarConfiguration=1)
        dataset.PixelData = np.moveaxis(pixels, 2, 0).tobytes()
        assert (read(dataset).pixels == pixels).all()

    def test_ybr_full(self, read, pixels):
        ycbcr = convert_color_space(pixels, "RGB", "YBR_FULL")
        found = read(source(ycbcr, "YBR_FULL")).pixels
        assert np.abs(found.astype(int) - pixels).max() <= 2

    def test_ybr_full_422(self, read):
        # Pairs of pixels share their colours: Y1 Y2 Cb Cr.
        pixels = np.repeat(draw_phantom(0, 24, 32).image[:, ::2], 2, axis=1)
        ycbcr = convert_color_space(pixels, "RGB", "YBR_FULL")
        pairs = np.stack(
            [ycbcr[:, ::2, 0], ycbcr[:, 1::2, 0], ycbcr[:, ::2, 1], ycbcr[:, ::2, 2]], axis=-1
        )
        dataset = source(pixels, "YBR_FULL_422", PixelData=pairs.tobytes())
        assert np.abs(read(dataset).pixels.astype(int) - pixels).max() <= 2

    @pytest.mark.parametrize("bits", [8, 16])
    def test_palette(self, read, bits):
        indices = np.arange(12, dtype=np.uint8).reshape(3, 4)
        palette = np.random.default_rng(0).integers(0, 256, (12, 3))
        dataset = source(indices, "PALETTE COLOR")
        for column, name in enumerate(("Red", "Green", "Blue")):
            setattr(dataset, f"{name}PaletteColorLookupTableDescriptor", [12, 0, bits])
            table = palette[:, column] * (257 if bits == 16 else 1)
            content = table.astype(f"<u{bits // 8}").tobytes()
            setattr(dataset, f"{name}PaletteColorLookupTableData", content)
        assert (read(dataset).pixels == palette[indices]).all()

    def test_grey(self, read):
        grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
        assert (read(source(grey, "MONOCHROME2")).pixels == grey[:, :, np.newaxis]).all()
        assert (read(source(grey, "MONOCHROME1")).pixels == 255 - grey[:, :, np.newaxis]).all()

    def test_twelve_of_sixteen_bits(self, read):
        deep = np.array([[0, 2048, 4095, 16]], np.uint16)
        image = read(source(deep, "MONOCHROME2", BitsStored=12, HighBit=11))
        assert image.pixels[0, :, 0].tolist() == [0, 128, 255, 1]

    def test_eight_of_sixteen_bits(self, read):
        stored = np.array([[0, 100, 200, 255]], np.uint16)
        image = read(source(stored, "MONOCHROME2", BitsStored=8, HighBit=7))
        assert image.pixels[0, :, 0].tolist() == [0, 100, 200, 255]

    @pytest.mark.parametrize("name", ["rle", "jpeg-ls", "jpeg-2000", "deflated"])
    def test_compressed_without_loss(self, read, pixels, name):
        dataset = source(pixels)
        if name == "deflated":
            dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        elif name == "jpeg-2000":
            content = io.BytesIO()
            Image.fromarray(pixels).save(content, "JPEG2000", irreversible=False, no_jp2=True)
            dataset.PixelData = encapsulate([content.getvalue()])
            dataset.PhotometricInterpretation = "YBR_RCT"
            dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
        else:
            dataset.compress({"rle": RLELossless, "jpeg-ls": JPEGLSLossless}[name])
        assert (read(dataset).pixels == pixels).all()

    def test_jpeg(self, read, pixels):
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, "JPEG", quality=100, subsampling=0)
        dataset = source(pixels, "YBR_FULL", PixelData=encapsulate([content.getvalue()]))
        dataset["PixelData"].VR = "OB"
        dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        assert np.abs(read(dataset).pixels.astype(int) - pixels).max() <= 4


@dicom
@pytest.mark.parametrize(
    ("spacing", "expected"),
    [
        (None, None),
        ([0.05, 0.05], 0.05),
        ([0.05, 0.0502], 0.0501),
        ([0.05, 0.1], None),
        ([0, 0], None),
        ([], None),
    ],
)
def test_scale(read, spacing, expected):
    assert read(source(PixelSpacing=spacing)).millimetres_per_pixel == pytest.approx(expected)


def lesion(image, attributes=()):
    height, width = image.pixels.shape[:2]
    boundary = np.zeros((height, width), bool)
    boundary[5:20, 6:25] = True
    masks = {name: np.zeros((height, width), bool) for name in ATTRIBUTES}
    for name in attributes:
        masks[name][8:12, ATTRIBUTES.index(name) + 7 : 20] = True
    return boundary, masks


@dicom
class TestSegmentation:
    @pytest.mark.parametrize("sop_class", SOP_CLASSES)
    @pytest.mark.parametrize("frame", [{}, {"FrameOfReferenceUID": "1.2.826.0.1.3680043.8.498.5"}])
    def test_masks_come_back(self, read, tmp_path, sop_class, frame):
        image = read(source(SOPClassUID=sop_class, **frame))
        # Drawn in this order; the two overlap.
        boundary, masks = lesion(image, ("pigment_network", "globules"))
        path = tmp_path / "seg.dcm"
        labels = write_segmentation(path, image, boundary, masks, MODELS)
        assert labels == ["Skin lesion", "Pigment network", "Globules"]
        seg = highdicom.seg.segread(path)
        assert seg.SegmentationType == "BINARY"
        found = seg.get_pixels_by_source_instance([image.source.SOPInstanceUID])[0] > 0
        expected = [boundary, masks["pigment_network"], masks["globules"]]
        assert (found == np.stack(expected, axis=-1)).all()
        reference = seg.ReferencedSeriesSequence[0]
        assert reference.SeriesInstanceUID == image.source.SeriesInstanceUID
        instance = reference.ReferencedInstanceSequence[0]
        assert instance.ReferencedSOPInstanceUID == image.source.SOPInstanceUID
        assert instance.ReferencedSOPClassUID == sop_class

    def test_segments_say_what_they_are_and_where_from(self, read, tmp_path):
        image = read(source())
        boundary, masks = lesion(image, ("milia_like_cyst",))
        write_segmentation(tmp_path / "seg.dcm", image, boundary, masks, MODELS)
        seg = highdicom.seg.segread(tmp_path / "seg.dcm")
        first, second = seg.SegmentSequence
        kinds = [item.SegmentedPropertyTypeCodeSequence[0] for item in (first, second)]
        assert (kinds[0].CodeValue, kinds[0].CodingSchemeDesignator) == ("95324001", "SCT")
        assert (kinds[1].CodeValue, kinds[1].CodingSchemeDesignator) == (
            "milia_like_cyst",
            "99LESION",
        )
        algorithms = [
            item.SegmentationAlgorithmIdentificationSequence[0] for item in (first, second)
        ]
        assert algorithms[0].AlgorithmName == "Mask R-CNN, boundary"
        assert [item.AlgorithmVersion for item in algorithms] == ["01" * 32, "ab" * 32]
        for text in (seg.ContentDescription, seg.SeriesDescription, first.SegmentDescription):
            assert text == "Research use only - not a medical device - not for diagnosis."

    def test_belongs_to_the_patient_and_study_but_is_a_new_series(self, read, tmp_path):
        image = read(source(PatientName="Ångström^Zoë=漢字"))
        write_segmentation(tmp_path / "seg.dcm", image, *lesion(image), MODELS)
        seg = pydicom.dcmread(tmp_path / "seg.dcm")
        assert seg.PatientName == "Ångström^Zoë=漢字"
        for keyword in ("PatientID", "PatientBirthDate", "StudyInstanceUID", "AccessionNumber"):
            assert seg[keyword].value == SECRETS[keyword]
        assert seg.SeriesInstanceUID != SECRETS["SeriesInstanceUID"]
        assert seg.SOPInstanceUID != SECRETS["SOPInstanceUID"]

    @pytest.mark.parametrize(
        ("encodings", "name"),
        [
            (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"),
            (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞"),
            (["", "ISO 2022 IR 58"], "Zhang^XiaoDong"),  # of which pydicom writes no more
            ("ISO_IR 100", "Ångström^Zoë"),
            ("ISO 2022 IR 100", "Ångström^Zoë"),
            ("ISO_IR 6", "Smith^Ann"),
            ("", "Smith^Ann"),
        ],
    )
    def test_any_character_set(self, read, tmp_path, encodings, name):
        image = read(source(SpecificCharacterSet=encodings, PatientName=name))
        write_segmentation(tmp_path / "seg.dcm", image, *lesion(image), MODELS)
        assert pydicom.dcmread(tmp_path / "seg.dcm").PatientName == name

    def test_source_without_patient(self, read, tmp_path):
        empty = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID")
        empty += ("AccessionNumber", "ReferringPhysicianName", "StudyDate", "StudyTime")
        image = read(source(**dict.fromkeys(empty)))
        assert write_segmentation(tmp_path / "seg.dcm", image, *lesion(image), MODELS)
        assert pydicom.dcmread(tmp_path / "seg.dcm").PatientName == ""
        assert "PatientName" not in image.source

    def test_nothing_found_writes_nothing(self, read, tmp_path):
        image = read(source())
        nothing = np.zeros(image.pixels.shape[:2], bool)
        assert write_segmentation(tmp_path / "seg.dcm", image, nothing, {}, MODELS) == []
        assert not (tmp_path / "seg.dcm").exists()

    @pytest.mark.parametrize("mask", [np.zeros((24, 31), bool), np.zeros((24, 32), np.uint8)])
    def test_other_masks_are_refused(self, read, tmp_path, mask):
        image = read(source())
        with pytest.raises(ValueError, match="The mask of streaks must be bool and as large"):
            write_segmentation(
                tmp_path / "seg.dcm", image, lesion(image)[0], {"streaks": mask}, MODELS
            )

    def test_source_without_identifiers(self, read, tmp_path):
        image = read(source(StudyInstanceUID=None))
        with pytest.raises(ImageError, match="seg.dcm: the source image has no StudyInstanceUID"):
            write_segmentation(tmp_path / "seg.dcm", image, *lesion(image), MODELS)

    def test_values_that_cannot_be_written_are_not_quoted(self, read, tmp_path):
        image = read(source(PatientSex=SECRETS["PatientID"]))
        with pytest.raises(ImageError, match="no segmentation can be written") as caught:
            write_segmentation(tmp_path / "seg.dcm", image, *lesion(image), MODELS)
        assert not tells("".join(traceback.format_exception(caught.value)))
        assert list(tmp_path.iterdir()) == [tmp_path / "image.dcm"]

    def test_full_disk_is_an_oserror(self, read, tmp_path):
        image = read(source())
        (tmp_path / "file").write_text("")
        with pytest.raises(OSError):
            write_segmentation(tmp_path / "file" / "seg.dcm", image, *lesion(image), MODELS)


@dicom
class TestErrors:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, r"another kind \(CT Image Storage\)"),
            ({"SOPClassUID": None}, "does not say what it holds; it may be cut off"),
            ({"SOPClassUID": SECRETS["StudyInstanceUID"]}, r"another kind \(an unknown one\)"),
            ({"PixelData": None}, "holds no pixels"),
            ({"NumberOfFrames": 2}, "holds 2 frames"),
            ({"Rows": 60000, "Columns": 60000}, "60000 x 60000 pixels, more than the 200,000,000"),
            ({"PhotometricInterpretation": "HSV"}, "photometric interpretation is none"),
            ({"PixelRepresentation": 1}, "signed numbers"),
            ({"Rows": None}, r"is damaged \(\w+\)"),
            ({"PixelData": b"\0" * 10}, r"is damaged \(\w+\)"),
        ],
    )
    def test_one_line_names_the_file_and_the_fault(self, read, changes, message):
        with pytest.raises(ImageError, match=f"image.dcm: .*{message}") as caught:
            read(source(**changes))
        assert "\n" not in str(caught.value)
        assert not tells("".join(traceback.format_exception(caught.value)))

    def test_unknown_transfer_syntax(self, read):
        dataset = source()
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"  # MPEG-2
        dataset.PixelData = encapsulate([b"\0" * 10])
        dataset["PixelData"].VR = "OB"
        with pytest.raises(ImageError, match="transfer syntax is none that pydicom reads"):
            read(dataset)

    def test_missing_plugin_is_named(self, read, monkeypatch):
        decoder = pydicom.pixels.get_decoder(JPEGLosslessSV1)
        monkeypatch.setattr(decoder, "_available", {})
        dataset = source(PixelData=encapsulate([b"\0" * 10]))
        dataset["PixelData"].VR = "OB"
        dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1
        with pytest.raises(ImageError, match="JPEG Lossless.* needs a plugin of pydicom: "):
            read(dataset)

    def test_other_files(self, tmp_path):
        for content in (b"", b"\x89PNG", b"\0" * 128 + b"DICK"):
            (tmp_path / "x.dcm").write_bytes(content)
            assert not is_dicom(tmp_path / "x.dcm")
            with pytest.raises(ImageError, match="x.dcm: this is not a DICOM file"):
                read_dicom(tmp_path / "x.dcm")
        with pytest.raises(ImageError, match="y.dcm: there is no such file"):
            read_dicom(tmp_path / "y.dcm")
        with pytest.raises(ImageError, match="cannot be read: Is a directory"):
            read_dicom(tmp_path)
        assert not is_dicom(tmp_path / "y.dcm")
        assert not is_dicom(tmp_path)

    @settings(
        max_examples=60,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    @given(data=st.data())
    def test_damaged_files_raise_one_error_that_tells_nothing(self, tmp_path, caplog, data):
        whole = saved(source(), tmp_path / "whole.dcm").read_bytes()
        content = bytearray(whole[: data.draw(st.integers(132, len(whole)))])
        # The header is where bytes have meaning.
        places = st.integers(132, max(132, min(len(content), 1400) - 1))
        for place in data.draw(st.lists(places, max_size=4)) if len(content) > 132 else []:
            content[place] = data.draw(st.integers(0, 255))
        (tmp_path / "damaged.dcm").write_bytes(content)
        assert is_dicom(tmp_path / "damaged.dcm")
        try:
            image = read_dicom(tmp_path / "damaged.dcm")
        except ImageError as error:
            assert not tells("".join(traceback.format_exception(error)))
        else:
            assert image.pixels.dtype == np.uint8 and image.pixels.shape[2] == 3
        assert not caplog.records


@dicom
def test_patient_reaches_no_log_message_or_repr(read, tmp_path, capfd, caplog):
    """All of pydicom's and highdicom's messages are asked for, and complaints provoked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        odd = source(PatientBirthDate=f"{SECRETS['PatientBirthDate']}999")
        saved(odd, tmp_path / "odd.dcm")
    caplog.clear()
    caplog.set_level(logging.DEBUG)
    loggers = [logging.getLogger(name) for name in ("pydicom", "highdicom")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        image = read_dicom(tmp_path / "odd.dcm")
        good = read(source())
        labels = write_segmentation(tmp_path / "s.dcm", good, *lesion(good), MODELS)
        with pytest.raises(ImageError) as error:
            write_segmentation(tmp_path / "s.dcm", image, *lesion(image), MODELS)
    said = [*map(repr, (image, good, labels)), *(str(item.message) for item in caught)]
    said += [record.getMessage() for record in caplog.records]
    said += ["".join(traceback.format_exception(error.value)), *capfd.readouterr()]
    said.append(json.dumps(good.millimetres_per_pixel))
    assert tells("\n".join(said)) == []
    assert [logger.level for logger in loggers] == levels
    # The test's own eyes are open: the segmentation does hold the patient.
    assert tells((tmp_path / "s.dcm").read_bytes().decode("latin-1"))


@pytest.mark.parametrize("package", ["pydicom", "highdicom"])
def test_missing_extra_is_named(monkeypatch, tmp_path, package):
    monkeypatch.setitem(sys.modules, package, None)
    image = DicomImage(np.zeros((4, 4, 3), np.uint8), None, None)
    with pytest.raises(ImportError, match=r'pip install -e "\.\[dicom\]"'):
        if package == "pydicom":
            read_dicom(tmp_path / "any.dcm")
        else:
            write_segmentation(tmp_path / "s.dcm", image, np.ones((4, 4), bool), {}, MODELS)
