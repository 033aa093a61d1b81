"""Session contexts, for tasks: the variables of one session by name, each step awaited."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from evstore.agent.context import SessionContext as PlainContext
from evstore.agent.context import changes_of
from evstore.aio.session import Session
from evstore.aio.watch import Watch
from evstore.events import Event


class SessionContext:
    """The variables of a session, as `evstore.agent.SessionContext` has them.

    What a mapping does beyond these steps, `session.variables` has, awaited as well.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def session_id(self) -> str:
        """The id of the session."""
        return self._session.id

    async def get_variable(self, name: str, default: Any = None) -> Any:
        """Return the value, or the default where the name is absent."""
        return await self._session.variables.get(name, default)

    async def set_variable(self, name: str, value: Any) -> None:
        """Set a variable; raises NotStorable, TooLarge, TooMany and BadName."""
        await self._session.variables.set(name, value)

    async def delete_variable(self, name: str) -> None:
        """Delete a variable; where there is none, nothing happens and nothing is recorded."""
        await self._session.variables.pop(name, None)

    async def has_variable(self, name: str) -> bool:
        """Tell whether the name is there."""
        return await self._session.variables.contains(name)

    async def get_variables(self, names: Iterable[str] | None = None) -> dict[str, Any]:
        """Return those of the names that are there, or all variables, from one snapshot."""
        plain = PlainContext(self._session.plain)
        return await self._session.hands.read(lambda: plain.get_variables(names))

    async def set_variables(self, variables: Mapping[str, Any]) -> None:
        """Set many variables, all or none, in one commit."""
        await self._session.variables.update(variables)

    async def list_variables(self, pattern: str = "*") -> list[str]:
        """Return the names that match a case-sensitive glob, in order; `*` crosses dots."""
        return [name for name in await self._session.variables.keys() if fnmatchcase(name, pattern)]

    def watch_variables(self, pattern: str = "*", after: int | Event | None = None) -> Watch:
        """Return an async iterator of the changes of variables whose names match.

        All is as in `evstore.agent.SessionContext.watch_variables`.
        """
        return self._session.watch(after).only(changes_of(pattern))

    def __repr__(self) -> str:
        """Return of which session it is."""
        return f"<evstore.agent.aio.SessionContext {self.session_id!r}>"
