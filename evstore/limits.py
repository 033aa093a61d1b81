"""How much is too much: the bounds that are checked at the door, before anything is written."""

import attrs

from evstore.errors import BadName, TooLarge

# Line separators would break one-line-per-record formats; surrogates cannot be UTF-8.
_FORBIDDEN_IN_IDS = frozenset(map(chr, [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029]))


@attrs.frozen
class Limits:
    """The bounds of one store handle; sizes in bytes of the stored text."""

    value_bytes_max: int = 1 << 20
    message_bytes_max: int = 4 << 20
    name_bytes_max: int = 512
    variables_max: int = 10_000
    metadata_bytes_max: int = 64 << 10
    session_id_characters_max: int = 255

    def check_name(self, what: str, name: object) -> str:
        """Return the name; raises BadName or TooLarge where it cannot be one."""
        if type(name) is not str:
            raise BadName(what, name, "give text")
        if "\0" in name:
            raise BadName(what, name, "leave out the NUL character")
        try:
            size_bytes = len(name.encode())
        except UnicodeEncodeError:
            raise BadName(what, name, "leave out lone surrogates") from None
        if size_bytes > self.name_bytes_max:
            raise TooLarge(f"{what} {name[:40]!r}…", size_bytes, self.name_bytes_max)
        return name

    def check_session_id(self, session_id: object) -> str:
        """Return the session id; raises BadName where it cannot be one."""
        if type(session_id) is not str or not session_id:
            raise BadName("session id", session_id, "give a text that is not empty")
        if len(session_id) > self.session_id_characters_max:
            shown = session_id[:40] + "…"
            count_max = self.session_id_characters_max
            rule = f"shorten its {len(session_id)} characters to {count_max}"
            raise BadName("session id", shown, rule)
        if not _FORBIDDEN_IN_IDS.isdisjoint(session_id):
            raise BadName(
                "session id", session_id, "leave out control and line-separator characters"
            )
        try:
            session_id.encode()
        except UnicodeEncodeError:
            raise BadName("session id", session_id, "leave out lone surrogates") from None
        return session_id
