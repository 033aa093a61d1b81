"""An agent recalls what was said in old conversations, by words, and reads what was said around it.

The search finds messages of all living sessions, or of one session at a moment of its past.

Prints:
2025-berlin: Please no [hotel] with a [bar] downstairs, I slept badly.
  before: 'How was the hotel?'
  after: 'Noted: quiet hotels.'
of ada: ['2025-berlin', '2025-rome']
in Rome: nothing now, and at 2: ['Is there a [bar] on the roof?']
"""

import evstore


def message(role: str, content: str) -> dict[str, str]:
    """Return a message as model APIs speak it."""
    return {"role": role, "content": content}


with evstore.open("agents.db") as store:
    berlin = store.session("2025-berlin", metadata={"user": "ada"})
    berlin.messages.extend(
        [
            message("assistant", "How was the hotel?"),
            message("user", "Please no hotel with a bar downstairs, I slept badly."),
            message("assistant", "Noted: quiet hotels."),
        ]
    )
    rome = store.session("2025-rome", metadata={"user": "ada"})
    rome.messages.append(message("user", "Is there a bar on the roof?"))
    rome.messages.pop()  # taken back by its author
    store.session("2025-oslo", metadata={"user": "bob"}).messages.append(message("user", "Snow?"))

    for hit in store.search("hotel bar"):
        found = store.session(hit.session)
        before, _, after = found.messages[hit.index - 1 : hit.index + 2]
        print(f"{hit.session}: {hit.snippet}")
        print(f"  before: {before['content']!r}")
        print(f"  after: {after['content']!r}")

    print("of ada:", [info.id for info in store.sessions(where={"user": "ada"})])
    now = store.search("bar", session=rome)
    then = store.search("bar", session=rome, at=2)
    print("in Rome:", now or "nothing now, and at 2:", [hit.snippet for hit in then])
