"""Evolution: what was recorded in an older form is brought up to date as it is read.

The stored text of an event never changes. Each kind has a chain of steps, one from every version to
the next, and `Event.data` takes what is older through those that it lacks.
"""

import re
from collections.abc import Callable
from typing import Any, TypeVar

from evstore import values
from evstore.errors import BadName, NotStorable, NotUpcast, Refused
from evstore.registry import VERSION_MAX, origin

Step = Callable[[Any], Any]
AnyStep = TypeVar("AnyStep", bound=Step)

_APPLICATION = "app."
_APPLICATION_KIND = re.compile(r"app(\.[A-Za-z0-9_-]+)+\Z")
# By kind and by the version that a step starts from; of evstore's own kinds there is only one yet.
_steps: dict[str, dict[int, Step]] = {}


def is_application_kind(kind: object) -> bool:
    """Tell whether a kind is one that applications may choose."""
    return type(kind) is str and _APPLICATION_KIND.match(kind) is not None


def upcast(kind: str, version: int) -> Callable[[AnyStep], AnyStep]:
    """Return a decorator that takes the step from one version of a kind's data to the next.

    In this process the data of older events then goes through all steps up to the newest version,
    which is also the one that `record` writes. A step is a pure function of data to data: it gets a
    fresh object and returns something storable.

    Raises BadName for a kind that is not an application's, and Refused for a version that is no
    number from 1, or where another function takes this step already.
    """
    check_kind(kind)
    _check_version(version, VERSION_MAX - 1)

    def take(function: AnyStep) -> AnyStep:
        steps = _steps.setdefault(kind, {})
        known = steps.get(version)
        if known is not None and origin(known) != origin(function):
            place = ".".join(origin(known))
            raise Refused(f"{place} takes {kind!r} from version {version} already: remove one")
        steps[version] = function
        return function

    return take


def check_kind(kind: Any) -> str:
    """Return a kind that an application may choose; raises BadName."""
    if not is_application_kind(kind):
        raise BadName("kind", kind, "give one like 'app.order.placed'")
    return str(kind)


def known_version(kind: str) -> int:
    """Return the version that this process knows of a kind."""
    return max(_steps.get(kind, ()), default=0) + 1


def version_to_write(kind: str, wanted: int | None) -> int:
    """Return the version of data that is recorded: the newest known unless another is wanted.

    Raises Refused for one that could not be read again here.
    """
    known = known_version(kind)
    if wanted is None:
        return known
    return _check_version(wanted, known if kind in _steps else VERSION_MAX)


def _check_version(version: Any, version_max: int) -> int:
    if type(version) is not int or not 1 <= version <= version_max:
        raise Refused(f"version {version!r} is none: give a number from 1 to {version_max}")
    return version


def lifted(kind: str, version: int, text: str) -> str:
    """Return the text of an event's data, brought up to the newest version; raises NotUpcast.

    Where an application told nothing of the versions of its kind, it is as it was recorded.
    """
    steps = _steps.get(kind)
    if steps is None and (version == 1 or kind.startswith(_APPLICATION)):
        return text
    known = known_version(kind)
    if version > known:
        raise NotUpcast(kind, version, f"this program knows versions up to {known}")
    for current in range(version, known):
        step = (steps or {}).get(current)
        if step is None:
            raise NotUpcast(kind, version, f"no step leads from version {current}")
        text = _taken(step, kind, current, text)
    return text


def _taken(step: Step, kind: str, version: int, text: str) -> str:
    """Return the text that a step makes of a text, so that it never sees an object of another."""
    data = values.decode(text)
    try:
        data = step(data)
    except Exception as error:  # Whatever the application's own code may raise.
        raise NotUpcast(kind, version, f"the step from it raised {error!r}") from error
    try:
        return values.encode(data, root="data").decode()
    except NotStorable as error:
        told = f"{error.path} ({error.type}) {error.detail}"
        raise NotUpcast(kind, version, f"of what its step returned {told}") from error
