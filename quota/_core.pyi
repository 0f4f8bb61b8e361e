from collections.abc import Iterable, Mapping, Sequence
from typing import Final, final

from quota.catalog.spec import CatalogSpec
from quota.errors import InvalidArgument
from quota.types import CatalogVersion, LimitState, Mode, Usage, Verdict, VendorRefusal

ACCOUNT_BYTES_MAX: Final[int]
NAME_BYTES_MAX: Final[int]
DRAWS_MAX: Final[int]
AMOUNT_MAX: Final[int]

@final
class Rules:
    def __init__(self, spec: CatalogSpec, version: str) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...

@final
class Request:
    def __init__(
        self,
        account: str,
        *,
        model: str = "",
        tool: str = "",
        endpoint: str = "",
        mode: Mode = ...,
        draws: Mapping[str, int] | None = None,
        request_id: str = "",
        prompt_id: str = "",
        hold_ms: int = 0,
        client: str = "",
        explain: bool = False,
    ) -> None: ...
    @property
    def account(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def tool(self) -> str: ...
    @property
    def endpoint(self) -> str: ...
    @property
    def draws(self) -> dict[str, int]: ...
    @property
    def explain(self) -> bool: ...

@final
class Decision:
    @property
    def verdict(self) -> Verdict: ...
    @property
    def allowed(self) -> bool: ...
    @property
    def model(self) -> str: ...
    @property
    def rule(self) -> str: ...
    @property
    def charged(self) -> dict[str, int]: ...
    @property
    def weight_micro(self) -> int: ...
    @property
    def retry_after_ms(self) -> int | None: ...
    @property
    def resets_at_ms(self) -> int | None: ...
    @property
    def limits(self) -> tuple[LimitState, ...]: ...
    @property
    def catalog(self) -> CatalogVersion | None: ...
    @property
    def vendor(self) -> VendorRefusal | None: ...
