"""Completion in the shell, of verbs, files, ids, names and labels: quick, and silent on errors."""

import os
import re
import shlex
from collections.abc import Callable, Iterable
from itertools import islice

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
)

import evstore
from evstore.cli import terminal
from evstore.session import Session
from evstore.store import Store

PROGRAM, VARIABLE = "evstore", "_EVSTORE_COMPLETE"
_MARK = "\0"
ITEMS_MAX = 1000  # of more than that nothing is offered: what some begin with misleads
Items = list[CompletionItem[str]]


# What there is.


def complete_session(context: click.Context, _param: click.Parameter, begun: str) -> Items:
    """Return the ids of living sessions that begin so."""

    def ids(store: Store) -> Iterable[str]:
        return (info.id or "" for info in store.sessions(begun, limit=ITEMS_MAX + 1))

    return _of_store(context, begun, ids)


def complete_uid(context: click.Context, _param: click.Parameter, begun: str) -> Items:
    """Return the uids of ended lives that begin so."""

    def uids(store: Store) -> Iterable[str]:
        return (info.uid for info in store.sessions(deleted=True, limit=ITEMS_MAX + 1))

    return _of_store(context, begun, uids)


def complete_name(context: click.Context, _param: click.Parameter, begun: str) -> Items:
    """Return the names of variables, or of metadata where that is asked for, that begin so."""
    is_metadata = context.params.get("metadata")
    return _of_session(
        context,
        begun,
        lambda session: session.metadata if is_metadata else session.variables,
    )


def complete_moment(context: click.Context, _param: click.Parameter, begun: str) -> Items:
    """Return the labels that begin so."""
    return _of_session(context, begun, lambda session: session.view().labels)


def _of_session(
    context: click.Context, begun: str, words: Callable[[Session], Iterable[str]]
) -> Items:
    def of_session(store: Store) -> Iterable[str]:
        return sorted(words(store.session(_given(context, "session"), create=False)))

    return _of_store(context, begun, of_session)


def _of_store(context: click.Context, begun: str, words: Callable[[Store], Iterable[str]]) -> Items:
    """Return the words that a store gives and that begin so, as far as they can be typed."""
    try:
        file = os.path.expandvars(os.path.expanduser(_given(context, "file")))
        with evstore.open(file, read_only=True) as store:
            found = (word for word in words(store) if word.startswith(begun))
            items = [CompletionItem(word) for word in islice(found, ITEMS_MAX + 1)]
    except Exception:  # noqa: BLE001 - whoever is typing wants no story
        return []
    if len(items) > ITEMS_MAX:
        return []
    return [item for item in items if terminal.harmless(item.value) == item.value]


def _given(context: click.Context, name: str) -> str:
    """Return an argument that is there; raises KeyError."""
    if context.params.get(name) is not None:
        return str(context.params[name])
    # Where the line ends with an option that still lacks its value, click sorts none of them.
    names = [param.name for param in context.command.params if isinstance(param, click.Argument)]
    return dict(zip(names, context.args, strict=False))[name]


# How it gets into the shell.


class _Bash(BashComplete):
    """Bash: the program splits the line, because bash does it at colons, too."""

    source_template = """\
%(complete_func)s() {
    local answer
    COMPREPLY=()
    while IFS= read -r answer; do
        case $answer in
            file,*) compopt -o default ;;
            plain,*) COMPREPLY+=("${answer#plain,}") ;;
        esac
    done < <(COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_WORDBREAKS="$COMP_WORDBREAKS" \\
        %(complete_var)s=bash_complete "$1" 2>/dev/null)
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""

    def complete(self) -> str:
        """Return the answers, as bash puts them where it holds that the word begins."""
        words, quote = self._words()
        begun = re.sub("^--[^=]*=", "", words[-1])
        breaks = "" if quote else os.environ.get("COMP_WORDBREAKS", "")
        kept = 1 + max((begun.rfind(sign) for sign in ":=@" if sign in breaks), default=-1)
        items = self.get_completions(words[1:-1], words[-1])
        for item in items:
            item.value = _quoted(item.value[kept:], quote)
        return "\n".join(map(self.format_completion, items))

    def _words(self) -> tuple[list[str], str]:
        """Return the words of the line, and the quote that the last one is in."""
        # Without a mark at its end, a word that is not begun yet would be none.
        lexer = shlex.shlex(os.environ["COMP_LINE"] + _MARK, posix=True)
        lexer.whitespace_split, lexer.commenters = True, ""
        words: list[str] = []
        quote = ""
        try:
            words.extend(lexer)
        except ValueError:
            quote = getattr(lexer, "state", "")  # known to Python, but not to its types
            words.append(lexer.token)
        return [*words[:-1], words[-1].removesuffix(_MARK)], quote


def _quoted(word: str, quote: str) -> str:
    """Return a word as it may stand in a line of bash, alone or after a quote."""
    harmful = {"": r"([^\w@%+=:,./-])", '"': r'(["$`\\!])', "'": r"(?!)()"}[quote]
    return re.sub(harmful, r"\\\1", word)


class _Fish(FishComplete):
    """Fish, whose words may hold commas."""

    source_template = FishComplete.source_template.replace(
        'string split ","', 'string split --max 1 ","'
    )


SHELLS: dict[str, type[ShellComplete]] = {"bash": _Bash, "zsh": ZshComplete, "fish": _Fish}
for _shell in (_Bash, _Fish):
    add_completion_class(_shell)


@click.command(short_help="Print what makes a shell complete words.")
@click.argument("shell", type=click.Choice(list(SHELLS)))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that lets SHELL complete verbs, options, files, sessions and names.

    Put one line into the file that the shell reads when it starts:

    \b
    bash (4.4 or newer)  source <(evstore completion bash)
    zsh                  source <(evstore completion zsh)
    fish                 evstore completion fish | source
    """  # noqa: D301 - click takes this character for "leave the lines as they are"
    shown = SHELLS[shell](context.find_root().command, {}, PROGRAM, VARIABLE)
    terminal.write((shown.source_template % shown.source_vars()).encode())
