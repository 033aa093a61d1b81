"""File names for session ids: one for each, on every file system, and the way back."""

import re
from hashlib import sha256
from urllib.parse import unquote

from evstore.errors import BadName
from evstore.limits import Limits

SUFFIX = ".json"
ID_SUFFIX = ".id"
NAME_BYTES_MAX = 255  # on every file system in use
STEM_BYTES_MAX = NAME_BYTES_MAX - len(SUFFIX)
HASHED = "%-"  # no percent-encoding looks like this

# Capitals would meet their small letters where case does not count, and other scripts their other
# forms; a dot in front hides a file, and a tilde may be a short name of another.
_UNSAFE = re.compile(rb"[^a-z0-9@_.-]|^\.")
# What Windows takes for a device, whatever follows the first dot.
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(?=\.|$)")
_HEAD_CHARACTERS = 60
_LIMITS = Limits()


def stem_of(session_id: str) -> str:
    """Return the name of the file of a session, without its suffix.

    A plain id is its own name; of others what is not plainly safe is percent-encoded. Where that
    is too long for a file name, its beginning is followed by the id's SHA-256.
    """
    stem = _UNSAFE.sub(lambda found: b"%%%02X" % found[0][0], session_id.encode()).decode()
    if _DEVICE.match(stem):
        stem = f"%{ord(stem[0]):02X}{stem[1:]}"
    if len(stem) <= STEM_BYTES_MAX:
        return stem
    head = re.sub(r"%.?$", "", stem[:_HEAD_CHARACTERS])
    return f"{head}{HASHED}{sha256(session_id.encode()).hexdigest()}"


def id_of(stem: str, told: str = "") -> str | None:
    """Return the id whose file has a name, or None where no id has; `told` is what is said of it.

    A name that nobody encoded is an id as it stands.
    """
    session_id = told if HASHED in stem else unquote(stem)
    if _is_id(session_id) and stem_of(session_id) == stem:
        return session_id
    return stem if _is_id(stem) else None


def _is_id(name: str) -> bool:
    try:
        _LIMITS.check_session_id(name)
    except BadName:
        return False
    return True
