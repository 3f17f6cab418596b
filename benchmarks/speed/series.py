"""The data that is sent: series of noise slices, the same bytes for the same seed on every machine."""

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, PositronEmissionTomographyImageStorage

MATRIX = {"PT": 200, "CT": 512}
SOP_CLASS = {"PT": PositronEmissionTomographyImageStorage, "CT": CTImageStorage}


def write_series(folder: Path, modality: str, instances: int, seed: int) -> list[Path]:
    """One series of 16-bit noise as files in a new folder; 200×200 voxels per slice for PT, 512×512 for CT."""
    folder.mkdir()
    rng = np.random.default_rng([seed, MATRIX[modality]])
    return [_write_slice(folder, modality, number, rng) for number in range(1, instances + 1)]


def _write_slice(folder: Path, modality: str, number: int, rng: np.random.Generator) -> Path:
    side = MATRIX[modality]
    root = f"2.25.4711.{side}"
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = SOP_CLASS[modality], f"{root}.1.{number}"
    dataset.StudyDate, dataset.SeriesDate, dataset.AcquisitionDate = "20260102", "20260102", "20260102"
    dataset.StudyTime, dataset.SeriesTime, dataset.AcquisitionTime = "101500", "102000", "102030"
    dataset.Modality, dataset.Manufacturer, dataset.SeriesDescription = modality, "NOISE", "benchmark"
    dataset.PatientName, dataset.PatientID = "Benchmark^Receive", "BENCHMARK"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"{root}.2", f"{root}.3"
    dataset.FrameOfReferenceUID, dataset.InstanceNumber = f"{root}.4", number
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [-300, -300, 2 * number], [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing, dataset.SliceThickness = [600 / side, 600 / side], 2
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = side, side
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.RescaleIntercept, dataset.RescaleSlope = 0, 1
    dataset.PixelData = rng.integers(0, 2**16, (side, side), dtype=np.uint16).astype("<u2").tobytes()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = folder / f"{number:04}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path
