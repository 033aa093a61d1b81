"""Blocks of content, as Anthropic's messages have them: one calls a tool, another is its result."""

from typing import Any


def is_use(block: Any) -> bool:
    """Tell whether a block calls a tool, by an id that is a text."""
    return type(block) is dict and block.get("type") == "tool_use" and type(block.get("id")) is str


def is_result(block: Any) -> bool:
    """Tell whether a block is the result of a call, named by an id that is a text."""
    return (
        type(block) is dict
        and block.get("type") == "tool_result"
        and type(block.get("tool_use_id")) is str
    )
