"""How much a catalog may hold. Every bound is named in the error that enforces it, and in docs/catalog.md.

They are generous for any vendor we know of, and small enough that a catalog can neither exhaust memory nor take the
core out of the range in which its integers are exact.
"""

from __future__ import annotations

from typing import Final

SECOND_US: Final = 1_000_000
MINUTE_US: Final = 60 * SECOND_US
HOUR_US: Final = 60 * MINUTE_US
DAY_US: Final = 24 * HOUR_US
WEEK_US: Final = 7 * DAY_US

FILE_BYTES_MAX: Final = 1 << 18  # a file that large takes two seconds to read
PROBLEMS_MAX: Final = 100  # reported per file; a file with more is not worth reading on

NAME_BYTES_MAX: Final = 128  # of a catalog, model, alias, tool, endpoint, meter, pool, plan or schedule
LIMIT_ID_BYTES_MAX: Final = 64  # of a limit, burst or concurrency entry
CODE_BYTES_MAX: Final = 64
MESSAGE_BYTES_MAX: Final = 1024

POOLS_MAX: Final = 32
PROMPT_POOLS_MAX: Final = 4  # fed by meters that are per_prompt: an open prompt keeps what it paid to each
METERS_MAX: Final = 64
MODELS_MAX: Final = 4096
ALIASES_MAX: Final = 256  # of one model
WEIGHTS_MAX: Final = 64  # of one model
TOOLS_MAX: Final = 256
ENDPOINTS_MAX: Final = 64
SCHEDULES_MAX: Final = 256
SPANS_MAX: Final = 64  # entries of one schedule
PLANS_MAX: Final = 64
LIMITS_MAX: Final = 64  # of one plan, bursts included
CONCURRENCY_MAX: Final = 64  # entries of one plan
REFERENCES_MAX: Final = 256  # names in any one list: plans of a model, tools of a weight, models of a limit

WINDOW_US_MIN: Final = SECOND_US
WINDOW_US_MAX: Final = 366 * DAY_US
WINDOW_MONTHS_MAX: Final = 12

UNITS_MAX: Final = 10**12  # of a limit or a depth
PER_UNIT_PART_MAX: Final = 10**9  # numerator and denominator of per_unit
WEIGHT_DENOMINATOR_MAX: Final = 10**6
ENTRIES_MIN: Final = 4
ENTRIES_MAX: Final = 1024
ENTRIES_DEFAULT: Final = 64
IN_FLIGHT_MAX: Final = 10**6
CALLS_PER_PROMPT_MAX: Final = 10**6
LEVEL_MAX: Final = 1000
PROMPT_IDLE_US_MAX: Final = DAY_US
HOLD_US_MAX: Final = HOUR_US
RETRY_AFTER_US_MAX: Final = DAY_US
