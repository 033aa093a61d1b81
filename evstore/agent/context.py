"""Session contexts: the variables of one session, under the names that an agent's tools use."""

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from evstore.events import DELETIONS, SETS, VARIABLES, Event
from evstore.session import Session
from evstore.variables import Variables, value_of
from evstore.watch import Watch

_CHANGES = (SETS[VARIABLES], DELETIONS[VARIABLES])


class SessionContext(Variables):
    """The variables of a session: what is set is on record when the call returns.

    As a mapping, `context["x"]` and `del context["x"]` raise KeyError where the name is absent; by
    method, reading it gives the default and deleting it does nothing. It is thread-safe, and
    whatever it returns is a fresh object.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session, VARIABLES)
        self._session = session

    @property
    def session_id(self) -> str:
        """The id of the session."""
        return self._session.id

    def get_variable(self, name: str, default: Any = None) -> Any:
        """Return the value, or the default where the name is absent."""
        return self.get(name, default)

    def set_variable(self, name: str, value: Any) -> None:
        """Set a variable; raises NotStorable, TooLarge, TooMany and BadName."""
        self.set(name, value)

    def delete_variable(self, name: str) -> None:
        """Delete a variable; where there is none, nothing happens and nothing is recorded."""
        self.pop(name, None)

    def has_variable(self, name: str) -> bool:
        """Tell whether the name is there."""
        return name in self

    def get_variables(self, names: Iterable[str] | None = None) -> dict[str, Any]:
        """Return those of the names that are there, or all variables, from one snapshot."""
        if names is None:
            return dict(self.items())
        with self._side.look() as present:
            found = {name: self._find(present, name) for name in names}
        return {name: value_of(each) for name, each in found.items() if each is not None}

    def set_variables(self, variables: Mapping[str, Any]) -> None:
        """Set many variables, all or none, in one commit."""
        self.update(variables)

    def list_variables(self, pattern: str = "*") -> list[str]:
        """Return the names that match a case-sensitive glob, in order; `*` crosses dots."""
        return [name for name in self.keys() if fnmatchcase(name, pattern)]

    def watch_variables(self, pattern: str = "*", after: int | Event | None = None) -> Watch:
        """Return an iterator of the changes of variables whose names match; it waits for more.

        Each is an Event with its name, of kind `variable.set` (its data has the `value`) or
        `variable.deleted`. `after` is a seq or an event; None is now.
        """
        return self._session.watch(after).only(changes_of(pattern))

    def __repr__(self) -> str:
        """Return of which session it is."""
        return f"<evstore.agent.SessionContext {self.session_id!r}>"


def changes_of(pattern: str) -> Callable[[Event], bool]:
    """Return what tells whether an event changes a variable whose name matches a glob."""
    return lambda event: event.kind in _CHANGES and fnmatchcase(event.name or "", pattern)
