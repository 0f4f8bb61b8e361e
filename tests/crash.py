"""Rounds of a server under load, killed at a random moment: what was acknowledged is there after the next start, once.

    python tests/crash.py --rounds 300 --seed 7 [--directory DIR]

Clients charge, hold, settle, batch and put accounts, each remembering what was answered and what was asked without an
answer. After the kill the next server opens the directory. It must know every id that was answered, and give the same
answer again. Asking again, by its id, whatever was not answered must then bring every account to exactly what all its
answers add up to: a lost change or one made twice leaves it elsewhere.
"""

from __future__ import annotations

import argparse
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from quota.client import AdminClient, QuotaClient, admit_request
from quota.v1 import admin_pb2, quota_pb2

ACCOUNTS = [f"crash-{number}" for number in range(8)]
CLIENTS = 6
LIMIT = "prompts-week"
KILL_AFTER_S = 0.5  # of load, at most
# Folding begins at once, and the journal's files are small, so that kills meet all that is done with them too.
PROGRAM = """
import sys
from quota.store import fold, journal
fold.FOLD_BYTES, fold.ERA_BYTES = 40_000, 10_000
journal.SEGMENT_BYTES_MIN = journal.SEGMENT_BYTES_MAX = 32_768
from quota.cli import main
sys.exit(main())
"""


@dataclass
class Server:
    """`quotad serve` on a directory."""

    directory: Path
    accounts_in_memory_max: int = 0
    process: subprocess.Popen[str] = field(init=False)
    data: str = field(init=False)
    control: str = field(init=False)
    http: str = field(init=False)

    def __post_init__(self) -> None:
        ports = ("--port", "0", "--admin-port", "0", "--http-port", "0", "--request-ids-max", "10000")
        memory = ("--accounts-in-memory-max", str(self.accounts_in_memory_max))
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "serve", *ports, *memory, "--data", str(self.directory)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def ready(self) -> None:
        line = self.process.stdout.readline()
        found = re.search(r"data (\S+) control (\S+) http (\S+)", line)
        if found is None:
            raise AssertionError(f"no start: {line}{self.process.stderr.read()}")
        self.data, self.control, self.http = found.groups()

    def replays(self) -> int:
        """How many requests this server knew by their id."""
        with urllib.request.urlopen(f"http://{self.http}/metrics", timeout=5) as response:
            return int(float(re.search(r"^quotad_replays_total (\S+)$", response.read().decode(), re.MULTILINE)[1]))

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


@dataclass
class Told:
    """What one client asked for, and what it was told, in this round; totals in micro-units by account."""

    drawn: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    answers: list[tuple[quota_pb2.AdmitRequest, quota_pb2.AdmitResponse]] = field(default_factory=list)
    admissions_open: list[quota_pb2.AdmitRequest] = field(default_factory=list)
    settlements_open: list[tuple[str, str, quota_pb2.Outcome.ValueType]] = field(default_factory=list)
    accounts: list[str] = field(default_factory=list)

    def admitted(self, request: quota_pb2.AdmitRequest, response: quota_pb2.AdmitResponse) -> None:
        assert quota_pb2.ALLOWED == response.verdict, response
        self.answers.append((request, response))
        self.drawn[request.account] += sum(charge.micro for charge in response.charged)

    def settled(self, account: str, response: quota_pb2.SettleResponse) -> None:
        self.drawn[account] -= sum(charge.micro for charge in response.refunded)


