"""Schedules: named parts of the week, in wall-clock time of the catalog's zone."""

from __future__ import annotations

from quota.catalog import bounds, units
from quota.catalog.bounds import DAY_US, WEEK_US
from quota.catalog.document import Node
from quota.catalog.model import WEEKDAYS, DailySpan, Schedule
from quota.catalog.names import Names

_SPAN_ALLOWED = 'two times of day such as "14:00-18:00"; an end not after the start is on the next day'


def read_schedules(node: Node, names: Names) -> tuple[Schedule, ...]:
    """The mapping under `schedules`; defines their names."""
    schedules = []
    for key, value in node.entries(bounds.SCHEDULES_MAX, "a mapping of schedule names to lists"):
        name = key.read(units.name())
        if name is not None and names.define(key, name):
            schedules.append(Schedule(name, _read_spans(value)))
    return tuple(schedules)


def week_spans(schedule: Schedule) -> tuple[tuple[int, int], ...]:
    """Its parts as (start_us, end_us) since Monday 00:00: sorted, disjoint, joined where they touch, within 7 days."""
    pieces = sorted(piece for span in schedule.spans for piece in _week_pieces(span))
    joined: list[tuple[int, int]] = []
    for start_us, end_us in pieces:
        if joined and start_us <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end_us, joined[-1][1]))
        else:
            joined.append((start_us, end_us))
    return tuple(joined)


def _week_pieces(span: DailySpan) -> list[tuple[int, int]]:
    """One entry's parts of the week; the night from Sunday to Monday is cut at midnight."""
    length_us = span.end_us - span.start_us
    if length_us <= 0:
        length_us += DAY_US
    pieces = []
    for day in span.days:
        start_us = day * DAY_US + span.start_us
        end_us = start_us + length_us
        pieces.append((start_us, min(end_us, WEEK_US)))
        if end_us > WEEK_US:
            pieces.append((0, end_us - WEEK_US))
    return pieces


def _read_spans(node: Node) -> tuple[DailySpan, ...]:
    items = node.items(bounds.SPANS_MAX, 'a list of entries such as {daily: "14:00-18:00"}')
    if node.is_list and not items:
        node.fail("the schedule is empty", "at least one entry")
    spans: list[DailySpan] = []
    taken: list[tuple[int, int, int]] = []  # start_us, end_us, line
    for item in items:
        span = _read_span(item)
        if span is None:
            continue
        pieces = _week_pieces(span)
        met = [line for start, end, line in taken if any(piece[0] < end and start < piece[1] for piece in pieces)]
        if met:
            item.fail(f"overlaps the entry on line {met[0]} of the same schedule", "entries that do not overlap")
        taken += [(start_us, end_us, item.line) for start_us, end_us in pieces]
        spans.append(span)
    return tuple(spans)


def _read_span(node: Node) -> DailySpan | None:
    fields = node.fields(("daily",), ("on",))
    times = fields.value("daily", _times)
    days = fields.part("on", _read_days) if "on" in fields else frozenset(range(7))
    return None if times is None or days is None else DailySpan(times[0], times[1], days)


def _times(text: str) -> tuple[int, int]:
    start, dash, end = text.partition("-")
    if not dash:
        raise units.Wrong(f"{units.shown(text)} is no part of a day", _SPAN_ALLOWED)
    start_us, end_us = units.time_of_day(start.strip()), units.time_of_day(end.strip())
    if start_us == DAY_US:
        raise units.Wrong(f"{units.shown(text)} starts at 24:00", _SPAN_ALLOWED)
    return start_us, end_us


def _read_days(node: Node) -> frozenset[int] | None:
    items = node.items(len(WEEKDAYS), f"a list of weekdays: {', '.join(WEEKDAYS)}")
    if node.is_list and not items:
        node.fail("the list is empty", "at least one weekday, or no such key")
    days: set[int] = set()
    for item in items:
        day = item.read(weekday)
        if day is not None and day in days:
            item.fail(f"{WEEKDAYS[day]} stands twice", "each once")
        elif day is not None:
            days.add(day)
    return frozenset(days) if days else None


def weekday(text: str) -> int:
    """A weekday's number, 0 = Monday."""
    if text.lower() not in WEEKDAYS:
        raise units.Wrong(f"{units.shown(text)} is no weekday", ", ".join(WEEKDAYS))
    return WEEKDAYS.index(text.lower())
