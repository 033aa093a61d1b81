"""What llm keeps beside its messages, in either layout: fragments of text, and attached files."""

from base64 import b64encode
from typing import Any

from evstore.transfer.conversations import Reported
from evstore.transfer.tables import Tables

ATTACHED_BYTES_MAX = 256 << 10  # a file that is larger would leave no room for its message


def fragment(found: Tables, number: int) -> str | Reported:
    """Return the text of a fragment."""
    where = f"fragment {number}"
    fields = found.row(where, "select content from fragments where id = ?", number)
    if isinstance(fields, Reported):
        return fields
    text = fields["content"]
    return text if type(text) is str else Reported(where, "a fragment", "it is no text: repair it")


def attachment(found: Tables, number: int) -> tuple[dict[str, Any], Reported | None]:
    """Return an attached file as llm writes it in JSON, and what is to be said of its loss.

    Without one that is too large, its id and size are told.
    """
    where = f"attachment in row {number}"
    sql = (
        "select id, type, path, url, octet_length(content) as size_bytes,"
        " case when octet_length(content) <= ? then content end as content"
        " from attachments where rowid = ?"
    )
    fields = found.row(where, sql, ATTACHED_BYTES_MAX, number)
    if isinstance(fields, Reported):
        return {}, fields
    told = {key: fields[key] for key in ("type", "url", "path") if fields[key]}
    if type(fields["content"]) is bytes:
        return {**told, "content": b64encode(fields["content"]).decode()}, None
    if not fields["size_bytes"]:
        return told, None
    reason = f"it takes {fields['size_bytes']} bytes: only its name comes in"
    told |= {"id": fields["id"], "size_bytes": fields["size_bytes"]}
    return told, Reported(where, "a file", reason)
