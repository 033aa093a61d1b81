"""Quiet: since when nobody has committed to a file, as far as its readers know."""

import time
from typing import Any
from weakref import WeakKeyDictionary

from evstore.sqlite.schema import Cursor


class Quiet:
    """What each reading connection saw last: SQLite tells it whether anyone has committed since.

    The times are those of `time.monotonic_ns`. What was read at or after the time that `since`
    returns is what would be read now, however often others committed before.
    """

    def __init__(self) -> None:
        self._seen: WeakKeyDictionary[Any, tuple[tuple[int, int], int]] = WeakKeyDictionary()

    def since(self, cursor: Cursor) -> int:
        """Return since when this connection has seen no commit."""
        connection = cursor.connection
        # The first counts the commits of others, the second those of its own: a store in memory
        # has one connection alone.
        version = (cursor.execute("pragma data_version").get, connection.total_changes())
        known = self._seen.get(connection)
        if known is None or known[0] != version:
            # The clock is read after the file, so that what was read between is not taken for new.
            self._seen[connection] = known = (version, time.monotonic_ns())
        return known[1]
