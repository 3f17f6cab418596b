"""The pool of real worker processes outlives whatever happens to one of them."""

import ctypes
import faulthandler
import os
import time
from pathlib import Path

import pytest

from daemon.pool import Pool
from tests.processes import wait_until

LOST_AFTER_S = 15
"""Dask takes a worker for lost that is absent this long after a death, whatever happened in between."""


def hold_the_lock_and_die(after_s: float) -> None:
    with open(os.devnull, "w") as nowhere:
        faulthandler.dump_traceback_later(after_s, exit=True, file=nowhere)
        ctypes.PyDLL(None).sleep(1000)


def test_a_worker_that_dies_again_and_again_comes_back_each_time(tmp_path: Path):
    pool = Pool(workers=1, memory_bytes=2**30, scratch=tmp_path)
    try:
        began, deaths = time.monotonic(), 0
        while time.monotonic() - began < LOST_AFTER_S + 5:
            pid = pool.pid(0)
            # the process ends itself before, while and after it is killed
            hanging = pool.submit(hold_the_lock_and_die, (0.05, 0.3, 5.0)[deaths % 3], worker=0, key=f"hang-{deaths}")
            time.sleep(0.3)
            pool.kill(0, pid)
            assert wait_until(hanging.exception, 20) is not None
            pool.kill(0, pid)
            wait_until(lambda: 0 in pool.present(), 20)
            assert pool.pid(0) != pid
            deaths += 1
            assert pool.submit(sum, (deaths, 1), worker=0, key=f"sum-{deaths}").result(timeout=20) == deaths + 1
        assert deaths > 5
    finally:
        pool.close()


@pytest.mark.parametrize("pid", [None, os.getpid()])
def test_only_the_process_that_was_meant_is_killed(tmp_path: Path, pid: int | None):
    pool = Pool(workers=1, memory_bytes=2**30, scratch=tmp_path)
    try:
        before = pool.pid(0)
        pool.kill(0, pid)
        assert pool.submit(os.getpid, worker=0, key="still there").result(timeout=20) == before
    finally:
        pool.close()
