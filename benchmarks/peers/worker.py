"""A side in a process of its own; see harness.Worker.

  python -m benchmarks.peers.worker '{"kind": "training", "workload": 0, "dropout_rate": 0.0}'

Each line of standard input asks for one piece of work; when it is done, its result goes out
as a line of JSON. What the frameworks print goes to standard error.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

from benchmarks import machine
from benchmarks.workloads import FAMILIES, ON_CPU
from training import memory


def training(workload: int, dropout_rate: float, compiled: bool = False) -> Callable[[], None]:
    """Updates of a model of workloads.ON_CPU."""
    from benchmarks.peers import build

    chosen = ON_CPU[workload].changed(dropout_rate=dropout_rate)
    step = build.step_for(chosen, build.model_for(chosen), compiled=compiled)

    def work() -> None:
        step()

    return work


def translation() -> Callable[[], list[list[int]]]:
    """Hugging Face's beam search over the sentences of benchmarks/translation.py."""
    from benchmarks import translation as job
    from benchmarks.peers import hugging_face

    model = hugging_face.marian(job.BLOCK, job.VOCAB_SIZE, job.SOURCE_LENGTH + job.TARGET_LENGTH)
    _, variables = job.fresh_model(job.BLOCK, job.VOCAB_SIZE)
    hugging_face.copy_to_marian(model, variables["params"])
    source_BS = job.sources(job.SENTENCES, job.SOURCE_LENGTH, job.VOCAB_SIZE)

    def work() -> list[list[int]]:
        found = hugging_face.generate(model, source_BS, job.NUM_BEAMS, job.TARGET_LENGTH)
        return found.tolist()

    return work


def generation() -> Callable[[], list[list[int]]]:
    """Hugging Face's greedy generation from the prompts of benchmarks/generation.py."""
    from benchmarks import generation as job
    from benchmarks import translation
    from benchmarks.peers import hugging_face

    _, variables = translation.fresh_model(job.BLOCK, job.VOCAB_SIZE)
    model = hugging_face.published(job.BLOCK, job.VOCAB_SIZE, variables["params"])
    prompts_BT = translation.sources(job.PROMPTS, job.PROMPT_LENGTH, job.VOCAB_SIZE)

    def work() -> list[list[int]]:
        return hugging_face.go_on(model, prompts_BT, job.NEW_TOKENS).tolist()

    return work


def family(workload: int, ours: bool) -> Callable[[], float]:
    """Updates of a model of workloads.FAMILIES, ours or Hugging Face's; each gives the most
    memory that the process has had, in GiB."""
    chosen = FAMILIES[workload].changed(dropout_rate=0.0)
    if ours:
        from benchmarks.ours import train_step

        step: Callable[[], Any] = train_step(chosen)
    else:
        from benchmarks.peers import hugging_face
        from benchmarks.peers.training import train_step as their_step

        model = hugging_face.published(chosen.model, chosen.vocab_size)
        step = their_step(model, hugging_face.loss_of(model, chosen))

    def work() -> float:
        step()
        return machine.peak_gib()

    return work


def recurrence(width: int) -> Callable[[], None]:
    """Forward and backward of the layer of benchmarks/recurrence.py."""
    import torch

    from benchmarks import recurrence as job

    layer = torch.nn.LSTM(width, width)
    x_TBD = torch.from_numpy(job.inputs(width)).requires_grad_()

    def work() -> None:
        layer.zero_grad()
        x_TBD.grad = None
        layer(x_TBD)[0].sum().backward()

    return work


KINDS: dict[str, Callable[..., Callable[[], Any]]] = {
    "family": family,
    "generation": generation,
    "recurrence": recurrence,
    "training": training,
    "translation": translation,
}


def main() -> None:
    """Serves until standard input ends."""
    wanted = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    if wanted.pop("keep_freed_memory", False):
        memory.keep_freed_memory()
    work = KINDS[wanted.pop("kind")](**wanted)
    for _ in sys.stdin:
        print(json.dumps(work()), file=answers, flush=True)


if __name__ == "__main__":
    main()
