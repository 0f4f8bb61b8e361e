"""How a method becomes bytes to bytes, and a handler of grpcio's: parse, serve, answer or refuse, time it, trace it.

grpcio answers INTERNAL when a deserializer raises, but bytes that are no message are the caller's fault. So the
handlers take raw bytes and parse them themselves, and what goes wrong there passes through the same table as the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from functools import partial
from time import perf_counter
from typing import Any, Final, NoReturn, Protocol, cast
from urllib.parse import unquote

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message

from quota.server.front_metrics import RpcTimer
from quota.server.status import STATUS, details, status_code
from quota.server.traces import Traces

Method = Callable[[Any], Message | Iterator[Message]]
"""Takes the request, or an iterator of them, and returns the response, or an iterator of them, as its method in the proto.

Raises the errors of the status table."""


class Call(Protocol):
    """What a handler may ask of the call that it serves: the part of grpcio's ServicerContext that both fronts have."""

    def peer(self) -> str:
        """Return the caller's address."""
        ...

    def time_remaining(self) -> float | None:
        """Return the seconds until the caller's deadline, None without one."""
        ...

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        """Return the names and values that came with the call."""
        ...


Answering = Callable[[bytes, Call], bytes]
"""Takes a request message and returns the response message of a unary method. Raises the errors of the status table."""

Spanning = Callable[[grpc.ServicerContext], AbstractContextManager[None]]
"""Spans a call of grpcio's while it is served."""

_CALL: Final[ContextVar[Call]] = ContextVar("call")


def current_call() -> Call:
    """Return the call that is being served, within a method."""
    return _CALL.get()


def caller() -> str:
    """Return who asks, within a method: the peer's address, such as `127.0.0.1:51234`."""
    # grpcio writes `ipv4:127.0.0.1:51234` and `ipv6:%5B::1%5D:51234`.
    return unquote(current_call().peer()).removeprefix("ipv4:").removeprefix("ipv6:")


def answerings(service: ServiceDescriptor, methods: Mapping[str, Method]) -> dict[str, Answering]:
    """Return the unary methods of a service from bytes to bytes, by their full path."""
    return {
        f"/{service.full_name}/{method.name}": _answering(_parser(_request_class(method)), methods[method.name])
        for method in service.methods
        if method.name in methods and not (method.client_streaming or method.server_streaming)
    }


def service_handler(
    service: ServiceDescriptor, methods: Mapping[str, Method], timer: RpcTimer, traces: Traces
) -> grpc.GenericRpcHandler:
    """Make one service's handlers. Methods of `service` that are not in `methods` answer UNIMPLEMENTED."""
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {}
    for method in service.methods:
        if method.name not in methods:
            continue
        parse = _parser(_request_class(method))
        observe = timer.observer(f"{service.name}/{method.name}")
        serve = methods[method.name]
        span = partial(_span, traces, f"/{service.full_name}/{method.name}")
        if method.client_streaming:
            handlers[method.name] = grpc.stream_unary_rpc_method_handler(_stream_handler(parse, serve, observe, span))
        elif method.server_streaming:
            handlers[method.name] = grpc.unary_stream_rpc_method_handler(_answers_handler(parse, serve, observe, span))
        else:
            handlers[method.name] = grpc.unary_unary_rpc_method_handler(
                _unary_handler(_answering(parse, serve), observe, span)
            )
    return grpc.method_handlers_generic_handler(service.full_name, handlers)


def _request_class(method: MethodDescriptor) -> type[Message]:
    return message_factory.GetMessageClass(method.input_type)


def _parser(message: type[Message]) -> Callable[[bytes], Message]:
    name = message.DESCRIPTOR.full_name

    def parse(raw: bytes) -> Message:
        try:
            return message.FromString(raw)
        except DecodeError:
            raise DecodeError(f"message: {len(raw)} bytes that are no {name}; allowed: its protobuf encoding") from None

    return parse


def _answering(parse: Callable[[bytes], Message], serve: Method) -> Answering:
    def answer(raw: bytes, call: Call) -> bytes:
        _CALL.set(call)
        return cast(Message, serve(parse(raw))).SerializeToString()

    return answer


def _unary_handler(
    answer: Answering, observe: Callable[[float], None], span: Spanning
) -> Callable[[bytes, grpc.ServicerContext], bytes]:
    def handle(raw: bytes, context: grpc.ServicerContext) -> bytes:
        began = perf_counter()
        try:
            with span(context):
                return answer(raw, context)
        except tuple(STATUS) as error:
            _refuse(context, error)
        finally:
            observe(perf_counter() - began)

    return handle


def _stream_handler(
    parse: Callable[[bytes], Message], serve: Method, observe: Callable[[float], None], span: Spanning
) -> Callable[[Iterator[bytes], grpc.ServicerContext], bytes]:
    def handle(raws: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        began = perf_counter()
        _CALL.set(context)
        try:
            with span(context):
                return cast(Message, serve(map(parse, raws))).SerializeToString()
        except tuple(STATUS) as error:
            _refuse(context, error)
        finally:
            observe(perf_counter() - began)

    return handle


def _answers_handler(
    parse: Callable[[bytes], Message], serve: Method, observe: Callable[[float], None], span: Spanning
) -> Callable[[bytes, grpc.ServicerContext], Iterator[bytes]]:
    def handle(raw: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        began = perf_counter()
        _CALL.set(context)
        try:
            with span(context):
                for answer in cast(Iterator[Message], serve(parse(raw))):
                    yield answer.SerializeToString()
        except tuple(STATUS) as error:
            _refuse(context, error)
        finally:
            observe(perf_counter() - began)

    return handle


def _span(traces: Traces, path: str, context: grpc.ServicerContext) -> AbstractContextManager[None]:
    return traces.call(path, context.invocation_metadata() or ())


def _refuse(context: grpc.ServicerContext, error: Exception) -> NoReturn:
    context.abort(status_code(error), details(error))
    raise AssertionError("abort raises")
