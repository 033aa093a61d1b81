"""Write docs/cli.md from what the command line says about itself."""

from pathlib import Path

import click

from evstore.cli.verbs import app

PAGE = Path(__file__).resolve().parent.parent / "docs" / "cli.md"
COLUMNS = 80
BEGINNING = """\
# The command line

`evstore VERB FILE [SESSION] …` works on the stores that `pip install 'evstore[cli]'` can reach: a
table on a terminal, JSON Lines in a pipe. This page is what `--help` says, written down by
`tools/cli_docs.py`.
"""


def render() -> str:
    """Return the page: the help of evstore itself, then that of each verb."""
    settings = {**app.context_settings, "terminal_width": COLUMNS}
    whole = click.Context(app, info_name="evstore", **settings)
    sections = [BEGINNING, _help(app, whole)]
    for name, verb in app.commands.items():
        context = click.Context(verb, whole, info_name=name, terminal_width=COLUMNS)
        sections += [f"## {name}\n", _help(verb, context)]
    return "\n".join(sections)


def _help(command: click.Command, context: click.Context) -> str:
    return f"```text\n{command.get_help(context)}\n```\n"


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(render(), "utf-8")
