"""Turn the operations that a document describes into rules, in the order of decision.

A path may match the templates of several operations. The more concrete template decides, segment by segment from the
left (OpenAPI, Paths Object: "concrete (non-templated) paths would be matched before their templated counterparts").
Sometimes neither is more concrete, as with ``/users/{id}/posts`` and ``/users/me/{section}``. Then the document does
not say which operation a router chooses for ``/users/me/posts``. So an additional rule before the two requires both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Final

from scopeguard.conditions import Condition
from scopeguard.errors import ConfigurationError
from scopeguard.rules import Access, Rule
from scopeguard.rules.overlap import Overlaps, is_narrower
from scopeguard.rules.rule import METHODS, strictest
from scopeguard.rules.template_syntax import Many, One, Step, Template
from scopeguard.scopes import Requirement, all_of, any_of, conditions_in, scopes_in
from scopeguard.spec.error_body import ErrorBody

_SEGMENTS: Final = re.compile(r"\{[^{}]*:segments\}")
_MOST_INTERSECTIONS: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """An operation: *method* on *path*, a template of :class:`~scopeguard.rules.Rule`, with *access*.

    *source* says where it is declared. Raises :class:`ConfigurationError` if *path* is not such a template.
    """

    method: str
    path: str
    access: Requirement | Access
    source: str
    # True if {name:segments} was replaced by a number of parameters. Such an operation is for comparisons only.
    unrolled: bool = False
    template: Template = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "template", Template.parse(self.path))
        except ConfigurationError as error:
            raise ConfigurationError(f"{self.source}: {error}") from None

    @property
    def key(self) -> tuple[str, str]:
        """A key that is equal for operations that match the same requests."""
        return self.method, self.template.shape

    def rule(self, error_body: ErrorBody | None) -> Rule:
        """Return the rule for this operation. Raises :class:`ConfigurationError` with its source."""
        registered = self.method in METHODS
        try:
            return Rule(
                self.path,
                self.access,
                (self.method,) if registered else None,
                source=self.source,
                # additionalOperations of OpenAPI 3.2 may have any method.
                extension_methods=() if registered else (self.method,),
                error_body=error_body,
            )
        except ConfigurationError as error:
            raise ConfigurationError(f"{self.source}: {error}") from None


def rules_of(operations: Iterable[Operation], error_body: ErrorBody | None = None) -> tuple[Rule, ...]:
    """Return the rules for *operations*, in the order of decision."""
    merged = _merge(operations)
    return tuple(operation.rule(error_body) for operation in sorted((*merged, *_intersections(merged)), key=_rank))


def _merge(operations: Iterable[Operation]) -> list[Operation]:
    """Return *operations*, with those of the same method and template combined into one."""
    found: dict[tuple[str, str], Operation] = {}
    for operation in operations:
        earlier = found.get(operation.key)
        found[operation.key] = operation if earlier is None else _combine(earlier, operation, earlier.path)
    return list(found.values())


def _combine(one: Operation, other: Operation, path: str) -> Operation:
    """Return one operation at *path* that requires what both require."""
    if one.access == other.access:
        return replace(one, path=path, unrolled=False)
    source = f"{one.source} and {other.source.partition(': ')[2]}"
    try:
        access = strictest(one.access, other.access)
        if isinstance(access, Requirement):
            access = _absorb(access)
        return replace(one, path=path, access=access, source=source, unrolled=False)
    except ConfigurationError as error:
        raise ConfigurationError(f"{source}: {error}") from None


def _absorb(requirement: Requirement) -> Requirement:
    """Return *requirement* without the alternatives that need more than another of its alternatives."""
    every = requirement.alternatives
    if len(every) == 1:
        return requirement
    kept = [needed for needed in every if not any(less < needed for less in every)]
    return any_of(*(all_of(*(_items(requirement, needed))) for needed in kept))


def _items(requirement: Requirement, needed: frozenset[str | Condition]) -> tuple[str | Condition, ...]:
    """Return the items of one alternative, scopes in the order in which a challenge names them."""
    scopes = requirement.first if needed == requirement.alternatives[0] else sorted(scopes_in(needed))
    return (*scopes, *sorted(conditions_in(needed), key=str))


# The order of templates by concreteness


def _rank(operation: Operation) -> tuple[object, ...]:
    """Return a key that sorts more concrete templates first. HEAD comes before GET, whose rules cover HEAD too."""
    end = (5, 0, "")  # a template that continues after {name:segments} is more concrete than one that ends
    return (operation.method != "HEAD", [*map(_step_rank, operation.template.steps), end], operation.method)


def _step_rank(step: Step) -> tuple[int, int, str]:
    match step:
        case One((literal,)):
            return (0, 0, literal)
        case One(literals):
            size = sum(map(len, literals))
            return (1 if size else 2, -size, "*".join(literals))
        case Many(tail):
            return (3, -len(tail), tail)
        case _:
            return (4, 0, "")


def _intersections(operations: list[Operation]) -> list[Operation]:
    """Return operations for paths that two templates match, if neither of them is more concrete."""
    added: list[Operation] = []
    overlaps: dict[tuple[str, int], Overlaps[Operation]] = {}
    known = {operation.key for operation in operations}
    compared: set[tuple[str, str]] = set()
    # The given operations are compared first, because they decide if an unrolled one has the same template.
    several = [operation for operation in operations if _SEGMENTS.search(operation.path)]
    unrolled = [each for operation in several for each in _unroll(operation, operations)]
    todo = [*reversed(unrolled), *(operation for operation in reversed(operations) if operation not in several)]
    while todo:
        operation = todo.pop()
        steps = operation.template.steps
        same_length = overlaps.setdefault((operation.method, len(steps)), Overlaps())
        for met in same_length.find_overlaps(steps):
            shared = _common_operation(met, operation)
            if shared is not None and shared.key not in known:
                known.add(shared.key)
                added.append(shared)
                todo.append(shared)
        if operation.key not in compared:
            compared.add(operation.key)
            same_length.add(steps, operation)
        if len(added) > _MOST_INTERSECTIONS:
            raise ConfigurationError(f"{operation.source}: too many templates match the same paths")
    return added


def _unroll(operation: Operation, operations: list[Operation]) -> list[Operation]:
    """Return *operation* with its ``{name:segments}`` replaced by parameters, once for each length to compare.

    The lengths are those of the other operations, and one at which two operations with ``{name:segments}`` match the
    same path if any path matches both.
    """
    several = len(_SEGMENTS.findall(operation.path))
    lengths = {len(other.template.steps) for other in operations if other.method == operation.method}
    found: list[Operation] = []
    for length in sorted({*lengths, 2 * max(lengths)}):
        spare = length - len(operation.template.steps)
        for counts in product(range(spare + 1), repeat=several) if spare >= 0 else ():
            if sum(counts) == spare:
                path = operation.path
                for count in counts:
                    path = _SEGMENTS.sub("/".join(["{part}"] * (count + 1)), path, count=1)
                found.append(replace(operation, path=path, unrolled=True))
    return found


def _common_operation(one: Operation, other: Operation) -> Operation | None:
    """Return an operation for the paths that both *one* and *other* match; ``None`` if their own rules suffice."""
    if one.access == other.access:
        return None
    chosen: list[str] = []
    narrower_at_a_step = [False, False]
    steps = zip(one.template.steps, other.template.steps, strict=True)
    texts = zip(one.path.split("/")[1:], other.path.split("/")[1:], strict=True)
    for (left, right), (text, another) in zip(steps, texts, strict=True):
        left_fits, right_fits = is_narrower(left, right), is_narrower(right, left)
        if not left_fits and not right_fits:
            raise _undecided_error(one, other, text, another)
        narrower_at_a_step[0] |= not right_fits
        narrower_at_a_step[1] |= not left_fits
        chosen.append(text if left_fits else another)
    if all(narrower_at_a_step):
        if one.unrolled and other.unrolled:
            raise _undecided_error(one, other, one.path, other.path)
        return _combine(one, other, "/" + "/".join(chosen))
    for operation, narrower, wider in ((one, narrower_at_a_step[0], other), (other, narrower_at_a_step[1], one)):
        if narrower and operation.unrolled and not wider.unrolled:
            # Its own rule has {name:segments} and comes after the other rule.
            return replace(operation, unrolled=False)
    return None


def _undecided_error(one: Operation, other: Operation, text: str, another: str) -> ConfigurationError:
    return ConfigurationError(
        f"{one.source}: {text!r}, and {another!r} of {other.source.partition(': ')[2]}, match the same texts, and "
        "neither is more concrete, so no rule can decide; change one of the templates"
    )
