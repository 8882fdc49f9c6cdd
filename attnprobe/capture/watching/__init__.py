"""Foreign models as subjects: what they attend to is seen while their own kernels and masks do the work."""

from attnprobe.capture.watching.watched import ForeignLoss as ForeignLoss
from attnprobe.capture.watching.watched import watch as watch
