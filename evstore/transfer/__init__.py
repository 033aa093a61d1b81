"""Sessions leave a store and enter another unchanged; what others recorded becomes sessions."""

from evstore.transfer.conversations import Reported
from evstore.transfer.exports import EXPORTS, export_stream, export_to
from evstore.transfer.foreign import FORMATS, import_from
from evstore.transfer.jsonlines import Imported, export_lines, import_lines
from evstore.transfer.shipping import Restored, Shipped, follow, restore_from, ship

__all__ = [
    "EXPORTS",
    "FORMATS",
    "Imported",
    "Reported",
    "Restored",
    "Shipped",
    "export_lines",
    "export_stream",
    "export_to",
    "follow",
    "import_from",
    "import_lines",
    "restore_from",
    "ship",
]
