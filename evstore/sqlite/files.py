"""The ground a store stands on: which folders and file systems can carry one."""

import os
import re
import stat
import sys

from evstore.errors import Refused, Unavailable, Unsupported

# Write-ahead logging needs shared memory between processes; these do not give it, and their locks
# are not to be trusted either.
_NETWORK = (
    "nfs",
    "cifs",
    "smb",
    "9p",
    "afs",
    "ceph",
    "gluster",
    "lustre",
    "beegfs",
    "ncpfs",
    "coda",
    "davfs",
    "fuse",
)
_LOCAL = ("fuseblk", "fusectl")
_MOUNTS = "/proc/self/mountinfo"


def place(path: str) -> str:
    """Return the real path; raises Unavailable and Unsupported where no store can be there."""
    try:
        if "\0" in path:
            raise ValueError
        path = os.path.realpath(path)
        path.encode()
    except ValueError:  # SQLite takes UTF-8, up to a NUL.
        reason = "its name is no UTF-8, or holds a NUL: give it another name"
        raise Unavailable(repr(path), reason) from None
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise Unavailable(path, f"the folder {folder} does not exist: create it first")
    if os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode):
        raise Unavailable(path, "it is not a regular file: give the path of a file")
    kind = file_system(folder, _mounts())
    if kind.startswith(_NETWORK) and not kind.startswith(_LOCAL):
        raise Unsupported("sqlite", f"the network file system {kind}: use a local disk")
    return path


def create_private(path: str) -> None:
    """Create an empty file that only its owner can read; SQLite's companions take its mode."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        pass  # Another process was faster, and both will find the same file.
    except OSError as error:
        reason = f"it cannot be created ({error.strerror}): give another path"
        raise Unavailable(path, reason) from error


def sync_folder(path: str) -> None:
    """Make the name of a new file survive a power cut."""
    if os.name == "nt":  # where folders cannot be opened, and need not be
        return
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def check_free(path: str) -> None:
    """Raise Refused where something has this name already."""
    if os.path.lexists(path):
        raise Refused(f"{path} is there already and was left untouched: give a new name")


def put_in_place(temporary: str, path: str) -> None:
    """Give a finished file its name: after a power cut that is there with all of it, or not."""
    handle = os.open(temporary, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    os.replace(temporary, path)
    sync_folder(path)


def file_system(folder: str, mounts: str) -> str:
    """Return the type of the file system of a folder, from the text of a table of mounts.

    That is /proc/self/mountinfo on Linux, and what mount(8) prints on macOS.
    """
    found, longest = "", -1
    for line in mounts.splitlines():
        point, kind = _mount(line)
        inside = folder == point or folder.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= longest:
            found, longest = kind, len(point)
    return found


def _mount(line: str) -> tuple[str, str]:
    """Return the mount point and the file system type of one line."""
    before, is_linux, after = line.partition(" - ")
    if is_linux:
        point = before.split(" ")[4]
        return re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), point), after.split(" ")[0]
    _, _, described = line.partition(" on ")
    point, _, kind = described.rpartition(" (")
    return point, kind.split(",")[0].rstrip(")")


def _mounts() -> str:
    try:
        if sys.platform == "darwin":
            from subprocess import check_output

            return check_output(["/sbin/mount"], text=True)
        table = os.open(_MOUNTS, os.O_RDONLY)
        with os.fdopen(table, encoding="utf-8", errors="replace") as lines:
            return lines.read()
    except (OSError, ValueError):  # The locks of SQLite itself have to tell.
        return ""
