"""Conversations as files: `{session_id}.json` holds a JSON array of messages, whole at any time."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from tempfile import mkstemp
from typing import Any

import orjson

from evstore.agent.storage import LIMITS, History, json_text
from evstore.errors import NotAConversation, Unavailable
from evstore.transfer.file_names import HASHED, ID_SUFFIX, SUFFIX, id_of, stem_of

TEMPORARY_PREFIX = ".evstore-"
ABANDONED_S = 3600.0  # no save takes that long


class FileSystemStorage:
    """Conversations in a folder, one file each, which its owner alone may read and write.

    A plain session id is the name of its file; of others what is not safe in a file name is
    percent-encoded. Arrays that others put there load as they are. What a call has returned
    survives a power cut, and a reader sees a file whole, before or after a save. The folder is made
    if need be. Raises Unavailable where the disk says no.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = os.path.abspath(folder)
        with _told(self._folder):
            _make(self._folder)
            self._tidy()

    def save(self, session_id: str, history: History) -> None:
        """Make this list the conversation of a session; raises NotStorable and TooLarge.

        It takes the place of the file that is there, whatever that holds.
        """
        stem = self._stem(session_id)
        text = b"[%b]" % b",".join(json_text(message) for message in history)
        shown = orjson.dumps(orjson.loads(text), option=orjson.OPT_INDENT_2) + b"\n"
        with self._changing(stem):
            if HASHED in stem:
                self._write(stem + ID_SUFFIX, session_id.encode())
            names = self._names(session_id)
            self._write(names[0] if names else stem + SUFFIX, shown)

    def load(self, session_id: str) -> list[dict[str, Any]]:
        """Return the conversation as fresh objects; the empty list where there is none.

        Raises NotAConversation for a file that is no JSON array of messages, and leaves it alone.
        """
        self._stem(session_id)
        with _told(self._folder):
            for name in self._names(session_id):
                with suppress(FileNotFoundError):  # Deleted meanwhile.
                    return _messages(self._path(name))
        return []

    def delete(self, session_id: str) -> None:
        """Forget a session; one that is not there is no error."""
        stem = self._stem(session_id)
        with self._changing(stem):
            names = self._names(session_id)
            if HASHED in stem:
                names.append(stem + ID_SUFFIX)  # last, so that the id is known while it is kept
            for name in names:
                with suppress(FileNotFoundError):
                    os.unlink(self._path(name))

    def list_sessions(self) -> list[str]:
        """Return the ids of all sessions, sorted; files of other kinds are passed over."""
        with _told(self._folder), os.scandir(self._folder) as entries:
            stems = [
                entry.name.removesuffix(SUFFIX)
                for entry in entries
                if entry.name.endswith(SUFFIX) and entry.name[0] != "." and entry.is_file()
            ]
            ids = {self._id(stem) for stem in stems}
        return sorted(session_id for session_id in ids if session_id is not None)

    def exists(self, session_id: str) -> bool:
        """Tell whether a session is kept, be its list empty or not."""
        self._stem(session_id)
        with _told(self._folder):
            return bool(self._names(session_id))

    # Names.

    @staticmethod
    def _stem(session_id: str) -> str:
        return stem_of(LIMITS.check_session_id(session_id))

    def _names(self, session_id: str) -> list[str]:
        """Return the names under which a session is kept: our own, then one that others gave."""
        own, given = stem_of(session_id) + SUFFIX, session_id + SUFFIX
        names = [own] if os.path.isfile(self._path(own)) else []
        if given == own or given[0] == "." or os.path.basename(given) != given:
            return names
        if os.path.isfile(self._path(given)) and self._id(session_id) == session_id:
            # Where case does not count, only the listing tells a name from another's.
            names += [name for name in os.listdir(self._folder) if name == given]
        return names

    def _id(self, stem: str) -> str | None:
        if HASHED in stem:
            with suppress(FileNotFoundError), open(self._path(stem + ID_SUFFIX), "rb") as file:
                return id_of(stem, file.read().decode(errors="replace"))
        return id_of(stem)

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, name)

    # Changes.

    @contextmanager
    def _changing(self, stem: str) -> Iterator[None]:
        """Let what the block does to the folder be on the disk at its end.

        An id that is too long for a file name has two files, so those who change them take turns.
        """
        with _told(self._folder):
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                if HASHED in stem:
                    fcntl.flock(folder, fcntl.LOCK_EX)
                yield
                os.fsync(folder)
            finally:
                os.close(folder)

    def _write(self, name: str, data: bytes) -> None:
        """Put a file in its place, whole and on the disk, readable by its owner alone."""
        handle, temporary = mkstemp(".tmp", TEMPORARY_PREFIX, self._folder)
        try:
            with open(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(handle)
            os.replace(temporary, self._path(name))
        except BaseException:
            os.unlink(temporary)
            raise

    def _tidy(self) -> None:
        """Remove what killed processes have left half written."""
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.startswith(TEMPORARY_PREFIX):
                    with suppress(FileNotFoundError):  # Its writer was only slow.
                        if entry.stat().st_mtime < time.time() - ABANDONED_S:
                            os.unlink(entry.path)


@contextmanager
def _told(folder: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        remedy = "see that it is a folder with room that this user may read and write"
        raise Unavailable(folder, f"{reason}; {remedy}") from error


def _make(folder: str) -> None:
    """Make a folder that its owner alone may enter, and those above it, for good."""
    if os.path.isdir(folder):
        return
    above = os.path.dirname(folder)
    _make(above)
    with suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    handle = os.open(above, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _messages(path: str) -> list[dict[str, Any]]:
    with open(path, "rb") as file:
        text = file.read()
    try:
        history = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise NotAConversation(path, f"it is no JSON ({error})") from None
    if type(history) is not list:
        raise NotAConversation(path, "it is JSON, but no array")
    for index, message in enumerate(history):
        if type(message) is not dict or type(message.get("role")) is not str:
            raise NotAConversation(path, f"element {index} is no object with a 'role'")
    return history
