"""The documents: every Python example in them runs, and shows what it says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = ["README.md", "ARCHITECTURE.md", *map(str, sorted(Path("docs").glob("*.md")))]
EXAMPLE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
PROMISED_OUTPUT = re.compile(r"print\(.*\) +# .*?: (.+)$", re.MULTILINE)


def examples():
    """Return (document, number, source) of every Python example."""
    return [
        pytest.param(source, id=f"{document}-{number}")
        for document in DOCUMENTS
        if (ROOT / document).exists()
        for number, source in enumerate(EXAMPLE.findall((ROOT / document).read_text("utf-8")))
    ]


@pytest.mark.parametrize("source", examples())
def test_examples_run(source, tmp_path):
    """An example runs as it stands, in an empty folder, and prints what its comments promise."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", source],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (0, "") == (done.returncode, done.stderr)
    assert PROMISED_OUTPUT.findall(source) == done.stdout.splitlines()


def test_there_are_examples():
    """The README shows the store at work before its twentieth line."""
    readme = (ROOT / "README.md").read_text("utf-8")
    assert "```python" in readme.splitlines()[:20]


def links(document):
    """Return the files that a document links to."""
    text = (ROOT / document).read_text("utf-8")
    return [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if (ROOT / path).exists()])
def test_links_lead_somewhere(document):
    """Every link between the documents leads to a file."""
    folder = (ROOT / document).parent
    assert [] == [link for link in links(document) if not (folder / link).exists()]
