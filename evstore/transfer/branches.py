"""A tree of messages as one path and the branches off it, however deep, broken or circular."""

from collections import deque
from collections.abc import Iterator, Mapping
from typing import NamedTuple


class Path(NamedTuple):
    """Nodes that follow one another, after the node `after` of the path with number `parent`."""

    parent: int | None
    after: str | None
    nodes: list[str]


def paths(parents: Mapping[str, str | None], tip: str) -> Iterator[Path]:
    """Yield the path to `tip`, then every branch, each after the path that it branches off.

    `parents` tells what each node follows; who follows nobody in it is a root, and roots other than
    that of the first path branch off its beginning. A branch follows the newest child of each node.
    What goes round in a circle is in no path; where the tip does, there is none at all.
    """
    children: dict[str | None, list[str]] = {}
    for node, parent in parents.items():
        children.setdefault(parent if parent in parents else None, []).append(node)
    path = Path(None, None, _way_to(parents, tip))
    if not path.nodes:
        return
    waiting: deque[tuple[int, str | None, str]] = deque(
        (0, None, root) for root in children[None] if root != path.nodes[0]
    )
    number = 0
    while True:
        yield path
        on_path = set(path.nodes)
        waiting.extend(
            (number, node, child)
            for node in path.nodes
            for child in children.get(node, ())
            if child not in on_path
        )
        if not waiting:
            return
        origin, after, first = waiting.popleft()
        nodes = [first]
        while nodes[-1] in children:
            nodes.append(children[nodes[-1]][-1])
        path = Path(origin, after, nodes)
        number += 1


def _way_to(parents: Mapping[str, str | None], tip: str) -> list[str]:
    """Return the nodes from the root to a tip, or none where they go round in a circle."""
    way: dict[str, None] = {}
    node: str | None = tip
    while node is not None and node in parents:
        if node in way:
            return []
        way[node] = None
        node = parents[node]
    return list(reversed(way))
