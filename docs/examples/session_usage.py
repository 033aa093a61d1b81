"""Conversations with an agent: one for the moment, one that lasts, and many that are looked after.

The agent answers by a few fixed rules, without a network: give `model=` for a language model.

Prints:
ephemeral: Hello! What can I do for you?
ephemeral: 2 + 3 = 5
after the restart: Your name is Alice
ada: I will remember that your name is Ada.
bob: You have not told me your name.
sessions: ['ada', 'bob', 'user-123']
cleared: ['bob', 'user-123']
in a store: Your name is Alice, after 5 messages
on the way: ['user', 'assistant', 'user', 'assistant']
"""

from evstore.agent import (
    AgentSession,
    FileSystemStorage,
    SqliteStorage,
    create_session,
    migrate_sessions,
)


def calculate(expression: str) -> int:
    """Return the value of a sum like 2 + 3."""
    return sum(int(number) for number in expression.split("+"))


def ephemeral() -> None:
    """Pattern 1: without a storage, a conversation lasts as long as its session."""
    session = create_session("temp", tools=[calculate])
    for text in ("Hello", "What is 2 + 3?"):
        print("ephemeral:", session.send_message(text).result)


def persistent(storage: FileSystemStorage) -> None:
    """Pattern 2: what was said is known after a restart."""
    session = create_session("user-123", storage)
    session.send_message("Remember: my name is Alice")
    del session

    session = create_session("user-123", storage)
    print("after the restart:", session.send_message("What is my name?").result)


def handle_user_request(storage: FileSystemStorage, user_id: str, message: str) -> str:
    """Pattern 3: each user has a session."""
    return create_session(user_id, storage).send_message(message).result


def managed(storage: FileSystemStorage) -> None:
    """Pattern 3: many sessions, one of which is cleared."""
    print("ada:", handle_user_request(storage, "ada", "My name is Ada"))
    print("bob:", handle_user_request(storage, "bob", "What is my name?"))
    print("sessions:", storage.list_sessions())
    create_session("ada", storage).clear_history()
    print("cleared:", storage.list_sessions())


def in_a_store(files: FileSystemStorage) -> None:
    """The same conversations in a store, where every step is an event."""
    with SqliteStorage("agents.db") as storage:
        migrate_sessions(files, storage)
        session: AgentSession = create_session("user-123", storage)
        count = session.message_count
        result = session.send_message("What is my name?", key="turn-3")
        print(f"in a store: {result.result}, after {count} messages")
        before = storage.session("user-123").at(5)
        print("on the way:", [message["role"] for message in before.messages[1:]])


ephemeral()
files = FileSystemStorage("sessions")
persistent(files)
managed(files)
in_a_store(files)
