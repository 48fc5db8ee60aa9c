"""Which rows of a batch each process puts on its devices."""

import random
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

import data
from errors import ConfigError
from tests.data_cases import PAIR_OPTIONS, random_source
from training import cores, distributed
from training.parallel import PmapStrategy

EPOCHS, RESTARTS = 3, 50


def devices_of(processes: int, each: int) -> list:
    """Devices as JAX lists them."""
    return [
        SimpleNamespace(process_index=process, platform="tpu", number=number)
        for process in range(processes)
        for number in range(each)
    ]


def rows_on(
    batch: dict, processes: int, each: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[np.ndarray, np.ndarray]:
    """The numbers and the weights of the rows that the processes hold, one after the other."""
    parts = []
    for process in range(processes):
        peers = SimpleNamespace(process=process, number=processes)
        monkeypatch.setattr(distributed, "peers", peers)
        part = PmapStrategy(devices_of(processes, each), 1).put(batch)
        assert all(len(field) == each for field in part.values())
        parts.append(part)
    numbers = np.concatenate([part["index"].reshape(-1) for part in parts])
    weights = [part["weights"].reshape(-1, batch["weights"].shape[1]) for part in parts]
    return numbers, np.concatenate(weights)


def batches_of(kind: str, cache: object) -> data.Batches:
    source = random_source(num_train=600)
    made = (source, data.build_tokenizer({"name": "words"}, source, cache), cache)
    if kind == "pairs":
        return data.PairBatches(*made, **PAIR_OPTIONS | {"tokens_per_batch": 256, "max_length": 99})
    options = {"seed": 1, "sequence_length": 99, "sequences_per_batch": 8, "packed": False}
    return data.LanguageBatches(*made, **options)


@pytest.mark.parametrize("kind", ["pairs", "language"])
def test_every_example_is_seen_once_an_epoch_through_50_restarts_on_changing_hosts(
    kind, data_dir, monkeypatch
):
    batches, generator = batches_of(kind, data_dir), random.Random(7)
    per_epoch, examples = batches.num_batches("train"), range(batches.num_examples("train"))
    num_steps = EPOCHS * per_epoch
    stops = set(generator.sample(range(1, num_steps), RESTARTS))
    seen, step, hosts, redone, shapes = {}, 0, (1, 1), 0, set()
    while step < num_steps:
        if step in stops:
            stops.remove(step)
            hosts = generator.choice([1, 2, 3, 4, 6]), generator.choice([1, 2, 4])
            shapes.add(hosts)
            last_save = max(0, step - generator.randint(0, 3))
            redone, step = redone + step - last_save, last_save
        numbers, weights = rows_on(batches.batch("train", step), *hosts, monkeypatch)
        held = weights.any(axis=1)  # rows of weight 0 fill up what does not divide
        seen[step] = numbers[held]
        step += 1
    assert not stops
    assert redone
    assert len(shapes) > 5
    for epoch in range(EPOCHS):
        found = [seen[step] for step in range(epoch * per_epoch, (epoch + 1) * per_epoch)]
        assert Counter(np.concatenate(found).tolist()) == Counter(examples)
    print(f"{EPOCHS} epochs of {len(examples)}, {RESTARTS} restarts, {redone} steps again")


def test_each_process_lends_as_many_devices():
    found = devices_of(3, 4)
    assert cores.for_training(found, 0, 3) == found
    chosen = cores.for_training(found, 6, 3)
    assert [(d.process_index, d.number) for d in chosen] == [
        (process, number) for process in range(3) for number in range(2)
    ]
    with pytest.raises(ConfigError, match=r"num_devices \(4\) must be a multiple of .* 3\."):
        cores.for_training(found, 4, 3)
