"""Pathfinder: are two disks ends of one dashed contour?"""

from attnprobe.tasks.pathfinder.task import Pathfinder as Pathfinder
