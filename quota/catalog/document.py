"""A YAML file as nodes that know their line and key path, and the collection of everything wrong in it.

The file is composed to nodes and never constructed to Python values, so a scalar keeps the text that was written:
`0.67` is parsed to the exact fraction, `2026-06-01` is not turned into a date of some zone. Quotes make no difference
to a value.

Reading never stops at a problem: whoever finds one adds it, answers None and goes on with the next key. Only at the
end is `Problems.raise_any` called, so that one run shows all there is to repair.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterator
from typing import TypeVar

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode
from ruamel.yaml.nodes import Node as RawNode
from ruamel.yaml.reader import ReaderError

from quota.catalog import bounds
from quota.catalog.units import Wrong, shown
from quota.errors import CatalogError

T = TypeVar("T")

# Tags that YAML's own rules give to untagged nodes. Anything else was written by hand and would be ignored in silence.
_OWN_KINDS = ("str", "int", "float", "bool", "null", "timestamp", "map", "seq", "merge", "value")
_OWN_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in _OWN_KINDS)
_SHOWN_MAX = 20  # names in one "allowed"


def near(text: str, known: Collection[str]) -> str:
    """` (did you mean 'x'?)` where a known name is close to the text, otherwise nothing."""
    found = difflib.get_close_matches(text, known, n=1, cutoff=0.7)
    return f" (did you mean {found[0]!r}?)" if found else ""


def listed(known: Collection[str]) -> str:
    """Names for an "allowed", the first twenty of them."""
    shown = [*known][:_SHOWN_MAX]
    rest = f", ... ({len(known)} in all)" if len(known) > len(shown) else ""
    return ", ".join(shown) + rest if shown else "none is defined"


class Problems:
    """Everything wrong, and everything odd, that was found in one file."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._found: list[tuple[int, str]] = []
        self._odd: list[tuple[int, str]] = []

    def add(self, line: int, path: str, what: str, allowed: str = "") -> None:
        """Add a problem; the one past PROBLEMS_MAX ends the reading with CatalogError."""
        self._found.append((line, self._worded(line, path, what, allowed)))
        if len(self._found) >= bounds.PROBLEMS_MAX:
            last = max(line for line, _ in self._found)
            ending = f"too many problems; only the first {bounds.PROBLEMS_MAX} are given"
            self._found.append((last, self._worded(last, "", ending, "")))
            self.raise_any()

    def warn(self, line: int, path: str, what: str) -> None:
        self._odd.append((line, self._worded(line, path, what, "")))

    def raise_any(self) -> None:
        """Raise CatalogError with every problem in the order of the file, if there is one."""
        if self._found:
            raise CatalogError([text for _, text in sorted(self._found, key=lambda entry: entry[0])])

    def warnings(self) -> tuple[str, ...]:
        return tuple(text for _, text in sorted(self._odd, key=lambda entry: entry[0]))

    def _worded(self, line: int, path: str, what: str, allowed: str) -> str:
        place = f"{self.file}:{line}: " + (f"{path}: " if path else "")
        return place + what + (f"; allowed: {allowed}" if allowed else "")


