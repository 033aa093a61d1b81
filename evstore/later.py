"""Later: what many programs never need is loaded when it is first asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["diff", "listings", "merge", "results", "revert", "watch"]

if TYPE_CHECKING:
    from evstore import diff, listings, merge, results, revert, watch
else:

    def __getattr__(name: str) -> Any:
        """Load a module; what is in it can be an annotation as well: `"later.diff.Diff"`."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = globals()[name] = import_module(f"evstore.{name}")
        return module
