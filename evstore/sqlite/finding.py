"""Findings: what in a file is not as it was recorded."""

import attrs


@attrs.frozen
class Finding:
    """Something that is not as it was recorded: where, which kind of thing, and what about it."""

    session: str | None
    seq: int | None
    kind: str
    what: str
