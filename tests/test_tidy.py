"""The source keeps its own rules: sizes, names, and which module may do what."""

import ast
import re
import subprocess
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# The limits, by the folder they hold for.
FILE_LINES_MAX = {"evstore": 400, "tools": 400, "tests": 600}
FUNCTION_LINES_MAX = 70
LINE_CHARACTERS_MAX = 100

# Words that name nothing, and what to write in their place.
BANNED_WORDS = {
    "utils": "the thing that is inside",
    "util": "the thing that is inside",
    "helpers": "the thing they help with",
    "helper": "the thing it helps with",
}
BANNED_SUFFIXES = ("Manager", "Helper", "Impl")
ALLOWED_CLASSES = {"SessionManager"}

# What only some places may do, as beginnings of their paths.
MAY_PRINT = ("evstore/cli", "tools/")
MAY_IMPORT_JSON = ("evstore/cli", "evstore/transfer", "evstore/values.py", "tools/", "tests/")
MAY_EXECUTE = (
    "evstore/sqlite/",
    "evstore/transfer/table_file.py",
    "evstore/transfer/tables.py",
    "tools/",
    "tests/",
)
MAY_CHANGE_ROWS = (
    "evstore/sqlite/compact.py",
    "evstore/sqlite/insert.py",
    "evstore/sqlite/maintain.py",
    "evstore/sqlite/renumbering.py",
    "evstore/sqlite/search.py",
    "evstore/sqlite/wal.py",
    "evstore/transfer/table_file.py",
    "tools/",
    "tests/",
)
CHANGING_ROWS = re.compile(
    r"\b((insert|replace)\s+(or\s+\w+\s+)?into|delete\s+from|update\s+(or\s+\w+\s+)?\w+\s+set)\b",
    re.IGNORECASE,
)

# What no file says. The words are put together here, so that this file does not say them either.
UNFINISHED = re.compile(r"\b(" + "|".join(["FIX" + "ME", "TO" + "DO", "X" * 3]) + r")\b")
PRIVATE_PLACES = re.compile("|".join([r"/(home|Users)/" + r"\w", r"/ro" + r"ot/"]))
REGISTRIES = re.compile(
    "|".join(["py" + r"pi\.org", "python" + r"hosted\.org", "npm" + r"js\.(org|com)"])
    + "|--(extra-)?"
    + "index-url|--"
    + "find-links"
)
Function = ast.FunctionDef | ast.AsyncFunctionDef


def test_files_are_short():
    """A file can be read in one sitting."""
    assert [] == [
        f"{path}: {len(lines)} lines"
        for path in sources()
        if len(lines := text(path).splitlines()) > FILE_LINES_MAX[path.split("/")[0]]
    ]


def test_lines_are_short():
    """A line fits beside another file."""
    assert [] == [
        f"{path}:{number}: {len(line)} characters"
        for path in sources()
        for number, line in enumerate(text(path).splitlines(), 1)
        if len(line) > LINE_CHARACTERS_MAX
    ]


def test_functions_are_short():
    """A function fits on one screen."""
    assert [] == [
        f"{place}: {node.name} has {lines} lines"
        for place, node in nodes()
        if isinstance(node, Function)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES_MAX
    ]


def test_modules_open_with_a_promise():
    """Each module begins with a docstring, and that with a sentence."""
    assert [] == [path for path in sources() if not is_sentence(ast.get_docstring(tree(path)))]


def test_tests_state_what_holds():
    """Each test says in a sentence which promise it keeps."""
    assert [] == [
        f"{place}: {node.name}"
        for place, node in nodes("tests/")
        if isinstance(node, Function) and node.name.startswith("test_")
        if not is_sentence(ast.get_docstring(node))
    ]


def test_names_say_what_things_are():
    """No file, class, function or variable hides behind a word that names nothing."""
    names = [(path, path) for path in sources()] + [
        (place, name) for place, node in nodes() for name in defined_names(node)
    ]
    assert [] == [
        f"{place}: {word!r} in {name} is banned, use {BANNED_WORDS[word]}"
        for place, name in names
        for word in re.split(r"[\W_]+", name.lower())
        if word in BANNED_WORDS
    ]
    assert [] == [
        f"{place}: {node.name} is banned, use the noun alone"
        for place, node in nodes()
        if isinstance(node, ast.ClassDef) and node.name.endswith(BANNED_SUFFIXES)
        if node.name not in ALLOWED_CLASSES
    ]


