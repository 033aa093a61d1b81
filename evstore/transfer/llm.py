"""The command line llm: its logs.db, in the layout with threads and in the one before.

The tables are in llm/migrations.py of simonw/llm; checked against llm 0.36 and 0.31.1. What was
logged before the first version with threads stays in the tables that it had, in the same file.
So both are read (see `evstore.transfer.llm_responses` and `evstore.transfer.llm_threads`): a
conversation, and a thread, is a session of its name. A thread that goes on with a conversation of
the older layout says all of it again: it is `CONVERSATION/thread`.
"""

from collections.abc import Iterator

from evstore.errors import Unavailable
from evstore.transfer import tables
from evstore.transfer.conversations import Conversation, Reported
from evstore.transfer.llm_responses import Responses
from evstore.transfer.llm_threads import Threads

THREADS = {
    "threads": ("id", "tip_message_hash", "forked_from"),
    "turns": ("id", "thread_id", "parent_message_hash", "tip_message_hash"),
    "messages": ("hash", "parent_hash", "role", "provider_metadata"),
    "parts": ("message_hash", "position", "type", "text", "payload"),
}


def read(path: str) -> Iterator[Conversation | Reported]:
    """Yield the conversations of the older layout, then the threads, each before its forks."""
    with tables.opened(path) as found:
        has_responses = found.has("responses", "id", "conversation_id", "prompt", "response")
        has_threads = all(found.has(table, *columns) for table, columns in THREADS.items())
        if not (has_responses or has_threads):
            reason = "it holds no logs of llm: name the file that `llm logs path` tells"
            raise Unavailable(path, reason)
        if has_responses:
            yield from Responses(found).read()
        if has_threads:
            yield from Threads(found).read()
