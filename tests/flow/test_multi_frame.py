"""A multi-frame PET through the whole node: the same lesions as from the single-frame series it was made of."""

from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom

from tests import make
from tests.flow.running import RunningNode
from tests.peers import Sender, StoreScp


def segmented_places(folder: Path, *files: Path) -> set[tuple[float, ...]]:
    """LPS mm of every voxel in the SEG that a node makes of these files, by the geometry of its frames."""
    with StoreScp(folder / "pacs") as pacs:
        with RunningNode(folder / "node", pacs.port) as node:
            assert Sender(node.port, propose_needed=True).send(files).unacknowledged == []
            node.wait_delivered(2)
        received = [pydicom.dcmread(path) for path in pacs.files()]
    (seg,) = (dataset for dataset in received if dataset.Modality == "SEG")
    (shared,) = seg.SharedFunctionalGroupsSequence
    rows_mm, columns_mm = (float(mm) for mm in shared.PixelMeasuresSequence[0].PixelSpacing)
    across, down = np.split(np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float), 2)
    places = set()
    frames = seg.pixel_array.reshape(seg.NumberOfFrames, seg.Rows, seg.Columns)
    for groups, pixels in zip(seg.PerFrameFunctionalGroupsSequence, frames, strict=True):
        origin = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
        for row, column in np.argwhere(pixels):
            place = origin + down * rows_mm * row + across * columns_mm * column
            places.add(tuple(np.round(place, 2).tolist()))
    return places


def test_a_converted_pet_gives_the_result_of_the_pet(tmp_path: Path):
    study = make.study(tmp_path / "study", seed=3, pet_shape=(40, 48, 48))
    converted = hd.legacy.LegacyConvertedEnhancedPETImage(
        [pydicom.dcmread(path) for path in study.pet],
        series_instance_uid="1.2.3",
        sop_instance_uid="1.2.3.4",
        series_number=7,
        instance_number=1,
    )
    multi_frame = make.save(converted, tmp_path / "converted.dcm")
    expected = segmented_places(tmp_path / "classic", *study.pet)
    assert len(expected) > 20
    assert segmented_places(tmp_path / "multi", multi_frame) == expected
