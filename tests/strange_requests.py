"""Requests as no client should send them, and what each front says. Where the fronts differ, it is on purpose."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass

from http2_peer import GRPC_HEADERS, Headers, framed

from quota.client import admit_request

SERVICE = "/quota.v1.QuotaService/"
PEEK = SERVICE + "Peek"  # what it refuses or serves leaves both servers alike
HEALTH = "/grpc.health.v1.Health/"
MESSAGE_BYTES_MAX = 65_536

# ---- What differs on purpose: the rows of docs/front.md, by their first column ----

DIFFERENCES = {
    "Words": "a status that the transport finds, before any handler is asked",
    "Framing": "none or several messages, or half of one, in a unary call; bytes behind it; a flag that is neither 0 nor 1",
    "Content type": "one that is not gRPC's",
    "HTTP": "a method other than POST, or no `te`",
    "HTTP rules": "what RFC 9113 calls malformed",
    "Encoding": "a `grpc-encoding` that is not known",
    "Timeout": "a `grpc-timeout` of nine digits",
    "Binary metadata": "a `-bin` value that is not base64",
    "Header list": "longer than `header_bytes_max`",
    "Health": "Watch and List on the data port",
}


@dataclass(frozen=True)
class Case:
    """A request as it travels, and what comes of it: `native` and `grpcio` where `row` says why they differ, else the same."""

    body: bytes
    told: str
    path: str = PEEK
    headers: Headers = GRPC_HEADERS
    method: str = "POST"
    row: str = ""
    grpcio: str = ""


def with_headers(*more: tuple[str, str], without: str = "") -> Headers:
    """gRPC's headers, with some in their place or beside them, or without one."""
    names = {without, *(name for name, _ in more)}
    return (*(pair for pair in GRPC_HEADERS if pair[0] not in names), *more)


ASK = admit_request("demo-max", model="glm-4.7", tool="cline").SerializeToString()
GZIP = with_headers(("grpc-encoding", "gzip"))
DEFLATE = with_headers(("grpc-encoding", "deflate"))
NO_ACCOUNT = "INVALID_ARGUMENT account: '' is not allowed; allowed: 1 to 256 bytes of UTF-8, this is 0"
BY_CHANCE = "(now this, now that)"
BAD_TIMEOUT = "INTERNAL Error parsing 'grpc-timeout' metadata"
NO_DESERIALIZING = "INTERNAL Exception deserializing request!"
CUT_SHORT = "INTERNAL The call ended before its message was whole"
ONE_MESSAGE = "UNIMPLEMENTED \"b'/quota.v1.QuotaService/Peek'\" requires exactly one request message."


def timeout(text: str) -> Headers:
    return with_headers(("grpc-timeout", text))


def unknown_field(size: int) -> bytes:
    """A field that no message has, so many bytes long all told."""
    return b"\xfa\x3f" + bytes([size - 5 & 127 | 128, (size - 5) >> 7 & 127 | 128, (size - 5) >> 14]) + bytes(size - 5)


