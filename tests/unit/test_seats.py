import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dicom_io.seats import Seats

HERE, THERE, ELSEWHERE = "10.0.0.1", "10.0.0.2", "2001:db8::1"


def taken(seats: Seats, address: str) -> int:
    seat = seats.take(address)
    assert seat is not None
    return seat


def test_an_address_has_its_own_limit_and_one_cannot_use_up_the_others() -> None:
    seats = Seats.create(associations=3, per_address=1)
    here = [taken(seats, HERE), taken(seats, HERE)]  # one association and one who only hears that it is too late
    assert seats.take(HERE) is None
    assert seats.admit(here[0])
    assert not seats.admit(here[1])
    assert seats.admit(taken(seats, THERE))
    assert seats.admit(taken(seats, ELSEWHERE))
    assert not seats.admit(taken(seats, "10.0.0.3"))  # three associations in all
    seats.leave(here[0])
    assert seats.admit(here[1])


def test_there_is_an_end_to_seats() -> None:
    seats = Seats.create(associations=2, per_address=2)
    assert all(seats.take(f"10.0.0.{last}") is not None for last in range(4))
    assert seats.take("10.0.0.9") is None
    seats.leave(2)
    assert seats.take("10.0.0.9") == 2


def test_processes_share_the_table_and_the_dead_leave_it() -> None:
    seats = Seats.create(associations=2, per_address=2)
    program = f"""
from dicom_io.seats import Seats
seats = Seats({seats.descriptor}, 2, 2)
assert seats.admit(seats.take("{HERE}")) and seats.admit(seats.take("{HERE}"))
"""
    child = subprocess.Popen(
        [sys.executable, "-c", program], pass_fds=[seats.descriptor], cwd=Path(__file__).parents[2]
    )
    assert child.wait() == 0
    own = taken(seats, THERE)
    assert not seats.admit(own)
    seats.vacate(child.pid)
    assert seats.admit(own)
    assert seats.take(HERE) is not None
    seats.vacate(os.getpid())
    assert [seats.take(HERE) for _ in range(4)] == [0, 1, 2, 3]


def test_two_threads_never_get_one_seat() -> None:
    seats = Seats.create(associations=50, per_address=50)
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda _: seats.take(HERE), range(100)))
    assert sorted(seat for seat in got if seat is not None) == list(range(100))


@pytest.mark.parametrize("address", ["", "localhost", "10.0.0.1:80"])
def test_only_addresses_are_counted(address: str) -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        Seats.create(1, 1).take(address)
