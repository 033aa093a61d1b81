"""Make sessions with the OpenAI Agents SDK in a folder, and print what it reads back of each."""

import asyncio
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from agents import SQLiteSession
from agents.extensions.memory import (
    AdvancedSQLiteSession,
    AsyncSQLiteSession,
    EncryptedSession,
    SQLAlchemySession,
)
from agents.usage import Usage
from sqlalchemy.ext.asyncio import create_async_engine

PLAIN_SESSIONS = 16
CLEARED = 7  # the number of one that is cleared


def turn(number: int) -> list[Any]:
    """Return the items of a turn: what is asked, reasoned, called and answered."""
    call, custom = f"call-{number}", f"custom-{number}"
    text = {"type": "output_text", "text": f"It is {number} °C.", "annotations": []}
    image = {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "auto"}
    items: list[dict[str, Any]] = [
        {"role": "user", "content": f"How warm is it on day {number}?"},
        {"type": "reasoning", "id": f"rs-{number}", "summary": [], "encrypted_content": "Z0FB"},
        {
            "type": "function_call",
            "id": f"fc-{number}",
            "call_id": call,
            "name": "weather",
            "arguments": f'{{"day": {number}}}',
            "status": "completed",
        },
        {"type": "function_call_output", "call_id": call, "output": f"{number}"},
        {"type": "custom_tool_call", "call_id": custom, "name": "sql", "input": "select 1"},
        {"type": "custom_tool_call_output", "call_id": custom, "output": [image]},
        {"type": "web_search_call", "id": f"ws-{number}", "status": "completed"},
        {
            "type": "message",
            "id": f"msg-{number}",
            "role": "assistant",
            "status": "completed",
            "content": [text],
        },
    ]
    return items[: 1 + number % 8] + items[7:]


async def fill(file: Path) -> dict[str, Any]:
    """Make sessions of each class that writes the same tables; return what they read."""
    found: dict[str, Any] = {}
    for number in range(PLAIN_SESSIONS):
        session = SQLiteSession(f"plain {number}/é", file)
        for at in range(number, number + 3):
            await session.add_items(turn(at))
        if number % 5 == 1:
            await session.pop_item()
            await session.add_items(turn(2))
        if number == CLEARED:
            await session.clear_session()
            await session.add_items([{"role": "user", "content": "again"}])
        found[session.session_id] = await session.get_items()
        session.close()
    later = AsyncSQLiteSession("async", str(file))
    await later.add_items(turn(7))
    found["async"] = await later.get_items()
    await later.close()
    return found


async def fill_with_sqlalchemy(file: Path) -> dict[str, Any]:
    """Make sessions in tables with names of their own."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{file}")
    names = {"sessions_table": "talks", "messages_table": "talk items"}
    found: dict[str, Any] = {}
    for number in range(3):
        session = SQLAlchemySession(f"alchemy {number}", engine=engine, create_tables=True, **names)
        await session.add_items(turn(number))
        found[session.session_id] = await session.get_items()
    await engine.dispose()
    return found


async def fill_with_branches(file: Path) -> dict[str, Any]:
    """Make sessions that have branches; return what each branch reads, and the usage of turns."""
    found: dict[str, Any] = {}
    for number in range(4):
        session = AdvancedSQLiteSession(
            session_id=f"branching {number}", db_path=file, create_tables=True
        )
        for at in range(3):
            await session.add_items(turn(at + number))
            await use(session, at)
        await session.create_branch_from_turn(2, "early")
        await session.add_items(turn(20))
        await use(session, 20)
        await session.add_items(turn(21))
        await session.create_branch_from_turn(3, "of a branch")
        await session.add_items(turn(30))
        await session.switch_to_branch("main")
        if number == 1:
            await session.pop_item()
        await session.add_items(turn(40))
        await session.create_branch_from_turn(1, "anew")
        await session.add_items(turn(50))
        found[session.session_id] = {
            "branches": {
                branch["branch_id"]: await session.get_items(branch_id=branch["branch_id"])
                for branch in await session.list_branches()
            },
            "usage": {
                branch["branch_id"]: await session.get_turn_usage(branch_id=branch["branch_id"])
                for branch in await session.list_branches()
            },
        }
        session.close()
    return found


async def use(session: AdvancedSQLiteSession, number: int) -> None:
    """Record what the newest turn used, as a run does."""
    usage = Usage(requests=1, input_tokens=number, output_tokens=2, total_tokens=2 + number)
    result: Any = SimpleNamespace(context_wrapper=SimpleNamespace(usage=usage))
    await session.store_run_usage(result)


async def fill_encrypted(file: Path) -> None:
    """Make a session that nobody reads without its key, and one beside it."""
    inner = SQLiteSession("secret", file)
    session = EncryptedSession("secret", inner, encryption_key="k" * 40)
    await session.add_items(turn(7))
    open_session = SQLiteSession("open", file)
    await open_session.add_items(turn(0))
    inner.close()
    open_session.close()


async def main(folder: Path) -> None:
    """Make everything, and print it."""
    said = {
        "plain": await fill(folder / "plain.db"),
        "alchemy": await fill_with_sqlalchemy(folder / "alchemy.db"),
        "branches": await fill_with_branches(folder / "branches.db"),
    }
    await fill_encrypted(folder / "encrypted.db")
    print(json.dumps(said))


asyncio.run(main(Path(sys.argv[1])))
