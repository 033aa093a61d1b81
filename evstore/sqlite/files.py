"""The ground a store stands on: which folders and file systems can carry one."""

import os
import re
import stat
from pathlib import Path

from evstore.errors import Unavailable, Unsupported

# Write-ahead logging needs shared memory between processes; these do not give it, and their locks
# are not to be trusted either.
_NETWORK = re.compile(
    r"(nfs|cifs|smb|9p|afs|ceph|gluster|lustre|beegfs|ncpfs|coda|davfs|fuse(?!blk|ctl))"
)


def check_place(path: str) -> None:
    """Raise Unavailable or Unsupported where no store can be at this path."""
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise Unavailable(path, f"the folder {folder} does not exist: create it first")
    if os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode):
        raise Unavailable(path, "it is not a regular file: give the path of a file")
    kind = file_system(folder, _mounts())
    if _NETWORK.match(kind):
        raise Unsupported("sqlite", f"the network file system {kind}: use a local disk")


def create_private(path: str) -> None:
    """Create an empty file that only its owner can read; SQLite's companions take its mode."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        pass  # Another process was faster, and both will find the same file.
    except OSError as error:
        raise Unavailable(path, f"it cannot be created ({error.strerror})") from error


def sync_folder(path: str) -> None:
    """Make the name of a new file survive a power cut."""
    if os.name == "nt":  # where folders cannot be opened, and need not be
        return
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def file_system(folder: str, mounts: str) -> str:
    """Return the type of the file system of a folder, from the text of /proc/self/mountinfo."""
    found, longest = "", -1
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        point = re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), before.split(" ")[4])
        inside = folder == point or folder.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= longest:
            found, longest = after.split(" ")[0], len(point)
    return found


def _mounts() -> str:
    try:
        return Path("/proc/self/mountinfo").read_text("utf-8", "replace")
    except OSError:  # Not Linux: the locks of SQLite itself have to tell.
        return ""
