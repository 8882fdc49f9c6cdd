"""How strongly do pre-softmax scores prefer near keys?"""

from attnprobe.probes.proximity.pooled import pool as pool
from attnprobe.probes.proximity.probe import Proximity as Proximity
from attnprobe.probes.proximity.probe import measure as measure
