"""Refusals: how the vendor words each of our verdicts."""

from __future__ import annotations

import re
from collections.abc import Mapping

from quota.catalog import bounds, units
from quota.catalog.document import Node, listed, near
from quota.catalog.model import Refusal
from quota.types import Verdict

PLACEHOLDERS = ("number", "unit", "next_flush_time", "model_name", "meter")
_PLACEHOLDER = re.compile(r"\$\{([^}]*)(\}?)")

# What a catalog that says nothing answers: the verdict's own name, a fitting HTTP status, one plain sentence.
_GENERIC: dict[Verdict, tuple[int, str]] = {
    Verdict.ACCOUNT_UNKNOWN: (401, "There is no such account."),
    Verdict.ACCOUNT_INACTIVE: (403, "The subscription has not started yet."),
    Verdict.ACCOUNT_BANNED: (403, "The account is banned."),
    Verdict.ACCOUNT_SUSPENDED: (403, "The account is suspended."),
    Verdict.SUBSCRIPTION_EXPIRED: (403, "The subscription has expired."),
    Verdict.TOOL_UNSUPPORTED: (403, "The plan does not cover this tool."),
    Verdict.ENDPOINT_UNSUPPORTED: (403, "The plan does not cover this endpoint."),
    Verdict.MODEL_UNKNOWN: (404, "There is no model ${model_name}."),
    Verdict.MODEL_NOT_IN_PLAN: (403, "The plan does not include ${model_name}."),
    Verdict.METER_NOT_IN_PLAN: (403, "The plan does not include ${meter}."),
    Verdict.ACCOUNT_RESTRICTED: (429, "The account is restricted."),
    Verdict.AMOUNT_TOO_LARGE: (400, "The request is larger than the plan's limit."),
    Verdict.LIMIT_EXHAUSTED: (429, "The limit for ${number} ${unit} is used up. It resets at ${next_flush_time}."),
    Verdict.BURST: (429, "Too many requests in a short time."),
    Verdict.CONCURRENCY: (429, "Too many requests at the same time."),
    Verdict.OVERLOADED: (503, "The platform is overloaded."),
}


def generic_refusals() -> dict[str, Refusal]:
    """Every refusal, by verdict name, for a catalog that words none."""
    return {
        verdict.name: Refusal(code=verdict.name, http_status=http_status, message=message)
        for verdict, (http_status, message) in _GENERIC.items()
    }


def read_refusals(node: Node) -> Mapping[str, Refusal]:
    """The mapping under `refusals`, filled up with generic ones."""
    refusals = generic_refusals()
    for key, value in node.entries(len(Verdict), "a mapping of verdicts to refusals"):
        name = key.read(units.name())
        if name in refusals:
            refusals[name] = read_refusal(value, refusals[name])
        elif name is not None:
            key.fail(f"unknown verdict {units.shown(name)}{near(name, refusals)}", listed(refusals))
    return refusals


def read_refusal(node: Node, default: Refusal) -> Refusal:
    """One refusal; what it leaves out is taken from `default`."""
    fields = node.fields((), ("code", "http_status", "message", "retry_after"))
    retry_after = fields.value("retry_after", _RETRY_AFTER)
    return Refusal(
        code=fields.value_or("code", units.name(bounds.CODE_BYTES_MAX), default.code),
        http_status=fields.value_or("http_status", units.whole(200, 599), default.http_status),
        message=fields.value_or("message", _message, default.message),
        retry_after_us=default.retry_after_us if retry_after is None else retry_after.length_us,
    )


_RETRY_AFTER = units.duration(bounds.SECOND_US, bounds.RETRY_AFTER_US_MAX, "1s to 1d")


def _message(text: str) -> str:
    units.name(bounds.MESSAGE_BYTES_MAX)(text)
    for match in _PLACEHOLDER.finditer(text):
        if not match[2] or match[1] not in PLACEHOLDERS:
            raise units.Wrong(
                f"unknown placeholder {match[0]}{near(match[1], PLACEHOLDERS)}",
                ", ".join(f"${{{name}}}" for name in PLACEHOLDERS),
            )
    return text
