"""The documents: every example in them runs, and shows what it says."""

import ast
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [
    document
    for document in (
        "README.md",
        "ARCHITECTURE.md",
        *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))),
    )
    if (ROOT / document).exists()
]
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROMISED_OUTPUT = re.compile(r"^ *print\(.*\) +# (.+)$", re.MULTILINE)
WIDE = re.compile(" {2,}")  # how wide a column is depends on what is in it, such as "3s ago"
TYPES, PRINTS = "\n\nTypes:\n", "\n\nPrints:\n"  # parts of the docstring of an example


class Block(NamedTuple):
    """A block of a page, the line it begins at, and the text block that follows, if one does."""

    language: str
    source: str
    line: int
    output: str | None


def blocks(text: str) -> list[Block]:
    """Return the Python and console examples of a page, each with the output it shows below."""
    return [
        Block(
            match[1], match[2], text[: match.start()].count("\n") + 1, _output(text, match, after)
        )
        for match, after in pairwise([*BLOCK.finditer(text), None])
        if match is not None and match[1] in ("python", "console")
    ]


def _output(text: str, match: re.Match[str], after: re.Match[str] | None) -> str | None:
    """Return the text block right below an example: it is what the example prints."""
    if after is None or after[1] != "text" or text[match.end() : after.start()].strip():
        return None
    return after[2]


def pages() -> Iterator[Any]:
    """Yield (document, examples that go on from one another): in the README each stands alone."""
    for document in DOCUMENTS:
        found = blocks((ROOT / document).read_text("utf-8"))
        if document == "README.md":
            for number, block in enumerate(found):
                yield pytest.param(document, [block], id=f"{document}-{number}")
        elif found:
            yield pytest.param(document, found, id=document)


@pytest.mark.parametrize(("document", "examples"), list(pages()))
def test_a_page_does_what_it_shows(document, examples, tmp_path, monkeypatch):
    """The examples of a page run in their order, in an empty folder, and print what it shows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TERM", "dumb")  # so that a terminal shows letters alone
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in examples:
        place = f"{document}:{block.line}"
        if block.language == "python":
            printed = run_python(block, document, names)
            assert shown(promised(block)) == like(promised(block), printed), place
        else:
            for command, expected in commands(block):
                run_command(command, expected, place)


def run_python(block: Block, document: str, names: dict[str, Any]) -> str:
    """Run a Python example as part of its page, and return what it prints."""
    source = "\n" * block.line + block.source  # so that an error names the line of the page
    with redirect_stdout(StringIO()) as printed:
        exec(compile(source, document, "exec"), names)  # noqa: S102 - that is what is tested
    return printed.getvalue()


def promised(block: Block) -> str:
    """Return what a Python example says that it prints: below it, or beside each print."""
    beside = PROMISED_OUTPUT.findall(block.source)
    assert not (beside and block.output), "show what is printed below the example, or beside"
    return block.output or "".join(f"{line}\n" for line in beside)


def commands(block: Block) -> Iterator[tuple[str, str]]:
    """Yield (command, what is shown below it) of a console example."""
    for part in re.split(r"^\$ ", block.source, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        yield command, expected


def run_command(command: str, expected: str, place: str) -> None:
    """Run a command of a console example on a terminal of its own, and compare what it shows.

    Where the page shows nothing, it only has to succeed; a complaint comes with an exit code.
    """
    screen, terminal = pty.openpty()
    process = subprocess.Popen(
        ["sh", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=subprocess.PIPE,  # no terminal, so that no progress is shown
    )
    os.close(terminal)
    printed = b""
    with suppress(OSError):  # Linux says so when the last writer has left.
        while piece := os.read(screen, 4096):
            printed += piece
    os.close(screen)
    printed += process.communicate()[1]
    text = printed.decode().replace("\r\n", "\n")
    complains = "evstore: " in expected
    assert complains == (process.returncode != 0), f"{place}: {command}: {text}"
    if expected:
        expected, text = (WIDE.sub("  ", side) for side in (expected, text))
        assert shown(expected) == like(expected, text), f"{place}: {command}"


def shown(text: str) -> list[str]:
    """Return lines without what a page cannot show: spaces at their ends."""
    return [line.rstrip() for line in text.rstrip().splitlines()]


def like(expected: str, printed: str) -> list[str]:
    """Return the printed lines; one that the page shows alike reads as the page has it.

    "…" stands for anything in a line. Beside a print, words may come before what is printed.
    """
    lines, wanted = shown(printed), shown(expected)
    wanted += [""] * (len(lines) - len(wanted))
    return [
        pattern if is_like(pattern, line) else line
        for pattern, line in zip(wanted, lines, strict=False)
    ]


def is_like(pattern: str, line: str) -> bool:
    """Tell whether a line is what a page shows for it; "…" takes the spaces after it along."""
    parts = map(re.escape, re.split("… *", pattern))
    return re.fullmatch(".*".join(parts), line) is not None or pattern.endswith(f": {line}")


@pytest.mark.parametrize("example", [path.name for path in EXAMPLES])
def test_an_example_prints_what_it_says(example, tmp_path):
    """A script runs as it stands, in an empty folder, and prints what its docstring says."""
    path = ROOT / "docs" / "examples" / example
    promise = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    typed, _, printed = promise.partition(PRINTS)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path)],
        cwd=tmp_path,
        input=typed.partition(TYPES)[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (0, "") == (done.returncode, done.stderr)
    assert printed.splitlines() == done.stdout.splitlines()


def test_there_are_examples():
    """The README shows the store at work before its twentieth line, and scripts show it in use."""
    assert "```python" in (ROOT / "README.md").read_text("utf-8").splitlines()[:20]
    assert 4 <= len(EXAMPLES)


def links(document: str) -> list[str]:
    """Return the files that a document links to."""
    text = (ROOT / document).read_text("utf-8")
    return [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    """Every link between the documents leads to a file."""
    folder = (ROOT / document).parent
    assert [] == [link for link in links(document) if not (folder / link).exists()]


def test_every_page_is_found():
    """The README leads to every page and example, by links from page to page."""
    reached, ahead = set(), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page in reached or not page.exists():
            continue
        reached.add(page)
        if page.suffix == ".md":
            ahead += [(page.parent / link).resolve() for link in links(str(page))]
    pages = [ROOT / document for document in DOCUMENTS] + EXAMPLES
    assert [] == [str(page) for page in pages if page not in reached]
