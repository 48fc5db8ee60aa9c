"""What to change when a step does not fit, and how many rows do."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from analysis.planning import largest
from errors import ConfigError
from experiments.planning.report import Plan, gib, table
from training.config_rules import check_together

Settings = dict[str, Any]
Step = tuple[str, dict[str, Any]]
OFFLOAD = {"strategy": "mesh", "offload": "moments"}
Planner = Callable[..., Plan]
Say = Callable[[str], None]


def _changed(settings: Mapping[str, Any], **options: Any) -> Settings:
    """The settings with other options of the model, "__" before fields of the whole config."""
    found = copy.deepcopy(dict(settings))
    model = found["model"].get("inner", found["model"])
    for name, value in options.items():
        if name.startswith("__"):
            found[name[2:]] = {**found[name[2:]], **value} if isinstance(value, dict) else value
        else:
            model[name] = value
    return found


def variants(settings: Mapping[str, Any], count: int) -> Iterator[tuple[str, Settings]]:
    """(what to say on the command line, settings), what costs least speed first."""
    model = settings["model"].get("inner", settings["model"])
    prefix = "--config.model.inner" if "inner" in settings["model"] else "--config.model"
    sharded = {"strategy": "mesh", "mesh": (1, count, 1)}
    apart = settings["parallel"]["strategy"] == "mesh" and settings["parallel"]["mesh"][1] > 1
    on_mesh = settings["parallel"]["strategy"] == "mesh"
    words = ["--config.parallel.strategy=mesh"] * (not on_mesh)
    kept = (" ".join([*words, "--config.parallel.offload=moments"]), {"__parallel": OFFLOAD})
    steps: list[Step] = []
    if model.get("dtype") == "float32":
        steps.append((f"{prefix}.dtype=bfloat16", {"dtype": "bfloat16"}))
    if count > 1 and not apart:
        steps.append((f"--mesh=1,{count},1", {"__parallel": sharded}))
    if model.get("remat") is False:
        steps.append((f"{prefix}.remat=true", {"remat": True}))
    for pieces in (2, 8):
        more = settings["accumulate"] * pieces
        steps.append((f"--config.accumulate={more}", {"__accumulate": more}))
    offload = [kept] if settings["parallel"]["offload"] == "none" else []
    yield from ((words, _changed(settings, **options)) for words, options in [*steps, *offload])
    both = [step for step in steps if "__accumulate" not in step[1]]
    for more in ([], steps[-1:], steps[-1:] + offload):
        if len(both) + len(more) > 1:
            yield _together(settings, [*both, *more])


def _together(settings: Mapping[str, Any], steps: Sequence[Step]) -> tuple[str, Settings]:
    """Several steps as one: each word once, the last value of a field."""
    options: dict[str, Any] = {}
    for _, step in steps:
        for name, value in step.items():
            both = isinstance(value, dict) and name in options
            options[name] = options[name] | value if both else value
    words = " ".join(words for words, _ in steps).split()
    return " ".join(dict.fromkeys(words)), _changed(settings, **options)


def what_to_change(settings: Settings, plan: Plan, planner: Planner, say: Say) -> None:
    """Memory of the variants; the first one that should fit is compiled."""
    ratio = plan.memory / plan.formula.memory
    rows, first = [["what to change", "GiB, about"]], None
    for words, changed in variants(settings, plan.target.num_chips):
        try:
            check_together(changed)
            memory = planner(changed, compiling=False).formula.memory * ratio
        except ConfigError:  # no such run, or rows that so many micro-batches do not divide
            continue
        rows.append([words, gib(memory)])
        if first is None and memory <= plan.limit:
            first = (words, changed)
    say("")
    for line in table(rows):
        say(line)
    if first is None:
        say("  None of these fits: take more chips, fewer rows, or a tensor axis (--mesh).")
        return
    found = planner(first[1])
    verdict = "fits" if found.fits else "does not fit either"
    how = "Compiled" if found.compiled else "By formula"
    say(f"  {how} with {first[0]}: {gib(found.memory)} of {gib(found.limit)} GiB: {verdict}")


def largest_batch(settings: Settings, plan: Plan, planner: Planner, say: Say) -> None:
    """Searches the most rows whose step fits, by compiling it."""
    given, field = plan.given, plan.given.rows_field
    per_row = settings["task"][field] / given.rows
    strategy = settings["parallel"]
    apart = plan.target.num_chips
    if strategy["strategy"] == "mesh":
        apart = plan.target.num_chips // strategy["mesh"][2]
    unit = apart * settings["accumulate"]

    def memory(rows: int) -> float:
        if rows == given.rows:
            return plan.memory
        task = {**settings["task"], field: int(rows * per_row)}
        found = planner({**settings, "task": task})
        say(f"  {rows:,} rows: {gib(found.memory)} GiB")
        return found.memory

    say("\nThe largest batch:")
    slope = plan.formula.activations / given.rows
    rows = largest(memory, plan.limit, unit, given.rows, slope)
    if rows:
        say(f"  {rows:,} rows: --config.task.{field}={int(rows * per_row)}")
    else:
        say(f"  not even {unit:,} rows fit.")