CASES = {
    # Framing
    "one message": Case(framed(ASK), "OK"),
    "an empty message": Case(framed(b""), NO_ACCOUNT),
    "no message": Case(b"", CUT_SHORT, row="Framing", grpcio=ONE_MESSAGE),
    "half a prefix": Case(b"\0\0\0", CUT_SHORT, row="Framing", grpcio=ONE_MESSAGE),
    "half a message": Case(framed(ASK)[:-3], CUT_SHORT, row="Framing", grpcio=ONE_MESSAGE),
    "two messages": Case(framed(ASK) * 2, "INTERNAL More than one message in a unary call", row="Framing", grpcio="OK"),
    "a byte behind": Case(framed(ASK) + b"\0", "INTERNAL More than one message in a unary call", row="Framing", grpcio="OK"),
    "flag 2": Case(framed(ASK, 2), "INTERNAL Invalid gRPC frame flag", row="Framing", grpcio=BY_CHANCE),
    "as long as may be": Case(framed(unknown_field(MESSAGE_BYTES_MAX - len(ASK)) + ASK), "OK"),
    "longer than may be": Case(
        framed(unknown_field(MESSAGE_BYTES_MAX - len(ASK)) + ASK + b"\0"),
        "RESOURCE_EXHAUSTED The message is longer than message_bytes_max",
        row="Words", grpcio="RESOURCE_EXHAUSTED SERVER: Received message larger than max (65537 vs. 65536)",
    ),
    # Compression
    "gzip": Case(framed(gzip.compress(ASK), 1), "OK", headers=GZIP),
    "deflate": Case(framed(zlib.compress(ASK), 1), "OK", headers=DEFLATE),
    "gzip named, not used": Case(framed(ASK), "OK", headers=GZIP),
    "gzip of nothing": Case(framed(b"", 1), NO_ACCOUNT, headers=GZIP),
    "gzip of a bad request": Case(framed(gzip.compress(b"\xff"), 1),
        "INVALID_ARGUMENT message: 1 bytes that are no quota.v1.AdmitRequest; allowed: its protobuf encoding", headers=GZIP),
    "no gzip": Case(framed(b"plain", 1),
        "INTERNAL The message is not gzip: Error -3 while decompressing data: incorrect header check", headers=GZIP,
        row="Words", grpcio="INTERNAL Decompression failed due to zlib error"),
    "gzip called deflate": Case(framed(gzip.compress(ASK), 1),
        "INTERNAL The message is not deflate: Error -3 while decompressing data: incorrect header check", headers=DEFLATE,
        row="Words", grpcio="INTERNAL Decompression failed due to zlib error"),
    "gzip cut short": Case(framed(gzip.compress(ASK)[:-9], 1), "INTERNAL The message is not gzip: it ends too early",
        headers=GZIP, row="Words", grpcio="INTERNAL Decompression failed due to data error"),
    "more behind the gzip": Case(framed(gzip.compress(ASK) * 2, 1), "INTERNAL The message is not gzip: there is more behind its end",
        headers=GZIP, row="Words", grpcio="INTERNAL Decompression failed due to not all input consumed"),
    "a gzip bomb": Case(framed(gzip.compress(bytes(10_000_000)), 1), "RESOURCE_EXHAUSTED The message is longer than message_bytes_max",
        headers=GZIP, row="Words", grpcio="RESOURCE_EXHAUSTED Decompressed message larger than max"),
    "flag without encoding": Case(framed(ASK, 1), "INTERNAL Compressed message without grpc-encoding",
        row="Words", grpcio="INTERNAL Compression bit set but no encoding configured"),
    "flag with identity": Case(framed(ASK, 1), "INTERNAL Compressed message without grpc-encoding",
        headers=with_headers(("grpc-encoding", "identity")), row="Words",
        grpcio="INTERNAL Compression bit set but no encoding configured"),
    "unknown encoding": Case(framed(ASK, 1), "UNIMPLEMENTED This grpc-encoding is not known",
        headers=with_headers(("grpc-encoding", "snappy")), row="Encoding",
        grpcio="INTERNAL Error parsing 'grpc-encoding' metadata"),
    "gzip asked for": Case(framed(ASK), "OK", headers=with_headers(("grpc-accept-encoding", "gzip"))),
    # Headers
    "with +proto": Case(framed(ASK), "OK", headers=with_headers(("content-type", "application/grpc+proto"))),
    "with a parameter": Case(framed(ASK), "OK", headers=with_headers(("content-type", "application/grpc;charset=utf-8"))),
    "JSON by gRPC": Case(framed(ASK), "HTTP 415", headers=with_headers(("content-type", "application/grpc+json")),
        row="Content type", grpcio="OK"),
    "gRPC-Web": Case(framed(ASK), "HTTP 415", headers=with_headers(("content-type", "application/grpc-web")),
        row="Content type", grpcio="OK"),
    "no content type": Case(framed(ASK), "HTTP 415", headers=with_headers(without="content-type"), row="Content type", grpcio="OK"),
    "GET": Case(framed(ASK), "HTTP 405", method="GET", row="HTTP", grpcio="RST INTERNAL_ERROR"),
    "PUT": Case(framed(ASK), "HTTP 405", method="PUT", row="HTTP", grpcio="RST INTERNAL_ERROR"),
    "no te": Case(framed(ASK), "OK", headers=with_headers(without="te"), row="HTTP", grpcio="RST INTERNAL_ERROR"),
    "a wrong te": Case(framed(ASK), "RST PROTOCOL_ERROR", headers=with_headers(("te", "gzip")), row="HTTP rules",
        grpcio="INTERNAL Error parsing 'te' metadata"),
    "upper case": Case(framed(ASK), "RST PROTOCOL_ERROR", headers=with_headers(("X-Upper", "1")), row="HTTP rules",
        grpcio="INTERNAL Illegal header key: X-Upper"),
    "connection": Case(framed(ASK), "RST PROTOCOL_ERROR", headers=with_headers(("connection", "close")),
        row="HTTP rules", grpcio="OK"),
    "a wrong length": Case(framed(ASK), "RST PROTOCOL_ERROR", headers=with_headers(("content-length", "3")),
        row="HTTP rules", grpcio="OK"),
    "a right length": Case(framed(ASK), "OK", headers=with_headers(("content-length", str(len(ASK) + 5)))),
    "metadata": Case(framed(ASK), "OK", headers=with_headers(
        ("x-a", "1"), ("x-a", "2"), ("x-b-bin", "AAEC"), ("x-c", ""), ("user-agent", "a b/1"), ("grpc-trace-bin", "AA"))),
    "metadata of 7 KB": Case(framed(ASK), "OK", headers=with_headers(("x-a", "a" * 7000))),
    "bad binary metadata": Case(framed(ASK), "OK", headers=with_headers(("x-b-bin", "!!")), row="Binary metadata",
        grpcio="INTERNAL Error parsing 'x-b-bin' metadata: illegal base64 encoding"),
    "a long header list": Case(framed(ASK), "RESOURCE_EXHAUSTED The header list is longer than header_bytes_max",
        headers=with_headers(*((f"x-{number}", "a" * 1000) for number in range(16))), row="Header list", grpcio="OK"),
    # Deadlines
    "ten seconds": Case(framed(ASK), "OK", headers=timeout("10S")),
    "11,415 years": Case(framed(ASK), "OK", headers=timeout("99999999H")),
    "no time at all": Case(framed(ASK), "DEADLINE_EXCEEDED Deadline Exceeded", headers=timeout("0S")),
    "no time in nanoseconds": Case(framed(ASK), "DEADLINE_EXCEEDED Deadline Exceeded", headers=timeout("0n")),
    "a word for a time": Case(framed(ASK), BAD_TIMEOUT, headers=timeout("soon")),
    "a negative time": Case(framed(ASK), BAD_TIMEOUT, headers=timeout("-1S")),
    "a time without unit": Case(framed(ASK), BAD_TIMEOUT, headers=timeout("10")),
    "an empty time": Case(framed(ASK), BAD_TIMEOUT, headers=timeout("")),
    "nine digits": Case(framed(ASK), BAD_TIMEOUT, headers=timeout("100000000u"), row="Timeout", grpcio="OK"),
    # Methods
    "no such method": Case(framed(ASK), "UNIMPLEMENTED Method not found!", path=SERVICE + "Refund"),
    "no such service": Case(framed(ASK), "UNIMPLEMENTED Method not found!", path="/x"),
    "no path": Case(framed(ASK), "UNIMPLEMENTED Method not found!", path="/"),
    "a query": Case(framed(ASK), "UNIMPLEMENTED Method not found!", path=PEEK + "?x=1"),
    "the control port's": Case(framed(b""), "UNIMPLEMENTED Method not found!", path="/quota.v1.AdminService/GetCapacity"),
    "reflection": Case(framed(b""), "UNIMPLEMENTED Method not found!",
        path="/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"),
    # Messages
    "no protobuf": Case(framed(b"\xff"),
        "INVALID_ARGUMENT message: 1 bytes that are no quota.v1.AdmitRequest; allowed: its protobuf encoding"),
    "no UTF-8": Case(framed(b"\x0a\x01\xff"),
        "INVALID_ARGUMENT message: 3 bytes that are no quota.v1.AdmitRequest; allowed: its protobuf encoding"),
    "unknown fields": Case(framed(unknown_field(100) + ASK), "OK"),
    "a text to be encoded": Case(framed(admit_request("ü%\n" * 100).SerializeToString()),
        "INVALID_ARGUMENT account: '" + "%C3%BC%25\\n" * 19 + "... is not allowed; allowed: 1 to 256 bytes of UTF-8, this is 400"),
    "an id in use for something else": Case(framed(admit_request("demo-max", model="glm-4.6", tool="cline", request_id="🌲")
        .SerializeToString()), "ALREADY_EXISTS request_id '%F0%9F%8C%B2' of account 'demo-max' stands for another request"),
    # Health
    "health": Case(framed(b""), "OK", path=HEALTH + "Check"),
    "health of a service": Case(framed(b"\x0a\x15quota.v1.QuotaService"), "OK", path=HEALTH + "Check"),
    "health of an empty name": Case(framed(b"\x0a\0"), "OK", path=HEALTH + "Check"),
    "health of two names": Case(framed(b"\x0a\x01x\x0a\0"), "OK", path=HEALTH + "Check"),
    "health with more fields": Case(framed(b"\x08\x01" + unknown_field(300)), "OK", path=HEALTH + "Check"),
    "health by gzip": Case(framed(gzip.compress(b""), 1), "OK", path=HEALTH + "Check", headers=GZIP),
    "health of nobody": Case(framed(b"\x0a\x01x"), "NOT_FOUND", path=HEALTH + "Check"),
    "health of a long name": Case(framed(b"\x0a\x80\x02" + b"x" * 256), "NOT_FOUND", path=HEALTH + "Check"),
    "health of no text": Case(framed(b"\x0a\x01\xff"), NO_DESERIALIZING, path=HEALTH + "Check"),
    "health by no protobuf": Case(framed(b"\xff"), NO_DESERIALIZING, path=HEALTH + "Check"),
    "health watched": Case(framed(b""), "UNIMPLEMENTED Method not found!", path=HEALTH + "List", row="Health",
        grpcio="UNIMPLEMENTED Method not implemented!"),
}  # fmt: skip
