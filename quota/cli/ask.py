"""`quotad admit` and `quotad peek`."""

from __future__ import annotations

import argparse
import re

from rich.console import Console

from quota.cli import show
from quota.cli.connection import add_server
from quota.cli.usage import limits_table
from quota.client import QuotaClient, admit_request
from quota.v1 import quota_pb2

REFUSED = 3

EXAMPLES = """examples:
  quotad {name} demo-lite --model glm-4.7 --tool claude-code
  quotad {name} demo-pro --tool cline --draw web_search=2 --draw prompt=0 --explain

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
        parser.add_argument("--client", default="", help="the device or user behind the account")
        parser.add_argument(
            "--draw",
            metavar="METER=AMOUNT",
            type=_draw,
            action="append",
            default=[],
            help="what the request uses, whole units; may be repeated (default: one of the catalog's default meter)",
        )
        parser.add_argument("--explain", action="store_true", help="show every limit touched, also those with room")
        parser.add_argument("--json", action="store_true", help="print the answer as JSON")
        add_server(parser)
        parser.set_defaults(run=_ask, ask=name)


def _draw(text: str) -> tuple[str, int]:
    match = re.fullmatch(r"(?P<meter>[^=]+)=(?P<amount>[0-9]{1,18})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; allowed: METER=AMOUNT, such as web_search=2")
    return match["meter"], int(match["amount"])


def _ask(arguments: argparse.Namespace) -> int:
    request = admit_request(
        arguments.account,
        model=arguments.model,
        tool=arguments.tool,
        endpoint=arguments.endpoint,
        client=arguments.client,
        explain=arguments.explain,
    )
    # Added as typed: whether a meter may be named twice is the server's to say.
    request.draws.extend(quota_pb2.Draw(meter=meter, amount=amount) for meter, amount in arguments.draw)
    with QuotaClient(arguments.address) as client:
        response = client.admit(request) if arguments.ask == "admit" else client.peek(request)
    if arguments.json:
        print(show.as_json(response))
    else:
        print(_sentence(response, charges="charged" if arguments.ask == "admit" else "would charge"))
        if arguments.explain and response.limits:
            Console().print(limits_table(response.limits))
    return 0 if response.verdict == quota_pb2.ALLOWED else REFUSED


def _sentence(response: quota_pb2.AdmitResponse, *, charges: str) -> str:
    """Say the decision in a line."""
    if response.verdict == quota_pb2.ALLOWED:
        charged = ", ".join(f"{charge.pool} {show.units(charge.micro)}" for charge in response.charged) or "nothing"
        model = f" {response.model}" if response.model else ""
        return f"ALLOWED{model}: {charges} {charged} (weight {show.units(response.weight_micro)})"
    wait = "waiting will not help"
    if response.HasField("retry_after_ms"):
        wait = f"retry in {show.duration(response.retry_after_ms)}"
    if response.HasField("resets_at_ms"):
        wait += f" (resets {show.moment(response.resets_at_ms)})"
    verdict = show.plain(response)["verdict"]
    vendor = response.vendor
    return f'{verdict} {response.rule}: {wait}; vendor {vendor.code} "{vendor.message}"'
