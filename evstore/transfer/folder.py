"""A folder of `{session_id}.json`, each a JSON array of messages, as FileSystemStorage keeps it.

File names are those of `file_names`. A message that JSON can hold stands there as it was given;
what JSON lacks stands there as a tagged object. The files are for their owner alone.
"""

import os
from collections.abc import Iterable

import orjson

from evstore.transfer.chosen import Chosen, Report, Said, forgotten, json_text, messages
from evstore.transfer.conversations import Reported
from evstore.transfer.file_names import HASHED, ID_SUFFIX, SUFFIX, stem_of


def write(path: str, chosen: Iterable[Chosen], report: Report) -> None:
    """Write a file for each session into an empty folder."""
    for session in chosen:
        session_id = session.view.id
        if session_id is None:
            reason = "its id was forgotten, so that no file can be named after it"
            report(Reported(session.name, "a session", reason))
            continue
        stem = stem_of(session_id)
        if HASHED in stem:
            _write(os.path.join(path, stem + ID_SUFFIX), [session_id.encode()])
        _write(os.path.join(path, stem + SUFFIX), _array(session, report))


def _array(chosen: Chosen, report: Report) -> Iterable[bytes]:
    before = b"[\n  "
    for said in messages(chosen.view):
        if said.text is None:
            report(forgotten(chosen, said))
            continue
        yield before + _indented(said)
        before = b",\n  "
    yield b"[]\n" if before[:1] == b"[" else b"\n]\n"


def _indented(said: Said) -> bytes:
    message = said.message()
    try:
        text = orjson.dumps(message, option=orjson.OPT_INDENT_2)
    except TypeError:  # Tags may nest deeper than orjson's limit.
        return json_text(message)
    return text.replace(b"\n", b"\n  ")


def _write(path: str, pieces: Iterable[bytes]) -> None:
    with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.writelines(pieces)
        file.flush()
        os.fsync(file.fileno())
