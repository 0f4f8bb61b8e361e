"""The image: what the Dockerfile says, and that the files it copies are all that a build needs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from gateways.chart import CHART, ROOT, read_values

DOCKERFILE = (ROOT / "Dockerfile").read_text()
STAGES = re.split(r"^FROM .*$", DOCKERFILE, flags=re.MULTILINE)[1:]
COMPILERS = ("gcc", "libc6-dev", "-dev", "python3-pip", "cython")
BUILD_SECONDS_MAX = 600


def test_linter_is_silent():
    """hadolint finds nothing."""
    hadolint = Path(sys.executable).with_name("hadolint")
    ended = subprocess.run([hadolint, "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True, check=False)

    assert (0, "") == (ended.returncode, ended.stdout)


def test_last_stage_has_no_compiler():
    """What compiles is installed in the first stage, and only its result is copied."""
    building, running = STAGES

    assert [name for name in COMPILERS if name in running] == []
    assert [name for name in COMPILERS if name in building] == ["gcc", "libc6-dev", "-dev", "python3-pip"]
    assert ["--from=build /opt/quotad /opt/quotad"] == re.findall(r"^COPY (.*)", running, re.MULTILINE)


def test_user_is_the_charts():
    """The image runs as the number that the chart gives its volume to, unless told otherwise."""
    user = read_values(CHART / "values.yaml")["userId"]

    assert [f"{user}:{user}"] == re.findall(r"^USER (.*)", STAGES[-1], re.MULTILINE)
    assert f"install -d -o {user} -g {user} " in STAGES[-1]


def test_copied_files_are_enough(tmp_path):
    """A wheel can be built from what the Dockerfile copies, by its own command, and has the core and the catalogs in it."""
    copies = re.findall(r"^COPY (?!--from)(.*) (\S+)$", STAGES[0], re.MULTILINE)
    ignored = shutil.ignore_patterns("*.so", "__pycache__", "_core.c")
    for sources, target in copies:
        for source in sources.split():
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, tmp_path / target, ignore=ignored)
            else:
                shutil.copy(ROOT / source, tmp_path / target)
    assert "pip wheel --no-deps --wheel-dir /wheels ." in STAGES[0]
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "--wheel-dir", "wheels", "."],
        cwd=tmp_path, timeout=BUILD_SECONDS_MAX, check=True,
    )  # fmt: skip

    (wheel,) = (tmp_path / "wheels").glob("quotad-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert [name for name in names if name.startswith("quota/_core.") and name.endswith(".so")]
    assert "quota/catalog/shipped/glm-2026.yaml" in names
    assert not [name for name in names if name.endswith((".pyx", ".pxd")) or name.startswith(("core/", "tests/"))]
