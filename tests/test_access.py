"""Who is let in: bearer tokens with roles, TLS, and the names that a peer's certificate must bear."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from certificates import Authority
from conftest import Running
from grpc_health.v1 import health_pb2, health_pb2_grpc

from quota import settings
from quota.cli import main
from quota.client import AdminClient, QuotaClient, Secrets, admit_request
from quota.errors import FailedPrecondition, InvalidArgument
from quota.server.server import ADMIN_SERVICE, QUOTA_SERVICE
from quota.server.tls import tls_files
from quota.server.tokens import Role, Tokens, least_role
from quota.settings import Settings
from quota.v1 import admin_pb2, quota_pb2

WRITE, READ = "VXqB1m0cK3r8dZp5JtLw", "nT7sQe2aHy4uFb9kXc6v"
TOKENS = f"- {{name: gateway, token: {WRITE}, role: write}}\n- {{name: board, token: {READ}, role: read}}\n"
ADMIT = admit_request("demo-max", model="glm-4.7", tool="cline")

Serve = Callable[..., Running]
Connect = Callable[[Running, Secrets], tuple[QuotaClient, AdminClient]]


@pytest.fixture(params=["native", "grpcio"])
def front(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Make clients of both ports, which close after the test."""
    made: list[QuotaClient | AdminClient] = []

    def both(running: Running, secrets: Secrets) -> tuple[QuotaClient, AdminClient]:
        data = QuotaClient(running.addresses.data, secrets=secrets, timeout_s=5)
        admin = AdminClient(running.addresses.control, secrets=secrets, timeout_s=5)
        made.extend((data, admin))
        return data, admin

    yield both
    for client in made:
        client.close()


def status(call: Callable[[], object]) -> str:
    """How a call ends."""
    try:
        call()
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "tokens.yaml"
    file.write_text(TOKENS)
    return file


# ---- Tokens ----


def test_without_a_token_only_health_answers(serve: Serve, front: str, connect: Connect, file: Path) -> None:
    """nor with one that nobody has; on both ports, on either front, alike."""
    running = serve(tokens=str(file), front=front)
    for secrets in (Secrets(), Secrets(token="x" * 20), Secrets(token=WRITE[:-1]), Secrets(token=WRITE + "x")):
        data, admin = connect(running, secrets)
        assert {"UNAUTHENTICATED"} == {
            status(lambda data=data: data.admit(ADMIT)),
            status(lambda data=data: data.usage("demo-max")),
            status(admin.list_catalogs),
            status(lambda admin=admin: admin.import_accounts([])),
            status(lambda admin=admin: list(admin.dump_accounts())),
        }
    with pytest.raises(grpc.RpcError, match="authorization: a bearer token that the server knows is needed"):
        data.admit(ADMIT)

    for address in (running.addresses.data, running.addresses.control):
        with grpc.insecure_channel(address) as opened:
            answer = health_pb2_grpc.HealthStub(opened).Check(health_pb2.HealthCheckRequest(), timeout=5)
        assert health_pb2.HealthCheckResponse.SERVING == answer.status


def test_who_may_read_changes_nothing(serve: Serve, front: str, connect: Connect, file: Path) -> None:
    """Looking is allowed, all else is not, and is said so."""
    running = serve(tokens=str(file), front=front)
    data, admin = connect(running, Secrets(token=READ))

    assert {"OK"} == {
        status(lambda: data.peek(ADMIT)),
        status(lambda: data.usage("demo-max")),
        status(lambda: list(admin.list_accounts())),
        status(lambda: list(admin.dump_accounts())),
    }
    assert {"PERMISSION_DENIED"} == {
        status(lambda: data.admit(ADMIT)),
        status(lambda: data.admit_batch([ADMIT])),
        status(lambda: admin.put_account(admin_pb2.Account(id="ada", plan="max"))),
        status(lambda: admin.import_accounts([admin_pb2.Account(id="ada", plan="max")])),
        status(lambda: list(admin.backup())),
    }
    with pytest.raises(grpc.RpcError, match="authorization: the token's role is read; this method needs write"):
        data.admit(ADMIT)
    assert 0 == data.usage("demo-max").limits[0].used_micro


