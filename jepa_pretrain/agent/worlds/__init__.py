"""Worlds of our own, as Gymnasium ids: importing this package registers them.

`jepa_pretrain/FourRooms-v0`: doors that may be shut, and a distractor that wanders and teleports.
`jepa_pretrain/Rooms-v0`: the same with open doors, no distractor, and goals in a neighbouring room: an easy beginning.
`jepa_pretrain/RoomsSteps-v0`: the easy one with four actions to choose from.
`jepa_pretrain/Fork-v0`: a short way on which chance may throw one into a pit, and a long safe one.
`jepa_pretrain/ForkAnywhere-v0`: the same for recordings: one goal after another, anywhere around the rock.

All are numpy throughout and step any number of episodes at once: `gymnasium.make_vec` gives the vectorised world.
"""

import gymnasium

from jepa_pretrain.agent.worlds.choices import Choices
from jepa_pretrain.agent.worlds.fork import Chasm
from jepa_pretrain.agent.worlds.four_rooms import Rooms

HERE = "jepa_pretrain.agent.worlds.ground"
EASY = {"shut": 0.0, "rooms_away": 1, "distractor": False}

for _name, _settings in (
    ("FourRooms", {"world": Rooms}),
    ("Rooms", {"world": Rooms, **EASY}),
    ("Fork", {"world": Chasm}),
    ("ForkAnywhere", {"world": Chasm, "anywhere": True}),
):
    gymnasium.register(
        f"jepa_pretrain/{_name}-v0",
        entry_point=f"{HERE}:Single",
        vector_entry_point=f"{HERE}:Many",
        disable_env_checker=True,
        kwargs=_settings,
    )
gymnasium.register("jepa_pretrain/RoomsSteps-v0", entry_point=Choices, disable_env_checker=True,
                   kwargs={"world": Rooms, **EASY})  # fmt: skip
