"""What every product says about itself, and its bytes: identity, provenance, dates, Part 10 encoding.

The same products written twice for the same job are the same bytes: every UID and every time comes from `Identity`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from io import BytesIO
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    ExplicitVRLittleEndian,
    ParametricMapStorage,
    PositronEmissionTomographyImageStorage,
    RLELossless,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)
from pydicom.valuerep import DA, DT, TM

from dicom_io.spool import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_io.times import utc_offset
from engines.contract import Json

if TYPE_CHECKING:
    from highdicom import ContributingEquipment
    from highdicom.base import SOPClass

# highdicom logs SOP Instance UIDs and irregular patient names.
logging.getLogger("highdicom").setLevel(logging.CRITICAL + 1)

MANUFACTURER = "tracerd"
RESEARCH_USE_ONLY = "RESEARCH USE ONLY"
LABEL_MAP_SEGMENTATION = UID("1.2.840.10008.5.1.4.1.1.66.7")
"""Label Map Segmentation Storage, which pydicom has no name for yet."""
FIRST_SERIES_NUMBER = 9000
"""Of our series: above those of scanners. Ten numbers for a job, a hundred jobs before they come again."""
SERIES_OFFSETS = {"seg": 1, "sr": 2, "pet": 3, "parametric_map": 4, "capture": 5, "rtstruct": 6} | {
    "labelmap": 7,
    "sr_labelmap": 8,
}


@dataclass(frozen=True, slots=True)
class Form:
    """What all objects of a kind have in common: SOP class, modality and the transfer syntax they are encoded in."""

    sop_class_uid: UID
    modality: str
    transfer_syntax_uid: UID = ExplicitVRLittleEndian


FORMS: Mapping[str, Form] = MappingProxyType(
    {
        "seg": Form(SegmentationStorage, "SEG"),
        "sr": Form(Comprehensive3DSRStorage, "SR"),
        "pet": Form(PositronEmissionTomographyImageStorage, "PT"),
        "parametric_map": Form(ParametricMapStorage, "OT"),
        "capture": Form(SecondaryCaptureImageStorage, "OT"),
        "rtstruct": Form(RTStructureSetStorage, "RTSTRUCT"),
        "labelmap": Form(LABEL_MAP_SEGMENTATION, "SEG", RLELossless),
        "sr_labelmap": Form(Comprehensive3DSRStorage, "SR"),
    }
)
"""Kind → form; highdicom gives seg, sr, parametric_map and labelmap theirs, and tests hold both against each other."""
PROCESSING_EQUIPMENT = "109102"
SR_STORAGE = "1.2.840.10008.5.1.4.1.1.88."

# What highdicom reads from a source image, apart from who the patient is: that it would check, coerce or refuse.
_SOURCE_KEYWORDS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "Rows",
    "Columns",
    "FrameOfReferenceUID",
    "PositionReferenceIndicator",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "Manufacturer",
    "ManufacturerModelName",
    "SoftwareVersions",
    "DeviceSerialNumber",
    "InstitutionName",
    "StationName",
)
_TYPE_2_KEYWORDS = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "PositionReferenceIndicator",
)
_ASCII = str.maketrans(
    {"≥": ">=", "≤": "<=", "–": "-", "—": "-", "−": "-", "µ": "u", "μ": "u", "×": "x", "·": "*", "±": "+/-", "→": "->"}
    | {"‘": "'", "’": "'", "“": '"', "”": '"', "…": "...", "°": " deg"}
)


@dataclass(frozen=True, slots=True)
class Reference:
    """A SOP instance named in another one."""

    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose result this is: everything in the written objects that is neither a source's nor a measurement.

    job_key : sha256 that all UIDs derive from
    created : creation of the job (aware); every date and time of the written objects is this one
    supersedes : the objects of the job that this one replaces
    rerun : 0 for the first run
    timezone : of the site, in which DICOM dates and times without offset are written
    installation_id : names this node as a device
    """

    job_key: str
    job_id: int
    engine: str
    engine_version: str
    tracerd_version: str
    weights_sha256: str | None
    created: datetime
    supersedes: tuple[Reference, ...] = ()
    rerun: int = 0
    parameters: Mapping[str, Json] = field(default_factory=dict)
    timezone: tzinfo = UTC
    installation_id: str = "unknown"

    def __post_init__(self) -> None:
        if self.created.tzinfo is None:
            raise ValueError("Identity.created must be an aware datetime")

    def uid(self, kind: str, profile: str, index: int = 0) -> str:
        """Deterministic UID: 2.25.<first 128 bits of sha256(key|kind|profile|index)> (PS3.5 B.2)."""
        return _hashed_uid(f"{self.job_key}|{kind}|{profile}|{index}")

    @property
    def device_uid(self) -> str:
        """UID of this node as an observing device; the same for all its jobs."""
        return _hashed_uid(f"device|{self.installation_id}")

    @property
    def edition(self) -> int:
        """1 for a first result, n for the n-th that replaces it."""
        return self.rerun + 1 if self.rerun else (2 if self.supersedes else 1)

    @property
    def predecessors(self) -> tuple[Reference, ...]:
        """The reports among the superseded objects."""
        return tuple(reference for reference in self.supersedes if reference.sop_class_uid.startswith(SR_STORAGE))


