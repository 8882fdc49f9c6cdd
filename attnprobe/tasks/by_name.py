"""Every task by its name. To add one, write a frozen dataclass with ``load`` and add one line here."""

from attnprobe.tasks.bidmc import BIDMC
from attnprobe.tasks.data import Task
from attnprobe.tasks.fashion_mnist import FashionMNIST
from attnprobe.tasks.images import Image, SequentialCIFAR
from attnprobe.tasks.listops import ListOps
from attnprobe.tasks.own.arrays import Arrays
from attnprobe.tasks.own.images import ImageFolder
from attnprobe.tasks.own.table import Table
from attnprobe.tasks.pathfinder import Pathfinder
from attnprobe.tasks.retrieval import Retrieval
from attnprobe.tasks.speech import SpeechCommands
from attnprobe.tasks.text import Text
from attnprobe.tasks.textures import Textures

TASKS: dict[str, type[Task]] = {
    "textures": Textures,
    "fashion-mnist": FashionMNIST,
    "listops": ListOps,
    "pathfinder": Pathfinder,
    "image": Image,
    "scifar": SequentialCIFAR,
    "text": Text,
    "retrieval": Retrieval,
    "speech-commands": SpeechCommands,
    "bidmc": BIDMC,
    "arrays": Arrays,
    "table": Table,
    "images": ImageFolder,
}
