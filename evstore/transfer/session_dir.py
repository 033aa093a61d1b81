"""A folder of `{session_id}.json`, each a JSON array of messages, becomes one session each.

It is what `evstore.agent.FileSystemStorage` writes, and the programs that have their conversations
in the same form. The file name is the session id, percent-decoded where that storage encoded it.
Messages have no times there: they get that of the file's last change. They are known by their
number in the array, so that a file that has grown adds its new messages.
"""

import os
from collections.abc import Iterator

from evstore.errors import Unavailable
from evstore.transfer import records
from evstore.transfer.conversations import Conversation, Item, Reported, message_or_kept
from evstore.transfer.file_names import HASHED, ID_SUFFIX, SUFFIX, id_of

ID_BYTES_MAX = 4096


def read(path: str) -> Iterator[Conversation | Reported]:
    """Yield the conversation of each file, in the order of their names."""
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        raise Unavailable(path, f"{error.strerror}: name a folder that can be read") from error
    for name in names:
        if name.endswith(SUFFIX) and not name.startswith("."):
            yield _conversation(os.path.join(path, name), name)


def _conversation(path: str, name: str) -> Conversation | Reported:
    session_id = _session_id(path.removesuffix(SUFFIX))
    if session_id is None:
        return Reported(name, "a file", "its name is no session id: give it another")
    messages = records.whole(path)
    if isinstance(messages, Reported):
        return messages
    if type(messages) is not list:
        return Reported(name, "a file", "it is no JSON array of messages: repair it")
    changed_us = records.changed_us(path)
    items = (
        Item(str(number), None, (message_or_kept(message),))
        for number, message in enumerate(messages, 1)
    )
    return Conversation(session_id, session_id, changed_us, items)


def _session_id(stem: str) -> str | None:
    """Return the id that a file is of; one that is too long for a name is in a file beside it."""
    told = b""
    if HASHED in stem and os.path.isfile(stem + ID_SUFFIX):
        with records.opened(stem + ID_SUFFIX) as file:
            told = file.read(ID_BYTES_MAX)
    return id_of(os.path.basename(stem), told.decode(errors="replace"))
