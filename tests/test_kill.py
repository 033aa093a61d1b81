"""Processes that are killed in mid-write lose nothing they were told was written.

The long run is `python -m tests.crash.kill --kills 500`.
"""

import pytest

from tests.crash.kill import kill_once

pytestmark = pytest.mark.skipif(
    "sys.platform == 'win32'", reason="needs SIGKILL and select on pipes"
)


@pytest.mark.parametrize("seed", range(0, 400, 10))
def test_a_killed_writer_loses_nothing(tmp_path, seed):
    """All that was acknowledged before SIGKILL is there, at most one batch more, each whole."""
    assert kill_once(tmp_path / "store.db", seed) > 0


def test_a_file_survives_one_kill_after_another(tmp_path):
    """A store that is written and killed again and again keeps all of its log."""
    batches = 0
    for number in range(4):
        batches = kill_once(tmp_path / "store.db", 1000 + number, before=batches)
    assert batches > 4


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_writers_leave_the_others_in_peace(tmp_path, seed):
    """Of four writers on one file each may be killed while the others go on."""
    assert kill_once(tmp_path / "store.db", 5000 + 10 * seed, writers=4) >= 4
