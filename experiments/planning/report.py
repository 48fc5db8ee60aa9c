"""A plan as text."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from analysis.planning import Roofline, budget, roofline, utilisation
from experiments.planning.compiler import Compiled, TooLarge
from experiments.planning.formulas import Formula
from experiments.planning.stand_in import StandIn
from experiments.planning.targets import Target

GIB = 2.0**30
# Whose counts a roofline is of.
FORMULA, UNFUSED, COMPILER = "by formula", "were all activations kept unfused", "by the compiler"


class Plan(NamedTuple):
    """All that is known of a run.

    Attributes:
        compiled: None where nothing was compiled; `by` says by what it was.
        mesh: how the devices are arranged, in words.
        tokens: of the whole run, or 0; hourly: the price of a chip-hour, or 0.
    """

    target: Target
    given: StandIn
    formula: Formula
    compiled: Compiled | TooLarge | None
    by: str
    float32: bool
    mesh: str
    tokens: float
    hourly: float

    @property
    def memory(self) -> float:
        """Bytes that a chip needs, by the compiler where there is one."""
        return self.formula.memory if self.compiled is None else self.compiled.memory

    @property
    def limit(self) -> float:
        """Bytes that a chip has for a program."""
        found = self.compiled
        return found.limit if isinstance(found, TooLarge) else self.target.chip.memory

    @property
    def fits(self) -> bool:
        return not isinstance(self.compiled, TooLarge) and self.memory <= self.limit

    def rooflines(self) -> dict[str, tuple[Roofline, float]]:
        """(roofline, MFU) by the counts of the formula, of the same if nothing were fused, and
        of the compiler where there is one."""
        formula, count, chip = self.formula, self.target.num_chips, self.target.chip
        sent = [(one.members, one.sent) for one in formula.exchanges]
        flops = formula.model_flops / count
        found = {
            FORMULA: roofline(chip, self.float32, flops, formula.bytes, sent),
            UNFUSED: roofline(chip, self.float32, flops, formula.unfused_bytes, sent),
        }
        if isinstance(self.compiled, Compiled) and self.compiled.program:
            sent = [(one.members, one.sent) for one in self.compiled.program.collectives]
            each = self.compiled.flops, self.compiled.bytes
            found[COMPILER] = roofline(chip, self.float32, *each, sent)
        return {
            name: (
                one,
                utilisation(chip, self.float32, formula.model_flops, one.seconds, count),
            )
            for name, one in found.items()
        }


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows as lines, the first column to the left and the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        yield "  ".join([f"  {row[0].ljust(widths[0])}", *cells]).rstrip()


def gib(size: float) -> str:
    return f"{size / GIB:.3f}" if size < 100 * GIB else f"{size / GIB:,.0f}"


def lines(plan: Plan) -> Iterator[str]:
    """The whole report, line by line."""
    given, target = plan.given, plan.target
    yield f"{target.name}: {target.num_chips:,} chips, {plan.mesh}; {target.chip.source}"
    yield (
        f"A step: {given.rows:,} rows, {given.tokens:,} tokens; vocabulary "
        f"{given.task.vocab_size:,}; compiled {plan.by}"
    )
    yield from _parts(plan.formula)
    yield from _memory(plan)
    yield from _exchanges(plan)
    yield from _times(plan)


def _parts(formula: Formula) -> Iterator[str]:
    """Parameters and FLOPs by part."""
    names = dict.fromkeys([*formula.parameters, *formula.flops])
    rows = [["part", "parameters", "FLOPs a step"]]
    for name in names:
        count, flops = formula.parameters.get(name, 0), formula.flops.get(name, 0)
        rows.append([name, f"{count:,.0f}", f"{flops:.3e}"])
    rows.append(["all", f"{formula.num_parameters:,.0f}", f"{formula.model_flops:.3e}"])
    yield from ["", *table(rows)]


def _memory(plan: Plan) -> Iterator[str]:
    formula, found = plan.formula, plan.compiled
    rows = [["memory of a chip, GiB", "formula", "compiler"]]
    rows += [[name, gib(size), ""] for name, size in formula.state.items()]
    arguments = gib(found.arguments) if isinstance(found, Compiled) else ""
    temporary = gib(found.temporary + found.code) if isinstance(found, Compiled) else ""
    rows.append(["state and batch", gib(sum(formula.state.values())), arguments])
    rows.append(["gradients", gib(formula.gradients), ""])
    rows.append(["activations", gib(formula.activations), ""])
    rows.append(["within the step", gib(formula.gradients + formula.activations), temporary])
    rows.append(["all", gib(formula.memory), gib(found.memory) if found else ""])
    kept = found.host if isinstance(found, Compiled) else 0.0
    if formula.host or kept:
        rows.append(["on the host", gib(formula.host), gib(kept) if kept else ""])
    yield from ["", *table(rows)]
    if formula.host:
        yield f"  In every step {gib(formula.host)} GiB come from the host, and as much goes back."
    verdict = "fits" if plan.fits else "DOES NOT FIT"
    share = plan.memory / plan.limit
    yield f"  {gib(plan.memory)} of {gib(plan.limit)} GiB ({share:.0%}): {verdict}"


def _exchanges(plan: Plan) -> Iterator[str]:
    rows = [["sent by a chip in a step", "chips", "number", "GiB"]]
    for one in plan.formula.exchanges:
        rows.append([f"formula: {one.what}, {one.kind}", f"{one.group}", "", gib(one.sent)])
    if isinstance(plan.compiled, Compiled) and plan.compiled.program:
        for found in plan.compiled.program.collectives:
            kind = f"program: {found.kind}"
            rows.append([kind, f"{found.group}", f"{found.number:,}", gib(found.sent)])
    if len(rows) > 1:
        yield from ["", *table(rows)]


def _times(plan: Plan) -> Iterator[str]:
    rows = [["milliseconds of a step, at least", "products", "memory", "network", "longest", "MFU"]]
    for name, (one, mfu) in plan.rooflines().items():
        times = [f"{1e3 * seconds:,.2f}" for seconds in (*one, one.seconds)]
        rows.append([name, *times, f"{mfu:.0%}"])
    yield from ["", *table(rows)]
    if isinstance(plan.compiled, Compiled):
        found, chip, count = plan.compiled, plan.target.chip, plan.target.num_chips
        if found.seconds:
            flops = plan.formula.model_flops
            mfu = utilisation(chip, plan.float32, flops, found.seconds, count)
            yield (
                f"  The compiler's cycles, without messages: {1e3 * found.seconds:,.2f} ms "
                f"(MFU {mfu:.0%})"
            )
        if found.optimal_seconds:
            yield f"  XLA's optimal_seconds: {1e3 * found.optimal_seconds:,.2f} ms"
        yield f"  Compiled in {found.compile_seconds:.0f} s{_loops(found)}"
    if plan.tokens:
        yield from _budget(plan)


def _loops(found: Compiled) -> str:
    if found.program is None:
        return "; its text cannot be read by this jaxlib: no messages, and no loops, are counted"
    times = ", ".join(map(str, sorted(set(found.program.loops), reverse=True)[:6]))
    return f"; bodies of loops ({times} times) count as often as they run" if times else ""


def _budget(plan: Plan) -> Iterator[str]:
    """The cost of the run at the roofline of the best counts, and at half of that speed."""
    found = plan.rooflines()
    one, _ = found.get(COMPILER, found[FORMULA])
    rows = [[f"{plan.tokens:,.0f} tokens", "steps", "days", "chip-hours", "price"]]
    for name, seconds in (("at the roofline", one.seconds), ("at half its speed", 2 * one.seconds)):
        run = budget(plan.tokens, plan.given.tokens, seconds, plan.target.num_chips, plan.hourly)
        price = f"{run.price:,.0f}" if plan.hourly else ""
        rows.append([name, f"{run.steps:,}", f"{run.days:,.2f}", f"{run.chip_hours:,.0f}", price])
    yield from ["", *table(rows)]
