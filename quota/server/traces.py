"""Traces: spans of what is served, sent by OpenTelemetry where the setting `traces` asks for it and the package is there.

A caller's `traceparent` is the parent. Spans have the method, the status and times; never an account or anything of a message.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Protocol

from quota.errors import FailedPrecondition

Metadata = Iterable[tuple[str, str | bytes]]
NativeCall = tuple[str, str, int, int, int]
"""Path, traceparent, status, and when it came and was answered, as CLOCK_MONOTONIC's nanoseconds."""


class Traces(Protocol):
    """Where spans go."""

    def call(self, path: str, metadata: Metadata) -> AbstractContextManager[None]:
        """Span a call, `/package.Service/Method`, while the block runs; what it raises is the call's status."""
        ...

    def step(self, name: str) -> AbstractContextManager[None]:
        """Span a part of the call that this thread serves, if that is traced."""
        ...

    def work(self, name: str) -> AbstractContextManager[None]:
        """Span what the server does without being called."""
        ...

    def native(self, calls: Iterable[NativeCall]) -> None:
        """Span calls that were served without Python, after the fact."""
        ...

    def close(self) -> None:
        """Send what is left."""
        ...


class Untraced:
    """Where no spans go."""

    def call(self, path: str, metadata: Metadata) -> AbstractContextManager[None]:
        return _NOTHING

    def step(self, name: str) -> AbstractContextManager[None]:
        return _NOTHING

    def work(self, name: str) -> AbstractContextManager[None]:
        return _NOTHING

    def native(self, calls: Iterable[NativeCall]) -> None:
        """Nobody is interested."""

    def close(self) -> None:
        """Nothing is left."""


_NOTHING: Final = nullcontext()
UNTRACED: Final = Untraced()


def open_traces(*, wanted: bool) -> Traces:
    """Return where spans go. Raises FailedPrecondition if they are wanted and cannot be sent."""
    if not wanted:
        return UNTRACED
    try:
        from quota.server.otel import OpenTelemetry
    except ImportError as error:
        raise FailedPrecondition(
            f"setting traces: OpenTelemetry is not installed ({error}); `pip install 'quotad[otel]'` installs it"
        ) from error
    return OpenTelemetry()
