"""The wire: what protobuf's own parser takes is read alike, and nothing else is.

All that a request says comes to light in the answer or in what the account remembers of it: the bytes of both are compared.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from fronts import Fronts
from google.protobuf.message import DecodeError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from quota.v1 import quota_pb2

CATALOG = """
catalog: open
time_zone: UTC
meters:
  unit: {pool: p, per_prompt: true}
  tenth: {pool: p, per_unit: 1/10}
  free: {pool: q}
default_meter: unit
plans:
  only:
    level: 1
    pools:
      p: [{id: s, window: {sliding: 1h}, limit: 1000000}]
      q: []
"""
FORGOTTEN_US = 7_200_000_000  # in so long every id and every hold is
VARINT, FIXED_64, DELIMITED, GROUP, GROUP_END, FIXED_32 = range(6)
DEPTH_MAX = 100


def varint(value: int, more: int = 0) -> bytes:
    """A varint, `more` bytes longer than it need be."""
    parts = [value & 127]
    while value := value >> 7:
        parts.append(value & 127)
    parts += [0] * more
    return bytes([*(part | 128 for part in parts[:-1]), parts[-1]])


def tag(field: int, kind: int, more: int = 0) -> bytes:
    return varint(field << 3 | kind, more)


def content(field: int, raw: bytes, more: int = 0) -> bytes:
    """A delimited field: text, or a message."""
    return tag(field, DELIMITED) + varint(len(raw), more) + raw


def number(field: int, value: int, more: int = 0) -> bytes:
    return tag(field, VARINT) + varint(value, more)


def groups(count: int, inside: bytes = b"") -> bytes:
    """So many groups inside one another."""
    return tag(20, GROUP) * count + inside + tag(20, GROUP_END) * count


# ---- What may stand in a message ----

TEXTS = st.one_of(
    st.sampled_from(["", "ada", "r", "unit", "tenth", "/a/", "glm-4.7", "a" * 256, "ü" * 128, "松", "🌲"]).map(str.encode),
    st.text(max_size=8).map(str.encode),
    st.sampled_from([b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xf5", b"\x80", b"\xe2\x82", b"a" * 257, b"12345678\xff"]),
    st.binary(max_size=12),
)  # fmt: skip
VALUES = st.one_of(
    st.integers(0, 3),
    st.sampled_from([10**9, 10**9 + 1, 60_000, 3_600_000, 3_600_001, 2**32, 2**32 + 1, 2**63, 2**64 - 1]),
    st.integers(0, 2**64 - 1),
)
LONGER = st.sampled_from([0, 0, 0, 0, 0, 0, 1, 4, 9])
Known = Mapping[int, st.SearchStrategy[bytes] | None]
"""The fields of a message: what may be in the delimited ones, None for numbers."""


@st.composite
def parts(draw: st.DrawFn, known: Known) -> bytes:
    """One field, mostly a known one of its type."""
    usual = draw(st.integers(0, 9)) > 0
    field = draw(st.sampled_from(list(known)) if usual else st.integers(0, 30))
    inside = known.get(field)
    kind = (VARINT if inside is None else DELIMITED) if draw(st.integers(0, 9)) else draw(st.integers(0, 7))
    start = tag(field, kind, draw(LONGER))
    if kind == VARINT:
        return start + varint(draw(VALUES), draw(LONGER))
    if kind == DELIMITED:
        raw = draw(TEXTS if inside is None else inside)
        return start + varint(len(raw), draw(LONGER)) + raw
    if kind == GROUP:
        within = draw(st.sampled_from([b"", number(3, 7), content(1, b"\xff"), groups(2), tag(5, GROUP), b"\x00"]))
        return start + within + tag(draw(st.sampled_from([field, field, field, field + 1])), GROUP_END)
    return start + draw(st.binary(max_size=9) if kind > FIXED_32 else st.just(bytes(8 if kind == FIXED_64 else 4)))


def message(known: Known, usual: bytes = b"") -> st.SearchStrategy[bytes]:
    """Some fields in any order, `usual` before or behind them."""
    some = st.lists(parts(known), max_size=6).map(b"".join)
    return st.one_of(some.map(lambda raw: usual + raw), some.map(lambda raw: raw + usual), some)


@st.composite
def damaged(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Mostly whole; else cut off, with a byte changed, or with a part of it once more."""
    raw = draw(whole)
    how, at = draw(st.integers(0, 9)), draw(st.integers(0, len(raw)))
    if how == 0:
        return raw[:at]
    if how == 1:
        return raw[:at] + draw(st.binary(min_size=1, max_size=1)) + raw[at + 1 :]
    if how == 2:
        return raw + raw[:at]
    return raw