class Client:
    """Loads a server until it no longer answers."""

    def __init__(self, server: Server, name: str, seed: int) -> None:
        self.told = Told()
        self._name = name
        self._random = random.Random(seed)
        self._count = 0
        self._data = QuotaClient(server.data)
        self._admin = AdminClient(server.control)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def join(self) -> None:
        self._thread.join()
        self._data.close()
        self._admin.close()

    def _run(self) -> None:
        steps: list[Callable[[], None]] = [self._charge, self._hold, self._batch, self._put]
        try:
            while True:
                self._random.choices(steps, weights=(6, 3, 1, 1))[0]()
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE:
                raise

    def _request(self, hold_ms: int = 0) -> quota_pb2.AdmitRequest:
        self._count += 1
        return admit_request(
            self._random.choice(ACCOUNTS), model="glm-4.7", tool="cline", mode=quota_pb2.RECORD,
            request_id=f"{self._name}-{self._count}", hold_ms=hold_ms,
        )  # fmt: skip

    def _admit(self, request: quota_pb2.AdmitRequest) -> None:
        self.told.admissions_open.append(request)
        self.told.admitted(request, self._data.admit(request))
        self.told.admissions_open.pop()

    def _charge(self) -> None:
        self._admit(self._request())

    def _hold(self) -> None:
        request = self._request(hold_ms=60_000)
        self._admit(request)
        outcome = self._random.choice((quota_pb2.COMMIT, quota_pb2.CANCEL))
        self.told.settlements_open.append((request.account, request.request_id, outcome))
        self.told.settled(request.account, self._data.settle(request.account, request.request_id, outcome))
        self.told.settlements_open.pop()

    def _batch(self) -> None:
        requests = [self._request() for _ in range(20)]
        self.told.admissions_open.extend(requests)
        for request, result in zip(requests, self._data.admit_batch(requests), strict=True):
            self.told.admitted(request, result.response)
        del self.told.admissions_open[-len(requests) :]

    def _put(self) -> None:
        self._count += 1
        account = f"{self._name}-{self._count}"
        self._admin.put_account(admin_pb2.Account(id=account, plan="lite"))
        self.told.accounts.append(account)


class Rounds:
    """One directory, server after server; `drawn` is what its accounts must show."""

    def __init__(self, directory: Path, seed: int) -> None:
        self._directory = directory
        self._random = random.Random(seed)
        self.drawn: dict[str, int] = dict.fromkeys(ACCOUNTS, 0)
        self.acknowledged = 0
        self._number = 0
        server = Server(directory)
        server.ready()
        with AdminClient(server.control) as admin:
            for account in ACCOUNTS:
                admin.put_account(admin_pb2.Account(id=account, plan="max"))
        server.kill()

    def run(self) -> None:
        """One round: perhaps kill a start, load, kill, start, and compare."""
        self._number += 1
        if self._random.random() < 0.2:
            starting = Server(self._directory)
            time.sleep(self._random.random() * 0.8)
            starting.kill()
        server = Server(self._directory, self._random.choice((0, 4)))
        server.ready()
        seed = self._random.getrandbits(32)
        clients = [Client(server, f"r{self._number}c{number}", seed + number) for number in range(CLIENTS)]
        time.sleep(self._random.random() * KILL_AFTER_S)
        server.kill()
        for client in clients:
            client.join()
        after = Server(self._directory, self._random.choice((0, 4)))
        after.ready()
        with QuotaClient(after.data) as data, AdminClient(after.control) as admin:
            self._replay([client.told for client in clients], data)
            answered = sum(len(client.told.answers) for client in clients)
            assert answered == after.replays(), f"{answered - after.replays()} of {answered} answers are forgotten"
            self._compare([client.told for client in clients], data, admin)
        after.kill()

    def _replay(self, all_told: Iterable[Told], data: QuotaClient) -> None:
        for told in all_told:
            for request, response in told.answers:
                again = data.admit(request)
                assert (response.charged, response.hold_expires_at_ms) == (again.charged, again.hold_expires_at_ms), (
                    request, response, again,
                )  # fmt: skip

    def _compare(self, all_told: Iterable[Told], data: QuotaClient, admin: AdminClient) -> None:
        for told in all_told:
            self.acknowledged += len(told.answers) + len(told.accounts)
            for request in told.admissions_open:
                told.admitted(request, data.admit(request))
            for account, request_id, outcome in told.settlements_open:
                told.settled(account, data.settle(account, request_id, outcome))
            for account, micro in told.drawn.items():
                self.drawn[account] += micro
            for account in told.accounts:
                assert "lite" == admin.get_account(account).plan
        used = {
            account: next(limit.used_micro for limit in data.usage(account).limits if limit.id == LIMIT)
            for account in ACCOUNTS
        }
        assert self.drawn == used, {account: (self.drawn[account], used[account]) for account in ACCOUNTS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--directory", help="where the store is; default: a new one that is removed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        rounds = Rounds(Path(arguments.directory or temporary), arguments.seed)
        for number in range(1, arguments.rounds + 1):
            rounds.run()
            if number % 10 == 0 or number == arguments.rounds:
                told = f"{number} rounds, {rounds.acknowledged} acknowledged changes, all there and none twice"
                print(f"{told} (seed {arguments.seed})", flush=True)


if __name__ == "__main__":
    main()
