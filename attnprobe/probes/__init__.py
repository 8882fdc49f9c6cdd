"""What is measured on a trained model, with error bars: (model, data) -> numbers. One module per probe."""

from attnprobe.probes.statistics import Band as Band
from attnprobe.probes.statistics import Interval as Interval
from attnprobe.probes.statistics import Measurement as Measurement
from attnprobe.probes.statistics import rows_to_records as rows_to_records
