"""Page checksums: every page carries eight bytes that tell whether the disk gave back what it got.

SQLite's own integrity check sees few flipped bits in content; its checksum VFS sees them at the
first read of the page. It is part of the apsw wheels. Loading it makes it the default of the
process, which is put back, because other users of SQLite in this process did not ask for it.
"""

import os
import threading
from contextlib import suppress

import apsw

CHECKSUM_BYTES = 8
_NAME = "cksmvfs"
_EXTENSION = os.path.join(os.path.dirname(apsw.__file__), "sqlite_extra_binaries", "cksumvfs")
_loading = threading.Lock()


def checksum_vfs() -> str | None:
    """Return the name of the checksum VFS on top of the process's default, or None without it."""
    if _NAME not in apsw.vfs_names():
        with _loading:
            default = apsw.vfs_names()[0]
            connection = apsw.Connection(":memory:")
            _load(connection)
            connection.close()
            apsw.set_default_vfs(default)
    return _NAME if _NAME in apsw.vfs_names() else None


def _load(connection: apsw.Connection) -> None:
    """Load the extension, if the wheel has it."""
    connection.enable_load_extension(enable=True)
    try:
        connection.load_extension(_EXTENSION)
    except apsw.ExtensionLoadingError:
        # The wheel knows where it is now, but brings many modules to tell: 10 ms.
        from apsw import sqlite_extra

        with suppress(sqlite_extra.NotAvailable, LookupError):
            sqlite_extra.load(connection, "cksumvfs")
