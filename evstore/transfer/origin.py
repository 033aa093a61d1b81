"""What is imported is known by where it came from: its uid, key and id are the same again."""

from hashlib import sha256
from typing import NamedTuple
from urllib.parse import quote

from evstore.chain import field
from evstore.errors import BadName, TooLarge
from evstore.limits import Limits

_ID_HASH_DIGITS = 16
_LIMITS = Limits()


class Origin(NamedTuple):
    """A format, the prefix of an import, and the limits of the store that it comes into."""

    format: str
    prefix: str
    limits: Limits

    @property
    def cause(self) -> str:
        """The cause of every batch, and how its key begins."""
        return f"import:{self.format}"

    def uid(self, *names: str) -> bytes:
        """Return the uid of a session that comes from a source."""
        parts = (self.format, self.prefix, *names)
        encoded = b"".join(field(part.encode("utf-8", "surrogatepass")) for part in parts)
        return sha256(encoded).digest()[:16]

    def key(self, source_id: str) -> str:
        """Return the key of the batch of an item; a hash where its name cannot stand in one."""
        try:
            return self.limits.check_name("key", f"{self.cause}:{source_id}")
        except (BadName, TooLarge):
            hashed = sha256(source_id.encode("utf-8", "surrogatepass")).hexdigest()
            return f"{self.cause}:sha256:{hashed}"

    def session_id(self, proposed: str) -> str:
        """Return the id that a session may have, the same for the same proposal."""
        proposed = self.prefix + proposed
        try:
            return self.limits.check_session_id(proposed)
        except BadName:
            shown = "".join(map(_storable, proposed)) or "%"
        room = self.limits.session_id_characters_max
        if len(shown) > room:
            encoded = proposed.encode("utf-8", "surrogatepass")
            mark = f"~{sha256(encoded).hexdigest()[:_ID_HASH_DIGITS]}"[:room]
            shown = shown[: room - len(mark)] + mark
        return shown


def _storable(character: str) -> str:
    try:
        _LIMITS.check_session_id(character)
    except BadName:
        return quote(character.encode("utf-8", "surrogatepass"))
    return character