def test_imports_are_the_agreed_ones():
    """One JSON encoder, one SQLite library, and no import from the future."""
    imports = [(place, name) for place, node in nodes() for name in imported_names(node)]
    assert [] == [place for place, name in imports if name == "__future__"]
    assert [] == outside(MAY_IMPORT_JSON, (place for place, name in imports if name == "json"))
    assert [] == [
        place for place, name in imports if name == "sqlite3" and place.startswith("evstore/")
    ]


def test_only_the_engine_touches_the_database():
    """SQL is executed by the engine, and rows are changed by its writing modules alone."""
    calls = [(place, name) for place, node in nodes() for name in called_names(node)]
    executing = (place for place, name in calls if name in {".execute", ".executemany"})
    assert [] == outside(MAY_EXECUTE, executing)
    assert [] == outside(MAY_CHANGE_ROWS, places_that_change_rows())


def test_the_engine_opens_files_through_sqlite():
    """The engine never uses open(): closing a second handle would drop the locks of the first."""
    assert [] == [place for place, node in nodes("evstore/sqlite/") if "open" in called_names(node)]


def test_only_the_command_line_prints():
    """A library is silent."""
    printing = (place for place, node in nodes() if "print" in called_names(node))
    assert [] == outside(MAY_PRINT, printing)


def test_a_document_has_one_title():
    """Each Markdown file has exactly one title."""
    assert [] == [
        path
        for path in tracked()
        if path.endswith(".md")
        if 1 != len(re.findall(r"^# ", re.sub(r"(?ms)^```.*?^```", "", text(path)), re.MULTILINE))
    ]


def test_files_keep_to_themselves():
    """No file holds unfinished work, someone's folder, or the address of a package registry."""
    assert [] == [
        f"{path}:{number}: {line.strip()}"
        for path in tracked()
        for number, line in enumerate(text(path).splitlines(), 1)
        if UNFINISHED.search(line) or PRIVATE_PLACES.search(line) or REGISTRIES.search(line)
    ]


@cache
def tracked() -> tuple[str, ...]:
    """The text files of the project, as git knows them: also those not yet committed."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    return tuple(sorted({path for path in listing.splitlines() if text(path)}))


@cache
def sources() -> tuple[str, ...]:
    """The Python files that are held to the rules."""
    found = (path for folder in FILE_LINES_MAX for path in (ROOT / folder).rglob("*.py"))
    return tuple(sorted(path.relative_to(ROOT).as_posix() for path in found))


@cache
def text(path: str) -> str:
    """What a file says; nothing, if it is not text or has gone."""
    try:
        return (ROOT / path).read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


@cache
def tree(path: str) -> ast.Module:
    """The syntax of a file."""
    return ast.parse(text(path), path)


def nodes(beginning: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Everything in the files whose path begins so, with the place where it stands."""
    for path in sources():
        if path.startswith(beginning):
            for node in ast.walk(tree(path)):
                yield f"{path}:{getattr(node, 'lineno', 1)}", node


def outside(allowed: tuple[str, ...], places: Iterable[str]) -> list[str]:
    """The places that are not among the allowed ones."""
    return [place for place in places if not place.startswith(allowed)]


def is_sentence(docstring: str | None) -> bool:
    """Whether a docstring begins with a sentence."""
    return docstring is not None and docstring.split("\n\n")[0].rstrip().endswith(".")


def defined_names(node: ast.AST) -> list[str]:
    """The names that a piece of syntax brings into the world."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()):
            return [name]
    return []


def imported_names(node: ast.AST) -> list[str]:
    """The top-level packages that a statement imports."""
    match node:
        case ast.Import(names=aliases):
            return [alias.name.split(".")[0] for alias in aliases]
        case ast.ImportFrom(module=str(module), level=0):
            return [module.split(".")[0]]
    return []


def called_names(node: ast.AST) -> list[str]:
    """The name that a call uses, with a leading dot if it is a method's."""
    match node:
        case ast.Call(func=ast.Name(id=name)):
            return [name]
        case ast.Call(func=ast.Attribute(attr=name)):
            return [f".{name}"]
    return []


def places_that_change_rows() -> Iterator[str]:
    """Where a text that is not a docstring holds SQL that changes rows."""
    docstrings = {id(node.value) for _, node in nodes() if isinstance(node, ast.Expr)}
    for place, node in nodes():
        match node:
            case ast.Constant(value=str(words)) if id(node) not in docstrings:
                if CHANGING_ROWS.search(words):
                    yield place