def ascii_text(text: str) -> str:
    """Text in DICOM's default repertoire, which every character set of a source contains; control characters fall."""
    plain = unicodedata.normalize("NFKD", text.translate(_ASCII))
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    plain = "".join(c if c.isprintable() or c == "\n" else " " for c in plain)
    return plain.encode("ascii", "replace").decode("ascii").replace("\n", "\r\n")


def long_string(text: str) -> str:
    """Text as a DICOM LO value: one line, no backslash, at most 64 characters (PS3.5 6.2)."""
    return " ".join(ascii_text(text).replace("\\", "/").split())[:64].strip()


def series_description(identity: Identity, content: str) -> str:
    """Series Description, e.g. "Lesions fdg_segmentation RESEARCH USE ONLY (2)"; the end survives a long beginning."""
    ending = f" {RESEARCH_USE_ONLY}" + (f" ({identity.edition})" if identity.edition > 1 else "")
    return long_string(f"{content} {identity.engine}")[: 64 - len(ending)].rstrip() + ending


def algorithm_parameters(identity: Identity) -> dict[str, str]:
    """Parameters, weights and job as flat text for Algorithm Parameters (0066,0032), which joins them as `k=v,k=v`."""
    values = {
        **identity.parameters,
        "weights_sha256": identity.weights_sha256 or "none",
        "tracerd": identity.tracerd_version,
        "job": identity.job_id,
    }
    return {name: _flat(value) for name, value in values.items()}


def software_versions(identity: Identity) -> tuple[str, str]:
    """Software Versions (0018,1020): the node's and the engine's."""
    return (
        long_string(f"{MANUFACTURER} {identity.tracerd_version}"),
        long_string(f"{identity.engine} {identity.engine_version}"),
    )


def arguments(identity: Identity, product: str, content: str, source: Dataset, *, of: str = "") -> dict[str, Any]:
    """Arguments that the constructors of all highdicom objects share.

    product : one of SERIES_OFFSETS; content : what the series shows, for its description
    of : tells the UIDs of several products of a kind apart
    """
    at = _local(identity, source)
    return {
        "series_instance_uid": identity.uid(product, f"{of} series".strip()),
        "series_number": FIRST_SERIES_NUMBER + 10 * (identity.job_id % 100) + SERIES_OFFSETS[product],
        "sop_instance_uid": identity.uid(product, f"{of} instance".strip()),
        "instance_number": 1,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": long_string(identity.engine),
        "software_versions": software_versions(identity),
        "device_serial_number": long_string(identity.installation_id),
        "series_description": series_description(identity, content),
        "content_qualification": "RESEARCH",
        "content_date": at.date(),
        "content_time": at.time(),
        "series_date": at.date(),
        "series_time": at.time(),
        "specific_character_set": None,
        "contributing_equipment": [_this_node(identity)],
    }


