"""A migration that is killed and resumed loses nothing and doubles nothing.

The long run is `python -m tests.crash.migration --kills 50`.
"""

import pytest

from tests.crash.migration import kill_and_resume

pytestmark = pytest.mark.skipif("sys.platform == 'win32'", reason="needs SIGKILL")


@pytest.mark.parametrize("transform", ["", "spread"])
def test_a_killed_migration_is_resumed(tmp_path, transform):
    """Killed at random moments and resumed, it is what an undisturbed one has made."""
    assert kill_and_resume(tmp_path, 5, 2000, transform, 1) >= 1
