"""The command that goes on with prompts: text in, text out, and a sentence for what is wrong.

The model has random parameters; what a sample must be is the business of test_generation.py.
"""

import json
import os
import select

import numpy as np
import pytest
from translate_cases import digest

import data
import trained
from decoding.filters import Filters
from experiments import generate
from tasks.generation import Generator

PROMPTS = ["a b c", "", "d e f g h"]
FEW = "--max_new_tokens=6"


def run_command(capfdbinary, *arguments: str) -> tuple[int, str, str]:
    code = generate.main(arguments)
    found = capfdbinary.readouterr()
    return code, found.out.decode(), found.err.decode()


@pytest.fixture
def workdir(runs) -> str:
    return f"--workdir={runs['language-model']}"


def test_a_line_for_each_sample(runs, workdir, tmp_path, capfdbinary):
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(PROMPTS))
    before = digest(runs["language-model"])
    options = ["--temperature=0.8", "--top_k=20", "--top_p=0.95", "--min_p=0.001", "--seed=5"]
    options += ["--repetition_penalty=1.2", "--num_samples=2", "--stop=e", "--stop=q q", FEW]
    code, out, err = run_command(capfdbinary, workdir, f"--input={file}", *options)
    assert (code, err) == (0, "")
    run = trained.load_run(runs["language-model"], "language_model")
    generator = Generator(
        run.model,
        run.variables,
        run.tokenizer,
        filters=Filters(1.2, 0.8, 20, 0.95, 0.001),
        max_new_tokens=6,
        stop=("e", "q q"),
    )
    expected = generator.generate(PROMPTS, 2, 5)
    assert out.splitlines() == [sample.text for samples in expected for sample in samples]
    assert digest(runs["language-model"]) == before

    arguments = (workdir, f"--input={file}", *options, "--logprobs", "--batch_size=2")
    code, out, _ = run_command(capfdbinary, *arguments)
    records = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [record["prompt"] for record in records] == [p for p in PROMPTS for _ in range(2)]
    assert [(record["sample"], record["seed"]) for record in records] == [(0, 5), (1, 6)] * 3
    for record, sample in zip(records, [s for samples in expected for s in samples], strict=True):
        assert (record["ids"], record["text"], record["end"]) == (
            sample.ids,
            sample.text,
            sample.end,
        )
        np.testing.assert_allclose(record["log_probs"], sample.log_probs, atol=1e-5)
        np.testing.assert_allclose(record["drawn_log_probs"], sample.drawn_log_probs, atol=1e-5)


def test_log_probs_are_those_of_the_model(runs, workdir, capfdbinary):
    arguments = (workdir, "--prompt=a b", "--temperature=0", "--logprobs", FEW)
    _, out, _ = run_command(capfdbinary, *arguments)
    record = json.loads(out)
    run = trained.load_run(runs["language-model"], "language_model")
    ids = [data.BOS, *run.tokenizer.encode("a b"), *record["ids"]]
    ids += [data.EOS] * (record["end"] == "eos")
    logits_TV = np.array(run.model.apply(run.variables, np.array([ids[:-1]])))[0]
    log_probs_TV = logits_TV - np.log(np.exp(logits_TV).sum(-1, keepdims=True))
    new = ids[3:]
    expected = log_probs_TV[np.arange(2, len(ids) - 1), new]
    np.testing.assert_allclose(record["log_probs"], expected, atol=1e-5)
    logits_TV[:, [data.PAD, data.BOS]] = -np.inf
    assert logits_TV[2:].argmax(-1).tolist() == new


def test_a_terminal_gets_the_prompt_and_the_text_as_it_comes(runs, workdir, capfdbinary):
    """The same text as a pipe; read from a pseudo-terminal."""
    arguments = (workdir, "--prompt=a b", "--num_samples=2", "--seed=3", FEW)
    _, out, _ = run_command(capfdbinary, *arguments)
    leader, follower = os.openpty()
    with open(follower, "wb") as terminal, open(leader, "rb", buffering=0) as screen:
        generate.generate(generate.make_parser().read(arguments), terminal)
        shown = b""
        while shown.count(b"\n") < 2 and select.select([screen], [], [], 5)[0]:
            shown += screen.read(10_000)
    assert shown.decode().replace("\r\n", "\n") == "".join(
        f"a b{line}\n" for line in out.splitlines()
    )


def test_a_terminal_gets_no_commands(tmp_path):
    with open(tmp_path / "screen", "wb") as output:
        generate.say(output, "a\x1b[2J\x07\tb\n\x9bé")
    assert (tmp_path / "screen").read_text() == "a\ufffd[2J\ufffd\tb\n\ufffdé"


NUMBER = "must be a whole number of at least"
WRONG = [
    ("--num_samples=0", f"Argument --num_samples: {NUMBER} 1, got '0'."),
    ("--max_new_tokens=x", f"Argument --max_new_tokens: {NUMBER} 1, got 'x'."),
    ("--top_k=0", f"Argument --top_k: {NUMBER} 1, got '0'."),
    ("--temperature=-1", "Argument --temperature: must be a number of at least 0, got '-1'."),
    ("--top_p=1.1", "Argument --top_p: must be a number above 0 and at most 1, got '1.1'."),
    ("--min_p=nan", "Argument --min_p: must be a number above 0 and at most 1, got 'nan'."),
    ("--repetition_penalty=0", "Argument --repetition_penalty: must be a number above 0, got '0'."),
    ("--seed=4294967296", "Argument --seed: must be below 2^32, got 4294967296."),
    ("--stop=", "Argument --stop: must be a text that is not empty."),
    ("--input=x", "--prompt and --input: only one of them can be given."),
    ("--top_q=1", "Unknown argument: '--top_q'. Did you mean '--top_p'? Known: "),
    ("--checkpoint=7", "No checkpoint of step 7 in "),
]


@pytest.mark.parametrize(("argument", "sentence"), WRONG)
def test_wrong_arguments(workdir, argument, sentence, capfdbinary):
    code, out, err = run_command(capfdbinary, workdir, "--prompt=a", argument)
    assert (code, out) == (64, "")
    assert err.startswith(f"error: {sentence}")
    assert err.count("\n") == 1


def test_wrong_runs_and_files(runs, workdir, tmp_path, capfdbinary):
    nowhere = tmp_path / "nowhere"
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"a\n\xff\n")
    cases = [
        ([], 64, "The following arguments are required: --workdir."),
        ([f"--workdir={nowhere}", "--prompt=a"], 64, f"--workdir {nowhere} is not a run directory"),
        (
            [f"--workdir={runs['lstm']}", "--prompt=a"],
            64,
            f"--workdir {runs['lstm']} holds recurrent_seq2seq, a model of kind seq2seq; this "
            "needs kind language_model.",
        ),
        ([workdir, f"--input={nowhere}"], 65, f"{nowhere}: cannot be read: No such file"),
        ([workdir, f"--input={bad}"], 65, f"{bad}, line 2: not UTF-8"),
    ]
    for arguments, code, sentence in cases:
        got, out, err = run_command(capfdbinary, *arguments, FEW)
        assert (got, out) == (code, "")
        assert err.startswith(f"error: {sentence}"), err
        assert err.count("\n") == 1
    print(f"{len(cases)} cases")
