"""Access to grpcio's ports: by bearer token, and by the names in the peer's certificate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, cast

import grpc

from quota.server.tokens import ONLY_READ, UNKNOWN, Role, Tokens, least_role

NAMELESS: Final = "the peer's certificate bears no name that is allowed"


class Access(grpc.ServerInterceptor):
    """Looks at every call before its handler does. Without `client_names` any is good."""

    def __init__(self, tokens: Tokens, client_names: frozenset[str]) -> None:
        self._tokens = tokens
        self._client_names = client_names

    def intercept_service(self, continuation: Callable[[Any], Any], details: grpc.HandlerCallDetails) -> Any:
        """Return the method's handler behind the look; None, which is UNIMPLEMENTED, where there is none."""
        handler = continuation(details)
        if handler is None:
            return None
        least = least_role(details.method)

        def behind(serve: Callable[[Any, grpc.ServicerContext], Any]) -> Callable[[Any, grpc.ServicerContext], Any]:
            def look_and_serve(request: Any, context: grpc.ServicerContext) -> Any:
                self._look(context, least)
                return serve(request, context)

            return look_and_serve

        kind = ("stream" if handler.request_streaming else "unary", "stream" if handler.response_streaming else "unary")
        make = getattr(grpc, "{}_{}_rpc_method_handler".format(*kind))
        serve = getattr(handler, "_".join(kind))
        return make(behind(serve), handler.request_deserializer, handler.response_serializer)

    def _look(self, context: grpc.ServicerContext, least: Role) -> None:
        if self._client_names and not self._client_names & _names(context):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, NAMELESS)
        if least == Role.NONE:
            return
        shown = dict(context.invocation_metadata() or ()).get("authorization")
        role = self._tokens.role_of(shown)
        if role == Role.NONE:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, UNKNOWN)
        if role < least:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, ONLY_READ)


def _names(context: grpc.ServicerContext) -> frozenset[str]:
    """The DNS names and URIs of the peer's certificate."""
    found: Mapping[str, Iterable[bytes]] = cast(Any, context.auth_context())
    return frozenset(name.decode() for key in ("peer_dns", "peer_uri") for name in found.get(key, ()))
