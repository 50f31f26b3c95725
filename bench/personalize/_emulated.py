"""Runs the steps of head.c on an emulated core and counts: the far side of :mod:`grit.bench.personalize.costs`.

A program of its own (``python -m grit.bench.personalize._emulated``) for the reason that its neighbour in the room of
the targets is one: the emulator's licence. A job comes as JSON on standard input, counts leave on standard output.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grit.bench.targets._unicorn import PATTERN, RAM, STACK_TOP, Program

_ALIGNED = 64


def run(job: Mapping[str, Any]) -> dict[str, Any]:
    """job: elf, wide, model, head (hexadecimal), batches ([texts, hexadecimal] each): the head after all steps.

    Instructions a step, and the bytes of head, text, stack and code.
    """
    program = Program(Path(job["elf"]), job["wide"], job["model"])
    sizes = {name: program.word(f"grit_{name}_bytes") for name in ("head", "example")}
    examples = RAM + _rounded(sizes["head"])
    bottom = examples + _rounded(max(len(data) // 2 for _, data in job["batches"]))
    program.write(RAM, bytes.fromhex(job["head"]))
    program.write(bottom, PATTERN * (STACK_TOP - bottom))
    instructions = []
    for n, data in job["batches"]:
        program.write(examples, bytes.fromhex(data))
        program.call("grit_head_step", RAM, examples, n)
        instructions.append(program.instructions)
    used = program.read(bottom, STACK_TOP - bottom)
    return {
        "head": program.read(RAM, sizes["head"]).hex(),
        "instructions": instructions,
        "stack_bytes": len(used.lstrip(PATTERN)),
        "code_bytes": program.bytes["code"],
        "static_ram_bytes": program.bytes["static_ram"],
        **{f"{name}_bytes": size for name, size in sizes.items()},
    }


def _rounded(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED


if __name__ == "__main__":
    json.dump(run(json.load(sys.stdin)), sys.stdout)
