"""A folder of `{session_id}.json`, each a JSON array of messages, becomes one session each.

It is what `evstore.agent.FileSystemStorage` writes, and the programs that have their conversations
in the same form. The file name is the session id, percent-decoded where that storage encoded it.
Messages have no times there: they get that of the file's last change. They are known by their
number in the array, so that a file that has grown adds its new messages.
"""

import os
from collections.abc import Iterator

from evstore.transfer import records
from evstore.transfer.conversations import Conversation, Item, Reported, message_or_kept
from evstore.transfer.file_names import HASHED, ID_SUFFIX, SUFFIX, id_of

ID_BYTES_MAX = 4096


def read(path: str) -> Iterator[Conversation | Reported]:
    """Yield the conversation of each file, in the order of their names."""
    yield from records.of_each(records.files(path, SUFFIX), _conversations)


def _conversations(path: str) -> Iterator[Conversation | Reported]:
    """Yield the one conversation of a file, or what is wrong with it."""
    name = os.path.basename(path)
    session_id = _session_id(path.removesuffix(SUFFIX))
    messages = records.whole(path)
    if session_id is None:
        yield Reported(name, "a file", "its name is no session id: give it another")
    elif isinstance(messages, Reported):
        yield messages
    elif type(messages) is not list:
        yield Reported(name, "a file", "it is no JSON array of messages: repair it")
    else:
        items = (
            Item(str(number), None, (message_or_kept(message),))
            for number, message in enumerate(messages, 1)
        )
        yield Conversation(session_id, session_id, records.changed_us(path), items)


def _session_id(stem: str) -> str | None:
    """Return the id that a file is of; one that is too long for a name is in a file beside it."""
    told = b""
    if HASHED in stem and os.path.isfile(stem + ID_SUFFIX):
        with records.opened(stem + ID_SUFFIX) as file:
            told = file.read(ID_BYTES_MAX)
    return id_of(os.path.basename(stem), told.decode(errors="replace"))
