"""`jepa-pretrain agent plan`: an agent tries a few episodes, one after the other, and says how each went."""

from rich.console import Console
from rich.table import Table

from jepa_pretrain.acting.episode import goal_of, place, pursue, trials_of
from jepa_pretrain.acting.load import load_mind
from jepa_pretrain.acting.search import OWN, Search, searching
from jepa_pretrain.acting.staged import staged_trials, undertaking


def plan(
    agent: str,
    env: str,
    episodes: int = 5,
    budget: int = 100,
    task: str | None = None,
    search: Search = OWN,
    variation: list[str] | None = None,
    seed: int = 0,
) -> None:
    """Let an agent try a few episodes; `agent eval` measures it over many.

    Args:
        agent: Folder of an agent, or of a world model.
        env: Gymnasium id of an environment that can be put at its goal; goals are shown to the agent as pictures.
        episodes: How many.
        budget: Steps that each may take.
        task: FILE.json:NAME, a task of several stages in place of drawn goals.
        search: How plans are searched for, in place of the agent's own way.
        variation: What varies beside positions in swm/TwoRoom-v1, such as door.position.
        seed: Names starts, goals, and what the planner draws.
    """
    mind = searching(load_mind(agent, seed), search)
    environments = place(mind, env)
    table = Table("episode", "outcome", "steps", "ms per action", "ms per decision", box=None)
    won = 0
    asked = undertaking(mind, task) if task else None
    places = asked is not None and not any(isinstance(one, str) for one in asked[0].goals)
    trials = staged_trials(environments, asked[0], episodes, seed) if places else None
    for number, trial in enumerate(trials or trials_of(environments, episodes, seed, variation)):
        goal = goal_of(environments, trial)
        ended = pursue(mind, environments, trial, budget, goal, stages=asked and asked[1:])
        won += ended.won
        outcome = (
            "reached" if ended.won else f"the environment threw: {ended.failed}" if ended.failed else "not reached"
        )
        taken = 1000 * ended.thinking
        table.add_row(str(number), outcome, str(ended.steps), f"{taken / max(ended.steps, 1):.2f}",
                      f"{taken / max(ended.decisions, 1):.1f}")  # fmt: skip
    environments.close()
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    console.print(f"{won} of {episodes} goals reached in {env} within {budget} steps")
