"""The way out in other forms: each format, and how a file or folder of it comes into being.

What is written to a path is there once it is whole and on the disk, or not at all, and takes the
place of nothing.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from shutil import rmtree
from typing import TypeVar

from evstore.errors import Refused, Unavailable
from evstore.moments import When
from evstore.session import Session
from evstore.sqlite.files import check_free, put_in_place, sync_folder
from evstore.store import Store
from evstore.transfer import fine_tuning, folder, markdown, table_file
from evstore.transfer.chosen import Chosen, Report, chosen
from evstore.transfer.conversations import Reported
from evstore.transfer.jsonlines import export_lines

JSON_LINES, MARKDOWN = "jsonlines", "markdown"
# Each format with what to say about it. The first three are one stream and may go into a pipe.
EXPORTS: Mapping[str, str] = {
    JSON_LINES: "all that was recorded, for `import`",
    MARKDOWN: "transcripts for people",
    "openai-jsonl": 'JSON Lines for fine-tuning, {"messages": [...]}',
    "parquet": "a folder of Parquet files: sessions, messages, variables, events",
    "session-dir": "a folder of SESSION.json, each an array of messages",
    "tables": "a plain SQLite file with the same tables as parquet",
}
_STREAMS = {MARKDOWN: markdown.lines, "openai-jsonl": fine_tuning.lines}
_FOLDERS = ("parquet", "session-dir")

Progress = Callable[[int], None]
Piece = TypeVar("Piece")


def is_stream(format: str) -> bool:
    """Tell whether a format is one stream of bytes; raises Refused for an unknown one."""
    if format not in EXPORTS:
        raise Refused(f"format {format!r} is unknown: give one of {', '.join(EXPORTS)}")
    return format == JSON_LINES or format in _STREAMS


def export_stream(
    store: Store,
    format: str,
    session: Session | str | None = None,
    *,
    at: When | None = None,
    progress: Progress | None = None,
    report: Report | None = None,
) -> Iterator[bytes]:
    """Yield a store, or one session, in a format that is one stream, in pieces.

    `at` is a moment of the session; of all sessions, an aware datetime. `progress` is told how many
    lines or sessions are done, `report` what was left out and why. Sessions are read one after the
    other, each as it is then. Raises Refused, SessionNotFound and NoSuchMoment.
    """
    if not is_stream(format):
        raise Refused(f"{format} is not one stream: give a path that it can be written to")
    if format == JSON_LINES:
        return _counted(export_lines(store, session, at), progress)
    sessions = _counted(chosen(store, session, at), progress)
    return _STREAMS[format](sessions, report or _ignored)


def export_to(
    store: Store,
    format: str,
    path: str | os.PathLike[str],
    session: Session | str | None = None,
    *,
    at: When | None = None,
    progress: Progress | None = None,
    report: Report | None = None,
) -> None:
    """Write a store, or one session, in a format to a new file or folder, for its owner alone.

    It takes what `export_stream` takes, in every format. Raises Refused where the path is taken,
    Unavailable, MissingExtra, SessionNotFound and NoSuchMoment; then nothing is there.
    """
    in_stream = is_stream(format)
    write = None if in_stream else _writer(format)
    with _new(os.path.abspath(path), is_folder=format in _FOLDERS) as partial:
        if write is not None:
            sessions = _counted(chosen(store, session, at), progress)
            write(partial, sessions, report or _ignored)
            return
        pieces = export_stream(store, format, session, at=at, progress=progress, report=report)
        with open(partial, "wb") as file:
            file.writelines(pieces)


def _writer(format: str) -> Callable[[str, Iterable[Chosen], Report], None]:
    """Return what writes a format to a path; raises MissingExtra."""
    if format == "parquet":
        from evstore.transfer import parquet

        return parquet.write
    return folder.write if format == "session-dir" else table_file.write


@contextmanager
def _new(path: str, *, is_folder: bool) -> Iterator[str]:
    """Give the place where something is made that gets its name when the block has ended well."""
    partial = os.path.join(os.path.dirname(path), f".export-{os.urandom(8).hex()}.partial")
    check_free(path)
    try:
        if is_folder:
            os.mkdir(partial, 0o700)
        else:
            os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        try:
            yield partial
            check_free(path)
            if is_folder:
                os.rename(partial, path)
                sync_folder(path)
            else:
                put_in_place(partial, path)
        finally:
            _remove(partial)
    except OSError as error:
        raise Unavailable(path, f"{error.strerror}: check the folder and the disk") from error


def _remove(partial: str) -> None:
    """Remove what was made in vain; what has got its name is not there any more."""
    if os.path.isdir(partial):
        rmtree(partial)
    elif os.path.exists(partial):
        os.unlink(partial)


def _counted(pieces: Iterable[Piece], progress: Progress | None) -> Iterator[Piece]:
    for done, piece in enumerate(pieces, 1):
        yield piece
        if progress is not None:
            progress(done)


def _ignored(_reported: Reported) -> None:
    """Let what was left out go unsaid."""
