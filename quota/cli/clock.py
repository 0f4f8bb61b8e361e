"""`quotad clock`: show the server's clock, accept a step of the wall clock."""

from __future__ import annotations

import argparse

from quota.cli import show
from quota.cli.connection import add_admin_server, control_client


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    clock = commands.add_parser("clock", help="show the server's clock, accept a step of the wall clock")
    actions = clock.add_subparsers(title="commands", metavar="COMMAND", required=True)
    showing = actions.add_parser("show", help="show the server's clock beside the wall clock")
    showing.add_argument("--json", action="store_true", help="print the answer as JSON")
    showing.set_defaults(run=_show)
    accepting = actions.add_parser(
        "accept",
        help="adopt a forward step of the wall clock",
        description="Adopt a forward step of the wall clock, which the server has not followed. "
        "A backward one is never adopted.",
    )
    accepting.set_defaults(run=_accept)
    for parser in (showing, accepting):
        add_admin_server(parser)


def _show(arguments: argparse.Namespace) -> int:
    with control_client(arguments) as client:
        state = client.get_clock()
    if arguments.json:
        print(show.as_json(state))
        return 0
    print(f"server {show.moment(state.now_ms)}, wall clock {show.moment(state.wall_ms)}, alarms {state.alarms}")
    if state.step_ms:
        direction = "forward" if state.step_ms > 0 else "back"
        print(f"the wall clock was set {direction} by {show.duration(abs(state.step_ms))}; the server has not followed")
    return 0


def _accept(arguments: argparse.Namespace) -> int:
    with control_client(arguments) as client:
        adopted_ms = client.accept_clock()
    if adopted_ms:
        print(f"the server's clock went forward by {show.duration(adopted_ms)}")
    else:
        print("there was no step to accept")
    return 0
