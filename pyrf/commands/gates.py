"""`pyrf eval gates`: whether the ablation's claim can hold or fail on a run."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pyrf import printing
from pyrf.commands.options import check_named
from pyrf.commands.train import require_training
from pyrf.files import expanded


def gates(
    out: Annotated[Path, typer.Option(help="Folder in which the stages were trained.")],
    recipe: Annotated[str, typer.Option(help="The recipe that they were trained by.")] = "valley",
    stage: Annotated[
        str, typer.Option(help="Stage with a reward, whose teacher and student are looked at.")
    ] = "redmd",
    critic: Annotated[str, typer.Option(help="Stage that was run, whose critic is looked at.")] = "dmd",
    prompts: Annotated[int, typer.Option(help="Clips of teacher and student each, for the reward.")] = 96,
    captions: Annotated[int, typer.Option(help="Captions of which the spread is measured.")] = 16,
    seeds: Annotated[int, typer.Option(help="Seeds of each of these captions.")] = 8,
    rollouts: Annotated[int, typer.Option(help="Rollouts on which critics are compared.")] = 64,
    critic_steps: Annotated[int, typer.Option(help="Steps of the fresh critic, at most.")] = 300,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure what the ablation's claim needs, gate by gate; exit code 1 at the first that is not passed.

    The same command goes on where it stopped.
    """
    import logging

    check_named("--out", out)
    require_training()
    from pyrf.training.kinds import load_scratch_recipe
    from pyrf.training.study.gates import GATES, GateSettings, run_gates, table

    settings = GateSettings(prompts, captions, seeds, rollouts, critic_steps)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    found = []
    for gate in run_gates(load_scratch_recipe(recipe), Path(expanded(out)), stage, critic, settings):
        found.append(gate)
        verdict = "passed" if gate.passed else "NOT passed"
        printing.tell(f"gate {gate.name}, {verdict}: {gate.claim}. Measured on {gate.note}.")
    is_open = found[-1].passed
    if as_json:
        printing.deliver(json.dumps({"passed": is_open, "gates": [asdict(gate) for gate in found]}))
    else:
        left = GATES[len(found) :]
        end = f"\nstopped here; not measured: {', '.join(left)}" if left else ""
        printing.deliver(table(found) + end)
    if not is_open:
        raise typer.Exit(1)
