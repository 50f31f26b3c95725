"""A guard in front of the build; everything else stands in pyproject.toml.

src/grit/{bench,attacks,models} are symbolic links to the folders at the top. A .zip download, or git with
core.symlinks=false, turns them into small text files, and setuptools would build an empty package from that.
Setuptools would also pack again what an earlier build left behind, so a model that was deleted since would still be
in the wheel.
"""

import shutil
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).resolve().parent
GRIT = HERE / "src" / "grit"
lost = [name for name in ("bench", "attacks", "models") if not (GRIT / name / "__init__.py").is_file()]
if lost:
    raise SystemExit(
        f"gritbench cannot be built: src/grit/{lost[0]} is not the link to the folder {lost[0]}/ that it should be. "
        "A .zip download or git without symbolic links loses it: clone with 'git clone -c core.symlinks=true' "
        "(on Windows inside WSL), or install a released archive."
    )
shutil.rmtree(HERE / "build" / "lib", ignore_errors=True)

setup()
