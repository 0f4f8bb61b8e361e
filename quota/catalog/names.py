"""The names a catalog defines, and what refers to them.

Models, aliases and tools match without regard to (ASCII) case, everything else exactly. A reference is answered with
the name as the catalog defines it, so that nothing behind the loader folds case again.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator

from quota.catalog import bounds, units
from quota.catalog.document import Node, listed, near

_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def fold(text: str) -> str:
    """The text with A-Z as a-z. Other letters stay: their case depends on the language."""
    return text.translate(_LOWER)


class Names:
    """The names of one kind, in the order in which they were defined."""

    def __init__(
        self, kind: str, *, reader: Callable[[str], str] | None = None, folded: bool = False, is_open: bool = False
    ) -> None:
        """`is_open`: the catalog lists none, so any may be named; the first spelling of each is kept."""
        self.kind = kind
        self._folded = folded
        self._reader = reader or units.name()
        self._is_open = is_open
        self._defined: dict[str, tuple[str, int]] = {}

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._defined.values())

    def __len__(self) -> int:
        return len(self._defined)

    def define(self, node: Node, name: str) -> bool:
        """Take a name; a problem if it is taken."""
        taken = self._defined.get(self._key(name))
        if taken is not None:
            node.fail(f"the {self.kind} {name!r} is defined twice", f"each once; it is on line {taken[1]} too")
            return False
        self._defined[self._key(name)] = (name, node.line)
        return True

    def find(self, node: Node) -> str | None:
        """The defined name that this node refers to; a problem if there is none."""
        name = node.read(self._reader)
        return None if name is None else self.resolve(node, name)

    def resolve(self, node: Node, name: str) -> str | None:
        """The same for a name already read."""
        defined = self._defined.get(self._key(name))
        if defined is not None:
            return defined[0]
        if self._is_open:
            self._defined[self._key(name)] = (name, node.line)
            return name
        node.fail(f"unknown {self.kind} {units.shown(name)}{near(name, [*self])}", listed([*self]))
        return None

    def find_all(self, node: Node) -> tuple[str, ...] | None:
        """A list of at least one name, each once."""
        found: list[str] = []
        items = node.items(bounds.REFERENCES_MAX, f"a list of {self.kind} names")
        if node.is_list and not items:
            node.fail("the list is empty", f"at least one {self.kind}, or no such key")
        for item in items:
            name = self.find(item)
            if name is not None and name in found:
                item.fail(f"{name!r} stands twice", "each once")
            elif name is not None:
                found.append(name)
        return tuple(found) if found else None

    def _key(self, name: str) -> str:
        return fold(name) if self._folded else name


class ModelNames:
    """Models with their aliases. Whatever a request may say for a model can be claimed once."""

    def __init__(self) -> None:
        self._claims: dict[str, tuple[str, int]] = {}  # folded name, alias or pattern -> model, line
        self._models: dict[str, str] = {}  # folded -> as defined
        self._matches: dict[str, tuple[str, ...]] = {}

    def define(self, node: Node, name: str) -> bool:
        """Take a model's own name; call it for every model before any `claim`."""
        if "*" in name:
            node.fail(f"{name!r}: a model's own name holds no '*'", "a name; patterns are aliases")
            return False
        if not self.claim(node, name, name):
            return False
        self._models[fold(name)] = name
        return True

    def claim(self, node: Node, alias: str, model: str) -> bool:
        """Take a name, alias or pattern for a model; a problem if it is taken, or has a `*` before its end."""
        if "*" in alias[:-1]:
            node.fail(f"{alias!r}: '*' stands only at the end", "a name, or a beginning followed by '*'")
            return False
        taken = self._claims.get(fold(alias))
        if taken is not None:
            what = "pattern" if alias.endswith("*") else "alias" if fold(alias) != fold(model) else "name"
            node.fail(f"the {what} {alias!r} is claimed twice", f"each once; {taken[0]} has it on line {taken[1]}")
            return False
        self._claims[fold(alias)] = (model, node.line)
        return True

    def match_all(self, node: Node) -> tuple[str, ...] | None:
        """The models that a list of names and patterns covers, in the catalog's order; it must cover something."""
        found: set[str] = set()
        items = node.items(bounds.REFERENCES_MAX, "a list of model names, or of beginnings followed by '*'")
        if node.is_list and not items:
            node.fail("the list is empty", "at least one model, or no such key")
        for item in items:
            text = item.read(units.name())
            if text is not None:
                found.update(self._match(item, text))
        return tuple(name for name in self._models.values() if name in found) if found else None

    def _match(self, node: Node, text: str) -> tuple[str, ...]:
        key = fold(text)
        if key not in self._matches:
            if key.endswith("*"):
                found = tuple(name for folded, name in self._models.items() if folded.startswith(key[:-1]))
            else:
                found = (self._models[key],) if key in self._models else ()
            self._matches[key] = found
        if not self._matches[key]:
            self._fail_unmatched(node, text)
        return self._matches[key]

    def _fail_unmatched(self, node: Node, text: str) -> None:
        models = [*self._models.values()]
        claim = self._claims.get(fold(text))
        if "*" in text[:-1]:
            node.fail(f"{text!r}: '*' stands only at the end", "a name, or a beginning followed by '*'")
        elif claim is not None:
            node.fail(f"{text!r} is an alias of {claim[0]}; limits go by canonical names", listed(models))
        elif text.endswith("*"):
            node.fail(f"the pattern {text!r} matches no model", listed(models))
        else:
            node.fail(f"unknown model {units.shown(text)}{near(text, models)}", listed(models))
