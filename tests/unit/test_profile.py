"""What each destination gets: which kinds are written once for all of them, and what is sent instead of what."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.destinations import OBJECT_KINDS, DimseDestination
from daemon import profile
from dicom_io.write.header import SERIES_OFFSETS
from dicom_io.write.kinds import KINDS

ANY = st.lists(st.sampled_from(OBJECT_KINDS), min_size=1, unique=True)


def to(**more: object) -> DimseDestination:
    return DimseDestination.model_validate({"host": "h", "port": 104, "ae_title": "A", **more})


def test_the_usual_objects_are_sent_where_nobody_says_anything():
    assert profile.sent(to()) == {"seg", "sr", "parametric_map", "pet"}
    assert profile.written([]) == ("seg", "sr", "parametric_map", "pet")


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        (["sr"], {"sr", "seg"}),
        (["sr", "labelmap"], {"sr_labelmap", "labelmap"}),
        (["sr", "labelmap", "seg"], {"sr", "labelmap", "seg"}),
        (["capture"], {"capture"}),
        (["rtstruct", "pet"], {"rtstruct", "pet"}),
    ],
)
def test_a_report_comes_with_what_it_refers_to(asked, got):
    assert profile.sent(to(objects=asked)) == got


def test_what_may_be_sent_instead_is_written_too():
    picky = to(objects=["seg"], fall_back={"seg": "rtstruct", "rtstruct": "capture"})
    assert profile.written([picky]) == ("seg", "rtstruct", "capture")
    assert profile.instead(picky, "seg") == "rtstruct"
    assert profile.instead(picky, "capture") is None
    assert profile.instead(to(fall_back={"sr": "capture"}), "sr_labelmap") == "capture"


def test_a_refusal_report_only_where_it_is_asked_for():
    assert "not_processed" in profile.sent(to(report_not_processed=True))
    assert "not_processed" not in profile.sent(to())


@given(st.lists(ANY, min_size=1, max_size=4))
def test_every_destination_finds_what_it_gets_among_what_is_written(several):
    destinations = [to(objects=kinds) for kinds in several]
    written = profile.written(destinations)
    for one in destinations:
        assert profile.sent(one) <= set(written)
    assert set(written) <= set(KINDS)
    assert len(set(written)) == len(written)


def test_every_kind_has_a_series_number_of_its_own():
    assert set(SERIES_OFFSETS) == set(KINDS)
    assert len(set(SERIES_OFFSETS.values())) == len(SERIES_OFFSETS) and max(SERIES_OFFSETS.values()) < 10