def test_who_may_write_may_do_all(serve: Serve, front: str, connect: Connect, file: Path) -> None:
    """on both ports."""
    data, admin = connect(serve(tokens=str(file), front=front), Secrets(token=WRITE))

    assert quota_pb2.ALLOWED == data.admit(ADMIT).verdict
    assert 1 == admin.import_accounts([admin_pb2.Account(id="ada", plan="max")]).loaded


def test_a_changed_file_is_read_again(
    serve: Serve, front: str, connect: Connect, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Who is in it from then on is let in; one that has become bad changes nothing, and is logged without its tokens."""
    running = serve(tokens=str(file), front=front)
    data, admin = connect(running, Secrets(token=WRITE))
    file.write_text(TOKENS.replace(WRITE, "A" * 30))
    assert "ok" == running.reload("tokens")
    assert {"UNAUTHENTICATED"} == {status(lambda: data.admit(ADMIT)), status(admin.list_catalogs)}
    file.write_text(TOKENS.replace(READ, "short"))
    assert "refused" == running.reload("tokens")
    data, admin = connect(running, Secrets(token="A" * 30))

    assert {"OK"} == {status(lambda: data.admit(ADMIT)), status(admin.list_catalogs)}
    problems = [record.problem for record in caplog.records if hasattr(record, "problem")]
    assert [f"setting tokens: {file}:2: token of 'board': allowed: 16 to 256 letters, digits and -._~+/="] == problems


def test_tokens_may_come_and_never_go(serve: Serve, front: str, connect: Connect, file: Path, tmp_path: Path) -> None:
    """A configuration file that names tokens has them asked for at once; one cut short does not let everybody in."""
    config = tmp_path / "quotad.yaml"
    running = serve(config=config, front=front)
    data, _ = connect(running, Secrets())
    with_token, _ = connect(running, Secrets(token=WRITE))
    before = status(lambda: data.admit(ADMIT))
    config.write_text(f"tokens: {file}\n")
    assert "ok" == running.reload("settings")
    after = (status(lambda: data.admit(ADMIT)), status(lambda: with_token.admit(ADMIT)))
    config.write_text("")

    assert "refused" == running.reload("settings")
    assert ("OK", "UNAUTHENTICATED", "OK") == (before, *after)
    assert "UNAUTHENTICATED" == status(lambda: data.admit(ADMIT))


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", READ, f"Basic {READ}", f"Bearer  {READ}", "Bearer é"]
)
def test_what_is_no_token(file: Path, header: str | None) -> None:
    """says nothing about who asks."""
    assert Role.NONE == Tokens(file).role_of(header)


def test_every_method_has_a_role() -> None:
    """Reading is what is told here; whatever comes anew needs write."""
    reading = {
        "Peek",
        "GetUsage",
        "GetAccount",
        "ListAccounts",
        "ListCatalogs",
        "CheckCatalog",
        "GetCapacity",
        "GetClock",
    }
    reading |= {"ListAudit", "DumpAccounts"}
    methods = [method for service in (QUOTA_SERVICE, ADMIN_SERVICE) for method in service.methods]

    assert reading == {
        it.name for it in methods if least_role(f"/{it.containing_service.full_name}/{it.name}") < Role.WRITE
    }
    assert Role.READ == least_role("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    assert Role.NONE == least_role("/grpc.health.v1.Health/Watch")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "1: no tokens; allowed: a list of"),
        ("[]", "1: no tokens; allowed: a list of"),
        ("tokens: []", "1: no tokens"),
        ("- [\n", "2: not YAML"),
        ("- x", "1: name is missing"),
        (f"- {{name: a, token: {WRITE}}}", "1: role is missing"),
        (f"\n- {{name: a, token: {WRITE}, role: admin}}", "2: role: 'admin' is not allowed; allowed: read, write"),
        ("- {name: a, token: tooshort, role: read}", "1: token of 'a': allowed: 16 to 256 letters"),
        ("- {name: a, token: 'with a space in it', role: read}", "1: token of 'a': allowed"),
        (f"- {{name: '', token: {WRITE}, role: read}}", "1: name: allowed: 1 to 128 bytes"),
        (f"- {{name: a, token: {WRITE}, role: read, more: 1}}", "1: allowed are name, token, role, each once"),
        (TOKENS.replace("board", "gateway"), "2: name: 'gateway' stands in line 1 already"),
        (TOKENS.replace(READ, WRITE), "2: token: another name has the same"),
        (
            "".join(f"- {{name: n{i}, token: {i:020}, role: read}}\n" for i in range(257)),
            " 257 tokens, 256 are allowed",
        ),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(serve: Serve, file: Path, text: str, words: str) -> None:
    """before anything is served; a token is never shown."""
    file.write_text(text)

    with pytest.raises(FailedPrecondition) as raised:
        serve(tokens=str(file))

    assert str(raised.value).startswith(f"setting tokens: {file}:{words}")
    assert WRITE not in str(raised.value)


# ---- TLS ----


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def tls(authority: Authority, **more: object) -> dict[str, object]:
    """Settings of both ports."""
    server = authority.sign("server", "DNS:localhost", "IP:127.0.0.1")
    chosen = {"tls_cert": str(server.cert), "tls_key": str(server.key), **more}
    return chosen | {f"admin_{key}": value for key, value in chosen.items()}


def both(clients: tuple[QuotaClient, AdminClient]) -> set[str]:
    """How a call on each port ends."""
    data, admin = clients
    return {status(lambda: data.usage("demo-max")), status(admin.list_catalogs)}


def test_tls_on_both_ports(serve: Serve, front: str, connect: Connect, authority: Authority, tmp_path: Path) -> None:
    """for those who trust the authority; not for those who do not, or who speak plainly."""
    running = serve(front=front, **tls(authority))
    ca = authority.pair.cert.read_bytes()
    other = Authority(tmp_path, "other").pair.cert.read_bytes()

    assert {"OK"} == both(connect(running, Secrets(ca=ca)))
    assert {"UNAVAILABLE"} == both(connect(running, Secrets(ca=other)))
    assert {"UNAVAILABLE"} == both(connect(running, Secrets()))


def test_tls_and_tokens_together(serve: Serve, front: str, connect: Connect, authority: Authority, file: Path) -> None:
    """Each asks for its own."""
    running = serve(front=front, tokens=str(file), **tls(authority))
    ca = authority.pair.cert.read_bytes()

    assert {"OK"} == both(connect(running, Secrets(ca=ca, token=READ)))
    assert {"UNAUTHENTICATED"} == both(connect(running, Secrets(ca=ca)))


def test_peers_show_certificates(
    serve: Serve, front: str, connect: Connect, authority: Authority, tmp_path: Path
) -> None:
    """signed by the authority, with one of the names that are allowed: a DNS name or a URI."""
    names = ("gateway.example", "spiffe://example/board")
    running = serve(front=front, **tls(authority, tls_client_ca=str(authority.pair.cert), tls_client_names=names))
    ca = authority.pair.cert.read_bytes()

    def with_cert(signer: Authority, name: str, *alternatives: str) -> set[str]:
        pair = signer.sign(name, *alternatives)
        secrets = Secrets(ca=ca, cert=pair.cert.read_bytes(), key=pair.key.read_bytes())
        return both(connect(running, secrets))

    assert {"OK"} == with_cert(authority, "gateway", "DNS:a.example", "DNS:gateway.example")
    assert {"OK"} == with_cert(authority, "board", "URI:spiffe://example/board")
    nameless = with_cert(authority, "nobody", "DNS:gateway", "email:gateway.example@example")
    assert ({"UNAUTHENTICATED"} if front == "grpcio" else {"UNAUTHENTICATED", "UNAVAILABLE"}) == nameless
    assert {"UNAVAILABLE"} == with_cert(Authority(tmp_path, "other"), "stranger", "DNS:gateway.example")
    assert {"UNAVAILABLE"} == both(connect(running, Secrets(ca=ca)))


def test_certificates_are_read_again(
    serve: Serve, front: str, connect: Connect, authority: Authority, tmp_path: Path
) -> None:
    """without a restart; bad ones change nothing."""
    chosen = tls(authority)
    running = serve(front=front, **chosen)
    before, after = authority.pair.cert.read_bytes(), Authority(tmp_path, "next")
    assert {"OK"} == both(connect(running, Secrets(ca=before)))
    cert, key = Path(str(chosen["tls_cert"])), Path(str(chosen["tls_key"]))
    cert.write_text("nothing of the kind")
    assert ("refused", "refused") == (running.reload("tls"), running.reload("admin_tls"))
    assert {"OK"} == both(connect(running, Secrets(ca=before)))
    renewed = after.sign("server", "DNS:localhost", "IP:127.0.0.1")
    cert.write_bytes(renewed.cert.read_bytes())
    key.write_bytes(renewed.key.read_bytes())
    assert ("ok", "ok") == (running.reload("tls"), running.reload("admin_tls"))

    assert {"OK"} == both(connect(running, Secrets(ca=after.pair.cert.read_bytes())))
    assert {"UNAVAILABLE"} == both(connect(running, Secrets(ca=before)))


def test_settings_that_do_not_go_together(authority: Authority, tmp_path: Path) -> None:
    """are refused by name, and files that cannot be used with their path."""
    good, other = authority.sign("good", "DNS:localhost"), authority.sign("else", "DNS:localhost")
    cert, key = str(good.cert), str(good.key)
    absent, text = str(tmp_path / "absent"), tmp_path / "text.pem"
    text.write_text("text")

    def told(prefix: str = "", **settings: object) -> str:
        chosen = Settings(**{f"{prefix}{name}": value for name, value in settings.items()})
        with pytest.raises((InvalidArgument, FailedPrecondition)) as raised:
            tls_files(chosen, prefix)
        return str(raised.value)

    assert told(tls_cert=cert) == "tls_key: '' is not allowed; allowed: the file with the key of tls_cert"
    assert told("admin_", tls_key=key).startswith("admin_tls_cert: '' is not allowed; allowed: the file")
    assert told(tls_client_ca=cert).startswith("tls_cert: '' is not allowed")
    assert told(tls_cert=cert, tls_key=key, tls_client_names=("a",)).startswith("tls_client_ca: '' is not allowed")
    assert told("admin_", tls_cert=absent, tls_key=key) == (
        f"setting admin_tls_cert: {absent}: cannot be read: No such file or directory"
    )
    assert told(tls_cert=cert, tls_key=str(other.key)).startswith(
        f"settings tls_cert and tls_key: {cert} and {other.key} are no certificate and its unencrypted key in PEM: "
    )
    assert told("admin_", tls_cert=cert, tls_key=key, tls_client_ca=str(text)).startswith(
        f"setting admin_tls_client_ca: {text}: no certificates in PEM"
    )
    assert tls_files(Settings()) is None


# ---- The command line ----


def test_commands_show_what_is_asked_for(
    serve: Serve, front: str, authority: Authority, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """by flags and from the environment; what cannot be read is named."""
    running = serve(front=front, tokens=str(file), **tls(authority, tls_client_ca=str(authority.pair.cert)))
    mine, token = authority.sign("mine", "DNS:mine"), tmp_path / "token"
    token.write_text(READ + "\n")
    shown = ("--ca", str(authority.pair.cert), "--cert", str(mine.cert), "--key", str(mine.key))
    usage = ("usage", "demo-max", "--server", running.addresses.data)

    def run(*arguments: str) -> tuple[int, str]:
        done = main(arguments)
        return done, capsys.readouterr().err

    assert (0, "") == run(*usage, *shown, "--token-file", str(token))
    assert (1, "quotad: UNAUTHENTICATED: authorization: a bearer token that the server knows is needed\n") == run(
        *usage, *shown
    )
    assert (1, "quotad: --cert and --key go together\n") == run(*usage, "--cert", str(mine.cert))
    assert (1, f"quotad: --ca {tmp_path}/none: cannot be read: No such file or directory\n") == run(
        *usage, "--ca", f"{tmp_path}/none"
    )
    for name, path in zip(("CA", "CERT", "KEY", "TOKEN_FILE"), (*shown[1::2], str(token)), strict=True):
        monkeypatch.setenv(f"QUOTAD_{name}", path)
    assert (0, "") == run(*usage)
    assert (0, "") == run("catalogs", "list", "--admin-server", running.addresses.control)


def test_client_variables_are_no_settings() -> None:
    """A server started in the same shell does not take them for mistakes."""
    loaded = settings.load({}, {f"QUOTAD_{name}": "x" for name in ("CA", "CERT", "KEY", "TOKEN_FILE", "TLS")})
    assert dataclasses.asdict(Settings()) == dataclasses.asdict(loaded.settings)