class Node:
    """One value of the file, with its line and the key path that leads to it."""

    __slots__ = ("_problems", "_raw", "line", "path")

    def __init__(self, raw: RawNode, line: int, path: str, problems: Problems) -> None:
        self._raw = raw
        self.line = line
        self.path = path
        self._problems = problems

    def fail(self, what: str, allowed: str = "") -> None:
        """Add a problem at this place."""
        self._problems.add(self.line, self.path, what, allowed)

    def warn(self, what: str) -> None:
        self._problems.warn(self.line, self.path, what)

    @property
    def is_empty(self) -> bool:
        """True where nothing, or a plain `null` or `~`, is written."""
        return _is_plain(self._raw) and self._raw.value in ("", "~", "null", "Null", "NULL")

    @property
    def is_scalar(self) -> bool:
        return isinstance(self._raw, ScalarNode) and not self.is_empty

    @property
    def is_mapping(self) -> bool:
        return isinstance(self._raw, MappingNode)

    @property
    def is_list(self) -> bool:
        return isinstance(self._raw, SequenceNode)

    def text(self, allowed: str = "a single value") -> str | None:
        """The text of a scalar as written, without its quotes."""
        if self.is_scalar:
            return str(self._raw.value)
        self.fail(f"{self._kind()} where a single value belongs", allowed)
        return None

    def read(self, reader: Callable[[str], T]) -> T | None:
        """The scalar as `reader` understands it; what the reader finds Wrong is added here."""
        text = self.text()
        if text is None:
            return None
        try:
            return reader(text)
        except Wrong as wrong:
            self.fail(wrong.what, wrong.allowed)
            return None

    def items(self, count_max: int, allowed: str = "a list") -> list[Node]:
        """The entries of a list, at most `count_max`."""
        if not isinstance(self._raw, SequenceNode):
            self.fail(f"{self._kind()} where a list belongs", allowed)
            return []
        if len(self._raw.value) > count_max:
            self.fail(f"{len(self._raw.value)} entries are too many", f"at most {count_max}")
        return [
            Node(raw, raw.start_mark.line + 1, f"{self.path}[{index}]", self._problems)
            for index, raw in enumerate(self._raw.value[:count_max])
        ]

    def entries(self, count_max: int, allowed: str = "a mapping") -> list[tuple[Node, Node]]:
        """Key and value of a mapping whose keys are names, at most `count_max` of them."""
        if not isinstance(self._raw, MappingNode):
            self.fail(f"{self._kind()} where a mapping belongs", allowed)
            return []
        if len(self._raw.value) > count_max:
            self.fail(f"{len(self._raw.value)} entries are too many", f"at most {count_max}")
        return [*self._pairs()][:count_max]

    def fields(self, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> Fields:
        """The values of a mapping with known keys. Unknown and missing ones are added as problems."""
        known = required + optional
        if not isinstance(self._raw, MappingNode):
            self.fail(f"{self._kind()} where a mapping belongs", f"a mapping with {', '.join(known)}")
            return Fields({})
        found: dict[str, Node] = {}
        for key, value in self._pairs():
            name = str(key._raw.value)
            if name in known:
                found[name] = value
            else:
                key.fail(f"unknown key {shown(name)}{near(name, known)}", ", ".join(known))
        for name in required:
            if name not in found:
                self.fail(f"the key {name!r} is missing", f"a mapping with {', '.join(required)}")
        return Fields(found)

    def _pairs(self) -> Iterator[tuple[Node, Node]]:
        # A value takes its key's line: that of a block mapping would be its first key's, that of an alias its anchor's.
        for raw_key, raw_value in self._raw.value:
            if isinstance(raw_key, ScalarNode):
                line = raw_key.start_mark.line + 1
                path = _joined(self.path, raw_key)
                yield Node(raw_key, line, path, self._problems), Node(raw_value, line, path, self._problems)

    def _kind(self) -> str:
        if isinstance(self._raw, MappingNode):
            return "a mapping"
        if isinstance(self._raw, SequenceNode):
            return "a list"
        return "nothing" if self.is_empty else shown(str(self._raw.value))


class Fields:
    """The values of one mapping with known keys. A key that is absent or unreadable reads as its default."""

    def __init__(self, nodes: dict[str, Node]) -> None:
        self._nodes = nodes

    def __contains__(self, key: str) -> bool:
        return key in self._nodes

    def node(self, key: str) -> Node | None:
        return self._nodes.get(key)

    def fail(self, key: str, what: str, allowed: str = "") -> None:
        """Add a problem at a key that is there."""
        self._nodes[key].fail(what, allowed)

    def part(self, key: str, reader: Callable[[Node], T | None]) -> T | None:
        """What `reader` makes of the key's node."""
        node = self._nodes.get(key)
        return None if node is None else reader(node)

    def value(self, key: str, reader: Callable[[str], T]) -> T | None:
        """What `reader` makes of the key's text."""
        node = self._nodes.get(key)
        return None if node is None else node.read(reader)

    def value_or(self, key: str, reader: Callable[[str], T], default: T) -> T:
        value = self.value(key, reader)
        return default if value is None else value


def compose(text: str, problems: Problems) -> Node:
    """The root of a file's text. Raises CatalogError where the text is not one YAML document of unique keys."""
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > bounds.FILE_BYTES_MAX:
        problems.add(1, "", f"the file has {size} bytes", f"at most {bounds.FILE_BYTES_MAX}")
        problems.raise_any()
    try:
        yaml = YAML(typ="safe", pure=True)
        yaml.composer.warn_double_anchors = False  # an anchor may be set anew; the later one holds from there on
        raw = yaml.compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = " ".join(part for part in (error.context, error.problem) if part)
        problems.add(mark.line + 1 if mark else 1, "", f"not YAML: {what}")
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problems.add(line, "", f"not YAML: the character U+{error.character:04X} may not stand in a file")
    except (YAMLError, ValueError, OverflowError) as error:
        problems.add(1, "", f"not YAML: {error}")
    except RecursionError:
        problems.add(1, "", "nested too deeply", "about 100 levels")
    else:
        if raw is None:
            problems.add(1, "", "the file is empty", "a mapping")
        else:
            _check_structure(raw, problems)
    problems.raise_any()
    return Node(raw, raw.start_mark.line + 1, "", problems)


def _check_structure(root: RawNode, problems: Problems) -> None:
    """Refuse duplicate keys, keys that are no names, and tags; each node once, however many aliases lead to it."""
    waiting: list[tuple[RawNode, str]] = [(root, "")]
    seen: set[int] = set()
    while waiting:
        raw, path = waiting.pop()
        if id(raw) in seen:
            continue
        seen.add(id(raw))
        if str(raw.tag) not in _OWN_TAGS:
            problems.add(raw.start_mark.line + 1, path, f"the tag {raw.tag} is not known", "no tags")
        if isinstance(raw, MappingNode):
            _check_keys(raw, path, problems)
            waiting += [(value, _joined(path, key)) for key, value in raw.value]
        elif isinstance(raw, SequenceNode):
            waiting += [(item, f"{path}[{index}]") for index, item in enumerate(raw.value)]


def _check_keys(raw: MappingNode, path: str, problems: Problems) -> None:
    lines: dict[str, int] = {}
    for key, _ in raw.value:
        line = key.start_mark.line + 1
        if not isinstance(key, ScalarNode) or (_is_plain(key) and key.value in ("", "~")):
            problems.add(line, path, "a key must be a single value", "a name")
        elif key.value in lines:
            first = lines[key.value]
            problems.add(line, path, f"the key {shown(key.value)} stands twice", f"once; it is on line {first} too")
        else:
            lines[key.value] = line


def _is_plain(raw: RawNode) -> bool:
    return isinstance(raw, ScalarNode) and raw.style is None


def _joined(path: str, key: RawNode) -> str:
    """The key path one step further; a key that would spoil the message is quoted or cut."""
    name = str(key.value) if isinstance(key, ScalarNode) else "?"
    step = name if name.isprintable() and len(name) <= 60 else shown(name)
    return f"{path}.{step}" if path else step
