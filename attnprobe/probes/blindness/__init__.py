"""Blindness of the labels to directions of the scores."""

from attnprobe.probes.blindness.directions import Claim as Claim
from attnprobe.probes.blindness.directions import default_claims as default_claims
from attnprobe.probes.blindness.probe import Certificate as Certificate
from attnprobe.probes.blindness.probe import measure as measure
from attnprobe.probes.blindness.rows import FIELDS as FIELDS
from attnprobe.probes.blindness.rows import BlindnessRow as BlindnessRow
