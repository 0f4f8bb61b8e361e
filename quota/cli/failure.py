"""What ends a command."""

from __future__ import annotations


class Failure(Exception):  # noqa: N818  # it is no error of the program's: something told in a line or a few, and exit 1
    """A command cannot go on. The text is for the person who typed it."""
