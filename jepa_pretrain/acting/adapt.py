"""An agent that learns from surprise."""

from jepa_pretrain.acting.steps import transitions
from jepa_pretrain.agent.actor import Decides
from jepa_pretrain.agent.adjusting import Adjusting
from jepa_pretrain.agent.adjustments import Settings
from jepa_pretrain.agent.agent import Agent
from jepa_pretrain.agent.learned import Learned
from jepa_pretrain.agent.surprise import Usual
from jepa_pretrain.agent.world_model import Ensemble
from jepa_pretrain.contracts import UserError
from jepa_pretrain.data.trajectories import read_episodes


def adjusting(mind: Agent, decides: Decides, data: str, seed: int, settings: Settings | None = None) -> Adjusting:
    """An actor whose world model is adjusted where the world surprises it.

    Args:
        mind: the agent; its world model is changed in place.
        decides: its actor.
        data: trajectory shards that are replayed; what is usual is measured on them unless the agent knows it.
        seed: of the batches.
        settings: when and how.

    Raises:
        UserError: an agent without a trained world model.
    """
    models = list(mind.model.models) if isinstance(mind.model, Ensemble) else [mind.model]
    if not all(isinstance(one, Learned) for one in models):
        raise UserError("only trained world models can be adjusted")
    recordings = transitions(mind.model, read_episodes(data))
    known = mind.configurator and mind.configurator.usual
    usual = known or Usual.of(mind.model, mind.cost, mind.task, recordings)
    parts = [one.world.dynamics for one in models]
    return Adjusting(decides, mind.model, parts, mind.cost, usual, recordings, settings, seed, mind.policy)
