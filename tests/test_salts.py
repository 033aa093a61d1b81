"""Salts: none is used twice, by any thread, nor by a process and what it forked."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from evstore.sqlite.salts import SALT_BYTES, salt


def test_threads_draw_no_salt_twice():
    """Threads that draw at the same time get salts of their own, of full length."""
    with ThreadPoolExecutor(8) as threads:
        drawn = list(threads.map(lambda _: [salt() for _ in range(2000)], range(8)))
    salts = [each for some in drawn for each in some]
    assert len(salts) == len({*salts})
    assert {SALT_BYTES} == {*map(len, salts)}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_draws_salts_of_its_own():
    """What the parent has in store is not what its child goes on with."""
    salt()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, b"".join(salt() for _ in range(100)))
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        drawn = pipe.read()
    theirs = {drawn[at : at + SALT_BYTES] for at in range(0, len(drawn), SALT_BYTES)}
    assert 100 == len(theirs)
    assert theirs.isdisjoint(salt() for _ in range(400))
