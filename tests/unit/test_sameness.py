"""Two files under one SOP Instance UID: the same object, a corrected label, or another content?"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from dicom_io import headers
from dicom_io.errors import UnreadableObject
from dicom_io.sameness import Sameness, compare
from tests import make

OTHER = {
    "AS": "033Y", "CS": "OTHER", "DA": "19991231", "DS": "3.25", "DT": "19991231235959", "IS": "7", "LO": "other",
    "PN": "Other^Name", "SH": "other", "TM": "235959", "UI": "1.2.3.4.5", "US": 5,
}  # fmt: skip
"""A legal value of each VR that no phantom has."""
UNREADABLE_ALONE = {"Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated"}
"""Changing one of these alone makes an object unreadable instead."""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make.study(tmp_path_factory.mktemp("study"), pet_shape=(3, 8, 8)).pet[1]


def changed(original: Path, target: Path, edit: Callable[[Dataset], object]) -> Path:
    dataset = pydicom.dcmread(original)
    edit(dataset)
    dataset.save_as(target)
    return target


def set_value(dataset: Dataset, keyword: str) -> None:
    vr = pydicom.datadict.dictionary_VR(keyword)
    if vr == "SQ":
        item = Dataset()
        item.Manufacturer = "OTHER"
        setattr(dataset, keyword, [item])
    else:
        setattr(dataset, keyword, OTHER[vr])


def convert(program: str, *options: str, source: Path, target: Path) -> Path:
    if shutil.which(program) is None:
        pytest.skip(f"{program} (DCMTK) is not installed")
    subprocess.run([program, *options, str(source), str(target)], check=True, timeout=20)
    assert source.read_bytes() != target.read_bytes()
    return target


@pytest.mark.parametrize(
    "command",
    ["dcmconv +ti", "dcmconv +te -e", "dcmconv +ti -e +g", "dcmconv +te +p 512 64", "dcmcrle"],
)
def test_another_encoding_is_a_duplicate(original: Path, tmp_path: Path, command: str) -> None:
    program, *options = command.split()
    copy = convert(program, *options, source=original, target=tmp_path / "c")
    assert compare(original, copy) == Sameness("duplicate", ())
    assert compare(copy, original) == Sameness("duplicate", ())


@pytest.mark.parametrize(
    ("command", "sameness"),
    [
        ("dcmcjpeg +e1", Sameness("coerced", ("DerivationDescription",))),
        ("dcmcjpeg +el +sv 7", Sameness("coerced", ("DerivationDescription",))),
        ("dcmcjpls +el", Sameness("duplicate", ())),
    ],
)
def test_lossless_compression_changes_nothing_but_what_it_says_of_itself(
    original: Path, tmp_path: Path, command: str, sameness: Sameness
) -> None:
    """DCMTK notes a JPEG compression in Derivation Description, which nobody decides by."""
    program, *options = command.split()
    assert compare(original, convert(program, *options, source=original, target=tmp_path / "c")) == sameness


def test_two_compressions_of_the_same_pixels_are_the_same_pixels(original: Path, tmp_path: Path) -> None:
    one = convert("dcmcrle", source=original, target=tmp_path / "rle")
    other = convert("dcmcjpeg", "+e1", source=original, target=tmp_path / "jpeg")
    assert compare(one, other) == Sameness("coerced", ("DerivationDescription",))


@pytest.mark.parametrize("keyword", [*headers.IDENTIFICATION_KEYWORDS, "OperatorsName", "InstanceCreationTime"])
def test_identification_is_coerced(original: Path, tmp_path: Path, keyword: str) -> None:
    copy = changed(original, tmp_path / "c", partial(set_value, keyword=keyword))
    assert compare(original, copy) == Sameness("coerced", (keyword,))


@pytest.mark.parametrize("keyword", sorted({*headers.MEANING_KEYWORDS} - UNREADABLE_ALONE))
def test_everything_the_reading_side_decides_by_conflicts(original: Path, tmp_path: Path, keyword: str) -> None:
    copy = changed(original, tmp_path / "c", partial(set_value, keyword=keyword))
    assert compare(original, copy) == Sameness("conflicting", (keyword,))


def test_all_differences_are_named(original: Path, tmp_path: Path) -> None:
    def edit(dataset: Dataset) -> None:
        dataset.PatientWeight = "71.5"
        dataset.PatientID = "ANOTHER"
        dataset.add_new((0x0099, 0x0010), "LO", "SOMEBODY")

    copy = changed(original, tmp_path / "c", edit)
    assert compare(original, copy) == Sameness("conflicting", ("(0099,0010)", "PatientID", "PatientWeight"))


def test_one_changed_pixel_conflicts_whatever_the_encoding(original: Path, tmp_path: Path) -> None:
    def edit(dataset: Dataset) -> None:
        dataset.PixelData = dataset.PixelData[:-2] + b"\x39\x05"

    copy = changed(original, tmp_path / "c", edit)
    assert compare(original, copy) == Sameness("conflicting", ("PixelData",))
    compressed = convert("dcmcjpeg", "+e1", source=copy, target=tmp_path / "compressed")
    assert compare(original, compressed) == Sameness("conflicting", ("DerivationDescription", "PixelData"))


def test_pixels_that_cannot_be_decoded_conflict(original: Path, tmp_path: Path) -> None:
    def damage(dataset: Dataset) -> None:
        dataset.file_meta.TransferSyntaxUID = RLELossless
        dataset.PixelData = pydicom.encaps.encapsulate([b"\x01\x00\x00\x00" + bytes(60) + b"not run-length coded"])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True

    assert compare(original, changed(original, tmp_path / "c", damage)) == Sameness("conflicting", ("PixelData",))


def test_a_value_deep_inside_names_its_sequence(original: Path, tmp_path: Path) -> None:
    def edit(dataset: Dataset) -> None:
        dataset.RadiopharmaceuticalInformationSequence[0].RadionuclideTotalDose = "300000000"

    copy = changed(original, tmp_path / "c", edit)
    assert compare(original, copy) == Sameness("conflicting", ("RadiopharmaceuticalInformationSequence",))


def test_a_vendors_factor_conflicts_and_other_private_values_do_not(original: Path, tmp_path: Path) -> None:
    def add(dataset: Dataset, element: int, value: str) -> None:
        dataset.private_block(0x7053, "Philips PET Private Group", create=True).add_new(element, "DS", value)

    base = changed(original, tmp_path / "base", partial(add, element=0x00, value="0.1"))
    factor = changed(base, tmp_path / "factor", partial(add, element=0x00, value="0.2"))
    other = changed(base, tmp_path / "other", partial(add, element=0x55, value="0.2"))
    assert compare(base, factor) == Sameness("conflicting", ("(7053,1000)", "PhilipsSUVScaleFactor"))
    assert compare(base, other) == Sameness("coerced", ("(7053,1055)",))
    without = changed(base, tmp_path / "without", lambda dataset: dataset.remove_private_tags())
    assert compare(base, without).verdict == "conflicting"


def test_the_spelling_of_numbers_and_texts_is_no_difference(original: Path, tmp_path: Path) -> None:
    def respell(dataset: Dataset) -> None:
        dataset.PatientWeight = f"{float(dataset.PatientWeight):.5f}"
        dataset.PixelSpacing = [f"{float(number):.6f}" for number in dataset.PixelSpacing]
        dataset.StationName = f"{dataset.StationName} "

    assert compare(original, changed(original, tmp_path / "c", respell)) == Sameness("duplicate", ())


def test_an_empty_value_says_no_more_than_an_absent_one(original: Path, tmp_path: Path) -> None:
    def edit(dataset: Dataset) -> None:
        del dataset.AccessionNumber
        dataset.ReferencedImageSequence = []
        dataset.InstitutionName = ""

    assert compare(original, changed(original, tmp_path / "c", edit)) == Sameness("duplicate", ())


def test_another_character_set_for_the_same_text_is_no_difference(original: Path, tmp_path: Path) -> None:
    def write(dataset: Dataset, character_set: str, name: str) -> None:
        dataset.SpecificCharacterSet = character_set
        dataset.PatientName = name

    latin = changed(original, tmp_path / "latin", partial(write, character_set="ISO_IR 100", name="Müller^Jörg"))
    utf8 = changed(original, tmp_path / "utf8", partial(write, character_set="ISO_IR 192", name="Müller^Jörg"))
    greek = changed(original, tmp_path / "greek", partial(write, character_set="ISO_IR 126", name="Ζωή"))
    assert compare(latin, utf8) == Sameness("duplicate", ())
    assert compare(latin, greek) == Sameness("coerced", ("PatientName",))


def test_an_icon_image_is_part_of_the_content(original: Path, tmp_path: Path) -> None:
    def icon(dataset: Dataset, grey: int) -> None:
        item = Dataset()
        item.PixelData = bytes([grey] * 4)
        item["PixelData"].VR = "OB"
        dataset.IconImageSequence = [item]

    one, other = (changed(original, tmp_path / str(grey), partial(icon, grey=grey)) for grey in (1, 2))
    assert compare(one, other) == Sameness("coerced", ("IconImageSequence",))


def test_the_verdict_survives_json() -> None:
    sameness = Sameness("coerced", ("PatientID", "PatientName"))
    assert Sameness.from_json(sameness.to_json()) == sameness


def test_a_broken_copy_is_refused(original: Path, tmp_path: Path) -> None:
    (tmp_path / "cut").write_bytes(original.read_bytes()[:-10])
    with pytest.raises(UnreadableObject) as caught:
        compare(original, tmp_path / "cut")
    assert caught.value.code == "truncated"
