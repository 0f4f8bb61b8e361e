"""Windows: how a limit gives back what was drawn."""

from __future__ import annotations

from quota.catalog import bounds, units
from quota.catalog.document import Fields, Node
from quota.catalog.model import Span, Window, WindowKind
from quota.catalog.schedule import weekday

_KINDS = ("sliding", "cycle", "calendar", "anniversary")
_EXTRAS = {"sliding": ("step",), "calendar": ("at", "on")}
_CALENDAR = {
    "hour": Span(1, "h", bounds.HOUR_US),
    "day": Span(1, "d", bounds.DAY_US),
    "week": Span(1, "w", bounds.WEEK_US),
    "month": Span(1, "mo", months=1),
}
_ALLOWED = '{sliding: 5h}, {sliding: 5h, step: 1h}, {cycle: 5h}, {calendar: day, at: "10:00"} or {anniversary: 1mo}'


def read_window(node: Node) -> Window | None:
    """A limit's `window`. None where a problem was added."""
    fields = node.fields((), (*_KINDS, "step", "at", "on"))
    kinds = [kind for kind in _KINDS if kind in fields]
    if len(kinds) != 1:
        node.fail(f"{len(kinds)} kinds of window" if kinds else "no kind of window", f"exactly one: {_ALLOWED}")
        return None
    for extra in ("step", "at", "on"):
        stray = fields.node(extra)
        if stray is not None and extra not in _EXTRAS.get(kinds[0], ()):
            stray.fail(f"{extra!r} does not go with {kinds[0]!r}", _ALLOWED)
    if kinds[0] == "calendar":
        return _read_calendar(fields)
    if kinds[0] == "sliding":
        return _read_sliding(fields)
    if kinds[0] == "cycle":
        length = fields.value("cycle", units.window_length)
        return None if length is None else Window(kind=WindowKind.CYCLE, length=length)
    length = fields.value("anniversary", units.period)
    return None if length is None else Window(kind=WindowKind.ANNIVERSARY, length=length)


def _read_sliding(fields: Fields) -> Window | None:
    length = fields.value("sliding", units.window_length)
    step = fields.value("step", units.window_length)
    if length is None or ("step" in fields and step is None):
        return None
    if step is None:
        return Window(kind=WindowKind.SLIDING, length=length)
    steps_max = bounds.ENTRIES_MAX - 1
    if bounds.DAY_US % step.length_us or length.length_us % step.length_us:
        fields.fail("step", f"{step} does not divide both the day and {length}", "a step that divides both")
        return None
    steps = length.length_us // step.length_us
    if steps > steps_max:
        fields.fail("step", f"{length} has {steps} steps of {step}", f"at most {steps_max} steps")
        return None
    return Window(kind=WindowKind.SLIDING, length=length, step_us=step.length_us)


def _read_calendar(fields: Fields) -> Window | None:
    word = fields.value("calendar", _calendar_word)
    if word is None:
        return None
    at_us = fields.value_or("at", _past_the_hour if word == "hour" else _moment_of_day, 0)
    on = 1 if word == "month" else 0
    if word == "week":
        on = fields.value_or("on", weekday, 0)
    elif word == "month":
        on = fields.value_or("on", units.whole(1, 31), 1)
    elif "on" in fields:
        fields.fail("on", f"'on' does not go with a calendar {word}", "'on' with week (a weekday) or month (1 to 31)")
    return Window(kind=WindowKind.CALENDAR, length=_CALENDAR[word], at_us=at_us, on=on)


def _calendar_word(text: str) -> str:
    if text not in _CALENDAR:
        raise units.Wrong(f"{units.shown(text)} is no calendar window", ", ".join(_CALENDAR))
    return text


def _moment_of_day(text: str) -> int:
    time_us = units.time_of_day(text)
    if time_us == bounds.DAY_US:
        raise units.Wrong("24:00 is the next day", "00:00 to 23:59:59")
    return time_us


def _past_the_hour(text: str) -> int:
    time_us = units.time_of_day(text)
    if time_us >= bounds.HOUR_US:
        raise units.Wrong(f"{text} is more than an hour", "00:00 to 00:59:59, past every hour")
    return time_us
