"""The command `quotad`: the server, and clients of a running one.

Exit status: 0 done, or ALLOWED; 1 an error, told on stderr; 2 the command line is wrong; 3 admit or peek was refused.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import grpc

from quota.cli import accounts, ask, audit, backup, capacity, catalogs, check, clock, dump, repair, serve, settle, usage
from quota.cli.failure import Failure
from quota.errors import QuotaError
from quota.version import VERSION

EXAMPLES = """examples:
  quotad serve --demo
  quotad admit demo-lite --model glm-4.7 --tool claude-code
  quotad usage demo-lite
  quotad admit demo-lite --model glm-4.7 --tool cline --request-id r1 --hold 5m
  quotad settle demo-lite r1 --commit
  quotad accounts put ada --plan pro
  quotad check my-catalog.yaml

exit status:
  0 done, or ALLOWED; 1 an error; 2 the command line is wrong; 3 admit or peek was refused
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    try:
        parsed = _parser().parse_args(arguments)
        status: int = parsed.run(parsed)
        sys.stdout.flush()
        return status
    except Failure as failure:
        return _fail(str(failure))
    except QuotaError as error:
        return _fail(str(error))
    except grpc.RpcError as error:
        return _fail(_rpc_text(error, parsed))
    except BrokenPipeError:
        # Whoever read our output has had enough. What is still buffered must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="quotad",
        description="Decides, per request, whether a subscriber's quota allows it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"quotad {VERSION}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    clients = (ask, settle, usage, accounts, catalogs, capacity, clock, audit, dump)
    for module in (serve, check, *clients, backup, repair):
        module.add_commands(commands)
    return parser


def _fail(text: str) -> int:
    for line in text.splitlines():
        print(f"quotad: {line}", file=sys.stderr)
    return 1


def _rpc_text(error: grpc.RpcError, parsed: argparse.Namespace) -> str:
    address = parsed.address
    if error.code() == grpc.StatusCode.UNAVAILABLE and "failed to connect" in (error.details() or ""):
        return f"no server answers at {address}; {parsed.address_from} say where it is, `quotad serve` starts one"
    if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"the server at {address} did not answer in time"
    return f"{error.code().name}: {error.details()}"