DRAW = message({1: TEXTS, 2: None}, content(1, b"unit") + number(2, 1))
ADA = content(1, b"ada") + content(7, b"r")
ADMIT = message({**dict.fromkeys((1, 2, 3, 4, 7, 8, 10), TEXTS), 5: None, 6: DRAW, 9: None, 11: None}, ADA)
BATCH = message({1: ADMIT}, content(1, ADA))
SETTLE = message({1: TEXTS, 2: TEXTS, 3: None, 4: DRAW}, content(1, b"ada") + content(2, b"r") + number(3, 1))
RENEW = message({1: TEXTS, 2: TEXTS, 3: None}, content(1, b"ada") + content(2, b"r") + number(3, 60_000))
USAGE = message({1: TEXTS}, content(1, b"ada"))

ENTRY = message({1: st.sampled_from([b"account", b"meter", b"request_id", b"phase", b"other"]) | TEXTS, 2: TEXTS})
ADDEND = message({1: None}, number(1, 1))
ACCOUNT_ENTRY = content(1, content(1, b"account") + content(2, b"ada"))
DESCRIPTOR = message(
    {1: ENTRY, 2: TEXTS, 3: ADDEND}, ACCOUNT_ENTRY + content(1, content(1, b"meter") + content(2, b"unit"))
)
DESCRIPTORS = message({1: TEXTS, 2: DESCRIPTOR, 3: None}, content(1, b"quotad") + content(2, ACCOUNT_ENTRY))

fuzzed = settings(max_examples=600, deadline=None)


@pytest.fixture(scope="module")
def fronts() -> Fronts:
    made = Fronts([CATALOG])
    for engine in made.engines:
        engine.put_account("ada", plan="only")
    return made


def begin(fronts: Fronts) -> None:
    """A later time, at which one request is known."""
    fronts.hands.us += FORGOTTEN_US
    known = quota_pb2.AdmitRequest(account="ada", request_id="r", prompt_id="p", hold_ms=1000)
    fronts.ask("Admit", known)


@fuzzed
@given(raw=damaged(ADMIT))
@example(ADA + number(5, 2**32 + 1) + number(11, 2**63))
@example(ADA + content(4, b"/a/") + content(10, b"c") + number(9, 5, 4))
def test_admit_reads_as_protobuf_does(fronts: Fronts, raw: bytes) -> None:
    """Fields known and unknown, of any type and length, in any order, and damaged: the same answer, the same memory, or no message."""
    fronts.hands.us += FORGOTTEN_US
    fronts.ask_raw("Admit", raw)
    fronts.ask_raw("Peek", raw)
    fronts.compare_states()


@fuzzed
@given(raw=damaged(BATCH))
def test_batches_read_as_protobuf_does(fronts: Fronts, raw: bytes) -> None:
    """Likewise with requests inside a message."""
    fronts.hands.us += FORGOTTEN_US
    fronts.ask_raw("AdmitBatch", raw)
    fronts.compare_states()


@fuzzed
@given(raw=damaged(SETTLE))
@example(content(1, b"ada") + content(2, b"r") + number(3, 2**32 + 2))
def test_settle_reads_as_protobuf_does(fronts: Fronts, raw: bytes) -> None:
    """Likewise."""
    begin(fronts)
    fronts.ask_raw("Settle", raw)
    fronts.compare_states()


@fuzzed
@given(raw=st.one_of(damaged(RENEW), damaged(USAGE)))
def test_renew_and_usage_read_as_protobuf_does(fronts: Fronts, raw: bytes) -> None:
    """Likewise."""
    begin(fronts)
    fronts.ask_raw("Renew", raw)
    fronts.ask_raw("GetUsage", raw)
    fronts.compare_states()


