"""Runs a graph under onnxruntime inside an emulated system, and marks each call for the counter outside it.

The far side of :mod:`grit.bench.targets.qemu`, run by the emulated system's own Python, so it knows nothing of grit.
A mark is the system call sched_yield: the counter writes down what it has counted so far, and nothing else here makes
that call. Marks: two in a row, whose distance is what a mark costs; then, a text, one before its first counted call
and one after each.

Arguments: a folder with model.onnx and feeds.npz (``TEXT.INPUT`` -> array), and the counted calls a text. Writes
logits.npy there: float32 [texts classes].
"""

import os
import sys
from pathlib import Path

import numpy as np
import onnxruntime

WARM_UP = 5  # calls until Python and onnxruntime have settled


def main(folder: Path, calls: int) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_quant_qdq", "1")  # as on the host
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    texts: dict[int, dict[str, np.ndarray]] = {}
    with np.load(folder / "feeds.npz") as feeds:
        for key in feeds.files:
            text, _, name = key.partition(".")
            texts.setdefault(int(text), {})[name] = feeds[key]
    mark, answers = os.sched_yield, []
    mark()
    mark()
    for _, feed in sorted(texts.items()):
        binding = session.io_binding()
        for name, value in feed.items():
            binding.bind_cpu_input(name, value)
        binding.bind_output("logits")
        for _ in range(WARM_UP):
            session.run_with_iobinding(binding)
        mark()
        for _ in range(calls):
            session.run_with_iobinding(binding)
            mark()
        answers.append(binding.copy_outputs_to_cpu()[0])
    np.save(folder / "logits.npy", np.concatenate(answers))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
