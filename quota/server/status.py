"""Which gRPC status each error has: one table for every method on both ports."""

from __future__ import annotations

from typing import Final

import grpc
from google.protobuf.message import DecodeError

from quota.errors import (
    AlreadyExists,
    CatalogError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    StoreError,
    Unavailable,
)

# The text of a status travels in an HTTP/2 header, and peers drop a response whose headers are larger than some KB.
DETAILS_CHARS_MAX: Final = 2_000

STATUS: Final[dict[type[Exception], grpc.StatusCode]] = {
    InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    CatalogError: grpc.StatusCode.INVALID_ARGUMENT,
    DecodeError: grpc.StatusCode.INVALID_ARGUMENT,
    AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    NotFound: grpc.StatusCode.NOT_FOUND,
    FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    StoreError: grpc.StatusCode.UNAVAILABLE,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
}


def status_code(error: Exception) -> grpc.StatusCode:
    """Return the status of an error that is in the table."""
    return STATUS[type(error)]


def status_number(error: Exception) -> int:
    """Return the status as gRPC numbers it, for errors that are told inside an answer."""
    number: int = STATUS[type(error)].value[0]
    return number


def details(error: Exception) -> str:
    """Return the text that goes with the status; it fits a header."""
    text = str(error)
    return text if len(text) <= DETAILS_CHARS_MAX else text[: DETAILS_CHARS_MAX - 3] + "..."
