"""The protos, and the code generated from them."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool

from quota.envoy import rls_pb2
from quota.types import Mode, Verdict
from quota.v1 import quota_pb2

ROOT = Path(__file__).parent.parent
PROTOS = sorted((ROOT / "proto").glob("**/*.proto"))
TOOLS = Path(os.environ.get("QUOTAD_PROTO_PYTHON", ROOT / ".venv-proto/bin/python"))
DECLARATION = re.compile(r"\s*(?:(?:service|rpc|message|enum|oneof) .*|[\w. ]+ = \d+;)")


@pytest.mark.skipif(not TOOLS.exists(), reason=f"the tools of `make proto` are not at {TOOLS}")
def test_generated_code_is_that_of_the_protos(tmp_path: Path) -> None:
    """generating anew, with the pinned tools, yields the committed files byte for byte."""
    environment = {**os.environ, "PROTO_PYTHON": str(TOOLS)}
    subprocess.run([".ci/proto", tmp_path], cwd=ROOT, check=True, env=environment, capture_output=True)

    generated, committed = (
        {str(path.relative_to(root)): path.read_text() for path in root.glob("quota/*/*_pb2*.py*")}
        for root in (tmp_path, ROOT)
    )

    assert sorted(committed) == sorted(generated)
    for name, text in generated.items():
        assert committed[name] == text, name


def test_envoy_s_messages_stay_out_of_the_pool_that_all_share() -> None:
    """a program that imports Envoy's own stubs finds their names free."""
    for name in ("envoy.service.ratelimit.v3.RateLimitRequest", "envoy.service.ratelimit.v3.RateLimitService"):
        with pytest.raises(KeyError):
            descriptor_pool.Default().FindFileContainingSymbol(name)
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindFileByName(rls_pb2.DESCRIPTOR.name)
    assert "google.protobuf.UInt64Value" == rls_pb2.RateLimitDescriptor().hits_addend.DESCRIPTOR.full_name


def test_verdicts_are_those_of_the_core() -> None:
    """names and numbers of verdicts are the same in the proto and in Python."""
    names = {verdict.name: verdict.value for verdict in Verdict}
    names["VERDICT_UNSPECIFIED"] = names.pop("UNSPECIFIED")

    assert names == dict(quota_pb2.Verdict.items())


def test_modes_are_those_of_the_core() -> None:
    """names and numbers of modes are the same in the proto and in Python."""
    assert {mode.name: mode.value for mode in Mode} == dict(quota_pb2.Mode.items())


@pytest.mark.parametrize("proto", PROTOS, ids=lambda path: path.name)
def test_every_declaration_has_a_comment(proto: Path) -> None:
    """the protos are the reference manual: what has no comment is not documented."""
    lines = proto.read_text().splitlines()
    declared = [number for number, line in enumerate(lines) if DECLARATION.fullmatch(line)]
    bare = [lines[number].strip() for number in declared if not lines[number - 1].strip().startswith("//")]

    assert len(declared) > 20
    assert [] == bare
