"""Have both of Google ADK's SQLite services record sessions, and print what they read back."""

import asyncio
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from google.adk.agents import BaseAgent
from google.adk.events import Event, EventActions
from google.adk.events._rewind_events import _apply_rewinds
from google.adk.runners import Runner
from google.adk.sessions import DatabaseSessionService
from google.adk.sessions.sqlite_session_service import SqliteSessionService
from google.genai import types

SESSIONS = 24
APPS = ("travel", "cook/book")
USERS = ("anna", "bo b")


def part(dice: random.Random) -> types.Part:
    """One part of a content, of any kind that agents commonly produce."""
    called = f"call-{dice.randrange(10**6)}"
    arguments = {"city": dice.choice("RÖ"), "days": dice.randrange(5), "deep": [{"x": None}]}
    makers: list[Callable[[], types.Part]] = [
        lambda: types.Part(text=f"text {dice.random()} ü😀"),
        lambda: types.Part(text=f"text {dice.random()}"),
        lambda: types.Part(text="I ponder.", thought=True),
        lambda: types.Part(text="signed", thought_signature=b"\x00\xff"),
        lambda: types.Part(inline_data=types.Blob(data=b"\x89PNG", mime_type="image/png")),
        lambda: types.Part(
            function_call=types.FunctionCall(id=called, name="plan", args=arguments)
        ),
        lambda: types.Part(
            function_response=types.FunctionResponse(
                id=called, name="plan", response={"result": [1, "two", None]}
            )
        ),
    ]
    return dice.choice(makers)()


def event(dice: random.Random, invocation: str) -> Event:
    """An event as an agent, a tool or a user gives it."""
    author = dice.choice(["user", "planner", "booker"])
    content = None
    if dice.random() < 0.85:
        role = "user" if author == "user" else "model"
        parts = [part(dice) for _ in range(dice.choice([1, 1, 1, 2, 3]))]
        content = types.Content(role=role, parts=parts)
    delta: dict[str, Any] = {}
    for prefix in ("", "", "user:", "app:", "temp:"):
        if dice.random() < 0.3:
            value = dice.choice([dice.random(), None, "text", {"list": [1, {"y": True}]}, 7])
            delta[f"{prefix}{dice.choice('abc')}"] = value
    more: dict[str, Any] = {"error_code": "STOP"} if dice.random() < 0.1 else {}
    return Event(
        author=author,
        invocation_id=invocation,
        content=content,
        actions=EventActions(state_delta=delta),
        **more,
    )


async def record(service: Any, dice: random.Random, number: int) -> dict[str, Any]:
    """Let a service record one session, with events, states and rewinds; return where it is."""
    where = {"app_name": dice.choice(APPS), "user_id": dice.choice(USERS)}
    state = {"budget": number, "user:name": f"n{number}", "app:open": True} if number % 3 else None
    session = await service.create_session(**where, session_id=f"s{number}", state=state)
    where["session_id"] = session.id
    runner = Runner(
        app_name=where["app_name"], agent=BaseAgent(name="planner"), session_service=service
    )
    for turn in range(dice.randrange(8)):
        for _ in range(dice.choice([1, 2, 3])):
            session = await service.get_session(**where)
            await service.append_event(session, event(dice, f"turn-{turn}"))
        if dice.random() < 0.25:
            before = f"turn-{dice.randrange(turn + 1)}"
            await runner.rewind_async(
                user_id=where["user_id"],
                session_id=where["session_id"],
                rewind_before_invocation_id=before,
            )
    return where


async def made(service: Any) -> list[dict[str, Any]]:
    """Record sessions in one service; return them as it reads them."""
    dice = random.Random(1)
    places = [await record(service, dice, number) for number in range(SESSIONS)]
    sessions = []
    for where in places:
        session = await service.get_session(**where)
        found = {
            **where,
            "state": session.state,
            "events": [each.model_dump(mode="json", exclude_none=True) for each in session.events],
            "live": [each.id for each in _apply_rewinds(session.events)],
        }
        sessions.append(found)
    await service.close()
    return sessions


async def main(folder: Path) -> None:
    """Use both services, one after the other."""
    found = {"sqlite": await made(SqliteSessionService(str(folder / "sqlite.db")))}
    address = f"sqlite+aiosqlite:///{folder / 'database.db'}"
    found["database"] = await made(DatabaseSessionService(db_url=address))
    print(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
