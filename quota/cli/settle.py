"""`quotad settle` and `quotad renew`: the end of a held request, and more time for it."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from quota.cli import show, values
from quota.cli.connection import add_server, data_client
from quota.v1 import quota_pb2

SETTLE = """Say how a request that was admitted with --request-id ended: its hold closes, and its charge is corrected.
Doing it again changes nothing and prints the same."""

SETTLE_EXAMPLES = """examples:
  quotad admit demo-pro --model glm-4.7 --tool cline --request-id r1 --hold 5m
  quotad settle demo-pro r1 --commit                 # served: what was charged stays
  quotad settle demo-pro r1 --commit --draw prompt=2 # served, and this is all that it used
  quotad settle demo-pro r1 --cancel                 # not served: what was charged is given back
"""

RENEW = """Keep a hold open for so long from now. It never gets shorter. One that has closed stays closed."""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    settle = commands.add_parser(
        "settle",
        help="end a held request: commit it or cancel it",
        description=SETTLE,
        epilog=SETTLE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_request(settle)
    outcome = settle.add_mutually_exclusive_group(required=True)
    outcome.add_argument(
        "--commit", dest="outcome", action="store_const", const=quota_pb2.COMMIT, help="it was served: it stays charged"
    )
    outcome.add_argument(
        "--cancel", dest="outcome", action="store_const", const=quota_pb2.CANCEL, help="it was not: give it back"
    )
    settle.add_argument(
        "--draw",
        metavar="METER=AMOUNT",
        type=values.draw,
        action="append",
        default=[],
        help="what it really used, all of it, whole units, with --commit; may be repeated; a meter left out counts 0 "
        "(default: what was charged)",
    )
    settle.set_defaults(run=_settle)

    renew = commands.add_parser(
        "renew",
        help="keep a hold open for longer",
        description=RENEW,
        epilog="example: quotad renew demo-pro r1 --hold 5m",
    )
    _add_request(renew)
    renew.add_argument("--hold", metavar="TIME", type=values.duration, required=True, help=f"such as {show.DURATIONS}")
    renew.set_defaults(run=_renew)

    for parser in (settle, renew):
        parser.add_argument("--json", action="store_true", help="print the answer as JSON")
        add_server(parser)


def _add_request(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("account", metavar="ACCOUNT")
    parser.add_argument("request_id", metavar="REQUEST_ID", help="that of the admission")


def _settle(arguments: argparse.Namespace) -> int:
    draws = [quota_pb2.Draw(meter=meter, amount=amount) for meter, amount in arguments.draw]
    with data_client(arguments) as client:
        response = client.settle(arguments.account, arguments.request_id, arguments.outcome, draws)
    if arguments.json:
        print(show.as_json(response))
        return 0
    ended = "committed" if arguments.outcome == quota_pb2.COMMIT else "cancelled"
    moved = [*_movements(response.charged, "on top"), *_movements(response.refunded, "given back")]
    late = "; late: its hold had closed by itself, or there was none" if response.late else ""
    print(f"{ended}: {', '.join(moved) or 'nothing moved'}{late}")
    return 0


def _movements(charges: Iterable[quota_pb2.Charge], words: str) -> list[str]:
    return [f"{charge.pool} {show.units(charge.micro)} {words}" for charge in charges]


def _renew(arguments: argparse.Namespace) -> int:
    with data_client(arguments) as client:
        response = client.renew(arguments.account, arguments.request_id, arguments.hold)
    if arguments.json:
        print(show.as_json(response))
    else:
        print(f"held until {show.moment(response.hold_expires_at_ms)}")
    return 0
