"""`quotad admit` and `quotad peek`."""

from __future__ import annotations

import argparse

from rich.console import Console

from quota.cli import show, values
from quota.cli.connection import add_server, data_client
from quota.cli.usage import limits_table
from quota.client import admit_request
from quota.v1 import quota_pb2

REFUSED = 3

EXAMPLES = """examples:
  quotad {name} demo-lite --model glm-4.7 --tool claude-code
  quotad {name} demo-pro --tool cline --draw web_search=2 --draw prompt=0 --explain
  quotad {name} demo-pro --model glm-5 --tool cline --request-id r1 --hold 5m   # then settle it, or renew it

exit status: 0 ALLOWED, 3 refused, 1 an error, 2 the command line is wrong
"""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    for name, meaning in (("admit", "decide a request and charge it"), ("peek", "say what admit would say")):
        parser = commands.add_parser(
            name,
            help=meaning,
            description=meaning.capitalize() + ".",
            epilog=EXAMPLES.format(name=name),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.add_argument("account", metavar="ACCOUNT")
        parser.add_argument("--model", default="", help="as the client names it; aliases and any case are understood")
        parser.add_argument("--tool", default="", help="the coding tool that asks")
        parser.add_argument("--endpoint", default="", help="the path that was called")
        parser.add_argument("--client", metavar="NAME", default="", help="the device or user behind the account")
        parser.add_argument(
            "--draw",
            metavar="METER=AMOUNT",
            type=values.draw,
            action="append",
            default=[],
            help="what the request uses, whole units; may be repeated (default: one of the catalog's default meter)",
        )
        parser.add_argument(
            "--request-id",
            metavar="ID",
            default="",
            help="asking again with the same id and content gives the same answer and charges once",
        )
        parser.add_argument(
            "--prompt-id", metavar="ID", default="", help="the prompt it belongs to: its calls cost one prompt together"
        )
        parser.add_argument(
            "--hold",
            metavar="TIME",
            type=values.duration,
            default=0,
            help=f"take a place in the plan's concurrency for so long, such as {show.DURATIONS}; needs --request-id "
            "(default: what the plan says, mostly none)",
        )
        parser.add_argument(
            "--record", action="store_true", help="it has happened already: charge it past any limit (mode RECORD)"
        )
        parser.add_argument("--explain", action="store_true", help="show every limit touched, also those with room")
        parser.add_argument("--json", action="store_true", help="print the answer as JSON")
        add_server(parser)
        parser.set_defaults(run=_ask, ask=name)


def _ask(arguments: argparse.Namespace) -> int:
    request = admit_request(
        arguments.account,
        model=arguments.model,
        tool=arguments.tool,
        endpoint=arguments.endpoint,
        mode=quota_pb2.RECORD if arguments.record else quota_pb2.ENFORCE,
        request_id=arguments.request_id,
        prompt_id=arguments.prompt_id,
        hold_ms=arguments.hold,
        client=arguments.client,
        explain=arguments.explain,
    )
    # Added as typed: whether a meter may be named twice is the server's to say.
    request.draws.extend(quota_pb2.Draw(meter=meter, amount=amount) for meter, amount in arguments.draw)
    with data_client(arguments) as client:
        response = client.admit(request) if arguments.ask == "admit" else client.peek(request)
    if arguments.json:
        print(show.as_json(response))
    else:
        print(_sentence(response, peeked=arguments.ask == "peek"))
        if arguments.explain and response.limits:
            Console().print(limits_table(response.limits))
    return 0 if response.verdict == quota_pb2.ALLOWED else REFUSED


def _sentence(response: quota_pb2.AdmitResponse, *, peeked: bool) -> str:
    """Say the decision in a line."""
    if response.verdict == quota_pb2.ALLOWED:
        charged = ", ".join(f"{charge.pool} {show.units(charge.micro)}" for charge in response.charged) or "nothing"
        model = f" {response.model}" if response.model else ""
        charges, held = ("would charge", "would be held") if peeked else ("charged", "held")
        hold = f"; {held} until {show.moment(response.hold_expires_at_ms)}" if response.hold_expires_at_ms else ""
        return f"ALLOWED{model}: {charges} {charged} (weight {show.units(response.weight_micro)}){hold}"
    wait = "waiting will not help"
    if response.HasField("retry_after_ms"):
        wait = f"retry in {show.duration(response.retry_after_ms)}"
    if response.HasField("resets_at_ms"):
        wait += f" (resets {show.moment(response.resets_at_ms)})"
    verdict = show.plain(response)["verdict"]
    vendor = response.vendor
    return f'{verdict} {response.rule}: {wait}; vendor {vendor.code} "{vendor.message}"'
