"""ListOps: the value of a nested expression over lists of digits."""

from attnprobe.tasks.listops.task import ListOps as ListOps
