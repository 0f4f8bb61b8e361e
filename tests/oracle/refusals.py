"""Refusals: which limit decides, how long to wait, and the vendor's words."""

from __future__ import annotations

import math
from collections.abc import Mapping

from oracle.inquiry import Inquiry, Terms
from oracle.segments import FOREVER
from oracle.values import MICRO, Answer, Ask, Refused, ceil_ms
from quota.catalog.model import Limit, Refusal, WindowKind
from quota.types import VendorRefusal, Verdict

UNIT_WORDS = {"s": "second", "m": "minute", "h": "hour", "d": "day", "w": "week", "mo": "month", "y": "year"}
NO_WORDS = {"number": "0", "unit": "", "next_flush_time": "never", "model_name": "", "meter": ""}


def early(inquiry: Inquiry, refused: Refused, at: int, now: int) -> Answer:
    """Any verdict before AMOUNT_TOO_LARGE: with a wait where time alone will cure it."""
    fit = None
    if refused.verdict in (Verdict.ACCOUNT_INACTIVE, Verdict.MODEL_NOT_IN_PLAN, Verdict.METER_NOT_IN_PLAN):
        fit = cured_at(inquiry, max(at, inquiry.subscriber.subscribed_at))
    return timed(inquiry, refused, fit, now, frees_at=fit)


def cured_at(inquiry: Inquiry, start: int) -> int | None:
    try:
        inquiry.check_tool()
        inquiry.check_model()
    except Refused:
        return None
    return None if inquiry.never_fits(start) else inquiry.search(start)[0]


def by_limits(inquiry: Inquiry, terms: Terms, at: int, now: int) -> Answer:
    """AMOUNT_TOO_LARGE, LIMIT_EXHAUSTED or BURST."""
    refusing = [limit for limit in inquiry.touched if inquiry.refuses(limit, terms, at)]
    windows = [limit for limit in refusing if limit.window.kind is not WindowKind.BUCKET]
    blocked = [limit for limit in refusing if limit.limit_micro == 0]
    too_large = [limit for limit in refusing if inquiry.needed(limit, terms) > limit.limit_micro]
    if blocked:
        verdict, fit, frees_at, decided = Verdict.LIMIT_EXHAUSTED, None, None, blocked[0]
    elif too_large and inquiry.never_fits(at):
        verdict, fit, frees_at, decided = Verdict.AMOUNT_TOO_LARGE, None, None, too_large[0]
    else:
        fit, terms_then = inquiry.search(at)
        verdict = Verdict.LIMIT_EXHAUSTED if windows else Verdict.BURST
        decided = max(windows or refusing, key=lambda limit: inquiry.frees_at(limit, terms_then, at))
        frees_at = inquiry.frees_at(decided, terms_then, at) if fit is None else fit
    shown = inquiry.touched if inquiry.ask.explain else refusing
    return timed(
        inquiry, Refused(verdict, decided.id), fit, now, limit=decided, frees_at=frees_at,
        weight_micro=math.floor(terms.weight * MICRO),
        limits=tuple(inquiry.limit_state(limit, at, inquiry.state(limit)) for limit in shown),
    )  # fmt: skip


def by_holds(inquiry: Inquiry, refused: Refused, terms: Terms, at: int) -> Answer:
    """CONCURRENCY or OVERLOADED: nobody knows when a call in flight ends, so the catalog gives a hint."""
    blocked = inquiry.subscriber.overrides.get(refused.rule) == 0
    hint = inquiry.catalog.refusals[refused.verdict.name].retry_after_us
    shown = inquiry.touched if inquiry.ask.explain else []
    return Answer(
        verdict=refused.verdict,
        model=inquiry.model_name,
        rule=refused.rule,
        weight_micro=math.floor(terms.weight * MICRO),
        retry_after_ms=None if blocked else ceil_ms(hint),
        limits=tuple(inquiry.limit_state(limit, at, inquiry.state(limit)) for limit in shown),
        catalog=inquiry.version.name,
        vendor=vendor(inquiry, refused, None, inquiry.model_name, None),
    )


def timed(
    inquiry: Inquiry, refused: Refused, fit: int | None, now: int, *,
    frees_at: int | None, limit: Limit | None = None, **fields,
) -> Answer:  # fmt: skip
    """`fit` is when the request fits, None = never; `frees_at` what the vendor's words say. No wait past the subscription."""
    expires_at = inquiry.subscriber.expires_at
    wait = None
    if fit is not None and fit < FOREVER and not (expires_at and fit >= expires_at):
        wait = ceil_ms(fit - now)
    model = inquiry.model.name if inquiry.model else inquiry.ask.model
    return Answer(
        verdict=refused.verdict,
        model=model,
        rule=refused.rule,
        retry_after_ms=wait,
        resets_at_ms=None if wait is None else ceil_ms(fit),
        catalog=inquiry.version.name,
        vendor=vendor(inquiry, refused, limit, model, frees_at),
        **fields,
    )


def vendor(inquiry: Inquiry, refused: Refused, limit: Limit | None, model: str, frees_at: int | None) -> VendorRefusal:
    """The catalog's words, or the deciding limit's own if it is used up. The time is told also past the subscription's end."""
    refusal = inquiry.catalog.refusals[refused.verdict.name]
    words = {**NO_WORDS, "model_name": model, "meter": refused.meter}
    if limit is not None:
        if limit.refusal is not None and refused.verdict in (Verdict.LIMIT_EXHAUSTED, Verdict.BURST):
            refusal = limit.refusal
        words["number"], words["unit"] = str(limit.window.length.number), UNIT_WORDS[limit.window.length.unit]
    if frees_at is not None and frees_at < FOREVER:
        words["next_flush_time"] = inquiry.clock.shown(frees_at)
    return worded(refusal, words)


def worded(refusal: Refusal, words: Mapping[str, str]) -> VendorRefusal:
    message = refusal.message
    for word, value in words.items():
        message = message.replace("${" + word + "}", value)
    return VendorRefusal(refusal.code, refusal.http_status, message)


def unknown(refusal: Refusal, ask: Ask) -> Answer:
    words = {**NO_WORDS, "model_name": ask.model}
    return Answer(verdict=Verdict.ACCOUNT_UNKNOWN, model=ask.model, rule="account", vendor=worded(refusal, words))
