"""What every room's tests stand on: where real data lies, which system tools are here, and quiet surroundings.

GRIT_DATA names a folder of real data sets; unset, the folder ../shared/data beside the checkout is taken where
there is one, else none, so that no test ever reaches for a network. GRIT_REQUIRE_TOOLS=1 (set by .ci/run) turns
"skipped: no chromium" into a failure.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

_beside = ROOT.parent / "shared" / "data"
if "GRIT_DATA" not in os.environ:
    os.environ["GRIT_DATA"] = str(_beside) if _beside.is_dir() else ""
os.environ["HF_HUB_OFFLINE"] = "1"  # where there is no network, the hub's library tries for half a minute

# The default run gives the same verdict every time; `--hypothesis-profile=long` goes looking for new examples.
settings.register_profile("default", deadline=None, derandomize=True, database=None, max_examples=60)
settings.register_profile("long", deadline=None, database=None, max_examples=2000)
settings.load_profile("default")

# tool -> (names it may have, Debian package)
_TOOLS = {
    "chromium": (("chromium", "chromium-browser", "google-chrome"), "chromium"),
    "chromedriver": (("chromedriver",), "chromium-driver"),
    "qemu-aarch64": (("qemu-aarch64", "qemu-aarch64-static"), "qemu-user"),
    "bwrap": (("bwrap",), "bubblewrap"),
    "sshd": (("sshd", "/usr/sbin/sshd"), "openssh-server"),
}


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout (never the installed package)."""
    return ROOT


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; skips where there is none."""
    named = os.environ["GRIT_DATA"]
    if not named or not Path(named).is_dir():
        pytest.skip("no real data sets: GRIT_DATA names no folder")
    return Path(named)


@pytest.fixture(scope="session")
def need_tool() -> Callable[[str], str]:
    """``need_tool("chromium")`` is the path of a system tool; without it the test skips, or fails in .ci/run."""

    def find(tool: str) -> str:
        names, package = _TOOLS[tool]
        path = next((found for name in names if (found := shutil.which(name))), None)
        reason = "" if path else f"{tool} is not installed (Debian package {package})"
        if path and tool == "bwrap":
            probe = [path, "--ro-bind", "/", "/", "--unshare-user", "--unshare-net", "true"]
            if subprocess.run(probe, capture_output=True, check=False).returncode:
                pytest.skip("bubblewrap is here, but the kernel lets it make no user namespace")
        if path:
            return path
        if os.environ.get("GRIT_REQUIRE_TOOLS") == "1":
            pytest.fail(f"{reason}, and GRIT_REQUIRE_TOOLS=1 asks for it")
        pytest.skip(reason)

    return find


@pytest.fixture
def no_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A machine without any data: GRIT_DATA set but empty, and an empty home; gives the home."""
    monkeypatch.setenv("GRIT_DATA", "")
    monkeypatch.delenv("NLTK_DATA", raising=False)
    monkeypatch.delenv("GRIT_HUB", raising=False)
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    if "nltk" in sys.modules:  # it remembers the folders that earlier tests have shown it
        monkeypatch.setattr("nltk.data.path", [])
    yield tmp_path / "home"
