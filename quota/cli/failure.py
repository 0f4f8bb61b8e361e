"""What ends a command."""

from __future__ import annotations


class Failure(Exception):
    """A command cannot go on, through no fault of the program's. The text is for the person who typed it."""
