"""Whatever evstore exports explains itself, and has types that a checker can rely on."""

import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import evstore
from evstore import aio, errors, replay

PROGRAM = Path(__file__).parent / "typing" / "program.py"


def exported() -> Iterator[tuple[str, Any]]:
    """All public names and what they stand for."""
    for name in evstore.__all__:
        yield name, getattr(evstore, name)
    for name in replay.__all__:
        yield f"replay.{name}", getattr(replay, name)
    for name in aio.__all__:
        yield f"aio.{name}", getattr(aio, name)
    for name, thing in vars(errors).items():
        if isinstance(thing, type) and issubclass(thing, errors.EvstoreError):
            yield f"errors.{name}", thing


def members() -> Iterator[tuple[str, Any]]:
    """All public functions, and the methods and properties of public classes that are ours."""
    for name, thing in exported():
        if inspect.isfunction(thing):
            yield name, thing
        if inspect.isclass(thing):
            for method, member in vars(thing).items():
                if not method.startswith("_") and is_callable(member):
                    yield f"{name}.{method}", member


def is_callable(member: Any) -> bool:
    return inspect.isfunction(member) or isinstance(member, property | classmethod | staticmethod)


def functions(member: Any) -> list[Any]:
    """The plain functions behind a member."""
    if isinstance(member, property):
        return [function for function in (member.fget, member.fset) if function is not None]
    return [getattr(member, "__func__", member)]


MEMBERS = dict(members())


def test_what_is_exported_is_there():
    """`__all__` has no doubles, and `import *` gives just that."""
    assert len(evstore.__all__) == len(set(evstore.__all__))
    names: dict[str, Any] = {}
    exec("from evstore import *", names)  # noqa: S102 - that is what a user may type
    assert set(evstore.__all__) == set(names) - {"__builtins__"}


def test_what_few_need_is_loaded_when_it_is_asked_for():
    """`import evstore` does without it, and it is there all the same."""
    program = (
        "import sys, evstore;"
        "later = {'diff', 'folding', 'listings', 'merge', 'results', 'revert', 'watch'};"
        "assert not {f'evstore.{name}' for name in later} & sys.modules.keys();"
        "assert {*evstore.__all__, 'aio', '__name__'} <= {*dir(evstore)};"
        "assert evstore.Merge.__module__ == 'evstore.merge' and 'evstore.merge' in sys.modules;"
        "assert not hasattr(evstore, 'merger') and not hasattr(evstore.later, 'merger')"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("name", [name for name, _ in exported()])
def test_every_public_name_explains_itself(name: str):
    """Each class, function and module has a docstring that begins with a sentence."""
    thing = dict(exported())[name]
    assert inspect.getdoc(thing)
    if inspect.isclass(thing) or inspect.isfunction(thing):
        assert (thing.__doc__ or "").split("\n\n")[0].rstrip().endswith("."), name


@pytest.mark.parametrize("name", MEMBERS)
def test_every_method_explains_itself(name: str):
    """Each public method and property has a docstring that begins with a sentence."""
    (*_, function) = [functions(MEMBERS[name])[0]]
    assert function.__doc__, name
    assert function.__doc__.split("\n\n")[0].rstrip().endswith("."), name


@pytest.mark.parametrize("name", MEMBERS)
def test_every_method_is_typed(name: str):
    """Each parameter and each result has a type, which can be looked up while running."""
    for function in functions(MEMBERS[name]):
        hints = get_type_hints(function)
        parameters = list(inspect.signature(function).parameters)
        if "." in name.removeprefix("replay.").removeprefix("aio.").removeprefix("errors."):
            parameters = parameters[1:]
        assert {*parameters, "return"} == set(hints)


def test_the_types_a_user_sees():
    """A small program of a user passes the strictest type checker."""
    result = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-incremental", str(PROGRAM)],
        cwd=PROGRAM.parent.parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == result.returncode, result.stdout + result.stderr


def test_the_package_says_that_it_is_typed():
    """Type checkers read the types of an installed evstore."""
    assert (Path(evstore.__file__).parent / "py.typed").exists()
