"""What probes look at: any model that can be run on sequences while its attention calls are watched."""

from attnprobe.capture.subject import Layer as Layer
from attnprobe.capture.subject import Loss as Loss
from attnprobe.capture.subject import Rotation as Rotation
from attnprobe.capture.subject import Subject as Subject
