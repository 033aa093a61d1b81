"""Page checksums: every page carries eight bytes that tell whether the disk gave back what it got.

SQLite's own integrity check sees few flipped bits in content; its checksum VFS sees them at the
first read of the page. It is part of the apsw wheels. Loading it makes it the default of the
process, which is put back, because other users of SQLite in this process did not ask for it.
"""

import threading
from contextlib import suppress

import apsw
import apsw.sqlite_extra

CHECKSUM_BYTES = 8
_NAME = "cksmvfs"
_loading = threading.Lock()


def checksum_vfs() -> str:
    """Return the name of the checksum VFS on top of the process's default, or "" without it."""
    if _NAME not in apsw.vfs_names():
        with _loading, suppress(apsw.sqlite_extra.NotAvailable):
            default = apsw.vfs_names()[0]
            connection = apsw.Connection(":memory:")
            apsw.sqlite_extra.load(connection, "cksumvfs")
            connection.close()
            apsw.set_default_vfs(default)
    return _NAME if _NAME in apsw.vfs_names() else ""