@fuzzed
@given(raw=damaged(DESCRIPTORS))
@example(content(2, ACCOUNT_ENTRY) + number(3, 2**32) + content(1, b"quotad"))
@example(content(1, b"quotad") + content(2, ACCOUNT_ENTRY + content(3, number(1, 0)) + content(3, b"")))
@example(content(1, b"quotad") + content(2, ACCOUNT_ENTRY + content(3, number(1, 2)) + content(3, groups(97))))
def test_descriptors_read_as_protobuf_does(fronts: Fronts, raw: bytes) -> None:
    """Likewise."""
    fronts.hands.us += FORGOTTEN_US
    fronts.ask_raw("ShouldRateLimit", raw)
    fronts.compare_states()


@pytest.mark.parametrize("method", ["Admit", "AdmitBatch", "Settle", "Renew", "GetUsage", "ShouldRateLimit"])
@given(raw=st.binary(max_size=64))
def test_bytes_of_no_meaning(fronts: Fronts, method: str, raw: bytes) -> None:
    """Whatever the bytes, both take them for the same."""
    fronts.ask_raw(method, raw)


@pytest.mark.parametrize(
    ("raw", "good"),
    [
        (groups(DEPTH_MAX), True),
        (groups(DEPTH_MAX + 1), False),
        (content(6, content(1, b"unit") + groups(DEPTH_MAX - 1)), True),
        (content(6, content(1, b"unit") + groups(DEPTH_MAX)), False),
        (groups(3, content(1, b"\xff") + bytes([20 << 3 & 127 | 128 | 5, 1, 0, 0, 0, 0])), True),
        (tag(2, DELIMITED, 4) + varint(1) + b"m", True),
        (tag(2, DELIMITED, 5) + varint(1) + b"m", False),
        (content(2, b"m", 4), True),
        (content(2, b"m", 5), False),
        (number(5, 1, 9), True),
        (number(5, 1, 10), False),
        (tag(5, VARINT) + b"\xff" * 9 + b"\x7f", False),
        (tag(11, VARINT) + b"\xff" * 9 + b"\x7f", True),
        (tag(2, DELIMITED) + varint(2**31 - 1), False),
        (tag(2, DELIMITED) + varint(2**35 - 1), False),
        (varint(2**32 + (30 << 3)) + b"\1", False),
        (varint(2**32 - 8) + b"\1", True),
        (b"\x00\x01", False),
        (tag(30, GROUP_END), False),
        (tag(30, GROUP), False),
        (tag(30, 6), False),
        (tag(30, 7), False),
        (tag(30, FIXED_64) + bytes(7), False),
        (tag(30, FIXED_32) + bytes(4), True),
        (content(1, b"\xff") + content(1, b"ada"), False),
    ],
)
def test_where_the_bounds_are(fronts: Fronts, raw: bytes, good: bool) -> None:
    """Each is one step inside or outside of what is a message in range."""
    begin(fronts)
    answer = fronts.ask_raw("Admit", content(1, b"ada") + raw)

    assert good == isinstance(answer, quota_pb2.AdmitResponse)


def test_the_depth_of_an_item(fronts: Fronts) -> None:
    """A batch takes one off the depth that its items may have."""
    inside = content(1, b"ada") + groups(DEPTH_MAX - 1)

    assert not isinstance(fronts.ask_raw("AdmitBatch", content(1, inside)), DecodeError)
    assert isinstance(fronts.ask_raw("AdmitBatch", content(1, inside + groups(DEPTH_MAX))), DecodeError)


@given(
    st.lists(st.integers(0x0, 0x10FFFF) | st.integers(0xD7F0, 0xE010), max_size=6),
    st.binary(max_size=3),
    st.integers(0, 9),
)
def test_text_is_utf_8(fronts: Fronts, points: list[int], more: bytes, at: int) -> None:
    """What Python decodes as UTF-8 is text, with any bytes put in between; nothing else is."""
    raw = b"".join(chr(point).encode("utf-8", "surrogatepass") for point in points)
    raw = raw[:at] + more + raw[at:]
    try:
        raw.decode()
    except UnicodeDecodeError:
        good = False
    else:
        good = True

    assert good != isinstance(fronts.ask_raw("Peek", content(1, b"ada") + content(2, raw)), DecodeError)
