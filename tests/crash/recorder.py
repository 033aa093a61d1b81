"""The recorder: a VFS below evstore's own that writes down every operation of the real engine.

evstore stacks its page checksums on the default VFS of the process, so the recorder has to be the
default before the first store is opened: recordings run in processes of their own.
"""

import os
from typing import Any

import apsw

from evstore.sqlite import connect, database
from evstore.sqlite.files import create_private, sync_folder
from tests.crash.disk import UNKNOWING, Mark, Operation

_COMPANIONS = apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL | apsw.SQLITE_OPEN_WAL


BASE = apsw.vfs_names()[0]  # what really writes


class Recorder(apsw.VFS):
    """The VFS; `operations` is what has happened so far in the recorded folder."""

    def __init__(self, *, folders_are_synced: bool = True) -> None:
        self.operations: list[Operation] = []
        self.files: dict[str, int] = {}
        self.mark = UNKNOWING
        self._folders_are_synced = folders_are_synced
        self._made = 0
        super().__init__("recorder", BASE, makedefault=True)

    def install(self) -> None:
        """Record what evstore does to a file without SQLite, too."""

        def create(path: str) -> None:
            create_private(path)
            self.found(path)

        def sync(path: str) -> None:
            sync_folder(path)
            self.record_folder_sync()

        database.create_private = create  # type: ignore[attr-defined]
        connect.sync_folder = sync  # type: ignore[attr-defined]

    def record(self, kind: str, path: str = "", offset: int = 0, data: bytes = b"") -> None:
        """Write an operation down."""
        name = os.path.basename(path)
        self.operations.append(Operation(kind, self.files.get(path, 0), name, offset, data))

    def record_folder_sync(self) -> None:
        """Write down that names are safe, unless this disk only says so."""
        if self._folders_are_synced:
            self.record("sync_folder")

    def found(self, path: str) -> None:
        """Note that a file is there; a new one was just created."""
        if path not in self.files and not path.endswith("-shm"):
            self._made += 1
            self.files[path] = self._made
            self.record("create", path)

    def acknowledge(self, mark: Mark) -> None:
        """Note what the program knows from here on."""
        self.mark = mark
        self.operations.append(Operation("mark", mark=mark))

    def xOpen(self, name: Any, flags: list[int]) -> "RecordedFile":  # noqa: N802 - SQLite named it
        """Open a file and record what becomes of it."""
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        file = RecordedFile(self, name, path, flags)
        if path is not None:
            self.found(path)
        return file

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802 - SQLite named it
        """Delete a file, and sync its folder where that is asked for."""
        super().xDelete(filename, syncdir)
        if filename in self.files:
            self.record("unlink", filename)
            del self.files[filename]
            if syncdir:
                self.record_folder_sync()


class RecordedFile(apsw.VFSFile):
    """A file whose writes, truncations and syncs are recorded."""

    def __init__(self, recorder: Recorder, name: Any, path: str | None, flags: list[int]) -> None:
        self._recorder = recorder
        self._path = path
        # SQLite syncs the folder at the first sync of a journal or log that it may create.
        self._syncs_folder = bool(flags[0] & _COMPANIONS and flags[0] & apsw.SQLITE_OPEN_CREATE)
        super().__init__(BASE, name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - SQLite named it
        super().xWrite(data, offset)
        self._record("write", offset, bytes(data))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802 - SQLite named it
        super().xTruncate(newsize)
        self._record("truncate", newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite named it
        super().xSync(flags)
        self._record("sync")
        if self._syncs_folder:
            self._syncs_folder = False
            self._recorder.record_folder_sync()

    def _record(self, kind: str, offset: int = 0, data: bytes = b"") -> None:
        if self._path is not None:
            self._recorder.record(kind, self._path, offset, data)
