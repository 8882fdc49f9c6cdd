"""Do labels pull the attention scores where reconstruction pulls them, and could labels pull there at all?"""

from attnprobe.probes.alignment.probe import Alignment as Alignment
from attnprobe.probes.alignment.probe import measure as measure
from attnprobe.probes.alignment.rows import FIELDS as FIELDS
