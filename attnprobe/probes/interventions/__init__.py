"""Does a model need its proximity bias, and what does it buy a model that lacks it?"""

from attnprobe.probes.interventions.probe import DoseResponse as DoseResponse
from attnprobe.probes.interventions.probe import dose_response as dose_response
from attnprobe.probes.interventions.probe import swap_response as swap_response
