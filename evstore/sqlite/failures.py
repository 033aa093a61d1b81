"""The one place where SQLite's errors become ours."""

import errno
from collections.abc import Callable
from typing import TypeGuard

import apsw

from evstore.errors import (
    Busy,
    Closed,
    Corrupt,
    EvstoreError,
    NotAStore,
    ReadOnly,
    TooLarge,
    Unavailable,
)

_BAD_PAGE = "a page does not match its checksum"
Foreign = apsw.Error | UnicodeDecodeError


def is_foreign(error: BaseException | None) -> TypeGuard[Foreign]:
    """Tell whether an error is one of SQLite's, or was raised for a text of the file.

    An application whose code runs in between may raise the same for a text of its own.
    """
    if not isinstance(error, UnicodeDecodeError):
        return isinstance(error, apsw.Error)
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return place is not None and place.tb_frame.f_globals["__name__"].startswith(__package__)


def translate(error: Foreign, path: str, wait_s: float) -> EvstoreError:
    """Return the error of ours that says what the caller can do about one of SQLite's."""
    if isinstance(error, UnicodeDecodeError):
        return Corrupt(path, f"a text is not UTF-8 ({error.reason} at {error.start})")
    for cls, make in _TRANSLATIONS.items():
        if isinstance(error, cls):
            return make(error, path, wait_s)
    return Corrupt(path, f"SQLite refused a statement ({error})")


def is_fatal(error: BaseException) -> bool:
    """Tell whether after this error nobody knows what the disk holds."""
    if not isinstance(error, apsw.IOError):
        return False
    return _extended(error) != apsw.SQLITE_IOERR_DATA and not _is_disk_full(error)


def _extended(error: apsw.Error) -> int:
    code: int = getattr(error, "extendedresult", 0)
    return code


def _is_disk_full(error: apsw.Error) -> bool:
    return "No space left" in str(error) or getattr(error, "errno", None) == errno.ENOSPC


def _io_error(error: apsw.Error, path: str, _wait_s: float) -> EvstoreError:
    if _extended(error) in (apsw.SQLITE_IOERR_DATA, apsw.SQLITE_IOERR_CORRUPTFS):
        return Corrupt(path, _BAD_PAGE)
    return Unavailable(path, f"the disk failed ({error}): check it, then open the store again")


def _unavailable(reason: str) -> Callable[[apsw.Error, str, float], EvstoreError]:
    return lambda error, path, _wait_s: Unavailable(path, f"{reason} ({error})")


def _busy(_error: apsw.Error, _path: str, wait_s: float) -> EvstoreError:
    return Busy(round(1000 * wait_s))


def _corrupt(error: apsw.Error, path: str, _wait_s: float) -> EvstoreError:
    return Corrupt(path, f"SQLite found it malformed ({error})")


_TRANSLATIONS: dict[type[apsw.Error], Callable[[apsw.Error, str, float], EvstoreError]] = {
    apsw.BusyError: _busy,
    apsw.LockedError: _busy,
    apsw.ProtocolError: _busy,
    apsw.FullError: _unavailable("the disk is full and nothing was written: free some space"),
    apsw.IOError: _io_error,
    apsw.NoMemError: _unavailable("memory ran out and nothing was written: free some"),
    apsw.CantOpenError: _unavailable("it cannot be opened: check that it can be read and written"),
    apsw.PermissionsError: _unavailable("its permissions do not allow this: change them"),
    apsw.AuthError: _unavailable("its permissions do not allow this: change them"),
    apsw.NoLFSError: _unavailable("the file system cannot hold files of this size: use another"),
    apsw.InterruptError: _unavailable("the operation was interrupted: try again"),
    apsw.AbortError: _unavailable("the operation was interrupted: try again"),
    apsw.ReadOnlyError: lambda _error, path, _wait_s: ReadOnly(path),
    apsw.NotADBError: lambda _error, path, _wait_s: NotAStore(path),
    apsw.CorruptError: _corrupt,
    apsw.FormatError: _corrupt,
    apsw.TooBigError: lambda _error, _path, _wait_s: TooLarge("a text", 1 << 30, 1 << 30),
    apsw.ConnectionClosedError: lambda _error, _path, _wait_s: Closed(),
    apsw.CursorClosedError: lambda _error, _path, _wait_s: Closed(),
    # Another thread uses the connection, and only closing it does so.
    apsw.ThreadingViolationError: lambda _error, _path, _wait_s: Closed(),
}