def without_patient(source: Dataset) -> Dataset:
    """The source as highdicom needs it, with an empty Patient and Study: `settle` copies those verbatim.

    highdicom would refuse or coerce irregular values (Patient's Sex "m", an unknown character set).
    """
    bare = Dataset()
    for keyword in _TYPE_2_KEYWORDS:
        setattr(bare, keyword, None)
    for keyword in _SOURCE_KEYWORDS:
        if keyword in source:
            bare[keyword] = source[keyword]
    return bare


def settle(product: SOPClass, source: Dataset, identity: Identity) -> None:
    """Last strokes on a highdicom object, in place: Patient and Study of the source verbatim, our times, our UIDs.

    Overwrites what highdicom takes from the clock or draws at random.
    """
    product.copy_patient_and_study_information(source)
    for keyword in ("SpecificCharacterSet", "TimezoneOffsetFromUTC"):
        if keyword in source:
            product[keyword] = source[keyword]
    at = _local(identity, source)
    product.InstanceCreationDate = DA(at.date())
    product.InstanceCreationTime = TM(at.time())
    for equipment in product.ContributingEquipmentSequence:
        if equipment.PurposeOfReferenceCodeSequence[0].CodeValue == PROCESSING_EQUIPMENT:
            equipment.ContributionDateTime = DT(at)
    dimensions = [*product.get("DimensionOrganizationSequence", ()), *product.get("DimensionIndexSequence", ())]
    for item in dimensions:
        item.DimensionOrganizationUID = identity.uid("dimensions", str(product.SOPInstanceUID))


def transfer_syntax(dataset: Dataset) -> UID:
    """Explicit VR Little Endian, or the compression in which the pixels of a product are."""
    made_as: UID = dataset.file_meta.TransferSyntaxUID
    return made_as if made_as.is_encapsulated else ExplicitVRLittleEndian


def encode(dataset: Dataset) -> bytes:
    """Part 10 bytes in `transfer_syntax`: preamble of zeros, our File Meta; the data set is left as it is."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = transfer_syntax(dataset)
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    written = Dataset()
    written.update(dataset)
    written.file_meta = meta
    written.preamble = bytes(128)
    buffer = BytesIO()
    dcmwrite(buffer, written, enforce_file_format=True)
    return buffer.getvalue()


def _this_node(identity: Identity) -> ContributingEquipment:
    from highdicom import ContributingEquipment
    from pydicom.sr.codedict import codes

    weights = identity.weights_sha256 or "none"
    return ContributingEquipment(
        manufacturer=MANUFACTURER,
        purpose_of_reference=codes.DCM.ProcessingEquipment,
        manufacturer_model_name=long_string(identity.engine),
        software_versions=software_versions(identity),
        device_serial_number=long_string(identity.installation_id),
        contribution_description=f"{RESEARCH_USE_ONLY}. Job {identity.job_id}, weights sha256 {weights}",
    )


def _hashed_uid(text: str) -> str:
    return f"2.25.{int.from_bytes(hashlib.sha256(text.encode()).digest()[:16])}"


def _local(identity: Identity, source: Dataset) -> datetime:
    """The job's creation as the source writes local times.

    (0008,0201) governs every date and time of an object, also the copied Study Date: where the source has none, adding
    one would change what the copied values mean, so the site's clock is written without it.
    """
    offset = utc_offset(str(source.get("TimezoneOffsetFromUTC") or "").strip())
    return identity.created.astimezone(offset or identity.timezone)


def _flat(value: Json) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, separators=(";", ":"))
    return ascii_text(text).replace(",", ";").replace("=", ":")
