"""How a method becomes a gRPC handler: parse, serve, answer or refuse, time it.

grpcio answers INTERNAL when a deserializer raises, but bytes that are no message are the caller's fault. So the
handlers take raw bytes and parse them themselves, and what goes wrong there passes through the same table as the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from time import perf_counter
from typing import Any, NoReturn

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import DecodeError, Message

from quota.server.metrics import RpcTimer
from quota.server.status import STATUS, details, status_code

Method = Callable[[Any], Message]
"""Takes the request, or an iterator of them, and returns the response. Raises the errors of the status table."""


def service_handler(
    service: ServiceDescriptor, methods: Mapping[str, Method], timer: RpcTimer
) -> grpc.GenericRpcHandler:
    """Make one service's handlers. Methods of `service` that are not in `methods` answer UNIMPLEMENTED."""
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {}
    for method in service.methods:
        if method.name not in methods:
            continue
        parse = _parser(message_factory.GetMessageClass(method.input_type))
        observe = timer.observer(f"{service.name}/{method.name}")
        if method.client_streaming:
            streaming = _stream_handler(parse, methods[method.name], observe)
            handlers[method.name] = grpc.stream_unary_rpc_method_handler(streaming)
        else:
            handlers[method.name] = grpc.unary_unary_rpc_method_handler(
                _unary_handler(parse, methods[method.name], observe)
            )
    return grpc.method_handlers_generic_handler(service.full_name, handlers)


def _parser(message: type[Message]) -> Callable[[bytes], Message]:
    name = message.DESCRIPTOR.full_name

    def parse(raw: bytes) -> Message:
        try:
            return message.FromString(raw)
        except DecodeError:
            raise DecodeError(f"message: {len(raw)} bytes that are no {name}; allowed: its protobuf encoding") from None

    return parse


def _unary_handler(
    parse: Callable[[bytes], Message], serve: Method, observe: Callable[[float], None]
) -> Callable[[bytes, grpc.ServicerContext], bytes]:
    def handle(raw: bytes, context: grpc.ServicerContext) -> bytes:
        began = perf_counter()
        try:
            return serve(parse(raw)).SerializeToString()
        except tuple(STATUS) as error:
            _refuse(context, error)
        finally:
            observe(perf_counter() - began)

    return handle


def _stream_handler(
    parse: Callable[[bytes], Message], serve: Method, observe: Callable[[float], None]
) -> Callable[[Iterator[bytes], grpc.ServicerContext], bytes]:
    def handle(raws: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        began = perf_counter()
        try:
            return serve(map(parse, raws)).SerializeToString()
        except tuple(STATUS) as error:
            _refuse(context, error)
        finally:
            observe(perf_counter() - began)

    return handle


def _refuse(context: grpc.ServicerContext, error: Exception) -> NoReturn:
    context.abort(status_code(error), details(error))
    raise AssertionError("abort raises")
