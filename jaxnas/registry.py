"""Tables: one for each kind of thing, which lists, help, searches, tests and the README are read from."""

import difflib
from collections.abc import Mapping
from typing import Generic, TypeVar

Entry = TypeVar("Entry")


class Table(dict[str, Entry], Generic[Entry]):
    """{name: entry} of one kind."""

    def __init__(self, what: str, entries: Mapping[str, Entry]) -> None:
        super().__init__(entries)
        self.what = what

    def register(self, name: str, entry: Entry) -> Entry:
        """Adds an entry.

        Raises:
            ValueError: for a name that is taken, or that is not of lower-case letters, digits, dashes and underscores.
        """
        if name in self:
            raise ValueError(f"there is a {self.what} {name!r} already: register yours under another name")
        if not name or set(name) - set("abcdefghijklmnopqrstuvwxyz0123456789-_"):
            raise ValueError(f"a {self.what} is named by lower-case letters, digits, dashes and underscores: not {name!r}")
        self[name] = entry
        return entry

    def find(self, name: str) -> Entry:
        """The entry of a name; ValueError, with what it may have meant, where there is none."""
        if name not in self:
            near = difflib.get_close_matches(name, self, 3)
            known = f"did you mean {' or '.join(near)}? See jaxnas list" if near else f"choose one of {', '.join(self)}"
            raise ValueError(f"unknown {self.what} {name!r}: {known}")
        return self[name]
