"""Sessions leave a store and enter another with every uid, time, salt and link unchanged."""

from evstore.transfer.jsonlines import Imported, export_lines, import_lines

__all__ = ["Imported", "export_lines", "import_lines"]
