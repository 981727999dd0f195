"""Hard worlds of our own, as Gymnasium ids: importing this package registers them.

`jepa_pretrain/FourRooms-v0`: doors that may be shut, and a distractor that wanders and teleports.
`jepa_pretrain/Fork-v0`: a short way on which chance may throw one into a pit, and a long safe one.

Both are numpy throughout and step any number of episodes at once: `gymnasium.make_vec` gives the vectorised world.
"""

import gymnasium

from jepa_pretrain.agent.worlds.fork import Chasm
from jepa_pretrain.agent.worlds.four_rooms import Rooms

HERE = "jepa_pretrain.agent.worlds.ground"

for _name, _world in (("FourRooms", Rooms), ("Fork", Chasm)):
    gymnasium.register(
        f"jepa_pretrain/{_name}-v0",
        entry_point=f"{HERE}:Single",
        vector_entry_point=f"{HERE}:Many",
        disable_env_checker=True,
        kwargs={"world": _world},
    )
